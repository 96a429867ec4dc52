//! Delta tables: create, look at a version, commit files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Add, StructType, Transaction};
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableError};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

use super::writer::WrittenFile;
use crate::error::{Error, Kind, Result};

/// Configuration key of a table that lists its PERSONAL columns, as a JSON array.
const PERSONAL_KEY: &str = "clientele.personal";

/// One data file of a version.
#[derive(Debug, Clone, PartialEq)]
pub struct FileEntry {
    /// Path below the warehouse.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Number of rows.
    pub rows: u64,
    /// Smallest and largest value of each column that has statistics, as the log keeps them.
    pub bounds: HashMap<String, (serde_json::Value, serde_json::Value)>,
}

/// One version of a table: what a statement reads.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSnapshot {
    /// Folder below the warehouse.
    pub path: String,
    /// Delta version.
    pub version: u64,
    /// Columns, in stored types.
    pub schema: SchemaRef,
    /// Data files, newest first.
    pub files: Vec<FileEntry>,
    /// Columns marked PERSONAL.
    pub personal: Vec<String>,
}

impl TableSnapshot {
    /// Rows of all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }
}

/// How a commit treats the files that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CommitMode {
    /// Adds to them.
    Append,
    /// Takes their place, whichever they are at that moment.
    Replace,
}

/// What came of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Committed {
    /// The files are in, or were already in under the same first transaction id; this is a version that has them.
    Version(u64),
    /// Another commit carries one of the other transaction ids; nothing was added.
    Taken(String),
}

/// Every Delta table of a warehouse, with the handles that were opened.
#[derive(Debug)]
pub(crate) struct Tables {
    /// Store whose root is the root of the file system, as the Delta kernel wants it.
    root_store: Arc<dyn ObjectStore>,
    warehouse_url: Url,
    handles: Mutex<HashMap<String, DeltaTable>>,
    snapshots: Mutex<HashMap<(String, u64), Arc<TableSnapshot>>>,
}

impl Tables {
    pub(crate) fn new(root_store: Arc<dyn ObjectStore>, warehouse_url: Url) -> Self {
        Self { root_store, warehouse_url, handles: Mutex::default(), snapshots: Mutex::default() }
    }

    fn log_store(&self, path: &str) -> Result<LogStoreRef> {
        let bad =
            |e: &dyn std::fmt::Display| Error::internal(format!("table folder {path:?}: {e}"));
        let url = self.warehouse_url.join(&format!("{path}/")).map_err(|e| bad(&e))?;
        let prefix = Path::from_url_path(url.path()).map_err(|e| bad(&e))?;
        let prefixed: Arc<dyn ObjectStore> =
            Arc::new(PrefixStore::new(Arc::clone(&self.root_store), prefix));
        Ok(default_logstore(
            prefixed,
            Arc::clone(&self.root_store),
            &url,
            &StorageConfig::default(),
        ))
    }

    /// Whether a Delta table, published or not, lies in `path`.
    pub(crate) async fn exists(&self, path: &str) -> Result<bool> {
        Ok(DeltaTable::new(self.log_store(path)?).verify_deltatable_existence().await?)
    }

    /// Creates an empty table of stored types in an empty folder.
    pub(crate) async fn create(
        &self,
        path: &str,
        schema: &Schema,
        personal: &[String],
    ) -> Result<u64> {
        let columns: StructType = schema.try_into_kernel()?;
        // Statistics of personal columns would put people's values into the log.
        let with_statistics: Vec<String> = schema
            .fields()
            .iter()
            .filter(|f| !personal.contains(f.name()))
            .map(|f| format!("`{}`", f.name().replace('`', "``")))
            .collect();
        let table = DeltaTable::new(self.log_store(path)?)
            .create()
            .with_columns(columns.fields().cloned())
            .with_configuration([
                ("delta.dataSkippingStatsColumns", Some(with_statistics.join(","))),
                ("delta.enableExpiredLogCleanup", Some("false".to_owned())),
                (PERSONAL_KEY, Some(serde_json::to_string(personal)?)),
            ])
            .with_raise_if_key_not_exists(false)
            .with_save_mode(SaveMode::ErrorIfExists)
            // Without this a lost race would put our schema over the winner's.
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            .await?;
        let version = table.version().unwrap_or(0);
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), table);
        Ok(version)
    }

    /// The table at `version`, from memory when it was looked at before.
    pub(crate) async fn snapshot(&self, path: &str, version: u64) -> Result<Arc<TableSnapshot>> {
        let key = (path.to_owned(), version);
        if let Some(found) = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
        {
            return Ok(Arc::clone(found));
        }
        let table = self.load(path, Some(version)).await?;
        let snapshot = Arc::new(read_snapshot(path, version, &table)?);
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        // A few versions back are kept for statements that are still running; older ones can be read again.
        const VERSIONS_KEPT: u64 = 4;
        snapshots.retain(|(p, v), _| p != path || v + VERSIONS_KEPT > version);
        snapshots.insert(key, Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The newest version that `path` has in its own log, published or not.
    async fn load(&self, path: &str, version: Option<u64>) -> Result<DeltaTable> {
        let kept = self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let mut table = match kept {
            Some(table) => table,
            None => DeltaTable::new(self.log_store(path)?),
        };
        match version {
            Some(version) if table.version() == Some(version) => {}
            Some(version) => table.load_version(version).await?,
            None => table.load().await?,
        }
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newer = handles.get(path).is_none_or(|kept| kept.version() <= table.version());
        if is_newer {
            handles.insert(path.to_owned(), table.clone());
        }
        Ok(table)
    }

    /// Which of the transaction ids the table has seen.
    pub(crate) async fn seen(&self, path: &str, transactions: &[String]) -> Result<Vec<String>> {
        let table = self.load(path, None).await?;
        seen_in(&table, transactions).await
    }

    /// Commits `files` to the table's own log, once for each first transaction id, whoever asks how often.
    pub(crate) async fn commit(
        &self,
        path: &str,
        files: &[WrittenFile],
        mode: CommitMode,
        transactions: &[String],
    ) -> Result<Committed> {
        const TRIES_MAX: u32 = 100;
        for _ in 0..TRIES_MAX {
            let table = self.load(path, None).await?;
            let seen = seen_in(&table, transactions).await?;
            match seen.first() {
                Some(first) if Some(first) == transactions.first() => {
                    return Ok(Committed::Version(table.version().unwrap_or(0)));
                }
                Some(other) => return Ok(Committed::Taken(other.clone())),
                None => {}
            }
            match try_commit(&table, files, mode, transactions).await {
                Ok(version) => return Ok(Committed::Version(version)),
                Err(error) if is_lost_race(&error) => {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new(Kind::Serialization, "other writers were faster every time")
            .hint("run the statement again"))
    }

    /// Forgets what is in memory of a dropped table.
    pub(crate) fn forget(&self, path: &str) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).retain(|(p, _), _| p != path);
    }
}

async fn seen_in(table: &DeltaTable, transactions: &[String]) -> Result<Vec<String>> {
    let log_store = table.log_store();
    let mut seen = Vec::new();
    for id in transactions {
        if table.snapshot()?.transaction_version(log_store.as_ref(), id.clone()).await?.is_some() {
            seen.push(id.clone());
        }
    }
    Ok(seen)
}

async fn try_commit(
    table: &DeltaTable,
    files: &[WrittenFile],
    mode: CommitMode,
    transactions: &[String],
) -> std::result::Result<u64, DeltaTableError> {
    let state = table.snapshot()?;
    let mut actions: Vec<Action> = match mode {
        CommitMode::Append => Vec::new(),
        CommitMode::Replace => {
            state.log_data().into_iter().map(|f| f.remove_action(true).into()).collect()
        }
    };
    actions.extend(files.iter().map(|file| Action::Add(add_of(file))));
    let ids = transactions.iter().map(|id| Transaction::new(id, 1));
    let mut properties = CommitProperties::default()
        .with_cleanup_expired_logs(Some(false))
        .with_create_checkpoint(true);
    // A rewrite must be based on exactly the version it read: Delta's own conflict check lets two rewrites pass.
    properties = properties.with_max_retries(if mode == CommitMode::Replace { 0 } else { 15 });
    properties = properties.with_application_transactions(ids.collect());
    let save_mode =
        if mode == CommitMode::Replace { SaveMode::Overwrite } else { SaveMode::Append };
    let operation = DeltaOperation::Write { mode: save_mode, partition_by: None, predicate: None };
    let commit = CommitBuilder::from(properties).with_actions(actions).build(
        Some(state),
        table.log_store(),
        operation,
    );
    // Durable after the second await; what follows (checkpoint) may fail without taking anything back.
    let durable = commit.into_prepared_commit_future().await?.await?;
    let version = durable.version;
    if let Err(error) = durable.await {
        tracing::warn!(%error, version, "the table's log could not be checkpointed");
    }
    Ok(version)
}

fn add_of(file: &WrittenFile) -> Add {
    Add {
        path: file.name.clone(),
        size: file.size as i64,
        modification_time: file.written_at_ms,
        data_change: true,
        stats: Some(file.stats.to_string()),
        ..Add::default()
    }
}

fn is_lost_race(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::Transaction {
            source: TransactionError::CommitConflict(_) | TransactionError::MaxCommitAttempts(_)
        } | DeltaTableError::VersionAlreadyExists(_)
    )
}

fn read_snapshot(path: &str, version: u64, table: &DeltaTable) -> Result<TableSnapshot> {
    let state = table.snapshot()?;
    let entry = |file: deltalake::kernel::LogicalFileView| {
        let stats = file
            .stats()
            .and_then(|s| serde_json::from_str::<serde_json::Value>(&s).ok())
            .unwrap_or_default();
        let damaged = || {
            Error::new(
                Kind::DataCorrupted,
                format!("the log of {path:?} has no row count for a file"),
            )
            .detail(format!("file: {}", file.path()))
        };
        Ok(FileEntry {
            path: format!("{path}/{}", file.path()),
            size: u64::try_from(file.size()).map_err(|_| damaged())?,
            rows: stats["numRecords"].as_u64().ok_or_else(damaged)?,
            bounds: bounds_of(&stats),
        })
    };
    let files = state.log_data().into_iter().map(entry).collect::<Result<Vec<_>>>()?;
    let personal = state.metadata().configuration().get(PERSONAL_KEY);
    let personal = personal.map_or(Ok(Vec::new()), |json| serde_json::from_str(json))?;
    Ok(TableSnapshot {
        path: path.to_owned(),
        version,
        schema: state.snapshot().arrow_schema(),
        files,
        personal,
    })
}

fn bounds_of(stats: &serde_json::Value) -> HashMap<String, (serde_json::Value, serde_json::Value)> {
    let Some(smallest) = stats["minValues"].as_object() else { return HashMap::new() };
    let pair = |(column, min): (&String, &serde_json::Value)| {
        let max = stats["maxValues"].get(column)?;
        Some((column.clone(), (min.clone(), max.clone())))
    };
    smallest.iter().filter_map(pair).collect()
}
