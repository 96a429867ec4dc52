//! DELETE: the table is written anew without the rows.

use datafusion::sql::sqlparser::ast;
use futures::StreamExt;

use super::Outcome;
use super::execute::{Planned, fill_all, name_of, plan, refuse_reserved};
use super::parameters;
use crate::dialect;
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::store::{Group, Name, Relation, Replaced, TableChange, system};

/// A DELETE: the table, and the rows that stay and go as queries.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    /// The table.
    pub table: Name,
    /// How many rows go.
    pub count: ast::Statement,
    /// The rows that stay; `None` when none does.
    pub keep: Option<ast::Statement>,
}

/// Reads a DELETE as the parser gave it.
pub(super) fn read(delete: &ast::Delete) -> Result<Delete> {
    let ast::FromTable::WithFromKeyword(from) = &delete.from else {
        return Err(Error::new(Kind::Syntax, "syntax error: DELETE FROM table is meant"));
    };
    let is_more = delete.using.is_some()
        || delete.returning.is_some()
        || delete.output.is_some()
        || delete.limit.is_some()
        || !delete.order_by.is_empty()
        || !delete.tables.is_empty();
    let [ast::TableWithJoins { relation: ast::TableFactor::Table { name, alias, .. }, joins }] =
        from.as_slice()
    else {
        return Err(Error::not_supported("DELETE takes rows of one table"));
    };
    // Rows of a past version would take the place of those that are there now.
    let alone = ast::TableFactor::Table {
        name: name.clone(),
        alias: alias.clone(),
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    if from[0].relation != alone {
        return Err(Error::not_supported(
            "DELETE FROM takes a table as it is now, by its name alone",
        )
        .hint("RESTORE TABLE t TO VERSION AS OF n brings a past version back"));
    }
    if is_more || !joins.is_empty() {
        return Err(Error::not_supported(
            "DELETE with USING, RETURNING, ORDER BY or LIMIT is not supported",
        )
        .hint("WHERE record_id IN (SELECT ...) names rows by another table"));
    }
    let relation = &from[0].relation;
    let query = |what: &str, filter: &str| -> Result<ast::Statement> {
        let query = dialect::parse_query(&format!("SELECT {what} FROM {relation} WHERE {filter}"))?;
        Ok(ast::Statement::Query(Box::new(query)))
    };
    let (count, keep) = match &delete.selection {
        None => (query("count(*)", "true")?, None),
        Some(filter) => (
            query("count(*)", &format!("{filter}"))?,
            Some(query("*", &format!("({filter}) IS NOT TRUE"))?),
        ),
    };
    Ok(Delete { table: name_of(name)?, count, keep })
}

/// Deletes, and says how many rows.
///
/// Cost: the table is read twice and written once. Another writer who changes the table meanwhile lets it begin again.
pub(super) async fn run(
    session: &Session,
    delete: &Delete,
    text: &str,
    values: &[ast::Expr],
) -> Result<Outcome> {
    const TRIES_MAX: u32 = 5;
    let name = &delete.table;
    let is_log = system::is_log_of_runs(name);
    if !is_log {
        refuse_reserved(name)?;
    }
    let warehouse = session.engine().warehouse();
    for _ in 0..TRIES_MAX {
        let newest = warehouse.newest().await?;
        newest.refuse_rows(name)?;
        let def = match newest.relations.get(name) {
            Some(Relation::Table(def)) => def,
            Some(_) => {
                return Err(Error::new(
                    Kind::WrongObjectType,
                    format!("\"{name}\" is not a table; rows are deleted from tables"),
                ));
            }
            // Nothing has run yet.
            None if is_log => return Ok(Outcome::Done("DELETE 0".to_owned())),
            None => {
                return Err(Error::new(
                    Kind::UndefinedTable,
                    format!("relation \"{name}\" does not exist"),
                ));
            }
        };
        let count = count(session, delete, text, values).await?;
        let done = Outcome::Done(format!("DELETE {count}"));
        if count == 0 {
            return Ok(done);
        }
        let snapshot = warehouse.snapshot(def).await?;
        let mut files = Vec::new();
        if let Some(keep) = &delete.keep {
            let mut keep = keep.clone();
            parameters::bind(&mut keep, values)?;
            let Planned { plan, planning, .. } = plan(session, keep, text, &[]).await?;
            let mut stream = planning.run(&plan).await?;
            let clustering = snapshot.clustering.as_ref();
            let schema = std::sync::Arc::clone(&snapshot.schema);
            let mut writer =
                warehouse.writer(&def.path, schema, &snapshot.personal, clustering).await?;
            while let Some(batch) = stream.next().await {
                writer.write(&fill_all(&batch?, &snapshot.schema)?).await?;
            }
            files = writer.finish().await?;
        }
        let inputs = snapshot.files.iter().map(|file| file.path.clone()).collect();
        let replaced = Some(Replaced { version: def.version, files: inputs });
        let change = TableChange::append(name.clone(), def.path.clone(), files.clone());
        let change = TableChange { replaced, ..change };
        let group = Group::of(change);
        match warehouse.publish(group).await {
            Ok(_) => return Ok(done),
            Err(error) if error.kind() == Kind::StaleBase => {
                warehouse.discard(&def.path, &files).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(Kind::Serialization, "other writers were faster every time")
        .hint("run the statement again"))
}

async fn count(
    session: &Session,
    delete: &Delete,
    text: &str,
    values: &[ast::Expr],
) -> Result<i64> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let mut count = delete.count.clone();
    parameters::bind(&mut count, values)?;
    let Planned { plan, planning, .. } = plan(session, count, text, &[]).await?;
    let mut stream = planning.run(&plan).await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        rows += batch?.column(0).as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
    }
    Ok(rows)
}
