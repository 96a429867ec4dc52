//! Some columns of one version of a table, for work inside the warehouse that is not a query.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::FieldRef;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::table::TableSnapshot;
use super::warehouse::Warehouse;
use crate::error::{Error, Kind, Result};

impl Warehouse {
    /// Reads `columns` of `snapshot` file by file, in the order they are named, and gives each batch to `take`.
    ///
    /// One file is in memory at a time.
    pub async fn read_columns(
        &self,
        snapshot: &TableSnapshot,
        columns: &[String],
        mut take: impl FnMut(RecordBatch),
    ) -> Result<()> {
        let mut places = Vec::with_capacity(columns.len());
        for column in columns {
            let place = snapshot.schema.index_of(column).map_err(|_| {
                Error::new(Kind::UndefinedColumn, format!("column \"{column}\" does not exist"))
            })?;
            places.push(place);
        }
        let wanted = Arc::new(snapshot.schema.project(&places)?);
        for file in &snapshot.files {
            let bytes =
                self.file_store(file).get(&Path::from(file.path.as_str())).await?.bytes().await?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
            let mask = ProjectionMask::columns(
                builder.parquet_schema(),
                columns.iter().map(String::as_str),
            );
            for batch in builder.with_projection(mask).build()? {
                let batch = batch?;
                // A file from before a column was added has it not.
                let column = |field: &FieldRef| match batch.column_by_name(field.name()) {
                    Some(column) => Arc::clone(column),
                    None => new_null_array(field.data_type(), batch.num_rows()),
                };
                let given = wanted.fields().iter().map(column).collect();
                take(RecordBatch::try_new(Arc::clone(&wanted), given)?);
            }
        }
        Ok(())
    }
}
