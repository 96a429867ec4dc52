//! `tgi(part, group, base_part, base)`: how much more often something is among a group than among all.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

const NAME: &str = "tgi";

/// DOUBLE: the target group index, 100 times the share in the group over the share among all: 100 is as often, 250 two and a half times.
///
/// `tgi(part, group, base_part, base)`: of `group` customers `part` have it, of all `base` customers `base_part` do. NULL for a NULL and where one
/// of the shares has nothing to be a share of.
/// # Errors
/// [`BadArgument`] for what is no number.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Tgi {
    signature: Signature,
}

impl Tgi {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Tgi {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for Tgi {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.len() != 4 || !types.iter().all(|t| t.is_numeric() || t.is_null()) {
            let problem = "four numbers are needed: tgi(part, group, base_part, base)";
            return Err(BadArgument::err(NAME, "arguments", problem));
        }
        Ok(vec![DataType::Float64; 4])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let columns: Vec<_> =
            arrays.iter().map(|array| array.as_primitive::<Float64Type>()).collect();
        let value =
            |at: usize, row: usize| columns[at].is_valid(row).then(|| columns[at].value(row));
        let index = |row: usize| {
            let index = tgi(value(0, row)?, value(1, row)?, value(2, row)?, value(3, row)?);
            index.is_finite().then_some(index)
        };
        let answers: Float64Array = (0..arrays[0].len()).map(index).collect();
        Ok(ColumnarValue::Array(Arc::new(answers)))
    }
}

/// No number where there is nothing to be a share of.
pub(super) fn tgi(part: f64, group: f64, base_part: f64, base: f64) -> f64 {
    100.0 * (part / group) / (base_part / base)
}
