//! Whose an identifier is: what `oneid()` reads.
//!
//! It is the customer's whose records have it, where they are of one. What that would get wrong is in the table of owners: hubs, which
//! are nobody's, and values that had several owners, which are the last one's. Identifiers of types without a rule are nobody's, too.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use clientele_udfs::identity::collect::value_of;
use clientele_udfs::identity::graph::{Exception, signed};
use clientele_udfs::identity::ids::Ids;

use super::columns::{numbers, small, text};
use super::graph::definition_of;
use super::tables::{LOOKUP, OWNERS};
use crate::error::Result;
use crate::store::{Generation, Name};

/// What stands for an identifier in tables: half of its keyed hash, in the order of numbers with a sign. `None` for a value
/// that is no identifier. An empty scope is none.
pub fn lookup_hash(key: &[u8; 32], id_type: &str, value: &str, scope: Option<&str>) -> Option<i64> {
    value_of(key, id_type, value, scope.filter(|scope| !scope.is_empty()))
        .map(|value| signed(value[0]))
}

/// Whether graph `name` can be asked whose an identifier is: not where its last refresh was by a version that kept that elsewhere.
pub(super) fn can_look_up(state: &Generation, name: &str) -> Result<bool> {
    definition_of(state, name)?;
    let has = |table: &str| state.table(&Name::new(name, table)).is_some();
    Ok(has(OWNERS) && !has(LOOKUP))
}

/// The rows of the table of owners.
pub(super) fn owners_rows(exceptions: &[Exception], ids: &Ids) -> Vec<(&'static str, ArrayRef)> {
    let one_id = |record: Option<u32>| record.map(|record| ids.ids[record as usize]);
    let one_ids = exceptions.iter().map(|(_, record)| one_id(*record));
    vec![
        ("hash", numbers(exceptions.iter().map(|(half, _)| signed(*half)))),
        ("one_id", Arc::new(one_ids.collect::<Int64Array>())),
    ]
}

/// The rows of the table of types, given their names by number.
pub(super) fn types_rows(
    types: &[String],
    joins: impl Fn(&str) -> bool,
) -> Vec<(&'static str, ArrayRef)> {
    let joining: BooleanArray = types.iter().map(|name| Some(joins(name))).collect();
    vec![
        ("id_type", small(0..types.len() as u32)),
        ("name", text(types.iter().cloned())),
        ("joins", Arc::new(joining)),
    ]
}
