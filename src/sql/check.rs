//! `CHECK TABLE t`: every file of a table compared with what was written.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{Outcome, OutputColumn, answer, output_columns};
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::store::{FileCheck, Name};

fn schema() -> SchemaRef {
    let column = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        column("table_name", DataType::Utf8),
        column("file", DataType::Utf8),
        column("bytes", DataType::Int64),
        column("rows", DataType::Int64),
        column("state", DataType::Utf8),
        column("problem", DataType::Utf8),
    ]))
}

/// Columns of the answer.
pub(super) fn columns() -> Vec<OutputColumn> {
    output_columns(&schema())
}

/// Checks the tables one after the other; a row a file.
pub(super) async fn check(session: &Session, tables: &[Name]) -> Result<Outcome> {
    let warehouse = session.engine().warehouse();
    let newest = warehouse.newest().await?;
    let mut found = Vec::new();
    for name in tables {
        let Some(def) = newest.table(name) else {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("table \"{name}\" does not exist"),
            )
            .hint("views and graphs have no files of their own"));
        };
        found.extend(warehouse.check_table(name, def).await?);
    }
    let batch = rows(&found)?;
    Ok(answer(batch, "CHECK"))
}

fn rows(found: &[FileCheck]) -> Result<RecordBatch> {
    let number = |n: Option<u64>| n.and_then(|n| i64::try_from(n).ok());
    let state = |f: &FileCheck| Some(if f.problem.is_some() { "damaged" } else { "ok" });
    Ok(RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(found.iter().map(|f| Some(f.table.to_string())).collect::<StringArray>()),
            Arc::new(found.iter().map(|f| Some(f.file.as_str())).collect::<StringArray>()),
            Arc::new(found.iter().map(|f| number(f.bytes)).collect::<Int64Array>()),
            Arc::new(found.iter().map(|f| number(f.rows)).collect::<Int64Array>()),
            Arc::new(found.iter().map(state).collect::<StringArray>()),
            Arc::new(found.iter().map(|f| f.problem.as_deref()).collect::<StringArray>()),
        ],
    )?)
}
