//! Values as PostgreSQL writes them in text.
//!
//! One place for the wire's text format, COPY, and the command line, so that a number or a time looks the same everywhere.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, ListArray, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit, TimestampMicrosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeDelta, TimeZone, Timelike};
use chrono_tz::Tz;

use datafusion::error::{DataFusionError, Result};

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;

/// A column whose values can be written one by one.
///
/// Types that PostgreSQL has not are first cast to their nearest: nanoseconds to microseconds, views and dictionaries to
/// what they mean.
pub enum TextColumn {
    /// Writes `t` or `f`.
    Boolean(arrow::array::BooleanArray),
    /// Any integer, as BIGINT.
    Int(arrow::array::Int64Array),
    /// BIGINT that is not signed.
    UInt(arrow::array::UInt64Array),
    /// REAL.
    Float32(arrow::array::Float32Array),
    /// DOUBLE PRECISION.
    Float64(arrow::array::Float64Array),
    /// NUMERIC, with its scale.
    Decimal(arrow::array::Decimal128Array, i8),
    /// TEXT.
    Text(arrow::array::StringArray),
    /// BYTEA.
    Binary(BinaryArray),
    /// DATE.
    Date(arrow::array::Date32Array),
    /// TIMESTAMP in microseconds.
    Timestamp(arrow::array::TimestampMicrosecondArray),
    /// TIMESTAMPTZ in microseconds, shown in a zone.
    TimestampTz(arrow::array::TimestampMicrosecondArray, Tz),
    /// INTERVAL.
    Interval(arrow::array::IntervalMonthDayNanoArray),
    /// An array: the list and its elements.
    List(ListArray, Box<TextColumn>),
    /// A record: the struct and its fields.
    Record(StructArray, Vec<TextColumn>),
    /// Only NULLs.
    Null(usize),
}

impl TextColumn {
    /// Prepares `array`; instants are shown in `zone`.
    pub fn new(array: &ArrayRef, zone: Tz) -> Result<Self> {
        let to = |t: &DataType| arrow::compute::cast(array, t).map_err(DataFusionError::from);
        Ok(match array.data_type() {
            DataType::Null => Self::Null(array.len()),
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Int64 => Self::Int(array.as_primitive::<Int64Type>().clone()),
            DataType::Int8 => Self::Int(widened(array.as_primitive::<Int8Type>())),
            DataType::Int16 => Self::Int(widened(array.as_primitive::<Int16Type>())),
            DataType::Int32 => Self::Int(widened(array.as_primitive::<Int32Type>())),
            DataType::UInt8 => Self::Int(widened(array.as_primitive::<UInt8Type>())),
            DataType::UInt16 => Self::Int(widened(array.as_primitive::<UInt16Type>())),
            DataType::UInt32 => Self::Int(widened(array.as_primitive::<UInt32Type>())),
            DataType::UInt64 => Self::UInt(array.as_primitive::<UInt64Type>().clone()),
            DataType::Float32 => Self::Float32(array.as_primitive::<Float32Type>().clone()),
            DataType::Float16 => {
                Self::Float32(to(&DataType::Float32)?.as_primitive::<Float32Type>().clone())
            }
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal128(_, scale) if *scale >= 0 => {
                Self::Decimal(array.as_primitive::<Decimal128Type>().clone(), *scale)
            }
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) if *s >= 0 => {
                let wide = to(&DataType::Decimal128(*p, *s))?;
                Self::Decimal(wide.as_primitive::<Decimal128Type>().clone(), *s)
            }
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::Binary => Self::Binary(array.as_binary::<i32>().clone()),
            DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Binary(to(&DataType::Binary)?.as_binary::<i32>().clone())
            }
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Date64 => {
                Self::Date(to(&DataType::Date32)?.as_primitive::<Date32Type>().clone())
            }
            DataType::Timestamp(_, None) => {
                let micros = to(&DataType::Timestamp(TimeUnit::Microsecond, None))?;
                Self::Timestamp(micros.as_primitive::<TimestampMicrosecondType>().clone())
            }
            DataType::Timestamp(_, Some(_)) => {
                let micros = to(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
                Self::TimestampTz(micros.as_primitive::<TimestampMicrosecondType>().clone(), zone)
            }
            DataType::Interval(_) => {
                let interval =
                    to(&DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano))?;
                Self::Interval(interval.as_primitive::<IntervalMonthDayNanoType>().clone())
            }
            // The difference of two times is days and what is left, as in PostgreSQL.
            DataType::Duration(_) => {
                let micros = to(&DataType::Duration(TimeUnit::Microsecond))?;
                let micros = micros.as_primitive::<arrow::datatypes::DurationMicrosecondType>();
                let interval = |us: i64| {
                    let days = i32::try_from(us / US_PER_DAY).unwrap_or(i32::MAX);
                    IntervalMonthDayNano::new(0, days, (us % US_PER_DAY) * 1000)
                };
                Self::Interval(micros.unary(interval))
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>().clone();
                let elements = Self::new(list.values(), zone)?;
                Self::List(list, Box::new(elements))
            }
            DataType::LargeList(item)
            | DataType::FixedSizeList(item, _)
            | DataType::ListView(item) => {
                return Self::new(&to(&DataType::List(std::sync::Arc::clone(item)))?, zone);
            }
            DataType::Struct(_) => {
                let record = array.as_struct().clone();
                let fields =
                    record.columns().iter().map(|c| Self::new(c, zone)).collect::<Result<_>>()?;
                Self::Record(record, fields)
            }
            DataType::Dictionary(_, value) => return Self::new(&to(value)?, zone),
            _ => Self::Text(to(&DataType::Utf8)?.as_string::<i32>().clone()),
        })
    }

    /// Whether the value of `row` is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(a) => a.is_null(row),
            Self::Int(a) => a.is_null(row),
            Self::UInt(a) => a.is_null(row),
            Self::Float32(a) => a.is_null(row),
            Self::Float64(a) => a.is_null(row),
            Self::Decimal(a, _) => a.is_null(row),
            Self::Text(a) => a.is_null(row),
            Self::Binary(a) => a.is_null(row),
            Self::Date(a) => a.is_null(row),
            Self::Timestamp(a) | Self::TimestampTz(a, _) => a.is_null(row),
            Self::Interval(a) => a.is_null(row),
            Self::List(a, _) => a.is_null(row),
            Self::Record(a, _) => a.is_null(row),
            Self::Null(_) => true,
        }
    }

    /// Writes the value of `row`, which is not NULL.
    pub fn write(&self, row: usize, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Boolean(a) => write!(out, "{}", if a.value(row) { 't' } else { 'f' }),
            Self::Int(a) => write!(out, "{}", a.value(row)),
            Self::UInt(a) => write!(out, "{}", a.value(row)),
            Self::Float32(a) => write_f32(out, a.value(row)),
            Self::Float64(a) => write_f64(out, a.value(row)),
            Self::Decimal(a, scale) => write_decimal(out, a.value(row), scale.unsigned_abs()),
            Self::Text(a) => out.write_str(a.value(row)),
            Self::Binary(a) => {
                out.push_str("\\x");
                a.value(row).iter().try_for_each(|byte| write!(out, "{byte:02x}"))
            }
            Self::Date(a) => write_date(out, i64::from(a.value(row))),
            Self::Timestamp(a) => write_timestamp(out, a.value(row)),
            Self::TimestampTz(a, zone) => write_timestamptz(out, a.value(row), *zone),
            Self::Interval(a) => {
                let value = a.value(row);
                write_interval(out, value.months, value.days, value.nanoseconds / 1000)
            }
            Self::List(list, elements) => {
                write_list(list, elements, row, out);
                Ok(())
            }
            Self::Record(_, fields) => {
                write_record(fields, row, out);
                Ok(())
            }
            Self::Null(_) => Ok(()),
        };
    }
}

fn widened<T>(array: &arrow::array::PrimitiveArray<T>) -> arrow::array::Int64Array
where
    T: arrow::datatypes::ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    array.unary(Into::into)
}

macro_rules! write_float {
    ($name:ident, $type:ty, $digits:literal) => {
        fn $name(out: &mut String, value: $type) -> std::fmt::Result {
            if value.is_nan() {
                return out.write_str("NaN");
            }
            if value.is_infinite() {
                return out.write_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
            }
            let exact = format!("{value:e}");
            let (mantissa, exponent) = exact.split_once('e').unwrap_or((&exact, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            if (-4..$digits).contains(&exponent) {
                return write!(out, "{value}");
            }
            write!(out, "{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
    };
}
write_float!(write_f64, f64, 15);
write_float!(write_f32, f32, 6);

fn write_decimal(out: &mut String, value: i128, scale: u8) -> std::fmt::Result {
    let sign = if value < 0 { "-" } else { "" };
    let digits = value.unsigned_abs();
    match scale {
        0 => write!(out, "{sign}{digits}"),
        _ => {
            let unit = 10u128.pow(u32::from(scale.min(38)));
            write!(
                out,
                "{sign}{}.{:0width$}",
                digits / unit,
                digits % unit,
                width = usize::from(scale)
            )
        }
    }
}

fn date_of(days: i64) -> Option<NaiveDate> {
    NaiveDate::default().checked_add_signed(TimeDelta::try_days(days)?)
}

/// Writes the year, month and day; `true` when ` BC` belongs at the end.
fn write_ymd(out: &mut String, date: NaiveDate) -> bool {
    let is_bc = date.year() <= 0;
    let year = if is_bc { 1 - date.year() } else { date.year() };
    let _ = write!(out, "{year:04}-{:02}-{:02}", date.month(), date.day());
    is_bc
}

fn write_date(out: &mut String, days: i64) -> std::fmt::Result {
    let Some(date) = date_of(days) else {
        return out.write_str(if days > 0 { "infinity" } else { "-infinity" });
    };
    if write_ymd(out, date) { out.write_str(" BC") } else { Ok(()) }
}

fn write_clock(out: &mut String, at: &impl Timelike, micros: i64) {
    let _ = write!(out, " {:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
    if micros != 0 {
        out.push_str(format!(".{micros:06}").trim_end_matches('0'));
    }
}

fn write_timestamp(out: &mut String, at_us: i64) -> std::fmt::Result {
    let Some(instant) = DateTime::from_timestamp_micros(at_us) else {
        return out.write_str(if at_us > 0 { "infinity" } else { "-infinity" });
    };
    let is_bc = write_ymd(out, instant.date_naive());
    write_clock(out, &instant, at_us.rem_euclid(US_PER_SECOND));
    if is_bc { out.write_str(" BC") } else { Ok(()) }
}

fn write_timestamptz(out: &mut String, at_us: i64, zone: Tz) -> std::fmt::Result {
    let Some(instant) = DateTime::from_timestamp_micros(at_us) else {
        return out.write_str(if at_us > 0 { "infinity" } else { "-infinity" });
    };
    let local = zone.from_utc_datetime(&instant.naive_utc());
    let is_bc = write_ymd(out, local.date_naive());
    write_clock(out, &local, at_us.rem_euclid(US_PER_SECOND));
    let offset = local.offset().fix().local_minus_utc();
    let (sign, offset) = (if offset < 0 { '-' } else { '+' }, offset.abs());
    write!(out, "{sign}{:02}", offset / 3600)?;
    if offset % 3600 != 0 {
        write!(out, ":{:02}", offset / 60 % 60)?;
    }
    if offset % 60 != 0 {
        write!(out, ":{:02}", offset % 60)?;
    }
    if is_bc { out.write_str(" BC") } else { Ok(()) }
}

/// PostgreSQL's style `postgres`: `1 year 2 mons 3 days 04:05:06.789`.
pub(crate) fn write_interval(
    out: &mut String,
    months: i32,
    days: i32,
    us: i64,
) -> std::fmt::Result {
    let start = out.len();
    let mut was_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        if out.len() > start {
            out.push(' ');
        }
        let plus = if was_negative && value > 0 { "+" } else { "" };
        write!(out, "{plus}{value} {unit}{}", if value == 1 { "" } else { "s" })?;
        was_negative = value < 0;
    }
    if us != 0 || out.len() == start {
        let size = us.unsigned_abs();
        let space = if out.len() > start { " " } else { "" };
        let sign = match (us < 0, was_negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        write!(
            out,
            "{space}{sign}{:02}:{:02}:{:02}",
            size / 3_600_000_000,
            size / 60_000_000 % 60,
            size / 1_000_000 % 60
        )?;
        if !size.is_multiple_of(1_000_000) {
            out.push_str(format!(".{:06}", size % 1_000_000).trim_end_matches('0'));
        }
    }
    Ok(())
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

fn write_list(list: &ListArray, elements: &TextColumn, row: usize, out: &mut String) {
    let offsets = list.value_offsets();
    out.push('{');
    for (i, at) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
        if i > 0 {
            out.push(',');
        }
        if elements.is_null(at) {
            out.push_str("NULL");
            continue;
        }
        if let TextColumn::List(..) = elements {
            elements.write(at, out);
            continue;
        }
        let mut text = String::new();
        elements.write(at, &mut text);
        let needs_quotes = text.is_empty()
            || text.eq_ignore_ascii_case("null")
            || text.contains(|c| matches!(c, '{' | '}' | ',' | '"' | '\\') || is_space(c));
        if needs_quotes {
            out.push('"');
            out.push_str(&text.replace('\\', "\\\\").replace('"', "\\\""));
            out.push('"');
        } else {
            out.push_str(&text);
        }
    }
    out.push('}');
}

fn write_record(fields: &[TextColumn], row: usize, out: &mut String) {
    out.push('(');
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if field.is_null(row) {
            continue;
        }
        let mut text = String::new();
        field.write(row, &mut text);
        let needs_quotes = text.is_empty()
            || text.contains(|c| matches!(c, '(' | ')' | ',' | '"' | '\\') || is_space(c));
        if needs_quotes {
            out.push('"');
            out.push_str(&text.replace('\\', "\\\\").replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&text);
        }
    }
    out.push(')');
}

/// Elements of an array's text, `{a,"b c",NULL}`.
pub fn array_elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    let mut chars = inner.chars().peekable();
    while chars.peek().is_some() {
        let mut element = String::new();
        let mut was_quoted = false;
        loop {
            match chars.next() {
                None | Some(',') => break,
                Some('"') => {
                    was_quoted = true;
                    loop {
                        match chars.next()? {
                            '"' => break,
                            '\\' => element.push(chars.next()?),
                            c => element.push(c),
                        }
                    }
                }
                Some('\\') => element.push(chars.next()?),
                Some('{' | '}') => return None,
                Some(c) => element.push(c),
            }
        }
        let is_null = !was_quoted && element.trim().eq_ignore_ascii_case("null");
        let element = if was_quoted { element } else { element.trim().to_owned() };
        elements.push((!is_null).then_some(element));
    }
    Some(elements)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn text(array: ArrayRef, zone: Tz) -> String {
        let column = TextColumn::new(&array, zone).unwrap();
        let mut out = String::new();
        column.write(0, &mut out);
        out
    }

    /// Each expectation was read off PostgreSQL 15.18.
    #[test]
    fn values_are_written_as_postgresql_writes_them() {
        for (value, expected) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e15, "1e+15"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text(Arc::new(Float64Array::from(vec![value])), Tz::UTC), expected);
        }
        let interval = |months, days, us| {
            let mut out = String::new();
            write_interval(&mut out, months, days, us).unwrap();
            out
        };
        assert_eq!(interval(14, 3, 14_706_789_000), "1 year 2 mons 3 days 04:05:06.789");
        assert_eq!(interval(-14, 3, -14_706_000_000), "-1 years -2 mons +3 days -04:05:06");
        assert_eq!(interval(0, 0, 0), "00:00:00");
        let mut out = String::new();
        write_decimal(&mut out, -12_345, 4).unwrap();
        assert_eq!(out, "-1.2345");
    }

    #[test]
    fn instants_are_shown_in_the_sessions_zone() {
        let at: ArrayRef = Arc::new(
            TimestampMicrosecondArray::from(vec![1_323_435_000_500_000]).with_timezone("UTC"),
        );
        assert_eq!(text(Arc::clone(&at), Tz::UTC), "2011-12-09 12:50:00.5+00");
        assert_eq!(text(Arc::clone(&at), Tz::Asia__Shanghai), "2011-12-09 20:50:00.5+08");
        assert_eq!(text(at, Tz::Asia__Kolkata), "2011-12-09 18:20:00.5+05:30");
    }

    #[test]
    fn arrays_quote_what_would_be_misread() {
        let values = StringArray::from(vec![Some("a"), Some("b c"), None, Some("NULL"), Some("")]);
        let field = Arc::new(arrow::datatypes::Field::new_list_field(DataType::Utf8, true));
        let offsets = arrow::buffer::OffsetBuffer::from_lengths([5]);
        let list = ListArray::new(field, offsets, Arc::new(values), None);
        assert_eq!(text(Arc::new(list), Tz::UTC), r#"{a,"b c",NULL,"NULL",""}"#);
    }

    #[test]
    fn array_texts_keep_quotes_and_nulls() {
        let elements = array_elements(r#"{web,"a, \"b\"",NULL,"NULL",""}"#).unwrap();
        let expected = [Some("web"), Some("a, \"b\""), None, Some("NULL"), Some("")];
        assert_eq!(elements.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        assert!(array_elements("{a").is_none());
        assert_eq!(array_elements("{}").unwrap().len(), 0);
    }
}
