//! Rows of a graph's tables, as columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, StringBuilder};
use clientele_udfs::identity::records::{Keys, Records};

/// Texts.
pub(super) fn text(values: impl Iterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Numbers.
pub(super) fn numbers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Numbers of runs and their like.
pub(super) fn small(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values.map(|n| n.min(i32::MAX as u32) as i32)))
}

/// Source and id of some records, as two columns.
pub(super) fn key_columns(
    records: &Records,
    of: impl Iterator<Item = u32> + Clone,
) -> [ArrayRef; 2] {
    let (mut sources, mut ids) = (StringBuilder::new(), StringBuilder::new());
    for number in of {
        let (source, record_id) = records.key(number);
        sources.append_value(source);
        ids.append_value(record_id);
    }
    [Arc::new(sources.finish()), Arc::new(ids.finish())]
}
