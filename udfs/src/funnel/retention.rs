//! `retention(c1, c2, ...)`: which conditions a customer met, given that the first one was met.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int16Builder, ListBuilder};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::call::{all_known, coerced_condition, dialect_of, listed, true_rows, types_of};
use super::dialect::Dialect;
use crate::BadArgument;
use crate::one_group::{grouped_alone, rows_as_states};

const NAME: &str = "retention";

/// SMALLINT[]: element 1 is whether any row met `c1`; element i whether any row met `c1` and any row met `ci`.
///
/// The conditions may hold on different rows and in any time order. One or more conditions; NULL is false; a group
/// without rows gives zeros, never NULL. Memory is one byte a group and condition. The function is ClickHouse's and
/// Doris's of the same name, without their limit of 32 conditions. A [`Dialect`] may stand before the conditions: in those in which a row
/// with a NULL is not seen it is not, and Doris and Databend give NULL where no row was seen.
/// # Errors
/// [`BadArgument`] for a condition that is not boolean.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Retention {
    signature: Signature,
}

impl Retention {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::new()
    }
}

impl AggregateUDFImpl for Retention {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let dialects = dialects_among(arg_types);
        if arg_types.len() == dialects {
            return Err(BadArgument::err(
                NAME,
                "conditions",
                "none given; at least one boolean is needed",
            ));
        }
        let numbered = arg_types[dialects..].iter().enumerate();
        let conditions = numbered.map(|(i, given)| coerced_condition(NAME, i + 1, given));
        let dialect = arg_types[..dialects].iter().map(|_| Ok(DataType::Utf8));
        dialect.chain(conditions).collect()
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", DataType::Int16, true))))
    }

    fn is_nullable(&self) -> bool {
        // In a dialect in which rows are left out.
        true
    }

    /// Whether each condition was met, and whether a row was seen at all.
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let met = |i| Field::new(format!("{}[{i}]", args.name), DataType::Boolean, true);
        let conditions = args.input_fields.len() - dialects_among(&types_of(args.input_fields));
        Ok((0..=conditions).map(|i| Arc::new(met(i))).collect())
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let arguments_before = dialects_among(&types_of(args.expr_fields));
        let dialect = dialect_of(NAME, &args, arguments_before > 0)?;
        // One more than there are conditions: whether a row was seen.
        let met = vec![Vec::new(); args.exprs.len() - arguments_before + 1];
        Ok(Box::new(Met { dialect, arguments_before, met, groups_len: 0 }))
    }
}

/// How many arguments say whose rules are followed: one, if the first is a text, which a condition never is.
fn dialects_among(types: &[DataType]) -> usize {
    usize::from(types.first().is_some_and(DataType::is_string))
}

/// `met[c][g]`: whether group `g` has met condition `c`; the last one is that there was a row.
struct Met {
    dialect: Dialect,
    arguments_before: usize,
    met: Vec<Vec<bool>>,
    groups_len: usize,
}

impl Met {
    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<bool>> {
        let taken: Vec<Vec<bool>> =
            self.met.iter_mut().map(|met| emit_to.take_needed(met)).collect();
        self.groups_len = self.met.first().map_or(0, Vec::len);
        taken
    }

    fn grow(&mut self, groups_len: usize) {
        self.groups_len = groups_len;
        self.met.iter_mut().for_each(|met| met.resize(groups_len, false));
    }

    /// Notes where conditions hold, of the rows that are `kept`.
    fn note(&mut self, holds: &[BooleanBuffer], kept: Option<&BooleanBuffer>, groups: &[usize]) {
        for (met, holds) in self.met.iter_mut().zip(holds) {
            let holds = kept.map_or(holds.clone(), |kept| holds & kept);
            holds.set_indices().for_each(|row| met[groups[row]] = true);
        }
    }
}

impl GroupsAccumulator for Met {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let conditions = &values[self.arguments_before..];
        let known = match self.dialect.drops_unknown() {
            true => all_known(conditions),
            false => BooleanBuffer::new_set(group_indices.len()),
        };
        let kept = opt_filter.map_or(known.clone(), |filter| &known & &true_rows(filter));
        let mut holds = listed(conditions);
        holds.push(BooleanBuffer::new_set(group_indices.len()));
        self.note(&holds, Some(&kept), group_indices);
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        // ClickHouse's arrays are never NULL.
        let may_be_unknown = matches!(self.dialect, Dialect::Doris | Dialect::Databend);
        let mut met = self.take(emit_to);
        let seen = met.pop().unwrap_or_default();
        let mut lists = ListBuilder::new(Int16Builder::new());
        for group in 0..seen.len() {
            let is_known = seen[group] || !may_be_unknown;
            for condition in met.iter().filter(|_| is_known) {
                lists.values().append_value(i16::from(met[0][group] && condition[group]));
            }
            lists.append(is_known);
        }
        Ok(Arc::new(lists.finish()))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let met = self.take(emit_to);
        Ok(met.into_iter().map(|met| Arc::new(BooleanArray::from(met)) as ArrayRef).collect())
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        self.note(&listed(values), None, group_indices);
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let met = vec![Vec::new(); self.met.len()];
        rows_as_states(Self { met, groups_len: 0, ..*self }, values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.met.iter().map(Vec::capacity).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        AggregateCase::new("retention(k = 1, k = 2, k = 3)").agrees_however_it_is_run();
        AggregateCase::new("retention('doris', k = 1, k = 2)").agrees_however_it_is_run();
    }
}
