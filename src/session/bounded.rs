//! Functions that make long texts out of short ones, within bounds: what they would make is known before it is made.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::error::{Error, Kind};

/// Most bytes that one call makes for the rows that it is given at once, some eight thousand.
const BYTES_MAX: i64 = 256 << 20;

/// `repeat`, `lpad` and `rpad` of the engine, which would fill the memory when asked to.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Bounded {
    inner: Arc<ScalarUDF>,
    /// Whether the number counts repetitions of the text, or characters.
    is_repeat: bool,
}

/// All of them.
pub(super) fn bounded_functions() -> [ScalarUDF; 3] {
    use datafusion::functions::{string, unicode};
    let bounded = |inner, is_repeat| ScalarUDF::from(Bounded { inner, is_repeat });
    [
        bounded(string::repeat(), true),
        bounded(unicode::lpad(), false),
        bounded(unicode::rpad(), false),
    ]
}

impl Bounded {
    /// Bytes that the call would make, or a little less.
    fn bytes(&self, args: &[ColumnarValue]) -> Result<i64> {
        let arrays: Vec<ArrayRef> = ColumnarValue::values_to_arrays(args)?;
        let [texts, counts, ..] = arrays.as_slice() else { return Ok(0) };
        let (texts, counts) = (cast(texts, &DataType::Utf8View)?, cast(counts, &DataType::Int64)?);
        let mut bytes = 0i64;
        for (text, count) in texts.as_string_view().iter().zip(counts.as_primitive::<Int64Type>()) {
            let (Some(text), Some(count)) = (text, count) else { continue };
            let each = if self.is_repeat { text.len() as i64 } else { 1 };
            bytes = bytes.saturating_add(count.max(0).saturating_mul(each));
        }
        Ok(bytes)
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let bytes = self.bytes(&args.args)?;
        if bytes > BYTES_MAX {
            let error = Error::new(
                Kind::LimitExceeded,
                format!("{} would make {bytes} bytes, {BYTES_MAX} are the most", self.name()),
            );
            return Err(error.into());
        }
        self.inner.invoke_with_args(args)
    }
}
