//! Rows to Parquet files, with what the log wants to know about each.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{concat_batches, max, min};
use arrow::datatypes::{
    DataType, Date32Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDate, TimeDelta};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::cluster::{Clustering, Known, Mark, ONE_ID, Place};
use super::erased::Erased;
use super::outgoing::Outgoing;
use super::sums::BlockSums;
pub use crate::config::Compression as Codec;
use crate::config::Storage;
use crate::error::Result;

/// Fresh rows of a clustered table are sorted in pieces of this size in memory.
const TAIL_BYTES_TARGET: usize = 64 << 20;

/// Rows of a row group: large enough to compress, small enough to prune.
const ROW_GROUP_ROWS: usize = 256 * 1024;

/// Share of row groups that an identifier's Bloom filter lets through for nothing.
const BLOOM_FPP: f64 = 0.04;

/// What new data files are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStyle {
    /// Their compression.
    pub codec: Codec,
    /// Bytes at which one is closed; the next rows go into another.
    pub bytes: usize,
}

impl FileStyle {
    /// As the configuration has it.
    pub fn of(storage: &Storage) -> Self {
        Self { codec: storage.compression, bytes: storage.file_bytes() }
    }
}

impl Default for FileStyle {
    fn default() -> Self {
        Self::of(&Storage::default())
    }
}

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
    /// Checksums of its blocks, as the log keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<String>,
    /// Its place in a clustered table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Version of `system.erased` up to which it has no rows of erased records.
    #[serde(default)]
    pub erased: u64,
}

/// Writes batches of one schema into one or more Parquet files.
pub struct TableWriter {
    store: Arc<dyn ObjectStore>,
    folder: String,
    schema: SchemaRef,
    properties: WriterProperties,
    file_bytes: usize,
    sought: Sought,
    personal: Box<[String]>,
    has_bounds: Box<[bool]>,
    shape: Shape,
    /// The map that the rows' customers are of.
    known: Option<Known>,
    /// Rows of these records are not written.
    erased: Arc<Erased>,
    left_out: u64,
    clean_to: u64,
    open: Option<OpenFile>,
    done: Vec<WrittenFile>,
}

/// Of which columns single values will be looked for: identifiers among those get Bloom filters.
#[derive(PartialEq, Eq)]
enum Sought {
    All,
    AllBut(&'static str),
    /// What is written is read whole, again and again.
    None,
}

/// What the files of a writer look like.
enum Shape {
    /// Rows as they come; a new file when one is full.
    Plain,
    /// A clustered table's fresh rows: gathered, and written bucket after bucket.
    Tail { clustering: Clustering, gathered: Vec<RecordBatch>, bytes: usize },
    /// A clustered table's fresh rows from several files, bucket after bucket in order: one file.
    Merged { clustering: Clustering, row_groups: Vec<u32> },
    /// One bucket of a clustered table, whose rows come in order: a new file when one is full and another customer begins.
    Run { clustering: Clustering, bucket: u32, part: u32, of: String, last: Option<RecordBatch> },
    /// The rows of a file of a bucket, in order: one file.
    Part { clustering: Clustering, place: Place },
}

struct OpenFile {
    name: String,
    writer: Box<ArrowWriter<Outgoing>>,
    store: BufWriter,
    rows: u64,
    /// Rows without a customer, where the rows have one.
    unknown: u64,
}

impl OpenFile {
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let before = self.row_groups();
        self.writer.write(batch)?;
        match self.row_groups() > before {
            true => self.send().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<()> {
        self.writer.flush()?;
        self.send().await
    }

    fn row_groups(&self) -> usize {
        self.writer.flushed_row_groups().len()
    }

    /// Hands on what was encoded.
    async fn send(&mut self) -> Result<()> {
        for piece in self.writer.inner_mut().take() {
            self.store.put(piece).await?;
        }
        Ok(())
    }

    /// Ends the file: what its footer says, its size, and its sums.
    async fn finish(&mut self) -> Result<(ParquetMetaData, u64, BlockSums)> {
        let footer = self.writer.finish()?;
        let (pieces, sums) = self.writer.inner_mut().finish();
        for piece in pieces {
            self.store.put(piece).await?;
        }
        self.store.shutdown().await?;
        Ok((footer, self.writer.bytes_written() as u64, sums))
    }
}

impl TableWriter {
    /// A writer into `folder` of `store`; columns named in `personal` get no statistics.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        folder: &str,
        schema: SchemaRef,
        personal: &[String],
        style: FileStyle,
        clustering: Option<&Clustering>,
    ) -> Result<Self> {
        let compression = match style.codec {
            Codec::Zstd => Compression::ZSTD(ZstdLevel::try_new(1)?),
            Codec::Snappy => Compression::SNAPPY,
            Codec::Lz4 => Compression::LZ4_RAW,
        };
        let mut properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_created_by(concat!("clientele ", env!("CARGO_PKG_VERSION")).to_owned());
        for column in personal {
            let column = ColumnPath::from(column.as_str());
            properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        // NaN is larger than every number and in no statistics: a file would be left out that has it.
        for field in schema.fields().iter().filter(|f| f.data_type().is_floating()) {
            let column = ColumnPath::from(field.name().as_str());
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
            // Other readers do not know of the column of customers.
            is_ordered && f.name() != ONE_ID && !personal.contains(f.name())
        });
        let has_bounds = has_bounds.collect();
        let folder = folder.to_owned();
        Ok(Self {
            store,
            folder,
            schema,
            properties: properties.build(),
            file_bytes: style.bytes,
            sought: Sought::All,
            personal: personal.into(),
            has_bounds,
            shape: match clustering {
                None => Shape::Plain,
                Some(clustering) => {
                    Shape::Tail { clustering: clustering.clone(), gathered: Vec::new(), bytes: 0 }
                }
            },
            known: None,
            erased: Arc::default(),
            left_out: 0,
            clean_to: 0,
            open: None,
            done: Vec::new(),
        })
    }

    /// From now on rows of these records are left out.
    pub(crate) fn without(mut self, erased: Arc<Erased>) -> Self {
        self.clean_to = erased.version();
        self.erased = erased;
        self
    }

    /// Its rows are known to have none of the records that were erased up to this version.
    pub(crate) fn clean_to(mut self, version: u64) -> Self {
        self.clean_to = version;
        self
    }

    /// Nobody will look for one row among those that are written.
    pub fn without_filters(mut self) -> Self {
        self.sought = Sought::None;
        self
    }

    /// Nobody will look for one value of a column.
    pub fn without_filter_of(mut self, column: &'static str) -> Self {
        self.sought = Sought::AllBut(column);
        self
    }

    /// The rows' customers are those of this map.
    pub(crate) fn of_customers(mut self, known: Option<Known>) -> Self {
        self.known = known;
        self
    }

    /// Rows that were left out because their records are erased.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// From now on the rows are those of one bucket after the other, in order; [`TableWriter::end_bucket`] after each.
    pub(crate) fn of_fresh(mut self, clustering: &Clustering) -> Self {
        let (clustering, row_groups) = (clustering.clone(), Vec::new());
        self.shape = Shape::Merged { clustering, row_groups };
        self
    }

    /// The rows of a bucket were written; what comes is of the next one.
    pub async fn end_bucket(&mut self) -> Result<()> {
        let Shape::Merged { row_groups, .. } = &self.shape else { return Ok(()) };
        let before: u32 = row_groups.iter().sum();
        let now = self.flush_row_group().await?;
        if let Shape::Merged { row_groups, .. } = &mut self.shape {
            row_groups.push(now - before);
        }
        Ok(())
    }

    /// Ends the row group of the open file, and gives how many it has.
    async fn flush_row_group(&mut self) -> Result<u32> {
        let Some(file) = &mut self.open else { return Ok(0) };
        file.flush().await?;
        Ok(file.row_groups() as u32)
    }

    /// From now on the rows are those of one bucket, in order; `of` names the rewrite.
    pub(crate) fn of_bucket(mut self, bucket: u32, of: &str, clustering: &Clustering) -> Self {
        let (clustering, of) = (clustering.clone(), of.to_owned());
        self.shape = Shape::Run { clustering, bucket, part: 0, of, last: None };
        self
    }

    /// From now on the rows are those of one file of a bucket, in order, which stays where it is.
    pub(crate) fn of_part(mut self, place: &Place, clustering: &Clustering) -> Self {
        self.shape = Shape::Part { clustering: clustering.clone(), place: place.clone() };
        self
    }

    /// Adds the rows of `batch`, whose columns are those of the table.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let (batch, gone) = self.erased.sieve(batch)?;
        self.left_out += gone;
        let batch = &batch;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Shape::Tail { gathered, bytes, .. } = &mut self.shape {
            gathered.push(batch.clone());
            *bytes += batch.get_array_memory_size();
            if *bytes >= TAIL_BYTES_TARGET {
                self.write_tail().await?;
            }
            return Ok(());
        }
        if matches!(self.shape, Shape::Run { .. }) {
            return self.write_run(batch).await;
        }
        self.append(batch).await?;
        if self.is_full()
            && matches!(self.shape, Shape::Plain)
            && let Some(file) = self.open.take()
        {
            self.close_file(file, None).await?;
        }
        Ok(())
    }

    /// Ends a file of rows that lie as they came: what comes next is in another one.
    pub async fn end_file(&mut self) -> Result<()> {
        match (&self.shape, self.open.take()) {
            (Shape::Plain, Some(file)) => self.close_file(file, None).await,
            (_, open) => {
                self.open = open;
                Ok(())
            }
        }
    }

    /// Whether the open file has as many bytes as a file should have.
    fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|file| {
            file.writer.bytes_written() + file.writer.in_progress_size() >= self.file_bytes
        })
    }

    /// Adds rows of a bucket: to the open file, or from the first row of another customer on to a new one, when it is full.
    async fn write_run(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut batch = batch.clone();
        let border = match (&self.shape, self.is_full()) {
            (Shape::Run { clustering, last: Some(last), .. }, true) => {
                clustering.border(last, &batch)?
            }
            _ => None,
        };
        if let Some(border) = border {
            let rest = batch.num_rows() - border;
            if border > 0 {
                self.append(&batch.slice(0, border)).await?;
            }
            batch = batch.slice(border, rest);
            self.end_part().await?;
        }
        self.append(&batch).await?;
        if let Shape::Run { last, .. } = &mut self.shape {
            *last = Some(batch);
        }
        Ok(())
    }

    /// Closes a file of a bucket.
    async fn end_part(&mut self) -> Result<()> {
        let Shape::Run { clustering, bucket, part, of, .. } = &mut self.shape else {
            return Ok(());
        };
        let place = Place::Run { bucket: *bucket, part: *part, of: of.clone() };
        let clustering = clustering.clone();
        *part += 1;
        match self.open.take() {
            Some(file) => self.close_file(file, Some((place, clustering))).await,
            None => Ok(()),
        }
    }

    /// Writes what was gathered as one file: the rows of each bucket in order, in row groups of their own.
    async fn write_tail(&mut self) -> Result<()> {
        let Shape::Tail { clustering, gathered, bytes } = &mut self.shape else { return Ok(()) };
        let batches = std::mem::take(gathered);
        *bytes = 0;
        let clustering = clustering.clone();
        if batches.is_empty() {
            return Ok(());
        }
        let all = concat_batches(&self.schema, &batches)?;
        drop(batches);
        let arranged = clustering.arrange(&all)?;
        drop(all);
        let mut row_groups = Vec::with_capacity(arranged.len());
        let mut before = 0;
        for rows in arranged {
            if rows.num_rows() > 0 {
                self.append(&rows).await?;
            }
            let now = self.flush_row_group().await?;
            row_groups.push(now - before);
            before = now;
        }
        if let Some(file) = self.open.take() {
            self.close_file(file, Some((Place::Tail { row_groups }, clustering))).await?;
        }
        Ok(())
    }

    async fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut file = match self.open.take() {
            Some(file) => file,
            None => self.open_file(batch)?,
        };
        file.write(batch).await?;
        file.rows += batch.num_rows() as u64;
        if let Some(one_ids) = batch.column_by_name(ONE_ID) {
            file.unknown += one_ids.null_count() as u64;
        }
        self.open = Some(file);
        Ok(())
    }

    /// Closes the last file and gives all of them. They are on disk.
    pub async fn finish(mut self) -> Result<Vec<WrittenFile>> {
        self.write_tail().await?;
        self.end_part().await?;
        if let Some(file) = self.open.take() {
            let place = match &self.shape {
                Shape::Part { clustering, place } => Some((place.clone(), clustering.clone())),
                Shape::Merged { clustering, row_groups } => {
                    let row_groups = row_groups.clone();
                    Some((Place::Tail { row_groups }, clustering.clone()))
                }
                Shape::Plain | Shape::Tail { .. } | Shape::Run { .. } => None,
            };
            self.close_file(file, place).await?;
        }
        Ok(self.done)
    }

    /// Opens a file, whose columns are encoded as its first rows suggest.
    fn open_file(&self, first: &RecordBatch) -> Result<OpenFile> {
        let mut properties = self.properties.clone().into_builder();
        let is_read_whole = matches!(self.sought, Sought::None);
        for (field, column) in self.schema.fields().iter().zip(first.columns()) {
            let at = ColumnPath::from(field.name().as_str());
            let variety = Variety::of(column);
            let is_number = column.data_type().is_integer() || column.data_type().is_temporal();
            // Differences that are nothing are shorter than any dictionary; what is read whole is not looked up in one.
            let is_same = self.sought != Sought::All && is_one_value(column);
            if is_number && (variety != Variety::Repeats || is_same || is_read_whole) {
                // What is read whole, again and again, is read faster as it is.
                let is_plain =
                    is_scattered(column) && (variety == Variety::Unique || is_read_whole);
                let encoding =
                    if is_plain { Encoding::PLAIN } else { Encoding::DELTA_BINARY_PACKED };
                properties = properties
                    .set_column_dictionary_enabled(at.clone(), false)
                    .set_column_encoding(at.clone(), encoding);
                if is_plain || is_read_whole {
                    properties =
                        properties.set_column_compression(at.clone(), Compression::UNCOMPRESSED);
                }
            }
            // Bounds of hashes in no order leave nothing out.
            if is_read_whole && is_number && is_scattered(column) {
                properties =
                    properties.set_column_statistics_enabled(at.clone(), EnabledStatistics::None);
            }
            // A dictionary of texts that are all different is given up when it is full, after every text was looked up in it.
            if variety == Variety::Unique && *field.data_type() == DataType::Utf8 {
                properties = properties.set_column_dictionary_enabled(at.clone(), false);
            }
            // Bytes are hashes, or compressed already.
            if *field.data_type() == DataType::Binary {
                properties = properties
                    .set_column_dictionary_enabled(at.clone(), false)
                    .set_column_statistics_enabled(at.clone(), EnabledStatistics::None)
                    .set_column_compression(at.clone(), Compression::UNCOMPRESSED);
            }
            // A filter of a PERSONAL column would tell whether somebody is in it.
            let is_id =
                variety == Variety::Unique && !column.data_type().is_temporal() && !ascends(column);
            let is_sought = match self.sought {
                Sought::All => true,
                Sought::AllBut(column) => field.name() != column,
                Sought::None => false,
            };
            if is_id && is_sought && !self.personal.contains(field.name()) {
                properties = properties
                    .set_column_bloom_filter_enabled(at.clone(), true)
                    .set_column_bloom_filter_fpp(at, BLOOM_FPP);
            }
        }
        let name = format!("part-{}.parquet", uuid::Uuid::new_v4());
        let path = Path::from(format!("{}/{name}", self.folder));
        let store = BufWriter::new(Arc::clone(&self.store), path);
        let (schema, properties) = (Arc::clone(&self.schema), Some(properties.build()));
        let writer = Box::new(ArrowWriter::try_new(Outgoing::default(), schema, properties)?);
        Ok(OpenFile { name, writer, store, rows: 0, unknown: 0 })
    }

    /// Smallest and largest values of the columns that are told of in the log, by their places.
    fn bounds_in(&self, footer: &ParquetMetaData) -> BTreeMap<usize, (i64, i64)> {
        let columns = footer.file_metadata().schema_descr().columns();
        let of_field = |field: usize| {
            let name = [self.schema.field(field).name().as_str()];
            let at = columns.iter().position(|column| column.path().parts() == name)?;
            let mut all: Option<(i64, i64)> = None;
            for column in footer.row_groups().iter().map(|row_group| row_group.column(at)) {
                let statistics = column.statistics()?;
                if statistics.null_count_opt() == Some(column.num_values().unsigned_abs()) {
                    continue;
                }
                let (low, high) = bounds_of(statistics)?;
                all = Some(all.map_or((low, high), |of| (of.0.min(low), of.1.max(high))));
            }
            all
        };
        let fields = (0..self.has_bounds.len()).filter(|field| self.has_bounds[*field]);
        fields.filter_map(|field| Some((field, of_field(field)?))).collect()
    }

    async fn close_file(
        &mut self,
        mut file: OpenFile,
        place: Option<(Place, Clustering)>,
    ) -> Result<()> {
        let (footer, size, sums) = file.finish().await?;
        let OpenFile { name, rows, unknown, .. } = file;
        let known = self.known.clone().map(|known| Known { unknown, ..known });
        let mark = place.map(|(place, clustering)| Mark::new(place, &clustering, known));
        let stats = stats_document(&self.schema, rows, &self.bounds_in(&footer));
        let written_at_ms = chrono::Utc::now().timestamp_millis();
        let sums = Some(sums.encode());
        let erased = self.clean_to;
        self.done.push(WrittenFile { name, size, rows, written_at_ms, stats, sums, mark, erased });
        Ok(())
    }
}

/// The bounds that statistics tell of whole numbers, days and instants, in their own units.
pub(crate) fn bounds_of(statistics: &Statistics) -> Option<(i64, i64)> {
    match statistics {
        Statistics::Int32(of) => {
            of.min_opt().copied().map(i64::from).zip(of.max_opt().copied().map(i64::from))
        }
        Statistics::Int64(of) => of.min_opt().copied().zip(of.max_opt().copied()),
        _ => None,
    }
}

/// How often values repeat, by the first rows of a file.
///
/// It decides how they are kept. A dictionary of numbers or times that hardly repeat is longer than they are; their
/// differences are shorter, and cheaper to read than the values: of ten million events the files are a third smaller, and
/// a funnel over them costs a quarter less. A column of identifiers, each its own, gets Bloom filters: one row of ten
/// million is found in a third of the time, for a seventh more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variety {
    Repeats,
    Varied,
    Unique,
}

impl Variety {
    fn of(column: &ArrayRef) -> Self {
        const LOOKED_AT: usize = 4096;
        fn look<T: Eq + Hash>(values: impl Iterator<Item = Option<T>>) -> Variety {
            let (mut seen, mut count) = (HashSet::new(), 0);
            for value in values.flatten().take(LOOKED_AT) {
                seen.insert(value);
                count += 1;
            }
            // Of few values nothing can be said.
            const SAID_FROM: usize = 100;
            match seen.len() {
                _ if count < SAID_FROM => Variety::Repeats,
                n if n * 50 > count * 49 => Variety::Unique,
                n if n * 2 > count => Variety::Varied,
                _ => Variety::Repeats,
            }
        }
        match column.data_type() {
            DataType::Int32 => look(column.as_primitive::<Int32Type>().iter()),
            DataType::Int64 => look(column.as_primitive::<Int64Type>().iter()),
            DataType::Timestamp(..) => {
                look(column.as_primitive::<TimestampMicrosecondType>().iter())
            }
            DataType::Utf8 => look(column.as_string::<i32>().iter()),
            _ => Self::Repeats,
        }
    }
}

/// Whether numbers come in order: then the bounds of pages find one, and a filter would only take room.
fn ascends(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Int32 => column.as_primitive::<Int32Type>().values().is_sorted(),
        DataType::Int64 => column.as_primitive::<Int64Type>().values().is_sorted(),
        _ => false,
    }
}

/// Whether all numbers are one and the same.
fn is_one_value(column: &ArrayRef) -> bool {
    column.null_count() == 0 && bounds(column).is_some_and(|(low, high)| low == high)
}

/// Whether numbers are hashes, or like them: all over what their bits can hold, or nearly, so that neither their differences nor a
/// compression are shorter.
fn is_scattered(column: &ArrayRef) -> bool {
    let far: u64 = match column.data_type() {
        DataType::Int64 => 1 << 60,
        // Large enough that a difference and its share of a block's head take as much as the number.
        DataType::Int32 => 1 << 22,
        _ => return false,
    };
    let is_far = |(low, high): (i64, i64)| high.abs_diff(low) > far;
    !ascends(column) && bounds(column).is_some_and(is_far)
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

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    /// How a column is kept is decided by its values, and what would tell of a person is not written.
    #[tokio::test]
    async fn columns_are_kept_as_their_values_suggest() {
        let ids: Vec<i64> = (0..5000).map(|n| n * 7919 % 100_003).collect();
        let texts = |prefix: &str| -> ArrayRef {
            Arc::new(ids.iter().map(|n| Some(format!("{prefix}{n}"))).collect::<StringArray>())
        };
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("order_id", Arc::new(Int64Array::from(ids.clone()))),
            ("quantity", Arc::new(Int64Array::from_iter_values(ids.iter().map(|n| n % 9)))),
            ("record_id", texts("r")),
            ("phone", texts("154")),
            (
                "hash",
                Arc::new(Int64Array::from_iter_values(
                    ids.iter().map(|n| n.wrapping_mul(0x09e3_779b_97f4_a7c1)),
                )),
            ),
        ];
        let fields = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let personal = ["phone".to_owned()];
        let style = FileStyle::default();
        let mut writer =
            TableWriter::new(Arc::clone(&store), "t", schema, &personal, style, None).unwrap();
        writer.write(&batch).await.unwrap();
        let files = writer.finish().await.unwrap();
        let path = Path::from(format!("t/{}", files[0].name));
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        let reader = SerializedFileReader::new(bytes).unwrap();
        let kept = |column: usize| {
            let column = reader.metadata().row_group(0).column(column);
            let is_difference = column.encodings().any(|e| e == Encoding::DELTA_BINARY_PACKED);
            (is_difference, column.bloom_filter_offset().is_some(), column.statistics().is_some())
        };
        assert_eq!(kept(0), (true, true, true));
        assert_eq!(kept(1), (false, false, true));
        assert_eq!(kept(2), (false, true, true));
        assert_eq!(kept(3), (false, false, false));
        assert_eq!(kept(4), (false, true, true));
        let compression =
            |column: usize| reader.metadata().row_group(0).column(column).compression();
        assert_eq!(
            (compression(0) == compression(4), compression(4)),
            (false, Compression::UNCOMPRESSED)
        );
    }
}
