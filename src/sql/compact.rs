//! `COMPACT TABLE t`: the fresh rows of a clustered table are put among its clustered ones, small files of others together.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion::common::hash_utils::create_hashes;
use datafusion::physical_plan::repartition::REPARTITION_RANDOM_STATE;
use futures::StreamExt;

use super::Outcome;
use crate::error::{Error, Kind, Result};
use crate::scan::{Buckets, SnapshotTable};
use crate::session::Session;
use crate::store::{FileEntry, Generation, Lease, Name, TableSnapshot, WrittenFile};

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files before.
    pub files_before: usize,
    /// Files after.
    pub files_after: usize,
    /// Rows, the same before and after.
    pub rows: u64,
}

/// Compacts tables one after the other.
pub(super) async fn run(session: &Session, tables: &[Name]) -> Result<Outcome> {
    let mut notices = Vec::new();
    for name in tables {
        let done = compact(session, None, name).await?;
        notices.push(match done {
            Some(done) => format!(
                "{name}: {} rows, {} files became {}",
                done.rows, done.files_before, done.files_after
            ),
            None => format!("{name}: nothing to do"),
        });
    }
    Ok(Outcome::Noticed { tag: "COMPACT".to_owned(), notice: notices.join("; ") })
}

/// Rewrites a clustered table as files of one bucket each, in order, and the small files of another as few. Readers keep the files
/// they began with; loads meanwhile stay fresh.
///
/// The newest rows of a large table, an eighth at most, are kept in a file of their own, so that questions of the last days
/// leave the others alone. Fresh rows are first put together with those; the whole table is rewritten when they have become
/// a fifth of it.
///
/// `None` when there is nothing to do. Rows are counted and hashed on their way in and out; a difference ends the
/// compaction before anything is committed.
pub async fn compact(
    session: &Session,
    lease: Option<Lease>,
    name: &Name,
) -> Result<Option<Compacted>> {
    const TRIES_MAX: u32 = 3;
    let warehouse = session.engine().warehouse();
    let mut files_before = None;
    let mut tries = 0;
    while tries < TRIES_MAX {
        let newest = warehouse.newest().await?;
        let Some(def) = newest.table(name) else {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("table \"{name}\" does not exist"),
            ));
        };
        let snapshot = warehouse.snapshot(def).await?;
        if snapshot.clustering.is_none() {
            match Box::pin(join_small(session, lease, name, &snapshot)).await? {
                Joined::Nothing => return Ok(None),
                Joined::Done(done) => return Ok(Some(done)),
                Joined::TooLate => tries += 1,
            }
            continue;
        }
        let table = clustered(session, &newest, &snapshot).await?;
        if lease.is_none() {
            must_be_known(name, &table)?;
        }
        if files_before.is_none() && table.is_compact() {
            return Ok(None);
        }
        let files_before = *files_before.get_or_insert(snapshot.files.len());
        // Who asks for a compaction does not want the customers of some rows to be looked up for ever.
        let config = session.engine().config();
        let portion = (config.memory_bytes() / PORTION_SHARE) as u64;
        let step = next_step(&table, portion, lease.is_none() && table.has_suspects());
        let is_last = !matches!(step, Step::Join(_));
        let (part, shape) = match step {
            Step::Join(files) | Step::JoinAtLast(files) => {
                (Arc::new(snapshot.only(&files)), Shape::Fresh)
            }
            Step::All => {
                let recent = recent_since(session, &table).await?;
                (Arc::clone(&snapshot), Shape::Runs { recent })
            }
        };
        let part = SnapshotTable::of_customers(part, table.customers().cloned());
        let part = part.with_one_id().unwrap_or(part);
        let state = session.planning("", &[]).await?;
        let buckets = part.buckets(state.state()).await?;
        let outputs = write(session, &part, &buckets, state.state(), &shape).await?;
        let part = part.snapshot();
        let inputs: Vec<String> = part.files.iter().map(|file| file.path.clone()).collect();
        let files_after = snapshot.files.len() - inputs.len() + outputs.len();
        match warehouse.publish_rewrite(lease, name, &snapshot, &inputs, &outputs).await? {
            true if is_last => {
                return Ok(Some(Compacted { files_before, files_after, rows: snapshot.rows() }));
            }
            true => {}
            false => tries += 1,
        }
    }
    Err(Error::new(
        Kind::Serialization,
        format!("table \"{name}\" was rewritten by others meanwhile"),
    )
    .hint("run COMPACT TABLE again"))
}

/// Files that are merged at a time: of each one a row group is in memory. More of them are first made fewer.
const FAN_IN: usize = 16;

/// Rows to be sorted are taken in portions that fill at most this share of the memory: a sort holds them twice, and what readers,
/// writers and the allocator hold is not counted.
const PORTION_SHARE: usize = 5;

/// Fresh rows up to one in so many are put together with the recent ones; from then on everything is put in its place.
const JOIN_SHARE: u64 = 5;

/// The newest rows, up to one in so many, are kept apart: questions of the last days read only them.
const RECENT_SHARE: u64 = 8;

/// What a compaction does next.
enum Step {
    /// These files become one of fresh rows, and there is more to do.
    Join(Vec<FileEntry>),
    /// These files become one of fresh rows, the others stay as they are.
    JoinAtLast(Vec<FileEntry>),
    /// Every row goes to its place.
    All,
}

/// Bytes that the rows of a file fill in memory, about.
fn in_memory(file: &FileEntry, schema: &Schema) -> u64 {
    // Of a text its view, or the whole of a short one; the others are as long as they are packed, some times over.
    const VIEW_BYTES: usize = 16;
    const UNPACKED: u64 = 2;
    let width = |field: &Arc<Field>| field.data_type().primitive_width().unwrap_or(VIEW_BYTES);
    let row: usize = schema.fields().iter().map(width).sum();
    file.rows.saturating_mul(row as u64).saturating_add(file.size.saturating_mul(UNPACKED))
}

/// The next step of a compaction: as little as will do, unless it is to be thorough. Files in no order are sorted in portions of
/// so many bytes in memory, so that neither memory nor what is spilled grows with the table.
fn next_step(table: &SnapshotTable, portion: u64, is_thorough: bool) -> Step {
    let newest_first =
        |files: &[&FileEntry]| -> Vec<FileEntry> { files.iter().rev().copied().cloned().collect() };
    let bytes = |files: &[&FileEntry]| files.iter().map(|file| file.size).sum::<u64>();
    let (unsorted, tails) = (table.unsorted(), table.tails());
    let schema = &table.snapshot().schema;
    let unpacked =
        |files: &[&FileEntry]| files.iter().map(|file| in_memory(file, schema)).sum::<u64>();
    if unpacked(&unsorted) > portion {
        let fits = |count: &usize| unpacked(&unsorted[..*count]) <= portion;
        let count = (1..unsorted.len()).take_while(fits).last().unwrap_or(1);
        return Step::Join(newest_first(&unsorted[..count]));
    }
    if tails.len() > FAN_IN {
        let smallest = tails.windows(FAN_IN).min_by_key(|files| bytes(files));
        return Step::Join(newest_first(smallest.unwrap_or(&tails)));
    }
    let fresh: Vec<&FileEntry> = unsorted.iter().chain(&tails).copied().collect();
    let rows: u64 = fresh.iter().map(|file| file.rows).sum();
    let are_few = table.keeps_recent()
        && rows.saturating_mul(JOIN_SHARE) <= table.snapshot().rows()
        && table.loose().0 < fresh.len() + usize::from(tails.is_empty());
    let can_be_one = fresh.len() > 1 || !unsorted.is_empty();
    match are_few && can_be_one && !is_thorough {
        true => Step::JoinAtLast(newest_first(&fresh)),
        false => Step::All,
    }
}

/// A clustered table of a published state, with the customers that its rows are kept by.
pub(super) async fn clustered(
    session: &Session,
    state: &Generation,
    snapshot: &Arc<TableSnapshot>,
) -> Result<SnapshotTable> {
    let customers = match snapshot.graph() {
        Some(graph) => session.engine().warehouse().customers(state, graph).await?,
        None => None,
    };
    Ok(SnapshotTable::of_customers(Arc::clone(snapshot), customers))
}

/// Rows are kept by customers once it is known who those are.
fn must_be_known(name: &Name, table: &SnapshotTable) -> Result<()> {
    let Some(graph) = table.snapshot().graph().filter(|_| table.known().is_none()) else {
        return Ok(());
    };
    Err(Error::new(
        Kind::NotInState,
        format!(
            "table \"{name}\" is kept by the customers of \"{graph}\", which are not known yet"
        ),
    )
    .hint(format!(
        "REFRESH IDENTITY GRAPH {} FULL; then compact again",
        crate::dialect::quoted(graph)
    )))
}

/// What a rewrite of buckets makes.
enum Shape {
    /// One file a bucket, in its place; rows from this day on, days since 1970, in one file beside.
    Runs { recent: Option<i64> },
    /// One file, still fresh.
    Fresh,
}

impl Shape {
    /// The rows that go into their bucket's file, and those that go into the file of fresh ones.
    fn split(&self, batch: &RecordBatch, time: Option<usize>) -> Result<[RecordBatch; 2]> {
        let nothing = || batch.slice(0, 0);
        match (self, time) {
            (Self::Fresh, _) => Ok([nothing(), batch.clone()]),
            (Self::Runs { recent: Some(from) }, Some(time)) => {
                let is_recent: BooleanArray = days(batch.column(time))
                    .map(|day| Some(day.is_some_and(|day| day >= *from)))
                    .collect();
                let is_old = not(&is_recent)?;
                Ok([filter_record_batch(batch, &is_old)?, filter_record_batch(batch, &is_recent)?])
            }
            (Self::Runs { .. }, _) => Ok([batch.clone(), nothing()]),
        }
    }
}

/// The day of each time, in days since 1970.
fn days(times: &ArrayRef) -> Box<dyn Iterator<Item = Option<i64>> + '_> {
    const DAY_US: i64 = 86_400_000_000;
    match times.data_type() {
        DataType::Date32 => {
            Box::new(times.as_primitive::<Date32Type>().iter().map(|day| day.map(i64::from)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let times = times.as_primitive::<TimestampMicrosecondType>().iter();
            Box::new(times.map(|time| time.map(|us| us.div_euclid(DAY_US))))
        }
        _ => Box::new(std::iter::repeat_n(None, times.len())),
    }
}

/// The day from which on rows are recent; `None` when the table has no time, is small, or is of too few days.
async fn recent_since(session: &Session, table: &SnapshotTable) -> Result<Option<i64>> {
    let snapshot = table.snapshot();
    let time = snapshot.clustering.as_ref().and_then(|clustering| clustering.time());
    let Some(time) = time.filter(|_| table.keeps_recent()) else {
        return Ok(None);
    };
    let mut rows_of = BTreeMap::<i64, u64>::new();
    let count = |batch: RecordBatch| {
        for day in days(batch.column(0)).flatten() {
            *rows_of.entry(day).or_default() += 1;
        }
    };
    session.engine().warehouse().read_columns(snapshot, &[time.to_owned()], count).await?;
    let (mut from, mut recent) = (None, 0);
    for (day, rows) in rows_of.into_iter().rev() {
        recent += rows;
        if recent * RECENT_SHARE > snapshot.rows() {
            break;
        }
        from = Some(day);
    }
    Ok(from)
}

/// A file that is smaller is worth being put together with others.
const SMALL_BYTES: u64 = 32 << 20;

/// What came of putting small files together.
enum Joined {
    Nothing,
    Done(Compacted),
    /// Somebody else has rewritten one of them.
    TooLate,
}

/// The small files of a table that is not clustered.
pub(super) fn small_files(snapshot: &TableSnapshot) -> impl Iterator<Item = &FileEntry> {
    let is_small = |file: &&FileEntry| file.size < SMALL_BYTES;
    snapshot.files.iter().filter(move |file| snapshot.clustering.is_none() && is_small(file))
}

/// Puts the small files of a table that is not clustered together, oldest rows first.
async fn join_small(
    session: &Session,
    lease: Option<Lease>,
    name: &Name,
    snapshot: &TableSnapshot,
) -> Result<Joined> {
    let warehouse = session.engine().warehouse();
    // The log names files newest first.
    let small: Vec<&FileEntry> =
        small_files(snapshot).collect::<Vec<_>>().into_iter().rev().collect();
    if small.len() < 2 {
        return Ok(Joined::Nothing);
    }
    let columns: Vec<String> = snapshot.schema.fields().iter().map(|f| f.name().clone()).collect();
    let mut writer = warehouse.raw_writer(snapshot, None)?;
    let (mut rows, mut sum) = (0u64, 0u64);
    for file in &small {
        let mut batches = warehouse.open_file(snapshot, file, &columns).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            sum = sum.wrapping_add(hash_of(&as_read(&batch)?)?);
            writer.write(&batch).await?;
        }
    }
    let outputs = writer.finish().await?;
    let expected = small.iter().map(|file| file.rows).sum();
    verify(session, snapshot, &outputs, expected, rows, sum).await?;
    let inputs: Vec<String> = small.iter().map(|file| file.path.clone()).collect();
    let files_after = snapshot.files.len() - inputs.len() + outputs.len();
    let done = Compacted { files_before: snapshot.files.len(), files_after, rows: snapshot.rows() };
    let is_published = warehouse.publish_rewrite(lease, name, snapshot, &inputs, &outputs).await?;
    Ok(if is_published { Joined::Done(done) } else { Joined::TooLate })
}

async fn write(
    session: &Session,
    table: &SnapshotTable,
    buckets: &Buckets,
    state: &datafusion::execution::context::SessionState,
    shape: &Shape,
) -> Result<Vec<WrittenFile>> {
    let warehouse = session.engine().warehouse();
    let snapshot = table.snapshot();
    let time = snapshot.clustering.as_ref().and_then(|clustering| clustering.time());
    let time = time.and_then(|time| snapshot.schema.index_of(time).ok());
    let mut outputs = Vec::new();
    let (mut rows, mut sum) = (0u64, 0u64);
    let mut fresh = warehouse.fresh_writer(snapshot, table.known())?;
    let of = uuid::Uuid::new_v4().simple().to_string();
    for bucket in 0..buckets.count() {
        let mut stream = buckets.open(bucket, state.task_ctx())?;
        let mut run = warehouse.run_writer(snapshot, bucket as u32, &of, table.known())?;
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            sum = sum.wrapping_add(hash_of(&batch)?);
            let [settled, recent] = shape.split(&stored(&batch, snapshot)?, time)?;
            run.write(&settled).await?;
            fresh.write(&recent).await?;
        }
        outputs.extend(run.finish().await?);
        fresh.end_bucket().await?;
    }
    outputs.extend(fresh.finish().await?);
    verify(session, snapshot, &outputs, snapshot.rows(), rows, sum).await?;
    Ok(outputs)
}

/// Reads back what a compaction wrote: its rows must be the ones that went in, `rows` of them with the hash `sum`.
async fn verify(
    session: &Session,
    snapshot: &TableSnapshot,
    outputs: &[WrittenFile],
    expected: u64,
    rows: u64,
    sum: u64,
) -> Result<()> {
    let warehouse = session.engine().warehouse();
    let written: u64 = outputs.iter().map(|file| file.rows).sum();
    if rows != expected || written != rows {
        warehouse.discard(&snapshot.path, outputs).await;
        return Err(Error::internal(format!(
            "a compaction read {rows} rows of {expected} and wrote {written}; nothing was changed"
        )));
    }
    let mut read_back = 0u64;
    let entries = snapshot.with_files(outputs);
    let columns: Vec<String> = snapshot.schema.fields().iter().map(|f| f.name().clone()).collect();
    let mut failed = None;
    warehouse
        .read_columns(&entries, &columns, |batch| {
            let read = as_read(&batch).and_then(|batch| hash_of(&batch));
            match read {
                Ok(hash) => read_back = read_back.wrapping_add(hash),
                Err(error) => failed = Some(error),
            }
        })
        .await?;
    if let Some(error) = failed {
        return Err(error);
    }
    if read_back != sum {
        warehouse.discard(&snapshot.path, outputs).await;
        return Err(Error::new(
            Kind::DataCorrupted,
            "a compaction wrote other rows than it read; nothing was changed",
        ));
    }
    Ok(())
}

/// A number that depends on the rows of a batch and not on their order.
fn hash_of(batch: &RecordBatch) -> Result<u64> {
    let mut hashes = vec![0u64; batch.num_rows()];
    create_hashes(batch.columns(), REPARTITION_RANDOM_STATE.random_state(), &mut hashes)?;
    Ok(hashes.into_iter().fold(0, u64::wrapping_add))
}

/// Columns as scans give them: text as views.
fn as_read(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let read = match field.data_type() {
            DataType::Utf8 => DataType::Utf8View,
            other => other.clone(),
        };
        columns.push(cast(column, &read)?);
        fields.push(Field::new(field.name(), read, true));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Columns as files keep them.
fn stored(batch: &RecordBatch, snapshot: &TableSnapshot) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(snapshot.schema.fields())
        .map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(&snapshot.schema), columns)?)
}
