//! `""` and nothing between two commas: an empty text and a missing one.
//!
//! The CSV reader gives both as an empty value. A filter before it puts a mark, which no UTF-8 text can hold, in the place of a quoted
//! value that is spelt as NULL is, so that only what stands without quotes means NULL. It also knows in which line a record begins.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read, Result};

/// What a quoted value that is spelt as NULL is holds behind the filter.
pub(super) const MARK: &[u8] = &[0xff, 0x00, 0xff];

/// What is said of a quoted value that does not end.
pub(super) const UNCLOSED: &str = "a quoted value is not closed before the end of the input";

/// Marks quoted values that are spelt as NULL is in the CSV that passes through.
pub(super) struct MarkNull<R> {
    inner: BufReader<R>,
    delimiter: u8,
    quote: u8,
    escape: Option<u8>,
    /// Spelling of NULL.
    null: Vec<u8>,
    state: State,
    ready: Vec<u8>,
    given: usize,
    /// Line of the next byte.
    line: u64,
    /// Whether the last byte was a carriage return, which ends a line alone, or together with a line feed.
    is_after_cr: bool,
    /// Lines in which the records begin that the reader has not given yet.
    starts: VecDeque<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RecordStart,
    FieldStart,
    Bare,
    /// Behind the quote that opens a value, and so many bytes of the spelling of NULL, which are held back.
    Opened(usize),
    /// Behind the quote that closes a value spelt as NULL is, which is held back with it.
    Null,
    Quoted,
    /// Behind a quote within a quoted value.
    Quote,
    Escaped,
}

impl<R: Read> MarkNull<R> {
    /// A filter of `inner`. A spelling of NULL that needs quotes itself cannot be told from a quoted one.
    pub(super) fn new(inner: R, delimiter: u8, quote: u8, escape: Option<u8>, null: &str) -> Self {
        Self {
            inner: BufReader::with_capacity(1 << 17, inner),
            delimiter,
            quote,
            escape: escape.filter(|e| *e != quote),
            null: null.as_bytes().to_vec(),
            state: State::RecordStart,
            ready: Vec::new(),
            given: 0,
            line: 1,
            is_after_cr: false,
            starts: VecDeque::new(),
        }
    }

    /// The line in which the next record begins, counted from 1; to be asked once for each that the reader gives.
    pub(super) fn next_line(&mut self) -> u64 {
        self.starts.pop_front().unwrap_or(self.line)
    }

    /// Filters one buffer; whether there was any.
    fn refill(&mut self) -> Result<bool> {
        self.ready.clear();
        self.given = 0;
        let buffer = self.inner.fill_buf()?;
        let read = buffer.len();
        if read == 0 {
            if self.state == State::Null {
                self.state = State::FieldStart;
                self.ready.extend_from_slice(MARK);
                self.ready.push(self.quote);
            }
            if matches!(self.state, State::Opened(_) | State::Quoted | State::Escaped) {
                // The reader would take all that follows the quote for one value.
                return Err(std::io::Error::new(ErrorKind::UnexpectedEof, UNCLOSED));
            }
            return Ok(!self.ready.is_empty());
        }
        let (delimiter, quote) = (self.delimiter, self.quote);
        let ends = |byte: u8| byte == delimiter || byte == b'\n' || byte == b'\r';
        let mut rest = buffer;
        while let Some((&byte, after)) = rest.split_first() {
            // Within a value only a few bytes matter; the rest is copied in one piece.
            let skip = match self.state {
                State::Bare => memchr::memchr3(delimiter, b'\n', b'\r', rest),
                State::Quoted => match self.escape {
                    Some(escape) => memchr::memchr2(quote, escape, rest),
                    None => memchr::memchr(quote, rest),
                },
                _ => Some(0),
            };
            let skip = skip.unwrap_or(rest.len());
            if skip > 0 {
                (self.line, self.is_after_cr) = lines(&rest[..skip], self.line, self.is_after_cr);
                self.ready.extend_from_slice(&rest[..skip]);
                rest = &rest[skip..];
                continue;
            }
            if self.state == State::RecordStart && byte != b'\n' && byte != b'\r' {
                self.starts.push_back(self.line);
                self.state = State::FieldStart;
            }
            if let State::Opened(held) = self.state {
                match self.null.get(held) {
                    Some(next) if *next == byte && byte != quote && Some(byte) != self.escape => {
                        self.state = State::Opened(held + 1);
                        rest = after;
                        continue;
                    }
                    None if byte == quote => {
                        self.state = State::Null;
                        rest = after;
                        continue;
                    }
                    _ => {
                        self.ready.extend_from_slice(&self.null[..held]);
                        self.state = State::Quoted;
                    }
                }
            }
            if self.state == State::Null {
                let spelt = if ends(byte) { MARK } else { &self.null };
                self.ready.extend_from_slice(spelt);
                self.ready.push(quote);
                self.state = State::Quote;
            }
            rest = after;
            (self.line, self.is_after_cr) = lines(&[byte], self.line, self.is_after_cr);
            self.state = match self.state {
                State::RecordStart | State::FieldStart | State::Bare | State::Quote
                    if ends(byte) =>
                {
                    if byte == delimiter {
                        State::FieldStart
                    } else {
                        State::RecordStart
                    }
                }
                State::FieldStart if byte == quote => State::Opened(0),
                State::Quoted if Some(byte) == self.escape => State::Escaped,
                State::Quoted if byte == quote => State::Quote,
                State::Quote if byte != quote => State::Bare,
                State::Quote | State::Quoted | State::Escaped => State::Quoted,
                _ => State::Bare,
            };
            self.ready.push(byte);
        }
        self.inner.consume(read);
        // A buffer of which all is held back gives nothing yet; there is more to come.
        if self.ready.is_empty() { self.refill() } else { Ok(true) }
    }
}

/// The line after some bytes, and whether the last of them is a carriage return, by what both were before.
fn lines(bytes: &[u8], mut line: u64, is_after_cr: bool) -> (u64, bool) {
    let mut after = if is_after_cr { 0 } else { usize::MAX };
    for at in memchr::memchr2_iter(b'\r', b'\n', bytes) {
        match bytes[at] {
            b'\n' if after == at => {}
            b'\n' => line += 1,
            _ => {
                line += 1;
                after = at + 1;
            }
        }
    }
    (line, after == bytes.len())
}

impl<R: Read> Read for MarkNull<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        if self.given == self.ready.len() && !self.refill()? {
            return Ok(0);
        }
        let rest = &self.ready[self.given..];
        let n = rest.len().min(out.len());
        out[..n].copy_from_slice(&rest[..n]);
        self.given += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(csv: &str, chunk: usize, null: &str) -> MarkNull<Box<dyn Read>> {
        let slow = csv
            .as_bytes()
            .chunks(chunk)
            .map(<[u8]>::to_vec)
            .fold(Box::new(std::io::empty()) as Box<dyn Read>, |before, piece| {
                Box::new(before.chain(std::io::Cursor::new(piece)))
            });
        MarkNull::new(slow, b',', b'"', None, null)
    }

    fn marked(csv: &str, chunk: usize, null: &str) -> String {
        let mut all = Vec::new();
        filter(csv, chunk, null).read_to_end(&mut all).unwrap();
        let text: Vec<u8> =
            all.iter().filter(|b| **b != 0).map(|b| if *b == 0xff { b'#' } else { *b }).collect();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn only_quoted_values_spelt_as_null_is_are_marked_wherever_the_buffers_end() {
        for chunk in [1, 2, 3, 100] {
            let empty = |csv| marked(csv, chunk, "");
            assert_eq!(empty("a,\"\",\"\"\n\"\",,b"), "a,\"##\",\"##\"\n\"##\",,b");
            assert_eq!(empty("\"\""), "\"##\"");
            assert_eq!(empty("\"x\"\"\",\"\"\"\"\n"), "\"x\"\"\",\"\"\"\"\n");
            assert_eq!(empty("\"a,\"\",b\",c\"\",d\r\n"), "\"a,\"\",b\",c\"\",d\r\n");
            let word = |csv| marked(csv, chunk, "NULL");
            assert_eq!(word("NULL,\"NULL\",\"\"\n"), "NULL,\"##\",\"\"\n");
            for same in ["\"NUL\",\"NULLS\"\n", "\"NULL\"\"\"", "\"NU\nLL\",\"NNULL\",x\"NULL\""] {
                assert_eq!(word(same), same);
            }
        }
    }

    #[test]
    fn lines_of_records_are_told_past_line_breaks_and_empty_lines() {
        let csv = "n,t\n1,\"a\nb\"\n\n\nx,\n\"\n\n\",z\n\"\"\nw";
        for chunk in [1, 2, 3, 100] {
            for text in [csv.to_owned(), csv.replace('\n', "\r\n"), csv.replace('\n', "\r")] {
                let mut reader = ::csv::ReaderBuilder::new()
                    .has_headers(false)
                    .flexible(true)
                    .from_reader(filter(&text, chunk, ""));
                let mut record = ::csv::ByteRecord::new();
                let mut lines = Vec::new();
                while reader.read_byte_record(&mut record).unwrap() {
                    lines.push(reader.get_mut().next_line());
                }
                assert_eq!(lines, [1, 2, 6, 7, 10, 11], "{text:?}");
            }
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_is_an_error() {
        for csv in ["a,\"b\nc,d\n", "\"", "x,\"y\"\"", "\"NUL"] {
            let mut reader = MarkNull::new(csv.as_bytes(), b',', b'"', None, "NULL");
            let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{csv}");
        }
    }
}
