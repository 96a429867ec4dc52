//! `local_date(instant, zone)`: the calendar day of an instant in a time zone.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono_tz::Tz;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;
use crate::pg::zone::{US_PER_DAY, ZoneClock};

const NAME: &str = "local_date";

/// DATE of an instant in an IANA zone (`'Asia/Shanghai'`).
///
/// A naive TIMESTAMP is taken as UTC; a DATE is its own day in every zone. NULL in, NULL out. Daylight saving follows the
/// IANA data compiled in.
/// # Errors
/// [`BadArgument`] for a zone that is not constant or that IANA does not know, or a first argument that is no time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LocalDate {
    signature: Signature,
}

impl LocalDate {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for LocalDate {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for LocalDate {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let instant = match arg_types {
            [DataType::Timestamp(_, zone), _] => {
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            [DataType::Date32 | DataType::Date64, _] => DataType::Date32,
            [DataType::Null, _] => DataType::Timestamp(TimeUnit::Microsecond, None),
            [other, _] => {
                return Err(BadArgument::err(
                    NAME,
                    "instant",
                    format!("is {other}; a timestamp or date is needed"),
                ));
            }
            _ => {
                return Err(BadArgument::err(
                    NAME,
                    "arguments",
                    "two are needed: local_date(instant, 'zone')",
                ));
            }
        };
        Ok(vec![instant, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Date32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = match &args.args[1] {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(zone))) => parse_zone(zone)?,
            other => {
                return Err(BadArgument::err(
                    NAME,
                    "zone",
                    format!("is {}; a constant such as 'UTC' is needed", other.data_type()),
                ));
            }
        };
        let instants = args.args[0].to_array(args.number_rows)?;
        let dates: ArrayRef = match instants.data_type() {
            DataType::Date32 => instants,
            _ => {
                let instants = instants.as_primitive::<TimestampMicrosecondType>();
                let mut days = DayOf::new(zone);
                Arc::new(
                    instants.iter().map(|at| at.map(|at| days.of(at))).collect::<Date32Array>(),
                )
            }
        };
        Ok(ColumnarValue::Array(dates))
    }
}

fn parse_zone(zone: &str) -> Result<Tz> {
    zone.parse().map_err(|_| {
        BadArgument::err(
            NAME,
            "zone",
            format!("{zone:?} is not an IANA time zone such as 'Asia/Shanghai' or 'UTC'"),
        )
    })
}

/// Days of instants in a zone.
struct DayOf {
    clock: ZoneClock,
}

impl DayOf {
    fn new(zone: Tz) -> Self {
        Self { clock: ZoneClock::new(zone) }
    }

    fn of(&mut self, at_us: i64) -> i32 {
        self.clock.local(at_us).div_euclid(US_PER_DAY) as i32
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::pg::zone::US_PER_HOUR;

    #[test]
    fn the_day_turns_at_local_midnight() {
        let mut shanghai = DayOf::new(parse_zone("Asia/Shanghai").unwrap());
        let midnight = 16 * US_PER_HOUR; // 1970-01-02 00:00 in Shanghai
        assert_eq!(shanghai.of(midnight - 1), 0);
        assert_eq!(shanghai.of(midnight), 1);
        assert_eq!(DayOf::new(Tz::UTC).of(-1), -1);
    }

    /// Shanghai had summer time in 1986-1991: the same UTC hour is another day then.
    #[test]
    fn daylight_saving_is_the_zones_own() {
        let mut shanghai = DayOf::new(parse_zone("Asia/Shanghai").unwrap());
        let summer =
            DateTime::parse_from_rfc3339("1987-07-01T15:30:00Z").unwrap().timestamp_micros();
        let winter =
            DateTime::parse_from_rfc3339("1987-01-01T15:30:00Z").unwrap().timestamp_micros();
        assert_eq!(i64::from(shanghai.of(summer)), summer.div_euclid(US_PER_DAY) + 1);
        assert_eq!(i64::from(shanghai.of(winter)), winter.div_euclid(US_PER_DAY));
    }
}
