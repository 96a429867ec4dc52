//! `text_of(value, zone)`: a value as PostgreSQL writes it.

use std::sync::Arc;

use arrow::array::StringBuilder;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::text::TextColumn;
use super::zone::parse_zone;
use crate::BadArgument;

const NAME: &str = "text_of";

/// TEXT of any value, as PostgreSQL's casts and `||` give it: instants in the zone, arrays in braces, `true` and `false`.
///
/// NULL in, NULL out.
/// # Errors
/// [`BadArgument`] for a zone that is not constant or that IANA does not know.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TextOf {
    signature: Signature,
}

impl TextOf {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl Default for TextOf {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for TextOf {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = match &args.args[1] {
            ColumnarValue::Scalar(zone) => zone.try_as_str().flatten().map(str::to_owned),
            ColumnarValue::Array(_) => None,
        };
        let Some(zone) = zone else {
            return Err(BadArgument::err(NAME, "zone", "a constant such as 'UTC' is needed"));
        };
        let values = args.args[0].to_array(args.number_rows)?;
        let column = TextColumn::new(&values, parse_zone(NAME, &zone)?)?;
        let mut texts = StringBuilder::new();
        let mut text = String::new();
        for row in 0..values.len() {
            if column.is_null(row) {
                texts.append_null();
                continue;
            }
            if let TextColumn::Boolean(booleans) = &column {
                texts.append_value(if booleans.value(row) { "true" } else { "false" });
                continue;
            }
            text.clear();
            column.write(row, &mut text);
            texts.append_value(&text);
        }
        Ok(ColumnarValue::Array(Arc::new(texts.finish())))
    }
}
