//! `norm_id(type, text)`: one spelling for an identifier of any type.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::check_digit::{clean_id_card, clean_imei};
use super::norm_email::clean_email;
use super::norm_phone::clean_phone;
use super::text::{fold, is_null_word, map_text, one_or_many};

/// Why a value identifies nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// Empty, or a word for "no value".
    Null,
    /// A value that stands in for a missing one: zeros, repeated digits, test addresses.
    Placeholder,
    /// Not a value of its type.
    Invalid,
}

impl Reject {
    /// The word in `rejected` tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Placeholder => "placeholder",
            Self::Invalid => "invalid",
        }
    }
}

/// The one spelling of an identifier of `id_type`, or why it is none.
///
/// `phone` and `email` as [`norm_phone`](super::norm_phone) and [`norm_email`](super::norm_email); `id_card` and `imei`
/// by their check digits; `device` in lower case; any other type (open ids, union ids, numbers of a card) is opaque: only folded and trimmed, case kept.
pub fn clean<'a>(id_type: &str, raw: &'a str) -> Result<Cow<'a, str>, Reject> {
    match id_type {
        "phone" | "mobile" => clean_phone(raw),
        "email" => clean_email(raw),
        "id_card" | "idcard" => clean_id_card(raw).map(Cow::Owned),
        "imei" => clean_imei(raw).map(Cow::Owned),
        "device" | "device_id" | "idfa" | "oaid" => clean_opaque(raw).map(|id| {
            let is_lower = !id.bytes().any(|byte| byte.is_ascii_uppercase());
            if is_lower { id } else { Cow::Owned(id.to_ascii_lowercase()) }
        }),
        _ => clean_opaque(raw),
    }
}

fn clean_opaque(raw: &str) -> Result<Cow<'_, str>, Reject> {
    let folded = fold(raw);
    if is_null_word(&folded) {
        return Err(Reject::Null);
    }
    let mut meaningful = folded.chars().filter(|c| c.is_alphanumeric());
    let Some(first) = meaningful.next() else {
        return Err(Reject::Placeholder);
    };
    // 000000000000000, ffffffff-ffff-..., 0: one repeated character is a default, not a device.
    if meaningful.all(|c| c == first) && (folded.len() > 3 || first == '0') {
        return Err(Reject::Placeholder);
    }
    let has_control = match folded.is_ascii() {
        true => folded.bytes().any(|byte| byte.is_ascii_control()),
        false => folded.chars().any(char::is_control),
    };
    if has_control || folded.len() > 1024 {
        return Err(Reject::Invalid);
    }
    Ok(folded)
}

/// TEXT: [`clean`] in SQL; NULL for a value that is rejected.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormId {
    signature: Signature,
}

impl NormId {
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

impl Default for NormId {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for NormId {
    fn name(&self) -> &str {
        "norm_id"
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
        let cleaned: StringArray = { pairs }
            .map(|(id_type, raw)| clean(id_type?, raw?).ok().map(Cow::into_owned))
            .collect();
        Ok(one_or_many(&args, Arc::new(cleaned)))
    }
}

/// TEXT: [`clean`] of one type in SQL; NULL for a value that is rejected.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormOf {
    name: &'static str,
    id_type: &'static str,
    signature: Signature,
}

impl NormOf {
    /// `norm_imei`, `norm_idcard` and `norm_openid`.
    pub fn all() -> [Self; 3] {
        let of = |name, id_type| Self {
            name,
            id_type,
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
        };
        [of("norm_imei", "imei"), of("norm_idcard", "id_card"), of("norm_openid", "open_id")]
    }
}

impl ScalarUDFImpl for NormOf {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        map_text(&args, |raw| clean(self.id_type, raw).ok().map(Cow::into_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_fold_case_and_open_ids_do_not() {
        assert_eq!(clean("device", " AB-12 ").as_deref(), Ok("ab-12"));
        assert_eq!(clean("open_id", " oAb12 ").as_deref(), Ok("oAb12"));
    }

    #[test]
    fn defaults_of_a_device_are_placeholders() {
        for raw in ["000000000000000", "00000000-0000-0000-0000-000000000000", "0"] {
            assert_eq!(clean("device", raw), Err(Reject::Placeholder), "{raw}");
        }
        assert_eq!(clean("device", "unknown"), Err(Reject::Null));
    }
}
