//! Whose an identifier is: the table behind `oneid()`.

use std::sync::Arc;

use arrow::array::Int32Array;
use clientele_udfs::identity::collect::value_of;
use clientele_udfs::identity::graph::{Resolution, Whose, signed};
use clientele_udfs::identity::ids::Assigned;
use futures::StreamExt;

use super::graph::definition_of;
use super::tables::{BATCH_ROWS, LOOKUP, Table};
use crate::error::Result;
use crate::store::{Generation, Name};
use crate::workspace::in_background;

/// What stands for an identifier in `lookup`: half of its keyed hash, in the order of numbers with a sign. `None` for a value
/// that is no identifier. An empty scope is none.
pub fn lookup_hash(key: &[u8; 32], id_type: &str, value: &str, scope: Option<&str>) -> Option<i64> {
    value_of(key, id_type, value, scope.filter(|scope| !scope.is_empty()))
        .map(|value| signed(value[0]))
}

/// Whether graph `name` has a lookup.
///
/// # Errors
/// 42704 for a graph that is not there.
pub fn can_look_up(state: &Generation, name: &str) -> Result<bool> {
    definition_of(state, name)?;
    Ok(state.table(&Name::new(name, LOOKUP)).is_some())
}

/// Writes whose identifiers are, in the order of hashes, so that one is found in one page. What an earlier run says of them counts
/// no more.
pub(super) async fn write(
    table: &mut Table<'_>,
    whose: &Arc<Whose>,
    resolution: &Arc<Resolution>,
    assigned: &Arc<Assigned>,
    run: u32,
) -> Result<()> {
    /// Parts that are looked up at once.
    const PARTS: usize = 2;
    let run = i32::try_from(run).unwrap_or(i32::MAX);
    let look_up = |part: usize| {
        let (whose, resolution) = (Arc::clone(whose), Arc::clone(resolution));
        let assigned = Arc::clone(assigned);
        let found =
            move || -> Result<_> { Ok(whose.part(part, &resolution)?.columns(&assigned.ids.ids)) };
        async move { in_background(found).await? }
    };
    let mut parts = futures::stream::iter(0..whose.parts()).map(look_up).buffered(PARTS);
    while let Some(found) = parts.next().await {
        let [hashes, one_ids] = found?;
        for from in (0..hashes.len()).step_by(BATCH_ROWS) {
            let rows = BATCH_ROWS.min(hashes.len() - from);
            table
                .write(vec![
                    ("hash", Arc::new(hashes.slice(from, rows))),
                    ("one_id", Arc::new(one_ids.slice(from, rows))),
                    ("run", Arc::new(Int32Array::from_value(run, rows))),
                ])
                .await?;
        }
    }
    Ok(())
}
