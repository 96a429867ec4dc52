//! `retention(c1, c2, ...)`: which conditions a customer met, given that the first one was met.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int16Builder, ListBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::call::coerced_condition;
use crate::BadArgument;
use crate::one_group::{grouped_alone, rows_as_states};

const NAME: &str = "retention";

/// SMALLINT[]: element 1 is whether any row met `c1`; element i whether any row met `c1` and any row met `ci`.
///
/// The conditions may hold on different rows and in any time order. One or more conditions; NULL is false; a group
/// without rows gives zeros, never NULL. Memory is one byte a group and condition. The function is ClickHouse's and
/// Doris's of the same name, without their limit of 32 conditions.
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
        if arg_types.is_empty() {
            return Err(BadArgument::err(
                NAME,
                "conditions",
                "none given; at least one boolean is needed",
            ));
        }
        let numbered = arg_types.iter().enumerate();
        numbered.map(|(i, condition)| coerced_condition(NAME, i + 1, condition)).collect()
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", DataType::Int16, true))))
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let met = |i| Field::new(format!("{}[{i}]", args.name), DataType::Boolean, true);
        Ok((0..args.input_fields.len()).map(|i| Arc::new(met(i))).collect())
    }

    grouped_alone!();

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Met { conditions: vec![Vec::new(); args.exprs.len()], groups_len: 0 }))
    }
}

/// `conditions[c][g]`: whether group `g` has met condition `c`.
struct Met {
    conditions: Vec<Vec<bool>>,
    groups_len: usize,
}

impl Met {
    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<bool>> {
        let taken: Vec<Vec<bool>> =
            self.conditions.iter_mut().map(|met| emit_to.take_needed(met)).collect();
        self.groups_len = self.conditions.first().map_or(0, Vec::len);
        taken
    }

    fn set_where_true(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        groups_len: usize,
    ) {
        self.groups_len = groups_len;
        for met in &mut self.conditions {
            met.resize(groups_len, false);
        }
        for (met, condition) in self.conditions.iter_mut().zip(values) {
            let condition = condition.as_boolean();
            for row in condition.values().set_indices() {
                let kept = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
                if condition.is_valid(row) && kept {
                    met[groups[row]] = true;
                }
            }
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
        self.set_where_true(values, group_indices, opt_filter, total_num_groups);
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let met = self.take(emit_to);
        let mut lists = ListBuilder::new(Int16Builder::new());
        for group in 0..met[0].len() {
            for condition in &met {
                lists.values().append_value(i16::from(met[0][group] && condition[group]));
            }
            lists.append(true);
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
        self.set_where_true(values, group_indices, None, total_num_groups);
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let single = Self { conditions: vec![Vec::new(); values.len()], groups_len: 0 };
        rows_as_states(single, values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.conditions.iter().map(Vec::capacity).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::AggregateCase;

    #[test]
    fn states_merge() {
        AggregateCase::new("retention(k = 1, k = 2, k = 3)").agrees_however_it_is_run();
    }
}
