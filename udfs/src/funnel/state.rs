//! The grouped state that the functions over a customer's steps share.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Builder, ListBuilder, PrimitiveArray,
    StringBuilder, StringViewArray, UInt8Builder, UInt32Builder,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt8Type, UInt32Type};
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::call::{kept_rows, true_rows};
use super::chain::Touch;
use crate::lists::{list_of, lists};
use crate::names::{NO_NAME, Names};
use crate::one_group::rows_as_states;

/// What one of the functions wants to know of each customer.
pub(crate) trait Question: Debug + Send + Sync {
    /// Place of the time among the arguments.
    fn time(&self) -> usize;

    /// The rows on which each condition holds.
    fn conditions(&self, values: &[ArrayRef]) -> Vec<BooleanBuffer>;

    /// Whether it matters which touches are of one row.
    fn needs_rows(&self) -> bool;

    /// Whether rows matter that satisfy no condition.
    fn needs_others(&self) -> bool;

    /// The rows that are seen, where others are as if they were not there; `None` is all.
    fn seen(&self, _values: &[ArrayRef]) -> Option<BooleanBuffer> {
        None
    }

    /// Places of the texts that are kept of each row; then it matters which touches are of one row.
    fn tags(&self) -> Range<usize> {
        0..0
    }

    /// The answers for customers, whose touches are sorted.
    fn answer(&self, customers: Vec<Customer>, names: &Names) -> Result<ArrayRef>;
}

/// One customer.
#[derive(Debug, Default)]
pub(crate) struct Customer {
    pub(crate) touches: Vec<Touch>,
    /// Numbers of the texts of the first row, of the second ...
    pub(crate) tags: Vec<u32>,
    /// Rows that have numbers, where rows matter.
    rows: u32,
    /// Whether rows were seen, and whether others were left out, where that matters.
    met: u8,
}

/// Of [`Customer::met`]: a row was seen.
const SEEN: u8 = 1;
/// Of [`Customer::met`]: a row was left out.
const LEFT_OUT: u8 = 2;

/// State columns: every touch of the group, as parallel lists of times, steps and, where they matter, rows and texts of rows;
/// and [`Customer::met`].
pub(crate) fn state_fields(name: &str) -> Vec<FieldRef> {
    vec![
        Arc::new(Field::new(format!("{name}[at]"), list_of(DataType::Int64), true)),
        Arc::new(Field::new(format!("{name}[step]"), list_of(DataType::UInt32), true)),
        Arc::new(Field::new(format!("{name}[row]"), list_of(DataType::UInt32), true)),
        Arc::new(Field::new(format!("{name}[tag]"), list_of(DataType::Utf8), true)),
        Arc::new(Field::new(format!("{name}[met]"), DataType::UInt8, true)),
    ]
}

impl Customer {
    /// Whether there were rows and all of them were left out.
    pub(crate) fn is_unknown(&self) -> bool {
        self.met == LEFT_OUT
    }

    fn bytes(&self) -> usize {
        self.touches.capacity() * size_of::<Touch>() + self.tags.capacity() * size_of::<u32>()
    }
}

/// Every group's touches, unsorted until evaluated; group `g` is `groups[g]`.
pub(crate) struct Touches {
    question: Arc<dyn Question>,
    groups: Vec<Customer>,
    names: Names,
    /// Bytes of touches and tags.
    bytes: usize,
}

impl Touches {
    pub(crate) fn new(question: Arc<dyn Question>) -> Self {
        Self { question, groups: Vec::new(), names: Names::default(), bytes: 0 }
    }

    fn push(&mut self, group: usize, touch: Touch) {
        let touches = &mut self.groups[group].touches;
        let before = touches.capacity();
        touches.push(touch);
        self.bytes += (touches.capacity() - before) * size_of::<Touch>();
    }

    fn tag(&mut self, group: usize, name: u32) {
        let tags = &mut self.groups[group].tags;
        let before = tags.capacity();
        tags.push(name);
        self.bytes += (tags.capacity() - before) * size_of::<u32>();
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Customer> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.bytes -= taken.iter().map(Customer::bytes).sum::<usize>();
        taken
    }

    /// Makes room for so many groups.
    pub(crate) fn grow(&mut self, groups: usize) {
        self.groups.resize_with(groups.max(self.groups.len()), Customer::default);
    }

    /// Where some rows are not seen, notes which groups have such and which have others.
    fn note_seen(
        &mut self,
        seen: &BooleanBuffer,
        timed: Option<&NullBuffer>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
    ) {
        let seen = timed.map_or(seen.clone(), |timed| seen & timed.inner());
        let kept = filter.map(true_rows);
        for (row, &group) in groups.iter().enumerate() {
            if kept.as_ref().is_none_or(|kept| kept.value(row)) {
                self.groups[group].met |= if seen.value(row) { SEEN } else { LEFT_OUT };
            }
        }
    }

    /// The number of a row of a group that is read now.
    fn number(&mut self, group: usize) -> u32 {
        if !self.question.needs_rows() {
            return 0;
        }
        let rows = &mut self.groups[group].rows;
        *rows += 1;
        *rows - 1
    }
}

/// Times of a coerced time column in the unit of the window.
pub(crate) fn times_of(array: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
    let cast = match array.data_type() {
        // A date is counted in days; Int32 first, because Date32 casts to milliseconds elsewhere.
        DataType::Date32 => {
            arrow::compute::cast(&arrow::compute::cast(array, &DataType::Int32)?, &DataType::Int64)?
        }
        _ => arrow::compute::cast(array, &DataType::Int64)?,
    };
    Ok(cast.as_primitive::<Int64Type>().clone())
}

impl GroupsAccumulator for Touches {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Customer::default);
        let times = times_of(&values[self.question.time()])?;
        let holds = self.question.conditions(values);
        let tags: Vec<&StringViewArray> =
            values[self.question.tags()].iter().map(|texts| texts.as_string_view()).collect();
        let seen = self.question.seen(values);
        if let Some(seen) = &seen {
            self.note_seen(seen, times.nulls(), group_indices, opt_filter);
        }
        let any = holds.iter().cloned().reduce(|a, b| &a | &b);
        let mut wanted = match any {
            _ if self.question.needs_others() => BooleanBuffer::new_set(times.len()),
            Some(any) => any,
            None => return Ok(()),
        };
        if let Some(kept) = kept_rows(times.nulls(), opt_filter) {
            wanted = &wanted & kept.inner();
        }
        if let Some(seen) = seen {
            wanted = &wanted & &seen;
        }
        // Row by row, so that rows that come in the order of time leave touches that need no sorting.
        for at_row in wanted.set_indices() {
            let (group, at) = (group_indices[at_row], times.value(at_row));
            let row = self.number(group);
            for texts in &tags {
                let name = self.names.number_at(texts, at_row);
                self.tag(group, name);
            }
            let mut is_step = false;
            for (i, holds) in holds.iter().enumerate() {
                if holds.value(at_row) {
                    self.push(group, Touch { at, step: i as u32 + 1, row });
                    is_step = true;
                }
            }
            if !is_step {
                self.push(group, Touch { at, step: 0, row });
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut customers = self.take(emit_to);
        customers.iter_mut().for_each(|customer| sort(&mut customer.touches));
        self.question.answer(customers, &self.names)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let has_rows = self.question.needs_rows();
        let mut at = ListBuilder::new(Int64Builder::new());
        let [mut step, mut row] = [0, 1].map(|_| ListBuilder::new(UInt32Builder::new()));
        let mut tag = ListBuilder::new(StringBuilder::new());
        let mut met = UInt8Builder::new();
        for group in self.take(emit_to) {
            for touch in group.touches {
                at.values().append_value(touch.at);
                step.values().append_value(touch.step);
                if has_rows {
                    row.values().append_value(touch.row);
                }
            }
            for name in group.tags {
                tag.values().append_option(self.names.text(name));
            }
            at.append(true);
            step.append(true);
            row.append(true);
            tag.append(true);
            met.append_value(group.met);
        }
        Ok(vec![
            Arc::new(at.finish()),
            Arc::new(step.finish()),
            Arc::new(row.finish()),
            Arc::new(tag.finish()),
            Arc::new(met.finish()),
        ])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Customer::default);
        let [at, steps, rows, tags, met] = values else { return Ok(()) };
        let (at, steps, rows) =
            (at.as_list::<i32>(), steps.as_list::<i32>(), rows.as_list::<i32>());
        let (tags, met) = (tags.as_list::<i32>(), met.as_primitive::<UInt8Type>());
        for (state, &group) in group_indices.iter().enumerate() {
            let (at, steps, rows) = (at.value(state), steps.value(state), rows.value(state));
            let rows = rows.as_primitive::<UInt32Type>().values();
            // Rows of another state are other rows.
            let before = self.groups[group].rows;
            let touches = at.as_primitive::<Int64Type>().values().iter();
            let touches = touches.zip(steps.as_primitive::<UInt32Type>().values());
            for (i, (&at, &step)) in touches.enumerate() {
                let row = rows.get(i).map_or(0, |row| before + row);
                self.push(group, Touch { at, step, row });
            }
            let added = rows.iter().max().map_or(0, |last| last + 1);
            self.groups[group].rows = before + added;
            self.groups[group].met |= met.value(state);
            let tags = tags.value(state);
            for text in tags.as_string::<i32>() {
                let name = text.map_or(NO_NAME, |text| self.names.number(text));
                self.tag(group, name);
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        rows_as_states(Self::new(Arc::clone(&self.question)), values, opt_filter)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.groups.capacity() * size_of::<Customer>()
            + self.bytes
            + self.names.bytes()
    }
}

/// Puts touches in order of time and step, unless they came so, as they do from a clustered table.
fn sort(touches: &mut [Touch]) {
    if !touches.is_sorted() {
        touches.sort_unstable();
    }
}

/// Type of a list of instants of a column of type `time_type`.
pub(crate) fn instants_type(time_type: &DataType) -> DataType {
    list_of(time_type.clone())
}

/// Times in the unit of the window as values of a time column.
pub(crate) fn as_times(times: ArrayRef, time_type: &DataType) -> Result<ArrayRef> {
    use arrow::compute::cast;
    Ok(match time_type {
        DataType::Date32 => cast(&cast(&times, &DataType::Int32)?, time_type)?,
        _ => cast(&times, time_type)?,
    })
}

/// Lists of instants as a column.
pub(crate) fn instants(of_each: Vec<Vec<i64>>, time_type: &DataType) -> Result<ArrayRef> {
    let times = PrimitiveArray::<Int64Type>::from_iter_values(of_each.iter().flatten().copied());
    lists(as_times(Arc::new(times), time_type)?, of_each.iter().map(Vec::len))
}
