//! Kinds of values, as PostgreSQL's operators tell them apart, and how two of them meet.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use clientele_udfs::pg::read_time::{ReadTime, Reads};
use clientele_udfs::pg::timezone::Timezone;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ScalarUDF, ScalarUDFImpl, cast};
use datafusion::prelude::lit;

use crate::catalog::pg_catalog::type_name;
use crate::error::{Error, Kind};

/// What a value is to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    Text,
    Boolean,
    Int,
    Decimal,
    Float,
    Date,
    /// TIMESTAMP.
    Time,
    /// TIMESTAMPTZ.
    Instant,
    Span,
    Other,
    Null,
}

impl ValueKind {
    pub(super) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Boolean => Self::Boolean,
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Self::Decimal,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Timestamp(_, None) => Self::Time,
            DataType::Timestamp(_, Some(_)) => Self::Instant,
            DataType::Interval(_) | DataType::Duration(_) => Self::Span,
            DataType::Null => Self::Null,
            DataType::Dictionary(_, value) => Self::of(value),
            t if t.is_integer() => Self::Int,
            t if t.is_floating() => Self::Float,
            _ => Self::Other,
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Decimal | Self::Float)
    }

    pub(super) fn is_time(self) -> bool {
        matches!(self, Self::Date | Self::Time | Self::Instant)
    }
}

/// An operand and its type.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) expr: Expr,
    pub(super) data_type: DataType,
}

impl Operand {
    pub(super) fn kind(&self) -> ValueKind {
        ValueKind::of(&self.data_type)
    }

    /// A bare text in the statement: it has no type yet and takes that of the other side.
    pub(super) fn is_unknown(&self) -> bool {
        self.kind() == ValueKind::Null || is_bare_text(&self.expr)
    }
}

pub(super) fn is_bare_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.try_as_str().is_some())
}

pub(super) fn call(function: impl ScalarUDFImpl + 'static, args: Vec<Expr>) -> Expr {
    Arc::new(ScalarUDF::from(function)).call(args)
}

pub(super) fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

pub(super) fn span() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

/// The clock of `zone` at an instant, or the instant of a clock's time: PostgreSQL's `AT TIME ZONE`.
pub(super) fn in_zone(time: Expr, zone: &str) -> Expr {
    call(Timezone::new(), vec![lit(zone), time])
}

/// A text as a date or time.
pub(super) fn read_as(kind: ValueKind, text: Expr, zone: &str) -> Expr {
    match kind {
        ValueKind::Date => call(ReadTime::new(Reads::Date), vec![text]),
        ValueKind::Time => call(ReadTime::new(Reads::Timestamp), vec![text]),
        _ => call(ReadTime::new(Reads::TimestampTz), vec![text, lit(zone)]),
    }
}

/// Gives two sides of a comparison types that can be compared, as PostgreSQL would: a bare text takes the other's type, a
/// day or a clock's time beside an instant is one of the session's zone, NUMERIC beside a float is a float.
///
/// # Errors
/// 42883 for a text beside a number or time; with `is_lenient`, which catalogue queries get, the engine decides.
pub(super) fn meet(
    symbol: &str,
    left: Operand,
    right: Operand,
    zone: &str,
    is_lenient: bool,
) -> Result<(Expr, Expr)> {
    use ValueKind::{Date, Decimal, Float, Instant, Text, Time};
    let (l, r) = (left.kind(), right.kind());
    Ok(match (l, r) {
        (time, Text) if time.is_time() && right.is_unknown() => {
            (left.expr, read_as(time, right.expr, zone))
        }
        (Text, time) if time.is_time() && left.is_unknown() => {
            (read_as(time, left.expr, zone), right.expr)
        }
        (Instant, Date | Time) => (left.expr, in_zone(right.expr, zone)),
        (Date | Time, Instant) => (in_zone(left.expr, zone), right.expr),
        (Float, Decimal) => (left.expr, cast(right.expr, DataType::Float64)),
        (Decimal, Float) => (cast(left.expr, DataType::Float64), right.expr),
        (Text, other) | (other, Text)
            if (other.is_number() || other.is_time())
                && !left.is_unknown()
                && !right.is_unknown()
                && !is_lenient =>
        {
            return Err(no_operator(symbol, &left, &right).into());
        }
        _ => (left.expr, right.expr),
    })
}

pub(super) fn no_operator(symbol: &str, left: &Operand, right: &Operand) -> Error {
    let name = |side: &Operand| type_name(&side.data_type);
    Error::new(
        Kind::UndefinedFunction,
        format!("operator does not exist: {} {symbol} {}", name(left), name(right)),
    )
    .hint("say which type is meant with a cast, such as x::text or x::bigint")
}
