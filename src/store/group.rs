//! Several tables changed as one: finished by whoever finds the group, or never begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::generation::{Change, Generation, Holding, Name, Relation, TableDef};
use super::log::{LOAD, is_gone};
use super::table::{CommitMode, Committed};
use super::warehouse::Warehouse;
use super::writer::WrittenFile;
use crate::error::{Error, Kind, Result};

const FOLDER: &str = "_clientele/pending";

/// Tables of a group that are committed at once: each waits for the disk.
const COMMITS_AT_ONCE: usize = 4;

/// Files for one table, written and synced, waiting to be committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableChange {
    /// The table's name.
    pub name: Name,
    /// Its folder; for a table that this group creates, the folder it was created in.
    pub path: String,
    /// What to add.
    pub files: Vec<WrittenFile>,
    /// Whether `files` take the place of what is there.
    pub replace: bool,
    /// Whether the name must still be free.
    pub is_new: bool,
    /// Ids of the loads in it; a table takes each only once.
    pub load_ids: Vec<String>,
    /// Files that go, when `files` hold their rows anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
    /// A version that the table goes back to, instead of getting files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreVersion>,
    /// Whether it takes its name from another relation that has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_name: bool,
}

/// A version of a table that it goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreVersion {
    /// The version.
    pub version: u64,
    /// The version that the table must still be at, where what somebody else has written since is not to be undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

impl TableChange {
    /// Rows that come to those of an existing table.
    pub fn append(name: Name, path: String, files: Vec<WrittenFile>) -> Self {
        let (replace, is_new, load_ids) = (false, false, vec![]);
        let (replaced, restore, takes_name) = (None, None, false);
        Self { name, path, files, replace, is_new, load_ids, replaced, restore, takes_name }
    }

    /// The table's first rows.
    pub fn create(name: Name, path: String, files: Vec<WrittenFile>) -> Self {
        Self { is_new: true, ..Self::append(name, path, files) }
    }

    /// Rows that take the place of all others.
    pub fn replace(name: Name, path: String, files: Vec<WrittenFile>) -> Self {
        Self { replace: true, ..Self::append(name, path, files) }
    }

    /// Up to which version of `system.erased` the table is clean, once this is in it, committed as `version`.
    fn clean_to(&self, state: &Generation, version: u64) -> u64 {
        let added = self.files.iter().map(|file| file.erased).min().unwrap_or(state.erasures());
        match state.table(&self.name) {
            // Who was erased since is in the files of that time.
            _ if self.restore.is_some() => 0,
            // So are those in files that somebody else brings back right now, in a commit that is not published yet.
            Some(def) if def.version + 1 < version => 0,
            Some(def) if !self.replace || def.version > version => def.erased.min(added),
            _ => added,
        }
    }
}

/// Files of one version of a table whose place others take; the table must still be at that version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The version that was read.
    pub version: u64,
    /// Paths below the warehouse.
    pub files: Vec<String>,
}

/// Changes that become visible in one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Tables that get files.
    pub tables: Vec<TableChange>,
    /// Names that change otherwise: views, graphs, drops.
    pub names: BTreeMap<Name, Change>,
    /// Those of them that nothing may have yet.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub new_names: BTreeSet<Name>,
}

impl Group {
    /// A change of one table alone.
    pub fn of(change: TableChange) -> Self {
        Self { tables: vec![change], ..Self::default() }
    }
}

/// What came of publishing a group.
#[derive(Debug)]
pub enum Published {
    /// It is visible from this generation on.
    At(Arc<Generation>),
    /// Another process has loaded this id in the meantime; nothing of the group was published.
    AlreadyLoaded(String),
}

impl Warehouse {
    /// Commits and publishes a group. On return it is durable and visible, all of it.
    ///
    /// # Errors
    /// Nothing of the group takes effect after an error, but for one: 40003 where the store failed at a moment after which it may.
    pub async fn publish(&self, group: Group) -> Result<Published> {
        let names: BTreeSet<&Name> = group.tables.iter().map(|t| &t.name).collect();
        self.finish_pending(Some(&names)).await?;
        check(&group, self.newest().await?.as_ref())?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        // A single table is atomic by itself: its own log has the commit or not.
        let needs_intent =
            group.tables.len() > 1 || (!group.tables.is_empty() && !group.names.is_empty());
        if needs_intent {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let payload = PutPayload::from(serde_json::to_vec(&group)?);
            match self.store().put_opts(&location(&id), payload, options).await {
                // Nobody else has this id: a first try was carried out after all.
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut may_be_in = false;
        let published = self.finish(&id, &group, &mut may_be_in).await;
        if matches!(&published, Err(error) if error.kind() == Kind::StaleBase) {
            for table in &group.tables {
                self.publish_committed(&table.name, &table.path).await?;
            }
        }
        let is_open = matches!(&published, Err(error) if may_be_in && is_passing(error));
        if needs_intent && !is_open {
            // Whoever finds it finishes what is finished already, or what was not begun.
            if let Err(error) = self.remove_pending(&id).await {
                tracing::warn!(group = id, %error, "a finished group could not be removed");
            }
        }
        if is_open {
            self.leave_open(
                group.tables.iter().map(|table| (table.name.clone(), table.path.clone())),
            );
        }
        published.map_err(|error| if is_open { outcome_unknown(&error) } else { error })
    }

    /// Finishes groups that another process began and did not end; only those that touch `names`, when given.
    pub(crate) async fn finish_pending(&self, names: Option<&BTreeSet<&Name>>) -> Result<()> {
        let listed: Vec<_> = self.store().list(Some(&Path::from(FOLDER))).try_collect().await?;
        for file in listed {
            let Some(id) =
                file.location.filename().and_then(|f| f.strip_suffix(".json")).map(str::to_owned)
            else {
                continue;
            };
            let bytes = match self.store().get(&file.location).await {
                Ok(found) => found.bytes().await?,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let group: Group = serde_json::from_slice(&bytes)?;
            if names.is_some_and(|names| !group.tables.iter().any(|t| names.contains(&t.name))) {
                continue;
            }
            match self.finish(&id, &group, &mut false).await {
                Ok(_) => {}
                Err(error) if is_passing(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(group = id, %error, "an unfinished group could not be finished")
                }
            }
            self.remove_pending(&id).await?;
        }
        Ok(())
    }

    /// Commits each table once, whoever else is at it, then publishes all of them in one generation. Says whether an error comes at a
    /// moment after which something of it may be committed.
    async fn finish(&self, id: &str, group: &Group, may_be_in: &mut bool) -> Result<Published> {
        // What may be refused comes first, one after the other: then nothing of the group is committed.
        let (sure, others): (Vec<_>, Vec<_>) = group.tables.iter().partition(|table| {
            table.load_ids.is_empty() && table.replaced.is_none() && table.restore.is_none()
        });
        let before = self.newest().await?;
        check(group, before.as_ref())?;
        let mut committed = BTreeMap::new();
        for table in others {
            let done = self.commit(id, table, &before).await;
            *may_be_in |= is_maybe_in(&done);
            match done? {
                (name, Ok(version)) => committed.insert(name, version),
                (_, Err(load)) => return Ok(Published::AlreadyLoaded(load)),
            };
        }
        if !sure.is_empty() && !committed.is_empty() {
            // What comes now is not taken back when somebody else has made, dropped or replaced a table meanwhile.
            check(group, self.newest().await?.as_ref())?;
        }
        let mut commits = Vec::with_capacity(sure.len());
        for table in sure {
            commits.push(self.commit(id, table, &before).boxed());
        }
        let mut commits = futures::stream::iter(commits).buffer_unordered(COMMITS_AT_ONCE);
        // What was begun beside one that fails is waited for: it may be in.
        let mut failed = None;
        while let Some(done) = commits.next().await {
            *may_be_in |= is_maybe_in(&done);
            match done {
                Ok((name, version)) => committed.extend(version.ok().map(|known| (name, known))),
                Err(error) => _ = failed.get_or_insert(error),
            }
        }
        drop(commits);
        if let Some(error) = failed {
            return Err(error);
        }
        let generation = self
            .chain()
            .publish(|state| {
                check(group, state)?;
                let mut changes = group.names.clone();
                for table in &group.tables {
                    let (ours, holding) = &committed[&table.name];
                    let later = state
                        .table(&table.name)
                        .filter(|def| def.path == table.path && def.version > *ours);
                    let (version, holding) = match later {
                        Some(def) => (def.version, def.holding.clone()),
                        None => (*ours, holding.clone()),
                    };
                    let erased = table.clean_to(state, *ours);
                    let path = table.path.clone();
                    let rows_version = version;
                    let def = TableDef { path, version, erased, holding, rows_version };
                    changes.insert(table.name.clone(), Change::Set(Relation::Table(def)));
                }
                Ok(changes)
            })
            .await?;
        Ok(Published::At(generation))
    }

    /// Commits one table of a group, of which `before` was published. Gives its version and what that holds, or the load of it that the
    /// table has taken already.
    async fn commit<'a>(
        &self,
        id: &str,
        table: &'a TableChange,
        before: &Generation,
    ) -> Result<(&'a Name, std::result::Result<(u64, Holding), String>)> {
        let mut transactions = vec![format!("group:{id}")];
        transactions.extend(table.load_ids.iter().map(|load| format!("{LOAD}{load}")));
        let mode = match (&table.restore, &table.replaced) {
            (Some(restore), _) => CommitMode::Restore(restore.clone()),
            (None, Some(replaced)) => CommitMode::Rewrite(replaced.clone()),
            (None, None) if table.replace => CommitMode::Replace,
            (None, None) => CommitMode::Append,
        };
        let tables = self.tables();
        let committed = match tables.commit(&table.path, &table.files, mode, &transactions).await? {
            Committed::Version(version) => {
                let before = before.table(&table.name);
                match tables.holding(&table.path, version, before).await {
                    Ok(holding) => Ok((version, holding)),
                    // Only what a later one was published after is vacuumed: then that is what counts.
                    Err(error) if is_gone(&error) => Ok((version, Holding::default())),
                    Err(error) => return Err(error),
                }
            }
            Committed::Taken(id) => Err(id.trim_start_matches(LOAD).to_owned()),
        };
        Ok((&table.name, committed))
    }

    async fn remove_pending(&self, id: &str) -> Result<()> {
        match self.store().delete(&location(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Refuses a group whose tables were dropped, replaced or created by somebody else since it was prepared.
fn check(group: &Group, state: &Generation) -> Result<()> {
    let is_taken = |name: &Name| {
        Error::new(Kind::DuplicateTable, format!("relation \"{name}\" already exists"))
    };
    for name in &group.new_names {
        // What a group sets is there already when it is published once more.
        match (state.relations.get(name), group.names.get(name)) {
            (None, _) => {}
            (Some(there), Some(Change::Set(ours))) if there == ours => {}
            (Some(_), _) => return Err(is_taken(name)),
        }
    }
    for table in &group.tables {
        match (state.relations.get(&table.name), table.is_new) {
            (None, true) => {}
            (Some(Relation::Table(def)), _) if def.path == table.path => {}
            (Some(_), _) if table.takes_name => {}
            (Some(_), true) => return Err(is_taken(&table.name)),
            (Some(_), false) => {
                // No later try of the same group can succeed.
                return Err(Error::new(
                    Kind::StaleBase,
                    format!("relation \"{}\" was replaced meanwhile", table.name),
                )
                .hint("run the statement again"));
            }
            (None, false) => {
                return Err(Error::new(
                    Kind::UndefinedTable,
                    format!("relation \"{}\" was dropped meanwhile", table.name),
                ));
            }
        }
    }
    Ok(())
}

/// Whether a commit is in, or may be: the store may have carried out what it did not answer. On a full disk it has not.
fn is_maybe_in<T>(commit: &Result<T>) -> bool {
    commit.as_ref().err().is_none_or(|error| error.kind() == Kind::Io)
}

/// An error after which a change may still take effect.
fn outcome_unknown(error: &Error) -> Error {
    let told = format!("whether the change takes effect is not known: {}", error.message());
    Error::new(Kind::OutcomeUnknown, told)
        .detail("what was begun is finished by this server within ten seconds of the store's return, else by the next change of the table")
        .hint("look then whether it is there, before it is done again; a file that is loaded again is not doubled")
}

/// Whether trying the same group again later could succeed.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), Kind::Io | Kind::DiskFull | Kind::Serialization)
}

fn location(id: &str) -> Path {
    Path::from(format!("{FOLDER}/{id}.json"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
    }

    async fn file(warehouse: &Warehouse, path: &str, n: i64) -> Vec<WrittenFile> {
        let batch =
            RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![n]))]).unwrap();
        let mut writer = warehouse.writer(path, schema(), &[], None).await.unwrap();
        writer.write(&batch).await.unwrap();
        writer.finish().await.unwrap()
    }

    /// A table of one row that is published, and one that is only committed.
    async fn with_commit_left(dir: &tempfile::TempDir) -> (Warehouse, Name, String) {
        let warehouse = Warehouse::open_or_create(&dir.path().into()).await.unwrap();
        let name = Name::new("public", "t");
        let path = warehouse.prepare_table(&name, &schema(), &[], None).await.unwrap();
        let files = file(&warehouse, &path, 1).await;
        let change = TableChange::create(name.clone(), path.clone(), files);
        warehouse.publish(Group::of(change)).await.unwrap();
        let left = file(&warehouse, &path, 2).await;
        warehouse.tables().commit(&path, &left, CommitMode::Append, &[]).await.unwrap();
        (warehouse, name, path)
    }

    async fn rows_of(warehouse: &Warehouse, name: &Name) -> u64 {
        let def = warehouse.newest().await.unwrap().table(name).cloned().unwrap();
        warehouse.snapshot(&def).await.unwrap().rows()
    }

    /// A process that ended between the commit of a table and its publishing is in nobody's way: who comes next publishes it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_commit_that_was_left_is_published_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (warehouse, name, path) = with_commit_left(&dir).await;
        let replace = async || {
            let def = warehouse.newest().await.unwrap().table(&name).cloned().unwrap();
            let snapshot = warehouse.snapshot(&def).await.unwrap();
            let files = snapshot.files.iter().map(|file| file.path.clone()).collect();
            let mut change = TableChange::append(name.clone(), path.clone(), vec![]);
            change.replaced = Some(Replaced { version: def.version, files });
            (snapshot.rows(), warehouse.publish(Group::of(change)).await)
        };
        let (rows, stale) = replace().await;
        assert_eq!(rows, 1);
        assert_eq!(stale.unwrap_err().kind(), Kind::StaleBase);
        let (rows, published) = replace().await;
        assert_eq!(rows, 2);
        published.unwrap();
        let (rows, _) = replace().await;
        assert_eq!(rows, 0);
    }

    /// What was left open is finished, so that who looks sees what will stay.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_left_open_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (warehouse, name, path) = with_commit_left(&dir).await;
        warehouse.settle_open().await.unwrap();
        assert_eq!(rows_of(&warehouse, &name).await, 1, "nobody has said that it is open");
        warehouse.leave_open(std::iter::once((name.clone(), path)));
        warehouse.settle_open().await.unwrap();
        assert_eq!(rows_of(&warehouse, &name).await, 2);
    }

    /// A group that was left, of a table that was replaced meanwhile, is in nobody's way.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_group_that_can_never_be_finished_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::open_or_create(&dir.path().into()).await.unwrap();
        let names = ["t", "u"].map(|name| Name::new("public", name));
        let mut paths = Vec::new();
        for name in &names {
            let path = warehouse.prepare_table(name, &schema(), &[], None).await.unwrap();
            let create = TableChange::create(name.clone(), path.clone(), vec![]);
            warehouse.publish(Group::of(create)).await.unwrap();
            paths.push(path);
        }
        let mut left = Group::default();
        for (name, path) in names.iter().zip(&paths) {
            let files = file(&warehouse, path, 1).await;
            left.tables.push(TableChange::append(name.clone(), path.clone(), files));
        }
        let other = warehouse.prepare_table(&names[0], &schema(), &[], None).await.unwrap();
        let mut replaced = TableChange::create(names[0].clone(), other, vec![]);
        (replaced.is_new, replaced.takes_name) = (true, true);
        warehouse.publish(Group::of(replaced)).await.unwrap();
        let payload = PutPayload::from(serde_json::to_vec(&left).unwrap());
        warehouse.store().put(&location("left"), payload).await.unwrap();
        for n in 2..4 {
            let files = file(&warehouse, &paths[1], n).await;
            let change = TableChange::append(names[1].clone(), paths[1].clone(), files);
            warehouse.publish(Group::of(change)).await.unwrap();
        }
        let listed = warehouse.store().list(Some(&Path::from(FOLDER)));
        assert_eq!(listed.count().await, 0);
        assert_eq!(rows_of(&warehouse, &names[1]).await, 2, "nothing of the group is in");
    }

    /// A table that goes back from a version does not take along what was written after that one.
    #[tokio::test(flavor = "multi_thread")]
    async fn going_back_from_a_version_undoes_nothing_that_came_after() {
        let dir = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::open_or_create(&dir.path().into()).await.unwrap();
        let name = Name::new("public", "t");
        let path = warehouse.prepare_table(&name, &schema(), &[], None).await.unwrap();
        let create = TableChange::create(name.clone(), path.clone(), vec![]);
        warehouse.publish(Group::of(create)).await.unwrap();
        let version = async || warehouse.newest().await.unwrap().table(&name).unwrap().version;
        let add = async |n| {
            let change =
                TableChange::append(name.clone(), path.clone(), file(&warehouse, &path, n).await);
            warehouse.publish(Group::of(change)).await.unwrap();
        };
        let before = version().await;
        add(1).await;
        let from = Some(version().await);
        add(2).await;
        let back = async |from| {
            let mut change = TableChange::append(name.clone(), path.clone(), vec![]);
            change.restore = Some(RestoreVersion { version: before, from });
            warehouse.publish(Group::of(change)).await
        };
        assert_eq!(back(from).await.unwrap_err().kind(), Kind::StaleBase);
        assert_eq!(rows_of(&warehouse, &name).await, 2);
        back(Some(version().await)).await.unwrap();
        assert_eq!(rows_of(&warehouse, &name).await, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_that_somebody_took_meanwhile_is_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let warehouse = Warehouse::open_or_create(&dir.path().into()).await.unwrap();
        let name = Name::new("public", "t");
        let group = |n: i64| Group {
            names: BTreeMap::from([(
                name.clone(),
                Change::Set(Relation::Note(serde_json::Value::from(n))),
            )]),
            new_names: BTreeSet::from([name.clone()]),
            ..Group::default()
        };
        warehouse.publish(group(1)).await.unwrap();
        // The same once more is the first one, finished by another process.
        warehouse.publish(group(1)).await.unwrap();
        let error = warehouse.publish(group(2)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DuplicateTable);
    }
}
