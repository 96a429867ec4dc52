//! JSON lines: one object a line.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::AtomicU64;

use serde_json::Value;
use tokio::sync::mpsc::Sender;

use super::convert::BadRow;
use super::csv::{Rows, unknown_column};
use super::{Chunk, Wanted, place_of};
use crate::error::Result;

/// Reads JSON lines and sends the rows that are wanted. A key that is missing is NULL.
pub(super) fn read(
    text: Box<dyn Read + Send>,
    count: &AtomicU64,
    wanted: &Wanted,
    sender: &Sender<Result<Chunk>>,
) {
    if let Err(error) = read_lines(text, count, wanted, sender) {
        let _ = sender.blocking_send(Err(error));
    }
}

fn read_lines(
    text: Box<dyn Read + Send>,
    count: &AtomicU64,
    wanted: &Wanted,
    sender: &Sender<Result<Chunk>>,
) -> Result<()> {
    let schema = &wanted.schema;
    // Keys that some object has.
    let mut met = vec![None; schema.fields().len()];
    let mut rows = Rows::new(schema, sender, count)?;
    let mut lines = BufReader::with_capacity(1 << 18, text);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            let names: Vec<String> = met.into_iter().flatten().collect();
            wanted.places(&names)?;
            return rows.finish();
        }
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let object = match serde_json::from_slice::<Value>(&line) {
            Ok(Value::Object(object)) => object,
            Ok(_) => {
                rows.add_bad(bad_line(number, &line, "is not an object"))?;
                continue;
            }
            Err(error) => {
                rows.add_bad(bad_line(
                    number,
                    &line,
                    &format!("is not JSON (character {})", error.column()),
                ))?;
                continue;
            }
        };
        let mut texts: Vec<Option<String>> = vec![None; schema.fields().len()];
        for (key, value) in &object {
            let Some(place) = place_of(schema, key) else {
                return Err(unknown_column(key, schema));
            };
            met[place].get_or_insert_with(|| key.clone());
            // Of keys that differ only in case the one with a value counts.
            texts[place] = text_of(value).or_else(|| texts[place].take());
        }
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        rows.add_texts(number, &texts)?;
    }
}

fn bad_line(line: u64, bytes: &[u8], reason: &str) -> BadRow {
    let value = String::from_utf8_lossy(bytes).trim().to_owned();
    BadRow { line, column: String::new(), value, reason: reason.to_owned() }
}

/// A JSON value as text: strings as they are, the rest as JSON writes it; null is NULL.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
