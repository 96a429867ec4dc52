//! Numbers of a group, gathered: what needs all of them at once is answered at the end.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::StateFieldsArgs;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use crate::funnel::call::kept_rows;
use crate::lists::{list_of, lists};
use crate::one_group::rows_as_states;

/// Numbers are compared and summed as DECIMAL(38,6).
pub(super) const COMPARED: DataType = DataType::Decimal128(38, 6);

/// Millionths as decimals.
pub(super) fn decimals(values: Vec<i128>) -> Result<ArrayRef> {
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(38, 6)?))
}

/// The column of a state.
pub(super) fn state_field(args: &StateFieldsArgs) -> FieldRef {
    Arc::new(Field::new(format!("{}[values]", args.name), list_of(COMPARED), true))
}

/// Every group's numbers, and what is answered of them.
pub(super) struct Gathered<F> {
    answer: F,
    groups: Vec<Vec<i128>>,
    /// How many there are in all groups.
    values: usize,
}

impl<F> Gathered<F>
where
    F: Fn(Vec<Vec<i128>>) -> Result<ArrayRef> + Clone + Send + 'static,
{
    /// None yet.
    pub(super) fn new(answer: F) -> Self {
        Self { answer, groups: Vec::new(), values: 0 }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<i128>> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.values -= taken.iter().map(Vec::len).sum::<usize>();
        taken
    }
}

impl<F> GroupsAccumulator for Gathered<F>
where
    F: Fn(Vec<Vec<i128>>) -> Result<ArrayRef> + Clone + Send + 'static,
{
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let numbers = values[0].as_primitive::<Decimal128Type>();
        let kept = kept_rows(numbers.nulls(), opt_filter);
        for (row, &group) in group_indices.iter().enumerate() {
            if kept.as_ref().is_none_or(|kept| kept.is_valid(row)) {
                self.groups[group].push(numbers.value(row));
                self.values += 1;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = self.take(emit_to);
        (self.answer)(groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let taken = self.take(emit_to);
        let lengths: Vec<usize> = taken.iter().map(Vec::len).collect();
        Ok(vec![lists(decimals(taken.concat())?, lengths)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let [states] = values else { return Ok(()) };
        for (state, &group) in group_indices.iter().enumerate() {
            let values = states.as_list::<i32>().value(state);
            let values = values.as_primitive::<Decimal128Type>().values();
            self.groups[group].extend_from_slice(values);
            self.values += values.len();
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        rows_as_states(Self::new(self.answer.clone()), values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.groups.capacity() * size_of::<Vec<i128>>()
            + self.values * 2 * size_of::<i128>()
    }
}
