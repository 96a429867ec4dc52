//! `oneid(graph, type, value [, scope])`: the customer that an identifier is of.
//!
//! An identifier is of the customer whose records have it, where they are of one; `<graph>.owners` has the exceptions.
//!
//! Asked for a constant, it is answered before the statement is planned, by a look into a page of the graph's `identifiers` and one of
//! its `map`; so `WHERE one_id = oneid(...)` reads the one customer's rows and no others. Asked for a column's values, it becomes a
//! join.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use clientele_tree::{Node, Tree};
use datafusion::sql::sqlparser::ast::{Expr, Statement};

use crate::error::Result;
use crate::identity::{self, Call, constant};
use crate::session::{Planning, Session};
use crate::store::Name;

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

/// As [`identity::replace_call`]'s query answers it for one hash.
async fn look_up(planning: &Planning, graph: &str, hash: i64) -> Result<Option<i64>> {
    let rows = async |table: &str, numbers: &[i64], columns: &[&str]| {
        planning.seek(&Name::new(graph, table), numbers, columns).await
    };
    let owners = rows("owners", &[hash], &["hash", "one_id"]).await?;
    if !owners.is_empty() {
        return only_one(&owners);
    }
    let found = rows("identifiers", &[hash], &["hash", "id_type", "record"]).await?;
    let id_types: Vec<i64> = numbers(&found, 1)?.into_iter().flatten().collect();
    let of_types = rows("types", &id_types, &["id_type", "joins"]).await?;
    let joins = of_types.iter().flat_map(|batch| batch.column(1).as_boolean());
    // Identifiers of types without a rule are nobody's.
    let apart: Vec<Option<i64>> = { numbers(&of_types, 0)?.into_iter().zip(joins) }
        .filter(|(_, joins)| *joins == Some(false))
        .map(|(id_type, _)| id_type)
        .collect();
    let records: Vec<i64> = { numbers(&found, 1)?.into_iter().zip(numbers(&found, 2)?) }
        .filter(|(id_type, _)| !apart.contains(id_type))
        .filter_map(|(_, record)| record)
        .collect();
    let erased = planning.pinned().erased();
    if erased.is_empty() {
        return only_one(&rows("map", &records, &["record", "one_id"]).await?);
    }
    let map = rows("map", &records, &["record", "one_id", "source", "record_id"]).await?;
    let seen = map.iter().map(|batch| {
        let keeps = erased.keeps(batch.column(2), batch.column(3))?;
        Ok(filter_record_batch(batch, &keeps)?)
    });
    only_one(&seen.collect::<Result<Vec<_>>>()?)
}

/// The id in the second column, where there is only one.
fn only_one(rows: &[RecordBatch]) -> Result<Option<i64>> {
    let ids: BTreeSet<i64> = numbers(rows, 1)?.into_iter().flatten().collect();
    Ok(ids.first().copied().filter(|_| ids.len() == 1))
}

/// A column of whole numbers.
fn numbers(rows: &[RecordBatch], column: usize) -> Result<Vec<Option<i64>>> {
    let mut numbers = Vec::new();
    for batch in rows {
        let of_batch = cast(batch.column(column), &DataType::Int64)?;
        numbers.extend(of_batch.as_primitive::<Int64Type>());
    }
    Ok(numbers)
}
