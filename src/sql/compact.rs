//! `COMPACT TABLE t`: the fresh rows of a clustered table are put among its clustered ones, small files of others together.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use datafusion::common::hash_utils::create_hashes;
use datafusion::physical_plan::repartition::REPARTITION_RANDOM_STATE;
use futures::StreamExt;

use super::Outcome;
use crate::error::{Error, Kind, Result};
use crate::scan::{Buckets, SnapshotTable};
use crate::session::Session;
use crate::store::{FileEntry, Name, TableSnapshot, WrittenFile};

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
        let done = compact(session, name).await?;
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

/// Rewrites a clustered table as one file a bucket, in order, and the small files of another as few. Readers keep the files
/// they began with; loads meanwhile stay fresh.
///
/// `None` when there is nothing to do. Rows are counted and hashed on their way in and out; a difference ends the
/// compaction before anything is committed.
pub async fn compact(session: &Session, name: &Name) -> Result<Option<Compacted>> {
    const TRIES_MAX: u32 = 3;
    let warehouse = session.engine().warehouse();
    for _ in 0..TRIES_MAX {
        let newest = warehouse.newest().await?;
        let Some(def) = newest.table(name) else {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("table \"{name}\" does not exist"),
            ));
        };
        let snapshot = warehouse.snapshot(&def.path, def.version).await?;
        if snapshot.clustering.is_none() {
            match Box::pin(join_small(session, name, &snapshot)).await? {
                Joined::Nothing => return Ok(None),
                Joined::Done(done) => return Ok(Some(done)),
                Joined::TooLate => continue,
            }
        }
        if snapshot.files.is_empty() || SnapshotTable::is_compact(&snapshot) {
            return Ok(None);
        }
        let state = session.planning("", &[]).await?;
        let buckets = SnapshotTable::new(Arc::clone(&snapshot)).buckets(state.state())?;
        let outputs = write(session, &snapshot, &buckets, state.state()).await?;
        let inputs: Vec<String> = snapshot.files.iter().map(|file| file.path.clone()).collect();
        let done = Compacted {
            files_before: inputs.len(),
            files_after: outputs.len(),
            rows: snapshot.rows(),
        };
        if warehouse.publish_rewrite(name, &snapshot, &inputs, &outputs).await? {
            return Ok(Some(done));
        }
    }
    Err(Error::new(
        Kind::Serialization,
        format!("table \"{name}\" was rewritten by others meanwhile"),
    )
    .hint("run COMPACT TABLE again"))
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
async fn join_small(session: &Session, name: &Name, snapshot: &TableSnapshot) -> Result<Joined> {
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
    let is_published = warehouse.publish_rewrite(name, snapshot, &inputs, &outputs).await?;
    Ok(if is_published { Joined::Done(done) } else { Joined::TooLate })
}

async fn write(
    session: &Session,
    snapshot: &TableSnapshot,
    buckets: &Buckets,
    state: &datafusion::execution::context::SessionState,
) -> Result<Vec<WrittenFile>> {
    let warehouse = session.engine().warehouse();
    let mut outputs = Vec::new();
    let (mut rows, mut sum) = (0u64, 0u64);
    for bucket in 0..buckets.count() {
        let mut stream = buckets.open(bucket, state.task_ctx())?;
        let mut writer = warehouse.run_writer(snapshot, bucket as u32)?;
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            sum = sum.wrapping_add(hash_of(&batch)?);
            writer.write(&stored(&batch, snapshot)?).await?;
        }
        outputs.extend(writer.finish().await?);
    }
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
    use arrow::datatypes::{DataType, Field, Schema};
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
