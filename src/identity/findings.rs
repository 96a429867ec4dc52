//! What was found in the files of a graph's source, kept from run to run: a file is read once, and never changes.
//!
//! `<graph>.findings` has a row for each record of each file: who it is, and its identifiers cleaned and hashed. A row without a
//! record says of its file that all of it is there, and how many of its rows had no record. Where a file is not there, or
//! rows are read in another way than then, it is read; rows of files that the source has no more are left out and, with the file of
//! findings they are in, written anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int64Array, RecordBatch,
    StringArray, StringBuilder,
};
use arrow::datatypes::Int64Type;
use clientele_udfs::identity::collect::Collector;
use clientele_udfs::identity::findings::{Finding, each, push};
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;

use super::source::{Sighting, Source};
use super::tables::{BATCH_ROWS, FINDINGS, Table};
use crate::error::{Error, Kind, Result};
use crate::store::{FileEntry, TableChange, Warehouse};

/// Counts up with every change of cleaning and hashing.
const HOW: u32 = 1;

/// Columns of the table.
const COLUMNS: [&str; 5] = ["file", "source", "record_id", "types", "found"];

/// What a collection did beside collecting.
pub(super) struct Taken {
    /// Rows of the source that had no record.
    pub(super) without_key: u64,
    /// The table of findings as it is to be; `None` when it is as it was, or was not to change.
    pub(super) change: Option<TableChange>,
    /// Paths of the files of the source that were read.
    pub(super) read: Vec<String>,
}

/// How much of what is known is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// All of it, and what is found is kept.
    Kept,
    /// All of it, and nothing is kept.
    Seen,
    /// None: every file is read, and what is found is kept.
    Anew,
}

/// Gives everything that is known of the source's rows to a collector, as far as there is memory for it. Files that were read
/// in an earlier run are not read again.
pub(super) async fn collect(
    warehouse: &Warehouse,
    graph: &str,
    source: &Source,
    how: Use,
    collector: &mut Collector,
    memory: &MemoryReservation,
) -> Result<Taken> {
    let mut table = Table::open(warehouse, graph, FINDINGS).await?;
    let reading = blake3::hash(format!("{HOW} {}", source.reading()).as_bytes()).to_hex();
    // A number stands for a file and the way it is read: of text a copy a row would be read.
    let name_of = |file: &FileEntry| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let hash = blake3::hash(format!("{name} {reading}").as_bytes());
        i64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
    };
    let wanted: HashSet<i64> = source.files().iter().map(name_of).collect();
    let kept = match how {
        Use::Anew => Kept { outdated: paths(&table.files().await?), ..Kept::default() },
        Use::Kept | Use::Seen => Kept::of(&mut table, &wanted).await?,
    };
    let mut taking =
        Taking { collector, memory, known: HashSet::new(), without_key: 0, types: HashMap::new() };
    let is_clean = table.is_clean_of(source.erased());
    for (file, is_mixed) in &kept.files {
        let mut batches = table.read_file(file, &COLUMNS).await?;
        while let Some(batch) = batches.next().await {
            let mut batch = batch?;
            if *is_mixed {
                batch = of_files(&batch, &wanted)?;
            }
            if !is_clean {
                batch = source.erased().sieve(&batch)?.0;
            }
            taking.take(&batch)?;
            if *is_mixed && how != Use::Seen {
                table.write_batch(batch).await?;
            }
        }
    }
    let mut read = Vec::new();
    for file in source.files() {
        let name = name_of(file);
        if !taking.known.contains(&name) {
            let into = (how != Use::Seen).then_some(&mut table);
            read_file(warehouse, source, file, name, &mut taking, into).await?;
            read.push(file.path.clone());
        }
    }
    let without_key = taking.without_key;
    let mixed = kept.files.into_iter().filter(|(_, is_mixed)| *is_mixed);
    let outdated: Vec<String> = mixed.map(|(file, _)| file.path).chain(kept.outdated).collect();
    let is_same = how == Use::Seen || read.is_empty() && outdated.is_empty();
    let change = if is_same { None } else { Some(table.replaced_in(outdated).await?) };
    Ok(Taken { without_key, change, read })
}

fn paths(files: &[FileEntry]) -> Vec<String> {
    files.iter().map(|file| file.path.clone()).collect()
}

/// The files of findings, by what they are of.
#[derive(Default)]
struct Kept {
    /// Those of files that the source has, oldest first, and whether they are of others too.
    files: Vec<(FileEntry, bool)>,
    /// Paths of those that are of none.
    outdated: Vec<String>,
}

impl Kept {
    async fn of(table: &mut Table<'_>, wanted: &HashSet<i64>) -> Result<Self> {
        let mut kept = Self::default();
        for file in table.files().await? {
            let (mut has_wanted, mut has_others) = (false, false);
            let mut batches = table.read_file(&file, &COLUMNS[..1]).await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                for same in names_of(&batch).chunk_by(i64::eq) {
                    match wanted.contains(&same[0]) {
                        true => has_wanted = true,
                        false => has_others = true,
                    }
                }
            }
            match has_wanted {
                true => kept.files.push((file, has_others)),
                false => kept.outdated.push(file.path),
            }
        }
        Ok(kept)
    }
}

/// The files that rows are of; those of one stand together.
fn names_of(batch: &RecordBatch) -> &[i64] {
    batch.column(0).as_primitive::<Int64Type>().values()
}

/// The rows of files that the source has.
fn of_files(batch: &RecordBatch, wanted: &HashSet<i64>) -> Result<RecordBatch> {
    let mut is_wanted = Vec::with_capacity(batch.num_rows());
    for same in names_of(batch).chunk_by(i64::eq) {
        is_wanted.extend(std::iter::repeat_n(wanted.contains(&same[0]), same.len()));
    }
    Ok(arrow::compute::filter_record_batch(batch, &is_wanted.into())?)
}

/// Findings on their way to a collector.
struct Taking<'a> {
    collector: &'a mut Collector,
    memory: &'a MemoryReservation,
    /// Files of the source of which everything was taken.
    known: HashSet<i64>,
    without_key: u64,
    /// Numbers of types that a list of names stands for.
    types: HashMap<String, Vec<u16>>,
}

impl Taking<'_> {
    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let text = |at: usize| batch.column(at).as_string::<i32>();
        let (files, sources, record_ids, types) = (names_of(batch), text(1), text(2), text(3));
        let found = batch.column(4).as_binary::<i32>();
        let (mut listed, mut numbers) = (String::new(), Vec::new());
        for (row, file) in files.iter().enumerate() {
            if sources.is_null(row) {
                self.known.insert(*file);
                let count = found.value(row).try_into().map_err(|_| damaged())?;
                self.without_key += u64::from_le_bytes(count);
                continue;
            }
            if types.value(row) != listed {
                types.value(row).clone_into(&mut listed);
                numbers = self.numbers(&listed)?;
            }
            let record = self.collector.record(sources.value(row), record_ids.value(row));
            let mut is_known = true;
            let take = |at: u16, finding| match numbers.get(usize::from(at)) {
                Some(id_type) => self.collector.take(record, *id_type, finding),
                None => is_known = false,
            };
            each(found.value(row), take).filter(|()| is_known).ok_or_else(damaged)?;
        }
        self.memory.try_resize(self.collector.bytes())?;
        Ok(())
    }

    /// The collector's numbers of a list of types, which is JSON.
    fn numbers(&mut self, listed: &str) -> Result<Vec<u16>> {
        if let Some(known) = self.types.get(listed) {
            return Ok(known.clone());
        }
        let names: Vec<String> = serde_json::from_str(listed).map_err(|_| damaged())?;
        let numbers: Vec<u16> = names.iter().map(|name| self.collector.id_type(name)).collect();
        self.types.insert(listed.to_owned(), numbers.clone());
        Ok(numbers)
    }
}

fn damaged() -> Error {
    Error::new(Kind::DataCorrupted, "the findings of an identity graph are damaged")
        .hint("REFRESH IDENTITY GRAPH ... FULL reads all rows again")
}

/// Reads a file of the source: what is found is taken, and written into the table.
async fn read_file(
    warehouse: &Warehouse,
    source: &Source,
    file: &FileEntry,
    name: i64,
    taking: &mut Taking<'_>,
    mut into: Option<&mut Table<'_>>,
) -> Result<()> {
    let mut without_key = 0;
    let mut rows = Rows::default();
    let is_kept = into.is_some();
    let mut batches = source.open_file(warehouse, file).await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let collector = &mut *taking.collector;
        source.of_batch(&batch, &mut without_key, &mut |seen: Sighting<'_>| {
            let record = collector.record(seen.source, seen.record_id);
            if is_kept {
                rows.begin(record, seen.source, seen.record_id);
            }
            if let Some((id_type, value)) = seen.identifier {
                let id_type = collector.id_type(id_type);
                let finding = collector.find(id_type, value, seen.scope, seen.seen_at);
                collector.take(record, id_type, finding);
                if is_kept {
                    rows.add(id_type, finding);
                }
            }
            true
        })?;
        taking.memory.try_resize(taking.collector.bytes())?;
        if let Some(table) = into.as_deref_mut().filter(|_| rows.len() >= BATCH_ROWS) {
            table.write(rows.columns(name, taking.collector)?).await?;
        }
    }
    taking.without_key += without_key;
    let Some(table) = into else { return Ok(()) };
    table.write(rows.columns(name, taking.collector)?).await?;
    let of_file: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&without_key.to_le_bytes()]));
    let name: ArrayRef = Arc::new(Int64Array::from(vec![name]));
    table.write(vec![("file", name), ("found", of_file)]).await
}

/// Rows of findings that are to be written.
#[derive(Default)]
struct Rows {
    /// The collector's numbers of the types that were met in this file.
    types: Vec<u16>,
    sources: StringBuilder,
    record_ids: StringBuilder,
    found: BinaryBuilder,
    /// The record that is being read, and what was found of it.
    open: Option<u32>,
    found_of_open: Vec<u8>,
}

impl Rows {
    fn len(&self) -> usize {
        self.sources.len()
    }

    /// What is added from now on is of this record.
    fn begin(&mut self, record: u32, source: &str, record_id: &str) {
        if self.open == Some(record) {
            return;
        }
        self.end();
        self.sources.append_value(source);
        self.record_ids.append_value(record_id);
        self.open = Some(record);
    }

    fn end(&mut self) {
        if self.open.take().is_some() {
            self.found.append_value(&self.found_of_open);
            self.found_of_open.clear();
        }
    }

    fn add(&mut self, id_type: u16, finding: Finding) {
        let at = match self.types.iter().position(|known| *known == id_type) {
            Some(at) => at,
            None => {
                self.types.push(id_type);
                self.types.len() - 1
            }
        };
        push(&mut self.found_of_open, at as u16, finding);
    }

    /// The rows as columns of the table; the next ones begin anew.
    fn columns(
        &mut self,
        name: i64,
        collector: &Collector,
    ) -> Result<Vec<(&'static str, ArrayRef)>> {
        self.end();
        let count = self.len();
        let types: Vec<&str> =
            self.types.iter().map(|number| collector.type_name(*number)).collect();
        let types = serde_json::to_string(&types)?;
        let types = StringArray::from_iter_values(std::iter::repeat_n(&types, count));
        Ok(vec![
            ("file", Arc::new(Int64Array::from_value(name, count))),
            ("source", Arc::new(self.sources.finish())),
            ("record_id", Arc::new(self.record_ids.finish())),
            ("types", Arc::new(types)),
            ("found", Arc::new(self.found.finish())),
        ])
    }
}
