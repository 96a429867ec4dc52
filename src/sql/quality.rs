//! `CHECK QUALITY`: what is missing, wrong, doubled or without its other half, by source, as a table.
//!
//! A check is a file of `sql/checks`: a few words about it in comment lines, and a query. The words say which columns it is
//! for; the query gives a row a source with how many values it looked at and how many failed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::StreamExt;

use super::execute::execute;
use super::{Outcome, OutputColumn, answer, output_columns, parse};
use crate::catalog::DEFAULT_SCHEMA;
use crate::dialect::{literal, quoted};
use crate::error::{Error, Kind, Result};
use crate::ingest::shape;
use crate::session::Session;
use crate::store::{Name, Relation, TableDef, TableSnapshot, system};

/// The checks that come with the program.
const CHECKS: [&str; 13] = [
    include_str!("../../sql/checks/completeness.sql"),
    include_str!("../../sql/checks/completeness_contact.sql"),
    include_str!("../../sql/checks/completeness_other.sql"),
    include_str!("../../sql/checks/contact.sql"),
    include_str!("../../sql/checks/identifiers.sql"),
    include_str!("../../sql/checks/birth_date.sql"),
    include_str!("../../sql/checks/future.sql"),
    include_str!("../../sql/checks/long_ago.sql"),
    include_str!("../../sql/checks/duplicate_customers.sql"),
    include_str!("../../sql/checks/duplicate_orders.sql"),
    include_str!("../../sql/checks/duplicate_events.sql"),
    include_str!("../../sql/checks/orphan_orders.sql"),
    include_str!("../../sql/checks/orphan_lines.sql"),
];

/// One check, read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: String,
    scope: Scope,
    /// Columns without which it says nothing.
    needs: Vec<(String, String)>,
    query: String,
}

/// What a check is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// Texts, but for the columns named.
    EveryText(Vec<String>),
    /// What is no text, but for the columns named.
    EveryOther(Vec<String>),
    /// Dates and times, but for the columns named.
    EveryTime(Vec<String>),
    Columns(Vec<String>),
    Table(String),
}

impl Check {
    /// Reads a file's comment lines; what follows is the query.
    fn read(text: &str) -> Option<Self> {
        let mut check = Self {
            name: String::new(),
            scope: Scope::Columns(vec![]),
            needs: vec![],
            query: String::new(),
        };
        let mut has_scope = false;
        for line in text.lines() {
            let Some(comment) = line.strip_prefix("-- ") else {
                check.query.push_str(line);
                check.query.push('\n');
                continue;
            };
            let (word, rest) = comment.split_once(' ')?;
            let rest = rest.trim();
            match word {
                "check" => check.name = rest.to_owned(),
                "means" => {}
                "for" => {
                    check.scope = scope(rest)?;
                    has_scope = true;
                }
                "needs" => {
                    let pair = |need: &str| {
                        let (table, column) = need.trim().split_once('.')?;
                        Some((table.to_owned(), column.to_owned()))
                    };
                    check.needs = rest.split(',').map(pair).collect::<Option<_>>()?;
                }
                _ => return None,
            }
        }
        (has_scope && !check.name.is_empty()).then_some(check)
    }

    /// Whether it is about this column.
    fn is_for(&self, column: &str, data_type: &DataType) -> bool {
        let is_text = data_type == &DataType::Utf8;
        let is_among = |names: &[String]| names.iter().any(|c| c.eq_ignore_ascii_case(column));
        match &self.scope {
            Scope::EveryText(but) => is_text && !is_among(but),
            Scope::EveryOther(but) => !is_text && !is_among(but),
            Scope::EveryTime(but) => {
                data_type.is_temporal()
                    && !matches!(data_type, DataType::Interval(_) | DataType::Time64(_))
                    && !is_among(but)
            }
            Scope::Columns(names) => is_among(names),
            Scope::Table(_) => false,
        }
    }
}

fn scope(text: &str) -> Option<Scope> {
    let names = |list: &str| list.split(',').map(|name| name.trim().to_owned()).collect();
    if let Some(list) = text.strip_prefix("column ") {
        return Some(Scope::Columns(names(list)));
    }
    if let Some(table) = text.strip_prefix("table ") {
        return Some(Scope::Table(table.to_owned()));
    }
    let (columns, but) = match text.split_once(" but for ") {
        Some((columns, but)) => (columns, names(but)),
        None => (text, vec![]),
    };
    match columns {
        "every text column" => Some(Scope::EveryText(but)),
        "every time column" => Some(Scope::EveryTime(but)),
        "every other column" => Some(Scope::EveryOther(but)),
        _ => None,
    }
}

/// What a check found in one column of one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// The check.
    pub check: String,
    /// The table.
    pub table: Name,
    /// The column, or the type of identifier.
    pub column: Option<String>,
    /// The source; none where the table has no such column.
    pub source: Option<String>,
    /// Values that were looked at.
    pub rows: i64,
    /// Values that failed.
    pub failed: i64,
    /// Some of those, of personal columns their shape alone.
    pub samples: Option<String>,
}

impl Quality {
    /// Share of the values that failed.
    pub fn share(&self) -> Option<f64> {
        (self.rows > 0).then(|| self.failed as f64 / self.rows as f64)
    }
}

/// What checks found.
#[derive(Debug)]
pub struct Checked {
    /// A row a check, source and column.
    pub found: Vec<Quality>,
    /// Of tables that could not be read why not, where they were not asked for by name.
    pub damaged: Vec<String>,
}

/// Runs the checks on the tables, all of the warehouse's own when none is named, and keeps what they find in
/// `system.quality`.
///
/// # Errors
/// 42P01 for a table that does not exist. Cost: each column is read a few times.
pub async fn check_quality(session: &Session, tables: &[Name]) -> Result<Checked> {
    let warehouse = session.engine().warehouse();
    let newest = warehouse.newest().await?;
    let (mut wanted, mut damaged) = (Vec::new(), BTreeMap::new());
    for name in tables {
        if newest.table(name).is_none() {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("table \"{name}\" does not exist"),
            ));
        }
        wanted.push(name.clone());
    }
    if wanted.is_empty() {
        let is_graphs = |schema: &str| {
            newest.relations.iter().any(|(name, relation)| {
                name.schema == schema && matches!(relation, Relation::Graph(_))
            })
        };
        let own = newest.relations.iter().filter(|(name, relation)| {
            matches!(relation, Relation::Table(_))
                && !name.is_reserved()
                && !newest.is_report(name)
                && !is_graphs(&name.schema)
        });
        for (name, relation) in own {
            let Relation::Table(def) = relation else { continue };
            match warehouse.snapshot(def).await {
                Ok(_) => wanted.push(name.clone()),
                // Asked for by name it is an error; here it keeps no other from its turn.
                Err(error) => _ = damaged.insert(name.clone(), error),
            }
        }
    }
    let mut found = Vec::new();
    for text in CHECKS {
        let Some(check) = Check::read(text) else {
            return Err(Error::internal("a check that comes with the program cannot be read"));
        };
        let mut is_possible = true;
        for (table, column) in &check.needs {
            is_possible &= match newest.table(&Name::new(DEFAULT_SCHEMA, table.as_str())) {
                Some(def) => {
                    let snapshot = warehouse.snapshot(def).await;
                    snapshot.is_ok_and(|snapshot| snapshot.schema.index_of(column).is_ok())
                }
                None => false,
            };
        }
        if !is_possible {
            continue;
        }
        for name in &wanted {
            let Some(def) = newest.table(name) else { continue };
            match Box::pin(look_at(session, &check, name, def)).await {
                Ok(rows) => found.extend(rows),
                Err(error) if tables.is_empty() && error.kind() == Kind::DataCorrupted => {
                    damaged.insert(name.clone(), error);
                }
                Err(error) => return Err(error),
            }
        }
    }
    let unread =
        |(name, error): (Name, Error)| format!("table \"{name}\" cannot be checked: {error}");
    let damaged = damaged.into_iter().map(unread).collect();
    if !found.is_empty() {
        let columns = columns_of(&found);
        warehouse.append_to_system(system::quality(), columns).await?;
    }
    Ok(Checked { found, damaged })
}

/// Runs one check on a table, or on each column of it that it is for.
async fn look_at(
    session: &Session,
    check: &Check,
    name: &Name,
    def: &TableDef,
) -> Result<Vec<Quality>> {
    let snapshot = session.engine().warehouse().snapshot(def).await?;
    let mut found = Vec::new();
    match &check.scope {
        Scope::Table(table) => {
            if name == &Name::new(DEFAULT_SCHEMA, table.as_str()) {
                found.extend(look(session, check, name, &snapshot, None).await?);
            }
        }
        _ => {
            for field in snapshot.schema.fields() {
                if check.is_for(field.name(), field.data_type()) {
                    let column = Some(field.name().as_str());
                    found.extend(look(session, check, name, &snapshot, column).await?);
                }
            }
        }
    }
    Ok(found)
}

/// Runs one check on one column, or on a table.
async fn look(
    session: &Session,
    check: &Check,
    name: &Name,
    snapshot: &TableSnapshot,
    column: Option<&str>,
) -> Result<Vec<Quality>> {
    let mut names = snapshot.schema.fields().iter().map(|field| field.name());
    let source = names.find(|name| name.eq_ignore_ascii_case("source"));
    let source = source.map_or_else(|| "NULL::text".to_owned(), |name| quoted(name));
    let table = format!("{}.{}", quoted(&name.schema), quoted(&name.table));
    let sql = check
        .query
        .replace("{table}", &table)
        .replace("{source}", &source)
        .replace("{column}", &quoted(column.unwrap_or_default()))
        .replace("{name}", &literal(&column.unwrap_or_default().to_ascii_lowercase()));
    let mut found = Vec::new();
    for parsed in parse(&sql)? {
        let Outcome::Rows { mut stream, .. } = execute(session, &parsed, &[]).await? else {
            return Err(Error::internal("a check is a query"));
        };
        while let Some(batch) = stream.next().await {
            found.extend(rows_of(&batch?, check, name, snapshot, column)?);
        }
    }
    found.sort_by(|a, b| (&a.source, &a.column).cmp(&(&b.source, &b.column)));
    Ok(found)
}

fn rows_of(
    batch: &RecordBatch,
    check: &Check,
    name: &Name,
    snapshot: &TableSnapshot,
    column: Option<&str>,
) -> Result<Vec<Quality>> {
    let text = |name: &str| -> Result<Option<ArrayRef>> {
        batch.column_by_name(name).map(|c| Ok(cast(c, &DataType::Utf8)?)).transpose()
    };
    let number = |name: &str| -> Result<ArrayRef> {
        let column = batch
            .column_by_name(name)
            .ok_or_else(|| Error::internal(format!("check {} gives no {name}", check.name)))?;
        Ok(cast(column, &DataType::Int64)?)
    };
    let at = |array: &Option<ArrayRef>, row: usize| -> Option<String> {
        let array = array.as_ref()?.as_string::<i32>();
        array.is_valid(row).then(|| array.value(row).to_owned())
    };
    let (source, named) = (text("source")?, text("column_name")?);
    let (sample, other) = (text("sample")?, text("other_sample")?);
    let (rows, failed) = (number("rows")?, number("failed")?);
    let mut found = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let column = at(&named, row).or_else(|| column.map(str::to_owned));
        // Identifiers by type stand in a personal column whatever their type is called; ids of records name people too.
        let is_open = column.as_deref().is_some_and(|c| {
            snapshot.schema.index_of(c).is_ok()
                && !snapshot.personal.iter().any(|p| p == c)
                && c != "record_id"
        });
        let mut samples: Vec<String> =
            [at(&sample, row), at(&other, row)].into_iter().flatten().collect();
        if !is_open {
            samples.iter_mut().for_each(|sample| *sample = shape(sample));
        }
        samples.dedup();
        found.push(Quality {
            check: check.name.clone(),
            table: name.clone(),
            column,
            source: at(&source, row),
            rows: rows.as_primitive::<Int64Type>().value(row),
            failed: failed.as_primitive::<Int64Type>().value(row),
            samples: (!samples.is_empty()).then(|| samples.join(", ")),
        });
    }
    Ok(found)
}

/// Columns of `system.quality`.
fn columns_of(found: &[Quality]) -> Vec<ArrayRef> {
    let id = uuid::Uuid::new_v4().to_string();
    let now = chrono::Utc::now().timestamp_micros();
    let text = |of: &dyn Fn(&Quality) -> Option<String>| -> ArrayRef {
        Arc::new(found.iter().map(of).collect::<StringArray>())
    };
    vec![
        Arc::new(StringArray::from(vec![id.as_str(); found.len()])),
        Arc::new(TimestampMicrosecondArray::from(vec![now; found.len()]).with_timezone("UTC")),
        text(&|q| Some(q.check.clone())),
        text(&|q| Some(q.table.to_string())),
        text(&|q| q.column.clone()),
        text(&|q| q.source.clone()),
        Arc::new(found.iter().map(|q| Some(q.rows)).collect::<Int64Array>()),
        Arc::new(found.iter().map(|q| Some(q.failed)).collect::<Int64Array>()),
        Arc::new(found.iter().map(Quality::share).collect::<Float64Array>()),
        text(&|q| q.samples.clone()),
    ]
}

/// Columns of CHECK QUALITY's answer.
pub(super) fn columns() -> Vec<OutputColumn> {
    output_columns(&system::quality().1)
}

/// What fails, the largest share first.
pub(super) async fn run(session: &Session, tables: &[Name]) -> Result<Outcome> {
    let Checked { mut found, damaged } = Box::pin(check_quality(session, tables)).await?;
    found.retain(|quality| quality.failed > 0);
    let share = |quality: &Quality| quality.share().unwrap_or_default();
    found.sort_by(|a, b| share(b).total_cmp(&share(a)));
    let (_, schema) = system::quality();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns_of(&found))?;
    let mut answer = answer(batch, "CHECK");
    if let Outcome::Rows { notices, .. } = &mut answer {
        *notices = damaged;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_that_come_along_can_be_read() {
        for text in CHECKS {
            let check = Check::read(text).unwrap_or_else(|| panic!("{text}"));
            assert!(check.query.contains("AS failed"), "{}", check.name);
            assert!(text.contains("-- means "), "{}", check.name);
        }
        assert_eq!(Check::read("-- check x\nSELECT 1"), None);
        assert_eq!(Check::read("-- check x\n-- for every sixth column\nSELECT 1"), None);
    }
}
