//! `norm_phone(text)`: one spelling for every phone number.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::norm_id::Reject;
use super::text::{fold, is_null_word, map_text};

/// A mainland China mobile number as its 11 digits, another number with a country code as `+` and E.164 digits.
///
/// Full-width digits, blanks, dashes, dots, brackets, `+86`, `0086` and `86` are understood. NULL for what is no number:
/// an empty or null word, a placeholder (eight equal last digits), a wrong length. See
/// [`id_reject_reason`](super::id_reject_reason) for why.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormPhone {
    signature: Signature,
}

impl NormPhone {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) }
    }
}

impl Default for NormPhone {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for NormPhone {
    fn name(&self) -> &str {
        "norm_phone"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        map_text(&args, |text| clean_phone(text).ok().map(Cow::into_owned))
    }
}

/// Whether a number is kept as it is written.
pub(super) fn is_clean_phone(raw: &str) -> bool {
    let Some((first, _)) = raw.as_bytes().split_first_chunk() else { return false };
    let Some((_, last)) = raw.as_bytes().split_last_chunk() else { return false };
    let [first, last] = [*first, *last].map(u64::from_le_bytes);
    is_cn_mobile(raw)
        && are_digits(first)
        && are_digits(last)
        && last != (last & 0xff) * 0x0101_0101_0101_0101
}

/// Whether eight bytes are all digits.
fn are_digits(bytes: u64) -> bool {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    const DIGITS: u64 = 0x3030_3030_3030_3030;
    // What is more than nine goes over into the upper half of its byte.
    bytes & HIGH == DIGITS && (bytes + 0x0606_0606_0606_0606) & HIGH == DIGITS
}

pub(super) fn clean_phone(raw: &str) -> Result<Cow<'_, str>, Reject> {
    let folded = fold(raw);
    if is_null_word(&folded) {
        return Err(Reject::Null);
    }
    let mut digits = String::with_capacity(folded.len());
    let mut is_international = false;
    for (i, c) in folded.chars().enumerate() {
        match c {
            '0'..='9' => digits.push(c),
            '+' if i == 0 => is_international = true,
            ' ' | '-' | '.' | '(' | ')' | '/' | '\u{2010}'..='\u{2015}' => {}
            _ => return Err(Reject::Invalid),
        }
    }
    if !is_international && let Some(rest) = digits.strip_prefix("00") {
        digits = rest.to_owned();
        is_international = true;
    }
    if digits.chars().all(|c| c == '0') {
        return Err(Reject::Placeholder);
    }
    let national = match digits.strip_prefix("86") {
        Some(rest) if is_international || digits.len() == 13 => rest,
        _ if is_international => return foreign(&digits).map(Cow::Owned),
        _ => &digits,
    };
    if !is_cn_mobile(national) {
        return Err(if has_equal_tail(national) { Reject::Placeholder } else { Reject::Invalid });
    }
    if has_equal_tail(national) {
        return Err(Reject::Placeholder);
    }
    Ok(Cow::Owned(national.to_owned()))
}

/// E.164 allows up to 15 digits after the plus; fewer than 8 is no subscriber's number.
fn foreign(digits: &str) -> Result<String, Reject> {
    match digits.len() {
        8..=15 if !digits.starts_with('0') => Ok(format!("+{digits}")),
        _ => Err(Reject::Invalid),
    }
}

fn is_cn_mobile(digits: &str) -> bool {
    let bytes = digits.as_bytes();
    bytes.len() == 11 && bytes[0] == b'1' && (b'3'..=b'9').contains(&bytes[1])
}

fn has_equal_tail(digits: &str) -> bool {
    let bytes = digits.as_bytes();
    bytes.len() >= 8 && bytes[bytes.len() - 8..].iter().all(|b| *b == bytes[bytes.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_agree() {
        for spelling in [
            "13800138001",
            "+86 138-0013-8001",
            "0086 138 0013 8001",
            "8613800138001",
            "１３８００１３８００１",
            " 138.0013.8001 ",
            "(+86)13800138001".trim_start_matches('('),
        ] {
            let spelling = spelling.replace(')', "");
            assert_eq!(clean_phone(&spelling).as_deref(), Ok("13800138001"), "{spelling:?}");
        }
    }

    #[test]
    fn foreign_numbers_keep_their_country() {
        assert_eq!(clean_phone("+44 20 7946 0018").as_deref(), Ok("+442079460018"));
        assert_eq!(clean_phone("001 212 555 0100").as_deref(), Ok("+12125550100"));
    }

    #[test]
    fn what_is_no_number_is_refused_with_a_reason() {
        assert_eq!(clean_phone("n/a"), Err(Reject::Null));
        assert_eq!(clean_phone("00000000000"), Err(Reject::Placeholder));
        assert_eq!(clean_phone("13888888888"), Err(Reject::Placeholder));
        assert_eq!(clean_phone("12345"), Err(Reject::Invalid));
        assert_eq!(clean_phone("1380013800x"), Err(Reject::Invalid));
        assert_eq!(clean_phone("138001380011"), Err(Reject::Invalid));
    }
}
