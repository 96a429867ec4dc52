//! The rows that a graph reads.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use clientele_udfs::identity::batch::{Columns, Identifiers};
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

/// Columns of rows of the source, as they are taken.
pub(super) struct Texts {
    /// Sources, records, and types and values of identifiers, or a column for each type.
    texts: Vec<StringViewArray>,
    /// Names of the types of columns; none where each row tells its own.
    types: Vec<String>,
    scopes: Option<StringViewArray>,
    times: Option<TimestampMicrosecondArray>,
}

impl Texts {
    /// What they are.
    pub(super) fn columns(&self) -> Columns<'_> {
        let (keys, ids) = self.texts.split_at(2);
        let named = self.types.iter().map(String::as_str);
        Columns {
            sources: &keys[0],
            record_ids: &keys[1],
            identifiers: match (ids, self.types.as_slice()) {
                ([types, values], []) => Identifiers::Long(types, values),
                _ => Identifiers::Wide(named.zip(ids).collect()),
            },
            scopes: self.scopes.as_ref(),
            seen_at: self.times.as_ref(),
        }
    }
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

    /// The columns that are read, in the order in which [`Self::texts_of`] takes them.
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

    /// The rows of a file that may be seen, as [`Self::texts_of`] takes them.
    pub(super) async fn open_file(
        &self,
        warehouse: &Warehouse,
        file: &FileEntry,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let batches = warehouse.open_views(&self.snapshot, file, &self.columns()).await?;
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

    /// Rows of the source, as they are taken.
    pub(super) fn texts_of(&self, batch: &RecordBatch) -> Result<Texts> {
        let text = |at: usize| -> Result<StringViewArray> {
            Ok(cast(batch.column(at), &DataType::Utf8View)?.as_string_view().clone())
        };
        let Definition { columns, ids, link_scope, seen_at, .. } = &self.definition;
        let count = columns.len() + ids.len();
        let scope = link_scope.as_ref().map(|_| count);
        let time = seen_at.as_ref().map(|_| count + usize::from(scope.is_some()));
        Ok(Texts {
            texts: (0..count).map(text).collect::<Result<Vec<_>>>()?,
            types: ids.iter().map(|id| id.id_type.clone()).collect(),
            scopes: scope.map(text).transpose()?,
            times: time.map(|at| instants(batch.column(at))).transpose()?,
        })
    }
}

fn instants(column: &ArrayRef) -> Result<TimestampMicrosecondArray> {
    let instants = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    Ok(instants.as_primitive::<TimestampMicrosecondType>().clone())
}
