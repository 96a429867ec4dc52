//! Files and streams in; typed, checked rows out; what does not fit goes to quarantine with a reason.
//!
//! A load reads each file twice: once for its hash, which is its identity, and once for its rows. Rows are decoded on a
//! thread of their own and written here. Nothing is visible until the table, `system.loads` and `system.quarantine` are
//! published together.

mod convert;
mod csv;
mod infer;
mod input;
mod json;
pub mod model;
mod parquet;
mod quoted;
mod records;
mod upsert;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use crate::config::MaxBad;
use crate::error::{Error, Kind, Result, nearest};
use crate::store::{
    Clustering, Group, Name, Published, RestoreVersion, TableChange, TableDef, TableSnapshot,
    TableWriter, Warehouse, stored_schema,
};

pub use self::csv::CsvOptions;
pub use convert::{BadRow, shape};
pub use input::{Format, expand};
pub use upsert::Key;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;

/// Batches that may wait for the writer.
const BATCHES_AHEAD: usize = 4;

/// What a reader thread hands over.
pub(crate) struct Chunk {
    /// Rows that fit.
    pub(crate) rows: RecordBatch,
    /// Rows that did not.
    pub(crate) bad: Vec<BadRow>,
    /// Bytes of input read so far.
    pub(crate) bytes_read: u64,
}

/// How the one who waits learns how far a load is.
pub trait Progress: Send + Sync {
    /// A file begins; `bytes` is its size.
    fn begin(&self, source: &str, bytes: u64);
    /// So many bytes of it are read and so many rows written.
    fn advance(&self, bytes_read: u64, rows: u64);
    /// It is done.
    fn end(&self);
    /// Something that the user should know.
    fn note(&self, _text: &str) {}
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _source: &str, _bytes: u64) {}
    fn advance(&self, _bytes_read: u64, _rows: u64) {}
    fn end(&self) {}
}

/// What to load where.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// The table; made when it is missing.
    pub table: Name,
    /// Files, already expanded.
    pub files: Vec<PathBuf>,
    /// Format, when it is not to be known from the names.
    pub format: Option<Format>,
    /// How CSV is written.
    pub csv: CsvOptions,
    /// When to give up.
    pub max_bad: MaxBad,
    /// Columns to mark PERSONAL beside the model's, when the table is made.
    pub personal: Vec<String>,
    /// What tells rows apart, when a row that comes again is to take the place of the one from before.
    pub key: Option<Key>,
    /// Whether the table gets columns that a file has and it has not.
    pub adds_columns: bool,
    /// Who loads.
    pub user: String,
}

/// What became of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// File name, `STDIN` for a stream.
    pub source: String,
    /// Identity of the content for this table.
    pub load_id: String,
    /// Size of the input.
    pub bytes: u64,
    /// Rows now in the table.
    pub rows: u64,
    /// Rows now in quarantine.
    pub quarantined: u64,
    /// Rows of erased records, which are nowhere now.
    pub left_out: u64,
    /// Whether the content was in the table before; then nothing was done.
    pub was_loaded: bool,
    started_at: DateTime<Utc>,
}

/// Loads files into a table: all that are new, or none.
pub async fn load(
    warehouse: &Warehouse,
    request: &LoadRequest,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    const TRIES: u32 = 20;
    for attempt in 0..TRIES {
        match Box::pin(try_load(warehouse, request, progress)).await {
            // Somebody else made the table or loaded one of the files meanwhile: look again.
            Ok(None) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    Kind::DuplicateTable | Kind::Serialization | Kind::StaleBase
                ) => {}
            Ok(Some(loaded)) => return Ok(loaded),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(attempt) * 5)).await;
    }
    Err(Error::new(Kind::Serialization, "other loads into the same table were faster every time")
        .hint("run the load again"))
}

async fn try_load(
    warehouse: &Warehouse,
    request: &LoadRequest,
    progress: &dyn Progress,
) -> Result<Option<Vec<Loaded>>> {
    let mut files = Vec::new();
    let mut inputs: Vec<Loaded> = Vec::new();
    for file in &request.files {
        let input = fingerprint(file, &request.table).await?;
        // A content given twice is loaded once.
        match inputs.iter().find(|known| known.load_id == input.load_id) {
            None => {
                inputs.push(input);
                files.push(file.clone());
            }
            Some(known) => progress.note(&format!(
                "{} has the same content as {} and is loaded once",
                input.source, known.source
            )),
        }
    }

    let newest = warehouse.newest().await?;
    newest.refuse_rows(&request.table)?;
    if let Some(existing) = newest.table(&request.table) {
        let ids: Vec<String> = inputs.iter().map(|i| i.load_id.clone()).collect();
        if let Some(key) = &request.key {
            // A key that the table has not is told of even when there is nothing to load.
            key.of(&warehouse.snapshot(existing).await?.schema)?;
        }
        let known = warehouse.already_loaded(existing, &ids).await?;
        for input in &mut inputs {
            input.was_loaded = known.contains(&input.load_id);
        }
    } else if newest.relations.contains_key(&request.table) {
        return Err(Error::new(
            Kind::WrongObjectType,
            format!("\"{}\" is a view; rows go into tables", request.table),
        ));
    }
    if inputs.iter().all(|input| input.was_loaded) {
        return Ok(Some(inputs));
    }
    let adds_columns = request.adds_columns && request.csv.has_header;
    let before = newest.table(&request.table).cloned();
    let mut is_wider = false;
    if adds_columns {
        let new = files.iter().zip(&inputs).filter(|(_, input)| !input.was_loaded);
        for (file, _) in new {
            is_wider |= add_columns(warehouse, request, file, progress).await?;
        }
    }
    let wider = warehouse.newest().await?.table(&request.table).map(|def| def.version);
    let loaded = Box::pin(load_files(warehouse, request, &files, inputs, progress)).await;
    if let (Err(_), true, Some(before)) = (&loaded, is_wider, before) {
        take_columns_back(warehouse, &request.table, &before, wider, progress).await;
    }
    loaded
}

/// Loads the files that were not loaded before, of which there is one at least.
async fn load_files(
    warehouse: &Warehouse,
    request: &LoadRequest,
    files: &[PathBuf],
    mut inputs: Vec<Loaded>,
    progress: &dyn Progress,
) -> Result<Option<Vec<Loaded>>> {
    let mut new = files.iter().zip(&inputs).filter(|(_, input)| !input.was_loaded);
    let Some((first, _)) = new.next() else { return Ok(Some(inputs)) };
    let others: Vec<&PathBuf> = new.map(|(file, _)| file).collect();
    let target = Target::prepare(warehouse, &request.table, &request.personal, || {
        let mut inferred = infer::infer(first, request.format, &request.csv, &request.table)?;
        inferred.notes.iter().for_each(|note| progress.note(note));
        if request.adds_columns && request.csv.has_header {
            for file in &others {
                widen(&mut inferred.schema, request, file)?;
            }
        }
        Ok(inferred)
    })
    .await?;
    let mut load = Load::start(warehouse, target, request.user.clone()).await?;
    let inputs_count = inputs.len();
    load.names_sources = inputs_count > 1;
    for (file, input) in files.iter().zip(inputs.iter_mut()).filter(|(_, input)| !input.was_loaded)
    {
        progress.begin(&input.source, input.bytes);
        let reader = input::open(file, request.format, &request.csv)?;
        let read = load.read(reader, request.key.as_ref(), input, progress).await;
        progress.end();
        if let Err(error) = read {
            load.abandon(warehouse).await;
            return Err(match inputs_count {
                1 => infer::unreadable_of(error, file),
                _ => error.about(&input.source),
            });
        }
    }
    let (rows, bad) =
        inputs.iter().fold((0, 0), |(rows, bad), i| (rows + i.rows, bad + i.quarantined));
    if request.max_bad.is_exceeded(bad, rows + bad) {
        let reasons = load.reasons();
        load.abandon(warehouse).await;
        return Err(too_many_bad(bad, rows + bad, request.max_bad, &reasons));
    }
    match load.publish(warehouse, &inputs, request.key.as_ref(), progress).await? {
        Published::At(_) => Ok(Some(inputs)),
        Published::AlreadyLoaded(_) => Ok(None),
    }
}

/// The columns that a file has and `schema` has not.
fn new_columns(schema: &Schema, request: &LoadRequest, file: &Path) -> Result<Vec<FieldRef>> {
    let has = |schema: &Schema, column: &str| place_of(schema, column).is_some();
    let is_known = |column: &str| has(schema, column);
    if let Some(names) = infer::names_of(file, request.format, &request.csv)? {
        if names.iter().all(|name| is_known(name)) {
            return Ok(vec![]);
        }
        if !names.iter().any(|name| is_known(name)) {
            let (first, name) = (names.first(), file.file_name().unwrap_or_default());
            let told = format!("{} has no column that the table has", name.to_string_lossy());
            let error = Error::new(Kind::UndefinedColumn, told)
                .detail(format!("its first column is {:?}", first.map_or("", String::as_str)));
            let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(error.hint(format!("columns of the table: {}", known.join(", "))));
        }
    }
    let found = infer::infer(file, request.format, &request.csv, &request.table)?;
    let found = stored_schema(&found.schema)?;
    let new = found.fields().iter().filter(|field| !is_known(field.name()));
    let left_over: Vec<String> = { schema.fields().iter() }
        .map(|field| field.name().clone())
        .filter(|column| !has(&found, column))
        .collect();
    let new: Vec<FieldRef> = new.cloned().collect();
    for field in &new {
        // A column that is spelt like one that the file lacks is a mistake, and not easily taken back.
        if nearest(field.name(), &left_over).is_some() {
            return Err(csv::unknown_column(field.name(), schema));
        }
    }
    Ok(new)
}

/// Gives the schema of a table that is to be made the columns of another of its first files.
fn widen(schema: &mut Schema, request: &LoadRequest, file: &Path) -> Result<()> {
    let new = new_columns(schema, request, file)?;
    *schema = Schema::new(schema.fields().iter().cloned().chain(new).collect::<Vec<_>>());
    Ok(())
}

/// Takes back the columns that a load has added which then loaded nothing, unless somebody has changed the table since.
async fn take_columns_back(
    warehouse: &Warehouse,
    name: &Name,
    before: &TableDef,
    wider: Option<u64>,
    progress: &dyn Progress,
) {
    let mut change = TableChange::append(name.clone(), before.path.clone(), vec![]);
    change.restore = Some(RestoreVersion { version: before.version, from: wider });
    match wider.is_some() && warehouse.publish(Group::of(change)).await.is_ok() {
        true => progress.note("the new columns are taken back, for nothing was loaded"),
        false => progress.note("the new columns stay, although nothing was loaded"),
    }
}

/// Gives the table the columns that a file has and it has not; rows from before have NULL in them. Tells whether there were any.
async fn add_columns(
    warehouse: &Warehouse,
    request: &LoadRequest,
    file: &Path,
    progress: &dyn Progress,
) -> Result<bool> {
    let (name, newest) = (&request.table, warehouse.newest().await?);
    let Some(def) = newest.table(name) else { return Ok(false) };
    let snapshot = warehouse.snapshot(def).await?;
    let new = new_columns(&snapshot.schema, request, file)?;
    let is_wider = !new.is_empty();
    let mut personal = snapshot.personal.clone();
    for field in new {
        let column = field.name();
        if model::is_personal(column) || request.personal.contains(column) {
            personal.push(column.clone());
        }
        let newest = warehouse.newest().await?;
        let Some(def) = newest.table(name) else { return Ok(is_wider) };
        warehouse.add_column(name, def, &field, &personal).await?;
        progress.note(&format!(
            "column \"{column}\" is new; {name} has it from now on, with NULL in its rows from before"
        ));
    }
    Ok(is_wider)
}

fn too_many_bad(bad: u64, all: u64, max_bad: MaxBad, reasons: &[String]) -> Error {
    Error::new(Kind::TooManyBadRows, format!("{bad} of {all} rows do not fit the table; {max_bad} are allowed, nothing was loaded"))
        .detail(format!("the first ones: {}", reasons.join("; ")))
        .hint("correct the file, or allow more with --max-bad (COPY: WITH (max_bad '5%')); bad rows then go to system.quarantine")
}

/// Rows that a client sends, and where they go.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// The table, which is there.
    pub table: Name,
    /// Columns that the rows have, in order; all of the table's when not said.
    pub columns: Option<Vec<String>>,
    /// How values are written.
    pub format: CopyFormat,
    /// When to give up.
    pub max_bad: MaxBad,
    /// What tells rows apart, when a row that comes again is to take the place of the one from before.
    pub key: Option<Key>,
    /// Who copies.
    pub user: String,
}

/// Keeps what is to be told, for somebody who is told at the end.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _source: &str, _bytes: u64) {}
    fn advance(&self, _bytes_read: u64, _rows: u64) {}
    fn end(&self) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }
}

/// Loads what a client sends after COPY FROM STDIN, and gives what the client should know too. Such a load has no identity and is never
/// taken for another.
pub async fn copy_in(
    warehouse: &Warehouse,
    request: CopyRequest,
    data: mpsc::Receiver<bytes::Bytes>,
) -> Result<(Loaded, Vec<String>)> {
    let CopyRequest { table, columns, format, max_bad, key, user } = request;
    let missing = || -> Result<infer::Inferred> {
        Err(Error::new(Kind::UndefinedTable, format!("relation \"{table}\" does not exist")).hint(
            "CREATE TABLE it first, or use clientele load, which makes the table from the file",
        ))
    };
    let target = Target::prepare(warehouse, &table, &[], missing).await?;
    let mut input = Loaded {
        source: "STDIN".to_owned(),
        load_id: format!("stdin-{}", uuid::Uuid::new_v4().simple()),
        bytes: 0,
        rows: 0,
        quarantined: 0,
        left_out: 0,
        was_loaded: false,
        started_at: Utc::now(),
    };
    let mut load = Load::start(warehouse, target, user).await?;
    let reader = input::from_channel(data, format, columns);
    if let Err(error) = load.read(reader, key.as_ref(), &mut input, &Silent).await {
        load.abandon(warehouse).await;
        return Err(error);
    }
    if max_bad.is_exceeded(input.quarantined, input.rows + input.quarantined) {
        let reasons = load.reasons();
        load.abandon(warehouse).await;
        return Err(too_many_bad(
            input.quarantined,
            input.rows + input.quarantined,
            max_bad,
            &reasons,
        ));
    }
    let notes = Notes::default();
    load.publish(warehouse, std::slice::from_ref(&input), key.as_ref(), &notes).await?;
    Ok((input, notes.0.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// How COPY data is written.
#[derive(Debug, Clone, PartialEq)]
pub enum CopyFormat {
    /// PostgreSQL's text format: a delimiter, backslash escapes, a word for NULL.
    Text {
        /// Between values.
        delimiter: u8,
        /// Spelling of NULL.
        null: String,
        /// Whether the first line names the columns.
        has_header: bool,
    },
    /// CSV.
    Csv(CsvOptions),
}

/// A reader of rows: given what is wanted, it sends chunks until its input ends.
type RowSource = Box<dyn FnOnce(Wanted, mpsc::Sender<Result<Chunk>>) + Send>;

/// What a reader is to give.
struct Wanted {
    /// Columns of the rows.
    schema: SchemaRef,
    /// Those of them that the input has to have, of which NULL would say nothing: what tells rows apart.
    needed: Vec<String>,
}

impl Wanted {
    /// Where each column is in an input with columns of these `names`, of which each has to be the table's.
    fn places(&self, names: &[String]) -> Result<Vec<Option<usize>>> {
        let mut places = vec![None; self.schema.fields().len()];
        for (at, name) in names.iter().enumerate() {
            let Some(column) = place_of(&self.schema, name) else {
                return Err(csv::unknown_column(name, &self.schema));
            };
            if places[column].replace(at).is_some() {
                return Err(Error::new(
                    Kind::DuplicateColumn,
                    format!("column \"{name}\" is named twice in the input"),
                ));
            }
        }
        let has = |column: &String| {
            self.schema.index_of(column).is_ok_and(|column| places[column].is_some())
        };
        match self.needed.iter().find(|column| !has(column)) {
            None => Ok(places),
            Some(column) => Err(Error::new(
                Kind::UndefinedColumn,
                format!("the input has no column \"{column}\", by which its rows are told apart"),
            )
            .detail(format!("columns of the input: {}", names.join(", ")))),
        }
    }
}

/// Where a schema has a column; names that differ only in case count as one.
fn place_of(schema: &Schema, name: &str) -> Option<usize> {
    let by_case = || schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(name));
    schema.index_of(name).ok().or_else(by_case)
}

/// The table that rows go to.
struct Target {
    name: Name,
    path: String,
    schema: SchemaRef,
    personal: Vec<String>,
    clustering: Option<Clustering>,
    is_new: bool,
}

impl Target {
    /// The existing table `name`, or a new one as `infer` describes it.
    async fn prepare(
        warehouse: &Warehouse,
        name: &Name,
        personal: &[String],
        infer: impl FnOnce() -> Result<infer::Inferred>,
    ) -> Result<Self> {
        // Made before anything is committed beside it: somebody else may make it at the same moment.
        if let Some(schema) = crate::store::system::schema_of(name) {
            warehouse.ensure_system(name, &schema).await?;
        }
        let newest = warehouse.newest().await?;
        if let Some(table) = newest.table(name) {
            let snapshot = warehouse.snapshot(table).await?;
            return Ok(Self {
                name: name.clone(),
                path: table.path.clone(),
                schema: Arc::clone(&snapshot.schema),
                personal: snapshot.personal.clone(),
                clustering: snapshot.clustering.clone(),
                is_new: false,
            });
        }
        let schema = stored_schema(&infer()?.schema)?;
        for column in personal {
            if schema.index_of(column).is_err() {
                return Err(Error::new(
                    Kind::UndefinedColumn,
                    format!("PERSONAL column \"{column}\" is not in the file"),
                ));
            }
        }
        let mut marked = model::personal_columns(&schema);
        marked.extend(personal.iter().filter(|c| !model::is_personal(c)).cloned());
        let clustering = model::clustering(&name.table, &schema);
        let path = warehouse.prepare_table(name, &schema, &marked, clustering.as_ref()).await?;
        let name = name.clone();
        Ok(Self { name, path, schema, personal: marked, clustering, is_new: true })
    }

    async fn writer(&self, warehouse: &Warehouse) -> Result<TableWriter> {
        let schema = Arc::clone(&self.schema);
        warehouse.writer(&self.path, schema, &self.personal, self.clustering.as_ref()).await
    }

    /// The table as if `files` were all it had.
    fn snapshot_of(&self, files: &[crate::store::WrittenFile]) -> TableSnapshot {
        let empty = TableSnapshot {
            personal: self.personal.clone(),
            clustering: self.clustering.clone(),
            ..TableSnapshot::unlogged(self.path.clone(), Arc::clone(&self.schema))
        };
        empty.with_files(files)
    }

    fn change(&self, files: Vec<crate::store::WrittenFile>, load_ids: Vec<String>) -> TableChange {
        let change = TableChange::append(self.name.clone(), self.path.clone(), files);
        TableChange { is_new: self.is_new, load_ids, ..change }
    }
}

/// A load under way: rows are on disk, and nobody sees them yet.
struct Load {
    target: Target,
    writer: TableWriter,
    quarantine: Target,
    quarantine_writer: TableWriter,
    first_reasons: Vec<String>,
    /// Whether a row is told of with the file that it is in.
    names_sources: bool,
    user: String,
}

impl Load {
    async fn start(warehouse: &Warehouse, target: Target, user: String) -> Result<Self> {
        let nothing = || Err(Error::internal("system tables have columns"));
        let quarantine =
            Target::prepare(warehouse, &crate::store::system::quarantine().0, &[], nothing).await?;
        let writer = target.writer(warehouse).await?;
        let quarantine_writer = quarantine.writer(warehouse).await?;
        let (first_reasons, names_sources) = (Vec::new(), false);
        Ok(Self {
            target,
            writer,
            quarantine,
            quarantine_writer,
            first_reasons,
            names_sources,
            user,
        })
    }

    async fn read(
        &mut self,
        source: RowSource,
        key: Option<&Key>,
        input: &mut Loaded,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (sender, mut chunks) = mpsc::channel(BATCHES_AHEAD);
        let schema = Arc::clone(&self.target.schema);
        let needed = match key {
            Some(key) => key.of(&schema)?.needed(key),
            None => vec![],
        };
        let wanted = Wanted { schema, needed };
        let reader = std::thread::Builder::new()
            .name("load-reader".to_owned())
            .spawn(move || source(wanted, sender))?;
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            let before = self.writer.left_out();
            self.writer.write(&chunk.rows).await?;
            let left_out = self.writer.left_out() - before;
            input.rows += chunk.rows.num_rows() as u64 - left_out;
            input.left_out += left_out;
            input.quarantined += chunk.bad.len() as u64;
            input.bytes = input.bytes.max(chunk.bytes_read);
            self.set_aside(&chunk.bad, input).await?;
            progress.advance(chunk.bytes_read, input.rows + input.quarantined);
        }
        reader.join().map_err(|_| Error::internal("the reader of the input stopped unexpectedly"))
    }

    async fn set_aside(&mut self, bad: &[BadRow], input: &Loaded) -> Result<()> {
        const REASONS_SHOWN: usize = 3;
        if bad.is_empty() {
            return Ok(());
        }
        let masked: Vec<BadRow> = bad.iter().map(|row| row.masked(&self.target.personal)).collect();
        for row in masked.iter().take(REASONS_SHOWN.saturating_sub(self.first_reasons.len())) {
            let told = row.describe();
            self.first_reasons.push(match self.names_sources {
                true => format!("{}: {told}", input.source),
                false => told,
            });
        }
        let batch =
            records::quarantine_batch(&input.load_id, &self.target.name, &input.source, &masked)?;
        self.quarantine_writer.write(&batch).await
    }

    fn reasons(&self) -> Vec<String> {
        self.first_reasons.clone()
    }

    async fn publish(
        self,
        warehouse: &Warehouse,
        inputs: &[Loaded],
        key: Option<&Key>,
        progress: &dyn Progress,
    ) -> Result<Published> {
        let new: Vec<&Loaded> = inputs.iter().filter(|i| !i.was_loaded).collect();
        let nothing = || Err(Error::internal("system tables have columns"));
        let loads =
            Target::prepare(warehouse, &crate::store::system::loads().0, &[], nothing).await?;
        let mut loads_writer = loads.writer(warehouse).await?;
        loads_writer.write(&records::loads_batch(&self.target.name, &new, &self.user)?).await?;
        let ids = new.iter().map(|i| i.load_id.clone()).collect();
        let mut files = self.writer.finish().await?;
        let path = self.target.path.clone();
        let mut replaced = None;
        if let Some(key) = key {
            let key = &key.of(&self.target.schema)?;
            let newest = warehouse.newest().await?;
            let table = match newest.table(&self.target.name) {
                Some(def) => Some(warehouse.snapshot(def).await?),
                None => None,
            };
            let table = table.as_deref();
            let merge = Box::pin(upsert::merge(warehouse, &self.target, table, files, key)).await?;
            let upsert::Merged { replaced: newer, outdated } = merge.merged;
            match &key.latest {
                _ if merge.merged == upsert::Merged::default() => {}
                Some(_) => progress.note(&format!(
                    "{newer} rows of the table were replaced by newer ones; {outdated} rows of the load were older and left out"
                )),
                None => progress.note(&format!(
                    "{newer} rows of the table were replaced, {outdated} rows of the load were left out: no column says which of two is newer, \
                     so what they say decides, in any order the same; --latest COLUMN (COPY: LATEST) names one"
                )),
            }
            (files, replaced) = (merge.files, merge.replaced);
        }
        let mut group = Group::default();
        let change = self.target.change(files.clone(), ids);
        group.tables.push(TableChange { replaced, ..change });
        group.tables.push(loads.change(loads_writer.finish().await?, vec![]));
        let set_aside = self.quarantine_writer.finish().await?;
        if !set_aside.is_empty() {
            group.tables.push(self.quarantine.change(set_aside, vec![]));
        }
        let published = warehouse.publish(group).await;
        match &published {
            Ok(Published::AlreadyLoaded(_)) => warehouse.discard(&path, &files).await,
            Err(error) if error.kind() == Kind::StaleBase => {
                warehouse.discard(&path, &files).await;
            }
            // Somebody else's table has the name; the folder that we made belongs to nobody.
            Err(error) if error.kind() == Kind::DuplicateTable && self.target.is_new => {
                warehouse.delete_folders(std::slice::from_ref(&path)).await?;
            }
            _ => {}
        }
        published
    }

    async fn abandon(self, warehouse: &Warehouse) {
        for (writer, path) in
            [(self.writer, &self.target.path), (self.quarantine_writer, &self.quarantine.path)]
        {
            match writer.finish().await {
                Ok(files) => warehouse.discard(path, &files).await,
                Err(error) => {
                    tracing::warn!(%error, "files of an abandoned load could not be closed")
                }
            }
        }
        if self.target.is_new
            && let Err(error) =
                warehouse.delete_folders(std::slice::from_ref(&self.target.path)).await
        {
            tracing::warn!(%error, "the folder of a table that was not made could not be removed");
        }
    }
}

/// Hashes a file; the hash and the table make the identity of a load.
async fn fingerprint(file: &Path, table: &Name) -> Result<Loaded> {
    let path = file.to_owned();
    let hashed = tokio::task::spawn_blocking(move || -> Result<(blake3::Hash, u64)> {
        let input = std::fs::File::open(&path).map_err(|error| {
            Error::new(Error::from(error).kind(), format!("{} cannot be opened", path.display()))
        })?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(input)?;
        Ok((hasher.finalize(), hasher.count()))
    });
    let (content, bytes) =
        hashed.await.map_err(|_| Error::internal("hashing stopped unexpectedly"))??;
    let mut identity = blake3::Hasher::new();
    identity
        .update(content.as_bytes())
        .update(table.schema.as_bytes())
        .update(b"\0")
        .update(table.table.as_bytes());
    let source =
        file.file_name().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Loaded {
        source,
        load_id: identity.finalize().to_hex()[..32].to_owned(),
        bytes,
        rows: 0,
        quarantined: 0,
        left_out: 0,
        was_loaded: false,
        started_at: Utc::now(),
    })
}
