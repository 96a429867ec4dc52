//! What a table made from a file looks like: its columns and their types.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use clientele_udfs::pg::read_time::{read_date, read_instant};
use serde_json::Value;

use super::convert::read_boolean;
use super::csv::{CsvOptions, header_names};
use super::input::{Format, open_text};
use super::quoted::MARK;
use super::{json, model, parquet};
use crate::error::{Error, Kind, Result};
use crate::store::{Name, RECORD};

/// Rows that are looked at.
const SAMPLE_ROWS: usize = 10_000;

/// What was found.
pub(super) struct Inferred {
    /// Columns, before they become stored types.
    pub(super) schema: Schema,
    /// What the user should know of the guesses.
    pub(super) notes: Vec<String>,
}

/// Looks at the beginning of a file. Columns of the model take the model's types when the file is text.
pub(super) fn infer(
    path: &Path,
    format: Option<Format>,
    options: &CsvOptions,
    table: &Name,
) -> Result<Inferred> {
    let inferred = match format.map_or_else(|| Format::of(path), Ok)? {
        Format::Parquet => infer_parquet(path),
        Format::Csv => infer_csv(path, options, table),
        Format::Json => infer_json(path, table),
    };
    inferred.map_err(|error| unreadable_of(error, path))
}

/// A failure of the disk, or of what a file was compressed with, says in which file it was met.
pub(super) fn unreadable_of(error: Error, path: &Path) -> Error {
    match (error.kind(), path.file_name()) {
        (Kind::Io, Some(name)) => error.about(&name.to_string_lossy()),
        _ => error,
    }
}

/// The columns of a file, where that is told without a look at its rows.
pub(super) fn names_of(
    path: &Path,
    format: Option<Format>,
    options: &CsvOptions,
) -> Result<Option<Vec<String>>> {
    let names = |schema: Schema| schema.fields().iter().map(|f| f.name().clone()).collect();
    match format.map_or_else(|| Format::of(path), Ok)? {
        Format::Json => Ok(None),
        Format::Parquet => Ok(Some(names(infer_parquet(path)?.schema))),
        Format::Csv => {
            let options = options.for_file(path);
            let mut records = options.reader(open_text(path)?.0);
            match records.next() {
                Ok(Some((_, header))) if options.has_header => {
                    let names = header_names(header, &options.null);
                    refuse_other_delimiter(&names, &options, path)?;
                    Ok(Some(names))
                }
                // What cannot be read is told by the load.
                _ => Ok(None),
            }
        }
    }
}

/// Refuses a header that is one name with what separates values elsewhere in it, unless somebody has said what separates them here.
fn refuse_other_delimiter(names: &[String], options: &CsvOptions, path: &Path) -> Result<()> {
    let [only] = names else { return Ok(()) };
    let others = [(';', "';'"), ('\t', "$'\\t'"), ('|', "'|'"), (',', "','")];
    match others.iter().find(|(delimiter, _)| only.contains(*delimiter)) {
        Some((_, told)) if options.delimiter.is_none() => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Err(Error::new(
                Kind::BadCopyFormat,
                format!("the header of {name} is one column: {only:?}"),
            )
            .hint(format!("its values seem to be separated by something else: --delimiter {told}; --delimiter ',' takes it as it is")))
        }
        _ => Ok(()),
    }
}

fn infer_parquet(path: &Path) -> Result<Inferred> {
    let read = File::open(path).map_err(Error::from).and_then(parquet::schema_of);
    let schema = read.map_err(|error| match (error.kind(), path.file_name()) {
        // Those of the disk are told of by the caller.
        (Kind::Io, _) | (_, None) => error,
        (_, Some(name)) => error.about(&name.to_string_lossy()),
    })?;
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_name(folded(f.name())));
    Ok(Inferred { schema: Schema::new(fields.collect::<Vec<_>>()), notes: vec![] })
}

/// The name that a column gets: those by which erasures and identities know a record are in lower case.
fn folded(name: &str) -> String {
    let known = RECORD.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    known.unwrap_or(name).to_owned()
}

fn infer_csv(path: &Path, options: &CsvOptions, table: &Name) -> Result<Inferred> {
    let options = options.for_file(path);
    let mut records = options.reader(open_text(path)?.0);
    let Some((line, first)) = records.next()? else {
        return Err(Error::new(Kind::BadCopyFormat, format!("{} is empty", path.display()))
            .hint("a header line is the least"));
    };
    let (names, first) = match options.has_header {
        true => {
            let names = header_names(first, &options.null);
            refuse_other_delimiter(&names, &options, path)?;
            (names, None)
        }
        false => ((1..=first.len()).map(|i| format!("column{i}")).collect(), Some(first.clone())),
    };
    let mut guesses = vec![Guess::default(); names.len()];
    let mut see = |line: u64, record: &::csv::ByteRecord| {
        for (guess, value) in guesses.iter_mut().zip(record) {
            match value {
                value if value == options.null.as_bytes() => {}
                // Programs that quote every value write "" for a missing one.
                MARK if options.null.is_empty() => {}
                b"" => {}
                MARK => guess.see(&options.null, line),
                value => guess.see(&String::from_utf8_lossy(value), line),
            }
        }
    };
    if let Some(first) = &first {
        see(line, first);
    }
    for _ in usize::from(first.is_some())..SAMPLE_ROWS {
        let Some((line, record)) = records.next()? else { break };
        see(line, record);
    }
    Ok(inferred(names.iter().map(String::as_str).zip(guesses), table))
}

fn infer_json(path: &Path, table: &Name) -> Result<Inferred> {
    let mut keys: Vec<(String, Guess)> = Vec::new();
    for (line, number) in BufReader::new(open_text(path)?.0).lines().take(SAMPLE_ROWS).zip(1..) {
        let Ok(Value::Object(object)) = serde_json::from_str::<Value>(&line?) else { continue };
        for (key, value) in &object {
            let at = keys.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
                keys.push((key.clone(), Guess::default()));
                keys.len() - 1
            });
            match value {
                Value::String(text) => keys[at].1.see_quoted(text, number),
                Value::Array(_) | Value::Object(_) => keys[at].1.see_quoted("", number),
                other => {
                    if let Some(text) = json::text_of(other) {
                        keys[at].1.see(&text, number);
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
    Ok(inferred(keys.iter().map(|(k, g)| (k.as_str(), g.clone())), table))
}

fn inferred<'a>(columns: impl Iterator<Item = (&'a str, Guess)>, table: &Name) -> Inferred {
    let mut fields = Vec::new();
    let mut notes = Vec::new();
    for (name, guess) in columns {
        let data_type = model::model_type(&table.table, &folded(name)).unwrap_or_else(|| {
            notes.extend(guess.doubt(name));
            guess.data_type()
        });
        fields.push(Field::new(folded(name), data_type, true));
    }
    Inferred { schema: Schema::new(fields), notes }
}

/// Types that texts can have, the narrowest first.
const KINDS: [&str; 5] = ["whole numbers", "numbers", "true or false", "dates", "times"];

/// How many values of a column so far each type does not fit.
#[derive(Debug, Clone, Default)]
struct Guess {
    seen: u64,
    misses: [u64; KINDS.len()],
    /// Line of the first value that does not fit.
    first: [u64; KINDS.len()],
    has_offset: bool,
}

impl Guess {
    fn see(&mut self, text: &str, line: u64) {
        let text = text.trim();
        // A letter alone is a code more often: F and M, Y and N and U.
        let is_boolean = text.len() > 1 && read_boolean(text).is_some();
        self.note([is_whole(text), is_number(text), is_boolean], text, line);
    }

    /// A JSON string is never a number: what looks like one is a code.
    fn see_quoted(&mut self, text: &str, line: u64) {
        self.note([false; 3], text, line);
    }

    fn note(&mut self, [whole, number, boolean]: [bool; 3], text: &str, line: u64) {
        let is_long =
            text.len() >= "2011-12-09".len() && text.starts_with(|c: char| c.is_ascii_digit());
        let is_date = is_long && text.len() <= 10 && read_date(text).is_some();
        let is_time = is_long && read_instant(text).is_some();
        self.seen += 1;
        for (kind, fits) in [whole, number, boolean, is_date, is_time].into_iter().enumerate() {
            if !fits {
                self.misses[kind] += 1;
                if self.misses[kind] == 1 {
                    self.first[kind] = line;
                }
            }
        }
        self.has_offset |= is_time
            && (text.ends_with('Z') || text.get(11..).is_some_and(|t| t.contains(['+', '-'])));
    }

    fn data_type(&self) -> DataType {
        if self.seen == 0 {
            return DataType::Utf8;
        }
        match self.misses.iter().position(|misses| *misses == 0) {
            Some(0) => DataType::Int64,
            Some(1) => DataType::Float64,
            Some(2) => DataType::Boolean,
            Some(3) => DataType::Date32,
            Some(_) => {
                DataType::Timestamp(TimeUnit::Microsecond, self.has_offset.then(|| "UTC".into()))
            }
            None => DataType::Utf8,
        }
    }

    /// What to say of a column that is text because of few values.
    fn doubt(&self, name: &str) -> Option<String> {
        const FEW: u64 = 20;
        let kind = (0..KINDS.len()).min_by_key(|kind| self.misses[*kind])?;
        let misses = self.misses[kind];
        (misses > 0 && misses * FEW <= self.seen).then(|| {
            format!(
                "column \"{name}\" is text: {misses} of the first {} values are not {}, the first in line {}; \
                 CREATE TABLE with the type you want puts such rows into system.quarantine",
                self.seen, KINDS[kind], self.first[kind],
            )
        })
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
        (1..).zip(values).for_each(|(line, v)| guess.see(v, line));
        guess.data_type()
    }

    #[test]
    fn types_are_those_that_every_value_has() {
        assert_eq!(guess(&["1", "-20"]), DataType::Int64);
        assert_eq!(guess(&["1", "2.5"]), DataType::Float64);
        assert_eq!(guess(&["true", "no"]), DataType::Boolean);
        assert_eq!(guess(&["F", "F"]), DataType::Utf8);
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
    fn a_few_strangers_among_numbers_are_told_of() {
        let mut guess = Guess::default();
        (1..=40).for_each(|line| guess.see("7", line));
        assert_eq!(guess.doubt("n"), None);
        guess.see("n/a", 41);
        assert_eq!(guess.data_type(), DataType::Utf8);
        let told = guess.doubt("n").unwrap();
        assert!(told.contains("1 of the first 41 values are not whole numbers"), "{told}");
        assert!(told.contains("line 41"), "{told}");
    }

    #[test]
    fn codes_stay_text() {
        assert_eq!(guess(&["0123"]), DataType::Utf8);
        assert_eq!(guess(&["1234567890123456"]), DataType::Utf8);
        assert_eq!(guess(&["13800138001"]), DataType::Int64);
    }
}
