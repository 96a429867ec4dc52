//! `__series(first, last)`: the periods of a report, so that those without rows are there, too.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Builder, ListBuilder};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

const NAME: &str = "__series";

/// Longest list.
const MOST: i64 = 100_000;

/// BIGINT[]: the numbers from `first` to `last`, both included; none when `last` comes before. NULL in, NULL out.
/// # Errors
/// [`BadArgument`] for more than 100,000.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Series {
    signature: Signature,
}

impl Series {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        let types = vec![DataType::Int64, DataType::Int64];
        Self { signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl Default for Series {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for Series {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new("item", DataType::Int64, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ends = ColumnarValue::values_to_arrays(&args.args)?;
        let (first, last) =
            (ends[0].as_primitive::<Int64Type>(), ends[1].as_primitive::<Int64Type>());
        let mut lists = ListBuilder::new(Int64Builder::new());
        for row in 0..first.len() {
            if first.is_null(row) || last.is_null(row) {
                lists.append(false);
                continue;
            }
            let (first, last) = (first.value(row), last.value(row));
            if last.saturating_sub(first) >= MOST {
                return Err(BadArgument::err(
                    "trend",
                    "periods",
                    format!(
                        "are {}, from the first row to the last; {MOST} at most are shown: give \"from\" and \"to\"",
                        last.saturating_sub(first)
                    ),
                ));
            }
            lists.append_value((first..=last).map(Some));
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}
