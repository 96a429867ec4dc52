//! What a table made from a file looks like: its columns and their types.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::Value;

use super::convert::{read_boolean, read_date, read_timestamp};
use super::csv::{CsvOptions, header_names};
use super::input::{Format, open_text};
use super::{json, model, parquet};
use crate::error::{Error, Kind, Result};
use crate::store::Name;

/// Rows that are looked at.
const SAMPLE_ROWS: usize = 10_000;

/// What was found.
pub(super) struct Inferred {
    /// Columns, before they become stored types.
    pub(super) schema: Schema,
}

/// Looks at the beginning of a file. Columns of the model take the model's types when the file is text.
pub(super) fn infer(
    path: &Path,
    format: Option<Format>,
    options: &CsvOptions,
    table: &Name,
) -> Result<Inferred> {
    match format.map_or_else(|| Format::of(path), Ok)? {
        Format::Parquet => {
            Ok(Inferred { schema: parquet::schema_of(File::open(path)?)?.as_ref().clone() })
        }
        Format::Csv => infer_csv(path, options, table),
        Format::Json => infer_json(path, table),
    }
}

fn infer_csv(path: &Path, options: &CsvOptions, table: &Name) -> Result<Inferred> {
    let options = options.for_file(path);
    let mut reader = options.reader(open_text(path)?.0);
    let mut record = ::csv::ByteRecord::new();
    let unreadable =
        |e: ::csv::Error| Error::new(Kind::BadCopyFormat, format!("the CSV cannot be read: {e}"));
    if !reader.read_byte_record(&mut record).map_err(unreadable)? {
        return Err(Error::new(Kind::BadCopyFormat, format!("{} is empty", path.display()))
            .hint("a header line is the least"));
    }
    let (names, mut pending) = if options.has_header {
        (header_names(&record), None)
    } else {
        ((1..=record.len()).map(|i| format!("column{i}")).collect(), Some(record.clone()))
    };
    let mut guesses = vec![Guess::default(); names.len()];
    for _ in 0..SAMPLE_ROWS {
        let sample = match pending.take() {
            Some(first) => first,
            None if reader.read_byte_record(&mut record).map_err(unreadable)? => record.clone(),
            None => break,
        };
        for (guess, value) in guesses.iter_mut().zip(sample.iter()) {
            let text = String::from_utf8_lossy(value);
            if text != options.null {
                guess.see(&text);
            }
        }
    }
    Ok(Inferred { schema: schema_of(names.iter().map(String::as_str).zip(guesses), table) })
}

fn infer_json(path: &Path, table: &Name) -> Result<Inferred> {
    let mut keys: Vec<(String, Guess)> = Vec::new();
    for line in BufReader::new(open_text(path)?.0).lines().take(SAMPLE_ROWS) {
        let Ok(Value::Object(object)) = serde_json::from_str::<Value>(&line?) else { continue };
        for (key, value) in &object {
            let at = keys.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
                keys.push((key.clone(), Guess::default()));
                keys.len() - 1
            });
            match value {
                Value::String(text) => keys[at].1.see_quoted(text),
                Value::Array(_) | Value::Object(_) => keys[at].1.see_text(),
                other => {
                    if let Some(text) = json::text_of(other) {
                        keys[at].1.see(&text);
                    }
                }
            }
        }
    }
    if keys.is_empty() {
        return Err(Error::new(
            Kind::BadCopyFormat,
            format!("{} has no JSON object in its first lines", path.display()),
        ));
    }
    Ok(Inferred { schema: schema_of(keys.iter().map(|(k, g)| (k.as_str(), g.clone())), table) })
}

fn schema_of<'a>(columns: impl Iterator<Item = (&'a str, Guess)>, table: &Name) -> Schema {
    let field = |(name, guess): (&str, Guess)| {
        let data_type = model::model_type(&table.table, name).unwrap_or_else(|| guess.data_type());
        Field::new(name, data_type, true)
    };
    Schema::new(columns.map(field).collect::<Vec<_>>())
}

/// Which types every value of a column so far could have.
#[derive(Debug, Clone)]
struct Guess {
    seen: bool,
    boolean: bool,
    integer: bool,
    number: bool,
    date: bool,
    timestamp: bool,
    has_offset: bool,
}

impl Default for Guess {
    fn default() -> Self {
        Self {
            seen: false,
            boolean: true,
            integer: true,
            number: true,
            date: true,
            timestamp: true,
            has_offset: false,
        }
    }
}

impl Guess {
    fn see(&mut self, text: &str) {
        let text = text.trim();
        self.seen = true;
        self.boolean &= read_boolean(text).is_some() && !text.bytes().all(|b| b.is_ascii_digit());
        self.integer &= is_whole(text);
        self.number &= is_number(text);
        self.see_time(text);
    }

    /// A JSON string is never a number: what looks like one is a code.
    fn see_quoted(&mut self, text: &str) {
        self.seen = true;
        self.boolean = false;
        self.integer = false;
        self.number = false;
        self.see_time(text);
    }

    fn see_text(&mut self) {
        self.see_quoted("text");
    }

    fn see_time(&mut self, text: &str) {
        let is_long =
            text.len() >= "2011-12-09".len() && text.starts_with(|c: char| c.is_ascii_digit());
        self.date &= is_long && text.len() <= 10 && read_date(text).is_some();
        self.timestamp &= is_long && read_timestamp(text).is_some();
        self.has_offset |= self.timestamp
            && (text.ends_with('Z') || text.get(11..).is_some_and(|t| t.contains(['+', '-'])));
    }

    fn data_type(&self) -> DataType {
        match self {
            Self { seen: false, .. } => DataType::Utf8,
            Self { integer: true, .. } => DataType::Int64,
            Self { number: true, .. } => DataType::Float64,
            Self { boolean: true, .. } => DataType::Boolean,
            Self { date: true, .. } => DataType::Date32,
            Self { timestamp: true, has_offset, .. } => {
                DataType::Timestamp(TimeUnit::Microsecond, has_offset.then(|| "UTC".into()))
            }
            _ => DataType::Utf8,
        }
    }
}

/// Digits with a leading zero, or longer than 15, are codes and card numbers, not counts.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let has_leading_zero = digits.len() > 1 && digits.starts_with('0');
    !digits.is_empty()
        && digits.len() <= 15
        && !has_leading_zero
        && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_number(text: &str) -> bool {
    let whole = text.trim_start_matches('-').split('.').next().unwrap_or("");
    let is_code = whole.len() > 15 || whole.len() > 1 && whole.starts_with('0');
    let is_plain =
        text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
    !is_code && is_plain && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(values: &[&str]) -> DataType {
        let mut guess = Guess::default();
        values.iter().for_each(|v| guess.see(v));
        guess.data_type()
    }

    #[test]
    fn types_are_those_that_every_value_has() {
        assert_eq!(guess(&["1", "-20"]), DataType::Int64);
        assert_eq!(guess(&["1", "2.5"]), DataType::Float64);
        assert_eq!(guess(&["true", "f"]), DataType::Boolean);
        assert_eq!(guess(&["2011-12-09", "2011-12-10"]), DataType::Date32);
        assert_eq!(
            guess(&["2011-12-09 10:00:00", "2011-12-10"]),
            DataType::Timestamp(TimeUnit::Microsecond, None)
        );
        assert_eq!(
            guess(&["2011-12-09T10:00:00+08:00"]),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        );
        assert_eq!(guess(&["1", "x"]), DataType::Utf8);
        assert_eq!(guess(&[]), DataType::Utf8);
    }

    #[test]
    fn codes_stay_text() {
        assert_eq!(guess(&["0123"]), DataType::Utf8);
        assert_eq!(guess(&["1234567890123456"]), DataType::Utf8);
        assert_eq!(guess(&["13800138001"]), DataType::Int64);
    }
}
