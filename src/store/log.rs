//! A table's log, read for what the Delta library does not tell of it: which loads the table has taken, and whether its files are
//! what was published.
//!
//! A log has no checksums of its own: an entry that was emptied would give other rows, an id that has changed would let a file be
//! loaded once more. So each publish carries what to compare with ([`Holding`]), the sums of the last entries among it, which tell
//! the file that is not what it was.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::generation::Holding;
use crate::error::{Error, Kind, Result};

/// What the id of a load begins with among a table's transactions.
pub(super) const LOAD: &str = "load:";

/// What the name of a checkpoint ends with.
const CHECKPOINT: &str = ".checkpoint.parquet";

/// Names the latest checkpoint.
const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// What is said of a file that is not there.
const MISSING: &str = "is missing";

/// What is said of a file that is there.
const OTHER: &str = "is not what was published";

/// Entries that are compared: no table has more since its last checkpoint, and what is before it is not read.
const ENTRIES_KEPT: usize = 100;

/// Entries that are read at once.
const ENTRIES_AHEAD: usize = 16;

/// The log of one table.
#[derive(Debug)]
pub(super) struct Log<'a> {
    store: &'a Arc<dyn ObjectStore>,
    /// Folder of the table below the warehouse, for errors.
    path: &'a str,
    /// Where the log lies in the store.
    folder: Path,
    /// Sums of its last entries when a version was published.
    published: EntrySums,
}

/// How much of a checkpoint is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// What it says of loads.
    Loads,
    /// All of it, to see whether that can be done.
    Everything,
}

/// What was read of a log.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The loads in it.
    pub(super) loads: Loads,
    /// The entries that were read one by one.
    pub(super) sums: EntrySums,
    /// Version of the checkpoint that it began with.
    checkpoint: Option<u64>,
}

/// Why nothing was read.
#[derive(Debug)]
pub(super) enum Unread {
    /// A file is not what it was.
    Broken(Broken),
    /// The store has failed.
    Failed(Error),
}

/// A file of a log that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// File below the warehouse.
    pub(super) file: String,
    /// What is wrong with it.
    pub(super) what: String,
}

impl<'a> Log<'a> {
    /// The log in `folder` of the table in `path`.
    pub(super) fn new(store: &'a Arc<dyn ObjectStore>, path: &'a str, folder: Path) -> Self {
        Self { store, path, folder, published: EntrySums::default() }
    }

    /// The same, to be compared with what was published of a version.
    pub(super) fn published(self, version: u64, holding: &Holding) -> Self {
        Self { published: EntrySums::decode(&holding.entries, version), ..self }
    }

    /// Reads it up to a version: of the newest checkpoint what is asked for, and the entries after it.
    pub(super) async fn read(
        &self,
        version: u64,
        extent: Extent,
    ) -> std::result::Result<Read, Unread> {
        let listed: Vec<_> = self.store.list(Some(&self.folder)).try_collect().await?;
        let names = || listed.iter().filter_map(|file| file.location.filename());
        let checkpoints = names().filter_map(|name| name.strip_suffix(CHECKPOINT)?.parse().ok());
        let checkpoint = checkpoints.filter(|at: &u64| *at <= version).max();
        let begins = checkpoint.map_or(0, |at| at + 1);
        let mut loads = Loads::default();
        match checkpoint {
            Some(at) => loads = self.checkpoint(&checkpoint_name(at), extent).await?,
            None if names().any(|name| name == entry_name(0)) => {}
            None => return Err(self.without_beginning(names()).await),
        }
        let read = self.entries(begins..=version).await?;
        loads.go_on(read.loads);
        Ok(Read { loads, sums: read.sums, checkpoint })
    }

    /// Reads the entries of some versions.
    pub(super) async fn entries(
        &self,
        versions: RangeInclusive<u64>,
    ) -> std::result::Result<Read, Unread> {
        let mut read = Read::default();
        let mut entries = futures::stream::iter(versions.map(|version| self.entry(version)))
            .buffered(ENTRIES_AHEAD);
        while let Some((version, bytes)) = entries.try_next().await? {
            let name = entry_name(version);
            let mut actions =
                serde_json::Deserializer::from_slice(&bytes).into_iter::<serde_json::Value>();
            let mut at = 0;
            while let Some(action) = actions.next() {
                let damaged = || self.broken(&name, &format!("is damaged at byte {at}"));
                let noted = &action.map_err(|_| damaged())?["txn"];
                if !noted.is_null() {
                    let id = noted["appId"].as_str().ok_or_else(damaged)?;
                    let number = noted["version"].as_i64().ok_or_else(damaged)?;
                    read.loads.note(id, number);
                }
                at = actions.byte_offset();
            }
            if at == 0 {
                return Err(self.broken(&name, "is empty"));
            }
            let sum = crc32fast::hash(&bytes);
            if self.published.of(version).is_some_and(|published| published != sum) {
                return Err(self.broken(&name, &format!("{OTHER}: its checksum does not match")));
            }
            read.sums.push(version, sum);
        }
        Ok(read)
    }

    /// The file for which the log cannot be used up to a version, or differs from what was published, when one can be told.
    pub(super) async fn culprit(&self, version: u64) -> Option<Broken> {
        match self.read(version, Extent::Everything).await {
            Err(Unread::Broken(broken)) => Some(broken),
            Err(Unread::Failed(_)) => None,
            Ok(read) => {
                // Every entry is what it was, so it is what they build on.
                let at = read.checkpoint?;
                let are_compared = (at + 1..=version).all(|at| self.published.of(at).is_some());
                let file = format!("{}/_delta_log/{}", self.path, checkpoint_name(at));
                are_compared.then(|| Broken { file, what: OTHER.to_owned() })
            }
        }
    }

    async fn entry(&self, version: u64) -> std::result::Result<(u64, Bytes), Unread> {
        let name = entry_name(version);
        match self.store.get(&self.folder.clone().join(name.as_str())).await {
            Ok(found) => Ok((version, found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Err(self.broken(&name, MISSING)),
            Err(error) => Err(error.into()),
        }
    }

    async fn checkpoint(&self, name: &str, extent: Extent) -> std::result::Result<Loads, Unread> {
        let location = self.folder.clone().join(name);
        let bytes = self.store.get(&location).await?.bytes().await?;
        // Some damage makes the decoder stop in the middle.
        match tokio::task::spawn_blocking(move || decode_checkpoint(bytes, extent)).await {
            Ok(Ok(loads)) => Ok(loads),
            _ => Err(self.broken(name, "cannot be decoded")),
        }
    }

    /// What is wrong with a log that has neither a checkpoint nor its first entry.
    async fn without_beginning(&self, there: impl Iterator<Item = &str>) -> Unread {
        let last = async {
            let last = self.store.get(&self.folder.clone().join(LAST_CHECKPOINT)).await.ok()?;
            let last: serde_json::Value = serde_json::from_slice(&last.bytes().await.ok()?).ok()?;
            last["version"].as_u64()
        };
        let last = last.await.map(checkpoint_name);
        // One that is there is of a later version: what came before was vacuumed.
        let is_there = { there }.any(|name| Some(name) == last.as_deref());
        let name = last.filter(|_| !is_there).unwrap_or_else(|| entry_name(0));
        self.broken(&name, MISSING)
    }

    fn broken(&self, name: &str, what: &str) -> Unread {
        let file = format!("{}/_delta_log/{name}", self.path);
        Unread::Broken(Broken { file, what: what.to_owned() })
    }
}

fn entry_name(version: u64) -> String {
    format!("{version:020}.json")
}

fn checkpoint_name(version: u64) -> String {
    format!("{version:020}{CHECKPOINT}")
}

impl Broken {
    /// What there is to say of it after an error's message.
    pub(super) fn detail(&self) -> String {
        format!("file: {} {}", self.file, self.what)
    }
}

impl From<object_store::Error> for Unread {
    fn from(error: object_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Unread> for Error {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Failed(error) => error,
            Unread::Broken(broken) => {
                let path = broken.file.split("/_delta_log/").next().unwrap_or_default();
                Self::new(Kind::DataCorrupted, format!("the log of table {path:?} is damaged"))
                    .detail(broken.detail())
                    .hint("a backup has the file as it was; other tables are not touched by this")
            }
        }
    }
}

/// Whether something of a log is not there, which may be because a vacuum was there meanwhile.
pub(super) fn is_gone(error: &Error) -> bool {
    error.is_of_no_log()
        || ["ile not found", "warehouse is missing"]
            .iter()
            .any(|told| error.message().contains(told))
        || error.detail_text().is_some_and(|detail| detail.ends_with(MISSING))
}

/// Loads by their ids, and whether they are taken: one that a restore has undone is noted, too.
#[derive(Debug, Default)]
pub(super) struct Loads(BTreeMap<String, bool>);

impl Loads {
    fn note(&mut self, id: &str, number: i64) {
        if let Some(load) = id.strip_prefix(LOAD) {
            self.0.insert(load.to_owned(), number > 0);
        }
    }

    /// Whether none is noted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids of all that are noted.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Goes on with what later entries say.
    pub(super) fn go_on(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Whether a load is taken.
    pub(super) fn has(&self, load: &str) -> bool {
        self.0.get(load) == Some(&true)
    }

    /// All that are taken, as a number.
    pub(super) fn sum(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (load, _) in self.0.iter().filter(|(_, is_taken)| **is_taken) {
            hasher.update(load.as_bytes());
            hasher.update(b"\n");
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// The loads in a checkpoint.
fn decode_checkpoint(bytes: Bytes, extent: Extent) -> Result<Loads> {
    let mut loads = Loads::default();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let mask = match extent {
        Extent::Everything => ProjectionMask::all(),
        Extent::Loads => {
            ProjectionMask::columns(reader.parquet_schema(), ["txn.appId", "txn.version"])
        }
    };
    for batch in reader.with_projection(mask).build()? {
        let batch = batch?;
        let Some(noted) = batch.column_by_name("txn").and_then(|all| all.as_struct_opt()) else {
            continue;
        };
        let (Some(ids), Some(numbers)) =
            (noted.column_by_name("appId"), noted.column_by_name("version"))
        else {
            continue;
        };
        let ids = arrow::compute::cast(ids, &arrow::datatypes::DataType::Utf8)?;
        let numbers = numbers.as_primitive::<Int64Type>();
        for (row, id) in ids.as_string::<i32>().iter().enumerate() {
            if let Some(id) = id.filter(|_| noted.is_valid(row)) {
                loads.note(id, numbers.value(row));
            }
        }
    }
    Ok(loads)
}

/// CRC-32 of consecutive entries, the last of them that of `version`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EntrySums {
    version: u64,
    sums: Vec<u32>,
}

impl EntrySums {
    /// What was published of a version; nothing is compared with what is not as it was written.
    pub(super) fn decode(text: &str, version: u64) -> Self {
        let bytes = STANDARD_NO_PAD.decode(text).unwrap_or_default();
        let (words, _) = bytes.as_chunks::<4>();
        Self { version, sums: words.iter().map(|word| u32::from_le_bytes(*word)).collect() }
    }

    /// As the publish log keeps them.
    pub(super) fn encode(&self) -> String {
        let kept = &self.sums[self.sums.len().saturating_sub(ENTRIES_KEPT)..];
        let bytes: Vec<u8> = kept.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        STANDARD_NO_PAD.encode(bytes)
    }

    /// Takes in what follows; what does not follow takes its place.
    pub(super) fn go_on(&mut self, later: Self) {
        let begins = (later.version + 1).saturating_sub(later.sums.len() as u64);
        match (self.sums.is_empty(), later.sums.is_empty()) {
            (_, true) => {}
            (false, false) if begins == self.version + 1 => {
                self.version = later.version;
                self.sums.extend(later.sums);
            }
            _ => *self = later,
        }
    }

    /// Whether it ends with this version.
    pub(super) fn ends_at(&self, version: u64) -> bool {
        !self.sums.is_empty() && self.version == version
    }

    fn push(&mut self, version: u64, sum: u32) {
        self.go_on(Self { version, sums: vec![sum] });
    }

    fn of(&self, version: u64) -> Option<u32> {
        let back = usize::try_from(self.version.checked_sub(version)?).ok()?;
        self.sums.iter().rev().nth(back).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_entries_go_on_and_only_the_last_are_kept() {
        let mut sums = EntrySums::default();
        (3..=5).for_each(|version| sums.push(version, version as u32 * 10));
        assert_eq!([2, 3, 5, 6].map(|version| sums.of(version)), [None, Some(30), Some(50), None]);
        assert_eq!(EntrySums::decode(&sums.encode(), 5), sums);
        // What is published later of the same version says nothing more.
        sums.go_on(EntrySums::default());
        assert_eq!(sums.of(3), Some(30));
        (6..300).for_each(|version| sums.push(version, 1));
        let kept = EntrySums::decode(&sums.encode(), 299);
        assert_eq!([199, 200, 299].map(|version| kept.of(version)), [None, Some(1), Some(1)]);
        // After a gap nothing is known of what was before it.
        sums.push(400, 7);
        assert_eq!([299, 399, 400].map(|version| sums.of(version)), [None, None, Some(7)]);
        assert_eq!(EntrySums::decode("no sums", 4).of(4), None);
    }
}
