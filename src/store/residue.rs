//! `CHECK ERASED`: is anything of an erased person left, anywhere in the warehouse?
//!
//! A search for bytes proves nothing: pages are compressed and dictionaries encoded. So every Parquet file is decoded, those
//! that no version has any more included: rows, pages' dictionaries, statistics of pages and column chunks; and every entry
//! of every log, checkpoints, and spill files. What is found is compared as keyed hashes with what the erased people were
//! known by. A value that another record has as well, such as the phone of a family, is that record's and no finding.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Type as PhysicalType;
use parquet::column::page::Page;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use parquet::file::statistics::Statistics;

use super::erased::{Erased, ErasedValues};
use super::generation::Relation;
use super::system;
use super::warehouse::Warehouse;
use crate::error::{Error, Result};

/// Something of an erased person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residue {
    /// File below the warehouse, or a spill file.
    pub file: String,
    /// Where in it: rows, dictionary, statistics, log entry, and of which column.
    pub part: String,
    /// What it is: `record`, or the column that the value stood in.
    pub what: String,
    /// How often.
    pub hits: u64,
    /// Whether only versions from before the erasure have the file, which a vacuum takes away after the time of grace.
    pub is_waiting: bool,
}

impl Residue {
    /// `waiting` for the end of the time of grace, or `found`.
    pub fn state(&self) -> &'static str {
        if self.is_waiting { "waiting" } else { "found" }
    }
}

/// What a look at everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErasedCheck {
    /// Id of the certificate's row in `system.erasure_checks`.
    pub id: String,
    /// What is left.
    pub found: Vec<Residue>,
    /// Erased records.
    pub records: usize,
    /// Values that were looked for.
    pub values: usize,
    /// Files that were decoded.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl ErasedCheck {
    /// `clean`, `waiting` for the end of the time of grace, or `found`.
    pub fn verdict(&self) -> &'static str {
        match (self.found.is_empty(), self.found.iter().all(|residue| residue.is_waiting)) {
            (true, _) => "clean",
            (false, true) => "waiting",
            (false, false) => "found",
        }
    }
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
struct Wanted {
    erased: Arc<Erased>,
    values: Arc<ErasedValues>,
}

impl Wanted {
    /// The values in `text`: the whole of it, or words of it.
    fn find_within(&self, text: &str, mut take: impl FnMut(u128, &str)) {
        if let Some((hash, column)) = self.values.find(text) {
            return take(hash, column);
        }
        let is_part = |c: char| c.is_alphanumeric() || "@._+-".contains(c);
        for word in text.split(|c: char| !is_part(c)).filter(|word| word.len() < text.len()) {
            if let Some((hash, column)) = self.values.find(word) {
                take(hash, column);
            }
        }
    }
}

/// Findings of one file, by part and what.
#[derive(Debug, Default)]
struct Tally(BTreeMap<(String, String), u64>);

impl Tally {
    fn add(&mut self, part: impl Into<String>, what: &str) {
        *self.0.entry((part.into(), what.to_owned())).or_default() += 1;
    }
}

impl Warehouse {
    /// Decodes everything that lies in the warehouse, and in `spill`, and writes a row of `system.erasure_checks`.
    ///
    /// Cost: all files are read and decoded once, one at a time in memory.
    pub async fn check_erased(&self, by: &str, spill: &[PathBuf]) -> Result<ErasedCheck> {
        let newest = self.newest().await?;
        let erased = self.erased_in(&newest).await?;
        let values = self.erased_values(&newest).await?;
        let mut check = ErasedCheck {
            id: uuid::Uuid::new_v4().to_string(),
            records: erased.len(),
            values: values.len(),
            ..ErasedCheck::default()
        };
        let wanted = Wanted { erased, values: Arc::new(values) };
        let mut live = HashSet::new();
        let mut versions = HashMap::new();
        let mut personal = HashMap::new();
        for relation in newest.relations.values() {
            let Relation::Table(def) = relation else { continue };
            let snapshot = self.snapshot(def).await?;
            live.extend(snapshot.files.iter().map(|file| file.path.clone()));
            versions.insert(def.path.clone(), def.version);
            personal.insert(def.path.clone(), snapshot.personal.clone());
        }
        let listed: Vec<_> = self.store().list(None).try_collect().await?;
        for file in listed {
            let name = file.location.to_string();
            let kind = Kind::of(&name);
            if kind == Kind::Other {
                continue;
            }
            let bytes = match self.store().get(&file.location).await {
                Ok(found) => found.bytes().await?,
                // A vacuum or a compaction was here meanwhile.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            check.files += 1;
            check.bytes += bytes.len() as u64;
            let folder = table_folder(&name).to_owned();
            let is_waiting = match kind {
                Kind::Data => !live.contains(&name),
                Kind::Log(version) => versions.get(&folder).is_none_or(|newest| version < *newest),
                Kind::Json | Kind::Other => false,
            };
            let of_table = personal.get(&folder).cloned().unwrap_or_default();
            let wanted = wanted.clone();
            let tally =
                tokio::task::spawn_blocking(move || look(kind, &name, bytes, &wanted, &of_table));
            let tally = tally
                .await
                .map_err(|_| Error::internal("a look at a file stopped unexpectedly"))?;
            check.take(&file.location, tally, is_waiting);
        }
        for dir in spill {
            check.look_at_spill(dir, &wanted);
        }
        self.certify(&check, by).await?;
        Ok(check)
    }

    async fn certify(&self, check: &ErasedCheck, by: &str) -> Result<()> {
        let number = |n: u64| -> ArrayRef {
            Arc::new(Int64Array::from(vec![i64::try_from(n).unwrap_or(i64::MAX)]))
        };
        let text = |t: &str| -> ArrayRef { Arc::new(StringArray::from(vec![t])) };
        let now = chrono::Utc::now().timestamp_micros();
        let waiting = check.found.iter().filter(|residue| residue.is_waiting).count();
        let columns: Vec<ArrayRef> = vec![
            text(&check.id),
            Arc::new(TimestampMicrosecondArray::from(vec![now]).with_timezone("UTC")),
            text(by),
            number(check.records as u64),
            number(check.values as u64),
            number(check.files as u64),
            number(check.bytes),
            number((check.found.len() - waiting) as u64),
            number(waiting as u64),
            text(check.verdict()),
        ];
        self.append_to_system(system::erasure_checks(), columns).await
    }
}

impl ErasedCheck {
    fn take(&mut self, file: &Path, tally: Tally, is_waiting: bool) {
        self.found.extend(tally.0.into_iter().map(|((part, what), hits)| Residue {
            file: file.to_string(),
            part,
            what,
            hits,
            is_waiting,
        }));
    }

    /// Spill files of queries that run, or that a killed process left.
    fn look_at_spill(&mut self, dir: &FsPath, wanted: &Wanted) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.look_at_spill(&path, wanted);
                continue;
            }
            let Ok(file) = std::fs::File::open(&path) else { continue };
            self.files += 1;
            self.bytes += file.metadata().map_or(0, |m| m.len());
            let mut tally = Tally::default();
            if let Ok(reader) = arrow::ipc::reader::StreamReader::try_new_buffered(file, None) {
                // A file that is still being written ends in the middle of a batch.
                for batch in reader.map_while(std::result::Result::ok) {
                    for column in batch.columns() {
                        each_text(column, &mut |text| {
                            wanted.find_within(text, |_, what| tally.add("spilled rows", what));
                        });
                    }
                }
            }
            self.found.extend(tally.0.into_iter().map(|((part, what), hits)| Residue {
                file: path.display().to_string(),
                part,
                what,
                hits,
                is_waiting: false,
            }));
        }
    }
}

/// What a file of the warehouse is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Rows of a table.
    Data,
    /// An entry or checkpoint of a table's log, of this version.
    Log(u64),
    /// A document of the warehouse itself.
    Json,
    /// Nothing that holds data.
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        let is_parquet = name.ends_with(".parquet");
        match name.split_once("/_delta_log/") {
            Some((_, entry)) => match entry.split('.').next().and_then(|v| v.parse().ok()) {
                Some(version) if is_parquet || entry.ends_with(".json") => Self::Log(version),
                _ => Self::Other,
            },
            None if is_parquet => Self::Data,
            None if name.ends_with(".json") => Self::Json,
            None => Self::Other,
        }
    }
}

fn table_folder(name: &str) -> &str {
    match name.split_once("/_delta_log/") {
        Some((folder, _)) => folder,
        None => name.rsplit_once('/').map_or("", |(folder, _)| folder),
    }
}

fn look(kind: Kind, name: &str, bytes: Bytes, wanted: &Wanted, personal: &[String]) -> Tally {
    let mut tally = Tally::default();
    let is_parquet = name.ends_with(".parquet");
    let looked = match kind {
        Kind::Data => data_file(bytes, wanted, personal, &mut tally),
        Kind::Log(_) if is_parquet => checkpoint(bytes, wanted, &mut tally),
        Kind::Log(_) | Kind::Json => {
            documents(&bytes, wanted, &mut tally);
            Ok(())
        }
        Kind::Other => Ok(()),
    };
    // What cannot be decoded cannot be said to be clean.
    if looked.is_err() {
        tally.add("the whole file", "cannot be decoded");
    }
    tally
}

fn checkpoint(bytes: Bytes, wanted: &Wanted, tally: &mut Tally) -> Result<()> {
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        for column in batch?.columns() {
            each_text(column, &mut |text| in_text(text, "checkpoint", wanted, tally));
        }
    }
    Ok(())
}

/// JSON documents, one a line or one a file.
fn documents(bytes: &[u8], wanted: &Wanted, tally: &mut Tally) {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return in_json(&value, "entry", wanted, tally);
    }
    for line in bytes.split(|byte| *byte == b'\n') {
        in_text(&String::from_utf8_lossy(line), "entry", wanted, tally);
    }
}

/// Text that may be a document itself, as statistics within an entry are.
fn in_text(text: &str, part: &str, wanted: &Wanted, tally: &mut Tally) {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value @ (serde_json::Value::Object(_) | serde_json::Value::Array(_))) => {
            in_json(&value, part, wanted, tally);
        }
        _ => wanted.find_within(text, |_, what| tally.add(part, what)),
    }
}

fn in_json(value: &serde_json::Value, part: &str, wanted: &Wanted, tally: &mut Tally) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                wanted.find_within(name, |_, what| tally.add(part, what));
                in_json(value, part, wanted, tally);
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| in_json(value, part, wanted, tally));
        }
        serde_json::Value::String(text) => in_text(text, part, wanted, tally),
        serde_json::Value::Number(number) => {
            wanted.find_within(&number.to_string(), |_, what| tally.add(part, what));
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) => {}
    }
}

/// Every text in a column, however deep.
fn each_text(column: &ArrayRef, take: &mut impl FnMut(&str)) {
    match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            if let Ok(texts) = cast(column, &DataType::Utf8View) {
                texts.as_string_view().iter().flatten().for_each(take);
            }
        }
        DataType::Struct(_) => {
            for inner in column.as_struct().columns() {
                each_text(inner, take);
            }
        }
        DataType::List(_) => each_text(column.as_list::<i32>().values(), take),
        DataType::LargeList(_) => each_text(column.as_list::<i64>().values(), take),
        DataType::Map(..) => {
            let map = column.as_map();
            each_text(map.keys(), take);
            each_text(map.values(), take);
        }
        DataType::Dictionary(..) => {
            let values = column.as_any_dictionary().values();
            each_text(values, take);
        }
        DataType::Int64 | DataType::Int32 | DataType::Decimal128(..) => {
            if let Ok(texts) = cast(column, &DataType::Utf8View) {
                texts.as_string_view().iter().flatten().for_each(take);
            }
        }
        _ => {}
    }
}

/// A file of rows: the rows, then what only the file's own structure has.
fn data_file(bytes: Bytes, wanted: &Wanted, personal: &[String], tally: &mut Tally) -> Result<()> {
    // Values that rows of other records have; they are theirs.
    let mut shared = HashSet::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?.build()? {
        let batch = batch?;
        let schema = batch.schema();
        let key = Erased::key_columns(&schema);
        let hits = match key {
            Some([source, record]) => {
                let hits = wanted.erased.hits(batch.column(source), batch.column(record))?;
                hits.iter().flatten().for_each(|_| tally.add("rows", "record"));
                Some(hits.iter().map(Option::is_some).collect::<Vec<bool>>())
            }
            None => None,
        };
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            let is_text = matches!(
                field.data_type(),
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            );
            if !is_text && !personal.contains(field.name()) && field.name() != "record_id" {
                continue;
            }
            let Ok(texts) = cast(column, &DataType::Utf8View) else { continue };
            let mut before: Option<&str> = None;
            let mut found: Vec<(u128, String)> = Vec::new();
            for (row, text) in texts.as_string_view().iter().enumerate() {
                let Some(text) = text else { continue };
                if before != Some(text) {
                    found.clear();
                    wanted.find_within(text, |hash, what| found.push((hash, what.to_owned())));
                    before = Some(text);
                }
                for (hash, what) in &found {
                    match &hits {
                        Some(hits) if !hits[row] => {
                            shared.insert(*hash);
                        }
                        _ => tally.add(format!("rows, column {}", field.name()), what),
                    }
                }
            }
        }
    }
    structure(bytes, wanted, &shared, tally)
}

/// Dictionaries and statistics.
fn structure(
    bytes: Bytes,
    wanted: &Wanted,
    shared: &HashSet<u128>,
    tally: &mut Tally,
) -> Result<()> {
    let options = ReadOptionsBuilder::new().with_page_index().build();
    let file = SerializedFileReader::new_with_options(bytes, options)?;
    let mut look = |bytes: &[u8], part: String| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            wanted.find_within(text, |hash, what| {
                if !shared.contains(&hash) {
                    tally.add(part.as_str(), what);
                }
            });
        }
    };
    let bounds = |statistics: &Statistics| -> Vec<Vec<u8>> {
        let both = [statistics.min_bytes_opt(), statistics.max_bytes_opt()];
        both.into_iter().flatten().map(<[u8]>::to_vec).collect()
    };
    for at in 0..file.num_row_groups() {
        let row_group = file.get_row_group(at)?;
        for (i, chunk) in row_group.metadata().columns().iter().enumerate() {
            if chunk.column_type() != PhysicalType::BYTE_ARRAY {
                continue;
            }
            let column = chunk.column_path().string();
            if let Some(statistics) = chunk.statistics() {
                for bound in bounds(statistics) {
                    look(&bound, format!("statistics, column {column}"));
                }
            }
            let index = file.metadata().column_index().and_then(|all| all.get(at)?.get(i));
            if let Some(ColumnIndexMetaData::BYTE_ARRAY(index)) = index {
                for bound in index.min_values_iter().chain(index.max_values_iter()).flatten() {
                    look(bound, format!("page index, column {column}"));
                }
            }
            let mut pages = row_group.get_column_page_reader(i)?;
            while let Some(page) = pages.get_next_page()? {
                if let Page::DictionaryPage { buf, .. } = &page {
                    each_plain(buf, |value| look(value, format!("dictionary, column {column}")));
                }
                if let Some(statistics) = page.statistics() {
                    for bound in bounds(statistics) {
                        look(&bound, format!("page statistics, column {column}"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The byte arrays of a dictionary page: each with its length before it.
fn each_plain(mut page: &[u8], mut take: impl FnMut(&[u8])) {
    while let Some((length, rest)) = page.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((value, rest)) = rest.split_at_checked(length) else { return };
        take(value);
        page = rest;
    }
}
