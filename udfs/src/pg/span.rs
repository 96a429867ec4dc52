//! Arithmetic with intervals that the engine has not: `interval * number`, and an instant plus days of its zone.

use std::sync::Arc;

use arrow::array::{AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use chrono::{DateTime, Months};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::zone::{US_PER_DAY, ZoneClock, parse_zone};
use crate::BadArgument;

const SPAN: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

fn out_of_range(what: &str) -> ArrowError {
    ArrowError::ArithmeticOverflow(format!("{what} out of range"))
}

/// `interval_times(span, n)`: PostgreSQL's `span * n`. A part of a month becomes days (30 a month), a part of a day time.
///
/// NULL in, NULL out.
/// # Errors
/// 22003 when a field leaves its range.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct IntervalTimes {
    signature: Signature,
}

impl IntervalTimes {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let signature = Signature::exact(vec![SPAN, DataType::Float64], Volatility::Immutable);
        Self { signature }
    }
}

impl Default for IntervalTimes {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for IntervalTimes {
    fn name(&self) -> &str {
        "interval_times"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(SPAN)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let spans = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
        let numbers = arrays[1].as_primitive::<Float64Type>();
        let mut products = Vec::with_capacity(spans.len());
        for (span, n) in spans.iter().zip(numbers) {
            products.push(match (span, n) {
                (Some(span), Some(n)) => Some(times(span, n)?),
                _ => None,
            });
        }
        Ok(ColumnarValue::Array(Arc::new(IntervalMonthDayNanoArray::from(products))))
    }
}

fn times(span: IntervalMonthDayNano, n: f64) -> Result<IntervalMonthDayNano, ArrowError> {
    const NANOS_PER_DAY: f64 = 86_400e9;
    let months = f64::from(span.months) * n;
    let days = f64::from(span.days) * n + (months - months.trunc()) * 30.0;
    let nanos = span.nanoseconds as f64 * n + (days - days.trunc()) * NANOS_PER_DAY;
    let fits = |value: f64, most: f64| value.is_finite() && value.abs() <= most;
    if !fits(months, f64::from(i32::MAX))
        || !fits(days, f64::from(i32::MAX))
        || !fits(nanos, 9.2e18)
    {
        return Err(out_of_range("interval"));
    }
    // Microseconds are the finest that PostgreSQL has.
    let nanos = (nanos / 1000.0).round() as i64 * 1000;
    Ok(IntervalMonthDayNano::new(months.trunc() as i32, days.trunc() as i32, nanos))
}

/// `timestamptz_add(at, span, zone)`: months and days are those of the zone's calendar, hours are hours.
///
/// So a day may have 23 or 25 hours, as in PostgreSQL; the engine counts in UTC. NULL in, NULL out.
/// # Errors
/// 22003 when the result leaves the calendar.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TimestamptzAdd {
    signature: Signature,
}

impl TimestamptzAdd {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let signature = Signature::exact(vec![at, SPAN, DataType::Utf8], Volatility::Immutable);
        Self { signature }
    }
}

impl Default for TimestamptzAdd {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for TimestamptzAdd {
    fn name(&self) -> &str {
        "timestamptz_add"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(zone) = &args.args[2] else {
            return Err(BadArgument::err("timestamptz_add", "zone", "a constant is needed"));
        };
        let zone = parse_zone("timestamptz_add", zone.try_as_str().flatten().unwrap_or("UTC"))?;
        let mut clock = ZoneClock::new(zone);
        let arrays = ColumnarValue::values_to_arrays(&args.args[..2])?;
        let times = arrays[0].as_primitive::<TimestampMicrosecondType>();
        let spans = arrays[1].as_primitive::<IntervalMonthDayNanoType>();
        let mut sums = Vec::with_capacity(times.len());
        for (at, span) in times.iter().zip(spans) {
            sums.push(match (at, span) {
                (Some(at), Some(span)) => {
                    Some(add(&mut clock, at, span).ok_or_else(|| out_of_range("timestamp"))?)
                }
                _ => None,
            });
        }
        let sums = TimestampMicrosecondArray::from(sums).with_data_type(args.return_type().clone());
        Ok(ColumnarValue::Array(Arc::new(sums)))
    }
}

fn add(clock: &mut ZoneClock, at: i64, span: IntervalMonthDayNano) -> Option<i64> {
    let mut instant = at;
    if span.months != 0 || span.days != 0 {
        let local = DateTime::from_timestamp_micros(clock.local(at))?.naive_utc();
        let months = Months::new(span.months.unsigned_abs());
        let moved = if span.months < 0 {
            local.checked_sub_months(months)?
        } else {
            local.checked_add_months(months)?
        };
        let days = i64::from(span.days).checked_mul(US_PER_DAY)?;
        instant = clock.instant(moved.and_utc().timestamp_micros().checked_add(days)?);
    }
    instant.checked_add(span.nanoseconds / 1000)
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;

    /// Each expectation was read off PostgreSQL 15.18.
    #[test]
    fn spans_are_multiplied_as_postgresql_does() {
        let span = |m, d, s: i64| IntervalMonthDayNano::new(m, d, s * 1_000_000_000);
        assert_eq!(times(span(0, 1, 0), 30.0).unwrap(), span(0, 30, 0));
        assert_eq!(times(span(1, 0, 0), 1.5).unwrap(), span(1, 15, 0));
        assert_eq!(times(span(0, 1, 0), 0.5).unwrap(), span(0, 0, 43_200));
        assert_eq!(times(span(0, 0, 3600), 2.5).unwrap(), span(0, 0, 9_000));
        assert!(times(span(i32::MAX, 0, 0), 2.0).is_err());
    }

    #[test]
    fn a_day_in_spring_has_23_hours_and_24_hours_are_24() {
        let us = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
        let mut berlin = ZoneClock::new(Tz::Europe__Berlin);
        let at = us("2024-03-30T12:00:00+01:00");
        let day = IntervalMonthDayNano::new(0, 1, 0);
        let hours = IntervalMonthDayNano::new(0, 0, 86_400_000_000_000);
        assert_eq!(add(&mut berlin, at, day), Some(us("2024-03-31T12:00:00+02:00")));
        assert_eq!(add(&mut berlin, at, hours), Some(us("2024-03-31T13:00:00+02:00")));
        let month = IntervalMonthDayNano::new(1, 0, 0);
        let end = us("2024-01-31T12:00:00+01:00");
        assert_eq!(add(&mut berlin, end, month), Some(us("2024-02-29T12:00:00+01:00")));
    }
}
