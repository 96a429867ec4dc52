//! The publish log: a chain of small documents, each saying what one publish changed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use super::highest::Highest;
use super::lease::Lease;
use crate::error::{Error, Kind, Result};

const FOLDER: &str = "_clientele/generations";

/// Every so many generations the whole state is written beside the change, so that opening reads few documents.
const CHECKPOINT_EVERY: u64 = 32;

/// Of the relations of an identity graph the one that users write: what they say by hand.
pub const OVERRIDES: &str = "overrides";

/// Schema of the notes that define reports; a report's rows are the table that its note is about.
pub const REPORTS: &str = "reports.definitions";

/// A relation's schema and name, as stored: already folded to lower case unless it was quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Schema, such as `public`.
    pub schema: String,
    /// Name within the schema.
    pub table: String,
}

impl Name {
    /// A name in `schema`.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { schema: schema.into(), table: table.into() }
    }

    /// Whether its schema is one that only the warehouse fills.
    pub fn is_reserved(&self) -> bool {
        let schema = self.schema.split('.').next().unwrap_or_default();
        ["system", "reports", "cron", "information_schema"].contains(&schema)
            || schema.starts_with("pg_")
    }

    /// The name under which a note about this one is kept among those of `schema`.
    pub fn noted(&self, schema: &str) -> Self {
        let pair = serde_json::json!([self.schema, self.table]);
        Self::new(schema, pair.to_string())
    }

    /// What a note is about, the other way around.
    pub fn of_note(note: &Self) -> Option<Self> {
        let [schema, table]: [String; 2] = serde_json::from_str(&note.table).ok()?;
        Some(Self { schema, table })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema == "public" {
            f.write_str(&self.table)
        } else {
            write!(f, "{}.{}", self.schema, self.table)
        }
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        // A JSON array in a string: names may hold any character, a dot included.
        let pair = serde_json::to_string(&[&self.schema, &self.table])
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&pair)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let pair = String::deserialize(deserializer)?;
        let [schema, table]: [String; 2] =
            serde_json::from_str(&pair).map_err(serde::de::Error::custom)?;
        Ok(Self { schema, table })
    }
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// A stored table.
    Table(TableDef),
    /// A query under a name.
    View(ViewDef),
    /// An identity graph; its tables are relations of the schema of its name.
    Graph(GraphDef),
    /// A table function that a user wrote.
    Function(FunctionDef),
    /// What another room keeps under a name that is no relation of a user's, in its own format: the definition of a report, how
    /// far it has come, a statement with a schedule.
    Note(serde_json::Value),
}

/// A table: where it lies and which version of it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDef {
    /// Folder below the warehouse.
    pub path: String,
    /// Published Delta version.
    pub version: u64,
    /// Version of `system.erased` up to which it has no rows of erased records.
    #[serde(default)]
    pub erased: u64,
    /// What the table's log has to be compared with.
    #[serde(flatten)]
    pub holding: Holding,
    /// Version in which rows came or went last; a compaction changes none. 0 for tables that were published before it was kept.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub rows_version: u64,
}

/// What is published of a table's version beside its number: the table's log has no checksum of its own. What was published before
/// one of these was kept has none, and is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// What the version holds, as a number: a log that has lost an entry would give other rows without a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The loads that the version knows, as a number: a file whose load is forgotten could be loaded again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loads: Option<String>,
    /// The sums of the log's last entries, that of the version at the end: they tell which file is not what it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entries: String,
}

/// A view: its query, and the settings that were folded into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDef {
    /// The query, as it was given.
    pub sql: String,
    /// Names for its columns, when CREATE VIEW gave some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Zone of the session that made it; its days are of that zone. Views from before are of UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
}

/// A table function: a query with places for its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionDef {
    /// What it takes, in order.
    pub arguments: Vec<FunctionArgument>,
    /// What it gives.
    pub columns: Vec<FunctionColumn>,
    /// Its query.
    pub sql: String,
}

impl FunctionDef {
    /// What it takes, as it was declared: `orders TABLE, at_least INT DEFAULT 3`.
    pub fn arguments_text(&self) -> String {
        let argument = |argument: &FunctionArgument| {
            let data_type = argument.data_type.as_deref().unwrap_or("TABLE");
            let default = argument.default.as_ref().map(|default| format!(" DEFAULT {default}"));
            format!("{} {data_type}{}", argument.name, default.unwrap_or_default())
        };
        self.arguments.iter().map(argument).collect::<Vec<_>>().join(", ")
    }

    /// What it gives, as it was declared: `TABLE(customer TEXT, orders BIGINT)`.
    pub fn result_text(&self) -> String {
        let column = |column: &FunctionColumn| format!("{} {}", column.name, column.data_type);
        format!("TABLE({})", self.columns.iter().map(column).collect::<Vec<_>>().join(", "))
    }
}

/// An argument of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionArgument {
    /// Name.
    pub name: String,
    /// Type; a relation has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_type: Option<String>,
    /// What it is when a call does not give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A column that a function gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionColumn {
    /// Name.
    pub name: String,
    /// Type.
    pub data_type: String,
}

/// An identity graph: the statement's content as its own room wrote it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphDef {
    /// Rules and source, in the identity room's own format.
    pub definition: serde_json::Value,
}

/// What a publish does to one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The name now means this.
    Set(Relation),
    /// The name means nothing any more.
    Dropped,
}

/// One published state: what every name means.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Number of the last publish; 0 is the empty warehouse.
    pub number: u64,
    /// When it was published, in microseconds since 1970; never before its predecessor. 0 when its document does not say.
    #[serde(default)]
    pub at_us: i64,
    /// The latest epoch of housekeeping that has published.
    #[serde(default)]
    pub epoch: u64,
    /// Every relation.
    pub relations: BTreeMap<Name, Relation>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    generation: u64,
    #[serde(default)]
    at_us: i64,
    /// The latest epoch of housekeeping that has published, this publish included.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    epoch: u64,
    changes: BTreeMap<Name, Change>,
    /// Tells this publish from every other: a store may carry out what it says has failed. Documents from before have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    /// The whole state after the changes, in every [`CHECKPOINT_EVERY`]th document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<BTreeMap<Name, Relation>>,
    /// CRC-32 of the document without this field; documents from before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<u32>,
}

/// What a field came with later must not be written where it says nothing: checksums from before are of documents without it.
fn is_none_yet(epoch: &u64) -> bool {
    *epoch == 0
}

impl Document {
    /// The document with its checksum.
    fn summed(mut self) -> Result<Self> {
        self.sum = None;
        self.sum = Some(crc32fast::hash(&serde_json::to_vec(&self)?));
        Ok(self)
    }

    /// The document, when it is what was written.
    fn unless_damaged(self) -> Option<Self> {
        match self.sum {
            None => Some(self),
            Some(sum) => self.summed().ok().filter(|again| again.sum == Some(sum)),
        }
    }
}

impl Generation {
    /// The table `name`, if that is what it means.
    pub fn table(&self, name: &Name) -> Option<&TableDef> {
        match self.relations.get(name)? {
            Relation::Table(table) => Some(table),
            Relation::View(_) | Relation::Graph(_) | Relation::Function(_) | Relation::Note(_) => {
                None
            }
        }
    }

    /// What is kept under `name` in another room's format.
    pub fn note(&self, name: &Name) -> Option<&serde_json::Value> {
        match self.relations.get(name)? {
            Relation::Note(note) => Some(note),
            _ => None,
        }
    }

    /// Whether a name is in the schema of an identity graph.
    pub fn is_of_graph(&self, name: &Name) -> bool {
        self.relations.iter().any(|(graph, relation)| {
            graph.schema == name.schema && matches!(relation, Relation::Graph(_))
        })
    }

    /// Whether the rows of a name are those of a report.
    pub fn is_report(&self, name: &Name) -> bool {
        self.relations.contains_key(&name.noted(REPORTS))
    }

    /// Refuses rows that are written by hand into what a graph or a report computes; what is said by hand goes into a graph's
    /// overrides.
    pub fn refuse_rows(&self, name: &Name) -> Result<()> {
        if name.table == OVERRIDES { Ok(()) } else { self.refuse_change(name) }
    }

    /// Refuses to write, alter or drop by hand what a graph or a report computes.
    pub fn refuse_change(&self, name: &Name) -> Result<()> {
        if self.is_of_graph(name) {
            return Err(Error::new(
                Kind::NotAllowed,
                format!("\"{name}\" belongs to the identity graph \"{}\"", name.schema),
            )
            .hint("REFRESH IDENTITY GRAPH computes it, its overrides take what is said by hand; DROP IDENTITY GRAPH drops it"));
        }
        if self.is_report(name) {
            return Err(Error::new(
                Kind::WrongObjectType,
                format!("\"{name}\" is a materialized view"),
            )
            .hint("REFRESH MATERIALIZED VIEW computes its rows; DROP MATERIALIZED VIEW drops it"));
        }
        Ok(())
    }

    /// Version of `system.erased`; 0 when nobody was erased.
    pub fn erasures(&self) -> u64 {
        self.table(&super::system::erased().0).map_or(0, |def| def.version)
    }

    fn after(&self, document: &Document) -> Self {
        let relations = self.relations.clone();
        let (number, at_us, epoch) = (document.generation, document.at_us, document.epoch);
        let mut next = Self { number, at_us, epoch: self.epoch.max(epoch), relations };
        for (name, change) in &document.changes {
            match change {
                Change::Set(relation) => next.relations.insert(name.clone(), relation.clone()),
                Change::Dropped => next.relations.remove(name),
            };
        }
        next
    }
}

/// The chain of generations in a store, with the newest one seen in memory.
#[derive(Debug)]
pub(crate) struct Chain {
    store: Arc<dyn ObjectStore>,
    newest: RwLock<Arc<Generation>>,
    highest: Option<Highest>,
}

impl Chain {
    /// Reads the chain from its last checkpoint on.
    ///
    /// # Errors
    /// XX001 when a generation is damaged or missing, the newest one included where its number is noted.
    pub(crate) async fn open(
        store: Arc<dyn ObjectStore>,
        highest: Option<Highest>,
    ) -> Result<Self> {
        // Before the generations are listed: others publish meanwhile.
        let noted = highest.as_ref().and_then(Highest::read).unwrap_or(0);
        let newest = read_newest(store.as_ref()).await?;
        if noted > newest.number {
            return Err(Error::new(
                Kind::DataCorrupted,
                format!("generation {noted} of the publish log is missing"),
            )
            .detail(format!("the last one there is {}", newest.number))
            .hint(format!(
                "restore {} from a backup; without the file _clientele/newest the warehouse opens as generation {} left it",
                location(noted),
                newest.number
            )));
        }
        Ok(Self { store, newest: RwLock::new(Arc::new(newest)), highest })
    }

    /// The newest published state, other processes' publishes included. Costs one look for the next document.
    pub(crate) async fn newest(&self) -> Result<Arc<Generation>> {
        loop {
            let known = self.known();
            let Some(document) = read(self.store.as_ref(), known.number + 1).await? else {
                return Ok(known);
            };
            self.advance(known.after(&document));
        }
    }

    /// Appends one generation. `changes` is asked again, with the state it builds on, whenever another writer was faster.
    pub(crate) async fn publish(
        &self,
        changes: impl FnMut(&Generation) -> Result<BTreeMap<Name, Change>>,
    ) -> Result<Arc<Generation>> {
        self.publish_under(None, changes).await
    }

    /// Appends one generation, for housekeeping under `lease`; 40001 when a later holder has published.
    pub(crate) async fn publish_under(
        &self,
        lease: Option<Lease>,
        mut changes: impl FnMut(&Generation) -> Result<BTreeMap<Name, Change>>,
    ) -> Result<Arc<Generation>> {
        const TRIES_MAX: u32 = 1000;
        for _ in 0..TRIES_MAX {
            let before = self.newest().await?;
            let epoch = lease.map_or(before.epoch, Lease::epoch);
            if epoch < before.epoch {
                return Err(Lease::is_over());
            }
            let changes = changes(&before)?;
            if changes.is_empty() {
                return Ok(before);
            }
            let at_us = chrono::Utc::now().timestamp_micros().max(before.at_us + 1);
            let (number, id) = (before.number + 1, uuid::Uuid::new_v4().simple().to_string());
            let mut document =
                Document { generation: number, at_us, epoch, changes, id, state: None, sum: None };
            let after = before.after(&document);
            if number.is_multiple_of(CHECKPOINT_EVERY) {
                document.state = Some(after.relations.clone());
            }
            let document = document.summed()?;
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let payload = PutPayload::from(serde_json::to_vec(&document)?);
            let is_ours = match self.store.put_opts(&location(number), payload, options).await {
                Ok(_) => true,
                Err(object_store::Error::AlreadyExists { .. }) => {
                    let there = read(self.store.as_ref(), number).await?;
                    there.is_some_and(|there| there.id == document.id)
                }
                Err(error) => return Err(error.into()),
            };
            if is_ours {
                if let Some(highest) = &self.highest {
                    highest.note(number);
                }
                self.advance(after);
                return Ok(self.known());
            }
        }
        Err(Error::new(Kind::Serialization, "other writers were faster every time")
            .hint("run the statement again"))
    }

    /// The state that generation `number` published; `None` when there is no such one.
    pub(crate) async fn at(&self, number: u64) -> Result<Option<Generation>> {
        if number > self.newest().await?.number {
            return Ok(None);
        }
        Ok(Some(read_at(self.store.as_ref(), number).await?))
    }

    /// The state that was published at an instant; `None` before the first one.
    pub(crate) async fn at_time(&self, at_us: i64) -> Result<Option<Generation>> {
        let newest = self.newest().await?;
        if newest.at_us <= at_us {
            return Ok((newest.number > 0).then(|| Generation::clone(&newest)));
        }
        // The first generation after the instant: times only grow.
        let (mut low, mut high) = (1, newest.number);
        while low < high {
            let middle = low + (high - low) / 2;
            match read(self.store.as_ref(), middle).await? {
                Some(document) if document.at_us <= at_us => low = middle + 1,
                Some(_) => high = middle,
                None => return Ok(None),
            }
        }
        if low == 1 { Ok(None) } else { self.at(low - 1).await }
    }

    /// The newest publishes, newest first: number, time, and what changed.
    pub(crate) async fn history(
        &self,
        most: usize,
    ) -> Result<Vec<(u64, i64, BTreeMap<Name, Change>)>> {
        let newest = self.newest().await?.number;
        let mut history = Vec::new();
        for number in (1..=newest).rev().take(most) {
            let Some(document) = read(self.store.as_ref(), number).await? else { break };
            history.push((number, document.at_us, document.changes));
        }
        Ok(history)
    }

    /// The newest state that this process has seen.
    pub(super) fn known(&self) -> Arc<Generation> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn advance(&self, next: Generation) {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        if next.number > newest.number {
            *newest = Arc::new(next);
        }
    }
}

fn location(number: u64) -> Path {
    Path::from(format!("{FOLDER}/{number:020}.json"))
}

async fn read(store: &dyn ObjectStore, number: u64) -> Result<Option<Document>> {
    let bytes = match store.get(&location(number)).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let document =
        serde_json::from_slice::<Document>(&bytes).ok().and_then(Document::unless_damaged);
    match document {
        Some(document) if document.generation == number => Ok(Some(document)),
        _ => Err(broken(number, "damaged")),
    }
}

/// What the publish log says after a broken document cannot be known: it is the log of all tables.
fn broken(number: u64, what: &str) -> Error {
    Error::new(Kind::DataCorrupted, format!("generation {number} of the publish log is {what}"))
        .detail(format!("file: {}", location(number)))
        .hint("a backup has it: no document is ever changed, so that this one file can be put back")
}

async fn read_newest(store: &dyn ObjectStore) -> Result<Generation> {
    let listed: Vec<_> = store.list(Some(&Path::from(FOLDER))).try_collect().await?;
    let number = |file: &object_store::ObjectMeta| -> Option<u64> {
        file.location.filename()?.strip_suffix(".json")?.parse().ok()
    };
    let newest = listed.iter().filter_map(number).max().unwrap_or(0);
    read_at(store, newest).await
}

/// The state of one generation, from the checkpoint before it on.
async fn read_at(store: &dyn ObjectStore, number: u64) -> Result<Generation> {
    let mut state = Generation::default();
    let checkpoint = number - number % CHECKPOINT_EVERY;
    if checkpoint > 0
        && let Some(Document { state: Some(relations), at_us, epoch, .. }) =
            read(store, checkpoint).await?
    {
        state = Generation { number: checkpoint, at_us, epoch, relations };
    }
    while state.number < number {
        let Some(document) = read(store, state.number + 1).await? else {
            return Err(broken(state.number + 1, "missing"));
        };
        state = state.after(&document);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn table(version: u64) -> Relation {
        Relation::Table(TableDef {
            path: "public/t".into(),
            version,
            erased: 0,
            holding: Holding::default(),
            rows_version: 0,
        })
    }

    fn set(table_name: &str, version: u64) -> BTreeMap<Name, Change> {
        BTreeMap::from([(Name::new("public", table_name), Change::Set(table(version)))])
    }

    /// A second process sees each publish, whole, and a reopened chain is the chain.
    #[tokio::test]
    async fn publishes_are_seen_everywhere_and_survive_reopening() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let writer = Chain::open(Arc::clone(&store), None).await.unwrap();
        let reader = Chain::open(Arc::clone(&store), None).await.unwrap();
        for version in 1..=100 {
            writer.publish(|_| Ok(set("a", version))).await.unwrap();
        }
        let mut both = set("b", 7);
        both.insert(Name::new("public", "a"), Change::Dropped);
        writer.publish(|_| Ok(both.clone())).await.unwrap();
        let seen = reader.newest().await.unwrap();
        assert_eq!(seen.number, 101);
        let then = reader.at(40).await.unwrap().unwrap();
        assert_eq!(then.table(&Name::new("public", "a")).unwrap().version, 40);
        assert_eq!(reader.at_time(then.at_us).await.unwrap().unwrap().number, 40);
        assert_eq!(reader.at_time(then.at_us + 1).await.unwrap().unwrap().number, 40);
        assert!(
            reader.at_time(1).await.unwrap().is_none() && reader.at(102).await.unwrap().is_none()
        );
        assert_eq!(reader.history(2).await.unwrap()[1].0, 100);
        assert_eq!(seen.relations, BTreeMap::from([(Name::new("public", "b"), table(7))]));
        assert_eq!(*Chain::open(store, None).await.unwrap().newest().await.unwrap(), *seen);
    }

    /// A document that an earlier version of this program wrote is what it was.
    #[test]
    fn documents_from_before_are_read() {
        let written = r#"{"generation":1,"at_us":1795326667707889,"changes":{"[\"public\",\"events\"]":{"set":{"table":{"path":"public/events","version":1,"erased":0}}}},"sum":1590747970}"#;
        let document: Document = serde_json::from_str(written).unwrap();
        let document = document.unless_damaged().unwrap();
        assert_eq!((document.generation, document.epoch), (1, 0));
        let flipped = written.replace("\"version\":1", "\"version\":2");
        let document: Document = serde_json::from_str(&flipped).unwrap();
        assert!(document.unless_damaged().is_none());
    }

    /// Two writers with stale views both land, on top of each other.
    #[tokio::test]
    async fn stale_writers_retry_on_the_newest_state() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (one, two) = (
            Chain::open(Arc::clone(&store), None).await.unwrap(),
            Chain::open(store, None).await.unwrap(),
        );
        let bump = |state: &Generation| {
            let version = state.table(&Name::new("public", "n")).map_or(0, |t| t.version);
            Ok(set("n", version + 1))
        };
        for _ in 0..10 {
            one.publish(bump).await.unwrap();
            two.publish(bump).await.unwrap();
        }
        assert_eq!(
            one.newest().await.unwrap().table(&Name::new("public", "n")).unwrap().version,
            20
        );
    }
}
