//! The rows that a graph reads.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::rules::Definition;
use crate::error::{Error, Kind, Result};
use crate::store::{Erased, FileEntry, Relation, TableSnapshot, Warehouse};

/// A version of the table that a graph reads, its columns checked.
#[derive(Clone)]
pub(super) struct Source {
    path: String,
    snapshot: Arc<TableSnapshot>,
    definition: Definition,
    erased: Arc<Erased>,
}

/// One row's identifier: source, record, type, value, scope, time.
pub(super) struct Sighting<'a> {
    pub(super) row: usize,
    pub(super) source: &'a str,
    pub(super) record_id: &'a str,
    /// Type and value; `None` for a record of which nothing is known.
    pub(super) identifier: Option<(&'a str, &'a str)>,
    pub(super) scope: Option<&'a str>,
    pub(super) seen_at: Option<i64>,
}

impl Source {
    /// The newest version.
    pub(super) async fn open(warehouse: &Warehouse, definition: &Definition) -> Result<Self> {
        let relation = definition.relation();
        let newest = warehouse.newest().await?;
        let def = match newest.relations.get(&relation) {
            Some(Relation::Table(def)) => def,
            Some(_) => {
                return Err(Error::new(
                    Kind::WrongObjectType,
                    format!("\"{relation}\" is not a table; a graph reads a table"),
                )
                .hint("CREATE TABLE ... AS SELECT keeps a view's rows"));
            }
            None => {
                return Err(Error::new(
                    Kind::UndefinedTable,
                    format!("relation \"{relation}\" does not exist"),
                ));
            }
        };
        let snapshot = warehouse.snapshot(def).await?;
        let erased = warehouse.erased().await?;
        let path = def.path.clone();
        let source = Self { path, snapshot, definition: definition.clone(), erased };
        source.check()?;
        Ok(source)
    }

    /// The rows, in a word: where it is the same, they are.
    pub(super) fn state(&self) -> String {
        format!("{} {} {}", self.path, self.snapshot.version, self.erased.version())
    }

    fn check(&self) -> Result<()> {
        let relation = self.definition.relation();
        let of = |column: &String| {
            let field = self.snapshot.schema.field_with_name(column).map_err(|_| {
                Error::new(
                    Kind::UndefinedColumn,
                    format!("column \"{column}\" of \"{relation}\" does not exist"),
                )
            })?;
            Ok::<_, Error>(field.data_type())
        };
        let mismatch = |column: &String, found: &DataType, wanted: &str| {
            Err(Error::new(
                Kind::DatatypeMismatch,
                format!("column \"{column}\" of \"{relation}\" is {found}; {wanted}"),
            ))
        };
        let ids = self.definition.ids.iter().map(|id| &id.column);
        for column in self.definition.columns.iter().chain(ids).chain(&self.definition.link_scope) {
            match of(column)? {
                DataType::Utf8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {}
                other => return mismatch(column, other, "identifiers are text or whole numbers"),
            }
        }
        if let Some(column) = &self.definition.seen_at {
            match of(column)? {
                DataType::Timestamp(..) | DataType::Date32 => {}
                other => return mismatch(column, other, "it says when a value was seen"),
            }
        }
        Ok(())
    }

    /// The columns that are read, in the order in which [`Self::of_batch`] takes them.
    fn columns(&self) -> Vec<String> {
        let definition = &self.definition;
        let mut columns = definition.columns.clone();
        columns.extend(definition.ids.iter().map(|id| id.column.clone()));
        columns.extend(definition.link_scope.clone());
        columns.extend(definition.seen_at.clone());
        columns
    }

    /// The files that hold the rows.
    pub(super) fn files(&self) -> &[FileEntry] {
        &self.snapshot.files
    }

    /// Those who are not to be seen.
    pub(super) fn erased(&self) -> &Erased {
        &self.erased
    }

    /// How rows are read, in a word: where it is the same, the same file gives the same findings.
    pub(super) fn reading(&self) -> String {
        let scope = &self.definition.link_scope;
        let types: Vec<(&str, &str)> = { self.definition.ids.iter() }
            .map(|id| (id.column.as_str(), id.id_type.as_str()))
            .collect();
        // Times are kept of those types alone where they matter.
        let rules = self.definition.rules.iter();
        let timed: Vec<&String> =
            rules.filter(|(_, rule)| rule.reuse_gap_days.is_some()).map(|(name, _)| name).collect();
        let Definition { columns, seen_at, .. } = &self.definition;
        format!("{columns:?} {types:?} {scope:?} {seen_at:?} {timed:?}")
    }

    /// The rows of a file that may be seen, as [`Self::of_batch`] takes them.
    pub(super) async fn open_file(
        &self,
        warehouse: &Warehouse,
        file: &FileEntry,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let batches = warehouse.open_file(&self.snapshot, file, &self.columns()).await?;
        let erased = Arc::clone(&self.erased);
        // Whatever the columns are called that name the records.
        let sieve = move |batch: Result<RecordBatch>| {
            let batch = batch?;
            if erased.is_empty() {
                return Ok(batch);
            }
            Ok(filter_record_batch(&batch, &erased.keeps(batch.column(0), batch.column(1))?)?)
        };
        Ok(batches.map(sieve).boxed())
    }

    /// The sources and the records of rows, as texts.
    pub(super) fn keys_of(batch: &RecordBatch) -> Result<[StringArray; 2]> {
        let text = |at: usize| -> Result<StringArray> {
            Ok(cast(batch.column(at), &DataType::Utf8)?.as_string::<i32>().clone())
        };
        Ok([text(0)?, text(1)?])
    }

    /// Gives every identifier in rows of the source to `take`, until it says that it has enough, and counts the rows that have
    /// no source or no record; tells whether it has not had enough.
    pub(super) fn of_batch(
        &self,
        batch: &RecordBatch,
        without_key: &mut u64,
        take: &mut impl FnMut(Sighting<'_>) -> bool,
    ) -> Result<bool> {
        let text = |at: usize| -> Result<StringArray> {
            Ok(cast(batch.column(at), &DataType::Utf8)?.as_string::<i32>().clone())
        };
        let named = self.definition.columns.len();
        let ids = self.definition.ids.len();
        let texts = (0..named + ids).map(text).collect::<Result<Vec<_>>>()?;
        let mut next = named + ids;
        let mut following = |is_there: bool| {
            next += usize::from(is_there);
            is_there.then(|| next - 1)
        };
        let scopes = following(self.definition.link_scope.is_some()).map(text).transpose()?;
        let times = following(self.definition.seen_at.is_some());
        let times = times.map(|at| instants(batch.column(at))).transpose()?;
        let value = |array: &'_ StringArray, row: usize| -> Option<usize> {
            array.is_valid(row).then_some(row)
        };
        for row in 0..batch.num_rows() {
            let (Some(_), Some(_)) = (value(&texts[0], row), value(&texts[1], row)) else {
                *without_key += 1;
                continue;
            };
            let sighting = |identifier| Sighting {
                row,
                source: texts[0].value(row),
                record_id: texts[1].value(row),
                identifier,
                scope: scopes.as_ref().filter(|s| s.is_valid(row)).map(|s| s.value(row)),
                seen_at: times.as_ref().and_then(|times| {
                    let times = times.as_primitive::<TimestampMicrosecondType>();
                    times.is_valid(row).then(|| times.value(row))
                }),
            };
            let goes_on = if ids == 0 {
                // A row without a type says only that the record is there.
                let id_type = texts[2].is_valid(row).then(|| texts[2].value(row));
                let value = if texts[3].is_valid(row) { texts[3].value(row) } else { "" };
                take(sighting(id_type.map(|id_type| (id_type, value))))
            } else {
                let mut goes_on = take(sighting(None));
                for (id, texts) in self.definition.ids.iter().zip(&texts[named..]) {
                    // An empty cell is no identifier, and nothing to tell of.
                    if goes_on && texts.is_valid(row) {
                        goes_on = take(sighting(Some((&id.id_type, texts.value(row)))));
                    }
                }
                goes_on
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn instants(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?)
}
