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
        let is_event = |event: &str| format!("{} = {}", quoted(event), literal(&name));
        let condition = match (predicate, event) {
            (None, Some(event)) => is_event(event),
            (None, None) => {
                return Err(Error::new(
                    crate::error::Kind::InvalidParameter,
                    format!("step {name:?} names an event, but the relation has no event column"),
                )
                .hint("name it with event => '...', or write the step as 'name: predicate'"));
            }
            (Some(predicate), event) => {
                let parsed = parse_expression(predicate).map_err(|error| {
                    Error::new(error.kind(), format!("step {name:?}: {}", error.message()))
                        .hint("after 'name: ' comes a condition over the relation's columns")
                })?;
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
    fn a_bad_predicate_names_its_step() {
        let error = Step::parse("pay: amount >", Some("event")).unwrap_err();
        assert!(error.message().starts_with("step \"pay\": syntax error"), "{error}");
    }
}
