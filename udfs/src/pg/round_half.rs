//! `round_half(number)`: rounds to a whole number as PostgreSQL's casts do.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

const NAME: &str = "round_half";

/// A whole number of the same type: floats go to the nearest even (`2.5` is 2), numerics away from zero (`2.5` is 3).
///
/// This is what a cast to an integer does first in PostgreSQL; the engine's cast cuts off. NULL in, NULL out.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RoundHalf {
    signature: Signature,
}

impl RoundHalf {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for RoundHalf {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for RoundHalf {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [decimal @ DataType::Decimal128(..)] => Ok(vec![decimal.clone()]),
            [float] if float.is_numeric() => Ok(vec![DataType::Float64]),
            _ => Err(BadArgument::err(NAME, "number", "one number is needed")),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let numbers = args.args[0].to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(match numbers.data_type() {
            DataType::Decimal128(precision, scale) if *scale > 0 => {
                let unit = 10i128.pow(u32::from(scale.unsigned_abs()));
                let half = |n: i128| (n + n.signum() * (unit / 2)) / unit * unit;
                let rounded =
                    numbers.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(half);
                Arc::new(rounded.with_precision_and_scale(*precision, *scale)?)
            }
            DataType::Float64 => {
                let rounded: Float64Array =
                    numbers.as_primitive::<Float64Type>().unary(f64::round_ties_even);
                Arc::new(rounded)
            }
            _ => numbers,
        }))
    }
}
