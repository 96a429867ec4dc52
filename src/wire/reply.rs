//! Messages to the client.

use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::data::{FieldDescription, RowDescription};
use pgwire::messages::response::{
    CommandComplete, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::ParameterStatus;

use crate::catalog::pg_catalog::type_of;
use crate::error::Error;
use crate::sql::OutputColumn;

/// Appends a message; one that cannot be encoded (a tag of megabytes) leaves nothing behind.
pub(super) fn put(out: &mut BytesMut, message: &impl Message) {
    let before = out.len();
    if let Err(error) = message.encode(out) {
        tracing::error!(%error, "a message could not be encoded");
        out.truncate(before);
    }
}

pub(super) fn ready(out: &mut BytesMut, status: TransactionStatus) {
    put(out, &ReadyForQuery::new(status));
}

pub(super) fn complete(out: &mut BytesMut, tag: &str) {
    put(out, &CommandComplete::new(tag.to_owned()));
}

pub(super) fn parameter(out: &mut BytesMut, name: &str, value: &str) {
    put(out, &ParameterStatus::new(name.to_owned(), value.to_owned()));
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// The statement failed.
    Error,
    /// The connection ends.
    Fatal,
    /// Something to know.
    Notice,
    /// Something to worry about.
    Warning,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
        }
    }
}

/// An error; `sql` is the text that its place counts in.
pub(super) fn error(out: &mut BytesMut, severity: Severity, error: &Error, sql: &str) {
    put(out, &ErrorResponse::new(fields(severity, error, sql)));
}

pub(super) fn notice(out: &mut BytesMut, severity: Severity, code: &str, message: &str) {
    let word = severity.word().to_owned();
    let fields = vec![
        (b'S', word.clone()),
        (b'V', word),
        (b'C', code.to_owned()),
        (b'M', message.to_owned()),
    ];
    put(out, &NoticeResponse::new(fields));
}

fn fields(severity: Severity, error: &Error, sql: &str) -> Vec<(u8, String)> {
    let clean = |text: &str| text.replace('\0', "");
    let word = severity.word().to_owned();
    let mut fields = vec![
        (b'S', word.clone()),
        (b'V', word),
        (b'C', error.sqlstate().to_owned()),
        (b'M', clean(error.message())),
    ];
    if let Some(detail) = error.detail_text() {
        fields.push((b'D', clean(detail)));
    }
    if let Some(hint) = error.hint_text() {
        fields.push((b'H', clean(hint)));
    }
    if let Some(offset) = error.place().and_then(|place| place.offset_in(sql)) {
        fields.push((b'P', offset.to_string()));
    }
    fields
}

/// Columns of a result; `format` gives each column's format code.
pub(super) fn row_description(
    out: &mut BytesMut,
    columns: &[OutputColumn],
    format: impl Fn(usize) -> i16,
) {
    let describe = |(i, column): (usize, &OutputColumn)| {
        let (oid, typmod) = type_of(&column.field);
        FieldDescription::new(
            column.name.clone(),
            0,
            0,
            oid as u32,
            type_length(oid),
            typmod,
            format(i),
        )
    };
    put(out, &RowDescription::new(columns.iter().enumerate().map(describe).collect()));
}

fn type_length(oid: i64) -> i16 {
    match oid {
        16 | 18 => 1,
        21 => 2,
        23 | 26 | 24 | 700 | 1082 | 2205 => 4,
        20 | 701 | 1083 | 1114 | 1184 => 8,
        1186 => 16,
        19 => 64,
        _ => -1,
    }
}

/// Begins a message whose length is not known yet; [`end`] fills it in.
pub(super) fn begin(out: &mut BytesMut, kind: u8) -> usize {
    out.put_u8(kind);
    let at = out.len();
    out.put_i32(0);
    at
}

pub(super) fn end(out: &mut BytesMut, at: usize) {
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}
