//! Rows to DataRow and CopyData messages, in text and binary.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field};
use bytes::{BufMut, BytesMut};
use chrono_tz::Tz;

use super::reply::{begin, end};
use crate::catalog::pg_catalog::type_of;
use crate::error::{Error, Kind, Result};
use crate::ingest::CopyFormat;
use crate::sql::OutputColumn;
use clientele_udfs::pg::text::TextColumn;

/// Encoded rows: their bytes, and where each ends.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) bytes: BytesMut,
    pub(crate) ends: Vec<usize>,
}

/// How rows are to be written.
#[derive(Debug, Clone)]
pub(crate) enum Style {
    /// DataRow messages; for each column whether it is binary.
    Wire(Vec<bool>),
    /// CopyData messages.
    Copy(CopyFormat),
}

/// A chunk is sent when it has this many bytes.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Writes the rows of `batch` from `from` on until a chunk is full; gives the chunk and the next row.
pub(crate) fn rows(batch: &Prepared, style: &Style, from: usize) -> Result<(Rows, usize)> {
    let mut rows = Rows::default();
    let mut row = from;
    let mut text = String::new();
    while row < batch.len && rows.bytes.len() < CHUNK_BYTES {
        match style {
            Style::Wire(binary) => data_row(&mut rows.bytes, batch, binary, row, &mut text)?,
            Style::Copy(format) => copy_row(&mut rows.bytes, batch, format, row, &mut text),
        }
        rows.ends.push(rows.bytes.len());
        row += 1;
    }
    Ok((rows, row))
}

/// A batch whose columns are ready to be written.
pub(crate) struct Prepared {
    columns: Vec<TextColumn>,
    fields: Vec<std::sync::Arc<Field>>,
    pub(crate) len: usize,
}

impl Prepared {
    pub(crate) fn new(batch: &RecordBatch, columns: &[OutputColumn], zone: Tz) -> Result<Self> {
        let prepared =
            batch.columns().iter().map(|array: &ArrayRef| Ok(TextColumn::new(array, zone)?));
        Ok(Self {
            columns: prepared.collect::<Result<_>>()?,
            fields: columns.iter().map(|c| std::sync::Arc::clone(&c.field)).collect(),
            len: batch.num_rows(),
        })
    }
}

fn data_row(
    out: &mut BytesMut,
    batch: &Prepared,
    binary: &[bool],
    row: usize,
    text: &mut String,
) -> Result<()> {
    let message = begin(out, b'D');
    out.put_u16(batch.columns.len() as u16);
    for (i, column) in batch.columns.iter().enumerate() {
        if column.is_null(row) {
            out.put_i32(-1);
            continue;
        }
        let at = out.len();
        out.put_i32(0);
        if binary.get(i).copied().unwrap_or(false) {
            put_binary(out, column, &batch.fields[i], row)?;
        } else {
            text.clear();
            column.write(row, text);
            out.extend_from_slice(text.as_bytes());
        }
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    end(out, message);
    Ok(())
}

/// Microseconds and days between 1970 and PostgreSQL's year 2000.
pub(super) const EPOCH_US: i64 = 946_684_800_000_000;
pub(super) const EPOCH_DAYS: i32 = 10_957;

fn put_binary(out: &mut BytesMut, column: &TextColumn, field: &Field, row: usize) -> Result<()> {
    let (oid, _) = type_of(field);
    let out_of_range = |what: &str| Error::new(Kind::OutOfRange, format!("{what} out of range"));
    match column {
        TextColumn::Boolean(a) => out.put_u8(u8::from(a.value(row))),
        TextColumn::Int(a) => match oid {
            21 => out.put_i16(a.value(row) as i16),
            23 | 26 => out.put_i32(a.value(row) as i32),
            _ => out.put_i64(a.value(row)),
        },
        TextColumn::UInt(a) => put_numeric(out, i128::from(a.value(row)), 0),
        TextColumn::Float32(a) => out.put_f32(a.value(row)),
        TextColumn::Float64(a) => out.put_f64(a.value(row)),
        TextColumn::Decimal(a, scale) => {
            put_numeric(out, a.value(row), u32::from(scale.unsigned_abs()))
        }
        // A time of day is kept as its text.
        TextColumn::Text(a) if oid == 1083 => {
            let time = a.value(row).parse::<chrono::NaiveTime>();
            let since = time
                .map_err(|_| out_of_range("time"))?
                .signed_duration_since(chrono::NaiveTime::MIN);
            out.put_i64(since.num_microseconds().ok_or_else(|| out_of_range("time"))?);
        }
        TextColumn::Text(a) => out.extend_from_slice(a.value(row).as_bytes()),
        TextColumn::Binary(a) => out.extend_from_slice(a.value(row)),
        TextColumn::Date(a) => {
            out.put_i32(a.value(row).checked_sub(EPOCH_DAYS).ok_or_else(|| out_of_range("date"))?)
        }
        TextColumn::Timestamp(a) | TextColumn::TimestampTz(a, _) => {
            out.put_i64(
                a.value(row).checked_sub(EPOCH_US).ok_or_else(|| out_of_range("timestamp"))?,
            );
        }
        TextColumn::Interval(a) => {
            let interval = a.value(row);
            out.put_i64(interval.nanoseconds / 1000);
            out.put_i32(interval.days);
            out.put_i32(interval.months);
        }
        TextColumn::List(list, elements) => {
            let item = match field.data_type() {
                DataType::List(item)
                | DataType::LargeList(item)
                | DataType::FixedSizeList(item, _) => item,
                _ => return Err(Error::internal("an array has a list's type")),
            };
            if matches!(elements.as_ref(), TextColumn::List(..)) {
                return Err(Error::not_supported("arrays of arrays have no binary form here")
                    .hint("ask for text"));
            }
            put_array(out, list, elements, item, row)?;
        }
        TextColumn::Record(_, fields) => {
            let DataType::Struct(types) = field.data_type() else {
                return Err(Error::internal("a record has a struct's type"));
            };
            out.put_i32(fields.len() as i32);
            for (column, field) in fields.iter().zip(types) {
                out.put_u32(type_of(field).0 as u32);
                put_element(out, column, field, row)?;
            }
        }
        TextColumn::Null(_) => {}
    }
    Ok(())
}

fn put_array(
    out: &mut BytesMut,
    list: &arrow::array::ListArray,
    elements: &TextColumn,
    item: &Field,
    row: usize,
) -> Result<()> {
    let offsets = list.value_offsets();
    let range = offsets[row] as usize..offsets[row + 1] as usize;
    let oid = type_of(item).0 as u32;
    if range.is_empty() {
        out.put_i32(0);
        out.put_i32(0);
        out.put_u32(oid);
        return Ok(());
    }
    out.put_i32(1);
    out.put_i32(i32::from(range.clone().any(|at| elements.is_null(at))));
    out.put_u32(oid);
    out.put_i32(range.len() as i32);
    out.put_i32(1);
    range.into_iter().try_for_each(|at| put_element(out, elements, item, at))
}

fn put_element(out: &mut BytesMut, column: &TextColumn, field: &Field, row: usize) -> Result<()> {
    if column.is_null(row) {
        out.put_i32(-1);
        return Ok(());
    }
    let at = out.len();
    out.put_i32(0);
    put_binary(out, column, field, row)?;
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// NUMERIC: digits in base 10,000 around the point, without zeros at either end.
fn put_numeric(out: &mut BytesMut, value: i128, scale: u32) {
    let unit = 10u128.pow(scale.min(38));
    let mut whole = value.unsigned_abs() / unit;
    let mut fraction = value.unsigned_abs() % unit;
    let mut digits: Vec<i16> = Vec::with_capacity(20);
    while whole > 0 {
        digits.push((whole % 10_000) as i16);
        whole /= 10_000;
    }
    digits.reverse();
    let mut weight = digits.len() as i16 - 1;
    let mut left = scale;
    while left >= 4 {
        let place = 10u128.pow(left - 4);
        digits.push((fraction / place) as i16);
        fraction %= place;
        left -= 4;
    }
    if left > 0 {
        digits.push((fraction * 10u128.pow(4 - left)) as i16);
    }
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading);
    weight -= leading as i16;
    while digits.last() == Some(&0) {
        digits.pop();
    }
    let is_negative = value < 0 && !digits.is_empty();
    out.put_i16(digits.len() as i16);
    out.put_i16(if digits.is_empty() { 0 } else { weight });
    out.put_u16(if is_negative { 0x4000 } else { 0 });
    out.put_u16(scale as u16);
    digits.into_iter().for_each(|digit| out.put_i16(digit));
}

fn copy_row(
    out: &mut BytesMut,
    batch: &Prepared,
    format: &CopyFormat,
    row: usize,
    text: &mut String,
) {
    let message = begin(out, b'd');
    for (i, column) in batch.columns.iter().enumerate() {
        let delimiter = match format {
            CopyFormat::Text { delimiter, .. } => *delimiter,
            CopyFormat::Csv(options) => options.delimiter.unwrap_or(b','),
        };
        if i > 0 {
            out.put_u8(delimiter);
        }
        if column.is_null(row) {
            let null = match format {
                CopyFormat::Text { null, .. } => null,
                CopyFormat::Csv(options) => &options.null,
            };
            out.extend_from_slice(null.as_bytes());
            continue;
        }
        text.clear();
        column.write(row, text);
        copy_value(out, text, format, delimiter);
    }
    out.put_u8(b'\n');
    end(out, message);
}

fn copy_value(out: &mut BytesMut, text: &str, format: &CopyFormat, delimiter: u8) {
    match format {
        CopyFormat::Text { .. } => {
            for byte in text.bytes() {
                match byte {
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b'\r' => out.extend_from_slice(b"\\r"),
                    b'\t' => out.extend_from_slice(b"\\t"),
                    byte if byte == delimiter => {
                        out.put_u8(b'\\');
                        out.put_u8(byte);
                    }
                    byte => out.put_u8(byte),
                }
            }
        }
        CopyFormat::Csv(options) => {
            let quote = options.quote;
            let escape = options.escape.unwrap_or(quote);
            let needs_quotes = text == options.null
                || text.bytes().any(|b| b == delimiter || b == quote || b == b'\n' || b == b'\r')
                || text == "\\.";
            if !needs_quotes {
                out.extend_from_slice(text.as_bytes());
                return;
            }
            out.put_u8(quote);
            for byte in text.bytes() {
                if byte == quote || byte == escape {
                    out.put_u8(escape);
                }
                out.put_u8(byte);
            }
            out.put_u8(quote);
        }
    }
}

/// The line of names that COPY with HEADER begins with.
pub(crate) fn copy_header(columns: &[OutputColumn], format: &CopyFormat) -> Option<BytesMut> {
    let (delimiter, has_header) = match format {
        CopyFormat::Text { delimiter, has_header, .. } => (*delimiter, *has_header),
        CopyFormat::Csv(options) => (options.delimiter.unwrap_or(b','), options.has_header),
    };
    if !has_header {
        return None;
    }
    let mut out = BytesMut::new();
    let message = begin(&mut out, b'd');
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            out.put_u8(delimiter);
        }
        copy_value(&mut out, &column.name, format, delimiter);
    }
    out.put_u8(b'\n');
    end(&mut out, message);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden values read off PostgreSQL 15.18's own binary output.
    #[test]
    fn numerics_are_postgresqls_bytes() {
        let hex = |value: i128, scale: u32| {
            let mut out = BytesMut::new();
            put_numeric(&mut out, value, scale);
            out.iter().map(|b| format!("{b:02x}")).collect::<String>()
        };
        assert_eq!(hex(15, 1), "000200000000000100011388");
        assert_eq!(hex(0, 2), "0000000000000002");
        assert_eq!(hex(-12_345, 8), "0002ffff4000000800010929");
        assert_eq!(hex(123_456_789, 1), "000300010000000104d2162e2328");
        assert_eq!(hex(1, 5), "0001fffe0000000503e8");
        assert_eq!(hex(100_000_000_000_000_000_000, 0), "00010005000000000001");
    }
}
