//! Tables as they were: a version of the warehouse, or a moment.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use crate::error::{Error, Kind, Result};
use crate::store::{
    Change, Generation, MAP, Name, OVERRIDES, Publish, Relation, TableDef, TableSnapshot, Warehouse,
};

/// Publishes that `system.versions` shows.
pub(super) const VERSIONS_SHOWN: usize = 1000;

/// Between a table's name and its moment; no name that is written holds it.
const MARK: char = '\u{1}';

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After the publish of this number.
    Version(u64),
    /// At an instant, in microseconds since 1970.
    At(i64),
}

impl Moment {
    /// What was published then.
    ///
    /// # Errors
    /// 22023 when the warehouse has no such version, or is younger than that time, and for a time to come.
    pub async fn generation(
        &self,
        warehouse: &Warehouse,
        newest: &Generation,
    ) -> Result<Generation> {
        let found = match self {
            Self::At(at_us) if *at_us > chrono::Utc::now().timestamp_micros() => {
                return Err(Error::new(Kind::InvalidParameter, "that time has not come yet")
                    .hint("SELECT * FROM system.versions shows versions and their times"));
            }
            Self::Version(number) => warehouse.generation(*number).await?,
            Self::At(at_us) => warehouse.generation_at(*at_us).await?,
        };
        found.ok_or_else(|| {
            Error::new(
                Kind::InvalidParameter,
                match self {
                    Self::Version(number) => format!(
                        "the warehouse has no version {number}; its newest is version {}",
                        newest.number
                    ),
                    Self::At(_) => "the warehouse is younger than that time".to_owned(),
                },
            )
            .hint("SELECT * FROM system.versions shows versions and their times")
        })
    }
}

/// A table at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The table.
    pub name: Name,
    /// When.
    pub moment: Moment,
}

impl Past {
    /// The name under which a plan reads it.
    pub fn marked(&self) -> Name {
        let moment = match self.moment {
            Moment::Version(number) => format!("v{number}"),
            Moment::At(at_us) => format!("t{at_us}"),
        };
        Name::new(self.name.schema.clone(), format!("{}{MARK}{moment}", self.name.table))
    }

    /// What the table held then.
    pub(super) async fn find(
        &self,
        warehouse: &Warehouse,
        newest: &Generation,
    ) -> Result<Arc<TableSnapshot>> {
        let then = self.moment.generation(warehouse, newest).await?;
        let when = match self.moment {
            Moment::Version(number) => format!("version {number}"),
            Moment::At(_) => "that time".to_owned(),
        };
        let Some(def) = then.table(&self.name) else {
            if then.relations.contains_key(&self.name) {
                return Err(Error::new(
                    Kind::WrongObjectType,
                    format!("\"{}\" is a view, and only tables have versions", self.name),
                ));
            }
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("there was no table \"{}\" at {when}", self.name),
            )
            .hint("system.versions tells of which tables there are versions; what a statement or the catalogue makes has none"));
        };
        // Who was forgotten since is in the rows of a report without the key of their records, which hides them elsewhere.
        let is_report = then.is_report(&self.name) || newest.is_report(&self.name);
        // So is what a graph knows identifiers by; rows that name their records are hidden by that.
        let names_records = [MAP, "rejected", OVERRIDES].contains(&self.name.table.as_str());
        let is_of_graph = then.is_of_graph(&self.name) && !names_records;
        if (is_report || is_of_graph)
            && !is_since_erasures(warehouse, &self.name, &then, newest).await?
        {
            return Err(gone(&self.name, &when, "somebody was erased since, who may be in its rows")
                .hint("what was computed since the last erasure can be read; REFRESH ... AS OF computes a day of a report anew"));
        }
        held_then(warehouse, (&self.name, def), &then, newest, &when).await
    }
}

/// Whether the rows that a table had in `then`, a state of the past, were written after the last erasure, or are those that it has
/// still: rows of which nobody can tell whose they are.
pub async fn is_since_erasures(
    warehouse: &Warehouse,
    name: &Name,
    then: &Generation,
    newest: &Generation,
) -> Result<bool> {
    let Some(def) = then.table(name) else { return Ok(true) };
    let has_rows = |state: &Generation| {
        let now = state.table(name);
        now.is_some_and(|now| (&now.path, now.rows_version) == (&def.path, def.rows_version))
    };
    let erasures = newest.erasures();
    if erasures == 0 || has_rows(newest) {
        return Ok(true);
    }
    // The first state that has the last erasure.
    let (mut before, mut after) = (0, then.number);
    if then.erasures() < erasures {
        return Ok(false);
    }
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        match warehouse.generation(middle).await? {
            Some(state) if state.erasures() < erasures => before = middle,
            _ => after = middle,
        }
    }
    Ok(warehouse.generation(after).await?.is_some_and(|state| !has_rows(&state)))
}

/// What a table held by its definition of `then`, a state of the past; `when` says when that was.
///
/// # Errors
/// 42P01 when that was taken away since.
pub async fn held_then(
    warehouse: &Warehouse,
    (name, def): (&Name, &TableDef),
    then: &Generation,
    newest: &Generation,
    when: &str,
) -> Result<Arc<TableSnapshot>> {
    let gone = |why: &str| gone(name, when, why);
    let snapshot = match warehouse.snapshot(def).await {
        Ok(snapshot) => snapshot,
        Err(error) if error.is_of_no_log() => return Err(gone("its log begins later")),
        Err(error) if error.kind() == Kind::DataCorrupted => {
            // A folder that was taken away can be that of a later table of the same name, whose log says something else.
            let history = warehouse.history(usize::MAX).await?;
            let is_dropped = history.iter().any(|(number, _, changes)| {
                *number > then.number
                    && match changes.get(name) {
                        Some(Change::Set(Relation::Table(later))) => later.path != def.path,
                        Some(_) => true,
                        None => false,
                    }
            });
            return Err(if is_dropped { gone("it was dropped since") } else { error });
        }
        Err(error) => return Err(error),
    };
    match warehouse.file_taken_away(&snapshot, newest.table(name)).await? {
        Some(path) => Err(gone(&format!("the file {path} was taken away"))),
        None => Ok(snapshot),
    }
}

/// That what `name` held then is there no more.
fn gone(name: &Name, when: &str, why: &str) -> Error {
    Error::new(Kind::UndefinedTable, format!("what table \"{name}\" held at {when} is gone"))
        .detail(why.to_owned())
}

/// `system.versions`: a row a name that a publish changed, newest first.
pub(super) fn versions(history: &[Publish]) -> Result<RecordBatch> {
    let mut numbers = Vec::new();
    let mut times = Vec::new();
    let mut names = Vec::new();
    let mut kinds = Vec::new();
    let mut table_versions = Vec::new();
    for (number, at_us, changes) in history {
        for (name, change) in changes {
            let (kind, version) = match change {
                Change::Set(Relation::Table(def)) => ("table", i64::try_from(def.version).ok()),
                Change::Set(Relation::View(_)) => ("view", None),
                Change::Set(Relation::Graph(_)) => ("identity graph", None),
                Change::Set(Relation::Function(_)) => ("function", None),
                Change::Set(Relation::Note(_)) => continue,
                Change::Dropped => ("dropped", None),
            };
            numbers.push(i64::try_from(*number).unwrap_or(i64::MAX));
            times.push((*at_us > 0).then_some(*at_us));
            names.push(name.to_string());
            kinds.push(kind);
            table_versions.push(version);
        }
    }
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let column = |name, data_type| Field::new(name, data_type, true);
    let schema = Schema::new(vec![
        column("version", DataType::Int64),
        column("published_at", instant),
        column("relation", DataType::Utf8),
        column("kind", DataType::Utf8),
        column("table_version", DataType::Int64),
    ]);
    Ok(RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from(numbers)),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
            Arc::new(StringArray::from(names)),
            Arc::new(StringArray::from(kinds)),
            Arc::new(Int64Array::from(table_versions)),
        ],
    )?)
}
