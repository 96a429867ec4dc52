//! `bitmap_agg(id)`, `bitmap_or_agg(set)` and `bitmap_and_agg(set)`: the set of a group's ids, and of its sets.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use roaring::RoaringTreemap;

use super::bitmap::{id_of, read, written};
use crate::BadArgument;
use crate::funnel::call::true_rows;
use crate::one_group::{grouped_alone, rows_as_states};

/// What is gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gathers {
    /// Ids.
    Ids,
    /// Sets: who is in one of them.
    Union,
    /// Sets: who is in all of them.
    Intersection,
}

impl Gathers {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ids, Self::Union, Self::Intersection];

    fn name(self) -> &'static str {
        match self {
            Self::Ids => "bitmap_agg",
            Self::Union => "bitmap_or_agg",
            Self::Intersection => "bitmap_and_agg",
        }
    }
}

/// BYTEA: a roaring bitmap of 64 bits, in the portable form. `bitmap_agg` of ids from 0 on, each counted once; `bitmap_or_agg` and
/// `bitmap_and_agg` of such sets. A NULL is not counted; NULL without any. The same bytes in any order and partitioning.
/// # Errors
/// [`BadArgument`] for an id below 0, and for bytes that are no bitmap.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct BitmapAgg {
    gathers: Gathers,
    signature: Signature,
}

impl BitmapAgg {
    /// The function, ready to be registered.
    pub fn new(gathers: Gathers) -> Self {
        Self { gathers, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for BitmapAgg {
    fn name(&self) -> &str {
        self.gathers.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.gathers, types) {
            (Gathers::Ids, [id]) if id.is_integer() || id.is_null() => Ok(vec![DataType::Int64]),
            (Gathers::Union | Gathers::Intersection, [set]) if set.is_binary() || set.is_null() => {
                Ok(vec![DataType::Binary])
            }
            (Gathers::Ids, _) => Err(BadArgument::err(
                self.gathers.name(),
                "arguments",
                "one id is needed, a whole number",
            )),
            _ => Err(BadArgument::err(self.gathers.name(), "arguments", "one bitmap is needed")),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[set]", args.name), DataType::Binary, true))])
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        _args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Sets { gathers: self.gathers, groups: Vec::new(), ids: 0 }))
    }
}

fn size_of_set(set: &RoaringTreemap) -> usize {
    usize::try_from(set.len()).unwrap_or(usize::MAX)
}

/// The set of each group; `None` before anything has come.
struct Sets {
    gathers: Gathers,
    groups: Vec<Option<RoaringTreemap>>,
    /// How many ids are in all of them, from which the memory is told.
    ids: usize,
}

impl Sets {
    fn meet(&mut self, group: usize, set: RoaringTreemap) {
        let known = &mut self.groups[group];
        let before = known.as_ref().map_or(0, size_of_set);
        match (known.as_mut(), self.gathers) {
            (None, _) => *known = Some(set),
            (Some(known), Gathers::Intersection) => *known &= set,
            (Some(known), _) => *known |= set,
        }
        self.ids = self.ids - before + known.as_ref().map_or(0, size_of_set);
    }

    fn emitted(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        self.ids -= groups.iter().flatten().map(size_of_set).sum::<usize>();
        let sets = groups.iter().map(|set| set.as_ref().map(written).transpose());
        let sets = sets.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(sets.iter().map(|set| set.as_deref()).collect::<BinaryArray>()))
    }
}

impl GroupsAccumulator for Sets {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, || None);
        let kept = opt_filter.map(true_rows);
        for (row, &group) in group_indices.iter().enumerate() {
            if values[0].is_null(row) || kept.as_ref().is_some_and(|kept| !kept.value(row)) {
                continue;
            }
            match self.gathers {
                Gathers::Ids => {
                    let id = values[0].as_primitive::<Int64Type>().value(row);
                    let id = id_of(self.gathers.name(), id)?;
                    let is_new = self.groups[group].get_or_insert_default().insert(id);
                    self.ids += usize::from(is_new);
                }
                _ => {
                    let set = read(self.gathers.name(), values[0].as_binary::<i32>().value(row))?;
                    self.meet(group, set);
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.emitted(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.emitted(emit_to)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, || None);
        let [states] = values else { return Ok(()) };
        let states = states.as_binary::<i32>();
        for (row, &group) in group_indices.iter().enumerate() {
            if states.is_valid(row) {
                let set = read(self.gathers.name(), states.value(row))?;
                self.meet(group, set);
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let single = Self { gathers: self.gathers, groups: Vec::new(), ids: 0 };
        rows_as_states(single, values, opt_filter)
    }

    fn size(&self) -> usize {
        // Ids that are hashes lie far apart: each has a container of its own.
        const BYTES_AN_ID: usize = 48;
        size_of_val(self)
            + self.groups.capacity() * size_of::<Option<RoaringTreemap>>()
            + self.ids.saturating_mul(BYTES_AN_ID)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    #[test]
    fn sets_merge() {
        AggregateCase::new("bitmap_agg(k)").agrees_however_it_is_run();
        AggregateCase::new("bitmap_or_agg(bitmap_build([k, k + 7]))").agrees_however_it_is_run();
        AggregateCase::new("bitmap_and_agg(bitmap_build([k, 3]))").agrees_however_it_is_run();
    }
}
