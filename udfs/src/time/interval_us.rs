//! `interval_us(span)`: an interval as one number, so that two of them can be compared.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::datatypes::{
    DataType, DurationMicrosecondType, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, TimeUnit,
};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

const NAME: &str = "interval_us";

/// Microseconds of an interval or a difference of timestamps; a month counts as 30 days, a day as 24 hours.
///
/// PostgreSQL compares intervals by this number. NULL in, NULL out; a span past 292,000 years is held at that bound.
/// # Errors
/// [`BadArgument`] for what is no span of time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct IntervalUs {
    signature: Signature,
}

impl IntervalUs {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for IntervalUs {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for IntervalUs {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [DataType::Interval(_) | DataType::Null] => {
                Ok(vec![DataType::Interval(IntervalUnit::MonthDayNano)])
            }
            [DataType::Duration(_)] => Ok(vec![DataType::Duration(TimeUnit::Microsecond)]),
            _ => Err(BadArgument::err(
                NAME,
                "span",
                "an interval or a difference of times is needed",
            )),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let spans = ColumnarValue::values_to_arrays(&args.args)?.remove(0);
        let us: Int64Array = match spans.data_type() {
            DataType::Duration(_) => spans.as_primitive::<DurationMicrosecondType>().unary(|us| us),
            _ => spans.as_primitive::<IntervalMonthDayNanoType>().unary(microseconds),
        };
        Ok(ColumnarValue::Array(Arc::new(us)))
    }
}

fn microseconds(span: IntervalMonthDayNano) -> i64 {
    const US_PER_DAY: i64 = 86_400_000_000;
    let days = 30 * i64::from(span.months) + i64::from(span.days);
    days.saturating_mul(US_PER_DAY).saturating_add(span.nanoseconds / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_compare_as_postgresql_compares_them() {
        let us = |months, days, hours: i64| {
            microseconds(IntervalMonthDayNano::new(months, days, hours * 3_600_000_000_000))
        };
        assert_eq!(us(0, 1, 0), us(0, 0, 24));
        assert_eq!(us(1, 0, 0), us(0, 30, 0));
        assert!(us(0, 151, 0) > us(0, 90, 0));
        assert!(us(0, -1, 25) > 0);
    }
}
