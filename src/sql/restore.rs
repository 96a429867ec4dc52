//! `RESTORE TABLE t TO VERSION AS OF n`, `RESTORE WAREHOUSE TO TIMESTAMP AS OF '...'`: what was published then is published again.

use std::collections::BTreeSet;

use chrono_tz::Tz;
use clientele_udfs::pg::read_time::read_instant_in;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::Outcome;
use super::statement::{Words, syntax};
use crate::catalog::{DEFAULT_SCHEMA, Moment, held_then, is_since_erasures};
use crate::error::{Error, Kind, Result};
use crate::report::{Progress, history_of};
use crate::session::Session;
use crate::store::{
    Change, Generation, Group, MAP, Name, REPORTS, Relation, RestoreVersion, TableChange, TableDef,
};

const FORM: &str = "RESTORE TABLE name, ... | WAREHOUSE TO VERSION AS OF n | TIMESTAMP AS OF '...'";

/// What goes back, and to when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// Tables; none is everything.
    pub tables: Vec<Name>,
    /// The version, or the text of a time.
    pub to: RestoreTo,
}

/// When.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreTo {
    /// After the publish of this number.
    Version(u64),
    /// At a time of the session's zone.
    Time(String),
}

pub(super) fn parse(words: &Words) -> Result<Restore> {
    let mut tables = Vec::new();
    let mut at = 2;
    match words.peek_upper(1).as_str() {
        "WAREHOUSE" => {}
        "TABLE" => loop {
            let (name, next) = words.name_at(at)?;
            tables.push(name);
            at = next;
            if words.peek_upper(at) != "," {
                break;
            }
            at += 1;
        },
        _ => return Err(syntax(words, 1, FORM)),
    }
    let follows = |at: usize, wanted: &[&str]| {
        wanted.iter().enumerate().all(|(i, word)| words.peek_upper(at + i) == *word)
    };
    let to = match words.token(at + 4) {
        Some(Token::Number(digits, _)) if follows(at, &["TO", "VERSION", "AS", "OF"]) => {
            digits.parse().ok().map(RestoreTo::Version)
        }
        Some(Token::SingleQuotedString(text)) if follows(at, &["TO", "TIMESTAMP", "AS", "OF"]) => {
            Some(RestoreTo::Time(text.clone()))
        }
        _ => None,
    };
    match (to, words.token(at + 5)) {
        (Some(to), None) => Ok(Restore { tables, to }),
        _ => Err(syntax(words, at, FORM)),
    }
}

/// Publishes what was published then: all of it in one moment, as a new version, so that it can be taken back the same way.
pub(super) async fn run(session: &Session, restore: &Restore) -> Result<Outcome> {
    let moment = match &restore.to {
        RestoreTo::Version(number) => Moment::Version(*number),
        RestoreTo::Time(text) => {
            let zone: Tz = session.settings().timezone().parse().unwrap_or(Tz::UTC);
            let at_us = read_instant_in(text, zone).ok_or_else(|| {
                Error::new(
                    Kind::InvalidDatetime,
                    "TIMESTAMP AS OF needs a time such as '2011-12-09 12:50'",
                )
            })?;
            Moment::At(at_us)
        }
    };
    // Somebody else may write to a table between the look at it and its commit. What they wrote is published first, so that the
    // version that is kept has it. Where others never rest, what they write at that moment counts as written before.
    const TRIES: u32 = 5;
    for _ in 0..TRIES {
        match publish(session, restore, &moment, true).await {
            Err(error) if error.kind() == Kind::StaleBase => {}
            done => return done,
        }
    }
    publish(session, restore, &moment, false).await
}

async fn publish(
    session: &Session,
    restore: &Restore,
    moment: &Moment,
    keeps_all: bool,
) -> Result<Outcome> {
    let warehouse = session.engine().warehouse();
    let newest = warehouse.newest().await?;
    let then = moment.generation(warehouse, &newest).await?;
    let (mut group, left) = match restore.tables.is_empty() {
        true => everything(session, &newest, &then).await?,
        false => (some(session, &newest, &then, &restore.tables).await?, Left::default()),
    };
    let version_in = |state: &Generation, table: &TableChange| {
        let def = state.table(&table.name).filter(|def| def.path == table.path);
        def.map(|def| def.version)
    };
    let version = |table: &TableChange| version_in(&newest, table);
    match &mut group.tables[..] {
        _ if !keeps_all => {}
        // Its own commit can be bound to the version that was looked at; of several, some would go back and some would not.
        [table] => {
            let from = version(table);
            table.restore = table.restore.take().map(|back| RestoreVersion { from, ..back });
        }
        tables => {
            for table in tables {
                warehouse.publish_committed(&table.name, &table.path).await?;
            }
            let now = warehouse.newest().await?;
            if group.tables.iter().any(|table| version_in(&now, table) != version(table)) {
                return Err(Error::new(Kind::StaleBase, "the tables were changed meanwhile"));
            }
        }
    }
    let mut told = Told::of(&group, &[&then, &newest]);
    told.back = told.back.difference(&left.stays).cloned().collect();
    let before = broken_views(session).await?;
    if group != Group::default() {
        warehouse.publish(group).await?;
    }
    let broken: BTreeSet<Name> =
        { broken_views(session).await? }.difference(&before).cloned().collect();
    let mut notice = match told.back.is_empty() && told.dropped.is_empty() {
        true => format!("nothing else has changed since version {}", then.number),
        false => format!("as version {} had them: {}", then.number, shown(&told.back)),
    };
    if !told.dropped.is_empty() {
        notice.push_str(&format!("; dropped, for they came later: {}", shown(&told.dropped)));
    }
    notice.push_str(&format!("; version {} is kept", newest.number));
    if !broken.is_empty() {
        let broken = shown(&broken);
        notice.push_str(&format!("; views that want what is not there any more: {broken}"));
    }
    if then.erasures() < newest.erasures() {
        notice.push_str("; records that were erased since stay hidden, and the next upkeep or `clientele compact` takes them out");
    }
    if !left.stays.is_empty() {
        let stays = shown(&left.stays);
        notice.push_str(&format!("; left as they are, for who was erased is in what they were: {stays} (REFRESH computes them)"));
    }
    if !left.is_lost.is_empty() {
        let lost = shown(&left.is_lost);
        notice.push_str(&format!(
            "; not brought back, for who was erased is in them: {lost} (CREATE computes them anew)"
        ));
    }
    Ok(Outcome::Noticed { tag: "RESTORE".to_owned(), notice })
}

/// Views that want what is not there.
async fn broken_views(session: &Session) -> Result<BTreeSet<Name>> {
    // Of the catalogues every view is described.
    Ok(Box::pin(session.planning("SELECT * FROM pg_views", &[])).await?.broken_views())
}

/// What a user should know of a group.
#[derive(Default)]
struct Told {
    back: BTreeSet<Name>,
    dropped: BTreeSet<Name>,
}

impl Told {
    /// Of the names in these states.
    fn of(group: &Group, states: &[&Generation]) -> Self {
        let mut told = Self::default();
        // A graph is told of as one.
        let is_of_graph = |name: &Name| states.iter().any(|state| state.is_of_graph(name));
        let known = |name: &Name| match is_of_graph(name) {
            true => graph(name),
            false => name.clone(),
        };
        told.back.extend(group.tables.iter().map(|table| known(&table.name)));
        for (name, change) in &group.names {
            // A report is the table of its rows, and what is kept about it.
            let of_report = (name.schema == REPORTS).then(|| Name::of_note(name)).flatten();
            match change {
                Change::Set(Relation::Note(_)) => told.back.extend(of_report),
                Change::Set(_) => _ = told.back.insert(known(name)),
                Change::Dropped => told.dropped.extend(of_report.or_else(|| {
                    let is_note = serde_json::from_str::<serde_json::Value>(&name.table).is_ok();
                    (!is_note).then(|| known(name))
                })),
            }
        }
        told.dropped = told.dropped.difference(&told.back).cloned().collect();
        told
    }
}

/// The name of a graph, by one in its schema.
fn graph(name: &Name) -> Name {
    Name::new(DEFAULT_SCHEMA, name.schema.clone())
}

/// Some names, and how many more there are.
fn shown(names: &BTreeSet<Name>) -> String {
    const MOST: usize = 10;
    let mut shown: Vec<String> = names.iter().take(MOST).map(ToString::to_string).collect();
    if names.len() > MOST {
        shown.push(format!("and {} more", names.len() - MOST));
    }
    match shown.is_empty() {
        true => "nothing".to_owned(),
        false => shown.join(", "),
    }
}

async fn some(
    session: &Session,
    newest: &Generation,
    then: &Generation,
    tables: &[Name],
) -> Result<Group> {
    let mut group = Group::default();
    for name in tables.iter().collect::<BTreeSet<_>>() {
        super::execute::refuse_reserved(name)?;
        // What the tables of a graph say of each other, and what a report knows of its rows, holds for all of it at one time.
        newest.refuse_rows(name)?;
        then.refuse_rows(name)?;
        if then.table(name).is_none() {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("there was no table \"{name}\" at version {}", then.number),
            )
            .hint("SELECT * FROM system.versions shows versions and what they changed"));
        }
        if newest.relations.get(name).is_some_and(|now| !is_table_of(now, then, name)) {
            return Err(Error::new(
                Kind::DuplicateTable,
                format!("another relation has the name \"{name}\" now"),
            )
            .hint("drop it first"));
        }
        group.tables.extend(change(session, newest, then, name).await?);
    }
    Ok(group)
}

/// Whether a relation is the table that had a name then.
fn is_table_of(relation: &Relation, then: &Generation, name: &Name) -> bool {
    let path = then.table(name).map(|def| &def.path);
    matches!(relation, Relation::Table(now) if Some(&now.path) == path)
}

/// Reports and graphs whose rows of then may be of somebody who was erased: rows that are nobody's records, so that they would not be
/// hidden.
#[derive(Default)]
struct Left {
    /// They stay as they are now; a graph that was dropped comes back without what it knew.
    stays: BTreeSet<Name>,
    /// They were dropped since.
    is_lost: BTreeSet<Name>,
}

impl Left {
    async fn find(session: &Session, newest: &Generation, then: &Generation) -> Result<Self> {
        let warehouse = session.engine().warehouse();
        let mut left = Self::default();
        for name in then.relations.keys() {
            let is_map = then.is_of_graph(name) && name.table == MAP;
            if !is_map && !then.is_report(name)
                || is_since_erasures(warehouse, name, then, newest).await?
            {
                continue;
            }
            match (is_map, newest.is_report(name)) {
                (true, _) => left.stays.insert(graph(name)),
                (false, true) => left.stays.insert(name.clone()),
                (false, false) => left.is_lost.insert(name.clone()),
            };
        }
        Ok(left)
    }

    /// The report that a name is of: of its rows, of what is kept about it, or the view of an audience.
    fn report_of(&self, name: &Name) -> Name {
        let known = |of: &Name| self.stays.contains(of) || self.is_lost.contains(of);
        match Name::of_note(name) {
            Some(of) if name.schema == REPORTS || *name == Progress::note(&of) => of,
            _ if known(&history_of(name)) => history_of(name),
            _ => name.clone(),
        }
    }

    /// Whether what a name means now stays.
    fn stays(&self, name: &Name, newest: &Generation, then: &Generation) -> bool {
        if then.is_of_graph(name) && self.stays.contains(&graph(name)) {
            // What a graph was made from comes back; what it knew does not.
            let is_graph = matches!(then.relations.get(name), Some(Relation::Graph(_)));
            return newest.is_of_graph(name) || !is_graph;
        }
        self.stays.contains(&self.report_of(name))
    }
}

/// Every relation but those that the warehouse keeps about itself: who was erased stays erased. Reports and graphs that do not go back,
/// for the same reason, are named.
async fn everything(
    session: &Session,
    newest: &Generation,
    then: &Generation,
) -> Result<(Group, Left)> {
    let mut group = Group::default();
    let left = Left::find(session, newest, then).await?;
    let is_own = |name: &Name| {
        ["system", "reports", "cron"].contains(&name.schema.as_str())
            || left.stays(name, newest, then)
    };
    let is_lost = |name: &Name| left.is_lost.contains(&left.report_of(name));
    for (name, relation) in then.relations.iter().filter(|(name, _)| !is_own(name)) {
        match relation {
            _ if is_lost(name) => {}
            Relation::Table(_) => group.tables.extend(change(session, newest, then, name).await?),
            other if newest.relations.get(name) != Some(other) => {
                group.names.insert(name.clone(), Change::Set(other.clone()));
            }
            _ => {}
        }
    }
    for name in newest.relations.keys().filter(|name| !is_own(name)) {
        if !then.relations.contains_key(name) || is_lost(name) {
            group.names.insert(name.clone(), Change::Dropped);
        }
    }
    Ok((group, left))
}

/// How a table goes back; `None` when it is as it was.
async fn change(
    session: &Session,
    newest: &Generation,
    then: &Generation,
    name: &Name,
) -> Result<Option<TableChange>> {
    let warehouse = session.engine().warehouse();
    let Some(def) = then.table(name) else { return Ok(None) };
    // A folder may be that of a later table of the same name.
    let content = |def: &TableDef| (def.path.clone(), def.version, def.holding.content.clone());
    if newest.table(name).map(content) == Some(content(def)) {
        return Ok(None);
    }
    let when = format!("version {}", then.number);
    let hinted = |error: Error| match error.kind() {
        Kind::UndefinedTable => {
            error.hint("past versions stay for storage.keep_days, or until an erasure NOW")
        }
        _ => error,
    };
    held_then(warehouse, (name, def), then, newest, &when).await.map_err(hinted)?;
    let mut change = TableChange::append(name.clone(), def.path.clone(), vec![]);
    change.is_new = newest.relations.get(name).is_none_or(|now| !is_table_of(now, then, name));
    change.takes_name = change.is_new && newest.relations.contains_key(name);
    change.restore = Some(RestoreVersion { version: def.version, from: None });
    Ok(Some(change))
}
