//! `norm_id(type, text)`: one spelling for an identifier of any type.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::check_digit::{clean_id_card, clean_imei, is_clean_id_card};
use super::norm_email::{clean_email, is_clean_email};
use super::norm_phone::{clean_phone, is_clean_phone};
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
    Cleaning::of(id_type).clean(raw)
}

/// How values of a type are cleaned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cleaning {
    Phone,
    Email,
    IdCard,
    Imei,
    Device,
    Opaque,
}

impl Cleaning {
    /// Of a type, by its name.
    pub(super) fn of(id_type: &str) -> Self {
        match id_type {
            "phone" | "mobile" => Self::Phone,
            "email" => Self::Email,
            "id_card" | "idcard" => Self::IdCard,
            "imei" => Self::Imei,
            "device" | "device_id" | "idfa" | "oaid" => Self::Device,
            _ => Self::Opaque,
        }
    }

    /// The one spelling of a value, or why it is none.
    pub(super) fn clean(self, raw: &str) -> Result<Cow<'_, str>, Reject> {
        if self.is_clean(raw) { Ok(Cow::Borrowed(raw)) } else { self.look_closely(raw) }
    }

    /// Whether a value is written as it is kept, for all that one look at its bytes tells: most are.
    #[inline]
    pub(super) fn is_clean(self, raw: &str) -> bool {
        match self {
            Self::Phone => is_clean_phone(raw),
            Self::Email => is_clean_email(raw),
            Self::IdCard => is_clean_id_card(raw),
            Self::Imei => false,
            Self::Device => is_clean_opaque(raw, false),
            Self::Opaque => is_clean_opaque(raw, true),
        }
    }

    fn look_closely(self, raw: &str) -> Result<Cow<'_, str>, Reject> {
        match self {
            Self::Phone => clean_phone(raw),
            Self::Email => clean_email(raw),
            Self::IdCard => clean_id_card(raw).map(Cow::Owned),
            Self::Imei => clean_imei(raw).map(Cow::Owned),
            Self::Device => clean_opaque(raw).map(|id| {
                let is_lower = !id.bytes().any(|byte| byte.is_ascii_uppercase());
                if is_lower { id } else { Cow::Owned(id.to_ascii_lowercase()) }
            }),
            Self::Opaque => clean_opaque(raw),
        }
    }
}

/// Whether an opaque value is kept as it is written, for all that its bytes tell: letters and digits are among them, so that it is no
/// placeholder and no word for "no value", and nothing but what is seen.
fn is_clean_opaque(raw: &str, may_have_capitals: bool) -> bool {
    const LETTER: u8 = 1;
    const CAPITAL: u8 = 2;
    const DIGIT: u8 = 4;
    const OTHER: u8 = 8;
    static KINDS: [u8; 256] = {
        let (mut kinds, mut byte) = ([OTHER; 256], 0);
        while byte < kinds.len() {
            kinds[byte] = match byte as u8 {
                b'a'..=b'z' => LETTER,
                b'A'..=b'Z' => CAPITAL,
                b'0'..=b'9' => DIGIT,
                b'!'..=b'~' => 0,
                _ => OTHER,
            };
            byte += 1;
        }
        kinds
    };
    let kinds = raw.bytes().fold(0, |kinds, byte| kinds | KINDS[usize::from(byte)]);
    let letters = if may_have_capitals { LETTER | CAPITAL } else { LETTER };
    let others = OTHER | (CAPITAL & !letters);
    kinds & DIGIT != 0
        && kinds & letters != 0
        && kinds & others == 0
        && raw.len() <= OPAQUE_BYTES_MAX
}

/// Bytes of the longest value that is taken for one.
const OPAQUE_BYTES_MAX: usize = 1024;

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
    if has_control || folded.len() > OPAQUE_BYTES_MAX {
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
    use proptest::prelude::*;

    use super::*;

    /// Values that are nearly clean, and what stands beside them.
    fn value() -> impl Strategy<Value = String> {
        let digits = prop_oneof![
            "1[3-9][0-9]{9}",
            "1[0-9]8{9}",
            "[0-9]{10,12}",
            "[1-9][0-9]{5}(19|20)[0-9]{2}(0[1-9]|1[0-3])[0-3][0-9]{4}[0-9X]",
            "1{18}|1{11}|0{15}",
        ];
        let email = prop_oneof![
            "[a-z0-9._+-]{0,6}@[a-z0-9.-]{0,8}",
            "(test|null|n/a|noreply|u7|-|na)@(qq.com|test.com|example.com|a.test|a1.2b|1.22|.c.om|a-.com|a.-b.cc)",
        ];
        let opaque = prop_oneof![
            "[a-zA-Z0-9_-]{0,10}",
            "null|N/A|-none-|\\\\n|0|a1|(aa)+|f{8}-f{4}",
            "[ -~\t\u{7f}é１]{0,5}"
        ];
        (prop_oneof![digits, email, opaque], "[ \u{200b}]{0,1}")
            .prop_map(|(value, after)| value + &after)
    }

    proptest! {
        /// What is taken as it is written is what a close look makes of it. Numbers get their right check digit now and then.
        #[test]
        fn what_looks_clean_is(value in value(), check in prop::option::of(0usize..11)) {
            let value = match check {
                Some(at) if value.len() == 18 && value.is_ascii() => format!("{}{}", &value[..17], &"0123456789X"[at..=at]),
                _ => value,
            };
            for id_type in ["phone", "email", "id_card", "imei", "device", "open_id"] {
                let cleaning = Cleaning::of(id_type);
                prop_assert_eq!(cleaning.clean(&value), cleaning.look_closely(&value), "{} {}", id_type, value);
            }
        }
    }

    #[test]
    fn most_values_are_not_looked_at_closely() {
        for (id_type, value) in [
            ("phone", "13800138001"),
            ("email", "li.lei7+shop@mail.qq.com"),
            ("id_card", "11010519491231002X"),
            ("device", "d1-0a"),
            ("open_id", "oAb12_-x"),
        ] {
            assert!(Cleaning::of(id_type).is_clean(value), "{id_type}");
        }
    }

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
