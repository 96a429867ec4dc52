//! `timezone(zone, time)`: what PostgreSQL's `time AT TIME ZONE zone` calls.

use std::sync::Arc;

use arrow::array::{Array, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility, cast,
};

use super::zone::{ZoneClock, parse_zone};
use crate::BadArgument;

const NAME: &str = "timezone";

/// TIMESTAMPTZ to the TIMESTAMP that the zone's clocks show then; TIMESTAMP or DATE to the TIMESTAMPTZ at which they show it.
///
/// A time that occurs twice is the second one, a skipped one is read with the offset from before, as in PostgreSQL. NULL in,
/// NULL out. The zone is an IANA name, in any case.
/// # Errors
/// [`BadArgument`] for an unknown zone, or a second argument that is no time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Timezone {
    signature: Signature,
}

impl Timezone {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Timezone {
    fn default() -> Self {
        Self::new()
    }
}

fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn local_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

impl ScalarUDFImpl for Timezone {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let time = match arg_types {
            [_, DataType::Timestamp(_, Some(_))] => instant_type(),
            [_, DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64] => local_type(),
            [_, DataType::Null] => instant_type(),
            [_, other] => {
                return Err(BadArgument::err(
                    NAME,
                    "time",
                    format!("is {other}; a timestamp or date is needed"),
                ));
            }
            _ => {
                return Err(BadArgument::err(
                    NAME,
                    "arguments",
                    "two are needed: timezone('zone', time)",
                ));
            }
        };
        Ok(vec![DataType::Utf8, time])
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types.get(1) {
            Some(DataType::Timestamp(_, Some(_))) => Ok(local_type()),
            _ => Ok(instant_type()),
        }
    }

    /// In UTC the two kinds of time are one number.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let is_utc = matches!(&args[0], Expr::Literal(zone, _)
            if zone.try_as_str().flatten().is_some_and(|z| z.eq_ignore_ascii_case("utc")));
        if !is_utc {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let to = self.return_type(&[DataType::Utf8, info.get_data_type(&args[1])?])?;
        Ok(ExprSimplifyResult::Simplified(cast(args[1].clone(), to)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let times = args.args[1].to_array(rows)?;
        let is_instant = matches!(times.data_type(), DataType::Timestamp(_, Some(_)));
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let turn = |clock: &mut ZoneClock, at: i64| {
            if is_instant { clock.local(at) } else { clock.instant(at) }
        };
        let turned: TimestampMicrosecondArray = match &args.args[0] {
            ColumnarValue::Scalar(zone) => {
                let Some(name) = zone.try_as_str().flatten() else {
                    let null = ScalarValue::try_from(args.return_type())?;
                    return Ok(ColumnarValue::Scalar(null));
                };
                let mut clock = ZoneClock::new(parse_zone(NAME, name)?);
                times.iter().map(|at| at.map(|at| turn(&mut clock, at))).collect()
            }
            ColumnarValue::Array(zones) => {
                let zones = zones.as_string::<i32>();
                let mut last: Option<(&str, ZoneClock)> = None;
                let mut turned = Vec::with_capacity(times.len());
                for (zone, at) in zones.iter().zip(times) {
                    let (Some(zone), Some(at)) = (zone, at) else {
                        turned.push(None);
                        continue;
                    };
                    if last.as_ref().is_none_or(|(name, _)| *name != zone) {
                        last = Some((zone, ZoneClock::new(parse_zone(NAME, zone)?)));
                    }
                    turned.push(last.as_mut().map(|(_, clock)| turn(clock, at)));
                }
                turned.into()
            }
        };
        let turned = turned.with_data_type(args.return_type().clone());
        Ok(ColumnarValue::Array(Arc::new(turned)))
    }
}
