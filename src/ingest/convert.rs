//! Text to typed values, one row at a time, with a reason for each that does not fit.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, SchemaRef};
use clientele_udfs::pg::read_time::{read_date, read_instant};

use crate::error::{Error, Kind, Result};

/// A row that did not fit: where it is, which value is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Line of a text file, number of the row otherwise; from 1.
    pub line: u64,
    /// Column, empty when the row as a whole is wrong.
    pub column: String,
    /// The value as it was written.
    pub value: String,
    /// Why it does not fit, as words after "the value".
    pub reason: String,
}

impl BadRow {
    /// The same with the value of a personal column, or of a whole row, reduced to its shape.
    pub(super) fn masked(&self, personal: &[String]) -> Self {
        let is_open = !self.column.is_empty() && !personal.contains(&self.column);
        let value = if is_open { self.value.clone() } else { shape(&self.value) };
        Self { value, ..self.clone() }
    }

    pub(super) fn describe(&self) -> String {
        if self.column.is_empty() {
            format!("line {}: {}", self.line, self.reason)
        } else {
            format!("line {}, column {}: {:?} {}", self.line, self.column, self.value, self.reason)
        }
    }
}

/// Digits become 9 and letters a: enough to see what is wrong, too little to see whose it is.
pub fn shape(value: &str) -> String {
    const CHARS_MAX: usize = 64;
    let masked = value.chars().take(CHARS_MAX).map(|c| match c {
        c if c.is_numeric() => '9',
        c if c.is_alphabetic() => 'a',
        c => c,
    });
    masked.collect()
}

/// Why a value does not fit.
type Reason = String;

/// Collects rows of one schema.
pub(super) struct RowBuilder {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
}

enum Column {
    Text(StringBuilder),
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Binary(BinaryBuilder),
}

/// A value that has been read and not yet been added.
enum Value<'a> {
    Null,
    Text(&'a str),
    Boolean(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Date(i32),
    Timestamp(i64),
    Binary(Vec<u8>),
}

impl RowBuilder {
    pub(super) fn new(schema: SchemaRef) -> Result<Self> {
        let columns = schema
            .fields()
            .iter()
            .map(|f| Column::new(f.name(), f.data_type()))
            .collect::<Result<_>>()?;
        Ok(Self { schema, columns, rows: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Adds a row, one text a column; or nothing of it, and gives the first column that does not fit, and why.
    pub(super) fn push(
        &mut self,
        texts: &[Option<&str>],
    ) -> std::result::Result<(), (usize, Reason)> {
        let mut values = Vec::with_capacity(texts.len());
        for (i, (column, text)) in self.columns.iter().zip(texts).enumerate() {
            let value = match text {
                Some(text) => column.read(text).map_err(|reason| (i, reason))?,
                None => Value::Null,
            };
            values.push(value);
        }
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.add(value);
        }
        self.rows += 1;
        Ok(())
    }

    /// The rows so far, and a fresh start.
    pub(super) fn take(&mut self) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Vec<_>>();
        self.rows = 0;
        let arrays = arrays.into_iter().zip(self.schema.fields()).map(|(array, field)| {
            if array.data_type() == field.data_type() {
                Ok(array)
            } else {
                Ok(arrow::compute::cast(&array, field.data_type())?)
            }
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays.collect::<Result<_>>()?)?)
    }
}

/// Texts as values of a type, NULL where they do not fit it, and the rows in which they do not, each with the reason. An empty text is
/// NULL, as in a CSV.
pub(super) fn column_of_texts(
    name: &str,
    data_type: &DataType,
    texts: &StringArray,
) -> Result<(ArrayRef, Vec<(usize, Reason)>)> {
    let mut column = Column::new(name, data_type)?;
    let mut bad = Vec::new();
    for (row, text) in texts.iter().enumerate() {
        match text.filter(|text| !text.is_empty()).map(|text| column.read(text)) {
            Some(Ok(value)) => column.add(value),
            Some(Err(reason)) => {
                bad.push((row, reason));
                column.add(Value::Null);
            }
            None => column.add(Value::Null),
        }
    }
    Ok((arrow::compute::cast(&column.finish(), data_type)?, bad))
}

impl Column {
    fn new(name: &str, data_type: &DataType) -> Result<Self> {
        Ok(match data_type {
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Decimal128(p, s) => {
                let builder = Decimal128Builder::new().with_precision_and_scale(*p, *s)?;
                Self::Decimal(builder, *p, *s)
            }
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(..) => Self::Timestamp(
                TimestampMicrosecondBuilder::new().with_data_type(data_type.clone()),
            ),
            DataType::Binary => Self::Binary(BinaryBuilder::new()),
            other => {
                return Err(Error::new(
                    Kind::NotSupported,
                    format!(
                        "column {name:?} has the type {other}, which cannot be loaded from text"
                    ),
                )
                .hint("load it from Parquet"));
            }
        })
    }

    fn read<'a>(&self, text: &'a str) -> std::result::Result<Value<'a>, Reason> {
        Ok(match self {
            Self::Text(_) => Value::Text(text),
            Self::Boolean(_) => Value::Boolean(read_boolean(text).ok_or("is not true or false")?),
            Self::Int16(_) => Value::Int(read_int(text, i64::from(i16::MIN), i64::from(i16::MAX))?),
            Self::Int32(_) => Value::Int(read_int(text, i64::from(i32::MIN), i64::from(i32::MAX))?),
            Self::Int64(_) => Value::Int(read_int(text, i64::MIN, i64::MAX)?),
            Self::Float32(_) | Self::Float64(_) => {
                let number: f64 = text.trim().parse().map_err(|_| "is not a number")?;
                let is_written = text.trim().contains(['i', 'I']);
                let is_narrow = matches!(self, Self::Float32(_));
                if !is_written
                    && (number.is_infinite() || is_narrow && (number as f32).is_infinite())
                {
                    return Err("is outside of what the type holds".to_owned());
                }
                Value::Float(number)
            }
            Self::Decimal(_, precision, scale) => {
                Value::Decimal(read_decimal(text, *precision, *scale)?)
            }
            Self::Date(_) => {
                Value::Date(read_date(text).ok_or("is not a date such as 2011-12-09")?)
            }
            Self::Timestamp(_) => Value::Timestamp(
                read_instant(text).ok_or("is not a time such as 2011-12-09 12:50:00")?,
            ),
            Self::Binary(_) => {
                Value::Binary(read_bytes(text).ok_or("is not bytes in hex such as \\x0a1b")?)
            }
        })
    }

    fn add(&mut self, value: Value) {
        match (self, value) {
            (Self::Text(b), Value::Text(v)) => b.append_value(v),
            (Self::Boolean(b), Value::Boolean(v)) => b.append_value(v),
            (Self::Int16(b), Value::Int(v)) => b.append_value(v as i16),
            (Self::Int32(b), Value::Int(v)) => b.append_value(v as i32),
            (Self::Int64(b), Value::Int(v)) => b.append_value(v),
            (Self::Float32(b), Value::Float(v)) => b.append_value(v as f32),
            (Self::Float64(b), Value::Float(v)) => b.append_value(v),
            (Self::Decimal(b, _, _), Value::Decimal(v)) => b.append_value(v),
            (Self::Date(b), Value::Date(v)) => b.append_value(v),
            (Self::Timestamp(b), Value::Timestamp(v)) => b.append_value(v),
            (Self::Binary(b), Value::Binary(v)) => b.append_value(v),
            (column, _) => column.add_null(),
        }
    }

    fn add_null(&mut self) {
        match self {
            Self::Text(b) => b.append_null(),
            Self::Boolean(b) => b.append_null(),
            Self::Int16(b) => b.append_null(),
            Self::Int32(b) => b.append_null(),
            Self::Int64(b) => b.append_null(),
            Self::Float32(b) => b.append_null(),
            Self::Float64(b) => b.append_null(),
            Self::Decimal(b, _, _) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
            Self::Binary(b) => b.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(b) => ArrayBuilder::finish(b),
            Self::Boolean(b) => ArrayBuilder::finish(b),
            Self::Int16(b) => ArrayBuilder::finish(b),
            Self::Int32(b) => ArrayBuilder::finish(b),
            Self::Int64(b) => ArrayBuilder::finish(b),
            Self::Float32(b) => ArrayBuilder::finish(b),
            Self::Float64(b) => ArrayBuilder::finish(b),
            Self::Decimal(b, _, _) => ArrayBuilder::finish(b),
            Self::Date(b) => ArrayBuilder::finish(b),
            Self::Timestamp(b) => ArrayBuilder::finish(b),
            Self::Binary(b) => ArrayBuilder::finish(b),
        }
    }
}

pub(super) fn read_boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "yes" | "y" | "on" | "1" => Some(true),
        "f" | "false" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn read_int(text: &str, low: i64, high: i64) -> std::result::Result<i64, Reason> {
    let text = text.trim();
    match text.parse::<i64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        Ok(_) => Err(format!("is outside {low} to {high}")),
        Err(error)
            if matches!(
                error.kind(),
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow
            ) =>
        {
            Err(format!("is outside {low} to {high}"))
        }
        Err(_) => Err("is not a whole number".to_owned()),
    }
}

/// A decimal, exactly: digits that the scale cannot keep are a reason, not a rounding.
fn read_decimal(text: &str, precision: u8, scale: i8) -> std::result::Result<i128, Reason> {
    let text = text.trim();
    let not_a_number = || "is not a number".to_owned();
    if let Some((mantissa, exponent)) = text.split_once(['e', 'E']) {
        // Exponents come from programs that print floats; shift the point by hand.
        let exponent: i32 = exponent.parse().map_err(|_| not_a_number())?;
        return read_decimal(
            &shifted(mantissa, exponent).ok_or_else(not_a_number)?,
            precision,
            scale,
        );
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
        return Err(not_a_number());
    }
    let scale = usize::from(scale.unsigned_abs());
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > scale {
        return Err(format!("has more than {scale} decimals"));
    }
    let too_large = || format!("has more than {precision} digits");
    let mut number: i128 = 0;
    for digit in whole
        .bytes()
        .chain(fraction.bytes())
        .chain(std::iter::repeat_n(b'0', scale - fraction.len()))
    {
        number = number
            .checked_mul(10)
            .and_then(|n| n.checked_add(i128::from(digit - b'0')))
            .ok_or_else(too_large)?;
    }
    if number >= 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX) {
        return Err(too_large());
    }
    Ok(sign * number)
}

fn shifted(mantissa: &str, exponent: i32) -> Option<String> {
    const EXPONENT_MAX: i32 = 40;
    if exponent.abs() > EXPONENT_MAX {
        return None;
    }
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let zeros = "0".repeat(EXPONENT_MAX as usize);
    let padded = format!("{zeros}{whole}{fraction}{zeros}");
    let point = EXPONENT_MAX as usize + whole.len();
    let point = usize::try_from(point as i32 + exponent).ok()?;
    Some(format!("{sign}{}.{}", padded.get(..point)?, padded.get(point..)?))
}

fn read_bytes(text: &str) -> Option<Vec<u8>> {
    let hex = text.trim().strip_prefix("\\x")?;
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(read_decimal("-12.5", 18, 4), Ok(-125_000));
        assert_eq!(read_decimal("1.23450000", 18, 4), Ok(12_345));
        assert_eq!(read_decimal("1.5e-2", 18, 4), Ok(150));
        assert_eq!(read_decimal(".5", 18, 4), Ok(5_000));
        assert_eq!(read_decimal("1.23456", 18, 4), Err("has more than 4 decimals".into()));
        assert_eq!(read_decimal("123456", 5, 0), Err("has more than 5 digits".into()));
        assert_eq!(read_decimal("1,5", 18, 4), Err("is not a number".into()));
        assert_eq!(read_decimal(".", 18, 4), Err("is not a number".into()));
    }

    #[test]
    fn times_with_and_without_an_offset() {
        let noon = read_instant("2011-12-09T12:00:00Z").unwrap();
        for text in [
            "2011-12-09 12:00:00",
            "2011-12-09 20:00:00+08:00",
            "2011-12-09T20:00:00.000+08",
            "2011/12/09 12:00:00",
            "2011-12-09 12:00:00 UTC",
        ] {
            assert_eq!(read_instant(text), Some(noon), "{text}");
        }
        assert_eq!(read_instant("09.12.2011"), None);
        assert_eq!(read_date("2011-12-09 00:00:00"), read_date("2011-12-09"));
        assert_eq!(read_date("2011-02-30"), None);
    }

    #[test]
    fn a_personal_value_is_reduced_to_its_shape() {
        let bad = BadRow {
            line: 7,
            column: "birth_date".into(),
            value: "1990-13-45 Wang".into(),
            reason: "x".into(),
        };
        assert_eq!(bad.masked(&["birth_date".into()]).value, "9999-99-99 aaaa");
        assert_eq!(bad.masked(&[]).value, bad.value);
    }
}
