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
use clientele_tree::{Node, NodeMut, Tree};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Statement, Value,
};
use futures::StreamExt;

use crate::catalog::Pinned;
use crate::dialect::{literal, parse_expression, parse_query, quoted};
use crate::error::{Error, Kind, Result};
use crate::identity;
use crate::session::{Planning, Session};

/// One call, its arguments as they are written.
struct Call<'a> {
    graph: String,
    id_type: &'a Expr,
    value: &'a Expr,
    scope: Option<&'a Expr>,
}

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
            Node::Expr(Expr::Function(function)) if is_call(function) => read(function),
            _ => return,
        };
        is_called = true;
        match found.and_then(|call| check(planning.pinned(), &call.graph).map(|()| call)) {
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
        replace(node, |call| {
            let hash = hash_of(key, call)?;
            let found = hash.and_then(|hash| *constants.get(&(call.graph.clone(), hash))?);
            Some(found.map_or_else(|| "NULL".to_owned(), |one_id| one_id.to_string()))
        })
    })
}

/// Replaces the calls of a view's query: what it answers is of the day it is asked.
pub(super) fn as_queries(query: &mut Statement) -> Result<()> {
    query.change(|node| replace(node, |_| None))
}

fn is_call(function: &Function) -> bool {
    matches!(function.name.0.as_slice(), [part]
        if part.as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case("oneid")))
}

fn read(function: &Function) -> Result<Call<'_>> {
    let misuse = |problem: &str| {
        Error::new(Kind::InvalidParameter, format!("oneid: {problem}"))
            .hint("oneid('graph', 'type', value), or oneid('graph', 'type', value, scope)")
    };
    let FunctionArguments::List(list) = &function.args else {
        return Err(misuse("the arguments are missing"));
    };
    let given = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        other => Err(misuse(&format!("{other} is no value"))),
    });
    let given = given.collect::<Result<Vec<_>>>()?;
    let (graph, id_type, value, scope) = match given.as_slice() {
        [graph, id_type, value] => (graph, id_type, value, None),
        [graph, id_type, value, scope] => (graph, id_type, value, Some(*scope)),
        _ => return Err(misuse("three or four arguments are needed")),
    };
    match constant(graph) {
        Some(Some(graph)) => Ok(Call { graph, id_type, value, scope }),
        _ => Err(misuse("the graph is named by a constant")),
    }
}

/// The text of a constant, `Some(None)` for NULL; `None` for what is not constant.
fn constant(expr: &Expr) -> Option<Option<String>> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Null => Some(None),
            Value::Number(digits, _) => Some(Some(digits.clone())),
            other => other.clone().into_string().map(Some),
        },
        // A bound parameter arrives as a cast literal.
        Expr::Cast { expr, .. } | Expr::Nested(expr) => constant(expr),
        _ => None,
    }
}

/// The hash that is looked for, `Some(None)` where there can be no customer; `None` for what is not constant.
fn hash_of(key: &[u8; 32], call: &Call<'_>) -> Option<Option<i64>> {
    let id_type = constant(call.id_type)?;
    let value = constant(call.value)?;
    let scope = call.scope.map_or(Some(None), constant)?;
    let (Some(id_type), Some(value)) = (id_type, value) else { return Some(None) };
    Some(identity::lookup_hash(key, &id_type, &value, scope.as_deref()))
}

fn check(pinned: &Pinned, graph: &str) -> Result<()> {
    if identity::can_look_up(pinned.generation(), graph)? {
        return Ok(());
    }
    Err(Error::new(
        Kind::NotInState,
        format!(
            "identity graph \"{graph}\" was made by an earlier version and cannot be asked yet"
        ),
    )
    .hint(format!("REFRESH IDENTITY GRAPH {graph}")))
}

/// The relation of whose identifiers are, by half of their hashes, with a row for each of a record: `__hash`, `__one_id`.
fn whose(graph: &str) -> String {
    let graph = quoted(graph);
    format!(
        "SELECT i.hash AS __hash, m.one_id AS __one_id FROM {graph}.identifiers AS i JOIN {graph}.map AS m ON m.record = i.record \
         WHERE NOT EXISTS (SELECT 1 FROM {graph}.owners AS o WHERE o.hash = i.hash) \
         AND NOT EXISTS (SELECT 1 FROM {graph}.types AS t WHERE t.id_type = i.id_type AND NOT t.joins) \
         UNION ALL SELECT hash, one_id FROM {graph}.owners"
    )
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

/// Puts in the place of a call what `known` says of it, and else a query.
fn replace(node: NodeMut<'_>, known: impl Fn(&Call<'_>) -> Option<String>) -> Result<()> {
    let NodeMut::Expr(expr) = node else { return Ok(()) };
    let Expr::Function(function) = &*expr else { return Ok(()) };
    if !is_call(function) {
        return Ok(());
    }
    let call = read(function)?;
    let text = match known(&call) {
        Some(known) => format!("CAST({known} AS BIGINT)"),
        // The names keep clear of the statement's own.
        None => format!(
            "(SELECT CASE WHEN min(__whose.__one_id) = max(__whose.__one_id) THEN min(__whose.__one_id) END \
             FROM ({}) AS __whose WHERE __whose.__hash = oneid_hash({}, {}, {}))",
            whose(&call.graph),
            call.id_type,
            call.value,
            call.scope.map_or_else(|| literal(""), ToString::to_string),
        ),
    };
    *expr = parse_expression(&text)?;
    Ok(())
}
