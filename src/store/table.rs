//! Delta tables: create, look at a version, commit files.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{
    Action, Add, DataType as KernelType, Metadata, MetadataExt as _, StructField, StructType,
    Transaction,
};
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableError};
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::cluster::{Clustering, Mark, ONE_ID, with_one_id};
use super::generation::{Holding, TableDef};
use super::group::{Replaced, RestoreVersion};
use super::log::{Broken, EntrySums, Extent, LOAD, Loads, Log, Unread, is_gone};
use super::sums::BlockSums;
use super::writer::WrittenFile;
use crate::error::{Error, Kind, Result};

/// Configuration key of a table that lists its PERSONAL columns, as a JSON array.
const PERSONAL_KEY: &str = "clientele.personal";

/// Entries of a table's log after which a checkpoint is written.
const ENTRIES_PER_CHECKPOINT: u32 = 20;

/// Tag of a file's entry in the log with the checksums of its blocks.
const SUMS_TAG: &str = "clientele.crc";

/// Tag with the checksum of the entry itself.
const ENTRY_TAG: &str = "clientele.entry";

/// Tag with a file's place in a clustered table.
const MARK_TAG: &str = "clientele.mark";

/// Configuration key of a clustered table.
const CLUSTERING_KEY: &str = "clientele.clustering";

/// Configuration key of a table that is kept by the customers of an identity graph; empty when it no longer is.
const IDENTITY_KEY: &str = "clientele.identity";

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
    /// Checksums of its blocks; files from before have none.
    pub sums: Option<Arc<BlockSums>>,
    /// Its place in a clustered table.
    pub mark: Option<Mark>,
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
    /// How its rows are kept.
    pub clustering: Option<Clustering>,
    /// All of this as a number, for [`TableDef::content`]; empty for what is from no log.
    pub content: String,
}

impl TableSnapshot {
    /// A table without files that is in no log.
    pub fn unlogged(path: String, schema: SchemaRef) -> Self {
        Self {
            path,
            version: 0,
            schema,
            files: vec![],
            personal: vec![],
            clustering: None,
            content: String::new(),
        }
    }

    /// Rows of all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }

    /// What a version holds, as a number: whichever way a log has come to it. A file's own entry has a checksum, with which it is compared.
    fn content_of(&self, bounds: Bounds) -> Result<String> {
        let is_told = |field: &&Arc<Field>| {
            matches!(field.data_type(), DataType::Date32 | DataType::Int32 | DataType::Int64)
        };
        let told: Vec<&Arc<Field>> = match bounds {
            Bounds::Told => self.schema.fields().iter().filter(is_told).collect(),
            Bounds::LeftOut => Vec::new(),
        };
        let file = |file: &FileEntry| {
            let name = file.path.strip_prefix(&self.path).unwrap_or(&file.path);
            let mut all = format!("{name}|{}|{}", file.size, file.rows);
            for field in &told {
                // A column of nothing but NULL has none.
                if let Some((low, high)) = file.bounds.get(field.name())
                    && !low.is_null()
                    && !high.is_null()
                {
                    all.push_str(&format!("|{}|{low}|{high}", field.name()));
                }
            }
            all
        };
        let mut files: Vec<String> = self.files.iter().map(file).collect();
        files.sort_unstable();
        let column = |field: &Arc<Field>| {
            format!("{}|{}|{}", field.name(), field.data_type(), field.is_nullable())
        };
        let columns: Vec<String> = self.schema.fields().iter().map(column).collect();
        let all = serde_json::to_vec(&(files, columns, &self.personal, &self.clustering))?;
        Ok(blake3::hash(&all).to_hex()[..32].to_owned())
    }

    /// Refuses what is not what was published.
    fn unless_changed(&self, def: &TableDef) -> Result<()> {
        match &def.holding.content {
            Some(content) if *content != self.content => {
                // Earlier versions told it without the bounds of files.
                if *content == self.content_of(Bounds::LeftOut)? {
                    return Ok(());
                }
            }
            _ => return Ok(()),
        }
        Err(Error::new(
            Kind::DataCorrupted,
            format!("the log of table {:?} is damaged: version {} is not what was published", def.path, def.version),
        )
        .detail(format!("folder: {}/_delta_log", def.path))
        .hint("a backup has the folder as it was; CREATE TABLE ... AS SELECT * FROM it VERSION AS OF n keeps an earlier version that can be read; other tables are not touched by this"))
    }

    /// The graph by whose customers the rows are kept.
    pub fn graph(&self) -> Option<&str> {
        self.clustering.as_ref()?.graph.as_deref()
    }

    /// The same table with the column of customers that the files of one have that is kept by them.
    pub fn with_one_id(&self) -> Self {
        match self.has_one_id() {
            true => self.clone(),
            false => Self { schema: with_one_id(&self.schema), ..self.clone() },
        }
    }

    /// The same table with its own columns alone.
    pub fn without_one_id(&self) -> Self {
        let own = self.schema.fields().iter().filter(|field| field.name() != ONE_ID);
        let schema = Arc::new(Schema::new(own.cloned().collect::<Vec<_>>()));
        Self { schema, ..self.clone() }
    }

    /// Whether the column of customers is among those that are read.
    pub fn has_one_id(&self) -> bool {
        self.schema.fields().last().is_some_and(|field| field.name() == ONE_ID)
    }

    /// The same table with some of its files.
    pub fn only(&self, files: &[FileEntry]) -> Self {
        Self { files: files.to_vec(), ..self.clone() }
    }

    /// The same table with other files, which need not be committed.
    pub fn with_files(&self, files: &[WrittenFile]) -> Self {
        let entry = |file: &WrittenFile| {
            let sums = file.sums.as_ref().and_then(|text| BlockSums::decode(text, file.size));
            FileEntry {
                path: format!("{}/{}", self.path, file.name),
                size: file.size,
                rows: file.rows,
                bounds: bounds_of(&file.stats),
                sums: sums.map(Arc::new),
                mark: file.mark.clone(),
            }
        };
        Self { files: files.iter().map(entry).collect(), ..self.clone() }
    }
}

/// How a commit treats the files that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommitMode {
    /// Adds to them.
    Append,
    /// Takes their place, whichever they are at that moment.
    Replace,
    /// Takes the place of some, if the table is still the one that was read.
    Rewrite(Replaced),
    /// Brings back those of a version.
    Restore(RestoreVersion),
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
    /// Whether reads are compared with checksums.
    verifies: AtomicBool,
}

impl Tables {
    pub(crate) fn new(root_store: Arc<dyn ObjectStore>, warehouse_url: Url) -> Self {
        Self {
            root_store,
            warehouse_url,
            handles: Mutex::default(),
            snapshots: Mutex::default(),
            verifies: AtomicBool::new(true),
        }
    }

    pub(crate) fn verify_reads(&self, verify: bool) {
        self.verifies.store(verify, Ordering::Relaxed);
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Where a table's folder lies, as an address and in the store.
    fn folder(&self, path: &str) -> Result<(Url, Path)> {
        let bad =
            |e: &dyn std::fmt::Display| Error::internal(format!("table folder {path:?}: {e}"));
        let url = self.warehouse_url.join(&format!("{path}/")).map_err(|e| bad(&e))?;
        let folder = Path::from_url_path(url.path()).map_err(|e| bad(&e))?;
        Ok((url, folder))
    }

    /// A table's log.
    fn log<'a>(&'a self, path: &'a str) -> Result<Log<'a>> {
        Ok(Log::new(&self.root_store, path, self.folder(path)?.1.join("_delta_log")))
    }

    /// A table's log, to be compared with what was published.
    fn log_of<'a>(&'a self, def: &'a TableDef) -> Result<Log<'a>> {
        Ok(self.log(&def.path)?.published(def.version, &def.holding))
    }

    fn log_store(&self, path: &str) -> Result<LogStoreRef> {
        let (url, prefix) = self.folder(path)?;
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
        clustering: Option<&Clustering>,
    ) -> Result<u64> {
        let columns: StructType = schema.try_into_kernel()?;
        // Statistics of personal columns would put people's values into the log.
        let with_statistics: Vec<String> = schema
            .fields()
            .iter()
            .filter(|f| !personal.contains(f.name()))
            .map(|f| format!("`{}`", f.name().replace('`', "``")))
            .collect();
        let mut configuration = vec![
            ("delta.dataSkippingStatsColumns", Some(with_statistics.join(","))),
            ("delta.enableExpiredLogCleanup", Some("false".to_owned())),
            // Who opens a table reads so many entries at most: each is a request of an object store.
            ("delta.checkpointInterval", Some(ENTRIES_PER_CHECKPOINT.to_string())),
            (PERSONAL_KEY, Some(serde_json::to_string(personal)?)),
        ];
        if let Some(clustering) = clustering {
            configuration.push((CLUSTERING_KEY, Some(serde_json::to_string(clustering)?)));
        }
        let table = DeltaTable::new(self.log_store(path)?)
            .create()
            .with_columns(columns.fields().cloned())
            .with_configuration(configuration)
            .with_raise_if_key_not_exists(false)
            .with_save_mode(SaveMode::ErrorIfExists)
            // Without this a lost race would put our schema over the winner's.
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            .await?;
        let version = table.version().unwrap_or(0);
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), table);
        Ok(version)
    }

    /// The table as it was published, from memory when it was looked at before.
    pub(crate) async fn snapshot(&self, def: &TableDef) -> Result<Arc<TableSnapshot>> {
        let read = async {
            let snapshot = self.at(&def.path, def.version).await?;
            snapshot.unless_changed(def)?;
            Ok(snapshot)
        };
        match read.await {
            Ok(snapshot) => Ok(snapshot),
            Err(error) => Err(Box::pin(self.with_culprit(def, error)).await),
        }
    }

    /// Adds to an error, which is of the log of a published version, the file that is not what it was.
    async fn with_culprit(&self, def: &TableDef, error: Error) -> Error {
        // A store that was away says nothing about what is in it.
        if error.kind() == Kind::Io {
            return error;
        }
        match self.culprit(def).await {
            Some(broken) => error.detail(broken.detail()),
            None => error,
        }
    }

    /// The file of a published version's log that is not what it was, when one can be told.
    pub(super) async fn culprit(&self, def: &TableDef) -> Option<Broken> {
        self.log_of(def).ok()?.culprit(def.version).await
    }

    async fn at(&self, path: &str, version: u64) -> Result<Arc<TableSnapshot>> {
        let key = (path.to_owned(), version);
        if let Some(found) = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
        {
            return Ok(Arc::clone(found));
        }
        let table = self.load(path, Some(version)).await?;
        let verifies = self.verifies.load(Ordering::Relaxed);
        let snapshot = read_snapshot(path, version, &table, verifies);
        let snapshot = Arc::new(snapshot.map_err(|error| error.about(path))?);
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        // A few versions back are kept for statements that are still running; older ones can be read again.
        const VERSIONS_KEPT: u64 = 4;
        snapshots.retain(|(p, v), _| p != path || v + VERSIONS_KEPT > version);
        snapshots.insert(key, Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The table as the log has it now, past what is in memory.
    pub(crate) async fn read(&self, def: &TableDef) -> Result<TableSnapshot> {
        let mut table = DeltaTable::new(self.log_store(&def.path)?);
        load_to(&mut table, Some(def.version)).await?;
        let snapshot = read_snapshot(&def.path, def.version, &table, true)?;
        snapshot.unless_changed(def)?;
        Ok(snapshot)
    }

    /// The newest version that `path` has in its own log, published or not.
    async fn load(&self, path: &str, version: Option<u64>) -> Result<DeltaTable> {
        let kept = self.handles.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let mut table = match kept {
            Some(table) => table,
            None => DeltaTable::new(self.log_store(path)?),
        };
        // A vacuum shortens the log: it may begin later than when the handle was made, or when it was listed a moment ago.
        const TRIES_MAX: u32 = 8;
        for attempt in 1..=TRIES_MAX {
            let loaded = match version {
                Some(version) if table.version() == Some(version) => Ok(()),
                version => load_to(&mut table, version).await,
            };
            match loaded {
                Ok(()) => break,
                Err(error) if attempt == TRIES_MAX => return Err(Error::from(error).about(path)),
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    table = DeltaTable::new(self.log_store(path)?);
                }
            }
        }
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newer = handles.get(path).is_none_or(|kept| kept.version() <= table.version());
        if is_newer {
            handles.insert(path.to_owned(), table.clone());
        }
        Ok(table)
    }

    /// Which of some loads a published table has taken, what is committed and not published included.
    pub(crate) async fn taken(&self, def: &TableDef, loads: &[String]) -> Result<Vec<String>> {
        // A vacuum may shorten the log at any moment.
        const TRIES_MAX: u32 = 5;
        let log = self.log_of(def)?;
        let mut tries = 0;
        let known = loop {
            tries += 1;
            let newest = self.newest_version(&def.path).await?.max(def.version);
            let known = async {
                let mut known = self.loads(def, Extent::Loads).await?;
                known.go_on(log.entries(def.version + 1..=newest).await?.loads);
                Ok(known)
            };
            match known.await {
                Err(error) if is_gone(&error) && tries < TRIES_MAX => {}
                known => break known?,
            }
        };
        Ok(loads.iter().filter(|load| known.has(load)).cloned().collect())
    }

    /// The loads of a published version, when they are what was published.
    pub(super) async fn loads(&self, def: &TableDef, extent: Extent) -> Result<Loads> {
        let loads = self.log_of(def)?.read(def.version, extent).await?.loads;
        match &def.holding.loads {
            Some(published) if *published != loads.sum() => {
                Err(self.with_culprit(def, damaged_loads(&def.path)).await)
            }
            _ => Ok(loads),
        }
    }

    /// What is published of a committed version, beside it; `before` is what was published of the table.
    pub(crate) async fn holding(
        &self,
        path: &str,
        version: u64,
        before: Option<&TableDef>,
    ) -> Result<Holding> {
        let content = Some(self.at(path, version).await?.content.clone());
        let log = self.log(path)?;
        let mut sums = EntrySums::default();
        if let Some(def) = before.filter(|def| def.path == path && def.version <= version) {
            sums = EntrySums::decode(&def.holding.entries, def.version);
            match log.entries(def.version + 1..=version).await {
                Ok(new) => {
                    sums.go_on(new.sums);
                    if let (true, Some(loads)) = (new.loads.is_empty(), &def.holding.loads) {
                        let (loads, entries) = (Some(loads.clone()), sums.encode());
                        return Ok(Holding { content, loads, entries });
                    }
                }
                // A vacuum has taken some of them meanwhile: a checkpoint has what they said.
                Err(Unread::Broken(_)) => sums = EntrySums::default(),
                Err(Unread::Failed(error)) => return Err(error),
            }
        }
        let read = log.read(version, Extent::Loads).await?;
        if !sums.ends_at(version) {
            sums = read.sums;
        }
        Ok(Holding { content, loads: Some(read.loads.sum()), entries: sums.encode() })
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
            let Some(seen) = seen_in(path, &table, transactions).await? else {
                self.forget(path);
                continue;
            };
            match seen.first() {
                Some(first) if Some(first) == transactions.first() => {
                    return Ok(Committed::Version(table.version().unwrap_or(0)));
                }
                Some(other) => return Ok(Committed::Taken(other.clone())),
                None => {}
            }
            let base = match &mode {
                CommitMode::Rewrite(replaced) => Some(replaced.version),
                CommitMode::Restore(restore) => restore.from,
                CommitMode::Append | CommitMode::Replace => None,
            };
            if base.is_some() && table.version() != base {
                let told = match &mode {
                    CommitMode::Restore(_) => "others have changed the table meanwhile",
                    _ => "the table was changed while the load was compared with it",
                };
                return Err(Error::new(Kind::StaleBase, told).hint("run it again"));
            }
            let mut ids: Vec<Transaction> =
                transactions.iter().map(|id| Transaction::new(id, 1)).collect();
            let mut past = None;
            if let CommitMode::Restore(restore) = &mode {
                let then = self.past(path, restore.version).await?;
                ids.extend(loads_back(&self.log(path)?, &table, &then).await?);
                past = Some(then);
            }
            match try_commit(path, &table, files, &mode, ids, past.as_ref()).await {
                Ok(version) => return Ok(Committed::Version(version)),
                Err(error) if is_lost_race(&error) => {
                    if is_shortened_log(&error) {
                        self.forget(path);
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new(Kind::Serialization, "other writers were faster every time")
            .hint("run the statement again"))
    }

    /// The newest version that the log of a table has.
    pub(crate) async fn newest_version(&self, path: &str) -> Result<u64> {
        Ok(self.load(path, None).await?.version().unwrap_or(0))
    }

    /// The table as it was at `version`, with all of its files still there.
    async fn past(&self, path: &str, version: u64) -> Result<DeltaTable> {
        let mut past = DeltaTable::new(self.log_store(path)?);
        load_to(&mut past, Some(version)).await?;
        let store = past.log_store().object_store(None);
        let files: Vec<Path> = past
            .snapshot()?
            .log_data()
            .into_iter()
            .map(|file| Path::from(file.path().as_ref()))
            .collect();
        for file in files {
            store.head(&file).await?;
        }
        Ok(past)
    }

    /// Puts `outputs` in the place of `inputs`, whose rows they hold, all (`is_same`) or some, while others may append.
    ///
    /// `None` when one of the inputs is gone: somebody else has rewritten it. Delta's own conflict rules would let that pass
    /// and double the rows, so no retry is left to them.
    pub(crate) async fn rewrite(
        &self,
        path: &str,
        inputs: &[String],
        outputs: &[WrittenFile],
        is_same: bool,
    ) -> Result<Option<u64>> {
        const TRIES_MAX: u32 = 100;
        for _ in 0..TRIES_MAX {
            let table = self.load(path, None).await?;
            let state = table.snapshot()?;
            let mut actions: Vec<Action> = Vec::new();
            let mut is_done = false;
            for file in state.log_data() {
                if inputs.iter().any(|input| *input == format!("{path}/{}", file.path())) {
                    actions.push(file.remove_action(!is_same).into());
                }
                is_done |= outputs.iter().any(|output| output.name == file.path());
            }
            if is_done {
                // A store may carry out a commit and say that it has failed; nobody else has files of these names.
                return Ok(Some(table.version().unwrap_or(0)));
            }
            if actions.len() != inputs.len() {
                return Ok(None);
            }
            let added = outputs.iter().map(|file| Add { data_change: !is_same, ..add_of(file) });
            actions.extend(added.map(Action::Add));
            let properties = CommitProperties::default()
                .with_max_retries(0)
                .with_cleanup_expired_logs(Some(false))
                .with_create_checkpoint(true);
            // A predicate would put what was looked for into the log.
            let operation = match is_same {
                true => DeltaOperation::Optimize { predicate: None, target_size: 0 },
                false => DeltaOperation::Delete { predicate: None },
            };
            match commit_actions(&table, actions, properties, operation).await {
                Ok(version) => return Ok(Some(version)),
                Err(error) if is_lost_race(&error) => {
                    if is_shortened_log(&error) {
                        self.forget(path);
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new(Kind::Serialization, "other writers were faster every time")
            .hint("run the statement again"))
    }

    /// Adds a column, which rows from before have NULL in; `personal` are the PERSONAL columns from now on.
    pub(crate) async fn add_column(
        &self,
        path: &str,
        field: &Field,
        personal: &[String],
    ) -> Result<u64> {
        let added: StructType = (&Schema::new(vec![field.clone()])).try_into_kernel()?;
        let added: Vec<StructField> = added.fields().cloned().collect();
        let marks = serde_json::to_string(personal)?;
        let table = self.load(path, None).await?;
        let snapshot = table.snapshot()?;
        let schema = snapshot.schema();
        let all = schema.fields().cloned().chain(added.clone());
        let all = StructType::try_new(all).map_err(DeltaTableError::from)?;
        // The mark and the column come together: there is no moment at which the column is there without it.
        let metadata = snapshot.metadata().clone();
        let metadata = metadata.with_schema(&all).map_err(DeltaTableError::from)?;
        let metadata = with_key(metadata, PERSONAL_KEY, marks)?;
        let mut actions = vec![Action::Metadata(metadata)];
        let is_naive = matches!(field.data_type(), DataType::Timestamp(_, None));
        let knows_naive = schema.fields().any(|f| *f.data_type() == KernelType::TIMESTAMP_NTZ);
        if is_naive && !knows_naive {
            // The first time without a zone is a feature of the table; so it is of one that is made with such a column.
            actions.push(serde_json::from_value(serde_json::json!({"protocol": {
                "minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"]
            }}))?);
        }
        self.alter(path, &table, actions, DeltaOperation::AddColumn { fields: added }).await
    }

    /// Commits a change of a table's own description. What the library's builders commit lists features that the library then
    /// refuses to write, where a column is a time without a zone.
    async fn alter(
        &self,
        path: &str,
        table: &DeltaTable,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<u64> {
        let id = format!("alter:{}", uuid::Uuid::new_v4().simple());
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_cleanup_expired_logs(Some(false))
            .with_create_checkpoint(true)
            .with_application_transactions(vec![Transaction::new(&id, 1)]);
        let committed = commit_actions(table, actions, properties, operation).await;
        self.forget(path);
        match committed {
            Ok(version) => Ok(version),
            Err(error) if is_lost_race(&error) => {
                // A first try may have been carried out and not answered.
                let newest = self.load(path, None).await?;
                match (noted_as(&newest, &id).await?, newest.version()) {
                    (1.., Some(version)) => Ok(version),
                    _ => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the rows of a table by the customers of a graph from now on, or as CREATE TABLE said.
    pub(crate) async fn set_identity(
        &self,
        path: &str,
        by_graph: Option<&Clustering>,
    ) -> Result<u64> {
        let by_graph = by_graph.map(serde_json::to_string).transpose()?.unwrap_or_default();
        let table = self.load(path, None).await?;
        let metadata = table.snapshot()?.metadata().clone();
        let metadata = with_key(metadata, IDENTITY_KEY, by_graph.clone())?;
        let properties = HashMap::from([(IDENTITY_KEY.to_owned(), by_graph)]);
        let operation = DeltaOperation::SetTableProperties { properties };
        self.alter(path, &table, vec![Action::Metadata(metadata)], operation).await
    }

    /// Deletes what only versions before `oldest` have, and makes the log begin with it. Gives the number of data files,
    /// their bytes, and the number of log entries.
    ///
    /// Files that no version ever had are a writer's that is still at work, or was killed: they stay for a day. Entries of
    /// the log that are younger than `keep` stay too: somebody may have just listed them.
    pub(crate) async fn vacuum(
        &self,
        path: &str,
        oldest: u64,
        keep: chrono::TimeDelta,
    ) -> Result<(usize, u64, usize)> {
        const ORPHAN_AGE: chrono::TimeDelta = chrono::TimeDelta::hours(24);
        let store = self.log_store(path)?.object_store(None);
        let listed: Vec<_> = store.list(None).try_collect().await?;
        let log_version = |file: &object_store::ObjectMeta| -> Option<u64> {
            let name = file.location.as_ref().strip_prefix("_delta_log/")?;
            name.split('.').next()?.parse().ok()
        };
        // An earlier vacuum that was asked to keep less has made the log begin later.
        let begins = |file: &&object_store::ObjectMeta| {
            file.location.as_ref().contains(".checkpoint.") || log_version(file) == Some(0)
        };
        let begin = listed.iter().filter(begins).filter_map(log_version).min().unwrap_or(0);
        let oldest = oldest.max(begin);
        let mut table = DeltaTable::new(self.log_store(path)?);
        load_to(&mut table, Some(oldest)).await?;
        let mut kept: HashSet<String> =
            table.snapshot()?.log_data().into_iter().map(|f| f.path().to_string()).collect();
        let mut known = HashSet::new();
        for file in &listed {
            let (Some(version), true) =
                (log_version(file), file.location.as_ref().ends_with(".json"))
            else {
                continue;
            };
            let entry = store.get(&file.location).await?.bytes().await?;
            for line in entry.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let action: serde_json::Value = serde_json::from_slice(line).map_err(|_| {
                    let entry =
                        format!("{path}/{} is damaged: it is no entry of a log", file.location);
                    Error::new(Kind::DataCorrupted, entry)
                })?;
                if let Some(added) = action["add"]["path"].as_str() {
                    known.insert(added.to_owned());
                    if version > oldest {
                        kept.insert(added.to_owned());
                    }
                }
                if let Some(removed) = action["remove"]["path"].as_str() {
                    known.insert(removed.to_owned());
                }
            }
        }
        let young = chrono::Utc::now() - ORPHAN_AGE;
        let is_gone = |file: &&object_store::ObjectMeta| {
            let name = file.location.as_ref();
            name.ends_with(".parquet")
                && !name.starts_with("_delta_log/")
                && !kept.contains(name)
                && (known.contains(name) || file.last_modified < young)
        };
        let gone: Vec<_> = listed.iter().filter(is_gone).collect();
        for file in &gone {
            delete(store.as_ref(), &file.location).await?;
        }
        let listed_before = chrono::Utc::now() - keep;
        let is_old = |file: &&object_store::ObjectMeta| {
            log_version(file).is_some_and(|v| v < oldest) && file.last_modified <= listed_before
        };
        let old: Vec<_> = listed.iter().filter(is_old).collect();
        if !old.is_empty() {
            let checkpoint = format!("_delta_log/{oldest:020}.checkpoint.parquet");
            if !listed.iter().any(|file| file.location.as_ref() == checkpoint) {
                deltalake::protocol::checkpoints::create_checkpoint(&table, None).await?;
            }
            for file in &old {
                delete(store.as_ref(), &file.location).await?;
            }
        }
        let bytes = gone.iter().map(|file| file.size).sum();
        Ok((gone.len(), bytes, old.len()))
    }

    /// Forgets what is in memory of a dropped table.
    pub(crate) fn forget(&self, path: &str) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).retain(|(p, _), _| p != path);
    }
}

/// Deletes a file, unless somebody else has.
async fn delete(store: &dyn ObjectStore, location: &Path) -> Result<()> {
    match store.delete(location).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Which transactions the log has; `None` when what is in memory of it is older than a vacuum.
async fn seen_in(
    path: &str,
    table: &DeltaTable,
    transactions: &[String],
) -> Result<Option<Vec<String>>> {
    let mut seen = Vec::new();
    for id in transactions {
        match noted_as(table, id).await {
            Ok(0) => {}
            Ok(_) => seen.push(id.clone()),
            Err(error) if is_shortened_log(&error) => return Ok(None),
            Err(error) => return Err(Error::from(error).about(path)),
        }
    }
    Ok(Some(seen))
}

/// The number that a transaction was noted with: a load that a restore has undone is kept with a zero.
async fn noted_as(table: &DeltaTable, id: &str) -> std::result::Result<i64, DeltaTableError> {
    let log_store = table.log_store();
    let state = table.snapshot()?;
    Ok(decoded(state.transaction_version(log_store.as_ref(), id)).await?.unwrap_or(0))
}

/// Reads a table's log up to a version, or to its end.
async fn load_to(
    table: &mut DeltaTable,
    version: Option<u64>,
) -> std::result::Result<(), DeltaTableError> {
    match version {
        Some(version) => decoded(table.load_version(version)).await,
        None => decoded(table.load()).await,
    }
}

/// What the library reads from a log. Some damage of a checkpoint makes its decoder stop in the middle, which is an error as any other.
async fn decoded<T>(
    reading: impl Future<Output = std::result::Result<T, DeltaTableError>>,
) -> std::result::Result<T, DeltaTableError> {
    let stopped = |_| Err(DeltaTableError::generic("a checkpoint cannot be decoded"));
    AssertUnwindSafe(Box::pin(reading)).catch_unwind().await.unwrap_or_else(stopped)
}

fn damaged_loads(path: &str) -> Error {
    let told = format!(
        "the log of table {path:?} is damaged: the loads that it knows are not those that were published"
    );
    Error::new(Kind::DataCorrupted, told).detail(format!("folder: {path}/_delta_log")).hint(
        "no file can be loaded into the table until the folder is what it was: a backup has it; CREATE TABLE ... AS SELECT * FROM it keeps the rows in a table that takes loads",
    )
}

async fn try_commit(
    path: &str,
    table: &DeltaTable,
    files: &[WrittenFile],
    mode: &CommitMode,
    transactions: Vec<Transaction>,
    past: Option<&DeltaTable>,
) -> std::result::Result<u64, DeltaTableError> {
    let state = table.snapshot()?;
    let mut actions: Vec<Action> = match mode {
        CommitMode::Append => Vec::new(),
        CommitMode::Replace => {
            state.log_data().into_iter().map(|f| f.remove_action(true).into()).collect()
        }
        CommitMode::Rewrite(replaced) => state
            .log_data()
            .into_iter()
            .filter(|f| replaced.files.contains(&format!("{path}/{}", f.path())))
            .map(|f| f.remove_action(true).into())
            .collect(),
        CommitMode::Restore(_) => match past {
            Some(past) => actions_back(table, past)?,
            None => Vec::new(),
        },
    };
    actions.extend(files.iter().map(|file| Action::Add(add_of(file))));
    let mut properties = CommitProperties::default()
        .with_cleanup_expired_logs(Some(false))
        .with_create_checkpoint(true);
    // A rewrite must be based on exactly the version it read: Delta's own conflict check lets two rewrites pass.
    properties = properties.with_max_retries(if *mode == CommitMode::Append { 15 } else { 0 });
    properties = properties.with_application_transactions(transactions);
    let save_mode =
        if *mode == CommitMode::Replace { SaveMode::Overwrite } else { SaveMode::Append };
    let operation = match mode {
        CommitMode::Restore(restore) => {
            DeltaOperation::Restore { version: Some(restore.version), datetime: None }
        }
        _ => DeltaOperation::Write { mode: save_mode, partition_by: None, predicate: None },
    };
    commit_actions(table, actions, properties, operation).await
}

/// The loads since `past` that `table` has taken or forgotten, as `past` knew them: what goes can be loaded again, what comes back
/// cannot. They are read from the log that is built on, so that none is missed which somebody commits meanwhile.
async fn loads_back(
    log: &Log<'_>,
    table: &DeltaTable,
    past: &DeltaTable,
) -> Result<Vec<Transaction>> {
    let (then, now) = (past.version().unwrap_or(0), table.version().unwrap_or(0));
    let since = log.entries(then + 1..=now).await?.loads;
    let mut back = Vec::new();
    for load in since.ids() {
        let id = format!("{LOAD}{load}");
        let before = noted_as(past, &id).await?;
        if before != noted_as(table, &id).await? {
            back.push(Transaction::new(&id, before));
        }
    }
    Ok(back)
}

/// What makes `table` hold what `past` held: its files and columns.
fn actions_back(
    table: &DeltaTable,
    past: &DeltaTable,
) -> std::result::Result<Vec<Action>, DeltaTableError> {
    let (now, then) = (table.snapshot()?, past.snapshot()?);
    let paths = |state: &deltalake::table::state::DeltaTableState| -> HashSet<String> {
        state.log_data().into_iter().map(|f| f.path().to_string()).collect()
    };
    let (now_paths, then_paths) = (paths(now), paths(then));
    let mut actions: Vec<Action> = Vec::new();
    if now.metadata() != then.metadata() {
        actions.push(Action::Metadata(then.metadata().clone()));
    }
    for file in now.log_data() {
        if !then_paths.contains(file.path().as_ref()) {
            actions.push(file.remove_action(true).into());
        }
    }
    for file in then.log_data() {
        if !now_paths.contains(file.path().as_ref()) {
            #[expect(deprecated, reason = "there is no other way to an entry with its tags")]
            let add = file.add_action();
            actions.push(Action::Add(Add { data_change: true, ..add }));
        }
    }
    Ok(actions)
}

/// A table's description with a key of ours.
fn with_key(metadata: Metadata, key: &str, value: String) -> Result<Metadata> {
    Ok(metadata.add_config_key(key.to_owned(), value).map_err(DeltaTableError::from)?)
}

/// Commits on top of the version that `table` is at.
async fn commit_actions(
    table: &DeltaTable,
    actions: Vec<Action>,
    properties: CommitProperties,
    operation: DeltaOperation,
) -> std::result::Result<u64, DeltaTableError> {
    let commit = CommitBuilder::from(properties).with_actions(actions).build(
        Some(table.snapshot()?),
        table.log_store(),
        operation,
    );
    // Durable after the second await; what follows may fail without taking anything back.
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
        tags: file.sums.as_ref().map(|sums| tags_of(file, sums)),
        ..Add::default()
    }
}

/// What the log keeps of a file beside Delta's own fields: its checksums, and one over the entry itself, because `count(*)`
/// is answered from the log alone.
fn tags_of(file: &WrittenFile, sums: &str) -> HashMap<String, Option<String>> {
    // A mark is names and numbers, which can always be written.
    let mark = file.mark.as_ref().and_then(|mark| serde_json::to_string(mark).ok());
    let entry = entry_sum(&file.name, file.size, file.rows, sums, mark.as_deref());
    let mut tags = HashMap::from([
        (SUMS_TAG.to_owned(), Some(sums.to_owned())),
        (ENTRY_TAG.to_owned(), Some(entry)),
    ]);
    if mark.is_some() {
        tags.insert(MARK_TAG.to_owned(), mark);
    }
    tags
}

fn entry_sum(name: &str, size: u64, rows: u64, sums: &str, mark: Option<&str>) -> String {
    let all = format!("{name}|{size}|{rows}|{sums}|{}", mark.unwrap_or_default());
    format!("{:08x}", crc32fast::hash(all.as_bytes()))
}

fn is_lost_race(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::Transaction {
            source: TransactionError::CommitConflict(_) | TransactionError::MaxCommitAttempts(_)
        } | DeltaTableError::VersionAlreadyExists(_)
    ) || is_shortened_log(error)
}

/// Whether entries of a log that a commit wanted to compare with are gone: a vacuum was there meanwhile.
fn is_shortened_log(error: &DeltaTableError) -> bool {
    matches!(error, DeltaTableError::ObjectStore { source: object_store::Error::NotFound { .. } })
        || ["File not found", "No such file"].iter().any(|told| error.to_string().contains(told))
}

fn read_snapshot(
    path: &str,
    version: u64,
    table: &DeltaTable,
    verifies: bool,
) -> Result<TableSnapshot> {
    let state = table.snapshot()?;
    let entry = |file: deltalake::kernel::LogicalFileView| {
        let stats = file
            .stats()
            .and_then(|s| serde_json::from_str::<serde_json::Value>(&s).ok())
            .unwrap_or_default();
        let damaged = || {
            Error::new(
                Kind::DataCorrupted,
                format!("the log of table {path:?} is damaged at the entry of a data file"),
            )
            .detail(format!("file: {}", file.path()))
        };
        let size = u64::try_from(file.size()).map_err(|_| damaged())?;
        let rows = stats["numRecords"].as_u64().ok_or_else(damaged)?;
        // The only way to the tags that this version of the library has.
        #[expect(deprecated, reason = "there is no other accessor for tags")]
        let tags = file.add_action().tags.unwrap_or_default();
        let tag = |name: &str| tags.get(name).cloned().flatten();
        let mut sums = None;
        let mut mark = None;
        // Whoever has written one of them has written both.
        if tag(SUMS_TAG).is_none() && tag(ENTRY_TAG).is_some() {
            return Err(damaged());
        }
        if let Some(text) = tag(SUMS_TAG) {
            let told = tag(MARK_TAG);
            let entry = entry_sum(&file.path(), size, rows, &text, told.as_deref());
            if tag(ENTRY_TAG) != Some(entry) {
                return Err(damaged());
            }
            if verifies {
                sums = Some(Arc::new(BlockSums::decode(&text, size).ok_or_else(damaged)?));
            }
            mark = told.and_then(|told| serde_json::from_str(&told).ok());
        }
        let path = format!("{path}/{}", file.path());
        Ok(FileEntry { path, size, rows, bounds: bounds_of(&stats), sums, mark })
    };
    let files = state.log_data().into_iter().map(entry).collect::<Result<Vec<_>>>()?;
    let personal = state.metadata().configuration().get(PERSONAL_KEY);
    let personal = personal.map_or(Ok(Vec::new()), |json| serde_json::from_str(json))?;
    let clustering = state.metadata().configuration().get(CLUSTERING_KEY);
    let clustering: Option<Clustering> =
        clustering.map(|json| serde_json::from_str(json)).transpose()?;
    let by_graph = state.metadata().configuration().get(IDENTITY_KEY);
    let by_graph = by_graph.filter(|json| !json.is_empty());
    let by_graph: Option<Clustering> =
        by_graph.map(|json| serde_json::from_str(json)).transpose()?;
    let (schema, clustering) = (state.snapshot().arrow_schema(), by_graph.or(clustering));
    let snapshot = TableSnapshot {
        path: path.to_owned(),
        version,
        schema,
        files,
        personal,
        clustering,
        content: String::new(),
    };
    Ok(TableSnapshot { content: snapshot.content_of(Bounds::Told)?, ..snapshot })
}

/// Whether what a version holds is told with the bounds of its files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bounds {
    /// Those that are asked for: of days and of whole numbers. They read the same however a log has come to them.
    Told,
    /// As earlier versions did.
    LeftOut,
}

fn bounds_of(stats: &serde_json::Value) -> HashMap<String, (serde_json::Value, serde_json::Value)> {
    let Some(smallest) = stats["minValues"].as_object() else { return HashMap::new() };
    let pair = |(column, min): (&String, &serde_json::Value)| {
        let max = stats["maxValues"].get(column)?;
        Some((column.clone(), (min.clone(), max.clone())))
    };
    smallest.iter().filter_map(pair).collect()
}
