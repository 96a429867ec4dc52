//! `""` and nothing between two commas: an empty text and a missing one.
//!
//! The CSV reader gives both as an empty value. A filter before it puts a mark, which no UTF-8 text can hold, between the
//! quotes of an empty quoted value.

use std::io::{BufRead, BufReader, ErrorKind, Read, Result};

/// What an empty quoted value holds behind the filter.
pub(super) const MARK: &[u8] = &[0xff, 0x00, 0xff];

/// What is said of a quoted value that does not end.
const UNCLOSED: &str = "a quoted value is not closed before the end of the input";

/// Marks empty quoted values in the CSV that passes through.
pub(super) struct MarkEmpty<R> {
    inner: BufReader<R>,
    delimiter: u8,
    quote: u8,
    escape: Option<u8>,
    state: State,
    ready: Vec<u8>,
    given: usize,
}

#[derive(Debug, Clone, Copy)]
enum State {
    FieldStart,
    Bare,
    /// Behind the quote that opens a value.
    Opened,
    /// Behind the second quote of `""`, which is held back.
    Empty,
    Quoted,
    /// Behind a quote within a quoted value.
    Quote,
    Escaped,
}

impl<R: Read> MarkEmpty<R> {
    pub(super) fn new(inner: R, delimiter: u8, quote: u8, escape: Option<u8>) -> Self {
        Self {
            inner: BufReader::with_capacity(1 << 17, inner),
            delimiter,
            quote,
            escape: escape.filter(|e| *e != quote),
            state: State::FieldStart,
            ready: Vec::new(),
            given: 0,
        }
    }

    /// Filters one buffer; whether there was any.
    fn refill(&mut self) -> Result<bool> {
        self.ready.clear();
        self.given = 0;
        let buffer = self.inner.fill_buf()?;
        let read = buffer.len();
        if read == 0 {
            if matches!(self.state, State::Empty) {
                self.state = State::FieldStart;
                self.ready.extend_from_slice(MARK);
                self.ready.push(self.quote);
            }
            if matches!(self.state, State::Opened | State::Quoted | State::Escaped) {
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
                self.ready.extend_from_slice(&rest[..skip]);
                rest = &rest[skip..];
                continue;
            }
            rest = after;
            self.state = match self.state {
                State::FieldStart | State::Bare | State::Quote if ends(byte) => State::FieldStart,
                State::FieldStart if byte == quote => State::Opened,
                State::FieldStart | State::Bare => State::Bare,
                State::Opened if byte == quote => {
                    self.state = State::Empty;
                    continue;
                }
                State::Empty => {
                    if ends(byte) {
                        self.ready.extend_from_slice(MARK);
                    }
                    self.ready.push(quote);
                    match byte {
                        _ if ends(byte) => State::FieldStart,
                        _ if byte == quote => State::Quoted,
                        _ => State::Bare,
                    }
                }
                State::Opened | State::Quoted if Some(byte) == self.escape => State::Escaped,
                State::Quoted if byte == quote => State::Quote,
                State::Quote if byte != quote => State::Bare,
                State::Opened | State::Quoted | State::Quote | State::Escaped => State::Quoted,
            };
            self.ready.push(byte);
        }
        self.inner.consume(read);
        // A buffer of one held-back quote gives nothing yet; there is more to come.
        if self.ready.is_empty() { self.refill() } else { Ok(true) }
    }
}

impl<R: Read> Read for MarkEmpty<R> {
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

    fn marked(csv: &str, chunk: usize) -> String {
        let mut all = Vec::new();
        let slow = csv
            .as_bytes()
            .chunks(chunk)
            .fold(Box::new(std::io::empty()) as Box<dyn Read>, |before, piece| {
                Box::new(before.chain(piece))
            });
        MarkEmpty::new(slow, b',', b'"', None).read_to_end(&mut all).unwrap();
        let text: Vec<u8> =
            all.iter().filter(|b| **b != 0).map(|b| if *b == 0xff { b'#' } else { *b }).collect();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn only_empty_quoted_values_are_marked_wherever_the_buffers_end() {
        for chunk in [1, 2, 3, 100] {
            assert_eq!(marked("a,\"\",\"\"\n\"\",,b", chunk), "a,\"##\",\"##\"\n\"##\",,b");
            assert_eq!(marked("\"\"", chunk), "\"##\"");
            assert_eq!(marked("\"x\"\"\",\"\"\"\"\n", chunk), "\"x\"\"\",\"\"\"\"\n");
            assert_eq!(marked("\"a,\"\",b\",c\"\",d\r\n", chunk), "\"a,\"\",b\",c\"\",d\r\n");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_is_an_error() {
        for csv in ["a,\"b\nc,d\n", "\"", "x,\"y\"\""] {
            let mut reader = MarkEmpty::new(csv.as_bytes(), b',', b'"', None);
            let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{csv}");
        }
    }
}
