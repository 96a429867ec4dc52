//! Erased people: which records nobody sees any more, and their rows taken out of the files.
//!
//! `system.erased` has a row a record: a keyed hash, so that the list names nobody. From the moment it is published every
//! scan of a table leaves those records' rows out, until the table's files have been rewritten without them; what is
//! loaded, inserted or copied later passes the same sieve, so an old file does not bring a person back. What a person was
//! known by is kept as keyed hashes too (`system.erased_values`), for [`Warehouse::check_erased`].
//!
//! A table's [`TableDef::erased`](super::TableDef) is the version of `system.erased` up to which its rows are free of
//! erased records; a scan needs the sieve only while that is behind.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Schema};
use futures::StreamExt;

use super::cluster::Place;
use super::generation::{Generation, Name, Relation};
use super::group::{Group, TableChange};
use super::lease::Lease;
use super::system;
use super::table::{FileEntry, TableSnapshot};
use super::warehouse::Warehouse;
use super::writer::WrittenFile;
use crate::error::{Error, Kind, Result};

/// Columns that name a record; tables without them hold nobody's rows.
pub const RECORD: [&str; 2] = ["source", "record_id"];

/// Columns of a person's that many people have the same value in, so that it proves nothing about one of them.
const NOT_TELLING: [&str; 2] = ["name", "birth_date"];

/// Shorter values are found everywhere.
const VALUE_CHARS_MIN: usize = 6;

/// The records that are erased.
#[derive(Debug, Clone, Default)]
pub struct Erased {
    /// Version of `system.erased`; 0 when nobody was erased.
    version: u64,
    /// Hash of each record, with the erasure it belongs to.
    records: HashMap<u128, String>,
    key: [u8; 32],
}

impl Erased {
    /// Version of the list.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nobody was erased.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Places of the columns that name a record, when a table has them.
    pub fn key_columns(schema: &Schema) -> Option<[usize; 2]> {
        Some([schema.index_of(RECORD[0]).ok()?, schema.index_of(RECORD[1]).ok()?])
    }

    /// Which rows stay. A row without a source or a record is nobody's and stays.
    pub fn keeps(&self, source: &ArrayRef, record: &ArrayRef) -> Result<BooleanArray> {
        let hits = self.hits(source, record)?;
        Ok(hits.iter().map(|hit| Some(hit.is_none())).collect())
    }

    /// The erasure that each row belongs to.
    pub(super) fn hits(&self, source: &ArrayRef, record: &ArrayRef) -> Result<Vec<Option<&str>>> {
        let (source, record) =
            (cast(source, &DataType::Utf8View)?, cast(record, &DataType::Utf8View)?);
        let mut hits = Vec::with_capacity(source.len());
        // Rows of one record follow each other in clustered tables.
        let (mut before, mut hit) = (None, None);
        for key in source.as_string_view().iter().zip(record.as_string_view()) {
            if before != Some(key) {
                hit = match key {
                    (Some(source), Some(record)) => {
                        let hash = record_hash(&self.key, source, record);
                        self.records.get(&hash).map(String::as_str)
                    }
                    _ => None,
                };
                before = Some(key);
            }
            hits.push(hit);
        }
        Ok(hits)
    }

    /// `batch` without the rows of erased records, and how many those were.
    pub fn sieve(&self, batch: &RecordBatch) -> Result<(RecordBatch, u64)> {
        let key = if self.is_empty() { None } else { Self::key_columns(&batch.schema()) };
        let Some([source, record]) = key else { return Ok((batch.clone(), 0)) };
        let keeps = self.keeps(batch.column(source), batch.column(record))?;
        let gone = keeps.len() - keeps.true_count();
        match gone {
            0 => Ok((batch.clone(), 0)),
            _ => Ok((filter_record_batch(batch, &keeps)?, gone as u64)),
        }
    }
}

/// 128 bits, keyed: nobody without the warehouse's key can find a record by trying ids.
fn record_hash(key: &[u8; 32], source: &str, record: &str) -> u128 {
    hash(key, "record", &[source, record])
}

/// Of what a person was known by, whichever column it stood in.
fn value_hash(key: &[u8; 32], value: &str) -> u128 {
    hash(key, "value", &[value])
}

fn hash(key: &[u8; 32], what: &str, parts: &[&str]) -> u128 {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"erased ").update(what.as_bytes());
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(bytes)
}

/// What erased people were known by: keyed hashes of it.
#[derive(Debug, Clone, Default)]
pub struct ErasedValues {
    /// Hash of each value, with the column it stood in.
    columns: HashMap<u128, String>,
    key: [u8; 32],
}

impl ErasedValues {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether nothing is known of anybody.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Hash and column of `text`, when an erased person was known by it.
    pub(super) fn find(&self, text: &str) -> Option<(u128, &str)> {
        // Most text is shorter or far longer than anything that people are known by.
        const VALUE_BYTES_MAX: usize = 512;
        if text.len() > VALUE_BYTES_MAX || text.chars().count() < VALUE_CHARS_MIN {
            return None;
        }
        let hash = value_hash(&self.key, text);
        self.columns.get(&hash).map(|column| (hash, column.as_str()))
    }

    /// Whether `text` is a phone, an email or the like of an erased person. The id of a record is none: those of another source may
    /// look the same.
    pub fn names_a_person(&self, text: &str) -> bool {
        self.find(text).is_some_and(|(_, column)| !RECORD.contains(&column))
    }
}

/// What an erasure asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Its id in `system.erased`; `None` when all of the records were erased before.
    pub id: Option<String>,
    /// Records that it hides.
    pub records: usize,
}

/// What was taken out of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Tables that had rows of erased records.
    pub tables: usize,
    /// Files that were written anew.
    pub files: usize,
    /// Rows that are gone.
    pub rows: u64,
}

/// What the files of one table have of erased records.
#[derive(Default)]
struct Found {
    files: Vec<FileEntry>,
    /// Erasure, column and hash of what the people were known by.
    values: BTreeSet<(String, String, u128)>,
}

impl Warehouse {
    /// The records that are erased, as the newest publish says.
    pub async fn erased(&self) -> Result<Arc<Erased>> {
        self.erased_in(self.newest().await?.as_ref()).await
    }

    /// The records that are erased in a published state.
    pub async fn erased_in(&self, state: &Generation) -> Result<Arc<Erased>> {
        let Some(def) = state.table(&system::erased().0) else { return Ok(Arc::default()) };
        let known = self.known_erased();
        if known.version == def.version {
            return Ok(known);
        }
        let mut records = HashMap::new();
        self.read_pairs(def, ["erasure_id", "record"], |id, hash| {
            if let Ok(hash) = u128::from_str_radix(hash, 16) {
                records.insert(hash, id.to_owned());
            }
        })
        .await?;
        let erased = Arc::new(Erased { version: def.version, records, key: *self.key() });
        self.note_erased(&erased);
        Ok(erased)
    }

    /// What the people erased in a published state were known by.
    pub async fn erased_values(&self, state: &Generation) -> Result<ErasedValues> {
        let mut columns = HashMap::new();
        if let Some(def) = state.table(&system::erased_values().0) {
            self.read_pairs(def, ["column_name", "value"], |name, hash| {
                if let Ok(hash) = u128::from_str_radix(hash, 16) {
                    columns.insert(hash, name.to_owned());
                }
            })
            .await?;
        }
        Ok(ErasedValues { columns, key: *self.key() })
    }

    /// Hides records from every statement that begins after this returns, for good.
    ///
    /// Their rows are still in files until [`Warehouse::purge`].
    pub async fn erase(
        &self,
        records: &[(String, String)],
        by: &str,
        reason: Option<&str>,
    ) -> Result<Erasure> {
        let known = self.erased().await?;
        let hashes: BTreeSet<u128> = records
            .iter()
            .map(|(source, record)| record_hash(self.key(), source, record))
            .filter(|hash| !known.records.contains_key(hash))
            .collect();
        if hashes.is_empty() {
            return Ok(Erasure { id: None, records: 0 });
        }
        let id = uuid::Uuid::new_v4().to_string();
        let count = hashes.len();
        let hex = hashes.iter().map(|hash| Some(format!("{hash:032x}")));
        let now = chrono::Utc::now().timestamp_micros();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![id.as_str(); count])),
            Arc::new(hex.collect::<StringArray>()),
            Arc::new(TimestampMicrosecondArray::from(vec![now; count]).with_timezone("UTC")),
            Arc::new(StringArray::from(vec![by; count])),
            Arc::new(StringArray::from(vec![reason; count])),
        ];
        self.append_to_system(system::erased(), columns).await?;
        Ok(Erasure { id: Some(id), records: count })
    }

    /// Takes the rows of erased records out of every table's files. Versions from before keep theirs until a vacuum.
    ///
    /// Whoever finds rows that another process left may call it; tables that are clean cost nothing.
    pub async fn purge(&self, lease: Option<Lease>) -> Result<Purged> {
        let newest = self.newest().await?;
        let erased = self.erased_in(&newest).await?;
        let mut purged = Purged::default();
        let mut failed = None;
        for (name, relation) in &newest.relations {
            let Relation::Table(def) = relation else { continue };
            if def.erased < erased.version {
                match self.purge_table(lease, name, &erased).await {
                    Ok((files, rows)) => {
                        purged.tables += usize::from(files > 0);
                        purged.files += files;
                        purged.rows += rows;
                    }
                    // One that is damaged keeps no other from its turn.
                    Err(error) => _ = failed.get_or_insert_with(|| error.about(&name.to_string())),
                }
            }
        }
        failed.map_or(Ok(purged), Err)
    }

    async fn purge_table(
        &self,
        lease: Option<Lease>,
        name: &Name,
        erased: &Erased,
    ) -> Result<(usize, u64)> {
        const TRIES_MAX: u32 = 100;
        let (mut files, mut rows) = (0, 0);
        for _ in 0..TRIES_MAX {
            let newest = self.newest().await?;
            let Some(def) = newest.table(name).filter(|def| def.erased < erased.version) else {
                return Ok((files, rows));
            };
            let snapshot = self.snapshot(def).await?;
            if Erased::key_columns(&snapshot.schema).is_none() {
                return Ok((files, rows));
            }
            let found = self.find(&snapshot, erased).await?;
            let mut version = Some(snapshot.version);
            if !found.files.is_empty() {
                // First what the people were known by: once the rows are gone nobody could tell.
                self.note_values(&found.values).await?;
                let mut outputs = Vec::new();
                for file in &found.files {
                    outputs.extend(self.without_erased(&snapshot, file, erased).await?);
                }
                let inputs: Vec<String> = found.files.iter().map(|f| f.path.clone()).collect();
                self.finish_pending(Some(&BTreeSet::from([name]))).await?;
                if let Err(error) = self.check_lease(lease).await {
                    self.discard(&snapshot.path, &outputs).await;
                    return Err(error);
                }
                version = self.tables().rewrite(&snapshot.path, &inputs, &outputs, false).await?;
                let before: u64 = found.files.iter().map(|f| f.rows).sum();
                let after: u64 = outputs.iter().map(|f| f.rows).sum();
                match version {
                    Some(_) => (files, rows) = (files + inputs.len(), rows + before - after),
                    None => self.discard(&snapshot.path, &outputs).await,
                }
            }
            // What others added meanwhile has to be looked at too, before the sieve is taken away.
            let Some(version) = version else { continue };
            let is_all = version <= snapshot.version + u64::from(!found.files.is_empty());
            let clean_to = is_all.then_some(erased.version);
            self.publish_version(lease, name, &snapshot.path, version, clean_to).await?;
        }
        Err(Error::new(Kind::Serialization, "other writers were faster every time")
            .hint("the rows are hidden; COMPACT TABLE or a server's housekeeping takes them out"))
    }

    /// Which files have rows of erased records, and what those say of the people.
    async fn find(&self, snapshot: &TableSnapshot, erased: &Erased) -> Result<Found> {
        let mut found = Found::default();
        let mut columns: Vec<String> = RECORD.map(str::to_owned).to_vec();
        let tells = |c: &&String| !columns.contains(c) && !NOT_TELLING.contains(&c.as_str());
        let personal: Vec<String> = snapshot.personal.iter().filter(tells).cloned().collect();
        columns.extend(personal);
        for file in &snapshot.files {
            let mut has_rows = false;
            let mut batches = self.open_file(snapshot, file, &columns[..2]).await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let hits = erased.hits(batch.column(0), batch.column(1))?;
                has_rows |= hits.iter().any(Option::is_some);
            }
            if !has_rows {
                continue;
            }
            found.files.push(file.clone());
            let mut batches = self.open_file(snapshot, file, &columns).await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let hits = erased.hits(batch.column(0), batch.column(1))?;
                for (column, values) in columns.iter().zip(batch.columns()).skip(1) {
                    let Ok(values) = cast(values, &DataType::Utf8View) else { continue };
                    for (value, id) in values.as_string_view().iter().zip(&hits) {
                        if let (Some(value), Some(id)) = (value, id)
                            && value.chars().count() >= VALUE_CHARS_MIN
                        {
                            let hash = value_hash(self.key(), value);
                            found.values.insert(((*id).to_owned(), column.clone(), hash));
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    async fn note_values(&self, values: &BTreeSet<(String, String, u128)>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(values.iter().map(|(id, _, _)| Some(id.as_str())).collect::<StringArray>()),
            Arc::new(values.iter().map(|(_, column, _)| Some(column)).collect::<StringArray>()),
            Arc::new(
                values
                    .iter()
                    .map(|(_, _, hash)| Some(format!("{hash:032x}")))
                    .collect::<StringArray>(),
            ),
        ];
        self.append_to_system(system::erased_values(), columns).await
    }

    /// One file written anew, in its place and order, without the rows of erased records.
    async fn without_erased(
        &self,
        snapshot: &TableSnapshot,
        file: &FileEntry,
        erased: &Erased,
    ) -> Result<Vec<WrittenFile>> {
        let mark = match (&file.mark, &snapshot.clustering) {
            (Some(mark), Some(clustering)) if mark.holds_for(clustering) => Some(mark),
            _ => None,
        };
        let known = mark.and_then(|mark| mark.known.clone());
        let with_customers = known.is_some().then(|| snapshot.with_one_id());
        let snapshot = with_customers.as_ref().unwrap_or(snapshot);
        let writer = match (mark.map(|mark| &mark.place), &snapshot.clustering) {
            (Some(place @ Place::Run { .. }), Some(clustering)) => {
                self.raw_writer(snapshot, None)?.of_part(place, clustering)
            }
            (Some(Place::Tail { .. }), clustering) => {
                self.raw_writer(snapshot, clustering.as_ref())?
            }
            _ => self.raw_writer(snapshot, None)?,
        };
        let mut writer = writer.of_customers(known).clean_to(erased.version);
        let columns: Vec<String> =
            snapshot.schema.fields().iter().map(|f| f.name().clone()).collect();
        let mut batches = self.open_file(snapshot, file, &columns).await?;
        while let Some(batch) = batches.next().await {
            writer.write(&erased.sieve(&batch?)?.0).await?;
        }
        writer.finish().await
    }

    /// Adds rows to a table that the warehouse keeps about itself, which is made when it is missing.
    pub async fn append_to_system(
        &self,
        table: (Name, arrow::datatypes::SchemaRef),
        columns: Vec<ArrayRef>,
    ) -> Result<()> {
        self.publish_with_system(table, columns, Group::default()).await
    }

    /// Makes a table that the warehouse keeps about itself, unless it is there.
    pub async fn ensure_system(
        &self,
        name: &Name,
        schema: &arrow::datatypes::SchemaRef,
    ) -> Result<()> {
        if self.newest().await?.table(name).is_some() {
            return Ok(());
        }
        let path = self.prepare_table(name, schema, &[], None).await?;
        let change = TableChange::create(name.clone(), path.clone(), vec![]);
        let group = Group::of(change);
        match self.publish(group).await {
            Err(error) if error.kind() == Kind::DuplicateTable => {
                self.delete_folders(&[path]).await
            }
            made => made.map(|_| ()),
        }
    }

    /// As [`Self::append_to_system`], in one moment with the changes of `group`.
    pub async fn publish_with_system(
        &self,
        table: (Name, arrow::datatypes::SchemaRef),
        columns: Vec<ArrayRef>,
        group: Group,
    ) -> Result<()> {
        const TRIES_MAX: u32 = 20;
        let (name, schema) = table;
        let is_alone = group.tables.is_empty();
        // What goes with it is committed once: nothing may be tried again because this table was made by somebody else.
        self.ensure_system(&name, &schema).await?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        for _ in 0..TRIES_MAX {
            let newest = self.newest().await?;
            let path = match newest.table(&name) {
                Some(def) => def.path.clone(),
                None => return Err(Error::internal("a system table is gone")),
            };
            let mut writer = self.writer(&path, Arc::clone(&schema), &[], None).await?;
            writer.write(&batch).await?;
            let files = writer.finish().await?;
            let mut group = group.clone();
            group.tables.push(TableChange::append(name.clone(), path, files));
            match self.publish(group).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == Kind::Serialization && is_alone => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Kind::Serialization, "other writers were faster every time")
            .hint("run the statement again"))
    }
}
