//! `__apart(value)`: keeps rows apart that say nothing of what they belong to.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{Array, Int64Array};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// NULL for a value, and for each NULL a number that no other row has: grouped by both, rows without an id are one each. Only reports
/// write it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Apart {
    signature: Signature,
}

impl Apart {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Volatile) }
    }
}

impl Default for Apart {
    fn default() -> Self {
        Self::new()
    }
}

static NEXT: AtomicI64 = AtomicI64::new(0);

impl ScalarUDFImpl for Apart {
    fn name(&self) -> &str {
        "__apart"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.args[0].to_array(args.number_rows)?;
        if values.logical_null_count() == 0 {
            return Ok(ColumnarValue::Array(Arc::new(Int64Array::new_null(values.len()))));
        }
        let nulls = values.logical_nulls();
        let is_null = |row: usize| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        let numbers =
            (0..values.len()).map(|row| is_null(row).then(|| NEXT.fetch_add(1, Ordering::Relaxed)));
        Ok(ColumnarValue::Array(Arc::new(numbers.collect::<Int64Array>())))
    }
}
