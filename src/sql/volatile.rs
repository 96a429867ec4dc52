//! A view must mean the same tomorrow: what it may not call.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, visit_expressions};

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
    let found = visit_expressions(query, |expr| match expr {
        Expr::Function(function) => {
            let name = function
                .name
                .0
                .last()
                .and_then(|part| part.as_ident())
                .map(|i| i.value.to_lowercase());
            match name {
                Some(name) if VOLATILE.contains(&name.as_str()) => ControlFlow::Break(name),
                _ => ControlFlow::Continue(()),
            }
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(name) => Err(Error::new(
            Kind::WrongObjectType,
            format!("a view cannot call {name}: it would mean something else each time"),
        )
        .hint("report_asof() is the day a report speaks for; SET as_of gives it a value")),
        ControlFlow::Continue(()) => Ok(()),
    }
}
