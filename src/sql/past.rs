//! `FROM t VERSION AS OF n` and `FROM t TIMESTAMP AS OF '...'`: a table as it was published then.

use chrono_tz::Tz;
use clientele_tree::{NodeMut, Tree};
use clientele_udfs::pg::read_time::read_instant_in;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Statement, TableAlias, TableFactor, TableVersion, Value,
};

use super::execute::name_of;
use crate::catalog::{Moment, Past};
use crate::error::{Error, Kind, Result};

/// Takes the clauses out of a statement: each table gets a name of its own, under which the catalog knows its past.
pub(super) fn take(statement: &mut Statement, timezone: &str) -> Result<Vec<Past>> {
    let mut past = Vec::new();
    statement.change::<Error>(|node| {
        let NodeMut::Factor(TableFactor::Table { name, alias, version, .. }) = node else {
            return Ok(());
        };
        let Some(version) = version.take() else { return Ok(()) };
        let table = Past { name: name_of(name)?, moment: moment(version, timezone)? };
        alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: Ident::with_quote('"', table.name.table.clone()),
            columns: vec![],
            at: None,
        });
        let marked = table.marked();
        let parts = [marked.schema, marked.table].map(|part| Ident::with_quote('"', part));
        *name = ObjectName::from(parts.to_vec());
        past.push(table);
        Ok(())
    })?;
    Ok(past)
}

/// Refuses the clauses where a definition must mean the present.
pub(super) fn refuse(query: &datafusion::sql::sqlparser::ast::Query) -> Result<()> {
    let is_past = |node: clientele_tree::Node<'_>| {
        matches!(node, clientele_tree::Node::Factor(TableFactor::Table { version: Some(_), .. }))
    };
    if query.any(is_past) {
        return Err(Error::not_supported(
            "a view reads its tables as they are, not a past version",
        )
        .hint("CREATE TABLE AS SELECT ... VERSION AS OF keeps a past version"));
    }
    Ok(())
}

fn moment(version: TableVersion, timezone: &str) -> Result<Moment> {
    let bad = |clause: &str, what: &str| {
        Error::new(Kind::InvalidParameter, format!("{clause} needs {what}"))
            .hint("SELECT * FROM system.versions shows versions and their times")
    };
    match version {
        TableVersion::VersionAsOf(Expr::Value(value)) => match &value.value {
            Value::Number(digits, _) => digits
                .parse()
                .map(Moment::Version)
                .map_err(|_| bad("VERSION AS OF", "a whole number")),
            _ => Err(bad("VERSION AS OF", "a whole number")),
        },
        TableVersion::TimestampAsOf(time) | TableVersion::ForSystemTimeAsOf(time) => {
            let zone: Tz = timezone.parse().unwrap_or(Tz::UTC);
            text_of(&time)
                .and_then(|text| read_instant_in(&text, zone))
                .map(Moment::At)
                .ok_or_else(|| bad("TIMESTAMP AS OF", "a constant time such as '2011-12-09 12:50'"))
        }
        _ => {
            Err(Error::not_supported("a table's past is VERSION AS OF n or TIMESTAMP AS OF '...'"))
        }
    }
}

fn text_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => value.value.clone().into_string(),
        Expr::TypedString(typed) => typed.value.value.clone().into_string(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => text_of(expr),
        _ => None,
    }
}
