//! Loads with a key: a row that a source sends again takes the place of the one from before.
//!
//! The newest version of a row wins, whatever the order in which files come: the one with the larger value in the column
//! that says when it was changed; of two with the same value, one chosen by the hash of their content. So any order of loads
//! leaves the same rows, also where some of them bring new columns: a NULL is no content.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use arrow::row::{OwnedRow, RowConverter, SortField};

use super::{Target, place_of};
use crate::error::{Error, Kind, Result};
use crate::store::{FileEntry, Replaced, TableSnapshot, Warehouse, WrittenFile};

/// What tells rows apart, and which of two is the newer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Columns that name a row.
    pub columns: Vec<String>,
    /// Column that says when a row was changed; without one, only the content decides.
    pub latest: Option<String>,
}

/// Column that says when a row was changed, unless a load names another.
const LATEST_DEFAULT: &str = "updated_at";

impl Key {
    /// The key over `schema`, in its spelling; `updated_at` decides when there is such a column and no other is named.
    ///
    /// # Errors
    /// 42703 for a column that is not there.
    pub fn of(&self, schema: &Schema) -> Result<Self> {
        let find = |column: &str| Some(schema.field(place_of(schema, column)?).name().clone());
        let found = |role: &str, column: &String| {
            find(column).ok_or_else(|| {
                let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                Error::new(
                    Kind::UndefinedColumn,
                    format!("{role} column \"{column}\" does not exist in the table"),
                )
                .hint(format!("its columns are {}", names.join(", ")))
            })
        };
        let columns = self.columns.iter().map(|column| found("key", column));
        let columns = columns.collect::<Result<_>>()?;
        let latest = match &self.latest {
            Some(column) => Some(found("latest", column)?),
            None => find(LATEST_DEFAULT),
        };
        Ok(Self { columns, latest })
    }
}

impl Key {
    /// Columns that an input has to have, in the spelling of this key, which was found for what was `asked`.
    pub(super) fn needed(self, asked: &Self) -> Vec<String> {
        // That a file says nothing of `updated_at`, which nobody named, is no mistake.
        let latest = self.latest.filter(|_| asked.latest.is_some());
        self.columns.into_iter().chain(latest).collect()
    }
}

/// What a load with a key did beside adding rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Rows of the table that newer ones replaced.
    pub(super) replaced: u64,
    /// Rows of the load that were older than the table's, or than others of the same load.
    pub(super) outdated: u64,
}

/// Files that a load adds, and those whose place they take.
pub(super) struct Merge {
    pub(super) files: Vec<WrittenFile>,
    pub(super) replaced: Option<Replaced>,
    pub(super) merged: Merged,
}

/// How new a row is: when it was changed, then its content.
type Rank = (OwnedRow, [u8; 16]);

/// Where a row is: file, row.
type Place = (usize, usize);

/// Reads keys and ranks of batches.
struct Ranks {
    keys: RowConverter,
    key_columns: Vec<usize>,
    latest: RowConverter,
    latest_columns: Vec<usize>,
    /// Columns in the order of their names: that in which a table got them depends on what was loaded first.
    all: Vec<(String, usize, RowConverter)>,
}

impl Ranks {
    fn new(schema: &Schema, key: &Key) -> Result<Self> {
        let places = |names: &mut dyn Iterator<Item = &String>| -> Result<Vec<usize>> {
            names.map(|name| Ok(schema.index_of(name)?)).collect()
        };
        let converter = |columns: &[usize]| {
            let field = |at: &usize| SortField::new(schema.field(*at).data_type().clone());
            RowConverter::new(columns.iter().map(field).collect())
        };
        let key_columns = places(&mut key.columns.iter())?;
        let latest_columns = places(&mut key.latest.iter())?;
        let mut all = Vec::with_capacity(schema.fields().len());
        for (at, field) in schema.fields().iter().enumerate() {
            all.push((field.name().clone(), at, converter(&[at])?));
        }
        all.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        Ok(Self {
            keys: converter(&key_columns)?,
            latest: converter(&latest_columns)?,
            all,
            key_columns,
            latest_columns,
        })
    }

    /// Key and rank of every row; a row without a key, with a NULL in it, is like no other.
    fn of(&self, batch: &RecordBatch) -> Result<Vec<Option<(OwnedRow, Rank)>>> {
        let columns = |places: &[usize]| -> Vec<_> {
            places.iter().map(|at| Arc::clone(batch.column(*at))).collect()
        };
        let of_keys: Vec<_> = columns(&self.key_columns).iter().map(one_zero).collect();
        let keys = self.keys.convert_columns(&of_keys)?;
        let mut contents = vec![blake3::Hasher::new(); batch.num_rows()];
        for (name, at, converter) in &self.all {
            let column = batch.column(*at);
            let rows = converter.convert_columns(std::slice::from_ref(column))?;
            for (row, content) in contents.iter_mut().enumerate() {
                if column.is_valid(row) {
                    let value = rows.row(row);
                    let length = value.as_ref().len() as u64;
                    content.update(name.as_bytes()).update(b"\0").update(&length.to_le_bytes());
                    content.update(value.as_ref());
                }
            }
        }
        let latest = match self.latest_columns.is_empty() {
            true => None,
            false => Some(self.latest.convert_columns(&columns(&self.latest_columns))?),
        };
        let mut ranks = Vec::with_capacity(batch.num_rows());
        for (row, hasher) in contents.iter().enumerate() {
            if self.key_columns.iter().any(|at| batch.column(*at).is_null(row)) {
                ranks.push(None);
                continue;
            }
            let mut content = [0u8; 16];
            content.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
            // Without a column of changes all rows are equally new.
            let when = latest.as_ref().map_or_else(|| keys.row(row), |latest| latest.row(row));
            ranks.push(Some((keys.row(row).owned(), (when.owned(), content))));
        }
        Ok(ranks)
    }
}

/// Values of a key as SQL compares them: there is one zero, and one value that is no number.
fn one_zero(column: &ArrayRef) -> ArrayRef {
    let one = |value: f64| {
        if value == 0.0 {
            0.0
        } else if value.is_nan() {
            f64::NAN
        } else {
            value
        }
    };
    match column.data_type() {
        DataType::Float64 => {
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        DataType::Float32 => {
            let one = |value: f32| one(f64::from(value)) as f32;
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        _ => Arc::clone(column),
    }
}

/// The newest version of each key among the rows of a load, and which rows are not.
struct Newest {
    rows: HashMap<OwnedRow, (Rank, Place)>,
    /// For each file of the load, rows that do not count.
    outdated: Vec<Vec<usize>>,
}

impl Newest {
    fn add(&mut self, key: OwnedRow, rank: Rank, place: Place) {
        match self.rows.entry(key) {
            Entry::Vacant(free) => {
                free.insert((rank, place));
            }
            Entry::Occupied(mut known) => {
                let loser = if known.get().0 < rank {
                    std::mem::replace(known.get_mut(), (rank, place)).1
                } else {
                    place
                };
                self.outdated[loser.0].push(loser.1);
            }
        }
    }
}

/// Compares the rows of `written`, which nobody sees yet, with those of the table; `table` is what it holds.
///
/// `key` is resolved: see [`Key::of`]. Keys of the load are held in memory, some 100 bytes each. Files of the table that hold an older version are written anew
/// without it; the others are only read.
pub(super) async fn merge(
    warehouse: &Warehouse,
    target: &Target,
    table: Option<&TableSnapshot>,
    written: Vec<WrittenFile>,
    key: &Key,
) -> Result<Merge> {
    let ranks = Ranks::new(&target.schema, key)?;
    let fresh = target.snapshot_of(&written);
    let mut newest = Newest { rows: HashMap::new(), outdated: vec![Vec::new(); fresh.files.len()] };
    for (file, entry) in fresh.files.iter().enumerate() {
        let mut at = 0;
        for batch in read(warehouse, &fresh, entry).await? {
            for (row, found) in ranks.of(&batch)?.into_iter().enumerate() {
                if let Some((key, rank)) = found {
                    newest.add(key, rank, (file, at + row));
                }
            }
            at += batch.num_rows();
        }
    }
    let mut writer = target.writer(warehouse).await?;
    let mut merged = Merged::default();
    let mut replaced = Vec::new();
    if let Some(table) = table {
        for entry in &table.files {
            let batches = read(warehouse, table, entry).await?;
            let mut masks = Vec::with_capacity(batches.len());
            let mut gone = 0;
            for batch in &batches {
                let mut keep = Vec::with_capacity(batch.num_rows());
                for found in ranks.of(batch)? {
                    let known = found.and_then(|(key, rank)| Some((newest.rows.get(&key)?, rank)));
                    keep.push(match known {
                        None => true,
                        // The table's row is as new, or newer: the load's does not count.
                        Some(((new, place), rank)) if *new <= rank => {
                            newest.outdated[place.0].push(place.1);
                            true
                        }
                        Some(_) => {
                            gone += 1;
                            false
                        }
                    });
                }
                masks.push(BooleanArray::from(keep));
            }
            if gone > 0 {
                merged.replaced += gone;
                replaced.push(entry.path.clone());
                for (batch, keep) in batches.iter().zip(&masks) {
                    writer.write(&filter_record_batch(batch, keep)?).await?;
                }
            }
        }
    }
    // Files of the load whose rows all count stay as they are.
    let mut files = Vec::new();
    let mut left_out = Vec::new();
    for ((file, entry), mut outdated) in written.into_iter().zip(&fresh.files).zip(newest.outdated)
    {
        outdated.sort_unstable();
        outdated.dedup();
        if outdated.is_empty() {
            files.push(file);
            continue;
        }
        merged.outdated += outdated.len() as u64;
        let mut at = 0;
        for batch in read(warehouse, &fresh, entry).await? {
            let keep = |row: usize| outdated.binary_search(&(at + row)).is_err();
            let keep: BooleanArray = (0..batch.num_rows()).map(|row| Some(keep(row))).collect();
            at += batch.num_rows();
            writer.write(&filter_record_batch(&batch, &keep)?).await?;
        }
        left_out.push(file);
    }
    files.extend(writer.finish().await?);
    warehouse.discard(&target.path, &left_out).await;
    // Even where nothing is replaced the table must still be the one that was compared with.
    let replaced = table.map(|table| Replaced { version: table.version, files: replaced });
    Ok(Merge { files, replaced, merged })
}

/// All rows of one file, in stored types.
async fn read(
    warehouse: &Warehouse,
    table: &TableSnapshot,
    file: &FileEntry,
) -> Result<Vec<RecordBatch>> {
    let columns: Vec<String> = table.schema.fields().iter().map(|f| f.name().clone()).collect();
    let one = TableSnapshot { files: vec![file.clone()], ..table.clone() };
    let mut batches = Vec::new();
    warehouse.read_columns(&one, &columns, |batch| batches.push(batch)).await?;
    batches
        .into_iter()
        .map(|batch| Ok(RecordBatch::try_new(Arc::clone(&table.schema), batch.columns().to_vec())?))
        .collect()
}
