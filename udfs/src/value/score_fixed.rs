//! `score_fixed(value, thresholds)`: a score by business thresholds.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array};
use arrow::datatypes::{DataType, Decimal128Type, Field};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

const NAME: &str = "score_fixed";

/// 1 plus the number of thresholds strictly below `value`: classes are closed on the right.
///
/// `value` is a number, `thresholds` an array of numbers in rising order; both are compared as DECIMAL(38,6). NULL for a
/// NULL value or array; a NULL threshold is not counted, and they are counted in whatever order they stand. `score_fixed(30, ARRAY[30, 60, 90])` is 1, of 31 it is 2.
/// # Errors
/// [`BadArgument`] when an argument is not of these types.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ScoreFixed {
    signature: Signature,
}

impl ScoreFixed {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for ScoreFixed {
    fn default() -> Self {
        Self::new()
    }
}

const COMPARED: DataType = DataType::Decimal128(38, 6);

impl ScalarUDFImpl for ScoreFixed {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [
                value,
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
            ] if value.is_numeric()
                && (item.data_type().is_numeric() || item.data_type().is_null()) =>
            {
                Ok(vec![COMPARED, DataType::List(Arc::new(Field::new("item", COMPARED, true)))])
            }
            _ => Err(BadArgument::err(
                NAME,
                "arguments",
                "a number and an array of numbers are needed, as in score_fixed(days, ARRAY[30, 60, 90])",
            )),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let values = arrays[0].as_primitive::<Decimal128Type>();
        let thresholds = arrays[1].as_list::<i32>();
        let scores = (0..values.len()).map(|row| {
            (values.is_valid(row) && thresholds.is_valid(row)).then(|| {
                let thresholds = thresholds.value(row);
                let below = thresholds
                    .as_primitive::<Decimal128Type>()
                    .iter()
                    .flatten()
                    .filter(|t| *t < values.value(row));
                1 + below.count() as i32
            })
        });
        Ok(ColumnarValue::Array(Arc::new(scores.collect::<Int32Array>())))
    }
}
