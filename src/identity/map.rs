//! `<graph>.map`: every record with its customer, and the number under which findings name it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use clientele_udfs::identity::ids::{Ids, NO_ID, with_ids_of};
use clientele_udfs::identity::records::Records;
use futures::StreamExt;

use super::columns::{numbers, small};
use super::tables::{BATCH_ROWS, Table};
use crate::error::Result;
use crate::store::{Erased, FileEntry};
use crate::workspace::Workspace;

/// The numbers of records: in memory they are counted as they come, in the tables they stay.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// By number in memory. Records after these are new.
    on_disk: Vec<i32>,
    /// By number in the tables; `None` where both are the same.
    in_memory: Option<Vec<u32>>,
    /// The first that no record has.
    next: u32,
}

/// No number.
const NONE: u32 = u32::MAX;

impl Numbers {
    fn push(&mut self, on_disk: u32) {
        self.on_disk.push(on_disk.cast_signed());
    }

    /// All are there.
    fn end(&mut self) {
        let most = self.on_disk.iter().max().map(|most| most.cast_unsigned());
        self.next = most.map_or(0, |most| most + 1);
        if self.next as usize == self.on_disk.len() && self.on_disk.is_sorted() {
            return;
        }
        let mut in_memory = vec![NONE; self.next as usize];
        for (at, number) in (0..).zip(&self.on_disk) {
            in_memory[*number as usize] = at;
        }
        self.in_memory = Some(in_memory);
    }

    /// Whether both numbers of each record are the same.
    pub(super) fn are_same(&self) -> bool {
        self.in_memory.is_none()
    }

    /// The number in memory of a record of the tables.
    pub(super) fn in_memory(&self, on_disk: u32) -> Option<u32> {
        let found = match &self.in_memory {
            Some(in_memory) => in_memory.get(on_disk as usize).copied(),
            None => ((on_disk as usize) < self.on_disk.len()).then_some(on_disk),
        };
        found.filter(|number| *number != NONE)
    }

    /// Puts the numbers in the tables into the place of those in memory.
    pub(super) fn to_disk(&self, records: &mut [i32]) {
        if self.next > 0 {
            let on_disk = |record: i32| self.on_disk(record.cast_unsigned()).cast_signed();
            records.iter_mut().for_each(|record| *record = on_disk(*record));
        }
    }

    /// The number in the tables of a record in memory.
    pub(super) fn on_disk(&self, in_memory: u32) -> u32 {
        let new = || self.next + (in_memory - self.on_disk.len() as u32);
        self.on_disk.get(in_memory as usize).map_or_else(new, |number| number.cast_unsigned())
    }
}

/// The map as it was read.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) numbers: Numbers,
    /// The ids of its records, by number in memory.
    before: Ids,
    /// Ids of rows whose records are not there any more.
    pub(super) gone: Vec<i64>,
    /// Its files, and the number in memory of the first record of each.
    files: Vec<(FileEntry, u32)>,
}

impl Map {
    /// Reads the records that are live, with their keys, which are added to `records`.
    pub(super) async fn with_keys(
        table: &mut Table<'_>,
        erased: &Erased,
        is_live: impl Fn(u32) -> bool,
        records: &mut Records,
        memory: &Workspace,
    ) -> Result<Self> {
        let held = memory.size().saturating_sub(records.bytes());
        const COLUMNS: [&str; 5] = ["record", "one_id", "since_run", "source", "record_id"];
        let mut map = Self::default();
        for file in in_order(table).await? {
            map.files.push((file.clone(), records.len()));
            let mut batches = table.read_file(&file, &COLUMNS).await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let keeps = match erased.is_empty() {
                    true => None,
                    false => Some(erased.keeps(batch.column(3), batch.column(4))?),
                };
                let (sources, ids) =
                    (batch.column(3).as_string::<i32>(), batch.column(4).as_string::<i32>());
                let (numbers, one_ids, since) = parts(&batch);
                for row in 0..batch.num_rows() {
                    let number = numbers.value(row) as u32;
                    let is_kept = keeps.as_ref().is_none_or(|keeps| keeps.value(row));
                    if is_kept && is_live(number) {
                        records.add(sources.value(row), ids.value(row));
                        map.push(number, one_ids.value(row), since.value(row));
                    } else {
                        map.gone.push(one_ids.value(row));
                    }
                }
                memory.try_resize(held + records.bytes() + map.bytes())?;
            }
        }
        map.end();
        Ok(map)
    }

    /// Reads the numbers and ids alone; records of the hashes of each batch are looked for by `find`, which gets the number in memory
    /// of the first of them too. There is room for so many `more` ids.
    pub(super) async fn without_keys(
        table: &mut Table<'_>,
        more: u32,
        mut find: impl FnMut(&[i64], u32),
    ) -> Result<Self> {
        const COLUMNS: [&str; 4] = ["record", "one_id", "since_run", "key"];
        let mut map = Self::default();
        let rows = table.rows().await? as usize;
        map.numbers.on_disk.reserve_exact(rows);
        map.before = Ids::with_room(rows + more as usize);
        for file in in_order(table).await? {
            map.files.push((file.clone(), map.len()));
            let mut batches = table.read_file(&file, &COLUMNS).await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let keys = batch.column(3).as_primitive::<Int64Type>().values();
                let (numbers, one_ids, since) = parts(&batch);
                find(keys, map.len());
                map.numbers.on_disk.extend_from_slice(numbers.values());
                map.before.extend(one_ids.values(), since.values());
            }
        }
        map.end();
        Ok(map)
    }

    /// Bytes that [`Self::without_keys`] takes of so many rows.
    pub(super) fn bytes_of(rows: u64) -> usize {
        rows as usize * (size_of::<i64>() + 2 * size_of::<u32>())
    }

    /// Whether the files tell that the records are numbered as they will be in memory.
    pub(super) async fn is_plain(table: &mut Table<'_>) -> Result<bool> {
        let mut next = 0;
        for file in in_order(table).await? {
            let Some((low, high)) = file.bounds.get("record") else { return Ok(false) };
            let rows = i64::try_from(file.rows).unwrap_or(i64::MAX);
            if (low.as_i64(), high.as_i64()) != (Some(next), Some(next + rows - 1)) {
                return Ok(false);
            }
            next += rows;
        }
        Ok(true)
    }

    /// Records that it has.
    pub(super) fn len(&self) -> u32 {
        self.numbers.on_disk.len() as u32
    }

    fn push(&mut self, number: u32, one_id: i64, since: i32) {
        self.numbers.push(number);
        self.before.ids.push(one_id);
        self.before.since.push(since.max(1) as u32);
    }

    fn end(&mut self) {
        self.numbers.end();
        self.gone.sort_unstable();
        self.gone.dedup();
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        let ids = self.before.ids.capacity() * (size_of::<i64>() + size_of::<u32>());
        let in_memory = self.numbers.in_memory.as_ref().map_or(0, Vec::len);
        let gone = self.gone.capacity() * size_of::<i64>();
        ids + gone + (self.numbers.on_disk.capacity() + in_memory) * size_of::<u32>()
    }

    /// The ids of so many records, of which those after the map's are new, and those of records that are not there any more.
    pub(super) fn take_ids(&mut self, records: u32) -> (Ids, Vec<i64>) {
        let mut before = std::mem::take(&mut self.before);
        before.ids.resize(records as usize, NO_ID);
        before.since.resize(records as usize, 0);
        (before, std::mem::take(&mut self.gone))
    }

    /// The records of the customers of some, in order, by their numbers in memory.
    pub(super) fn with_customers_of(&self, some: impl Iterator<Item = u32>) -> Vec<u32> {
        with_ids_of(some, &self.before.ids)
    }

    /// The id that a record had.
    pub(super) fn id_of(&self, record: u32) -> i64 {
        self.before.ids[record as usize]
    }

    /// Gives the keys of some of its records, by their numbers in memory, in order.
    pub(super) async fn keys_of(
        &self,
        table: &mut Table<'_>,
        wanted: &[u32],
        mut take: impl FnMut(u32, &str, &str),
    ) -> Result<()> {
        for (at, (file, from)) in self.files.iter().enumerate() {
            let to = self.files.get(at + 1).map_or(self.len(), |(_, next)| *next);
            let begin = wanted.partition_point(|number| number < from);
            let end = wanted.partition_point(|number| *number < to);
            let mut wanted = wanted[begin..end].iter().copied().peekable();
            let mut first = *from;
            let mut batches = match wanted.peek() {
                Some(_) => table.read_file(file, &["source", "record_id"]).await?,
                None => continue,
            };
            while let (Some(_), Some(batch)) = (wanted.peek(), batches.next().await) {
                let batch = batch?;
                let text = |at: usize| batch.column(at).as_string::<i32>();
                let end = first + batch.num_rows() as u32;
                while let Some(number) = wanted.next_if(|number| *number < end) {
                    let row = (number - first) as usize;
                    take(number, text(0).value(row), text(1).value(row));
                }
                first = end;
            }
        }
        Ok(())
    }

    /// Writes the files that have a record among `changed`, which are in order, with the ids as they are now; gives the paths of
    /// those whose place they take.
    pub(super) async fn write_changed(
        &self,
        table: &mut Table<'_>,
        changed: &[u32],
        ids: &Ids,
    ) -> Result<Vec<String>> {
        let mut outdated = Vec::new();
        for (at, (file, from)) in self.files.iter().enumerate() {
            let to = self.files.get(at + 1).map_or(self.len(), |(_, next)| *next);
            let next = changed.partition_point(|number| number < from);
            if changed.get(next).is_none_or(|number| *number >= to) {
                continue;
            }
            outdated.push(file.path.clone());
            let names = table.column_names();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut first = *from as usize;
            let mut batches = table.read_file(file, &names).await?;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let part = first..first + batch.num_rows();
                first = part.end;
                let mut columns: BTreeMap<&str, ArrayRef> =
                    names.iter().copied().zip(batch.columns().iter().cloned()).collect();
                columns.insert("one_id", numbers(ids.ids[part.clone()].iter().copied()));
                columns.insert("since_run", small(ids.since[part].iter().copied()));
                table.write(columns.into_iter().collect()).await?;
            }
            // Each file is of records with consecutive numbers.
            table.end_file().await?;
        }
        Ok(outdated)
    }

    /// Forgets what the records were numbered as and where they are: from now on all of them are new.
    pub(super) fn forget_places(&mut self) {
        (self.numbers, self.files) = (Numbers::default(), Vec::new());
    }

    /// Writes the records that it has not.
    pub(super) async fn write_new(
        &self,
        table: &mut Table<'_>,
        records: &Records,
        ids: &Ids,
    ) -> Result<()> {
        for from in (self.len()..records.len()).step_by(BATCH_ROWS) {
            let to = records.len().min(from.saturating_add(BATCH_ROWS as u32));
            let [sources, record_ids] = records.columns(from..to);
            let part = from as usize..to as usize;
            let mut on_disk: Vec<i32> = (from.cast_signed()..to.cast_signed()).collect();
            self.numbers.to_disk(&mut on_disk);
            table
                .write(vec![
                    ("source", Arc::new(sources)),
                    ("record_id", Arc::new(record_ids)),
                    ("one_id", Arc::new(Int64Array::from(ids.ids[part.clone()].to_vec()))),
                    ("since_run", small(ids.since[part].iter().copied())),
                    ("record", Arc::new(Int32Array::from(on_disk))),
                    ("key", Arc::new(records.signed_hashes(from..to))),
                ])
                .await?;
        }
        Ok(())
    }
}

/// The map's files in the order of their records, so that these are mostly counted as they are numbered.
async fn in_order(table: &mut Table<'_>) -> Result<Vec<FileEntry>> {
    let mut files = table.files().await?;
    let first = |file: &FileEntry| file.bounds.get("record").and_then(|(low, _)| low.as_i64());
    files.sort_by_key(first);
    Ok(files)
}

/// Numbers, ids and runs of rows.
fn parts(batch: &RecordBatch) -> (&Int32Array, &Int64Array, &Int32Array) {
    let small = |at: usize| batch.column(at).as_primitive::<Int32Type>();
    (small(0), batch.column(1).as_primitive::<Int64Type>(), small(2))
}
