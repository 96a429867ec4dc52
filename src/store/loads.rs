//! Which loads a table has taken, as its log says: a file is loaded once.
//!
//! The log has no checksum for that: an id that has changed, or an entry that was emptied, would let a file be loaded once more. So
//! each publish carries a hash of the loads that the version knows ([`super::TableDef::loads`]), with which a load and a check compare.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, Kind, Result};

/// What the id of a load begins with among a table's transactions.
pub(super) const LOAD: &str = "load:";

/// What the name of a checkpoint ends with.
pub(super) const CHECKPOINT: &str = ".checkpoint.parquet";

/// What is said of a file that is not there.
pub(super) const MISSING: &str = "is missing";

/// Loads by their ids, and whether they are taken: one that a restore has undone is noted, too.
#[derive(Debug, Default)]
pub(super) struct Loads(BTreeMap<String, bool>);

impl Loads {
    /// What a log says up to a version, which lies in `folder` and has `path` as its name.
    pub(super) async fn at(
        store: &Arc<dyn ObjectStore>,
        path: &str,
        folder: &Path,
        version: u64,
    ) -> Result<Self> {
        let mut loads = Self::default();
        let mut newest = None;
        let mut listed = store.list(Some(folder));
        while let Some(file) = listed.try_next().await? {
            let name = file.location.filename().and_then(|name| name.strip_suffix(CHECKPOINT));
            let at = name.and_then(|version| version.parse::<u64>().ok());
            newest = newest.max(at.filter(|at| *at <= version));
        }
        drop(listed);
        if let Some(at) = newest {
            let name = format!("{at:020}{CHECKPOINT}");
            let bytes = store.get(&folder.clone().join(name.as_str())).await?.bytes().await?;
            let read = tokio::task::spawn_blocking(move || of_checkpoint(bytes)).await;
            // Some damage makes the decoder stop in the middle.
            loads.0 = match read {
                Ok(Ok(found)) => found,
                _ => return Err(damaged(path, &name, UNREADABLE)),
            };
        }
        loads.go_on(store, path, folder, newest.map_or(0, |at| at + 1)..=version).await?;
        Ok(loads)
    }

    /// Goes on with the entries of some versions. Gives whether they say anything of loads.
    pub(super) async fn go_on(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        path: &str,
        folder: &Path,
        versions: RangeInclusive<u64>,
    ) -> Result<bool> {
        const AT_ONCE: usize = 16;
        let read = |version: u64| {
            let (store, name) = (Arc::clone(store), format!("{version:020}.json"));
            let location = folder.clone().join(name.as_str());
            async move {
                match store.get(&location).await {
                    Ok(found) => Ok((name, found.bytes().await?)),
                    Err(object_store::Error::NotFound { .. }) => Err(damaged(path, &name, MISSING)),
                    Err(error) => Err(Error::from(error)),
                }
            }
        };
        let mut entries = futures::stream::iter(versions.map(read)).buffered(AT_ONCE);
        let mut is_any = false;
        while let Some((name, bytes)) = entries.try_next().await? {
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let action: serde_json::Value =
                    serde_json::from_slice(line).map_err(|_| damaged(path, &name, UNREADABLE))?;
                let noted = &action["txn"];
                if noted.is_null() {
                    continue;
                }
                let (Some(id), Some(number)) = (noted["appId"].as_str(), noted["version"].as_i64())
                else {
                    return Err(damaged(path, &name, UNREADABLE));
                };
                if let Some(load) = id.strip_prefix(LOAD) {
                    self.0.insert(load.to_owned(), number > 0);
                    is_any = true;
                }
            }
        }
        Ok(is_any)
    }

    /// The ids of all that are noted.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
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

fn of_checkpoint(bytes: Bytes) -> Result<BTreeMap<String, bool>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let columns = ["txn.appId", "txn.version"];
    let mask = ProjectionMask::columns(reader.parquet_schema(), columns);
    let mut found = BTreeMap::new();
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
            if let Some(load) =
                id.filter(|_| noted.is_valid(row)).and_then(|id| id.strip_prefix(LOAD))
            {
                found.insert(load.to_owned(), numbers.value(row) > 0);
            }
        }
    }
    Ok(found)
}

const UNREADABLE: &str = "cannot be decoded";

fn damaged(path: &str, file: &str, what: &str) -> Error {
    Error::new(Kind::DataCorrupted, format!("the log of table {path:?} is damaged"))
        .detail(format!("file: {path}/_delta_log/{file} {what}"))
        .hint("a backup has the folder as it was; other tables are not touched by this")
}
