//! Columns of the tables that a warehouse keeps about itself.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::Name;

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(
        columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>(),
    ))
}

/// `system.loads`: one row a file that was loaded, or a COPY.
pub fn loads() -> (Name, SchemaRef) {
    let columns = [
        ("load_id", DataType::Utf8),
        ("table_name", DataType::Utf8),
        ("source", DataType::Utf8),
        ("bytes", DataType::Int64),
        ("rows_loaded", DataType::Int64),
        ("rows_quarantined", DataType::Int64),
        ("started_at", instant()),
        ("finished_at", instant()),
        ("loaded_by", DataType::Utf8),
    ];
    (Name::new("system", "loads"), schema(&columns))
}

/// `system.quarantine`: one row a row that did not fit its table.
pub fn quarantine() -> (Name, SchemaRef) {
    let columns = [
        ("load_id", DataType::Utf8),
        ("table_name", DataType::Utf8),
        ("source", DataType::Utf8),
        ("line", DataType::Int64),
        ("column_name", DataType::Utf8),
        ("value", DataType::Utf8),
        ("reason", DataType::Utf8),
        ("quarantined_at", instant()),
    ];
    (Name::new("system", "quarantine"), schema(&columns))
}

/// Columns of a system table that exists before anything is in it.
pub fn schema_of(name: &Name) -> Option<SchemaRef> {
    [loads(), quarantine()].into_iter().find(|(known, _)| known == name).map(|(_, schema)| schema)
}
