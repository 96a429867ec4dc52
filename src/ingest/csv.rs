//! CSV, and PostgreSQL's text format of COPY.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, Schema, SchemaRef};
use tokio::sync::mpsc::Sender;

use super::convert::{BadRow, RowBuilder};
use super::quoted::{MARK, MarkNull, UNCLOSED};
use super::{BATCH_ROWS, Chunk, Wanted};
use crate::error::{Error, Kind, Result, nearest};

/// How a CSV is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOptions {
    /// Between values; `None` is a comma, or a tab for a `.tsv` file.
    pub delimiter: Option<u8>,
    /// Around values that hold a delimiter.
    pub quote: u8,
    /// Before a quote within a value; `None` is the quote itself.
    pub escape: Option<u8>,
    /// Spelling of NULL.
    pub null: String,
    /// Whether the first line names the columns.
    pub has_header: bool,
    /// Whether a line `\\.` ends it, as in what psql sends.
    pub has_end_mark: bool,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            delimiter: None,
            quote: b'"',
            escape: None,
            null: String::new(),
            has_header: true,
            has_end_mark: false,
        }
    }
}

impl CsvOptions {
    /// The options with the delimiter that a file's name tells.
    pub(super) fn for_file(&self, path: &Path) -> Self {
        let is_tsv = path.to_string_lossy().to_lowercase().contains(".tsv");
        let delimiter = self.delimiter.or(is_tsv.then_some(b'\t'));
        Self { delimiter, ..self.clone() }
    }

    /// A reader; a quoted value that is spelt as NULL is comes as [`MARK`].
    pub(super) fn reader<R: Read>(&self, text: R) -> Records<R> {
        let mut builder = ::csv::ReaderBuilder::new();
        builder
            .delimiter(self.delimiter.unwrap_or(b','))
            .quote(self.quote)
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(1 << 18);
        if let Some(escape) = self.escape.filter(|e| *e != self.quote) {
            builder.escape(Some(escape)).double_quote(false);
        }
        let delimiter = self.delimiter.unwrap_or(b',');
        let marked = MarkNull::new(text, delimiter, self.quote, self.escape, &self.null);
        Records { reader: builder.from_reader(marked), record: ::csv::ByteRecord::new() }
    }
}

/// The records of a CSV, one at a time.
pub(super) struct Records<R> {
    reader: ::csv::Reader<MarkNull<R>>,
    record: ::csv::ByteRecord,
}

impl<R: Read> Records<R> {
    /// The next record and the line in which it begins; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &::csv::ByteRecord)>> {
        let is_read = self.reader.read_byte_record(&mut self.record).map_err(unreadable)?;
        Ok(is_read.then(|| (self.reader.get_mut().next_line(), &self.record)))
    }
}

/// Where each column of the table stands in a line.
struct Layout {
    /// For each column of the schema, its place in the line.
    places: Vec<Option<usize>>,
    /// Values that a line must have.
    width: usize,
}

impl Layout {
    /// Columns by the names of a header, or of COPY's list.
    fn of(names: &[String], wanted: &Wanted) -> Result<Self> {
        Ok(Self { places: wanted.places(names)?, width: names.len() })
    }

    fn in_order(schema: &SchemaRef) -> Self {
        let width = schema.fields().len();
        Self { places: (0..width).map(Some).collect(), width }
    }
}

pub(super) fn unknown_column(name: &str, schema: &Schema) -> Error {
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    let error = Error::new(
        Kind::UndefinedColumn,
        format!("the input has a column \"{name}\" that the table has not"),
    );
    match nearest(name, &names) {
        Some(near) => {
            error.hint(format!("perhaps it is \"{near}\"; its columns: {}", names.join(", ")))
        }
        None => error.detail(format!("columns of the table: {}", names.join(", "))),
    }
}

/// The names in a header line, without a byte order mark.
pub(super) fn header_names(record: &::csv::ByteRecord, null: &str) -> Vec<String> {
    let clean = |name: &[u8]| match name {
        MARK => null.to_owned(),
        name => String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_owned(),
    };
    record.iter().map(clean).collect()
}

/// Reads CSV and sends rows of `schema`.
pub(super) fn read(
    text: Box<dyn Read + Send>,
    count: &AtomicU64,
    options: &CsvOptions,
    columns: Option<Vec<String>>,
    wanted: &Wanted,
    sender: &Sender<Result<Chunk>>,
) {
    let result = read_csv(text, count, options, columns, wanted, sender);
    if let Err(error) = result {
        // The receiver is gone only when the load was given up.
        let _ = sender.blocking_send(Err(error));
    }
}

fn read_csv(
    text: Box<dyn Read + Send>,
    count: &AtomicU64,
    options: &CsvOptions,
    columns: Option<Vec<String>>,
    wanted: &Wanted,
    sender: &Sender<Result<Chunk>>,
) -> Result<()> {
    let schema = &wanted.schema;
    let mut records = options.reader(text);
    let mut layout =
        columns.as_ref().map_or(Ok(Layout::in_order(schema)), |names| Layout::of(names, wanted))?;
    if options.has_header
        && let Some((_, header)) = records.next()?
        && columns.is_none()
    {
        layout = Layout::of(&header_names(header, &options.null), wanted)?;
    }
    let mut rows = Rows::new(schema, sender, count)?;
    // Programs that quote every value write "" for a missing number.
    rows.empty_is_null = schema.fields().iter().map(|f| f.data_type() != &DataType::Utf8).collect();
    while let Some((line, record)) = records.next()? {
        // Before version 18 psql sends the mark that ends inline data as a line of its own.
        if options.has_end_mark && record.len() == 1 && record.get(0) == Some(b"\\.") {
            break;
        }
        rows.add(line, &layout, record.len(), |i| {
            let value = record.get(i)?;
            match value {
                MARK => Some(options.null.as_bytes()),
                _ => (value != options.null.as_bytes()).then_some(value),
            }
        })?;
    }
    rows.finish()
}

fn unreadable(error: ::csv::Error) -> Error {
    match error.into_kind() {
        ::csv::ErrorKind::Io(io) if io.to_string() == UNCLOSED => {
            Error::new(Kind::BadCopyFormat, format!("the CSV cannot be read: {io}"))
                .hint("look for a quote that opens a value and is not doubled or closed")
        }
        ::csv::ErrorKind::Io(io) => io.into(),
        other => Error::new(Kind::BadCopyFormat, format!("the CSV cannot be read: {other:?}")),
    }
}

/// PostgreSQL's text format.
pub(super) struct TextStyle {
    pub(super) delimiter: u8,
    pub(super) null: String,
    pub(super) has_header: bool,
}

/// Reads the text format and sends rows of `schema`.
pub(super) fn read_text(
    text: Box<dyn Read + Send>,
    count: &AtomicU64,
    style: &TextStyle,
    columns: Option<Vec<String>>,
    wanted: &Wanted,
    sender: &Sender<Result<Chunk>>,
) {
    let schema = &wanted.schema;
    let result = (|| -> Result<()> {
        let layout =
            columns.map_or(Ok(Layout::in_order(schema)), |names| Layout::of(&names, wanted))?;
        let mut lines = BufReader::with_capacity(1 << 18, text);
        let mut rows = Rows::new(schema, sender, count)?;
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            number += 1;
            while line.last().is_some_and(|b| *b == b'\n' || *b == b'\r') {
                line.pop();
            }
            if line == b"\\." {
                break;
            }
            if number == 1 && style.has_header {
                continue;
            }
            let values: Vec<Option<Vec<u8>>> =
                values_of(&line, style.delimiter).map(|raw| unescaped(raw, &style.null)).collect();
            rows.add(number, &layout, values.len(), |i| values.get(i)?.as_deref())?;
        }
        rows.finish()
    })();
    if let Err(error) = result {
        let _ = sender.blocking_send(Err(error));
    }
}

/// The values of a line: what a backslash stands before is no delimiter.
fn values_of(line: &[u8], delimiter: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_escaped = false;
    line.split(move |byte| {
        let ends = *byte == delimiter && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    })
}

/// A value of the text format without its backslashes; `None` is NULL.
fn unescaped(raw: &[u8], null: &str) -> Option<Vec<u8>> {
    if raw == null.as_bytes() {
        return None;
    }
    let mut value = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => value.push(b'\n'),
            Some(b't') => value.push(b'\t'),
            Some(b'r') => value.push(b'\r'),
            Some(b'b') => value.push(8),
            Some(b'f') => value.push(12),
            Some(b'v') => value.push(11),
            Some(b'x') if bytes.peek().is_some_and(u8::is_ascii_hexdigit) => {
                value.push(number_of(&mut bytes, 16, 2));
            }
            Some(digit @ b'0'..=b'7') => {
                let mut all = std::iter::once(digit)
                    .chain(std::iter::from_fn(|| bytes.next_if(|b| (b'0'..=b'7').contains(b))))
                    .take(3);
                value.push(all.by_ref().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
            }
            Some(other) => value.push(other),
            None => value.push(b'\\'),
        }
    }
    Some(value)
}

fn number_of(
    bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>,
    base: u32,
    digits_max: usize,
) -> u8 {
    let mut number = 0u8;
    for _ in 0..digits_max {
        let Some(digit) = bytes.peek().and_then(|b| char::from(*b).to_digit(base)) else { break };
        number = number.wrapping_mul(base as u8).wrapping_add(digit as u8);
        bytes.next();
    }
    number
}

/// Collects rows and sends them in batches, bad ones beside the good.
pub(super) struct Rows<'a> {
    schema: &'a SchemaRef,
    builder: RowBuilder,
    bad: Vec<BadRow>,
    /// For each column, whether an empty text is NULL.
    empty_is_null: Vec<bool>,
    sender: &'a Sender<Result<Chunk>>,
    count: &'a AtomicU64,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        schema: &'a SchemaRef,
        sender: &'a Sender<Result<Chunk>>,
        count: &'a AtomicU64,
    ) -> Result<Self> {
        Ok(Self {
            schema,
            builder: RowBuilder::new(SchemaRef::clone(schema))?,
            bad: Vec::new(),
            empty_is_null: vec![false; schema.fields().len()],
            sender,
            count,
        })
    }

    fn add<'v>(
        &mut self,
        line: u64,
        layout: &Layout,
        width: usize,
        value: impl Fn(usize) -> Option<&'v [u8]>,
    ) -> Result<()> {
        if width != layout.width {
            let reason = format!("has {width} values instead of {}", layout.width);
            return self.add_bad(BadRow {
                line,
                column: String::new(),
                value: String::new(),
                reason,
            });
        }
        let mut texts = Vec::with_capacity(layout.places.len());
        for (column, place) in layout.places.iter().enumerate() {
            let text = match place.and_then(&value).map(std::str::from_utf8) {
                None => None,
                Some(Ok("")) if self.empty_is_null[column] => None,
                Some(Ok(text)) => Some(text),
                Some(Err(_)) => {
                    let column = self.schema.field(column).name().clone();
                    return self.add_bad(BadRow {
                        line,
                        column,
                        value: String::new(),
                        reason: "is not UTF-8".to_owned(),
                    });
                }
            };
            texts.push(text);
        }
        self.add_texts(line, &texts)
    }

    /// Adds a row of one text a column of the schema.
    pub(super) fn add_texts(&mut self, line: u64, texts: &[Option<&str>]) -> Result<()> {
        if let Err((column, reason)) = self.builder.push(texts) {
            let value = texts[column].unwrap_or_default().to_owned();
            let column = self.schema.field(column).name().clone();
            return self.add_bad(BadRow { line, column, value, reason });
        }
        self.send_when_full()
    }

    pub(super) fn add_bad(&mut self, bad: BadRow) -> Result<()> {
        self.bad.push(bad);
        self.send_when_full()
    }

    fn send_when_full(&mut self) -> Result<()> {
        if self.builder.len() + self.bad.len() >= BATCH_ROWS { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        let chunk = Chunk {
            rows: self.builder.take()?,
            bad: std::mem::take(&mut self.bad),
            bytes_read: self.count.load(Ordering::Relaxed),
        };
        self.sender
            .blocking_send(Ok(chunk))
            .map_err(|_| Error::new(Kind::Cancelled, "the load was given up"))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.send()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_delimiter_ends_no_value() {
        let values: Vec<Option<Vec<u8>>> =
            values_of(br"a\|b|\\|\N|", b'|').map(|raw| unescaped(raw, "\\N")).collect();
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(values, [text("a|b"), text("\\"), None, text("")]);
    }

    #[test]
    fn the_text_format_unescapes() {
        let text =
            |raw: &str| unescaped(raw.as_bytes(), "\\N").map(|v| String::from_utf8(v).unwrap());
        assert_eq!(text("\\N"), None);
        assert_eq!(text("a\\tb\\\\c\\x41\\101\\q").as_deref(), Some("a\tb\\cAAq"));
        assert_eq!(text("").as_deref(), Some(""));
    }
}
