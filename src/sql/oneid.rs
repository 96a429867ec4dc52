//! `oneid(graph, type, value [, scope])`: the customer that an identifier is of.
//!
//! An identifier is of the customer whose records have it, where they are of one; `<graph>.owners` has the exceptions.
//!
//! Asked for a constant, it is answered before the statement is planned, by a look into a page of the graph's `identifiers` and one of
//! its `map`; so `WHERE one_id = oneid(...)` reads the one customer's rows and no others. Asked for a column's values, it becomes a
//! join.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use clientele_tree::{Node, Tree};
use datafusion::sql::sqlparser::ast::{Expr, Statement};
use futures::StreamExt;

use crate::dialect::{parse_query, quoted};
use crate::error::Result;
use crate::identity::{self, Call, constant};
use crate::session::{Planning, Session};

/// Replaces the calls of a statement that is planned over `planning`: by their answers where they are constant, else by
/// queries.
///
/// # Errors
/// 42704 for a graph that is not there, 55000 for one that has never been refreshed, 22023 for other arguments.
pub(super) async fn answer(
    session: &Session,
    planning: &Planning,
    statement: &mut Statement,
) -> Result<()> {
    let mut constants: BTreeMap<(String, i64), Option<i64>> = BTreeMap::new();
    let (mut problem, mut is_called) = (None, false);
    let key = session.engine().warehouse().key();
    statement.each(|node| {
        let found = match node {
            Node::Expr(Expr::Function(function)) if Call::is(function) => Call::of(function),
            _ => return,
        };
        is_called = true;
        let state = planning.pinned().generation();
        match found.and_then(|call| identity::must_answer(state, &call.graph).map(|()| call)) {
            Ok(call) => {
                if let Some(Some(hash)) = hash_of(key, &call) {
                    constants.insert((call.graph, hash), None);
                }
            }
            Err(error) => problem = Some(error),
        }
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    if !is_called {
        return Ok(());
    }
    for ((graph, hash), answer) in &mut constants {
        *answer = look_up(planning, graph, *hash).await?;
    }
    statement.change(|node| {
        identity::replace_call(node, |call| {
            let hash = hash_of(key, call)?;
            let found = hash.and_then(|hash| *constants.get(&(call.graph.clone(), hash))?);
            Some(found.map_or_else(|| "NULL".to_owned(), |one_id| one_id.to_string()))
        })
    })
}

/// The hash that is looked for, `Some(None)` where there can be no customer; `None` for what is not constant.
fn hash_of(key: &[u8; 32], call: &Call<'_>) -> Option<Option<i64>> {
    let id_type = constant(call.id_type)?;
    let value = constant(call.value)?;
    let scope = call.scope.map_or(Some(None), constant)?;
    let (Some(id_type), Some(value)) = (id_type, value) else { return Some(None) };
    Some(identity::lookup_hash(key, &id_type, &value, scope.as_deref()))
}

async fn look_up(planning: &Planning, graph: &str, hash: i64) -> Result<Option<i64>> {
    let graph = quoted(graph);
    let of = "count(*), CASE WHEN min(w.one_id) = max(w.one_id) THEN min(w.one_id) END";
    let exception = format!("SELECT {of} FROM {graph}.owners AS w WHERE hash = {hash}");
    // The few records are found first, and of the map their pages alone are read.
    let records = format!(
        "SELECT {of} FROM (SELECT i.record FROM {graph}.identifiers AS i WHERE i.hash = {hash} \
         AND NOT EXISTS (SELECT 1 FROM {graph}.types AS t WHERE t.id_type = i.id_type AND NOT t.joins)) AS i \
         JOIN {graph}.map AS w ON w.record = i.record"
    );
    match count_and_id(planning, &exception).await? {
        (0, _) => Ok(count_and_id(planning, &records).await?.1),
        (_, one_id) => Ok(one_id),
    }
}

async fn count_and_id(planning: &Planning, query: &str) -> Result<(i64, Option<i64>)> {
    let plan = planning.plan_query(parse_query(query)?)?;
    let mut rows = planning.run(&plan).await?;
    let mut found = (0, None);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let number = |at: usize| batch.column(at).as_primitive::<Int64Type>().iter().next();
        found = (number(0).flatten().unwrap_or(0), number(1).flatten());
    }
    Ok(found)
}
