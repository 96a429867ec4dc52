//! What a name means to this session, at this moment.
//!
//! A [`Pinned`] catalog is one generation of the warehouse together with the table versions that a statement needs,
//! loaded beforehand, so that planning never waits and a statement never sees two states. Every stored table leaves this
//! room inside a [`PolicyTable`].

pub mod information_schema;
mod past;
pub mod pg_catalog;
mod policy;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;

use crate::error::{Error, Kind, Result};
use crate::report::{
    Mode, Progress, Report, Running, Unwritten, audience_table, job_table, status_table,
};
use crate::scan::SnapshotTable;
use crate::store::{
    Clustering, Customers, Erased, FunctionDef, Generation, Name, Relation, TableSnapshot, ViewDef,
    Warehouse, system,
};

pub use past::{Moment, Past, held_then, is_since_erasures};
pub use policy::PolicyTable;

/// Database, the only one of a warehouse.
pub const DATABASE: &str = "clientele";

/// Schema of unqualified names.
pub const DEFAULT_SCHEMA: &str = "public";

/// What a name stands for, ready to be planned.
pub enum Meaning {
    /// A table, stored or computed.
    Table(Arc<dyn TableProvider>),
    /// A view, to be planned from its definition.
    View(ViewDef),
}

/// One generation and the tables of it that a statement needs.
#[derive(Debug, Clone)]
pub struct Pinned {
    generation: Arc<Generation>,
    snapshots: HashMap<Name, Arc<TableSnapshot>>,
    /// Tables whose logs cannot be read, and why.
    unreadable: HashMap<Name, Error>,
    /// Who is who, by graph, for tables that are kept by customers.
    customers: HashMap<String, Arc<Customers>>,
    /// Tables of the past, under their marked names.
    past: HashMap<Name, Arc<TableSnapshot>>,
    /// `system.versions`, when the statement asks for it.
    versions: Option<RecordBatch>,
    view_schemas: HashMap<Name, SchemaRef>,
    /// Records that nobody sees.
    erased: Arc<Erased>,
    about: About,
}

/// What the catalogues say about the session itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Name of the role.
    pub user: String,
    /// Settings and their values, for `pg_settings`.
    pub settings: Vec<(String, String)>,
    /// Functions, for `pg_proc`.
    pub functions: Vec<String>,
    /// Reports that are being computed, for `reports.status`.
    pub running: Vec<Running>,
    /// What is known about reports and could not be written down, for the same.
    pub unwritten: Arc<Unwritten>,
}

impl Pinned {
    /// The newest generation, with every table loaded whose name is among `words`, or which such a view reads.
    pub async fn load(
        warehouse: &Warehouse,
        words: &BTreeSet<String>,
        asked: &[Past],
        about: About,
    ) -> Result<Self> {
        let generation = warehouse.newest().await?;
        let mut snapshots = HashMap::new();
        let mut customers = HashMap::new();
        let mut unreadable = HashMap::new();
        for name in names_among(&generation, words) {
            if let Some(table) = generation.table(&name) {
                // Others can be asked all the same, and what there is.
                let snapshot = match warehouse.snapshot(table).await {
                    Ok(snapshot) => snapshot,
                    Err(error) => {
                        unreadable.insert(name, error);
                        continue;
                    }
                };
                if let Some(graph) = snapshot.graph()
                    && let Some(found) = warehouse.customers(&generation, graph).await?
                {
                    customers.insert(graph.to_owned(), found);
                }
                snapshots.insert(name, snapshot);
            }
        }
        let mut past = HashMap::new();
        for table in asked {
            past.insert(table.marked(), table.find(warehouse, &generation).await?);
        }
        let versions = match words.contains("versions") {
            true => Some(past::versions(&warehouse.history(past::VERSIONS_SHOWN).await?)?),
            false => None,
        };
        let view_schemas = HashMap::new();
        let erased = warehouse.erased_in(&generation).await?;
        Ok(Self {
            generation,
            snapshots,
            unreadable,
            customers,
            past,
            versions,
            view_schemas,
            erased,
            about,
        })
    }

    /// Whether `words` ask for the catalogues, which describe every view's columns too.
    pub fn wants_catalogue(words: &BTreeSet<String>) -> bool {
        words.iter().any(|w| w.starts_with("pg_") || w == "information_schema")
    }

    /// Notes the columns of a view, once it has been planned.
    pub fn set_view_schema(&mut self, name: Name, schema: SchemaRef) {
        self.view_schemas.insert(name, schema);
    }

    /// Columns of a view, when they were noted.
    pub fn view_schema(&self, name: &Name) -> Option<SchemaRef> {
        self.view_schemas.get(name).cloned()
    }

    /// Name of the role.
    pub fn user(&self) -> &str {
        &self.about.user
    }

    /// Settings of the session and their values.
    pub fn settings(&self) -> &[(String, String)] {
        &self.about.settings
    }

    /// Names of the functions that can be called.
    pub fn function_names(&self) -> Vec<String> {
        let own = self.own_functions().map(|(name, _)| name.table.clone());
        self.about.functions.iter().cloned().chain(own).collect()
    }

    /// The functions that users wrote.
    pub fn own_functions(&self) -> impl Iterator<Item = (&Name, &FunctionDef)> {
        self.generation.relations.iter().filter_map(|(name, relation)| match relation {
            Relation::Function(def) => Some((name, def)),
            _ => None,
        })
    }

    /// Records that nobody sees.
    pub fn erased(&self) -> &Erased {
        &self.erased
    }

    /// The state it holds.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The version of table `name`, when it was loaded.
    pub fn snapshot(&self, name: &Name) -> Option<&Arc<TableSnapshot>> {
        self.snapshots.get(name)
    }

    /// For this statement `name` is these rows, which nobody else sees.
    pub fn stage(&mut self, name: Name, rows: Arc<TableSnapshot>) {
        self.past.insert(name, rows);
    }

    /// Why a table cannot be read, when it cannot.
    pub fn damage(&self, reference: &TableReference) -> Option<&Error> {
        let schema = reference.schema().unwrap_or(DEFAULT_SCHEMA);
        self.unreadable.get(&Name::new(schema, reference.table()))
    }

    /// Refuses a report that has no rows yet: none is not what it would say.
    pub fn refuse_unpopulated(&self, reference: &TableReference) -> Result<()> {
        let name = Name::new(reference.schema().unwrap_or(DEFAULT_SCHEMA), reference.table());
        let Some(report) = Report::of(&self.generation, &name)? else { return Ok(()) };
        // An audience begins with nobody.
        let is_readable = report.settings.mode == Mode::Audience;
        if is_readable || Progress::of(&self.generation, &name)?.is_populated() {
            return Ok(());
        }
        Err(Error::new(
            Kind::NotInState,
            format!("materialized view \"{name}\" has not been populated"),
        )
        .hint(format!("REFRESH MATERIALIZED VIEW {name}; SELECT * FROM reports.status says what its last run came to")))
    }

    /// What `reference` means; `None` when nothing has that name.
    pub fn meaning(&self, reference: &TableReference) -> Option<Meaning> {
        if reference.catalog().is_some_and(|catalog| catalog != DATABASE) {
            return None;
        }
        let table = reference.table();
        match reference.schema() {
            Some("pg_catalog") => pg_catalog::table(self, table).map(computed),
            Some("information_schema") => information_schema::table(self, table).map(computed),
            Some(schema) => self.stored(&Name::new(schema, table)),
            // As PostgreSQL's search path: pg_catalog comes first, then public.
            None if table.starts_with("pg_") => pg_catalog::table(self, table).map(computed),
            None => self.stored(&Name::new(DEFAULT_SCHEMA, table)),
        }
    }

    fn stored(&self, name: &Name) -> Option<Meaning> {
        if let Some(snapshot) = self.past.get(name) {
            return Some(self.as_seen(snapshot, 0));
        }
        if let (Some(versions), "system", "versions") =
            (&self.versions, name.schema.as_str(), name.table.as_str())
        {
            return Some(computed(versions.clone()));
        }
        match self.generation.relations.get(name) {
            Some(Relation::Table(def)) => {
                self.snapshots.get(name).map(|snapshot| self.as_seen(snapshot, def.erased))
            }
            Some(Relation::View(view)) => Some(Meaning::View(view.clone())),
            Some(Relation::Graph(_) | Relation::Function(_) | Relation::Note(_)) | None => {
                self.computed(name).or_else(|| system::schema_of(name).map(empty))
            }
        }
    }

    /// What the warehouse says about itself when it is asked.
    fn computed(&self, name: &Name) -> Option<Meaning> {
        let batch = match (name.schema.as_str(), name.table.as_str()) {
            ("reports", "status") => {
                let About { running, unwritten, .. } = &self.about;
                status_table(&self.generation, running, unwritten, chrono::Utc::now())
            }
            ("reports", "audiences") => audience_table(&self.generation),
            ("cron", "job") => job_table(&self.generation, DATABASE),
            _ => return None,
        };
        match batch {
            Ok(batch) => Some(computed(batch)),
            Err(error) => {
                tracing::error!(%error, relation = %name, "what is kept about reports cannot be read");
                None
            }
        }
    }

    /// A table for this role; `clean_to` is the version of the list of erased records up to which its files are clean.
    fn as_seen(&self, snapshot: &Arc<TableSnapshot>, clean_to: u64) -> Meaning {
        let customers = snapshot.graph().and_then(|graph| self.customers.get(graph));
        let table = SnapshotTable::of_customers(Arc::clone(snapshot), customers.cloned());
        let table = PolicyTable::new(Arc::new(table), &self.about.user);
        let is_clean = clean_to >= self.erased.version();
        Meaning::Table(Arc::new(if is_clean { table } else { table.without(&self.erased) }))
    }

    /// Every relation of the warehouse with its columns, for the catalogues; views are planned by the caller.
    pub fn relations(&self) -> &BTreeMap<Name, Relation> {
        &self.generation.relations
    }
}

/// The stored table that a role sees as `table`.
pub fn stored_table(table: &dyn TableProvider) -> Option<&SnapshotTable> {
    table.downcast_ref::<PolicyTable>()?.inner().downcast_ref::<SnapshotTable>()
}

/// How the rows of a table are kept, where it is one of ours and clustered.
pub fn clustering_of(table: &dyn TableProvider) -> Option<&Clustering> {
    stored_table(table)?.snapshot().clustering.as_ref()
}

/// `table` as the same role sees it, with the customers of its rows in a column more; `None` when they are not kept with it.
pub fn with_one_id(table: &dyn TableProvider) -> Option<Arc<dyn TableProvider>> {
    let with_one_id = stored_table(table)?.with_one_id()?;
    let seen = table.downcast_ref::<PolicyTable>()?.over(Arc::new(with_one_id));
    Some(Arc::new(seen))
}

/// Relations that a statement may mean, by the words in it: views and functions bring the words of their queries along.
fn names_among(generation: &Generation, words: &BTreeSet<String>) -> BTreeSet<Name> {
    let mut wanted: BTreeSet<String> = words.clone();
    let mut names = BTreeSet::new();
    // The catalogues describe every table's columns.
    let wants_all = Pinned::wants_catalogue(words);
    loop {
        let before = names.len();
        // identity => 'graph' reads the graph's map, and the graph's name may come with a parameter.
        if wanted.contains("identity") {
            wanted.insert("map".to_owned());
        }
        // As a call, or as earlier versions kept it in views.
        if wanted.contains("oneid") || wanted.contains("oneid_hash") {
            wanted.extend(["identifiers", "map", "owners", "types"].map(str::to_owned));
        }
        for (name, relation) in &generation.relations {
            let is_new = (wants_all || wanted.contains(&name.table)) && names.insert(name.clone());
            match relation {
                Relation::View(ViewDef { sql, .. })
                | Relation::Function(FunctionDef { sql, .. })
                    if is_new =>
                {
                    wanted.extend(words_of(sql));
                }
                _ => {}
            }
        }
        if names.len() == before {
            return names;
        }
    }
}

/// No longer name between quotes is looked for that has a quote in it.
const NAME_BYTES_MAX: usize = 256;

/// Every word of a statement that could be a name, as written and in lower case.
pub fn words_of(sql: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    for word in sql.split(|c: char| !is_part(c)).filter(|w| !w.is_empty()) {
        words.insert(word.to_lowercase());
        words.insert(word.to_owned());
    }
    // Between quotes a name may hold anything, and a doubled quote is one.
    for (at, quoted) in sql.split('"').enumerate() {
        if at % 2 == 1 {
            words.insert(quoted.to_owned());
        }
    }
    let has_doubled = sql.contains("\"\"");
    for (start, _) in sql.match_indices('"').filter(|_| has_doubled) {
        let mut name = String::new();
        let mut rest = sql[start + 1..].chars().peekable();
        while let Some(c) = rest.next() {
            match (c, rest.peek()) {
                ('"', Some('"')) => {
                    rest.next();
                    name.push('"');
                }
                ('"', _) => break,
                _ if name.len() > NAME_BYTES_MAX => break,
                _ => name.push(c),
            }
        }
        if name.contains('"') {
            words.insert(name);
        }
    }
    words
}

fn empty(schema: SchemaRef) -> Meaning {
    computed(RecordBatch::new_empty(schema))
}

fn computed(batch: RecordBatch) -> Meaning {
    let schema = batch.schema();
    // A batch of its own schema always makes a table.
    match MemTable::try_new(Arc::clone(&schema), vec![vec![batch]]) {
        Ok(table) => Meaning::Table(Arc::new(table)),
        Err(_) => Meaning::Table(Arc::new(datafusion::datasource::empty::EmptyTable::new(schema))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cover_every_way_to_write_a_name() {
        let words = words_of("SELECT * FROM rfm(Orders, x => \"my table\") JOIN shop.\"A\" ON 1=1");
        for word in ["orders", "my table", "shop", "A"] {
            assert!(words.contains(word), "{word}");
        }
    }
}
