//! Values of Bind: bytes in text or binary to typed values.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, TimeUnit};
use clientele_udfs::pg::text::array_elements;
use datafusion::common::ScalarValue;

use super::encode::{EPOCH_DAYS, EPOCH_US};
use crate::error::{Error, Kind, Result};

/// The engine's type of a declared parameter; 0 and what is unknown are left to be found out.
pub(super) fn type_of_oid(oid: u32) -> Option<DataType> {
    let list = |item| Some(DataType::List(Arc::new(Field::new_list_field(item, true))));
    match oid {
        16 => Some(DataType::Boolean),
        17 => Some(DataType::Binary),
        21 => Some(DataType::Int16),
        23 => Some(DataType::Int32),
        20 | 26 => Some(DataType::Int64),
        18 | 19 | 25 | 1042 | 1043 | 114 | 3802 | 2950 => Some(DataType::Utf8),
        700 => Some(DataType::Float32),
        701 => Some(DataType::Float64),
        1082 => Some(DataType::Date32),
        1083 => Some(DataType::Time64(TimeUnit::Nanosecond)),
        1114 => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
        1184 => Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        1186 => Some(DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano)),
        1700 => Some(DataType::Decimal128(38, 10)),
        1000 => list(DataType::Boolean),
        1005 => list(DataType::Int16),
        1007 => list(DataType::Int32),
        1016 => list(DataType::Int64),
        1009 | 1015 => list(DataType::Utf8),
        1022 => list(DataType::Float64),
        _ => None,
    }
}

/// Reads the value of parameter `position` (from 1).
pub(super) fn read(
    position: usize,
    bytes: Option<&[u8]>,
    is_binary: bool,
    data_type: &DataType,
) -> Result<ScalarValue> {
    let Some(bytes) = bytes else {
        return Ok(ScalarValue::try_from(data_type)?);
    };
    if is_binary {
        return binary(bytes, data_type).ok_or_else(|| {
            Error::new(
                Kind::Protocol,
                format!("incorrect binary data format in bind parameter {position}"),
            )
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| {
        Error::new(Kind::InvalidText, format!("bind parameter {position} is not UTF-8"))
    })?;
    text_value(text, data_type).ok_or_else(|| {
        let kind = if data_type.is_temporal() { Kind::InvalidDatetime } else { Kind::InvalidText };
        Error::new(kind, format!("bind parameter {position} is no value of its type"))
    })
}

fn text_value(text: &str, data_type: &DataType) -> Option<ScalarValue> {
    match data_type {
        DataType::Utf8 | DataType::Utf8View => Some(ScalarValue::Utf8(Some(text.to_owned()))),
        DataType::Boolean => match text.trim().to_lowercase().as_str() {
            "t" | "true" | "1" | "on" | "yes" | "y" => Some(ScalarValue::Boolean(Some(true))),
            "f" | "false" | "0" | "off" | "no" | "n" => Some(ScalarValue::Boolean(Some(false))),
            _ => None,
        },
        // A number is read with the scale it was written in, so that nothing is rounded on the way in.
        DataType::Decimal128(..) => {
            let scale = text.trim().split_once('.').map_or(0, |(_, fraction)| fraction.len());
            let scale = i8::try_from(scale).ok().filter(|s| *s <= 38)?;
            ScalarValue::Utf8(Some(text.trim().to_owned()))
                .cast_to(&DataType::Decimal128(38, scale))
                .ok()
        }
        DataType::List(item) => {
            let texts = array_elements(text)?;
            let element = |t: Option<String>| match t {
                Some(t) => text_value(&t, item.data_type()),
                None => ScalarValue::try_from(item.data_type()).ok(),
            };
            let values = texts.into_iter().map(element).collect::<Option<Vec<_>>>()?;
            Some(ScalarValue::List(ScalarValue::new_list_nullable(&values, item.data_type())))
        }
        DataType::Binary => {
            let hex = text.strip_prefix("\\x")?;
            let byte = |i: usize| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok();
            Some(ScalarValue::Binary(Some(
                (0..hex.len()).step_by(2).map(byte).collect::<Option<Vec<_>>>()?,
            )))
        }
        other => {
            let value = ScalarValue::Utf8(Some(text.trim().to_owned())).cast_to(other).ok()?;
            (!value.is_null()).then_some(value)
        }
    }
}

fn binary(bytes: &[u8], data_type: &DataType) -> Option<ScalarValue> {
    fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        bytes.try_into().ok()
    }
    Some(match data_type {
        DataType::Boolean => ScalarValue::Boolean(Some(fixed::<1>(bytes)?[0] != 0)),
        DataType::Int16 => ScalarValue::Int16(Some(i16::from_be_bytes(fixed(bytes)?))),
        DataType::Int32 => ScalarValue::Int32(Some(i32::from_be_bytes(fixed(bytes)?))),
        // A driver may send fewer bytes than the type has when it was declared smaller; oid is four.
        DataType::Int64 if bytes.len() == 4 => {
            ScalarValue::Int64(Some(i64::from(i32::from_be_bytes(fixed(bytes)?))))
        }
        DataType::Int64 => ScalarValue::Int64(Some(i64::from_be_bytes(fixed(bytes)?))),
        DataType::Float32 => ScalarValue::Float32(Some(f32::from_be_bytes(fixed(bytes)?))),
        DataType::Float64 => ScalarValue::Float64(Some(f64::from_be_bytes(fixed(bytes)?))),
        DataType::Utf8 | DataType::Utf8View => {
            ScalarValue::Utf8(Some(std::str::from_utf8(bytes).ok()?.to_owned()))
        }
        DataType::Binary => ScalarValue::Binary(Some(bytes.to_vec())),
        DataType::Date32 => {
            ScalarValue::Date32(Some(i32::from_be_bytes(fixed(bytes)?).checked_add(EPOCH_DAYS)?))
        }
        DataType::Time64(_) => {
            let us = i64::from_be_bytes(fixed(bytes)?);
            ScalarValue::Time64Nanosecond(Some(us.checked_mul(1000)?))
        }
        DataType::Timestamp(_, zone) => {
            let at = i64::from_be_bytes(fixed(bytes)?).checked_add(EPOCH_US)?;
            ScalarValue::TimestampMicrosecond(Some(at), zone.clone())
        }
        DataType::Interval(_) => {
            let us = i64::from_be_bytes(fixed(bytes.get(..8)?)?);
            let days = i32::from_be_bytes(fixed(bytes.get(8..12)?)?);
            let months = i32::from_be_bytes(fixed(bytes.get(12..)?)?);
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(
                months,
                days,
                us.checked_mul(1000)?,
            )))
        }
        DataType::Decimal128(..) => numeric(bytes)?,
        DataType::List(item) => list(bytes, item.data_type())?,
        _ => return None,
    })
}

fn numeric(bytes: &[u8]) -> Option<ScalarValue> {
    let word = |i: usize| Some(i16::from_be_bytes(bytes.get(i * 2..i * 2 + 2)?.try_into().ok()?));
    let (count, weight, sign, scale) = (word(0)?, word(1)?, word(2)? as u16, word(3)?);
    if !matches!(sign, 0 | 0x4000)
        || !(0..=38).contains(&scale)
        || bytes.len() != 8 + 2 * usize::try_from(count).ok()?
    {
        return None;
    }
    // The value times 10^scale: digit i stands for digit * 10000^(weight - i).
    let mut value: i128 = 0;
    for i in 0..count {
        let digit = i128::from(word(4 + i as usize)?);
        let exponent = 4 * i32::from(weight - i) + i32::from(scale);
        let part = if exponent >= 0 {
            digit.checked_mul(10i128.checked_pow(exponent as u32)?)?
        } else {
            digit / 10i128.checked_pow(exponent.unsigned_abs())?
        };
        value = value.checked_add(part)?;
    }
    let value = if sign == 0x4000 { -value } else { value };
    Some(ScalarValue::Decimal128(Some(value), 38, scale as i8))
}

fn list(bytes: &[u8], item: &DataType) -> Option<ScalarValue> {
    let word = |at: usize| Some(i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let mut values = Vec::new();
    match word(0)? {
        0 => {}
        1 => {
            let count = usize::try_from(word(12)?).ok()?;
            let mut at = 20;
            for _ in 0..count {
                let length = word(at)?;
                at += 4;
                if length == -1 {
                    values.push(ScalarValue::try_from(item).ok()?);
                    continue;
                }
                let length = usize::try_from(length).ok()?;
                values.push(binary(bytes.get(at..at + length)?, item)?);
                at += length;
            }
        }
        _ => return None,
    }
    Some(ScalarValue::List(ScalarValue::new_list_nullable(&values, item)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_and_bytes_mean_the_same() {
        let decimal = DataType::Decimal128(38, 10);
        let text = read(1, Some(b"-0.00012345"), false, &decimal).unwrap();
        let bytes = [0, 2, 0xff, 0xff, 0x40, 0, 0, 8, 0, 1, 0x09, 0x29];
        assert_eq!(read(1, Some(&bytes), true, &decimal).unwrap(), text);
        let day = read(1, Some(b"2011-12-09"), false, &DataType::Date32).unwrap();
        assert_eq!(read(1, Some(&4_360i32.to_be_bytes()), true, &DataType::Date32).unwrap(), day);
        assert_eq!(read(1, Some(b"x"), false, &DataType::Int64).unwrap_err().sqlstate(), "22P02");
        assert_eq!(read(1, Some(b"x"), true, &DataType::Int64).unwrap_err().sqlstate(), "08P01");
        assert!(read(1, None, true, &DataType::Int64).unwrap().is_null());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            for oid in [16, 17, 20, 21, 23, 25, 700, 701, 1082, 1083, 1114, 1184, 1186, 1700, 1007, 1009, 1016] {
                let data_type = type_of_oid(oid).unwrap();
                let _ = read(1, Some(&bytes), true, &data_type);
                let _ = read(1, Some(&bytes), false, &data_type);
            }
        }
    }
}
