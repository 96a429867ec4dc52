//! PostgreSQL's templates: `to_char`, `to_date`, `to_timestamp`, `to_number`.

mod number;
mod time;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use chrono_tz::Tz;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::zone::{US_PER_DAY, US_PER_SECOND, ZoneClock, parse_zone};
use crate::BadArgument;
use number::NumberTemplate;
use time::TimeTemplate;

/// Digits behind the point that `to_number` keeps.
const NUMBER_SCALE: i8 = 10;

/// The four functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// `to_char(value, template)`.
    ToChar,
    /// `to_date(text, template)`.
    ToDate,
    /// `to_timestamp(text, template)` or `to_timestamp(seconds)`.
    ToTimestamp,
    /// `to_number(text, template)`.
    ToNumber,
}

/// Values to text and back by a template such as `'YYYY-MM-DD'` or `'FM999,990.00'`, as in PostgreSQL.
///
/// `to_char` takes a DATE, TIMESTAMP, INTERVAL or number; an instant is shown as the clock of UTC unless the session's zone
/// was put in before. `to_timestamp(text, template)` gives a TIMESTAMPTZ of the zone in a third argument (default UTC),
/// `to_timestamp(seconds)` that instant since 1970. `to_number` keeps ten digits behind the point. NULL in, NULL out. The
/// patterns EEEE, RN and V of numbers are refused.
/// # Errors
/// [`BadArgument`] for a template that is not constant or not understood, and for a text that does not follow it; the text
/// itself is not told.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Template {
    way: Way,
    signature: Signature,
}

impl Template {
    /// The function, ready to be registered.
    pub fn new(way: Way) -> Self {
        Self { way, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn wrong_arguments(&self) -> DataFusionError {
        let form = match self.way {
            Way::ToChar => "to_char(date, time, interval or number, template)",
            Way::ToDate => "to_date(text, template)",
            Way::ToTimestamp => "to_timestamp(text, template), or to_timestamp(seconds)",
            Way::ToNumber => "to_number(text, template)",
        };
        BadArgument::err(self.sql_name(), "arguments", format!("{form} is the form"))
    }

    fn sql_name(&self) -> &'static str {
        match self.way {
            Way::ToChar => "to_char",
            Way::ToDate => "to_date",
            Way::ToTimestamp => "to_timestamp",
            Way::ToNumber => "to_number",
        }
    }
}

impl ScalarUDFImpl for Template {
    fn name(&self) -> &str {
        self.sql_name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Date32, Decimal128, Duration, Float64, Interval, Null, Timestamp, Utf8};
        let is_text =
            |t: &DataType| matches!(t, Utf8 | DataType::Utf8View | DataType::LargeUtf8 | Null);
        let micros = |zone: Option<Arc<str>>| Timestamp(TimeUnit::Microsecond, zone);
        match (self.way, arg_types) {
            (Way::ToChar, [value, template]) if is_text(template) => {
                let value = match value {
                    Timestamp(_, zone) => micros(zone.clone()),
                    Date32 | DataType::Date64 | Null => micros(None),
                    Interval(_) | Duration(_) => Interval(IntervalUnit::MonthDayNano),
                    Decimal128(p, s) => Decimal128(*p, *s),
                    float if float.is_floating() => Float64,
                    int if int.is_integer() => Decimal128(20, 0),
                    _ => return Err(self.wrong_arguments()),
                };
                Ok(vec![value, Utf8])
            }
            (Way::ToTimestamp, [seconds]) if seconds.is_numeric() || seconds.is_null() => {
                Ok(vec![Float64])
            }
            (Way::ToTimestamp, [text, template, zone])
                if [text, template, zone].into_iter().all(is_text) =>
            {
                Ok(vec![Utf8; 3])
            }
            (Way::ToDate | Way::ToTimestamp | Way::ToNumber, [text, template])
                if is_text(text) && is_text(template) =>
            {
                Ok(vec![Utf8; 2])
            }
            _ => Err(self.wrong_arguments()),
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(match self.way {
            Way::ToChar => DataType::Utf8,
            Way::ToDate => DataType::Date32,
            Way::ToTimestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Way::ToNumber => DataType::Decimal128(38, NUMBER_SCALE),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let values = args.args[0].to_array(rows)?;
        if let (Way::ToTimestamp, [_]) = (self.way, args.args.as_slice()) {
            return self.of_seconds(&values);
        }
        let templates = args.args[1].to_array(if is_scalar(&args.args[1]) { 1 } else { rows })?;
        let templates = Templates { texts: templates.as_string::<i32>() };
        let answer: ArrayRef = match self.way {
            Way::ToChar => to_char(&values, &templates)?,
            Way::ToDate | Way::ToTimestamp => {
                let zone = match args.args.get(2) {
                    Some(ColumnarValue::Scalar(zone)) => {
                        parse_zone("to_timestamp", zone.try_as_str().flatten().unwrap_or("UTC"))?
                    }
                    _ => Tz::UTC,
                };
                let mut clock = ZoneClock::new(zone);
                let mut times = Vec::with_capacity(rows);
                let mut read = None;
                for (row, text) in values.as_string::<i32>().iter().enumerate() {
                    let (Some(text), Some(template)) = (text, templates.get(row)) else {
                        times.push(None);
                        continue;
                    };
                    let template = cached(&mut read, template, TimeTemplate::parse)?;
                    let at = template.read(text).ok_or_else(|| {
                        let problem = "does not follow the template";
                        BadArgument::err(self.sql_name(), "text", problem)
                    })?;
                    times.push(Some(at));
                }
                if self.way == Way::ToDate {
                    let days = |at: Option<i64>| at.map(|at| at.div_euclid(US_PER_DAY) as i32);
                    Arc::new(times.into_iter().map(days).collect::<Date32Array>())
                } else {
                    let instants = times.into_iter().map(|at| at.map(|at| clock.instant(at)));
                    let instants: TimestampMicrosecondArray = instants.collect();
                    Arc::new(instants.with_timezone("UTC"))
                }
            }
            Way::ToNumber => {
                let mut numbers = Vec::with_capacity(rows);
                let mut read = None;
                for (row, text) in values.as_string::<i32>().iter().enumerate() {
                    let (Some(text), Some(template)) = (text, templates.get(row)) else {
                        numbers.push(None);
                        continue;
                    };
                    let template = cached(&mut read, template, NumberTemplate::parse)?;
                    let number = template.read(text, NUMBER_SCALE.unsigned_abs());
                    numbers.push(Some(number.ok_or_else(|| {
                        BadArgument::err("to_number", "text", "is not a number")
                    })?));
                }
                let numbers = Decimal128Array::from(numbers);
                Arc::new(numbers.with_precision_and_scale(38, NUMBER_SCALE)?)
            }
        };
        Ok(ColumnarValue::Array(answer))
    }
}

fn is_scalar(value: &ColumnarValue) -> bool {
    matches!(value, ColumnarValue::Scalar(_))
}

/// One template for all rows, or one a row.
struct Templates<'a> {
    texts: &'a arrow::array::StringArray,
}

impl Templates<'_> {
    fn get(&self, row: usize) -> Option<&str> {
        let row = if self.texts.len() == 1 { 0 } else { row };
        self.texts.is_valid(row).then(|| self.texts.value(row))
    }
}

/// The parsed form of `template`, parsed again only when it changes.
fn cached<'c, T>(
    last: &'c mut Option<(String, T)>,
    template: &str,
    parse: impl FnOnce(&str) -> Result<T>,
) -> Result<&'c T> {
    let is_same = last.as_ref().is_some_and(|(text, _)| text == template);
    if !is_same {
        *last = None;
    }
    match last {
        Some((_, parsed)) => Ok(parsed),
        empty => Ok(&empty.insert((template.to_owned(), parse(template)?)).1),
    }
}

impl Template {
    fn of_seconds(&self, seconds: &ArrayRef) -> Result<ColumnarValue> {
        let seconds = seconds.as_primitive::<Float64Type>();
        let mut instants = Vec::with_capacity(seconds.len());
        for s in seconds {
            instants.push(match s {
                Some(s) => {
                    let us = (s * US_PER_SECOND as f64).round();
                    if !us.is_finite() || us.abs() > 8.2e18 {
                        return Err(BadArgument::err("to_timestamp", "seconds", "is out of range"));
                    }
                    Some(us as i64)
                }
                None => None,
            });
        }
        let instants = TimestampMicrosecondArray::from(instants).with_timezone("UTC");
        Ok(ColumnarValue::Array(Arc::new(instants)))
    }
}

fn to_char(values: &ArrayRef, templates: &Templates) -> Result<ArrayRef> {
    let mut texts = StringBuilder::new();
    let (mut times, mut numbers) = (None, None);
    for row in 0..values.len() {
        let template = templates.get(row).filter(|_| values.is_valid(row));
        let Some(template) = template else {
            texts.append_null();
            continue;
        };
        let text = match values.data_type() {
            DataType::Timestamp(..) => {
                let at = values.as_primitive::<TimestampMicrosecondType>().value(row);
                cached(&mut times, template, TimeTemplate::parse)?
                    .write_time(at)
                    .ok_or_else(|| BadArgument::err("to_char", "time", "is out of the calendar"))?
            }
            DataType::Interval(_) => {
                let span = values.as_primitive::<IntervalMonthDayNanoType>().value(row);
                cached(&mut times, template, TimeTemplate::parse)?.write_span(span)
            }
            DataType::Decimal128(_, scale) => {
                let number = values.as_primitive::<Decimal128Type>().value(row);
                let number =
                    number::Exact { digits: number, scale: u32::from(scale.unsigned_abs()) };
                cached(&mut numbers, template, NumberTemplate::parse)?.write(number)
            }
            _ => {
                let number = values.as_primitive::<Float64Type>().value(row);
                let template = cached(&mut numbers, template, NumberTemplate::parse)?;
                match number::Exact::of_float(number, template.decimals()) {
                    Some(number) => template.write(number),
                    None => template.overflow(number.is_sign_negative()),
                }
            }
        };
        texts.append_value(text);
    }
    Ok(Arc::new(texts.finish()))
}
