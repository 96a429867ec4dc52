//! Texts that mean a date or a time, and the functions that read them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Date32Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{FixedOffset, NaiveDate, NaiveDateTime, NaiveTime};
use chrono_tz::Tz;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::zone::{US_PER_DAY, ZoneClock, parse_zone};
use crate::BadArgument;

/// A time as it was written: what the clock shows, and how far it is from UTC when the text says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    clock_us: i64,
    offset_us: Option<i64>,
}

impl Written {
    /// Reads `2011-12-09`, `2011-12-09 12:50`, `2011/12/09T12:50:00.5+08:00` and their kin.
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let split = text.find(|c: char| c == 'T' || c == 't' || c.is_whitespace());
        let (day, clock) = match split {
            Some(at) => (&text[..at], text[at + 1..].trim_start()),
            None => (text, ""),
        };
        let day = read_day(day)?;
        if clock.is_empty() {
            return Some(Self { clock_us: micros(day.and_time(NaiveTime::MIN)), offset_us: None });
        }
        let end = clock.find(|c: char| !matches!(c, '0'..='9' | ':' | '.')).unwrap_or(clock.len());
        let time = read_clock(&clock[..end])?;
        let offset_us = match clock[end..].trim() {
            "" => None,
            rest => Some(read_offset(rest)?),
        };
        Some(Self { clock_us: micros(day.and_time(NaiveTime::MIN)) + time, offset_us })
    }
}

fn micros(at: NaiveDateTime) -> i64 {
    at.and_utc().timestamp_micros()
}

/// `2011-12-09`, `2011/12/09` and `20111209`.
fn read_day(text: &str) -> Option<NaiveDate> {
    let separator = text.get(1..)?.find(['-', '/']).map(|at| text.as_bytes()[at + 1]);
    match separator {
        Some(separator) => {
            let mut parts = text.splitn(3, char::from(separator));
            let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
            let is_plain = |t: &str, most: usize| {
                (1..=most).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit())
            };
            if !(is_plain(year, 6) && year.len() >= 4 && is_plain(month, 2) && is_plain(day, 2)) {
                return None;
            }
            NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
        }
        None if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) => {
            NaiveDate::from_ymd_opt(
                text[..4].parse().ok()?,
                text[4..6].parse().ok()?,
                text[6..].parse().ok()?,
            )
        }
        None => None,
    }
}

/// Microseconds of `12:50`, `12:50:07` and `12:50:07.25`; `24:00` is the end of the day.
fn read_clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hour, minute) = (parts.next()?, parts.next()?);
    let second = parts.next().unwrap_or("0");
    if parts.next().is_some() {
        return None;
    }
    let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
    let number = |t: &str, most: i64| -> Option<i64> {
        let is_plain = (1..=2).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
        t.parse().ok().filter(|n| is_plain && *n <= most)
    };
    let (hour, minute, second) = (number(hour, 24)?, number(minute, 59)?, number(second, 60)?);
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Digits beyond microseconds are rounded, as PostgreSQL does.
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let us = ((hour * 60 + minute) * 60 + second) * 1_000_000 + (nanos + 500) / 1000;
    (us <= US_PER_DAY).then_some(us)
}

/// `Z`, `UTC`, `+08`, `+0800`, `-05:30`.
fn read_offset(text: &str) -> Option<i64> {
    if ["z", "utc", "gmt"].contains(&text.to_lowercase().as_str()) {
        return Some(0);
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = digits.replace(':', "");
    if ![1, 2, 4].contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = digits.split_at(digits.len().min(2));
    let hours: i32 = hours.parse().ok()?;
    let minutes: i32 = if minutes.is_empty() { 0 } else { minutes.parse().ok()? };
    let offset = FixedOffset::east_opt(sign * (hours * 3600 + minutes * 60))?;
    Some(i64::from(offset.local_minus_utc()) * 1_000_000)
}

/// Days since 1970 of a text: a date, or a time at midnight.
pub fn read_date(text: &str) -> Option<i32> {
    let written = Written::read(text)?;
    let days = written.clock_us.div_euclid(US_PER_DAY);
    (written.clock_us % US_PER_DAY == 0).then(|| i32::try_from(days).ok()).flatten()
}

/// Microseconds since 1970 in UTC of a text; without an offset it is taken as UTC.
pub fn read_instant(text: &str) -> Option<i64> {
    let written = Written::read(text)?;
    Some(written.clock_us - written.offset_us.unwrap_or(0))
}

/// The same, where a text without an offset is a time of `zone`.
pub fn read_instant_in(text: &str, zone: Tz) -> Option<i64> {
    let written = Written::read(text)?;
    Some(match written.offset_us {
        Some(offset) => written.clock_us - offset,
        None => ZoneClock::new(zone).instant(written.clock_us),
    })
}

/// What a text is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reads {
    /// `date_in(text)`.
    Date,
    /// `timestamp_in(text)`; an offset in the text is ignored, as in PostgreSQL.
    Timestamp,
    /// `timestamptz_in(text, zone)`; without an offset the text is a time of the zone.
    TimestampTz,
}

/// Reads a text as a date or time, as PostgreSQL's casts do: without seconds, with slashes, with or without an offset.
///
/// NULL in, NULL out.
/// # Errors
/// [`BadArgument`] for a text that is no such thing; its value is not told, for it may be a person's.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ReadTime {
    reads: Reads,
    signature: Signature,
}

impl ReadTime {
    /// The function, ready to be registered.
    pub fn new(reads: Reads) -> Self {
        let texts = if reads == Reads::TimestampTz { 2 } else { 1 };
        Self { reads, signature: Signature::string(texts, Volatility::Immutable) }
    }

    fn bad(&self) -> datafusion::error::DataFusionError {
        let (name, example) = match self.reads {
            Reads::Date => ("date", "2011-12-09"),
            Reads::Timestamp | Reads::TimestampTz => ("timestamp", "2011-12-09 12:50:00"),
        };
        BadArgument::err(name, "text", format!("is not one; write it as {example}"))
    }
}

impl ScalarUDFImpl for ReadTime {
    fn name(&self) -> &str {
        match self.reads {
            Reads::Date => "date_in",
            Reads::Timestamp => "timestamp_in",
            Reads::TimestampTz => "timestamptz_in",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(match self.reads {
            Reads::Date => DataType::Date32,
            Reads::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Reads::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = match args.args.get(1) {
            None => Tz::UTC,
            Some(ColumnarValue::Scalar(zone)) => {
                parse_zone("timestamptz_in", zone.try_as_str().flatten().unwrap_or("UTC"))?
            }
            Some(ColumnarValue::Array(_)) => {
                return Err(BadArgument::err("timestamptz_in", "zone", "a constant is needed"));
            }
        };
        let mut clock = ZoneClock::new(zone);
        let texts = args.args[0].cast_to(&DataType::Utf8, None)?.to_array(args.number_rows)?;
        let texts = texts.as_string::<i32>();
        let mut read = |text: &str| -> Option<i64> {
            let written = Written::read(text)?;
            Some(match (self.reads, written.offset_us) {
                (Reads::Date, _) => written.clock_us.div_euclid(US_PER_DAY),
                (Reads::Timestamp, _) => written.clock_us,
                (Reads::TimestampTz, Some(offset)) => written.clock_us - offset,
                (Reads::TimestampTz, None) => clock.instant(written.clock_us),
            })
        };
        let mut values = Vec::with_capacity(texts.len());
        for text in texts {
            values.push(match text {
                Some(text) => Some(read(text).ok_or_else(|| self.bad())?),
                None => None,
            });
        }
        if let (Reads::Date, values) = (self.reads, &values) {
            let days: Date32Array = values.iter().map(|v| v.map(|v| v as i32)).collect();
            return Ok(ColumnarValue::Array(Arc::new(days)));
        }
        let times = TimestampMicrosecondArray::from(values);
        let times = times.with_data_type(args.return_type().clone());
        Ok(ColumnarValue::Array(Arc::new(times)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_the_spellings_that_people_and_programs_use() {
        let noon = read_instant("2011-12-09T12:00:00Z").unwrap();
        for text in [
            "2011-12-09 12:00",
            "2011-12-09 12:00:00",
            "2011-12-09 20:00:00+08:00",
            "2011-12-09T20:00:00.000+08",
            "2011-12-09T20:00:00.000+0800",
            "2011/12/09 12:00:00",
            "2011/12/9 12:00",
            "20111209 12:00",
            "2011-12-09 12:00:00 UTC",
            " 2011-12-09  12:00:00.0000001 ",
        ] {
            assert_eq!(read_instant(text), Some(noon), "{text}");
        }
        for text in
            ["09.12.2011", "2011-02-30", "2011-12-09 25:00", "2011-12-09 12", "", "x", "12-09"]
        {
            assert_eq!(read_instant(text), None, "{text}");
        }
        assert_eq!(read_date("2011-12-09 00:00:00"), read_date("2011-12-09"));
        assert_eq!(read_date("2011-12-09 01:00:00"), None);
        assert_eq!(read_date("1970-01-02"), Some(1));
    }
}
