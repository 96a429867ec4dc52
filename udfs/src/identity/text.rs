//! What every identifier goes through first.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// Full-width forms folded to ASCII, zero-width characters and outer blanks removed.
pub(crate) fn fold(raw: &str) -> Cow<'_, str> {
    if raw.is_ascii() {
        return Cow::Borrowed(raw.trim());
    }
    let folded = raw.chars().filter_map(|c| match c {
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{feff}' => None,
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0),
        '\u{3000}' | '\u{a0}' => Some(' '),
        other => Some(other),
    });
    Cow::Owned(folded.collect::<String>().trim().to_owned())
}

/// Spellings of "there is no value" that forms and exports leave behind.
pub(crate) fn is_null_word(folded: &str) -> bool {
    const WORDS: [&str; 17] = [
        "null",
        "none",
        "nil",
        "nan",
        "n/a",
        "na",
        "undefined",
        "unknown",
        "anonymous",
        "empty",
        "(null)",
        "\\n",
        "无",
        "空",
        "未知",
        "匿名",
        "没有",
    ];
    /// Bytes of the longest of them.
    const LONGEST: usize = 9;
    let bare = folded.trim_matches(|c: char| c == '-' || c == '_' || c == '.' || c == '*');
    if bare.len() > LONGEST {
        return false;
    }
    bare.is_empty() || WORDS.iter().any(|word| bare.eq_ignore_ascii_case(word))
}

/// Runs a text function of one argument over a column.
pub(crate) fn map_text(
    args: &ScalarFunctionArgs,
    function: impl Fn(&str) -> Option<String>,
) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(&args.args)?;
    let mapped: StringArray =
        arrays[0].as_string::<i32>().iter().map(|text| text.and_then(&function)).collect();
    Ok(one_or_many(args, Arc::new(mapped)))
}

/// A scalar when every argument was one, so that constants fold.
pub(crate) fn one_or_many(args: &ScalarFunctionArgs, array: ArrayRef) -> ColumnarValue {
    let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    if all_scalar && array.len() == 1 && array.data_type() == &DataType::Utf8 {
        let text = array.as_string::<i32>();
        let value = text.is_valid(0).then(|| text.value(0).to_owned());
        return ColumnarValue::Scalar(datafusion::common::ScalarValue::Utf8(value));
    }
    ColumnarValue::Array(array)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_width_and_invisible_characters_fold() {
        assert_eq!(fold("\u{3000}１３８\u{200b}００１３８０００ "), "13800138000");
        assert_eq!(fold("\u{feff}Ａ＠Ｂ．ｃｏｍ"), "A@B.com");
    }

    #[test]
    fn null_words_in_their_spellings() {
        for word in ["", "NULL", " None ", "N/A", "---", "未知", "(null)", "\\N"] {
            assert!(is_null_word(&fold(word)), "{word:?}");
        }
        assert!(!is_null_word("0"));
        assert!(is_null_word(&fold("--anonymous--")) && is_null_word("匿名"));
    }
}
