//! Rows to Parquet files, with what the log wants to know about each.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    DataType, Date32Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDate, TimeDelta};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Result;

/// A file is closed when it has this size; the next rows go into another.
const FILE_BYTES_TARGET: usize = 128 << 20;

/// Rows of a row group: large enough to compress, small enough to prune.
const ROW_GROUP_ROWS: usize = 256 * 1024;

/// A data file that is on disk and not yet part of any version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Name in the table's folder.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Number of rows.
    pub rows: u64,
    /// When it was written, in milliseconds since 1970.
    pub written_at_ms: i64,
    /// Delta's statistics document.
    pub stats: Value,
}

/// Writes batches of one schema into one or more Parquet files.
pub struct TableWriter {
    store: Arc<dyn ObjectStore>,
    folder: String,
    schema: SchemaRef,
    properties: WriterProperties,
    has_bounds: Vec<bool>,
    open: Option<OpenFile>,
    done: Vec<WrittenFile>,
}

struct OpenFile {
    name: String,
    writer: AsyncArrowWriter<BufWriter>,
    rows: u64,
    bounds: BTreeMap<usize, (i64, i64)>,
}

impl TableWriter {
    /// A writer into `folder` of `store`; columns named in `personal` get no statistics.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        folder: &str,
        schema: SchemaRef,
        personal: &[String],
    ) -> Result<Self> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_created_by(concat!("clientele ", env!("CARGO_PKG_VERSION")).to_owned());
        for column in personal {
            let column = ColumnPath::from(column.as_str());
            properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        let has_bounds = schema.fields().iter().map(|f| {
            let is_ordered = matches!(
                f.data_type(),
                DataType::Int16
                    | DataType::Int32
                    | DataType::Int64
                    | DataType::Date32
                    | DataType::Timestamp(..)
            );
            is_ordered && !personal.contains(f.name())
        });
        let has_bounds = has_bounds.collect();
        let folder = folder.to_owned();
        Ok(Self {
            store,
            folder,
            schema,
            properties: properties.build(),
            has_bounds,
            open: None,
            done: Vec::new(),
        })
    }

    /// Adds the rows of `batch`, whose columns are those of the table.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut file = match self.open.take() {
            Some(file) => file,
            None => self.open_file()?,
        };
        file.writer.write(batch).await?;
        file.rows += batch.num_rows() as u64;
        for (i, column) in batch.columns().iter().enumerate().filter(|(i, _)| self.has_bounds[*i]) {
            if let Some((low, high)) = bounds(column) {
                let known = file.bounds.entry(i).or_insert((low, high));
                *known = (known.0.min(low), known.1.max(high));
            }
        }
        if file.writer.bytes_written() + file.writer.in_progress_size() >= FILE_BYTES_TARGET {
            self.close_file(file).await?;
        } else {
            self.open = Some(file);
        }
        Ok(())
    }

    /// Closes the last file and gives all of them. They are on disk.
    pub async fn finish(mut self) -> Result<Vec<WrittenFile>> {
        if let Some(file) = self.open.take() {
            self.close_file(file).await?;
        }
        Ok(self.done)
    }

    fn open_file(&self) -> Result<OpenFile> {
        let name = format!("part-{}.parquet", uuid::Uuid::new_v4());
        let path = Path::from(format!("{}/{name}", self.folder));
        let sink = BufWriter::new(Arc::clone(&self.store), path);
        let writer = AsyncArrowWriter::try_new(
            sink,
            Arc::clone(&self.schema),
            Some(self.properties.clone()),
        )?;
        Ok(OpenFile { name, writer, rows: 0, bounds: BTreeMap::new() })
    }

    async fn close_file(&mut self, file: OpenFile) -> Result<()> {
        let OpenFile { name, mut writer, rows, bounds } = file;
        writer.finish().await?;
        let size = writer.bytes_written() as u64;
        let stats = stats_document(&self.schema, rows, &bounds);
        let written_at_ms = chrono::Utc::now().timestamp_millis();
        self.done.push(WrittenFile { name, size, rows, written_at_ms, stats });
        Ok(())
    }
}

/// Smallest and largest value of a column, in its own unit.
fn bounds(column: &ArrayRef) -> Option<(i64, i64)> {
    macro_rules! of {
        ($type:ty) => {{
            let values = column.as_primitive::<$type>();
            Some((i64::from(min(values)?), i64::from(max(values)?)))
        }};
    }
    match column.data_type() {
        DataType::Int16 => of!(Int16Type),
        DataType::Int32 => of!(Int32Type),
        DataType::Int64 => of!(Int64Type),
        DataType::Date32 => of!(Date32Type),
        DataType::Timestamp(..) => of!(TimestampMicrosecondType),
        _ => None,
    }
}

fn stats_document(schema: &SchemaRef, rows: u64, bounds: &BTreeMap<usize, (i64, i64)>) -> Value {
    let mut smallest = serde_json::Map::new();
    let mut largest = serde_json::Map::new();
    for (i, (low, high)) in bounds {
        let field = schema.field(*i);
        if let (Some(low), Some(high)) =
            (bound_json(field.data_type(), *low), bound_json(field.data_type(), *high))
        {
            smallest.insert(field.name().clone(), low);
            largest.insert(field.name().clone(), high);
        }
    }
    json!({ "numRecords": rows, "minValues": smallest, "maxValues": largest, "nullCount": {} })
}

/// A bound as Delta writes it; `None` when the calendar has no such day.
fn bound_json(data_type: &DataType, value: i64) -> Option<Value> {
    match data_type {
        DataType::Date32 => {
            let date = NaiveDate::default().checked_add_signed(TimeDelta::try_days(value)?)?;
            Some(json!(date.format("%Y-%m-%d").to_string()))
        }
        DataType::Timestamp(_, zone) => {
            let suffix = if zone.is_some() { "Z" } else { "" };
            let instant = DateTime::from_timestamp_micros(value)?;
            Some(json!(format!("{}{suffix}", instant.format("%Y-%m-%dT%H:%M:%S%.6f"))))
        }
        _ => Some(json!(value)),
    }
}
