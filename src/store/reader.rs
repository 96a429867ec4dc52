//! Some columns of one version of a table, for work inside the warehouse that is not a query.

use arrow::array::RecordBatch;
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
        for column in columns {
            if snapshot.schema.index_of(column).is_err() {
                return Err(Error::new(
                    Kind::UndefinedColumn,
                    format!("column \"{column}\" does not exist"),
                ));
            }
        }
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
                let schema = batch.schema();
                let places =
                    columns.iter().map(|c| schema.index_of(c)).collect::<Result<Vec<_>, _>>()?;
                take(batch.project(&places)?);
            }
        }
        Ok(())
    }
}
