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

/// `system.erased`: one row a record that nobody may see any more.
pub fn erased() -> (Name, SchemaRef) {
    let columns = [
        ("erasure_id", DataType::Utf8),
        ("record", DataType::Utf8),
        ("erased_at", instant()),
        ("erased_by", DataType::Utf8),
        ("reason", DataType::Utf8),
    ];
    (Name::new("system", "erased"), schema(&columns))
}

/// `system.erased_values`: keyed hashes of what erased people were known by.
pub fn erased_values() -> (Name, SchemaRef) {
    let columns = [
        ("erasure_id", DataType::Utf8),
        ("column_name", DataType::Utf8),
        ("value", DataType::Utf8),
    ];
    (Name::new("system", "erased_values"), schema(&columns))
}

/// `system.erasure_checks`: one row a look for what is left of erased people.
pub fn erasure_checks() -> (Name, SchemaRef) {
    let columns = [
        ("check_id", DataType::Utf8),
        ("checked_at", instant()),
        ("checked_by", DataType::Utf8),
        ("records", DataType::Int64),
        ("values_looked_for", DataType::Int64),
        ("files", DataType::Int64),
        ("bytes", DataType::Int64),
        ("found", DataType::Int64),
        ("waiting", DataType::Int64),
        ("verdict", DataType::Utf8),
    ];
    (Name::new("system", "erasure_checks"), schema(&columns))
}

/// `system.quality`: one row a source and column that a check looked at.
pub fn quality() -> (Name, SchemaRef) {
    let columns = [
        ("check_id", DataType::Utf8),
        ("checked_at", instant()),
        ("check_name", DataType::Utf8),
        ("table_name", DataType::Utf8),
        ("column_name", DataType::Utf8),
        ("source", DataType::Utf8),
        ("rows", DataType::Int64),
        ("failed", DataType::Int64),
        ("share", DataType::Float64),
        ("samples", DataType::Utf8),
    ];
    (Name::new("system", "quality"), schema(&columns))
}

/// `reports.runs`: one row a run of a report, once it has ended.
pub fn report_runs() -> (Name, SchemaRef) {
    let columns = [
        ("run_id", DataType::Utf8),
        ("report", DataType::Utf8),
        ("started_by", DataType::Utf8),
        ("scheduled_for", instant()),
        ("as_of", DataType::Date32),
        ("period_from", DataType::Date32),
        ("attempt", DataType::Int32),
        ("state", DataType::Utf8),
        ("started_at", instant()),
        ("ended_at", instant()),
        ("rows", DataType::Int64),
        ("bytes", DataType::Int64),
        ("bytes_read", DataType::Int64),
        ("peak_memory", DataType::Int64),
        ("generation_in", DataType::Int64),
        ("error_code", DataType::Utf8),
        ("error", DataType::Utf8),
        ("exported_to", DataType::Utf8),
    ];
    (Name::new("reports", "runs"), schema(&columns))
}

/// `cron.job_run_details`: one row a run of a scheduled statement, in pg_cron's columns and the slot.
pub fn job_runs() -> (Name, SchemaRef) {
    let columns = [
        ("jobid", DataType::Int64),
        ("runid", DataType::Int64),
        ("job_pid", DataType::Int32),
        ("database", DataType::Utf8),
        ("username", DataType::Utf8),
        ("command", DataType::Utf8),
        ("status", DataType::Utf8),
        ("return_message", DataType::Utf8),
        ("start_time", instant()),
        ("end_time", instant()),
        ("scheduled_for", instant()),
    ];
    (Name::new("cron", "job_run_details"), schema(&columns))
}

/// Whether rows of a system table may be deleted: those of runs, which nothing else rests on.
pub fn is_log_of_runs(name: &Name) -> bool {
    *name == report_runs().0 || *name == job_runs().0
}

/// Columns of a system table that exists before anything is in it.
pub fn schema_of(name: &Name) -> Option<SchemaRef> {
    let all = [
        loads(),
        quarantine(),
        erased(),
        erased_values(),
        erasure_checks(),
        quality(),
        report_runs(),
        job_runs(),
    ];
    all.into_iter().find(|(known, _)| known == name).map(|(_, schema)| schema)
}
