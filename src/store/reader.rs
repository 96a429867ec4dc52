//! Rows of one version of a table, for work inside the warehouse that is not a query.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tokio::sync::mpsc;

use super::generation::TableDef;
use super::table::{FileEntry, TableSnapshot};
use super::warehouse::Warehouse;
use crate::error::{Error, Kind, Result};

/// Rows that are read at a time.
const BATCH_ROWS: usize = 8192;

/// So many batches are read ahead of who works on them.
const BATCHES_AHEAD: usize = 2;

impl Warehouse {
    /// Reads `columns` of `snapshot` file by file, in the order they are named, and gives each batch to `take`.
    ///
    /// One row group of those columns is in memory at a time.
    pub async fn read_columns(
        &self,
        snapshot: &TableSnapshot,
        columns: &[String],
        mut take: impl FnMut(RecordBatch),
    ) -> Result<()> {
        for file in &snapshot.files {
            let mut batches = self.open_file(snapshot, file, columns).await?;
            while let Some(batch) = batches.next().await {
                take(batch?);
            }
        }
        Ok(())
    }

    /// Two text columns of a published table, row by row; rows with a NULL in one of them are left out.
    pub(super) async fn read_pairs(
        &self,
        def: &TableDef,
        columns: [&str; 2],
        mut take: impl FnMut(&str, &str),
    ) -> Result<()> {
        let snapshot = self.snapshot(def).await?;
        self.read_columns(&snapshot, &columns.map(str::to_owned), |batch| {
            let (first, second) =
                (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
            for pair in first.iter().zip(second) {
                if let (Some(one), Some(other)) = pair {
                    take(one, other);
                }
            }
        })
        .await
    }

    /// The rows of one file of `snapshot`, in order; `columns` in the order they are named, in stored types.
    pub async fn open_file(
        &self,
        snapshot: &TableSnapshot,
        file: &FileEntry,
        columns: &[String],
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.opening(snapshot, file, columns, BATCH_ROWS)?.await
    }

    /// As [`Self::open_file`], with texts as views: none of them is copied.
    pub async fn open_views(
        &self,
        snapshot: &TableSnapshot,
        file: &FileEntry,
        columns: &[String],
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.opening_as(snapshot, file, columns, BATCH_ROWS, as_view)?.await
    }

    /// As [`Self::open_file`], with so many rows at a time; the file is not touched before the answer is waited for.
    pub fn opening(
        &self,
        snapshot: &TableSnapshot,
        file: &FileEntry,
        columns: &[String],
        rows: usize,
    ) -> Result<BoxFuture<'static, Result<BoxStream<'static, Result<RecordBatch>>>>> {
        self.opening_as(snapshot, file, columns, rows, Arc::clone)
    }

    /// As [`Self::opening`]; fields are read as `as_read` makes them.
    fn opening_as(
        &self,
        snapshot: &TableSnapshot,
        file: &FileEntry,
        columns: &[String],
        rows: usize,
        as_read: fn(&FieldRef) -> FieldRef,
    ) -> Result<BoxFuture<'static, Result<BoxStream<'static, Result<RecordBatch>>>>> {
        let mut places = Vec::with_capacity(columns.len());
        for column in columns {
            let place = snapshot.schema.index_of(column).map_err(|_| {
                Error::new(Kind::UndefinedColumn, format!("column \"{column}\" does not exist"))
            })?;
            places.push(place);
        }
        let wanted = changed(&snapshot.schema.project(&places)?, as_read);
        let path = Path::from(file.path.as_str());
        let mut reader = FileReader { store: self.file_store(file), path, size: file.size };
        let opened = async move {
            let found = ArrowReaderMetadata::load_async(&mut reader, Default::default()).await?;
            // A file's columns are read as they are wanted, whatever else the file has.
            let options = ArrowReaderOptions::new().with_schema(changed(found.schema(), as_read));
            let found = ArrowReaderMetadata::try_new(Arc::clone(found.metadata()), options)?;
            let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, found);
            // By their places: a name may have a dot in it.
            let columns = builder.parquet_schema().root_schema().get_fields().iter().enumerate();
            let is_wanted = |name: &str| wanted.fields().find(name).is_some();
            let roots = columns.filter(|(_, column)| is_wanted(column.name())).map(|(at, _)| at);
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots.collect::<Vec<_>>());
            let batches = builder.with_projection(mask).with_batch_size(rows).build()?;
            Ok(ahead(batches.map(move |batch| arranged(&batch?, &wanted)).boxed()))
        };
        Ok(opened.boxed())
    }
}

/// The same batches, made by a task of its own: one processor reads while another works on what was read.
fn ahead(
    mut batches: BoxStream<'static, Result<RecordBatch>>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let (send, receive) = mpsc::channel(BATCHES_AHEAD);
    let reading = SpawnedTask::spawn(async move {
        while let Some(batch) = batches.next().await {
            if send.send(batch).await.is_err() {
                return;
            }
        }
    });
    let next = |state: Option<(mpsc::Receiver<_>, SpawnedTask<()>)>| async move {
        let (mut receive, reading) = state?;
        match receive.recv().await {
            Some(batch) => Some((batch, Some((receive, reading)))),
            // A task that ended in another way has not given all rows.
            None => match reading.join().await {
                Ok(()) => None,
                Err(_) => Some((Err(Error::internal("reading a file stopped unexpectedly")), None)),
            },
        }
    };
    stream::unfold(Some((receive, reading)), next).boxed()
}

/// Texts as views of what was read.
fn as_view(field: &FieldRef) -> FieldRef {
    match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    }
}

fn changed(schema: &Schema, change: fn(&FieldRef) -> FieldRef) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(change).collect::<Vec<_>>()))
}

/// The columns of `wanted`; a file from before a column was added has it not.
fn arranged(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &FieldRef| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), batch.num_rows()),
    };
    let given = wanted.fields().iter().map(column).collect();
    Ok(RecordBatch::try_new(Arc::clone(wanted), given)?)
}

/// One data file, read range by range.
pub(super) struct FileReader {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    pub(super) size: u64,
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new().load_and_finish(self, size).await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}
