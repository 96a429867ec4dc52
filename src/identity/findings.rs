//! What was found in the files of a graph's source, kept from run to run: a file is read once, and never changes.
//!
//! `<graph>.identifiers` has a row for each identifier of each file, cleaned and hashed, with the number of its record in the graph's
//! map; each run adds its rows in the order of hashes. A record of which a file has no good identifier has a row too, which may
//! say why. `<graph>.files` are the files that were read. Where a file is not among them, or was read in another way, it is
//! read; when the source has one no more, or records were erased, the rows that stay are written anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int32Builder, Int64Array, Int64Builder, RecordBatch,
    StringArray,
};
use arrow::datatypes::{Int32Type, Int64Type};
use clientele_udfs::identity::Reject;
use clientele_udfs::identity::batch::{Batch, Cleaned};
use clientele_udfs::identity::collect::{Collector, Finding, FoundRows, KeptRows, Taker, Wanted};
use clientele_udfs::identity::graph::{Kept, OF_NO_FILE, Value, signed, unsigned};
use clientele_udfs::identity::records::Records;
use futures::{StreamExt, TryStreamExt};

use super::map::Numbers;
use super::source::{Source, Texts};
use super::tables::{BATCH_ROWS, FILES, IDENTIFIERS, Table};
use crate::error::{Error, Kind, Result};
use crate::store::{FileEntry, Warehouse};
use crate::workspace::in_background;

/// Counts up with every change of cleaning and hashing, and of how it is kept.
const HOW: u32 = 2;

/// What stands for each reason in the table.
const REASONS: [Reject; 3] = [Reject::Null, Reject::Placeholder, Reject::Invalid];

/// A file of the source.
#[derive(Debug, Clone)]
pub(super) struct ReadFile {
    /// A number that stands for it and the way it is read: of text a copy a row would be read.
    pub(super) name: i64,
    entry: FileEntry,
    /// Rows of it that had no record; `None` when it was not read yet.
    without_key: Option<u64>,
    /// Its number among the files of this refresh; that of none, when its findings stay as they are kept.
    number: u16,
}

/// The files of the source, and what of them is kept.
#[derive(Debug, Clone)]
pub(super) struct Files {
    all: Vec<ReadFile>,
    /// Whether findings of files are kept that the source has no more.
    pub(super) has_gone: bool,
}

impl Files {
    /// The source's files, with what `graph` knows of them, unless it `forgets` all.
    pub(super) async fn open(
        warehouse: &Warehouse,
        graph: &str,
        source: &Source,
        forgets: bool,
    ) -> Result<Self> {
        let mut table = Table::open(warehouse, graph, FILES).await?;
        let mut known: HashMap<i64, u64> = HashMap::new();
        table
            .read(|batch| {
                let of = |at: usize| batch.column(at).as_primitive::<Int64Type>();
                for (name, without_key) in of(0).iter().zip(of(2)) {
                    if let (Some(name), Some(count)) = (name, without_key) {
                        known.insert(name, count.max(0) as u64);
                    }
                }
            })
            .await?;
        if forgets {
            known.clear();
        }
        let reading = blake3::hash(format!("{HOW} {}", source.reading()).as_bytes()).to_hex();
        let mut file = |entry: &FileEntry| {
            let name = entry.path.rsplit('/').next().unwrap_or_default();
            let hash = blake3::hash(format!("{name} {reading}").as_bytes());
            let name = i64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default());
            let without_key = known.remove(&name);
            ReadFile { name, entry: entry.clone(), without_key, number: OF_NO_FILE }
        };
        let all: Vec<ReadFile> = source.files().iter().map(&mut file).collect();
        Ok(Self { all, has_gone: !known.is_empty() })
    }

    /// Gives numbers to those whose findings are to be written: all of them, or those that were not read yet.
    pub(super) fn number(&mut self, all: bool) -> Result<()> {
        let wanted = self.all.iter_mut().filter(|file| all || file.without_key.is_none());
        for (number, file) in (1..).zip(wanted) {
            file.number = u16::try_from(number).map_err(|_| {
                Error::new(Kind::LimitExceeded, "the source has more than 65535 files to be read")
                    .hint("COMPACT TABLE makes few files of many")
            })?;
        }
        Ok(())
    }

    /// Those that were not read yet.
    pub(super) fn fresh(&self) -> impl Iterator<Item = &ReadFile> {
        self.all.iter().filter(|file| file.without_key.is_none())
    }

    /// How many rows they have.
    pub(super) fn fresh_rows(&self) -> u64 {
        self.fresh().map(|file| file.entry.rows).sum()
    }

    /// Their paths.
    pub(super) fn fresh_paths(&self) -> Vec<String> {
        self.fresh().map(|file| file.entry.path.clone()).collect()
    }

    /// Says how many rows of those that were read had no record, in their order.
    pub(super) fn were_read(&mut self, without_key: Vec<u64>) {
        let fresh = self.all.iter_mut().filter(|file| file.without_key.is_none());
        fresh.zip(without_key).for_each(|(file, count)| file.without_key = Some(count));
    }

    /// Rows without a record, of all of them.
    pub(super) fn without_key(&self) -> u64 {
        self.all.iter().filter_map(|file| file.without_key).sum()
    }

    /// The rows of the table.
    pub(super) fn rows(&self) -> Vec<(&'static str, ArrayRef)> {
        let number = |of: &dyn Fn(&ReadFile) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(self.all.iter().map(of)))
        };
        let paths = self.all.iter().map(|file| &file.entry.path);
        vec![
            ("file", number(&|file| file.name)),
            ("path", Arc::new(StringArray::from_iter_values(paths))),
            ("without_key", number(&|file| file.without_key.unwrap_or(0) as i64)),
        ]
    }

    /// The name of each number.
    fn names(&self) -> Vec<i64> {
        let most = self.all.iter().map(|file| file.number).max().unwrap_or(0);
        let mut names = vec![0; usize::from(most) + 1];
        self.all.iter().for_each(|file| names[usize::from(file.number)] = file.name);
        names
    }
}

/// Reads a file of the source. What its batches say is given to `take`; the records that they are of are added to `apart`, when it is
/// given, and else to the collector's. Gives the number of rows that have no record.
pub(super) async fn read_file(
    warehouse: &Warehouse,
    source: &Source,
    file: &ReadFile,
    collector: &mut Collector,
    mut apart: Option<&mut Records>,
    mut take: impl FnMut(&mut Collector, Batch) -> Result<()>,
) -> Result<u64> {
    /// Batches that are cleaned at once.
    const BATCHES: usize = 2;
    let (source, cleaner) = (Arc::new(source.clone()), collector.cleaner());
    let hashing = collector.records().hashing();
    let batches = source.open_file(warehouse, &file.entry).await?;
    let clean = |batch: Result<RecordBatch>| {
        let (source, cleaner) = (Arc::clone(&source), cleaner.clone());
        async move {
            let batch = batch?;
            in_background(move || {
                let texts = source.texts_of(&batch)?;
                let cleaned = Cleaned::of(&texts.columns(), cleaner, hashing);
                Ok::<_, Error>((texts, cleaned))
            })
            .await?
        }
    };
    let mut batches = std::pin::pin!(batches.map(clean).buffered(BATCHES));
    let mut without_key = 0;
    while let Some(cleaned) = batches.next().await {
        let (texts, cleaned): (Texts, Cleaned) = cleaned?;
        without_key += cleaned.without_key;
        let types = cleaned.types().map(|name| collector.id_type(name)).collect();
        let records = match &mut apart {
            Some(records) => &mut **records,
            None => collector.records_mut(),
        };
        let batch = cleaned.number(&texts.columns(), file.number, types, records);
        take(collector, batch)?;
    }
    Ok(without_key)
}

/// Which records, by their numbers in the map, are in files that the source still has.
pub(super) async fn live_records(table: &mut Table<'_>, files: &Files) -> Result<Vec<bool>> {
    let names: HashSet<i64> = files.all.iter().map(|file| file.name).collect();
    let mut live = Vec::new();
    for file in table.files().await? {
        let mut batches = table.read_file(&file, &["file", "record"]).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let of_files = batch.column(0).as_primitive::<Int64Type>().values();
            let records = batch.column(1).as_primitive::<Int32Type>().values();
            for (file, record) in of_files.iter().zip(records) {
                if names.contains(file) {
                    let record = *record as u32 as usize;
                    if live.len() <= record {
                        live.resize(record + 1, false);
                    }
                    live[record] = true;
                }
            }
        }
    }
    Ok(live)
}

/// Which of the rows that are kept are taken, and how.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taking<'a> {
    /// All, of so many records, whose numbers here are those of the table; whichever files they are of.
    AsTheyAre { records: u32 },
    /// As [`Self::AsTheyAre`], and not all.
    Some { wanted: &'a Wanted, records: u32 },
    /// All of records that are known by these numbers, whichever files they are of.
    Numbered(&'a Numbers),
    /// Those of records that are known by these numbers, and of files that the source still has: each with its file.
    OfFiles(&'a Numbers),
}

/// Gives what is kept to a collector. `types` are the names of types by their numbers in the table. `fit` is asked whether there is
/// memory for it.
pub(super) async fn take_kept(
    table: &Table<'_>,
    files: &Files,
    taking: Taking<'_>,
    types: &[String],
    collector: &mut Collector,
    mut fit: impl FnMut(&mut Collector) -> Result<()>,
) -> Result<()> {
    const COLUMNS: [&str; 7] =
        ["record", "id_type", "hash", "hash_low", "seen_at", "reason", "file"];
    /// Files that are read at once, and batches that are put in order.
    const AT_ONCE: usize = 2;
    let mut kept = table.files().await?;
    let most = kept.iter().map(|file| file.rows).max().unwrap_or(0);
    // First what is most of it, in order.
    let first = |file: &FileEntry| file.bounds.get("hash").and_then(|(low, _)| low.as_i64());
    kept.sort_by_key(|file| (file.rows < most / 2, first(file)));
    let types: Vec<u16> = types.iter().map(|name| collector.id_type(name)).collect();
    let number_of: HashMap<i64, u16> =
        files.all.iter().map(|file| (file.name, file.number)).collect();
    // Which file a row is of does not matter when all of them are there, and no row is written again.
    let is_of_files = matches!(taking, Taking::OfFiles(_));
    let columns = &COLUMNS[..COLUMNS.len() - usize::from(!is_of_files)];
    let at_once = match taking {
        Taking::Numbered(numbers) => numbers.are_same(),
        Taking::AsTheyAre { .. } | Taking::Some { .. } => true,
        Taking::OfFiles(_) => false,
    };
    let taker = at_once.then(|| collector.taker(&types));
    let wanted = match taking {
        Taking::Some { wanted, .. } => Some(wanted.clone()),
        _ => None,
    };
    let together = |batch: Result<RecordBatch>| {
        let (taker, wanted) = (taker.clone(), wanted.clone());
        async move {
            let batch = batch?;
            in_background(move || match (taker, wanted) {
                (Some(taker), Some(wanted)) => Taken::some_of(&taker, &wanted, batch),
                (taker, _) => Taken::of(taker.as_ref(), batch),
            })
            .await
        }
    };
    let mut opening = Vec::with_capacity(kept.len());
    for file in &kept {
        opening.push(table.opening(file, columns).await?);
    }
    let open = futures::stream::iter(opening).buffered(1);
    let batches = open.try_flatten_unordered(AT_ONCE);
    let mut batches = std::pin::pin!(batches.map(together).buffered(AT_ONCE));
    while let Some(taken) = batches.next().await {
        let Taken { kept, batch, others, most } = taken?;
        if let Taking::AsTheyAre { records } | Taking::Some { records, .. } = taking
            && most.is_some_and(|most| most >= records)
        {
            return Err(damaged());
        }
        collector.take_kept(kept);
        let small = |at: usize| batch.column(at).as_primitive::<Int32Type>();
        let large = |at: usize| batch.column(at).as_primitive::<Int64Type>();
        let (records, kinds, reasons) = (small(0), small(1), small(5));
        let (highs, lows, times) = (large(2), large(3), large(4));
        let of_files = is_of_files.then(|| large(6).values());
        for row in others {
            let number = match of_files {
                Some(names) => match number_of.get(&names[row]) {
                    Some(number) => *number,
                    None => continue,
                },
                None => OF_NO_FILE,
            };
            let record = records.value(row).cast_unsigned();
            let record = match taking {
                Taking::AsTheyAre { records } | Taking::Some { records, .. } => {
                    Some(record).filter(|record| *record < records)
                }
                Taking::Numbered(numbers) | Taking::OfFiles(numbers) => numbers.in_memory(record),
            };
            let Some(record) = record else { continue };
            let of_type = || {
                let id_type = types.get(kinds.value(row) as usize);
                id_type.copied().ok_or_else(damaged)
            };
            if highs.is_valid(row) {
                let value = [unsigned(highs.value(row)), lows.value(row) as u64];
                let seen_at = times.is_valid(row).then(|| times.value(row));
                let finding = Finding::Identifier(value, seen_at);
                collector.take(number, record, of_type()?, &finding);
            } else if reasons.is_valid(row) {
                let reason = REASONS.get(reasons.value(row) as usize).ok_or_else(damaged)?;
                collector.take(number, record, of_type()?, &Finding::Rejected(*reason));
            } else if number != OF_NO_FILE {
                collector.take_record(number, record);
            }
        }
        fit(collector)?;
    }
    Ok(())
}

/// A batch of rows that are kept.
struct Taken {
    /// What of it is taken together.
    kept: Kept,
    batch: RecordBatch,
    /// Rows that are taken one by one.
    others: Vec<usize>,
    /// The largest number of a record among the rows.
    most: Option<u32>,
}

impl Taken {
    fn rows(batch: &RecordBatch) -> KeptRows<'_> {
        let small = |at: usize| batch.column(at).as_primitive::<Int32Type>();
        let large = |at: usize| batch.column(at).as_primitive::<Int64Type>();
        KeptRows {
            records: small(0).values(),
            types: small(1).values(),
            highs: large(2).values(),
            lows: large(3).values(),
        }
    }

    /// The rows that are wanted.
    fn some_of(taker: &Taker, wanted: &Wanted, batch: RecordBatch) -> Self {
        let rows = Self::rows(&batch);
        let found = taker.wanted(rows, wanted);
        // Those without a hash are rejected; the values that stand there mean nothing.
        let hashes = batch.column(2);
        let (found, mut others): (Vec<usize>, Vec<usize>) = match hashes.null_count() {
            0 => (found, Vec::new()),
            _ => {
                let found = found.into_iter().filter(|row| hashes.is_valid(*row)).collect();
                let is_wanted = matches!(wanted, Wanted::Halves(_));
                let all = (0..batch.num_rows()).filter(|_| is_wanted);
                (found, all.filter(|row| hashes.is_null(*row)).collect())
            }
        };
        let few = FewRows {
            records: found.iter().map(|row| rows.records[*row]).collect(),
            types: found.iter().map(|row| rows.types[*row]).collect(),
            highs: found.iter().map(|row| rows.highs[*row]).collect(),
            lows: found.iter().map(|row| rows.lows[*row]).collect(),
        };
        let mut one_by_one = Vec::new();
        let kept = taker.take(few.rows(), &mut one_by_one);
        others.extend(one_by_one.into_iter().map(|at| found[at]));
        let most = few.records.iter().map(|record| record.cast_unsigned()).max();
        Self { kept, batch, others, most }
    }

    fn of(taker: Option<&Taker>, batch: RecordBatch) -> Self {
        let mut others = Vec::new();
        let kept = match taker {
            Some(taker) if batch.column(2).null_count() == 0 => {
                taker.take(Self::rows(&batch), &mut others)
            }
            _ => {
                others.extend(0..batch.num_rows());
                Kept::default()
            }
        };
        let most = Self::rows(&batch).records.iter().map(|record| record.cast_unsigned()).max();
        Self { kept, batch, others, most }
    }
}

/// Some rows of a batch.
struct FewRows {
    records: Vec<i32>,
    types: Vec<i32>,
    highs: Vec<i64>,
    lows: Vec<i64>,
}

impl FewRows {
    fn rows(&self) -> KeptRows<'_> {
        let Self { records, types, highs, lows } = self;
        KeptRows { records, types, highs, lows }
    }
}

fn damaged() -> Error {
    Error::new(Kind::DataCorrupted, "the findings of an identity graph are damaged")
        .hint("REFRESH IDENTITY GRAPH ... FULL reads all rows again")
}

/// Writes what numbered files say, in the order of hashes, and gives the collector back. `types` are the names of types by their
/// numbers in the table; those that are new are added.
pub(super) async fn write(
    table: &mut Table<'_>,
    files: &Files,
    numbers: &Numbers,
    types: &mut Vec<String>,
    mut collector: Collector,
) -> Result<Collector> {
    /// Parts that are made at once.
    const PARTS: usize = 2;
    for name in collector.type_names() {
        if !types.iter().any(|known| known == name) {
            types.push(name.to_owned());
        }
    }
    let place = |name: &str| types.iter().position(|known| known == name).unwrap_or(0);
    let kinds: Vec<i32> = collector.type_names().map(|name| place(name) as i32).collect();
    let names = Arc::new((files.names(), kinds));
    let aside = collector.aside_of_files();
    let collector = Arc::new(collector);
    let find = |part: usize| {
        let (collector, names) = (Arc::clone(&collector), Arc::clone(&names));
        async move { in_background(move || collector.of_files(part, &names.0, &names.1)).await }
    };
    let mut parts = futures::stream::iter(0..collector.parts()).map(find).buffered(PARTS);
    while let Some(found) = parts.next().await {
        let mut found = found??;
        numbers.to_disk(&mut found.records);
        table.write(columns_of(found)).await?;
    }
    drop(parts);
    let (names, kinds) = (&names.0, &names.1);
    let kind = |id_type: u16| kinds[usize::from(id_type)];
    let mut rows = Rows::default();
    for aside in aside {
        let (file, record) = (names[usize::from(aside.file)], numbers.on_disk(aside.record));
        match aside.what {
            Some((id_type, Finding::Identifier(value, seen_at))) => {
                rows.add_identifier(file, record, kind(id_type), value, seen_at);
            }
            Some((id_type, Finding::Rejected(reason))) => {
                let reason = REASONS.iter().position(|known| *known == reason).unwrap_or(0);
                rows.add(file, record, Some(kind(id_type)), Some(reason as i32));
            }
            None => rows.add(file, record, None, None),
        }
        if rows.files.len() >= BATCH_ROWS {
            table.write(rows.columns()).await?;
        }
    }
    table.write(rows.columns()).await?;
    Arc::into_inner(collector).ok_or_else(|| Error::internal("findings are still being written"))
}

/// Identifiers as columns of the table.
fn columns_of(found: FoundRows) -> Vec<(&'static str, ArrayRef)> {
    let FoundRows { files, records, types, highs, lows, times } = found;
    let mut columns: Vec<(&'static str, ArrayRef)> = vec![
        ("file", Arc::new(Int64Array::from(files))),
        ("record", Arc::new(Int32Array::from(records))),
        ("id_type", Arc::new(Int32Array::from(types))),
        ("hash", Arc::new(Int64Array::from(highs))),
        ("hash_low", Arc::new(Int64Array::from(lows))),
    ];
    if !times.is_empty() {
        columns.push(("seen_at", Arc::new(Int64Array::from(times))));
    }
    columns
}

/// Rows of findings that are to be written.
#[derive(Default)]
struct Rows {
    files: Vec<i64>,
    records: Vec<i32>,
    kinds: Int32Builder,
    highs: Int64Builder,
    lows: Int64Builder,
    times: Int64Builder,
    reasons: Int32Builder,
}

impl Rows {
    fn add_identifier(
        &mut self,
        file: i64,
        record: u32,
        kind: i32,
        value: Value,
        seen_at: Option<i64>,
    ) {
        self.files.push(file);
        self.records.push(record as i32);
        self.kinds.append_value(kind);
        self.highs.append_value(signed(value[0]));
        self.lows.append_value(value[1] as i64);
        self.times.append_option(seen_at);
        self.reasons.append_null();
    }

    fn add(&mut self, file: i64, record: u32, kind: Option<i32>, reason: Option<i32>) {
        self.files.push(file);
        self.records.push(record as i32);
        self.kinds.append_option(kind);
        self.highs.append_null();
        self.lows.append_null();
        self.times.append_null();
        self.reasons.append_option(reason);
    }

    /// The rows as columns of the table; the next ones begin anew.
    fn columns(&mut self) -> Vec<(&'static str, ArrayRef)> {
        vec![
            ("file", Arc::new(Int64Array::from(std::mem::take(&mut self.files)))),
            ("record", Arc::new(Int32Array::from(std::mem::take(&mut self.records)))),
            ("id_type", Arc::new(self.kinds.finish())),
            ("hash", Arc::new(self.highs.finish())),
            ("hash_low", Arc::new(self.lows.finish())),
            ("seen_at", Arc::new(self.times.finish())),
            ("reason", Arc::new(self.reasons.finish())),
        ]
    }
}

/// The table of findings.
pub(super) async fn table<'a>(warehouse: &'a Warehouse, graph: &str) -> Result<Table<'a>> {
    Table::open(warehouse, graph, IDENTIFIERS).await
}
