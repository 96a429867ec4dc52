//! `fraction_part(field, time)`: the parts of a time that have a fraction, exactly.

use std::sync::Arc;

use arrow::array::{AsArray, Decimal128Array};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::zone::{US_PER_MINUTE, US_PER_SECOND};
use crate::BadArgument;

const NAME: &str = "fraction_part";

/// Fields that it knows.
pub const FIELDS: [&str; 3] = ["epoch", "second", "milliseconds"];

/// `epoch`, `second` or `milliseconds` of a time as NUMERIC(38,6): what `extract` gives in PostgreSQL.
///
/// The engine's `date_part` gives whole seconds. NULL in, NULL out.
/// # Errors
/// [`BadArgument`] for another field, or a second argument that is no time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct FractionPart {
    signature: Signature,
}

impl FractionPart {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for FractionPart {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for FractionPart {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [_, DataType::Timestamp(_, zone)] => {
                Ok(vec![DataType::Utf8, DataType::Timestamp(TimeUnit::Microsecond, zone.clone())])
            }
            [_, DataType::Date32 | DataType::Date64 | DataType::Null] => {
                Ok(vec![DataType::Utf8, DataType::Timestamp(TimeUnit::Microsecond, None)])
            }
            _ => Err(BadArgument::err(NAME, "time", "a timestamp or date is needed")),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(38, 6))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let field = match &args.args[0] {
            ColumnarValue::Scalar(field) => field.try_as_str().flatten().map(str::to_lowercase),
            ColumnarValue::Array(_) => None,
        };
        let of: fn(i64) -> i128 = match field.as_deref() {
            Some("epoch") => i128::from,
            Some("second") => |at| i128::from(at.rem_euclid(US_PER_MINUTE)),
            Some("milliseconds") => |at| i128::from(at.rem_euclid(US_PER_MINUTE)) * 1000,
            _ => {
                return Err(BadArgument::err(
                    NAME,
                    "field",
                    format!("one of {FIELDS:?} is needed"),
                ));
            }
        };
        debug_assert_eq!(US_PER_SECOND, 1_000_000, "the scale is 6");
        let times = args.args[1].to_array(args.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let parts: Decimal128Array = times.iter().map(|at| at.map(of)).collect();
        Ok(ColumnarValue::Array(Arc::new(parts.with_precision_and_scale(38, 6)?)))
    }
}
