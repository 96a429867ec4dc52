//! Whose an identifier is: the table behind `oneid()`.

use std::sync::Arc;

use arrow::array::Int64Array;
use clientele_udfs::identity::collect::value_of;
use clientele_udfs::identity::graph::{Graph, Resolution};
use clientele_udfs::identity::ids::Ids;

use super::graph::definition_of;
use super::tables::{BATCH_ROWS, LOOKUP, Table};
use crate::error::Result;
use crate::store::{Generation, Name};

/// What stands for an identifier in `lookup`: half of its keyed hash, in the order of numbers with a sign. `None` for a value
/// that is no identifier. An empty scope is none.
pub fn lookup_hash(key: &[u8; 32], id_type: &str, value: &str, scope: Option<&str>) -> Option<i64> {
    value_of(key, id_type, value, scope.filter(|scope| !scope.is_empty()))
        .map(|value| signed(value[0]))
}

fn signed(half: u64) -> i64 {
    (half ^ (1 << 63)).cast_signed()
}

/// Whether graph `name` has a lookup.
///
/// # Errors
/// 42704 for a graph that is not there.
pub fn can_look_up(state: &Generation, name: &str) -> Result<bool> {
    definition_of(state, name)?;
    Ok(state.table(&Name::new(name, LOOKUP)).is_some())
}

/// Writes every identifier that is one customer's, in the order of its hash, so that one is found in one page.
pub(super) async fn write(
    table: &mut Table<'_>,
    graph: &Graph,
    resolution: &Resolution,
    ids: &Ids,
) -> Result<()> {
    let mut found = graph.of_one_customer(resolution);
    loop {
        let part = found.by_ref().take(BATCH_ROWS);
        let (hashes, one_ids): (Vec<i64>, Vec<i64>) =
            part.map(|(half, root)| (signed(half), ids.ids[root as usize])).unzip();
        if hashes.is_empty() {
            return Ok(());
        }
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as _;
        table.write(vec![("hash", column(hashes)), ("one_id", column(one_ids))]).await?;
    }
}
