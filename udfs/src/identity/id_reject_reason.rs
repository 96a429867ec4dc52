//! `id_reject_reason(type, text)`: why a value identifies nobody.

use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::norm_id::clean;
use super::text::one_or_many;

/// TEXT: `null`, `placeholder` or `invalid`; NULL when the value is a good identifier of its type.
///
/// A NULL value is `null`; a NULL type gives NULL. The rules are those of [`clean`].
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct IdRejectReason {
    signature: Signature,
}

impl IdRejectReason {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self {
            signature: Signature::exact(
                vec![DataType::Utf8, DataType::Utf8],
                Volatility::Immutable,
            ),
        }
    }
}

impl Default for IdRejectReason {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for IdRejectReason {
    fn name(&self) -> &str {
        "id_reject_reason"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let pairs = arrays[0].as_string::<i32>().iter().zip(arrays[1].as_string::<i32>());
        let reasons: StringArray = pairs
            .map(|(id_type, raw)| clean(id_type?, raw.unwrap_or("")).err().map(|why| why.as_str()))
            .collect();
        Ok(one_or_many(&args, Arc::new(reasons)))
    }
}
