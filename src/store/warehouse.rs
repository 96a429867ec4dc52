//! A warehouse folder: opened, created, and the way to everything in it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow::datatypes::{Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::cluster::{Clustering, Known};
use super::customers::Customers;
use super::erased::Erased;
use super::generation::{Chain, Change, Generation, Name, Relation, TableDef};
use super::highest::Highest;
use super::lease::Lease;
use super::readers::Readers;
use super::root::{Location, Root};
use super::sums::CheckedFile;
use super::table::{FileEntry, TableSnapshot, Tables};
use super::writer::{FileStyle, TableWriter, WrittenFile};
use crate::config::{Storage, Verify};
use crate::error::{Error, Kind, Result};

/// Under this URL the engine reads the warehouse's files; no other URL resolves.
pub const DATA_URL: &str = "warehouse://data/";

const MARKER: &str = "_clientele/warehouse.json";
const KEY_FILE: &str = "_clientele/secret.key";

/// Version of the folder's layout that this program writes.
const FORMAT: u32 = 1;

/// One publish: its number, its time in microseconds since 1970, and what it changed.
pub type Publish = (u64, i64, std::collections::BTreeMap<Name, Change>);

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    id: String,
    created_by: String,
}

/// An open warehouse. Any number of processes may hold the same one.
#[derive(Debug)]
pub struct Warehouse {
    root: Root,
    tables: Tables,
    chain: Chain,
    key: [u8; 32],
    style: RwLock<FileStyle>,
    /// The newest list of erased records that was read.
    erased: RwLock<Arc<Erased>>,
    /// The newest customers that were read, by graph.
    pub(super) customers: Mutex<HashMap<String, Arc<Customers>>>,
    readers: Readers,
    /// Names and folders of tables of which it is not known whether a change is in.
    open_changes: Mutex<BTreeSet<(Name, String)>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl Warehouse {
    /// Opens the warehouse at `location`, or makes one there when the folder is missing or empty.
    pub async fn open_or_create(location: &Location) -> Result<Self> {
        if let Location::Folder(folder) = location {
            std::fs::create_dir_all(folder)?;
        }
        match Root::open(location).await? {
            Some(root) => Self::open_or_create_in(root).await,
            None => Err(no_warehouse(location)),
        }
    }

    async fn open_or_create_in(root: Root) -> Result<Self> {
        if root.read(MARKER).await?.is_none() {
            create(&root).await?;
        }
        Self::open_in(root).await
    }

    /// Opens the warehouse at `location`, and finishes what a killed process left half done.
    pub async fn open(location: &Location) -> Result<Self> {
        match Root::open(location).await? {
            Some(root) => Self::open_in(root).await,
            None => Err(no_warehouse(location)),
        }
    }

    async fn open_in(root: Root) -> Result<Self> {
        let shown = root.location();
        let Some(marker) = root.read(MARKER).await? else { return Err(no_warehouse(shown)) };
        let marker = serde_json::from_slice::<Marker>(&marker)
            .map_err(|_| Error::new(Kind::DataCorrupted, format!("{shown}/{MARKER} is damaged")))?;
        if marker.format > FORMAT {
            return Err(Error::new(
                Kind::NotSupported,
                format!(
                    "the warehouse in {shown} has format {}, this program knows up to {FORMAT}",
                    marker.format
                ),
            )
            .hint(format!(
                "it was made by {}; use that version or a newer one",
                marker.created_by
            )));
        }
        let key = read_key(&root).await?;
        let tables = Tables::new(Arc::clone(root.whole()), root.url().clone());
        let chain = Chain::open(Arc::clone(root.store()), Highest::of(&root)).await?;
        let (style, erased, readers) = (RwLock::default(), RwLock::default(), Readers::default());
        let refreshing = tokio::sync::Mutex::default();
        let customers = Mutex::default();
        let warehouse = Self {
            root,
            tables,
            chain,
            key,
            style,
            erased,
            customers,
            readers,
            open_changes: Mutex::default(),
            refreshing,
        };
        warehouse.settle_copy(MARKER).await?;
        warehouse.finish_pending(None).await?;
        Ok(warehouse)
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Waits until no other refresh of this process is under way: each holds all records in memory, and of two of one graph
    /// only one could be published.
    pub async fn turn_to_refresh(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.refreshing.lock().await
    }

    /// The store whose root is the warehouse, for the engine's scans.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        self.root.store()
    }

    /// The store through which one data file is read: what the disk gives back is compared with what was written.
    pub fn file_store(&self, file: &FileEntry) -> Arc<dyn ObjectStore> {
        checked(self.store(), file)
    }

    /// How this process reads and writes data files.
    pub fn configure(&self, storage: &Storage) {
        self.tables.verify_reads(storage.verify == Verify::Full);
        *self.style.write().unwrap_or_else(PoisonError::into_inner) = FileStyle::of(storage);
    }

    /// Key of the identifier hashes; it never leaves the process.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    pub(super) fn known_erased(&self) -> Arc<Erased> {
        Arc::clone(&self.erased.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn note_erased(&self, erased: &Arc<Erased>) {
        let mut known = self.erased.write().unwrap_or_else(PoisonError::into_inner);
        if known.version() < erased.version() {
            *known = Arc::clone(erased);
        }
    }

    pub(super) fn readers(&self) -> &Readers {
        &self.readers
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Whether the folder is there and can be read.
    pub async fn check_alive(&self) -> Result<()> {
        self.store().head(&Path::from(MARKER)).await?;
        self.newest().await?;
        Ok(())
    }

    /// The newest published state.
    pub async fn newest(&self) -> Result<Arc<Generation>> {
        self.chain.newest().await
    }

    /// The state that publish `number` made; `None` when there is no such one.
    pub async fn generation(&self, number: u64) -> Result<Option<Generation>> {
        self.chain.at(number).await
    }

    /// The state that was published at an instant, in microseconds since 1970.
    pub async fn generation_at(&self, at_us: i64) -> Result<Option<Generation>> {
        self.chain.at_time(at_us).await
    }

    /// The newest publishes, newest first: number, time in microseconds since 1970, and what changed.
    pub async fn history(&self, most: usize) -> Result<Vec<Publish>> {
        self.chain.history(most).await
    }

    /// What a table holds, as it was published.
    ///
    /// # Errors
    /// XX001 when the table's log does not say what was published.
    pub async fn snapshot(&self, def: &TableDef) -> Result<Arc<TableSnapshot>> {
        self.tables.snapshot(def).await
    }

    /// A file of a past version that was taken away since: logs may say longer what files there were. Those that the newest version
    /// has are not looked at; when one of them is missing, something is damaged.
    pub async fn file_taken_away(
        &self,
        then: &TableSnapshot,
        newest: Option<&TableDef>,
    ) -> Result<Option<String>> {
        const AT_ONCE: usize = 16;
        let now = match newest.filter(|def| def.path == then.path) {
            // Of a present that cannot be read nothing is known; then the past is all there is.
            Some(def) => self.snapshot(def).await.ok(),
            None => None,
        };
        let now = now.as_ref().map_or(&[][..], |now| &now.files);
        let now: HashSet<&str> = now.iter().map(|file| file.path.as_str()).collect();
        let gone: Vec<String> = { then.files.iter() }
            .filter(|file| !now.contains(file.path.as_str()))
            .map(|file| file.path.clone())
            .collect();
        let store = Arc::clone(self.root.store());
        let is_missing = move |path: String| {
            let store = Arc::clone(&store);
            async move {
                match store.head(&Path::from(path.as_str())).await {
                    Ok(_) => Ok(None),
                    Err(object_store::Error::NotFound { .. }) => Ok(Some(path)),
                    Err(error) => Err(Error::from(error)),
                }
            }
        };
        let mut missing = futures::stream::iter(gone).map(is_missing).buffer_unordered(AT_ONCE);
        while let Some(path) = missing.try_next().await? {
            if path.is_some() {
                return Ok(path);
            }
        }
        Ok(None)
    }

    /// The ids among `load_ids` that a table has taken already.
    ///
    /// # Errors
    /// XX001 when its log knows other loads than those that were published.
    pub async fn already_loaded(&self, def: &TableDef, load_ids: &[String]) -> Result<Vec<String>> {
        self.tables.taken(def, load_ids).await
    }

    /// Makes the folder of a new table, unseen until a group with it is published, and gives its path.
    pub async fn prepare_table(
        &self,
        name: &Name,
        schema: &Schema,
        personal: &[String],
        clustering: Option<&Clustering>,
    ) -> Result<String> {
        let plain = format!("{}/{}", folder_name(&name.schema), folder_name(&name.table));
        if !self.tables.exists(&plain).await? {
            match self.tables.create(&plain, schema, personal, clustering).await {
                Ok(_) => return Ok(plain),
                // Another process was faster with this folder; whose table it will be is decided at the publish.
                Err(_) if self.tables.exists(&plain).await? => {}
                Err(error) => return Err(error),
            }
        }
        let path = format!("{plain}-{}", uuid::Uuid::new_v4().simple());
        match self.tables.create(&path, schema, personal, clustering).await {
            Ok(_) => Ok(path),
            // Nobody else has this folder: what was answered with an error was carried out.
            Err(_) if self.tables.exists(&path).await? => Ok(path),
            Err(error) => Err(error),
        }
    }

    /// A writer of Parquet files into a table's folder. Rows of erased records do not get through it.
    ///
    /// Rows that come in have no customer yet: of a table that is kept by them they lie as they came, until a compaction.
    pub async fn writer(
        &self,
        path: &str,
        schema: SchemaRef,
        personal: &[String],
        clustering: Option<&Clustering>,
    ) -> Result<TableWriter> {
        let erased = self.erased().await?;
        let style = *self.style.read().unwrap_or_else(PoisonError::into_inner);
        let store = Arc::clone(self.store());
        let clustering = clustering.filter(|clustering| clustering.graph.is_none());
        let writer = TableWriter::new(store, path, schema, personal, style, clustering)?;
        Ok(writer.without(erased))
    }

    /// A writer of rows that the table has already, whoever's they are.
    pub fn raw_writer(
        &self,
        snapshot: &TableSnapshot,
        clustering: Option<&Clustering>,
    ) -> Result<TableWriter> {
        let style = *self.style.read().unwrap_or_else(PoisonError::into_inner);
        let (store, schema) = (Arc::clone(self.store()), Arc::clone(&snapshot.schema));
        TableWriter::new(store, &snapshot.path, schema, &snapshot.personal, style, clustering)
    }

    /// A writer of one bucket of a clustered table, whose rows come in order; of one that is kept by customers with theirs, as
    /// they are `known`. `of` names the rewrite.
    pub fn run_writer(
        &self,
        snapshot: &TableSnapshot,
        bucket: u32,
        of: &str,
        known: Option<Known>,
    ) -> Result<TableWriter> {
        let clustering = clustering_of(snapshot)?;
        let writer = self.raw_writer(snapshot, None)?;
        Ok(writer.of_bucket(bucket, of, clustering).of_customers(known))
    }

    /// A writer of fresh rows of a clustered table, which come bucket after bucket in order.
    pub fn fresh_writer(
        &self,
        snapshot: &TableSnapshot,
        known: Option<Known>,
    ) -> Result<TableWriter> {
        let clustering = clustering_of(snapshot)?;
        Ok(self.raw_writer(snapshot, None)?.of_fresh(clustering).of_customers(known))
    }

    /// Adds a column to a published table; rows from before have NULL in it.
    pub async fn add_column(
        &self,
        name: &Name,
        def: &TableDef,
        field: &arrow::datatypes::Field,
        personal: &[String],
    ) -> Result<()> {
        self.finish_pending(Some(&BTreeSet::from([name]))).await?;
        let version = self.tables.add_column(&def.path, field, personal).await?;
        self.publish_version(None, name, &def.path, version, None).await
    }

    /// Keeps the rows of a published table by the customers of a graph from now on, or again as CREATE TABLE said.
    pub async fn set_identity(
        &self,
        name: &Name,
        def: &TableDef,
        by_graph: Option<&Clustering>,
    ) -> Result<()> {
        self.finish_pending(Some(&BTreeSet::from([name]))).await?;
        let version = self.tables.set_identity(&def.path, by_graph).await?;
        self.publish_version(None, name, &def.path, version, None).await
    }

    /// Publishes `outputs` in the place of `inputs`, which hold the same rows; `false` when somebody else was faster.
    ///
    /// # Errors
    /// 40001 when it is done under a `lease` that somebody else has taken over.
    pub async fn publish_rewrite(
        &self,
        lease: Option<Lease>,
        name: &Name,
        snapshot: &TableSnapshot,
        inputs: &[String],
        outputs: &[WrittenFile],
    ) -> Result<bool> {
        // A commit of an unfinished group in the same log would become visible with ours.
        self.finish_pending(Some(&BTreeSet::from([name]))).await?;
        if let Err(error) = self.check_lease(lease).await {
            self.discard(&snapshot.path, outputs).await;
            return Err(error);
        }
        let Some(version) = self.tables.rewrite(&snapshot.path, inputs, outputs, true).await?
        else {
            self.discard(&snapshot.path, outputs).await;
            self.publish_committed(name, &snapshot.path).await?;
            return Ok(false);
        };
        self.publish_version(lease, name, &snapshot.path, version, None).await?;
        Ok(true)
    }

    /// Keeps in mind tables of which it is not known whether a change of this process is in.
    pub(super) fn leave_open(&self, tables: impl Iterator<Item = (Name, String)>) {
        self.open_changes.lock().unwrap_or_else(PoisonError::into_inner).extend(tables);
    }

    /// Finishes changes that were left open, so that what is seen of them is what will stay.
    pub(super) async fn settle_open(&self) -> Result<()> {
        let open = self.open_changes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, path) in open {
            self.finish_pending(Some(&BTreeSet::from([&name]))).await?;
            self.publish_committed(&name, &path).await?;
            let mut open = self.open_changes.lock().unwrap_or_else(PoisonError::into_inner);
            open.remove(&(name, path));
        }
        Ok(())
    }

    /// Makes visible what the log of a table has beyond its published version: a process that ended between a commit and its
    /// publishing has left it, and everybody who compares with what is published would find the table changed for ever.
    pub async fn publish_committed(&self, name: &Name, path: &str) -> Result<()> {
        if self.newest().await?.table(name).is_none_or(|def| def.path != path) {
            // Dropped or replaced meanwhile, and perhaps vacuumed.
            return Ok(());
        }
        let committed = self.tables.newest_version(path).await?;
        // A commit that is of a group becomes visible with the others of it. The version was read before: what is still not
        // published then is of no group.
        self.finish_pending(Some(&BTreeSet::from([name]))).await?;
        let is_behind = |state: &Generation| {
            state.table(name).is_some_and(|def| def.path == path && def.version < committed)
        };
        let newest = self.newest().await?;
        if !is_behind(newest.as_ref()) {
            return Ok(());
        }
        let holding = self.tables.holding(path, committed, newest.table(name)).await?;
        let publish = self.chain.publish(|state| {
            let mut changes = std::collections::BTreeMap::new();
            if is_behind(state) {
                let def = TableDef {
                    path: path.to_owned(),
                    version: committed,
                    // Whether those who were erased are out of it is not known: it may be a version that was brought back.
                    erased: 0,
                    holding: holding.clone(),
                    rows_version: committed,
                };
                changes.insert(name.clone(), Change::Set(Relation::Table(def)));
            }
            Ok(changes)
        });
        publish.await?;
        tracing::info!(table = %name, "a commit that another process had left was published");
        Ok(())
    }

    /// Makes a version of a table visible, unless a later one is; `clean_to` is the version of `system.erased` up to which it
    /// is known to be clean.
    pub(super) async fn publish_version(
        &self,
        lease: Option<Lease>,
        name: &Name,
        path: &str,
        version: u64,
        clean_to: Option<u64>,
    ) -> Result<()> {
        let newest = self.newest().await?;
        let holding = self.tables.holding(path, version, newest.table(name)).await?;
        let publish = self.chain.publish_under(lease, |state| {
            let mut changes = std::collections::BTreeMap::new();
            // A table that was dropped meanwhile stays dropped.
            if let Some(def) = state.table(name).filter(|def| def.path == path) {
                // What is known of this version says nothing of a later one.
                let clean_to = clean_to.filter(|_| def.version <= version);
                // A commit between the two may have brought people back, and is not published yet.
                let known = if def.version + 1 < version { 0 } else { def.erased };
                // What was said of a version stays said.
                let said = &def.holding;
                let is_said = def.version > version
                    || def.version == version && said.content.is_some() && said.loads.is_some();
                let holding = if is_said { said } else { &holding }.clone();
                let def = TableDef {
                    path: def.path.clone(),
                    version: def.version.max(version),
                    erased: clean_to.unwrap_or(known),
                    holding,
                    rows_version: def.rows_version,
                };
                changes.insert(name.clone(), Change::Set(Relation::Table(def)));
            }
            Ok(changes)
        });
        publish.await?;
        Ok(())
    }

    /// Publishes changes of names alone. `changes` sees the state it builds on and may refuse.
    pub async fn publish_names(
        &self,
        changes: impl FnMut(&Generation) -> Result<std::collections::BTreeMap<Name, Change>>,
    ) -> Result<Arc<Generation>> {
        self.chain.publish(changes).await
    }

    /// Deletes folders of tables that no name refers to.
    pub async fn delete_folders(&self, folders: &[String]) -> Result<()> {
        let newest = self.newest().await?;
        let in_use = |path: &str| {
            newest.relations.values().any(|r| matches!(r, Relation::Table(t) if t.path == path))
        };
        for path in folders.iter().filter(|path| !in_use(path)) {
            self.tables.forget(path);
            let files = self.store().list(Some(&Path::from(path.as_str())));
            let locations = Box::pin(futures::StreamExt::map(files, |f| f.map(|f| f.location)));
            let deleted: Vec<_> = self.store().delete_stream(locations).try_collect().await?;
            tracing::debug!(files = deleted.len(), "a folder that no table has was deleted");
            self.root.remove_folder(path);
        }
        Ok(())
    }

    /// Removes files that were written for a commit which did not happen.
    pub async fn discard(&self, path: &str, files: &[super::WrittenFile]) {
        for file in files {
            if let Err(error) =
                self.store().delete(&Path::from(format!("{path}/{}", file.name))).await
            {
                tracing::warn!(%error, "a file without a commit could not be removed");
            }
        }
    }
}

fn clustering_of(snapshot: &TableSnapshot) -> Result<&Clustering> {
    let clustering = snapshot.clustering.as_ref();
    clustering.ok_or_else(|| Error::internal("only clustered tables have buckets"))
}

/// `store` for one data file, compared with its checksums when it has some.
pub fn checked(store: &Arc<dyn ObjectStore>, file: &FileEntry) -> Arc<dyn ObjectStore> {
    match &file.sums {
        Some(sums) => Arc::new(CheckedFile::new(Arc::clone(store), Arc::clone(sums))),
        None => Arc::clone(store),
    }
}

/// A name as a folder: what is unusual in a path is written as its code, so names never collide or climb.
fn folder_name(name: &str) -> String {
    let mut folder = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' {
            folder.push(c);
        } else {
            folder.push_str(&format!("-{:x}-", u32::from(c)));
        }
    }
    match folder.strip_prefix('_') {
        Some(rest) => format!("-5f-{rest}"),
        None => folder,
    }
}

fn no_warehouse(location: &Location) -> Error {
    Error::new(Kind::UndefinedFile, format!("there is no warehouse in {location}"))
        .hint("clientele load and clientele serve create one; --dir names another place")
}

async fn create(root: &Root) -> Result<()> {
    let listed = root.store().list_with_delimiter(None).await?;
    let names = listed.objects.iter().map(|o| &o.location).chain(&listed.common_prefixes);
    if names.filter_map(|path| path.filename()).any(is_other) || has_other_folders(root)? {
        return Err(Error::new(
            Kind::WrongObjectType,
            format!("{} holds other files and is no warehouse", root.location()),
        )
        .hint("name an empty or new folder with --dir"));
    }
    let mut key = [0u8; 32];
    getrandom::fill(&mut key).map_err(|e| Error::internal(format!("no random bytes: {e}")))?;
    let key = blake3::Hash::from_bytes(key).to_hex().as_bytes().to_vec();
    if let Some(folder) = root.location().folder() {
        std::fs::create_dir_all(folder.join("_clientele"))?;
    }
    // Whoever else creates it at this moment: the first key and the first marker are the warehouse's.
    root.create_private(KEY_FILE, key).await?;
    let marker = Marker {
        format: FORMAT,
        id: uuid::Uuid::new_v4().to_string(),
        created_by: concat!("clientele ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    // The marker comes last: with it the warehouse exists.
    root.create_private(MARKER, serde_json::to_vec_pretty(&marker)?).await
}

/// Whether something of this name is not of a warehouse.
fn is_other(name: &str) -> bool {
    !matches!(name, "_clientele" | "clientele.toml")
}

/// A folder without files is no object, and yet somebody's.
fn has_other_folders(root: &Root) -> Result<bool> {
    let Some(folder) = root.location().folder() else { return Ok(false) };
    let mut entries = std::fs::read_dir(folder)?;
    Ok(entries.any(|entry| entry.map_or(true, |e| e.file_name().to_str().is_none_or(is_other))))
}

async fn read_key(root: &Root) -> Result<[u8; 32]> {
    let damaged = || {
        let shown = root.location();
        Error::new(Kind::DataCorrupted, format!("{shown}/{KEY_FILE} is missing or damaged"))
            .hint("restore it from a backup: without it identities would be computed anew under other ids")
    };
    let bytes = root.read(KEY_FILE).await?.ok_or_else(damaged)?;
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    let hash = blake3::Hash::from_hex(text.trim()).map_err(|_| damaged())?;
    Ok(*hash.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_different_names_differ_and_stay_inside() {
        assert_eq!(folder_name("orders"), "orders");
        assert_eq!(folder_name("../x"), "-2e--2e--2f-x");
        assert_eq!(folder_name("_delta_log"), "-5f-delta_log");
        assert_ne!(folder_name("A"), folder_name("a"));
        assert_eq!(folder_name("客户"), "-5ba2--6237-");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_newer_format_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::from(dir.path());
        Warehouse::open_or_create(&location).await.unwrap();
        let marker = dir.path().join(MARKER);
        let text =
            std::fs::read_to_string(&marker).unwrap().replace("\"format\": 1", "\"format\": 9");
        std::fs::write(&marker, text).unwrap();
        let error = Warehouse::open(&location).await.unwrap_err();
        assert!(error.message().contains("has format 9, this program knows up to 1"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_folder_of_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("letter.txt"), "x").unwrap();
        let error = Warehouse::open_or_create(&dir.path().into()).await.unwrap_err();
        assert_eq!(error.sqlstate(), "42809");
        assert!(!dir.path().join("_clientele").exists());
    }
}
