//! Parquet files, cast to the table's types.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::mpsc::Sender;

use super::convert::BadRow;
use super::csv::unknown_column;
use super::{BATCH_ROWS, Chunk};
use crate::error::{Error, Kind, Result};

/// The Arrow schema of a Parquet file.
pub(super) fn schema_of(file: File) -> Result<SchemaRef> {
    Ok(Arc::clone(ParquetRecordBatchReaderBuilder::try_new(file)?.schema()))
}

/// Reads a Parquet file and sends rows of `schema`. A column that is missing is NULL.
pub(super) fn read(file: File, schema: SchemaRef, sender: &Sender<Result<Chunk>>) {
    if let Err(error) = read_batches(file, &schema, sender) {
        let _ = sender.blocking_send(Err(error));
    }
}

fn read_batches(file: File, schema: &SchemaRef, sender: &Sender<Result<Chunk>>) -> Result<()> {
    let bytes = file.metadata()?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS);
    let rows_total = builder.metadata().file_metadata().num_rows().max(1) as u64;
    for field in builder.schema().fields() {
        if schema.index_of(field.name()).is_err() {
            return Err(unknown_column(field.name(), schema));
        }
    }
    let mut rows_read = 0u64;
    for batch in builder.build()? {
        let batch = batch?;
        let first_row = rows_read + 1;
        rows_read += batch.num_rows() as u64;
        let (rows, bad) = fitted(&batch, schema, first_row)?;
        let bytes_read = bytes * rows_read.min(rows_total) / rows_total;
        let chunk = Chunk { rows, bad, bytes_read };
        sender
            .blocking_send(Ok(chunk))
            .map_err(|_| Error::new(Kind::Cancelled, "the load was given up"))?;
    }
    Ok(())
}

/// The rows of `batch` in the table's types, and those that have a value which does not convert.
fn fitted(
    batch: &RecordBatch,
    schema: &SchemaRef,
    first_row: u64,
) -> Result<(RecordBatch, Vec<BadRow>)> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    let mut bad: Vec<Option<BadRow>> = Vec::new();
    for field in schema.fields() {
        let Some(array) = batch.column_by_name(field.name()) else {
            columns.push(new_null_array(field.data_type(), batch.num_rows()));
            continue;
        };
        let cast = cast_with_options(
            array,
            field.data_type(),
            &CastOptions { safe: true, ..CastOptions::default() },
        )
        .map_err(|_| {
            Error::new(
                Kind::DatatypeMismatch,
                format!(
                    "column \"{}\" is {} in the file and {} in the table",
                    field.name(),
                    array.data_type(),
                    field.data_type()
                ),
            )
        })?;
        if cast.null_count() > array.logical_null_count() {
            bad.resize(batch.num_rows(), None);
            note_lost(array, &cast, field.name(), first_row, &mut bad)?;
        }
        columns.push(cast);
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::clone(schema)), columns)?;
    if bad.is_empty() {
        return Ok((batch, Vec::new()));
    }
    let keep: BooleanArray = bad.iter().map(|b| Some(b.is_none())).collect();
    Ok((filter_record_batch(&batch, &keep)?, bad.into_iter().flatten().collect()))
}

fn note_lost(
    before: &ArrayRef,
    after: &ArrayRef,
    column: &str,
    first_row: u64,
    bad: &mut [Option<BadRow>],
) -> Result<()> {
    let formatter = ArrayFormatter::try_new(before, &FormatOptions::default())?;
    let nulls = before.logical_nulls();
    for (row, slot) in bad.iter_mut().enumerate() {
        let had_value = nulls.as_ref().is_none_or(|n| n.is_valid(row));
        if had_value && after.is_null(row) && slot.is_none() {
            *slot = Some(BadRow {
                line: first_row + row as u64,
                column: column.to_owned(),
                value: formatter.value(row).to_string(),
                reason: format!("does not fit the type {}", after.data_type()),
            });
        }
    }
    Ok(())
}
