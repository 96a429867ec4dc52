//! The relations of a graph.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::runtime::SpawnedTask;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::store::{
    Erased, FileEntry, Group, MAP, MOVED, Name, OVERRIDES, Replaced, TableChange, TableDef,
    TableWriter, Warehouse, WrittenFile,
};

/// The relation that holds a graph's definition, within the graph's schema.
pub(super) const DEFINITION: &str = "graph";

/// Ids that another one has taken the place of.
pub(super) const ALIAS: &str = "alias";

/// What became of ids, run by run.
pub(super) const HISTORY: &str = "history";

/// What was not joined, for a person to look at.
pub(super) const REVIEW: &str = "review";

/// Identifiers that join nobody.
pub(super) const REJECTED: &str = "rejected";

/// Values that too many records share.
pub(super) const HUBS: &str = "hubs";

/// The refreshes.
pub(super) const RUNS: &str = "runs";

/// What was found in the files of the source, so that each is read once.
pub(super) const IDENTIFIERS: &str = "identifiers";

/// The files of the source that were read.
pub(super) const FILES: &str = "files";

/// Masked values of the identifiers that hubs and reviews tell of, by their hashes.
pub(super) const TOLD: &str = "told";

/// Whose identifiers are that are not simply of the customer whose records have them.
pub(super) const OWNERS: &str = "owners";

/// Records of components that would break a limit if everything in them was joined: their numbers and keys.
pub(super) const APART: &str = "apart";

/// Types of identifiers by their numbers, and whether they join records.
pub(super) const TYPES: &str = "types";

/// Where earlier versions kept whose every identifier is.
pub(super) const LOOKUP: &str = "lookup";

/// Tables of earlier versions, which a refresh does away with: what was found in files was kept in another way, too.
pub(super) const EARLIER: [&str; 2] = ["findings", LOOKUP];

/// Rows that are written at a time.
pub(super) const BATCH_ROWS: usize = 64 * 1024;

/// Rows that are read at a time: numbers, mostly, and handing a batch from one thread to another takes as long as reading thousands.
const READ_ROWS: usize = 32 * 1024;

/// Columns that may be NULL.
pub(super) fn schema(columns: &[(&str, &DataType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, kind)| Field::new(*name, (*kind).clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Every table of a graph: name and columns.
pub(super) fn all() -> Vec<(&'static str, SchemaRef)> {
    let (text, id, number) = (DataType::Utf8, DataType::Int64, DataType::Int32);
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        (
            MAP,
            schema(&[
                ("source", &text),
                ("record_id", &text),
                ("one_id", &id),
                ("since_run", &number),
                ("record", &number),
                ("key", &id),
            ]),
        ),
        (MOVED, schema(&[("run", &number), ("one_id", &id)])),
        (
            IDENTIFIERS,
            schema(&[
                ("file", &id),
                ("record", &number),
                ("id_type", &number),
                ("hash", &id),
                ("hash_low", &id),
                ("seen_at", &id),
                ("reason", &number),
            ]),
        ),
        (FILES, schema(&[("file", &id), ("path", &text), ("without_key", &id)])),
        (TOLD, schema(&[("hash", &text), ("value", &text)])),
        (OWNERS, schema(&[("hash", &id), ("one_id", &id)])),
        (APART, schema(&[("record", &number), ("source", &text), ("record_id", &text)])),
        (TYPES, schema(&[("id_type", &number), ("name", &text), ("joins", &DataType::Boolean)])),
        (ALIAS, schema(&[("old_id", &id), ("one_id", &id), ("run", &number)])),
        (
            HISTORY,
            schema(&[("one_id", &id), ("run", &number), ("event", &text), ("other_id", &id)]),
        ),
        (
            REVIEW,
            schema(&[
                ("id", &text),
                ("kind", &text),
                ("id_type", &text),
                ("value", &text),
                ("why", &text),
                ("records", &text),
                ("state", &text),
            ]),
        ),
        (
            REJECTED,
            schema(&[
                ("source", &text),
                ("record_id", &text),
                ("id_type", &text),
                ("reason", &text),
            ]),
        ),
        (
            HUBS,
            schema(&[
                ("id_type", &text),
                ("value", &text),
                ("records", &number),
                ("max_records", &number),
            ]),
        ),
        (
            OVERRIDES,
            schema(&[
                ("op", &text),
                ("a", &text),
                ("b", &text),
                ("by", &text),
                ("note", &text),
                ("at", &instant),
            ]),
        ),
        (
            RUNS,
            schema(&[
                ("run", &number),
                ("at", &instant),
                ("records", &id),
                ("customers", &id),
                ("created", &id),
                ("merged", &id),
                ("split", &id),
                ("retired", &id),
                ("rejected", &id),
                ("hubs", &id),
                ("reviews", &id),
                ("made_of", &text),
                ("said", &text),
                ("said_of_types", &text),
                ("types", &text),
            ]),
        ),
    ]
}

/// One table of a graph as it is written.
pub(super) struct Table<'a> {
    warehouse: &'a Warehouse,
    name: Name,
    def: TableDef,
    schema: SchemaRef,
    writer: Writing,
}

/// Rows on their way into files, written by a task of its own: one processor writes while another makes the next rows.
struct Writing {
    /// Rows, or the end of a file.
    rows: mpsc::Sender<Option<RecordBatch>>,
    files: SpawnedTask<Result<Vec<WrittenFile>>>,
}

impl Writing {
    /// So many batches may wait to be written.
    const BATCHES: usize = 2;

    fn new(mut writer: TableWriter) -> Self {
        let (rows, mut written) = mpsc::channel(Self::BATCHES);
        let files = SpawnedTask::spawn(async move {
            while let Some(batch) = written.recv().await {
                match batch {
                    Some(batch) => writer.write(&batch).await?,
                    None => writer.end_file().await?,
                }
            }
            writer.finish().await
        });
        Self { rows, files }
    }

    /// Adds rows, or ends a file. That some could not be written may be told later, by [`Self::finish`] at last.
    async fn write(&mut self, batch: Option<RecordBatch>) -> Result<()> {
        match self.rows.send(batch).await {
            Ok(()) => Ok(()),
            // The task takes no more rows once it has failed.
            Err(_) => Self::ended(&mut self.files).await.map(|_| ()),
        }
    }

    /// Gives the files. They are on disk.
    async fn finish(self) -> Result<Vec<WrittenFile>> {
        let Self { rows, mut files } = self;
        drop(rows);
        Self::ended(&mut files).await
    }

    async fn ended(files: &mut SpawnedTask<Result<Vec<WrittenFile>>>) -> Result<Vec<WrittenFile>> {
        let stopped = |_| Err(Error::internal("writing a table stopped unexpectedly"));
        files.await.unwrap_or_else(stopped)
    }
}

impl<'a> Table<'a> {
    /// The table, with the columns that an earlier version of this program did not give it.
    pub(super) async fn open(warehouse: &'a Warehouse, graph: &str, table: &str) -> Result<Self> {
        let name = Name::new(graph, table);
        let Some((_, expected)) = all().into_iter().find(|(of, _)| *of == table) else {
            return Err(Error::internal("a graph has no such table"));
        };
        let def = loop {
            let newest = warehouse.newest().await?;
            let Some(def) = newest.table(&name) else {
                let path = warehouse.prepare_table(&name, &expected, &[], None).await?;
                let mut group = Group::default();
                group.tables.push(TableChange::create(name.clone(), path, vec![]));
                warehouse.publish(group).await?;
                continue;
            };
            let snapshot = warehouse.snapshot(def).await?;
            let has = |field: &&Arc<Field>| snapshot.schema.index_of(field.name()).is_err();
            let Some(missing) = expected.fields().iter().find(has) else { break def.clone() };
            warehouse.add_column(&name, def, missing, &[]).await?;
        };
        let schema = Arc::clone(&warehouse.snapshot(&def).await?.schema);
        let writer = warehouse.writer(&def.path, Arc::clone(&schema), &[], None).await?;
        let writer = match table {
            // They are read whole, or by bounds.
            IDENTIFIERS => writer.without_filters(),
            MAP => writer.without_filter_of("key"),
            _ => writer,
        };
        Ok(Self { warehouse, name, def, schema, writer: Writing::new(writer) })
    }

    /// Adds rows, given as their columns by name.
    pub(super) async fn write(&mut self, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
        let rows = columns.first().map_or(0, |(_, column)| column.len());
        let column = |field: &Arc<Field>| {
            let given = columns.iter().find(|(name, _)| name == field.name());
            given.map_or_else(
                || new_null_array(field.data_type(), rows),
                |(_, column)| Arc::clone(column),
            )
        };
        let columns = self.schema.fields().iter().map(column).collect();
        self.writer.write(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)).await
    }

    /// What is added from now on is in another file.
    pub(super) async fn end_file(&mut self) -> Result<()> {
        self.writer.write(None).await
    }

    /// The names of its columns.
    pub(super) fn column_names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Rows that it has.
    pub(super) async fn rows(&self) -> Result<u64> {
        Ok(self.warehouse.snapshot(&self.def).await?.rows())
    }

    /// What is to be published: rows that take the place of all others.
    pub(super) async fn replaced(self) -> Result<TableChange> {
        let had_rows = self.rows().await? > 0;
        let files = self.writer.finish().await?;
        Ok(match had_rows || !files.is_empty() {
            true => TableChange::replace(self.name, self.def.path, files),
            // None in the place of none is no change.
            false => TableChange::append(self.name, self.def.path, files),
        })
    }

    /// The paths of its files.
    pub(super) async fn paths(&self) -> Result<Vec<String>> {
        Ok(self.files().await?.into_iter().map(|file| file.path).collect())
    }

    /// As [`Self::replaced`], when the table is still the one that was read.
    pub(super) async fn replaced_as_read(self) -> Result<TableChange> {
        let replaced = Some(Replaced { version: self.def.version, files: self.paths().await? });
        Ok(TableChange { replaced, ..self.replaced().await? })
    }

    /// Whether somebody else has changed it since it was opened.
    pub(super) async fn is_outdated(&self) -> Result<bool> {
        let newest = self.warehouse.newest().await?;
        Ok(newest.table(&self.name).is_none_or(|def| *def != self.def))
    }

    /// What is to be published: rows beside the others.
    pub(super) async fn appended(self) -> Result<TableChange> {
        let files = self.writer.finish().await?;
        Ok(TableChange::append(self.name, self.def.path, files))
    }

    /// The files of the published version, oldest first.
    pub(super) async fn files(&self) -> Result<Vec<FileEntry>> {
        let snapshot = self.warehouse.snapshot(&self.def).await?;
        Ok(snapshot.files.iter().rev().cloned().collect())
    }

    /// Columns of one file, batch by batch.
    pub(super) async fn read_file(
        &self,
        file: &FileEntry,
        columns: &[&str],
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.opening(file, columns).await?.await
    }

    /// As [`Self::read_file`]; the file is not touched before the answer is waited for.
    pub(super) async fn opening(
        &self,
        file: &FileEntry,
        columns: &[&str],
    ) -> Result<BoxFuture<'static, Result<BoxStream<'static, Result<RecordBatch>>>>> {
        let snapshot = self.warehouse.snapshot(&self.def).await?;
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        self.warehouse.opening(&snapshot, file, &columns, READ_ROWS)
    }

    /// Whether every row in it may be seen.
    pub(super) fn is_clean_of(&self, erased: &Erased) -> bool {
        self.def.erased >= erased.version()
    }

    /// What is to be published: rows in the place of those in `files`, when the table is still the one that was read.
    pub(super) async fn replaced_in(self, files: Vec<String>) -> Result<TableChange> {
        let replaced = Some(Replaced { version: self.def.version, files });
        Ok(TableChange { replaced, ..self.appended().await? })
    }

    /// Rows that are published, batch by batch; columns that they have not are NULL.
    pub(super) async fn read(&mut self, mut take: impl FnMut(RecordBatch)) -> Result<()> {
        let snapshot = self.warehouse.snapshot(&self.def).await?;
        let columns = self.column_names();
        self.warehouse.read_columns(&snapshot, &columns, &mut take).await
    }
}
