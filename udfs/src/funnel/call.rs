//! Reading what the functions over a customer's steps are called with.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, RecordBatchOptions,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, FieldRef, IntervalMonthDayNano, IntervalUnit, Schema, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::logical_expr::function::AccumulatorArgs;

use super::dialect::Dialect;
use crate::BadArgument;

/// The value of an argument that must not depend on the row.
pub(crate) fn constant(
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

/// Whose rules a call follows: its first argument says so, where there is one that does.
pub(crate) fn dialect_of(
    function: &'static str,
    args: &AccumulatorArgs,
    is_given: bool,
) -> Result<Dialect> {
    if !is_given {
        return Ok(Dialect::Exact);
    }
    let name = constant(function, "dialect", args, 0)?;
    Dialect::named(function, name.try_as_str().flatten().unwrap_or_default())
}

/// The types of the arguments of a call.
pub(crate) fn types_of(fields: &[FieldRef]) -> Vec<DataType> {
    fields.iter().map(|field| field.data_type().clone()).collect()
}

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

/// So many units of a time column are a second on a timestamp, a day on a date, and one on a number.
pub(crate) fn units_of(time_type: &DataType) -> i64 {
    if matches!(time_type, DataType::Timestamp(..)) { US_PER_SECOND } else { 1 }
}

/// As [`window_in`], by our rules: a bare number is seconds on a timestamp, days on a date.
pub(crate) fn window_in_units_of(
    function: &'static str,
    argument: &'static str,
    window: &ScalarValue,
    time_type: &DataType,
) -> Result<i64> {
    window_in(Dialect::Exact, function, argument, window, time_type)
}

/// The window in the unit of the time column: microseconds, days, or the number as it is.
///
/// What a bare number is, the dialect says.
pub(crate) fn window_in(
    dialect: Dialect,
    function: &'static str,
    argument: &'static str,
    window: &ScalarValue,
    time_type: &DataType,
) -> Result<i64> {
    let bad = |problem: String| Err(BadArgument::err(function, argument, problem));
    let units = match (window, time_type) {
        (ScalarValue::Int64(Some(n)), _) => dialect.window_of_number(*n, time_type),
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

/// The type that a column of times is read as.
pub(crate) fn coerced_time(function: &'static str, given: &DataType) -> Result<DataType> {
    match given {
        DataType::Timestamp(_, zone) => {
            Ok(DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
        }
        DataType::Date32 | DataType::Date64 => Ok(DataType::Date32),
        t if t.is_integer() => Ok(DataType::Int64),
        other => Err(BadArgument::err(
            function,
            "time",
            format!("is {other}; a timestamp, a date or a whole number is needed"),
        )),
    }
}

/// The type that a span of time is read as, be it an interval or a number.
pub(crate) fn coerced_window(
    function: &'static str,
    argument: &'static str,
    given: &DataType,
) -> Result<DataType> {
    match given {
        DataType::Interval(_) | DataType::Duration(_) => {
            Ok(DataType::Interval(IntervalUnit::MonthDayNano))
        }
        t if t.is_integer() || t.is_null() => Ok(DataType::Int64),
        other => Err(BadArgument::err(
            function,
            argument,
            format!("is {other}; an INTERVAL or a whole number is needed"),
        )),
    }
}

/// A condition is a boolean; its number in the call is for the error.
pub(crate) fn coerced_condition(
    function: &'static str,
    number: usize,
    given: &DataType,
) -> Result<DataType> {
    match given {
        DataType::Boolean | DataType::Null => Ok(DataType::Boolean),
        other => Err(BadArgument::err(
            function,
            "conditions",
            format!("condition {number} is {other}; a boolean is needed"),
        )),
    }
}

/// The rows on which the first, the second ... element of lists holds.
pub(crate) fn gathered(lists: &ListArray) -> Vec<BooleanBuffer> {
    let offsets = lists.value_offsets();
    let values = true_rows(lists.values().as_boolean());
    let is_there = |row: usize| lists.is_valid(row);
    let steps = offsets.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
    let of_step = |step: i32| {
        BooleanBuffer::collect_bool(lists.len(), |row| {
            let at = offsets[row] + step;
            is_there(row) && at < offsets[row + 1] && values.value(at as usize)
        })
    };
    (0..steps).map(of_step).collect()
}

/// The rows on which each of some conditions holds.
pub(crate) fn listed(conditions: &[ArrayRef]) -> Vec<BooleanBuffer> {
    conditions.iter().map(|condition| true_rows(condition.as_boolean())).collect()
}

/// The rows on which none of some conditions is NULL.
pub(crate) fn all_known(conditions: &[ArrayRef]) -> BooleanBuffer {
    let rows = conditions.first().map_or(0, |condition| condition.len());
    let nulls = conditions.iter().filter_map(|condition| condition.nulls());
    nulls.fold(BooleanBuffer::new_set(rows), |known, valid| &known & valid.inner())
}

/// The rows on which no element of a list is NULL.
pub(crate) fn all_items_known(lists: &ListArray) -> BooleanBuffer {
    let (offsets, items) = (lists.value_offsets(), lists.values());
    BooleanBuffer::collect_bool(lists.len(), |row| {
        let mut own = offsets[row]..offsets[row + 1];
        lists.is_valid(row) && own.all(|at| items.is_valid(at as usize))
    })
}

/// Rows with a value that the FILTER clause keeps; `None` when that is every row.
pub(crate) fn kept_rows(
    valid: Option<&NullBuffer>,
    filter: Option<&BooleanArray>,
) -> Option<NullBuffer> {
    let filter = filter.map(|filter| NullBuffer::new(true_rows(filter)));
    NullBuffer::union(valid, filter.as_ref())
}

/// Rows on which the condition holds; NULL does not.
pub(crate) fn true_rows(condition: &BooleanArray) -> BooleanBuffer {
    match condition.nulls() {
        Some(valid) => condition.values() & valid.inner(),
        None => condition.values().clone(),
    }
}
