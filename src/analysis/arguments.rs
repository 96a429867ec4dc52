//! Named arguments of a table function: read by name, and none left over.

use chrono::NaiveDate;
use datafusion::sql::sqlparser::ast::{
    Array, BinaryOperator, Expr, Function, UnaryOperator, Value,
};

use super::misuse;
use crate::error::{Error, Result, nearest};

/// The named arguments of one call.
#[derive(Debug)]
pub(super) struct Arguments {
    function: &'static str,
    given: Vec<(String, Expr)>,
    /// Names that were asked for; they are the allowed ones.
    asked: Vec<&'static str>,
}

impl Arguments {
    pub(super) fn new(function: &'static str, given: Vec<(String, Expr)>) -> Self {
        Self { function, given, asked: Vec::new() }
    }

    /// The argument as it was written, or `None` when it was not given or is NULL.
    pub(super) fn expression(&mut self, name: &'static str) -> Option<Expr> {
        self.asked.push(name);
        let (_, expr) = self.given.iter().find(|(given, _)| given == name)?;
        (!is_null(expr)).then(|| expr.clone())
    }

    /// The argument, unless it is a parameter without a value yet: then the statement is only being described, and the
    /// columns of a report do not depend on values.
    pub(super) fn bound(&mut self, name: &'static str) -> Option<Expr> {
        self.expression(name).filter(|expr| !is_placeholder(expr))
    }

    /// A text constant.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        let Some(expr) = self.bound(name) else { return Ok(None) };
        match text_of(&expr) {
            Some(text) => Ok(Some(text)),
            None => Err(self.wrong(name, &expr, "a text in single quotes")),
        }
    }

    /// One of `words`; the first is the default.
    pub(super) fn word(
        &mut self,
        name: &'static str,
        words: &[&'static str],
    ) -> Result<&'static str> {
        let Some(text) = self.text(name)? else { return Ok(words[0]) };
        words.iter().find(|word| **word == text).copied().ok_or_else(|| {
            misuse(self.function, format!("{name} => '{text}': allowed are {}", words.join(", ")))
        })
    }

    /// A text, or an array of texts; a parameter without a value yet stands for one.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>> {
        let texts = self.texts_so_far(name)?;
        Ok(texts.map(|texts| if texts.is_empty() { vec!["?".to_owned()] } else { texts }))
    }

    /// A text, or an array of texts; none of a parameter without a value yet.
    pub(super) fn texts_so_far(&mut self, name: &'static str) -> Result<Option<Vec<String>>> {
        let Some(expr) = self.expression(name) else { return Ok(None) };
        if is_placeholder(&expr) {
            return Ok(Some(vec![]));
        }
        // A parameter without a value yet stands for a text.
        let element = |expr: &Expr| match is_placeholder(expr) {
            true => Some("?".to_owned()),
            false => text_of(expr),
        };
        let elements = match bare(&expr) {
            Expr::Array(Array { elem, .. }) => elem.iter().map(element).collect(),
            other => text_of(other).map(|text| vec![text]),
        };
        match elements {
            Some(texts) if !texts.is_empty() => Ok(Some(texts)),
            _ => Err(self.wrong(name, &expr, "an array of texts such as ARRAY['a', 'b']")),
        }
    }

    /// A whole number within a range.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>> {
        let Some(expr) = self.bound(name) else { return Ok(None) };
        match number_of(&expr) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(
                name,
                &expr,
                &format!("a whole number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// A span of time, as SQL; one that is seen to be none, or to go back, is refused.
    pub(super) fn span(&mut self, name: &'static str) -> Result<Option<String>> {
        let Some(expr) = self.expression(name) else { return Ok(None) };
        let text = match bare(&expr) {
            Expr::Interval(interval) => text_of(&interval.value),
            other => text_of(other),
        };
        let is_span = match &text {
            Some(text) => !text.contains('-') && text.contains(|c| ('1'..='9').contains(&c)),
            None => real_of(&expr).is_none(),
        };
        match is_span {
            true => Ok(Some(format!("CAST({expr} AS INTERVAL)"))),
            false => Err(self.wrong(name, &expr, "a span above 0 such as INTERVAL '30 days'")),
        }
    }

    /// An array of numbers, none below zero.
    pub(super) fn numbers(&mut self, name: &'static str) -> Result<Option<Vec<f64>>> {
        let Some(expr) = self.bound(name) else { return Ok(None) };
        let numbers = match &expr {
            Expr::Array(Array { elem, .. }) => elem.iter().map(real_of).collect::<Option<Vec<_>>>(),
            one => real_of(one).map(|number| vec![number]),
        };
        match numbers {
            Some(numbers) if numbers.iter().all(|n| n.is_finite() && *n >= 0.0) => {
                Ok(Some(numbers))
            }
            _ => Err(self.wrong(
                name,
                &expr,
                "an array of numbers from zero such as ARRAY[0.4, 0.6]",
            )),
        }
    }

    /// A day that is known when the statement is planned, as that of `report_asof()` is.
    pub(super) fn day(
        &mut self,
        name: &'static str,
        as_of: Option<NaiveDate>,
    ) -> Result<Option<NaiveDate>> {
        let Some(expr) = self.bound(name) else { return Ok(None) };
        match day_of(&expr, as_of) {
            Some(day) => Ok(Some(day)),
            None if as_of.is_none() && names_report(&expr) => Err(misuse(
                self.function,
                format!("{name} => {expr}: report_asof() has no day, for as_of is not set"),
            )
            .hint("SET as_of = '2011-12-09'; a report's run sets it")),
            None => Err(self.wrong(
                name,
                &expr,
                "a date such as '2011-12-09', or days from one: report_asof() - 84",
            )),
        }
    }

    /// Refuses a text that is no date; what only a row tells is looked at then.
    pub(super) fn day_or_expression(&self, name: &'static str, expr: &Expr) -> Result<()> {
        match text_of(expr) {
            Some(text) if day_in(&text).is_none() => {
                Err(self.wrong(name, expr, "a date such as '2011-12-09'"))
            }
            _ => Ok(()),
        }
    }

    /// Whether an argument is a parameter without a value yet: then the statement is only being described.
    pub(super) fn is_described(&self) -> bool {
        self.given.iter().any(|(_, expr)| is_placeholder(expr))
    }

    /// True or false; false when it is not given.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool> {
        let Some(expr) = self.bound(name) else { return Ok(false) };
        flag_of(&expr).ok_or_else(|| self.wrong(name, &expr, "true or false"))
    }

    /// Refuses what was given and never asked for.
    pub(super) fn finish(&self) -> Result<()> {
        let allowed: Vec<String> = self.asked.iter().map(|name| (*name).to_owned()).collect();
        for (i, (name, _)) in self.given.iter().enumerate() {
            if !allowed.contains(name) {
                let error = misuse(self.function, format!("there is no argument {name:?}"));
                return Err(match nearest(name, &allowed) {
                    Some(near) => error.hint(format!("perhaps you mean {near}")),
                    None => {
                        error.detail(format!("arguments of this version: {}", allowed.join(", ")))
                    }
                });
            }
            if self.given[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(misuse(self.function, format!("argument {name:?} is given twice")));
            }
        }
        Ok(())
    }

    fn wrong(&self, name: &str, expr: &Expr, allowed: &str) -> Error {
        misuse(self.function, format!("{name} => {expr}: {allowed} is needed"))
    }
}

fn is_placeholder(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Placeholder(_)),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_placeholder(expr),
        _ => false,
    }
}

/// The expression without casts and brackets around it.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) => bare(expr),
        other => other,
    }
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Null),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => is_null(expr),
        _ => false,
    }
}

fn text_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => value.value.clone().into_string(),
        // DATE '2011-12-09' is a text with a type.
        Expr::TypedString(typed) => typed.value.value.clone().into_string(),
        // A bound parameter arrives as a cast literal.
        Expr::Cast { expr, .. } | Expr::Nested(expr) => text_of(expr),
        _ => None,
    }
}

/// The day that a text begins with: the time of an instant does not matter.
fn day_in(text: &str) -> Option<NaiveDate> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.get(..10)?.parse().ok())
}

/// A date, `report_asof()`, or days or an interval of days from one.
fn day_of(expr: &Expr, as_of: Option<NaiveDate>) -> Option<NaiveDate> {
    match bare(expr) {
        Expr::Function(function) if is_asof(function) => as_of,
        Expr::BinaryOp { left, op, right } => {
            let (from, days) = (day_of(left, as_of)?, days_of(right)?);
            match op {
                BinaryOperator::Plus => from.checked_add_signed(chrono::TimeDelta::try_days(days)?),
                BinaryOperator::Minus => {
                    from.checked_sub_signed(chrono::TimeDelta::try_days(days)?)
                }
                _ => None,
            }
        }
        other => text_of(other).and_then(|text| text.parse().ok()),
    }
}

/// A number of days, or an interval of days or weeks.
fn days_of(expr: &Expr) -> Option<i64> {
    let Expr::Interval(interval) = bare(expr) else { return number_of(expr) };
    let text = text_of(&interval.value)?;
    let (number, unit) = text.trim().split_once(' ')?;
    let number: i64 = number.parse().ok()?;
    match unit.trim() {
        "day" | "days" => Some(number),
        "week" | "weeks" => number.checked_mul(7),
        _ => None,
    }
}

fn is_asof(function: &Function) -> bool {
    ["report_asof", "report_to"].iter().any(|n| function.name.to_string().eq_ignore_ascii_case(n))
}

fn names_report(expr: &Expr) -> bool {
    match bare(expr) {
        Expr::Function(function) => is_asof(function),
        Expr::BinaryOp { left, .. } => names_report(left),
        _ => false,
    }
}

fn number_of(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number_of(expr)?.checked_neg(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => match text_of(expr) {
            Some(text) => text.parse().ok(),
            None => number_of(expr),
        },
        _ => None,
    }
}

fn real_of(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Some(-real_of(expr)?),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => match text_of(expr) {
            Some(text) => text.parse().ok(),
            None => real_of(expr),
        },
        _ => None,
    }
}

fn flag_of(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Boolean(flag) => Some(*flag),
            _ => None,
        },
        // A bound parameter arrives as a cast literal.
        Expr::Cast { expr, .. } | Expr::Nested(expr) => match text_of(expr).as_deref() {
            Some("t" | "true") => Some(true),
            Some("f" | "false") => Some(false),
            _ => flag_of(expr),
        },
        _ => None,
    }
}
