//! Operators with PostgreSQL's meaning, planned while the statement's own types are known.

use std::sync::Arc;

use arrow::datatypes::DataType;
use clientele_udfs::pg::checked::{Checked, Operation};
use clientele_udfs::pg::numeric_div::NumericDiv;
use clientele_udfs::pg::span::{IntervalTimes, TimestamptzAdd};
use clientele_udfs::pg::text_of::TextOf;
use clientele_udfs::time::interval_us::IntervalUs;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, binary_expr, cast};
use datafusion::prelude::lit;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::kinds::{Operand, ValueKind, call, in_zone, meet, micros, no_operator, read_as, span};
use super::zones::Zones;

/// Plans arithmetic, comparisons and `||` where PostgreSQL's rules differ from the engine's:
///
/// integers that leave their range and floats divided by zero are errors; NUMERIC is divided to 16 digits; a DATE plus a
/// number is a DATE, two DATEs differ by days, a DATE plus an INTERVAL is a TIMESTAMP; days are added to an instant by the
/// zone's calendar; intervals are compared by their length; text is not compared with numbers.
#[derive(Debug)]
pub(super) struct Operators {
    pub(super) zones: Arc<Zones>,
    /// Catalogue queries of clients compare what they like.
    pub(super) is_lenient: bool,
}

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        if is_arithmetic(&expr.op) {
            (expr.left, expr.right) = (signed(expr.left, schema), signed(expr.right, schema));
        }
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema))
        else {
            return Ok(PlannerResult::Original(expr));
        };
        let symbol = expr.op.to_string();
        let operator = expr.op.clone();
        let left = Operand { expr: expr.left.clone(), data_type: left };
        let right = Operand { expr: expr.right.clone(), data_type: right };
        let planned = match operator {
            BinaryOperator::Eq => self.compare(&symbol, Operator::Eq, left, right)?,
            BinaryOperator::NotEq => self.compare(&symbol, Operator::NotEq, left, right)?,
            BinaryOperator::Lt => self.compare(&symbol, Operator::Lt, left, right)?,
            BinaryOperator::LtEq => self.compare(&symbol, Operator::LtEq, left, right)?,
            BinaryOperator::Gt => self.compare(&symbol, Operator::Gt, left, right)?,
            BinaryOperator::GtEq => self.compare(&symbol, Operator::GtEq, left, right)?,
            BinaryOperator::Plus => self.add(left, right),
            BinaryOperator::Minus => self.subtract(left, right),
            BinaryOperator::Multiply => multiply(left, right),
            BinaryOperator::Divide => divide(left, right),
            BinaryOperator::Modulo => modulo(left, right),
            BinaryOperator::StringConcat => self.concat(left, right)?,
            _ => None,
        };
        Ok(planned.map_or(PlannerResult::Original(expr), PlannerResult::Planned))
    }
}

impl Operators {
    fn compare(
        &self,
        symbol: &str,
        operator: Operator,
        left: Operand,
        right: Operand,
    ) -> Result<Option<Expr>> {
        if left.kind() == ValueKind::Span && right.kind() == ValueKind::Span {
            let length = |side: Operand| call(IntervalUs::new(), vec![side.expr]);
            return Ok(Some(binary_expr(length(left), operator, length(right))));
        }
        let (left, right) = meet(symbol, left, right, &self.zones.current(), self.is_lenient)?;
        Ok(Some(binary_expr(left, operator, right)))
    }

    fn add(&self, left: Operand, right: Operand) -> Option<Expr> {
        use ValueKind::{Date, Instant, Int, Span, Text};
        match (left.kind(), right.kind()) {
            (Date, Int) => Some(day_plus(Operation::Add, left, right)),
            (Int, Date) => Some(day_plus(Operation::Add, right, left)),
            (time, Span) if time.is_time() => Some(self.time_plus(left, right.expr)),
            (Span, time) if time.is_time() => Some(self.time_plus(right, left.expr)),
            (Instant, Text) if right.is_unknown() => {
                Some(self.time_plus(left, cast(right.expr, span())))
            }
            _ => whole(Operation::Add, Operator::Plus, left, right),
        }
    }

    fn subtract(&self, left: Operand, right: Operand) -> Option<Expr> {
        use ValueKind::{Date, Instant, Int, Span, Text, Time};
        let zone = self.zones.current();
        let minus = |l: Expr, r: Expr| Some(binary_expr(l, Operator::Minus, r));
        match (left.kind(), right.kind()) {
            (Date, Int) => Some(day_plus(Operation::Subtract, left, right)),
            (Date, Date) => {
                let day = |side: Operand| cast(side.expr, DataType::Int32);
                Some(Checked::of(Operation::Subtract, day(left), day(right)))
            }
            (Instant, Span) if zone != "UTC" => {
                let back = call(IntervalTimes::new(), vec![cast(right.expr, span()), lit(-1.0)]);
                Some(self.time_plus(left, back))
            }
            (Date, Span) => minus(cast(left.expr, micros()), right.expr),
            (time, Text) if time.is_time() && right.is_unknown() => {
                let read = read_as(time, right.expr, &zone);
                let right = Operand { expr: read, data_type: left.data_type.clone() };
                self.subtract(left, right)
            }
            (Instant, Date | Time) => minus(left.expr, in_zone(right.expr, &zone)),
            (Date | Time, Instant) => minus(in_zone(left.expr, &zone), right.expr),
            (Date, Time) => minus(cast(left.expr, micros()), right.expr),
            (Time, Date) => minus(left.expr, cast(right.expr, micros())),
            (Time, Time) | (Instant, Instant) => minus(left.expr, right.expr),
            _ => whole(Operation::Subtract, Operator::Minus, left, right),
        }
    }

    /// A time and a span: months and days by the calendar of the time's zone.
    fn time_plus(&self, time: Operand, by: Expr) -> Expr {
        let zone = self.zones.current();
        match time.kind() {
            ValueKind::Instant if zone != "UTC" => {
                call(TimestamptzAdd::new(), vec![time.expr, by, lit(zone)])
            }
            ValueKind::Date => binary_expr(cast(time.expr, micros()), Operator::Plus, by),
            _ => binary_expr(time.expr, Operator::Plus, by),
        }
    }

    fn concat(&self, left: Operand, right: Operand) -> Result<Option<Expr>> {
        let is_list =
            |side: &Operand| matches!(side.data_type, DataType::List(_) | DataType::LargeList(_));
        if is_list(&left) || is_list(&right) {
            return Ok(None);
        }
        let is_text = |side: &Operand| matches!(side.kind(), ValueKind::Text | ValueKind::Null);
        if !is_text(&left) && !is_text(&right) && !self.is_lenient {
            return Err(no_operator("||", &left, &right).into());
        }
        let zone = self.zones.current();
        let text =
            |side: Operand| if is_text(&side) { side.expr } else { text_of(side.expr, &zone) };
        Ok(Some(binary_expr(text(left), Operator::StringConcat, text(right))))
    }
}

/// A value as PostgreSQL writes it.
pub(super) fn text_of(value: Expr, zone: &str) -> Expr {
    call(TextOf::new(), vec![value, lit(zone)])
}

/// A day and a number of days.
fn day_plus(operation: Operation, day: Operand, days: Operand) -> Expr {
    let number = cast(day.expr, DataType::Int32);
    let sum = Checked::of(operation, number, days.expr);
    cast(cast(sum, DataType::Int32), DataType::Date32)
}

/// Integers, checked; a NUMERIC beside a float is a float.
fn whole(checked: Operation, operator: Operator, left: Operand, right: Operand) -> Option<Expr> {
    use ValueKind::{Decimal, Float, Int};
    match (left.kind(), right.kind()) {
        (Int, Int) => Some(Checked::of(checked, left.expr, right.expr)),
        (Decimal, Float) => {
            Some(binary_expr(cast(left.expr, DataType::Float64), operator, right.expr))
        }
        (Float, Decimal) => {
            Some(binary_expr(left.expr, operator, cast(right.expr, DataType::Float64)))
        }
        _ => None,
    }
}

fn multiply(left: Operand, right: Operand) -> Option<Expr> {
    use ValueKind::Span;
    let times = |span_of: Operand, n: Operand| {
        let n = cast(n.expr, DataType::Float64);
        Some(call(IntervalTimes::new(), vec![cast(span_of.expr, span()), n]))
    };
    match (left.kind(), right.kind()) {
        (Span, n) if n.is_number() => times(left, right),
        (n, Span) if n.is_number() => times(right, left),
        _ => whole(Operation::Multiply, Operator::Multiply, left, right),
    }
}

fn is_arithmetic(operator: &BinaryOperator) -> bool {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(operator, Plus | Minus | Multiply | Divide | Modulo)
}

/// Numbers of rows and ranks are unsigned in the engine, and meet others as decimals there; in PostgreSQL they are BIGINT.
fn signed(side: Expr, schema: &DFSchema) -> Expr {
    match side.get_type(schema) {
        Ok(DataType::UInt64) => cast(side, DataType::Int64),
        _ => side,
    }
}

fn divide(left: Operand, right: Operand) -> Option<Expr> {
    use ValueKind::{Decimal, Float, Int, Span};
    match (left.kind(), right.kind()) {
        (Decimal, Decimal | Int) | (Int, Decimal) => {
            Some(call(NumericDiv::new(), vec![left.expr, right.expr]))
        }
        (l, r) if (l == Float || r == Float) && l.is_number() && r.is_number() => {
            Some(float_division(Operation::Divide, Operator::Divide, left, right))
        }
        (Span, n) if n.is_number() => {
            let n = cast(right.expr, DataType::Float64);
            let part = Checked::of(Operation::Divide, lit(1.0), n);
            Some(call(IntervalTimes::new(), vec![cast(left.expr, span()), part]))
        }
        _ => None,
    }
}

fn modulo(left: Operand, right: Operand) -> Option<Expr> {
    let (l, r) = (left.kind(), right.kind());
    let is_float = l == ValueKind::Float || r == ValueKind::Float;
    (is_float && l.is_number() && r.is_number())
        .then(|| float_division(Operation::Modulo, Operator::Modulo, left, right))
}

fn float_division(checked: Operation, operator: Operator, left: Operand, right: Operand) -> Expr {
    // What cannot be zero need not be looked at.
    let is_safe = match &right.expr {
        Expr::Literal(value, _) => {
            matches!(value.cast_to(&DataType::Float64), Ok(ScalarValue::Float64(Some(n))) if n != 0.0)
        }
        _ => false,
    };
    if is_safe {
        let float = |side: Operand| cast(side.expr, DataType::Float64);
        return binary_expr(float(left), operator, float(right));
    }
    Checked::of(checked, left.expr, right.expr)
}
