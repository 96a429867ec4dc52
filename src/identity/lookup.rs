//! Whose an identifier is: the table behind `oneid()`.

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array};
use clientele_udfs::identity::collect::value_of;
use clientele_udfs::identity::graph::{Lookup, NOBODY};
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

/// Half of a hash in the order of numbers with a sign.
pub(super) fn signed(half: u64) -> i64 {
    (half ^ (1 << 63)).cast_signed()
}

/// What [`signed`] was made of.
pub(super) fn unsigned(half: i64) -> u64 {
    half.cast_unsigned() ^ (1 << 63)
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
    lookup: &Lookup,
    ids: &Ids,
    run: u32,
) -> Result<()> {
    let parts = lookup.halves.chunks(BATCH_ROWS).zip(lookup.records.chunks(BATCH_ROWS));
    for (halves, records) in parts {
        let hashes = halves.iter().map(|half| signed(*half));
        let one_ids = records
            .iter()
            .map(|record| Some(*record).filter(|r| *r != NOBODY).map(|r| ids.ids[r as usize]));
        let run = i32::try_from(run).unwrap_or(i32::MAX);
        table
            .write(vec![
                ("hash", Arc::new(Int64Array::from_iter_values(hashes))),
                ("one_id", Arc::new(one_ids.collect::<Int64Array>())),
                ("run", Arc::new(Int32Array::from_value(run, halves.len()))),
            ])
            .await?;
    }
    Ok(())
}
