//! A view must mean the same tomorrow: what it may not call.

use clientele_tree::{Node, Tree};
use datafusion::sql::sqlparser::ast::{Expr, Query};

use crate::error::{Error, Kind, Result};

const VOLATILE: [&str; 16] = [
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtime",
    "localtimestamp",
    "random",
    "uuid",
    "gen_random_uuid",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "timeofday",
    "today",
    "current_user",
    "session_user",
];

/// Refuses a definition that calls the clock, chance or the one who asks.
pub(super) fn refuse_volatile(query: &Query) -> Result<()> {
    let mut found = None;
    query.each(|node| {
        if let Node::Expr(Expr::Function(function)) = node {
            let last = function.name.0.last().and_then(|part| part.as_ident());
            found = found.or_else(|| {
                VOLATILE.iter().find(|v| last.is_some_and(|l| l.value.eq_ignore_ascii_case(v)))
            });
        }
    });
    match found {
        Some(name) => Err(Error::new(
            Kind::WrongObjectType,
            format!("a view cannot call {name}: it would mean something else each time"),
        )
        .hint("report_asof() is the day a report speaks for; SET as_of gives it a value")),
        None => Ok(()),
    }
}
