//! `__is_word(text, word, ...)`: whether a text is one of a few words, in any case.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::BadArgument;

/// BOOLEAN, never NULL: whether `lower(text)` is one of the words, which are constants in small letters; a NULL is none. Only reports
/// write it, for millions of rows: no text is copied that is ASCII.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct IsWord {
    signature: Signature,
}

impl IsWord {
    /// The function, ready to be registered.
    pub fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl Default for IsWord {
    fn default() -> Self {
        Self::new()
    }
}

fn is_word(text: &str, words: &[String]) -> bool {
    match text.is_ascii() {
        true => words.iter().any(|word| text.eq_ignore_ascii_case(word)),
        false => words.contains(&text.to_lowercase()),
    }
}

fn are_words<'a>(texts: impl Iterator<Item = Option<&'a str>>, words: &[String]) -> BooleanArray {
    let is = |text: Option<&str>| text.is_some_and(|text| is_word(text, words));
    BooleanArray::from(texts.map(is).collect::<arrow::buffer::BooleanBuffer>())
}

impl ScalarUDFImpl for IsWord {
    fn name(&self) -> &str {
        "__is_word"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let wrong = |what: &str| BadArgument::err("__is_word", "text", what.to_owned());
        let Some((first, words)) = args.args.split_first() else {
            return Err(wrong("a text and words are needed"));
        };
        let word = |word: &ColumnarValue| match word {
            ColumnarValue::Scalar(scalar) => scalar.try_as_str().flatten().map(str::to_owned),
            ColumnarValue::Array(_) => None,
        };
        let words: Option<Vec<String>> = words.iter().map(word).collect();
        let words = words.ok_or_else(|| wrong("words are constants"))?;
        let texts: ArrayRef = first.to_array(args.number_rows)?;
        let answers = match texts.data_type() {
            DataType::Utf8View => are_words(texts.as_string_view().iter(), &words),
            DataType::Utf8 => are_words(texts.as_string::<i32>().iter(), &words),
            DataType::LargeUtf8 => are_words(texts.as_string::<i64>().iter(), &words),
            DataType::Null => BooleanArray::from(vec![false; texts.len()]),
            other => return Err(wrong(&format!("is {other}; a text is needed"))),
        };
        Ok(match first {
            ColumnarValue::Scalar(_) if args.number_rows > 0 => {
                ColumnarValue::Scalar(ScalarValue::Boolean(Some(answers.value(0))))
            }
            _ => ColumnarValue::Array(Arc::new(answers)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_words_in_any_case() {
        let words = ["cancelled", "取消", "i\u{307}ptal"].map(str::to_owned);
        for (text, is) in [
            ("cancelled", true),
            ("CanCelled", true),
            ("cancelle", false),
            ("取消", true),
            ("İPTAL", true),
            ("", false),
        ] {
            assert_eq!(is_word(text, &words), is, "{text}");
            assert_eq!(words.contains(&text.to_lowercase()), is, "{text}");
        }
        let found = are_words([Some("Cancelled"), None, Some("paid")].into_iter(), &words);
        assert_eq!(found, BooleanArray::from(vec![true, false, false]));
    }
}
