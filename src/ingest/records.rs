//! Rows of `system.loads` and `system.quarantine`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use chrono::Utc;

use super::Loaded;
use super::convert::BadRow;
use crate::error::Result;
use crate::store::{Name, system};

fn texts(values: impl IntoIterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn numbers(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.into_iter().map(|n| n as i64)))
}

fn instants(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// One row a load.
pub(super) fn loads_batch(table: &Name, loads: &[&Loaded], user: &str) -> Result<RecordBatch> {
    let now = Utc::now().timestamp_micros();
    let columns = vec![
        texts(loads.iter().map(|l| l.load_id.clone())),
        texts(loads.iter().map(|_| table.to_string())),
        texts(loads.iter().map(|l| l.source.clone())),
        numbers(loads.iter().map(|l| l.bytes)),
        numbers(loads.iter().map(|l| l.rows)),
        numbers(loads.iter().map(|l| l.quarantined)),
        instants(loads.iter().map(|l| l.started_at.timestamp_micros())),
        instants(loads.iter().map(|_| now)),
        texts(loads.iter().map(|_| user.to_owned())),
    ];
    Ok(RecordBatch::try_new(system::loads().1, columns)?)
}

/// One row a row that did not fit; values of personal columns are masked already.
pub(super) fn quarantine_batch(
    load_id: &str,
    table: &Name,
    source: &str,
    bad: &[BadRow],
) -> Result<RecordBatch> {
    let now = Utc::now().timestamp_micros();
    let columns = vec![
        texts(bad.iter().map(|_| load_id.to_owned())),
        texts(bad.iter().map(|_| table.to_string())),
        texts(bad.iter().map(|_| source.to_owned())),
        numbers(bad.iter().map(|b| b.line)),
        texts(bad.iter().map(|b| b.column.clone())),
        texts(bad.iter().map(|b| b.value.clone())),
        texts(bad.iter().map(|b| b.reason.clone())),
        instants(bad.iter().map(|_| now)),
    ];
    Ok(RecordBatch::try_new(system::quarantine().1, columns)?)
}
