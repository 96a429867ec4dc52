//! Steps of a funnel, and the start and return of a retention: `'name'` or `'name: predicate'`.

use clientele_tree::{Node, Tree};
use datafusion::sql::sqlparser::ast::Expr;

use crate::dialect::{literal, parse_expression, quoted};
use crate::error::{Error, Result};

/// A step: what it is called and which rows take it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) name: String,
    /// A condition over the relation's columns.
    pub(super) condition: String,
}

impl Step {
    /// Reads one step; `event` is the column of the event's name.
    ///
    /// `'pay'` are the rows whose event is `pay`. `'pay: amount > 100'` are those among them where the predicate holds. When
    /// the predicate speaks of the event itself (`'any visit: event IN (''a'', ''b'')'`), the name is only a name.
    pub(super) fn parse(text: &str, event: Option<&str>) -> Result<Self> {
        let (name, predicate) = split(text);
        Self::of("step", name, predicate, event)
    }

    fn of(what: &str, name: String, predicate: Option<&str>, event: Option<&str>) -> Result<Self> {
        let is_event = |event: &str| format!("{} = {}", quoted(event), literal(&name));
        let condition = match (predicate, event) {
            (None, Some(event)) => is_event(event),
            (None, None) => {
                return Err(Error::new(
                    crate::error::Kind::InvalidParameter,
                    format!("{what} {name:?} names an event, but the relation has no event column"),
                )
                .hint("name it with event => '...', or write the step as 'name: predicate'"));
            }
            (Some(predicate), event) => {
                let parsed = parsed(what, &name, predicate)?;
                match event {
                    Some(event) if !mentions(&parsed, event) => {
                        format!("({} AND ({parsed}))", is_event(event))
                    }
                    _ => format!("({parsed})"),
                }
            }
        };
        Ok(Self { name, condition })
    }
}

/// Reads `'name@2-3: predicate'`: the steps between which a row excludes, if they are said, and which rows do.
pub(super) fn exclusion(text: &str, event: Option<&str>) -> Result<(Option<(i64, i64)>, Step)> {
    // The range stands before the predicate, after a name that may be quoted.
    let (head, predicate) = match text.rfind("\"@") {
        Some(end) if text.starts_with('"') => match text[end..].find(": ") {
            Some(at) => (&text[..end + at], Some(&text[end + at + 2..])),
            None => (text, None),
        },
        _ => match text.split_once(": ") {
            Some((head, predicate)) if !text.starts_with('"') => (head, Some(predicate)),
            _ => (text, None),
        },
    };
    let range = head.rsplit_once('@').and_then(|(name, range)| {
        let (from, to) = range.split_once('-')?;
        Some((name, (from.trim().parse().ok()?, to.trim().parse().ok()?)))
    });
    let (name, range) = match range {
        Some((name, range)) => (name.trim_end(), Some(range)),
        None => (head, None),
    };
    let looks_like_one = |(_, range): (&str, &str)| range.starts_with(|c: char| c.is_ascii_digit());
    if range.is_none() && name.rsplit_once('@').is_some_and(looks_like_one) {
        return Err(Error::new(
            crate::error::Kind::InvalidParameter,
            format!(
                "exclusion {name:?}: after the @ the two steps are needed between which it excludes"
            ),
        )
        .hint("write it as 'name@2-3'; a name with an @ of its own is double-quoted"));
    }
    let (name, predicate) = match predicate {
        Some(predicate) => (name.trim_matches('"').to_owned(), Some(predicate)),
        None => split(name),
    };
    Ok((range, Step::of("exclusion", name, predicate, event)?))
}

/// Rows that take one of several steps.
pub(super) fn any_of(steps: &[Step]) -> String {
    let conditions: Vec<&str> = steps.iter().map(|step| step.condition.as_str()).collect();
    format!("({})", conditions.join(" OR "))
}

/// Reads a rule `'name: predicate'`: what rows are called for which the predicate holds.
pub(super) fn rule(text: &str) -> Result<(String, String)> {
    let (name, predicate) = split(text);
    let Some(predicate) = predicate else {
        return Err(Error::new(
            crate::error::Kind::InvalidParameter,
            format!("rule {name:?} has no predicate"),
        )
        .hint("write it as 'name: predicate', a condition over the relation's columns"));
    };
    Ok((name.clone(), parsed("rule", &name, predicate)?.to_string()))
}

/// A predicate over the relation's columns; an error says whose it is.
fn parsed(what: &str, name: &str, predicate: &str) -> Result<Expr> {
    parse_expression(predicate).map_err(|error| {
        Error::new(error.kind(), format!("{what} {name:?}: {}", error.message()))
            .hint("after 'name: ' comes a condition over the relation's columns")
    })
}

/// Splits at the first `': '`; a name that holds one is double-quoted.
fn split(text: &str) -> (String, Option<&str>) {
    if let Some(rest) = text.strip_prefix('"')
        && let Some(end) = rest.find('"')
    {
        let after = &rest[end + 1..];
        if after.is_empty() || after.starts_with(": ") {
            return (rest[..end].to_owned(), after.strip_prefix(": "));
        }
    }
    match text.split_once(": ") {
        Some((name, predicate)) => (name.to_owned(), Some(predicate)),
        None => (text.to_owned(), None),
    }
}

fn mentions(expr: &Expr, column: &str) -> bool {
    expr.any(|node| {
        let last = match node {
            Node::Expr(Expr::Identifier(name)) => Some(name),
            Node::Expr(Expr::CompoundIdentifier(parts)) => parts.last(),
            _ => None,
        };
        last.is_some_and(|name| match name.quote_style {
            Some(_) => name.value == column,
            None => name.value.to_lowercase() == column,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str) -> String {
        Step::parse(text, Some("event")).unwrap().condition
    }

    #[test]
    fn a_step_is_a_name_or_a_name_and_a_predicate() {
        assert_eq!(condition("pay"), "\"event\" = 'pay'");
        assert_eq!(condition("cart: price > 0"), "(\"event\" = 'cart' AND (price > 0))");
        assert_eq!(condition("seen: event IN ('view', 'pv')"), "(event IN ('view', 'pv'))");
        assert_eq!(condition("a|b"), "\"event\" = 'a|b'");
        assert_eq!(condition("\"shop: enter\""), "\"event\" = 'shop: enter'");
        assert_eq!(condition("\"shop: enter\": x = 1"), "(\"event\" = 'shop: enter' AND (x = 1))");
    }

    #[test]
    fn an_exclusion_may_say_between_which_steps() {
        let read = |text: &str| {
            let (range, step) = exclusion(text, Some("event")).unwrap();
            (range, step.condition)
        };
        let event = |name: &str| format!("\"event\" = '{name}'");
        assert_eq!(read("refund"), (None, event("refund")));
        assert_eq!(read("refund@2-3"), (Some((2, 3)), event("refund")));
        assert_eq!(read("a@b@1-2"), (Some((1, 2)), event("a@b")));
        assert_eq!(read("a@b"), (None, event("a@b")));
        assert_eq!(read("\"a@1\"@1-2"), (Some((1, 2)), event("a@1")));
        assert!(exclusion("help@1", Some("event")).is_err());
        assert!(exclusion("help@1-99999999999999999999", Some("event")).is_err());
        assert_eq!(read("\"a: b\"@1-2"), (Some((1, 2)), event("a: b")));
        assert_eq!(
            read("\"a: b\"@1-2: x = 1"),
            (Some((1, 2)), format!("({} AND (x = 1))", event("a: b")))
        );
        assert_eq!(
            read("refund@2-3: reason = 'x: y'"),
            (Some((2, 3)), format!("({} AND (reason = 'x: y'))", event("refund")))
        );
    }

    #[test]
    fn a_bad_predicate_names_its_step() {
        let error = Step::parse("pay: amount >", Some("event")).unwrap_err();
        assert!(error.message().starts_with("step \"pay\": syntax error"), "{error}");
    }
}
