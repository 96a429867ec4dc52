//! The grouped state that `window_funnel` and `funnel_path` share, and the reading of their arguments.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Builder, ListArray, ListBuilder,
    PrimitiveArray, RecordBatch, RecordBatchOptions, StructArray, UInt32Builder,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int64Type, IntervalMonthDayNano, IntervalUnit, Schema,
    TimeUnit, UInt32Type,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{ColumnarValue, EmitTo, GroupsAccumulator};

use super::chain::{Order, Touch, best_chain, deepest_step};
use crate::BadArgument;

/// Position of each fixed argument; conditions follow.
const WINDOW: usize = 0;
const MODE: usize = 1;
const TIME: usize = 2;
pub(crate) const FIRST_CONDITION: usize = 3;

/// Modes of this version, named in the error for any other.
const MODES: &str = "default, strict_increase (or increase)";

/// What a funnel aggregate was called with.
#[derive(Debug, Clone)]
pub(crate) struct FunnelSpec {
    pub(crate) window: i64,
    pub(crate) order: Order,
    pub(crate) steps: usize,
    pub(crate) time_type: DataType,
}

impl FunnelSpec {
    /// Reads the constant arguments of `function` from its call.
    pub(crate) fn from_args(function: &'static str, args: &AccumulatorArgs) -> Result<Self> {
        let time_type = args.expr_fields[TIME].data_type().clone();
        let window = constant(function, "window", args, WINDOW)?;
        let mode = constant(function, "mode", args, MODE)?;
        Ok(Self {
            window: window_in_units_of(function, &window, &time_type)?,
            order: parse_mode(function, &mode)?,
            steps: args.exprs.len() - FIRST_CONDITION,
            time_type,
        })
    }
}

/// Types a call may have; an error names the first argument that cannot be used.
pub(crate) fn coerce(function: &'static str, types: &[DataType]) -> Result<Vec<DataType>> {
    if types.len() <= FIRST_CONDITION {
        return Err(BadArgument::err(
            function,
            "conditions",
            format!(
                "{} arguments given; write {function}(window, 'mode', time, condition, ...) with at least one condition",
                types.len()
            ),
        ));
    }
    let window = match &types[WINDOW] {
        DataType::Interval(_) | DataType::Duration(_) => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        t if t.is_integer() || t.is_null() => DataType::Int64,
        other => {
            return Err(BadArgument::err(
                function,
                "window",
                format!("is {other}; an INTERVAL or a whole number is needed"),
            ));
        }
    };
    let time = match &types[TIME] {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        t if t.is_integer() => DataType::Int64,
        other => {
            return Err(BadArgument::err(
                function,
                "time",
                format!("is {other}; a timestamp, a date or a whole number is needed"),
            ));
        }
    };
    let mut coerced = vec![window, DataType::Utf8, time];
    for (i, condition) in types[FIRST_CONDITION..].iter().enumerate() {
        if !matches!(condition, DataType::Boolean | DataType::Null) {
            return Err(BadArgument::err(
                function,
                "conditions",
                format!("condition {} is {condition}; a boolean is needed", i + 1),
            ));
        }
        coerced.push(DataType::Boolean);
    }
    Ok(coerced)
}

/// The value of an argument that must not depend on the row.
fn constant(
    function: &'static str,
    argument: &'static str,
    args: &AccumulatorArgs,
    position: usize,
) -> Result<ScalarValue> {
    let not_constant =
        || BadArgument::err(function, argument, "depends on the row; a constant is needed");
    let one_row = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(1)),
    )?;
    match args.exprs[position].evaluate(&one_row).map_err(|_| not_constant())? {
        ColumnarValue::Scalar(value) if value.is_null() => {
            Err(BadArgument::err(function, argument, "is NULL; a value is needed"))
        }
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(array) if array.len() == 1 && array.is_valid(0) => {
            ScalarValue::try_from_array(&array, 0)
        }
        ColumnarValue::Array(_) => Err(not_constant()),
    }
}

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

/// The window in the unit of the time column: microseconds, days, or the number as it is.
///
/// A bare number is seconds on a timestamp, days on a date.
fn window_in_units_of(
    function: &'static str,
    window: &ScalarValue,
    time_type: &DataType,
) -> Result<i64> {
    let bad = |problem: String| Err(BadArgument::err(function, "window", problem));
    let units = match (window, time_type) {
        (ScalarValue::Int64(Some(n)), DataType::Timestamp(..)) => n.checked_mul(US_PER_SECOND),
        (ScalarValue::Int64(Some(n)), _) => Some(*n),
        (ScalarValue::IntervalMonthDayNano(Some(i)), _) if i.months != 0 => {
            return bad(format!(
                "has {} month(s), whose length varies; give days, hours or seconds",
                i.months
            ));
        }
        (ScalarValue::IntervalMonthDayNano(Some(i)), DataType::Timestamp(..)) => interval_us(i),
        (ScalarValue::IntervalMonthDayNano(Some(i)), DataType::Date32) => match interval_us(i) {
            Some(us) if us % US_PER_DAY == 0 => Some(us / US_PER_DAY),
            _ => return bad("is not a whole number of days, but the time column is a date".into()),
        },
        (ScalarValue::IntervalMonthDayNano(Some(_)), _) => {
            return bad("is an interval, but the time column is a number; give a number".into());
        }
        (other, _) => {
            return bad(format!(
                "is {}; an INTERVAL or a whole number is needed",
                other.data_type()
            ));
        }
    };
    match units {
        Some(units) if units >= 0 => Ok(units),
        Some(_) => bad("is negative; it must be zero or more".into()),
        None => bad("is longer than 292,000 years".into()),
    }
}

fn interval_us(interval: &IntervalMonthDayNano) -> Option<i64> {
    i64::from(interval.days).checked_mul(US_PER_DAY)?.checked_add(interval.nanoseconds / 1000)
}

fn parse_mode(function: &'static str, mode: &ScalarValue) -> Result<Order> {
    let Some(Some(text)) = mode.try_as_str() else {
        return Err(BadArgument::err(
            function,
            "mode",
            format!("is {mode}; one of {MODES} is needed"),
        ));
    };
    let mut order = Order::Ascending;
    for word in text.split(',').map(str::trim) {
        match word {
            "default" | "" => {}
            "strict_increase" | "increase" => order = Order::StrictlyIncreasing,
            other => {
                return Err(BadArgument::err(
                    function,
                    "mode",
                    format!("{other:?} is not a mode; this version knows {MODES}"),
                ));
            }
        }
    }
    Ok(order)
}

/// What the aggregate answers for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The deepest step as INT.
    Level,
    /// A struct of the deepest step and the instants of the winning chain.
    Path,
}

/// Type of [`Answer::Path`] for a time column of type `time_type`.
pub(crate) fn path_type(time_type: &DataType) -> DataType {
    DataType::Struct(path_fields(time_type))
}

fn path_fields(time_type: &DataType) -> Fields {
    let item = Arc::new(Field::new("item", time_type.clone(), true));
    Fields::from(vec![
        Field::new("level", DataType::Int32, false),
        Field::new("times", DataType::List(item), false),
    ])
}

/// State columns: every touch of the group, as parallel lists of times and steps.
pub(crate) fn state_fields(name: &str) -> Vec<FieldRef> {
    let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
    vec![
        Arc::new(Field::new(format!("{name}[at]"), list(DataType::Int64), true)),
        Arc::new(Field::new(format!("{name}[step]"), list(DataType::UInt32), true)),
    ]
}

/// Every group's touches, unsorted until evaluated; group `g` is `groups[g]`.
pub(crate) struct Touches {
    spec: FunnelSpec,
    answer: Answer,
    groups: Vec<Vec<Touch>>,
    touches_capacity: usize,
}

impl Touches {
    pub(crate) fn new(spec: FunnelSpec, answer: Answer) -> Self {
        Self { spec, answer, groups: Vec::new(), touches_capacity: 0 }
    }

    fn push(&mut self, group: usize, touch: Touch) {
        let touches = &mut self.groups[group];
        let before = touches.capacity();
        touches.push(touch);
        self.touches_capacity += touches.capacity() - before;
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Vec<Touch>> {
        let taken = emit_to.take_needed(&mut self.groups);
        self.touches_capacity -= taken.iter().map(Vec::capacity).sum::<usize>();
        taken
    }
}

/// Times of a coerced time column in the unit of the window.
fn times_of(array: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
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
        self.groups.resize_with(total_num_groups, Vec::new);
        let times = times_of(&values[TIME])?;
        let holds: Vec<BooleanBuffer> =
            values[FIRST_CONDITION..].iter().map(|c| true_rows(c.as_boolean())).collect();
        let Some(mut any) = holds.iter().cloned().reduce(|a, b| &a | &b) else { return Ok(()) };
        if let Some(kept) = kept_rows(times.nulls(), opt_filter, times.len()) {
            any = &any & kept.inner();
        }
        // Row by row, so that rows that come in the order of time leave touches that need no sorting.
        for row in any.set_indices() {
            let (group, at) = (group_indices[row], times.value(row));
            for (i, holds) in holds.iter().enumerate() {
                if holds.value(row) {
                    self.push(group, Touch { at, step: i as u32 + 1 });
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = self.take(emit_to);
        let FunnelSpec { window, order, steps, time_type } = self.spec.clone();
        match self.answer {
            Answer::Level => {
                Ok(Arc::new(Int32Array::from_iter_values(groups.into_iter().map(|mut touches| {
                    sort(&mut touches);
                    deepest_step(&touches, steps, window, order) as i32
                }))))
            }
            Answer::Path => {
                let chains = groups.into_iter().map(|mut touches| {
                    sort(&mut touches);
                    best_chain(&touches, steps, window, order)
                });
                paths(chains.collect(), &time_type)
            }
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut at = ListBuilder::new(Int64Builder::new());
        let mut step = ListBuilder::new(UInt32Builder::new());
        for touches in self.take(emit_to) {
            for touch in touches {
                at.values().append_value(touch.at);
                step.values().append_value(touch.step);
            }
            at.append(true);
            step.append(true);
        }
        Ok(vec![Arc::new(at.finish()), Arc::new(step.finish())])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.groups.resize_with(total_num_groups, Vec::new);
        let [at, step] = values else { return Ok(()) };
        let (at, step) = (at.as_list::<i32>(), step.as_list::<i32>());
        for (row, &group) in group_indices.iter().enumerate() {
            let (at, step) = (at.value(row), step.value(row));
            let (at, step) = (at.as_primitive::<Int64Type>(), step.as_primitive::<UInt32Type>());
            for (&at, &step) in at.values().iter().zip(step.values()) {
                self.push(group, Touch { at, step });
            }
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values[TIME].len();
        let mut single = Self::new(self.spec.clone(), self.answer);
        let own_group: Vec<usize> = (0..rows).collect();
        single.update_batch(values, &own_group, opt_filter, rows)?;
        single.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.groups.capacity() * size_of::<Vec<Touch>>()
            + self.touches_capacity * size_of::<Touch>()
    }
}

/// Rows with a time that the FILTER clause keeps; `None` when that is every row.
fn kept_rows(
    valid: Option<&NullBuffer>,
    filter: Option<&BooleanArray>,
    len: usize,
) -> Option<NullBuffer> {
    let filter = filter.map(|filter| {
        NullBuffer::from_iter((0..len).map(|row| filter.is_valid(row) && filter.value(row)))
    });
    NullBuffer::union(valid, filter.as_ref())
}

/// Rows on which the condition holds; NULL does not.
fn true_rows(condition: &BooleanArray) -> BooleanBuffer {
    match condition.nulls() {
        Some(valid) => condition.values() & valid.inner(),
        None => condition.values().clone(),
    }
}

/// Puts touches in order of time and step, unless they came so, as they do from a clustered table.
fn sort(touches: &mut [Touch]) {
    if !touches.is_sorted() {
        touches.sort_unstable();
    }
}

fn paths(chains: Vec<Vec<i64>>, time_type: &DataType) -> Result<ArrayRef> {
    let levels = Int32Array::from_iter_values(chains.iter().map(|c| c.len() as i32));
    let offsets = OffsetBuffer::from_lengths(chains.iter().map(Vec::len));
    let flat: ArrayRef =
        Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(chains.into_iter().flatten()));
    let flat = match time_type {
        DataType::Date32 => {
            arrow::compute::cast(&arrow::compute::cast(&flat, &DataType::Int32)?, time_type)?
        }
        _ => arrow::compute::cast(&flat, time_type)?,
    };
    let item = Arc::new(Field::new("item", time_type.clone(), true));
    let times = ListArray::try_new(item, offsets, flat, None)?;
    let columns: Vec<ArrayRef> = vec![Arc::new(levels), Arc::new(times)];
    Ok(Arc::new(StructArray::try_new(path_fields(time_type), columns, None)?))
}
