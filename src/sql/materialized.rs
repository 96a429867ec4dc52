//! Materialized views as statements: CREATE, ALTER, DROP, REFRESH and CANCEL REFRESH.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike, NaiveDate, Utc};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::execute::{Frozen, freeze, plan, refuse_reserved, relations_read, shown_schema};
use super::refresh::{self, with_day};
use super::statement::{Words, syntax};
use super::{Outcome, create_function, past, volatile};
use crate::dialect::{parse_query, quoted};
use crate::error::{Error, Kind, Result};
use crate::ingest::model;
use crate::report::{
    Assertion, Mode, Progress, Report, Schedule, Settings, Step, audience_of, day_before,
    history_of,
};
use crate::session::Session;
use crate::store::{
    Change, Generation, Group, Name, REPORTS, Relation, TableChange, ViewDef, stored_schema,
};

/// Column that tells the days of a report apart that keeps them all.
pub(super) const AS_OF: &str = "as_of";

/// A statement about materialized views.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportStatement {
    /// CREATE MATERIALIZED VIEW.
    Create(Create),
    /// ALTER MATERIALIZED VIEW.
    Alter {
        /// The view.
        name: Name,
        /// Whether nothing happens when it is not there.
        if_exists: bool,
        /// What becomes of it.
        change: Alteration,
    },
    /// DROP MATERIALIZED VIEW.
    Drop {
        /// The views.
        names: Vec<Name>,
        /// Whether those that are not there are left out.
        if_exists: bool,
        /// Whether views that read them go too.
        cascade: bool,
        /// Whether they keep audiences, whose views go with them.
        is_audience: bool,
    },
    /// REFRESH MATERIALIZED VIEW.
    Refresh(Refresh),
    /// CANCEL REFRESH.
    Cancel(Name),
}

/// CREATE MATERIALIZED VIEW.
#[derive(Debug, Clone, PartialEq)]
pub struct Create {
    name: Name,
    if_not_exists: bool,
    columns: Vec<String>,
    clauses: Clauses,
    query: String,
    with_data: bool,
}

/// What stands between the name and the query.
#[derive(Debug, Clone, Default, PartialEq)]
struct Clauses {
    schedule: Schedule,
    timezone: Option<String>,
    settings: Settings,
    depends_on: Vec<Name>,
    assertions: Vec<Assertion>,
    export: Option<String>,
}

/// What ALTER MATERIALIZED VIEW does.
#[derive(Debug, Clone, PartialEq)]
pub enum Alteration {
    /// Holds its schedule.
    Suspend,
    /// Lets it go on.
    Resume,
    /// Gives it another one, and its zone where that is said.
    Schedule(Schedule, Option<String>),
    /// Changes settings.
    Settings(Vec<(String, String)>),
}

/// REFRESH MATERIALIZED VIEW.
#[derive(Debug, Clone, PartialEq)]
pub struct Refresh {
    /// The view.
    pub name: Name,
    /// Which days.
    pub days: Days,
    /// Whether the statement waits for the end.
    pub waits: bool,
    /// Whether its rows go instead: WITH NO DATA.
    pub empties: bool,
}

/// The days that a refresh computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Days {
    /// The session's as_of, else the last one that is over.
    Last,
    /// One.
    Of(NaiveDate),
    /// Every period from one to another.
    Between(NaiveDate, NaiveDate, Option<Step>),
}

/// Where the name begins behind `MATERIALIZED VIEW`, or behind `AUDIENCE`.
fn behind_kind(words: &Words) -> usize {
    if is_about_audience(words) { 2 } else { 3 }
}

/// Whether a statement is about an audience.
pub(super) fn is_about_audience(words: &Words) -> bool {
    words.peek_upper(1) == "AUDIENCE"
}

/// Reads CREATE MATERIALIZED VIEW, or CREATE AUDIENCE.
pub(super) fn parse_create(tokens: &[TokenWithSpan]) -> Result<ReportStatement> {
    const FORM: &str = "CREATE MATERIALIZED VIEW [IF NOT EXISTS] name [SCHEDULE ...] [WITH (...)] [DEPENDS ON ...] [ASSERT ...] AS query";
    let words = Words::new(tokens);
    let is_audience = is_about_audience(&words);
    let mut at = behind_kind(&words);
    let is = |at: usize, expected: &[&str]| {
        expected.iter().enumerate().all(|(i, word)| words.peek_upper(at + i) == *word)
    };
    let if_not_exists = is(at, &["IF", "NOT", "EXISTS"]);
    if if_not_exists {
        at += 3;
    }
    let (name, next) = words.name_at(at)?;
    at = next;
    let mut columns = Vec::new();
    if words.token(at) == Some(&Token::LParen) {
        loop {
            match words.token(at + 1) {
                Some(Token::Word(_)) => columns.push(words.peek_text(at + 1)),
                _ => return Err(syntax(&words, at + 1, "names of columns in brackets")),
            }
            at += 2;
            match words.token(at) {
                Some(Token::Comma) => {}
                Some(Token::RParen) => break,
                _ => return Err(syntax(&words, at, "names of columns in brackets")),
            }
        }
        at += 1;
    }
    let (mut clauses, next) = parse_clauses(&words, at)?;
    if is_audience {
        if !columns.is_empty() {
            return Err(syntax(&words, at, "an audience has the column one_id"));
        }
        clauses.settings = clauses.settings.of_audience()?;
    }
    if words.peek_upper(next) != "AS" {
        return Err(syntax(&words, next, FORM));
    }
    let mut end = words.len();
    let mut with_data = true;
    for (tail, fills) in [(&["WITH", "NO", "DATA"][..], false), (&["WITH", "DATA"][..], true)] {
        let from = end.saturating_sub(tail.len());
        if from > next && is(from, tail) {
            (end, with_data) = (from, fills);
            break;
        }
    }
    if is_audience && !with_data {
        return Err(Error::not_supported("an audience has its members when it is made")
            .hint("leave WITH NO DATA out"));
    }
    let query = words.text_between(tokens, next + 1, end);
    if query.is_empty() {
        return Err(syntax(&words, next, FORM));
    }
    Ok(ReportStatement::Create(Create { name, if_not_exists, columns, clauses, query, with_data }))
}

/// Reads the clauses from a word on, and says where they end.
fn parse_clauses(words: &Words, mut at: usize) -> Result<(Clauses, usize)> {
    let mut clauses = Clauses::default();
    loop {
        match words.peek_upper(at).as_str() {
            "SCHEDULE" | "CRON" | "EVERY" | "AFTER" | "MANUAL" => {
                let (schedule, zone, next) = parse_schedule(words, at)?;
                (clauses.schedule, clauses.timezone, at) = (schedule, zone, next);
            }
            "WITH" => {
                let (pairs, next) = parse_settings(words, at + 1)?;
                for (name, value) in pairs {
                    clauses.settings.set(&name, &value).map_err(|e| e.at(words.place(at)))?;
                }
                at = next;
            }
            "DEPENDS" if words.peek_upper(at + 1) == "ON" => {
                let (names, next) = parse_names(words, at + 2)?;
                clauses.depends_on.extend(names);
                at = next;
            }
            "ASSERT" => {
                let (assertion, next) = parse_assertion(words, at + 1)?;
                clauses.assertions.push(assertion);
                at = next;
            }
            "ON" if words.peek_upper(at + 1) == "SUCCESS" => {
                let form = "ON SUCCESS EXPORT TO 'path'";
                match words.token(at + 4) {
                    Some(Token::SingleQuotedString(path))
                        if words.peek_upper(at + 2) == "EXPORT"
                            && words.peek_upper(at + 3) == "TO" =>
                    {
                        clauses.export = Some(path.clone());
                    }
                    _ => return Err(syntax(words, at + 2, form)),
                }
                at += 5;
            }
            _ => break,
        }
    }
    clauses.settings.check()?;
    Ok((clauses, at))
}

/// `[SCHEDULE] CRON '...' [AT TIME ZONE '...'] | EVERY '...' | AFTER LOAD t, ... | MANUAL`.
fn parse_schedule(words: &Words, at: usize) -> Result<(Schedule, Option<String>, usize)> {
    const FORM: &str = "SCHEDULE CRON '30 2 * * *' AT TIME ZONE 'Asia/Shanghai', EVERY '1 hour', AFTER LOAD table, or MANUAL";
    let at = if words.peek_upper(at) == "SCHEDULE" { at + 1 } else { at };
    let text = |at: usize| match words.token(at) {
        Some(Token::SingleQuotedString(text)) => Ok(text.clone()),
        _ => Err(syntax(words, at, FORM)),
    };
    let (schedule, mut next) = match words.peek_upper(at).as_str() {
        "CRON" => (Schedule::cron(&text(at + 1)?), at + 2),
        "EVERY" => (Schedule::every(&text(at + 1)?), at + 2),
        "MANUAL" => (Ok(Schedule::Manual), at + 1),
        "AFTER" if words.peek_upper(at + 1) == "LOAD" => {
            let (names, next) = parse_names(words, at + 2)?;
            (Ok(Schedule::AfterLoad(names)), next)
        }
        _ => return Err(syntax(words, at, FORM)),
    };
    let schedule = schedule.map_err(|error| error.at(words.place(at)))?;
    let mut zone = None;
    if words.peek_upper(next) == "AT" && words.peek_upper(next + 1) == "TIME" {
        if words.peek_upper(next + 2) != "ZONE" {
            return Err(syntax(words, next, FORM));
        }
        zone = Some(text(next + 3)?);
        next += 4;
    }
    Ok((schedule, zone, next))
}

/// `(name = value, ...)`.
fn parse_settings(words: &Words, mut at: usize) -> Result<(Vec<(String, String)>, usize)> {
    const FORM: &str = "(name = 'value', ...)";
    if words.token(at) != Some(&Token::LParen) {
        return Err(syntax(words, at, FORM));
    }
    let mut pairs = Vec::new();
    loop {
        let is_pair = matches!(words.token(at + 1), Some(Token::Word(_)))
            && words.peek_upper(at + 2) == "="
            && words.token(at + 3).is_some();
        if !is_pair {
            return Err(syntax(words, at + 1, FORM));
        }
        pairs.push((words.peek_text(at + 1), words.peek_text(at + 3)));
        at += 4;
        match words.token(at) {
            Some(Token::Comma) => {}
            Some(Token::RParen) => return Ok((pairs, at + 1)),
            _ => return Err(syntax(words, at, FORM)),
        }
    }
}

/// `a, b.c`, each with or without the word TABLE.
fn parse_names(words: &Words, mut at: usize) -> Result<(Vec<Name>, usize)> {
    let mut names = Vec::new();
    loop {
        let is_table =
            words.peek_upper(at) == "TABLE" && matches!(words.token(at + 1), Some(Token::Word(_)));
        let (name, next) = words.name_at(if is_table { at + 1 } else { at })?;
        names.push(name);
        if words.token(next) != Some(&Token::Comma) {
            return Ok((names, next));
        }
        at = next + 1;
    }
}

/// `['name'] CHECK (query)`.
fn parse_assertion(words: &Words, mut at: usize) -> Result<(Assertion, usize)> {
    const FORM: &str = "ASSERT 'name' CHECK (SELECT count(*) > 0 FROM staged)";
    let name = match words.token(at) {
        Some(Token::SingleQuotedString(name)) => {
            at += 1;
            Some(name.clone())
        }
        _ => None,
    };
    if words.peek_upper(at) != "CHECK" || words.token(at + 1) != Some(&Token::LParen) {
        return Err(syntax(words, at, FORM));
    }
    let Some(end) = words.closing(at + 1) else { return Err(syntax(words, at + 1, FORM)) };
    let sql = words.spelled(at + 2, end);
    let query = parse_query(&sql).map_err(|error| error.at(words.place(at + 2)))?;
    volatile::refuse_volatile(&query).map_err(|error| error.at(words.place(at + 2)))?;
    Ok((Assertion { name: name.unwrap_or_else(|| sql.clone()), sql }, end + 1))
}

/// Reads ALTER MATERIALIZED VIEW.
pub(super) fn parse_alter(words: &Words) -> Result<ReportStatement> {
    const FORM: &str =
        "ALTER MATERIALIZED VIEW name SUSPEND | RESUME | SET SCHEDULE ... | SET (name = value)";
    let first = behind_kind(words);
    let if_exists = words.peek_upper(first) == "IF" && words.peek_upper(first + 1) == "EXISTS";
    let (name, at) = words.name_at(if if_exists { first + 2 } else { first })?;
    let (change, end) = match words.peek_upper(at).as_str() {
        "SUSPEND" => (Alteration::Suspend, at + 1),
        "RESUME" => (Alteration::Resume, at + 1),
        "SET" if words.token(at + 1) == Some(&Token::LParen) => {
            let (pairs, end) = parse_settings(words, at + 1)?;
            (Alteration::Settings(pairs), end)
        }
        "SET" if words.peek_upper(at + 1) == "SCHEDULE" => {
            let (schedule, zone, end) = parse_schedule(words, at + 1)?;
            (Alteration::Schedule(schedule, zone), end)
        }
        _ => return Err(syntax(words, at, FORM)),
    };
    if end < words.len() {
        return Err(syntax(words, end, FORM));
    }
    let name = kept_as(words, name);
    Ok(ReportStatement::Alter { name, if_exists, change })
}

/// Reads DROP MATERIALIZED VIEW.
pub(super) fn parse_drop(words: &Words) -> Result<ReportStatement> {
    const FORM: &str = "DROP MATERIALIZED VIEW [IF EXISTS] name, ... [CASCADE | RESTRICT]";
    let first = behind_kind(words);
    let if_exists = words.peek_upper(first) == "IF" && words.peek_upper(first + 1) == "EXISTS";
    let (names, at) = parse_names(words, if if_exists { first + 2 } else { first })?;
    let cascade = words.peek_upper(at) == "CASCADE";
    let end = if cascade || words.peek_upper(at) == "RESTRICT" { at + 1 } else { at };
    if end < words.len() {
        return Err(syntax(words, end, FORM));
    }
    let names = names.into_iter().map(|name| kept_as(words, name)).collect();
    Ok(ReportStatement::Drop { names, if_exists, cascade, is_audience: is_about_audience(words) })
}

/// Reads CANCEL REFRESH.
pub(super) fn parse_cancel(words: &Words) -> Result<ReportStatement> {
    let (name, end) = words.name_at(2)?;
    if end < words.len() {
        return Err(syntax(words, end, "CANCEL REFRESH name"));
    }
    Ok(ReportStatement::Cancel(name))
}

/// The table that keeps what a statement names: of an audience, that of who came and went.
fn kept_as(words: &Words, name: Name) -> Name {
    if is_about_audience(words) { history_of(&name) } else { name }
}

/// Reads REFRESH MATERIALIZED VIEW.
pub(super) fn parse_refresh(words: &Words) -> Result<ReportStatement> {
    const FORM: &str = "REFRESH MATERIALIZED VIEW name [AS OF 'day' | FROM 'day' TO 'day' [STEP 'month']] [WAIT | NOWAIT]";
    // Readers are never in the way of a refresh, nor it in theirs: the word changes nothing.
    let first = behind_kind(words);
    let first = if words.peek_upper(first) == "CONCURRENTLY" { first + 1 } else { first };
    let (name, mut at) = words.name_at(first)?;
    let day = |at: usize| -> Result<(NaiveDate, usize)> {
        let at = if words.peek_upper(at) == "DATE" { at + 1 } else { at };
        let text = match words.token(at) {
            Some(Token::SingleQuotedString(text)) => text,
            _ => return Err(syntax(words, at, FORM)),
        };
        let day = text.parse().ok().filter(|day: &NaiveDate| (1..=9999).contains(&day.year()));
        let day = day.ok_or_else(|| {
            Error::new(Kind::InvalidDatetime, format!("'{text}' is no day"))
                .hint("a day of the years 1 to 9999 is written '2011-12-09'")
                .at(words.place(at))
        })?;
        Ok((day, at + 1))
    };
    let mut days = Days::Last;
    if words.peek_upper(at) == "AS" && words.peek_upper(at + 1) == "OF" {
        let (of, next) = day(at + 2)?;
        (days, at) = (Days::Of(of), next);
    } else if words.peek_upper(at) == "FROM" {
        let (from, next) = day(at + 1)?;
        if words.peek_upper(next) != "TO" {
            return Err(syntax(words, next, FORM));
        }
        let (to, mut next) = day(next + 1)?;
        let mut step = None;
        if words.peek_upper(next) == "STEP" {
            step = Some(
                Step::named(&words.peek_text(next + 1)).map_err(|e| e.at(words.place(next + 1)))?,
            );
            next += 2;
        }
        (days, at) = (Days::Between(from, to, step), next);
    }
    let waits = words.peek_upper(at) != "NOWAIT";
    if !waits || words.peek_upper(at) == "WAIT" {
        at += 1;
    }
    let mut empties = false;
    if words.peek_upper(at) == "WITH" {
        empties = words.peek_upper(at + 1) == "NO";
        at += if empties { 3 } else { 2 };
        if words.peek_upper(at - 1) != "DATA" {
            return Err(syntax(words, at, FORM));
        }
    }
    if at < words.len() {
        return Err(syntax(words, at, FORM));
    }
    let name = kept_as(words, name);
    Ok(ReportStatement::Refresh(Refresh { name, days, waits, empties }))
}

/// Runs a statement about materialized views.
pub(super) async fn run(session: &Session, statement: &ReportStatement) -> Result<Outcome> {
    match statement {
        ReportStatement::Create(create) => Box::pin(make(session, create)).await,
        ReportStatement::Alter { name, if_exists, change } => {
            alter(session, name, *if_exists, change).await
        }
        ReportStatement::Drop { names, if_exists, cascade, is_audience } => {
            drop(session, names, *if_exists, *cascade, *is_audience).await
        }
        ReportStatement::Refresh(refresh) => Box::pin(refresh::run(session, refresh)).await,
        ReportStatement::Cancel(name) => {
            let newest = session.engine().warehouse().newest().await?;
            let history = history_of(name);
            let kept = if newest.is_report(&history) { &history } else { name };
            Report::existing(&newest, kept)?;
            if session.engine().runs().cancel(kept) {
                return Ok(Outcome::Done("CANCEL REFRESH".to_owned()));
            }
            let notice = format!(
                "\"{name}\" is not being refreshed by this server, so there is nothing to cancel"
            );
            Ok(Outcome::Noticed { tag: "CANCEL REFRESH".to_owned(), notice })
        }
    }
}

/// Makes a report and, unless it was said otherwise, its first rows.
async fn make(session: &Session, create: &Create) -> Result<Outcome> {
    let is_audience = create.clauses.settings.mode == Mode::Audience;
    let tag = if is_audience { "CREATE AUDIENCE" } else { "CREATE MATERIALIZED VIEW" };
    // An audience is a view of those who are in it now; the table keeps who came and who went.
    let history = history_of(&create.name);
    let name = if is_audience { &history } else { &create.name };
    refuse_reserved(name)?;
    let warehouse = session.engine().warehouse();
    let newest = warehouse.newest().await?;
    let is_taken = [name, &create.name].into_iter().any(|n| newest.relations.contains_key(n));
    if is_taken {
        let problem = format!("relation \"{}\" already exists", create.name);
        if create.if_not_exists && newest.is_report(name) {
            return Ok(Outcome::Noticed {
                tag: tag.to_owned(),
                notice: format!("{problem}, skipping"),
            });
        }
        return Err(Error::new(Kind::DuplicateTable, problem));
    }
    let report = define(session, create, &newest).await?;
    let as_of = match session.settings().as_of() {
        Some(day) => day,
        None => day_before(Utc::now(), report.zone()),
    };
    // It is planned once now, so that a mistake is told to the one who makes it.
    let trial = session.engine().session(session.user());
    with_day(&trial, &report, as_of, as_of)?;
    let query = parse_query(&report.sql)?;
    let planned = plan(&trial, ast::Statement::Query(Box::new(query)), &report.sql, &[]).await?;
    let analyzed = planned.planning.analyzed(&planned.plan)?;
    let columns = shown_schema(&std::sync::Arc::new(analyzed.schema().as_arrow().clone()));
    let schema = refresh::stored_columns(&report, &stored_schema(&columns)?)?;
    let personal = model::personal_columns(&schema);
    let path = warehouse.prepare_table(name, &schema, &personal, None).await?;
    let made = async {
        refresh::check_assertions_can_be_asked(&trial, &report, &path).await?;
        let mut names = BTreeMap::from([
            (name.noted(REPORTS), report.noted()?),
            (Progress::note(name), Progress::default().noted()?),
        ]);
        let mut new_names = BTreeSet::new();
        if is_audience {
            let view = Change::Set(Relation::View(members_of(name)));
            names.insert(create.name.clone(), view);
            new_names.insert(create.name.clone());
        }
        let table = TableChange::create(name.clone(), path.clone(), vec![]);
        warehouse.publish(Group { names, new_names, ..Group::of(table) }).await
    };
    if let Err(error) = Box::pin(made).await {
        warehouse.delete_folders(&[path]).await?;
        return Err(error);
    }
    if !create.with_data {
        return Ok(Outcome::Done(tag.to_owned()));
    }
    let (engine, name) = (std::sync::Arc::clone(session.engine()), name.clone());
    let user = session.user().to_owned();
    let filled = refresh::in_own_task(|wanted| {
        Box::pin(async move {
            let filled = refresh::one_day(&engine, &name, as_of, &wanted).await;
            // One without its first rows is none, whatever kept them from it.
            if filled.is_err() {
                let session = engine.session(&user);
                drop(&session, std::slice::from_ref(&name), true, false, is_audience).await?;
            }
            filled
        })
    });
    let run = filled.await?;
    Ok(Outcome::Done(match is_audience {
        true => tag.to_owned(),
        false => format!("SELECT {}", run.rows),
    }))
}

/// The view of those who are in an audience now.
fn members_of(history: &Name) -> ViewDef {
    let table = format!("{}.{}", quoted(&history.schema), quoted(&history.table));
    let sql = format!("SELECT one_id FROM {table} WHERE removed_in IS NULL");
    ViewDef { sql, columns: vec![], timezone: None }
}

/// The definition of a report, with everything folded in that a session could change.
async fn define(session: &Session, create: &Create, newest: &Generation) -> Result<Report> {
    let settings = session.settings();
    let clauses = &create.clauses;
    let timezone = match &clauses.timezone {
        Some(zone) => zone_of(zone)?,
        None => settings.timezone(),
    };
    let mut query = parse_query(&create.query)?;
    create_function::expand(session, &mut query).await?;
    volatile::refuse_volatile(&query)?;
    past::refuse(&query)?;
    let frozen = Frozen {
        as_of: None,
        keeps_days: true,
        timezone: &timezone,
        dialect: &settings.funnel_dialect(),
    };
    freeze(&mut query, &frozen)?;
    let sql = match create.columns.is_empty() {
        true => query.to_string(),
        false => {
            let columns: Vec<String> = create.columns.iter().map(|c| quoted(c)).collect();
            format!("SELECT * FROM ({query}) AS __report ({})", columns.join(", "))
        }
    };
    // An audience is kept by its history.
    let kept_by = |name: &Name| {
        let history = history_of(name);
        if newest.is_report(&history) { history } else { name.clone() }
    };
    let mut depends_on: BTreeSet<Name> = clauses.depends_on.iter().map(kept_by).collect();
    for wanted in &depends_on {
        let is_there = newest.relations.contains_key(wanted);
        if !is_there {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("DEPENDS ON {wanted}: relation \"{wanted}\" does not exist"),
            ));
        }
    }
    // What it reads it depends on, said or not.
    let read = read_through_views(newest, relations_read(&sql));
    let reads = read.iter().filter(|name| newest.relations.contains_key(*name)).cloned().collect();
    depends_on = read_through_views(newest, depends_on);
    depends_on.extend(read.iter().map(kept_by).filter(|name| newest.is_report(name)));
    check_tables(&clauses.schedule, newest)?;
    if let Some(path) = &clauses.export {
        super::export::check(session.engine().config(), path)?;
    }
    Ok(Report {
        sql,
        written: create.query.clone(),
        schedule: clauses.schedule.clone(),
        timezone,
        settings: clauses.settings.clone(),
        depends_on: depends_on.into_iter().collect(),
        reads,
        assertions: clauses.assertions.clone(),
        export: clauses.export.clone(),
        owner: session.user().to_owned(),
        scheduled_at_us: Utc::now().timestamp_micros(),
        resumed_at_us: 0,
        is_suspended: false,
    })
}

/// Relations, and those that the views among them read.
fn read_through_views(state: &Generation, names: BTreeSet<Name>) -> BTreeSet<Name> {
    let mut all = names;
    loop {
        let views = all.iter().filter_map(|name| match state.relations.get(name)? {
            Relation::View(view) => Some(relations_read(&view.sql)),
            _ => None,
        });
        let found: BTreeSet<Name> = views.flatten().collect();
        let before = all.len();
        all.extend(found);
        if all.len() == before {
            return all;
        }
    }
}

/// Refuses to wait for loads into what is no table.
fn check_tables(schedule: &Schedule, state: &Generation) -> Result<()> {
    let Schedule::AfterLoad(tables) = schedule else { return Ok(()) };
    let is_table = |name: &&Name| state.table(name).is_some() && !state.is_report(name);
    let Some(other) = tables.iter().find(|name| !is_table(name)) else { return Ok(()) };
    Err(match state.relations.get(other) {
        None => Error::new(
            Kind::UndefinedTable,
            format!("AFTER LOAD {other}: table \"{other}\" does not exist"),
        ),
        Some(_) if state.is_report(other) => Error::new(
            Kind::WrongObjectType,
            format!(
                "AFTER LOAD {other}: that is a materialized view, which nothing is loaded into"
            ),
        )
        .hint("DEPENDS ON waits for it"),
        Some(_) => Error::new(
            Kind::WrongObjectType,
            format!("AFTER LOAD {other}: that is no table, and nothing is loaded into it"),
        )
        .hint("name the tables that it reads"),
    })
}

fn zone_of(name: &str) -> Result<String> {
    let known = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name));
    known.map(|zone| zone.name().to_owned()).ok_or_else(|| {
        Error::new(Kind::InvalidParameter, format!("AT TIME ZONE '{name}': there is no such zone"))
            .hint("an IANA time zone such as 'Asia/Shanghai' or 'UTC'")
    })
}

async fn alter(
    session: &Session,
    name: &Name,
    if_exists: bool,
    change: &Alteration,
) -> Result<Outcome> {
    const TAG: &str = "ALTER MATERIALIZED VIEW";
    let warehouse = session.engine().warehouse();
    if if_exists && !warehouse.newest().await?.is_report(name) {
        let notice = format!("materialized view \"{name}\" does not exist, skipping");
        return Ok(Outcome::Noticed { tag: TAG.to_owned(), notice });
    }
    warehouse
        .publish_names(|state| {
            let mut report = Report::existing(state, name)?;
            // How far it has come is its runs' to say; what is said by hand is in its definition.
            match change {
                Alteration::Suspend => report.is_suspended = true,
                Alteration::Resume => {
                    report.is_suspended = false;
                    report.resumed_at_us = Utc::now().timestamp_micros();
                }
                Alteration::Schedule(schedule, zone) => {
                    report.schedule = schedule.clone();
                    if let Some(zone) = zone {
                        report.timezone = zone_of(zone)?;
                    }
                    check_tables(&report.schedule, state)?;
                    report.scheduled_at_us = Utc::now().timestamp_micros();
                }
                Alteration::Settings(pairs) => {
                    let (mode, time) = (report.settings.mode, report.settings.time.clone());
                    for (setting, value) in pairs {
                        report.settings.set(setting, value)?;
                    }
                    report.settings.check()?;
                    if report.settings.mode != mode || report.settings.time != time {
                        return Err(Error::not_supported(
                            "the mode and the time of a materialized view stay",
                        )
                        .hint("its columns and rows are those of its mode: DROP and CREATE it"));
                    }
                }
            }
            Ok(BTreeMap::from([(name.noted(REPORTS), report.noted()?)]))
        })
        .await?;
    Ok(Outcome::Done(TAG.to_owned()))
}

async fn drop(
    session: &Session,
    names: &[Name],
    if_exists: bool,
    cascade: bool,
    is_audience: bool,
) -> Result<Outcome> {
    let mut missing = Vec::new();
    let warehouse = session.engine().warehouse();
    warehouse
        .publish_names(|state| {
            missing.clear();
            let mut changes = BTreeMap::new();
            for name in names {
                match Report::existing(state, name) {
                    Ok(report) => {
                        let keeps_audience = report.settings.mode == Mode::Audience;
                        if keeps_audience != is_audience {
                            return Err(other_kind(name, keeps_audience));
                        }
                        changes.extend(gone(name));
                        if is_audience {
                            changes.insert(audience_of(name), Change::Dropped);
                        }
                    }
                    Err(error) if if_exists && error.kind() == Kind::UndefinedTable => {
                        missing.push(name.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
            super::execute::drop_dependents(state, &mut changes, cascade)?;
            Ok(changes)
        })
        .await?;
    for name in names {
        session.engine().runs().cancel(name);
    }
    let tag = match is_audience {
        true => "DROP AUDIENCE".to_owned(),
        false => "DROP MATERIALIZED VIEW".to_owned(),
    };
    if missing.is_empty() {
        return Ok(Outcome::Done(tag));
    }
    let notice =
        format!("materialized view \"{}\" does not exist, skipping", missing.join("\", \""));
    Ok(Outcome::Noticed { tag, notice })
}

/// The refusal of a statement about the other kind.
fn other_kind(name: &Name, keeps_audience: bool) -> Error {
    let (what, hint) = match keeps_audience {
        true => ("keeps an audience", "DROP AUDIENCE drops it, under its own name"),
        false => ("is no audience", "DROP MATERIALIZED VIEW drops it"),
    };
    Error::new(Kind::WrongObjectType, format!("\"{name}\" {what}")).hint(hint)
}

/// What goes with a report.
fn gone(name: &Name) -> [(Name, Change); 3] {
    [name.clone(), name.noted(REPORTS), Progress::note(name)].map(|name| (name, Change::Dropped))
}

/// Whether the rows of a mode are told apart by a column, and which.
pub(super) fn key_of(report: &Report) -> Option<&str> {
    match report.settings.mode {
        Mode::Replace | Mode::Audience => None,
        Mode::Snapshot => Some(AS_OF),
        Mode::Incremental => report.settings.time.as_deref(),
    }
}

/// The text of a file's header and query as one statement: comment lines in the grammar of the clauses, then the query.
///
/// Lines of other words, such as those about columns, are for people.
pub(super) fn statement_of_file(name: &Name, text: &str) -> String {
    const CLAUSES: [&str; 5] = ["schedule", "with", "depends", "assert", "on"];
    let mut clauses = Vec::new();
    let mut query = String::new();
    for line in text.lines() {
        match line.strip_prefix("--") {
            Some(comment) if query.trim().is_empty() => {
                let comment = comment.trim();
                let word = comment.split_whitespace().next().unwrap_or_default().to_lowercase();
                if CLAUSES.contains(&word.as_str()) {
                    clauses.push(comment.to_owned());
                }
            }
            _ => {
                query.push_str(line);
                query.push('\n');
            }
        }
    }
    let query = query.trim().trim_end_matches(';');
    format!(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS {}.{}\n{}\nAS\n{query}\nWITH NO DATA",
        quoted(&name.schema),
        quoted(&name.table),
        clauses.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::super::statement::{Statement, parse};
    use super::*;

    fn read(sql: &str) -> ReportStatement {
        match parse(sql).unwrap().remove(0).statement {
            Statement::Report(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_clause_is_read() {
        let sql = "CREATE MATERIALIZED VIEW IF NOT EXISTS crm.rfm_daily (a, \"B\")
            SCHEDULE CRON '10 2 * * *' AT TIME ZONE 'asia/shanghai'
            WITH (catchup = 'all', retries = 3, mode = replace, jitter = '2min')
            DEPENDS ON crm.oneid_daily, TABLE orders
            ASSERT 'row count' CHECK (SELECT count(*) > (0) FROM staged)
            ON SUCCESS EXPORT TO 'exports/rfm_{as_of}.csv'
            AS SELECT a,  b AS c -- why
              FROM t WITH NO DATA";
        let ReportStatement::Create(create) = read(sql) else { panic!("a CREATE") };
        assert_eq!(create.name, Name::new("crm", "rfm_daily"));
        assert_eq!(create.columns, ["a", "B"]);
        assert!(create.if_not_exists && !create.with_data);
        let clauses = &create.clauses;
        assert_eq!(clauses.schedule, Schedule::Cron("10 2 * * *".to_owned()));
        assert_eq!(clauses.timezone.as_deref(), Some("asia/shanghai"));
        assert_eq!(
            clauses.depends_on,
            [Name::new("crm", "oneid_daily"), Name::new("public", "orders")]
        );
        assert_eq!(clauses.assertions[0].name, "row count");
        assert_eq!(clauses.export.as_deref(), Some("exports/rfm_{as_of}.csv"));
        assert!(create.query.starts_with("SELECT a,  b AS c"), "{}", create.query);
        assert!(create.query.trim_end().ends_with("FROM t"), "{}", create.query);
    }

    #[test]
    fn texts_and_names_stay_what_they_were() {
        let query = "SELECT 'it''s', E'a\\'b', $$it's$$, 'a'' , ''b' AS \"Kunde \"\"x\"\"\" FROM t";
        let sql = format!(
            "CREATE MATERIALIZED VIEW r ASSERT 'x''y' CHECK (SELECT max(s) = 'it''s' FROM staged) AS {query}"
        );
        let ReportStatement::Create(create) = read(&sql) else { panic!("a CREATE") };
        assert_eq!(parse_query(&create.query).unwrap(), parse_query(query).unwrap());
        let assertion = &create.clauses.assertions[0];
        assert_eq!(assertion.name, "x'y");
        assert_eq!(
            parse_query(&assertion.sql).unwrap(),
            parse_query("SELECT max(s) = 'it''s' FROM staged").unwrap()
        );
    }

    #[test]
    fn refreshes_are_read() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let ReportStatement::Refresh(refresh) = read(
            "REFRESH MATERIALIZED VIEW CONCURRENTLY r FROM '2011-01-01' TO DATE '2011-12-01' STEP 'month' NOWAIT",
        ) else {
            panic!("a REFRESH")
        };
        assert_eq!(
            refresh.days,
            Days::Between(day("2011-01-01"), day("2011-12-01"), Some(Step::Month))
        );
        assert!(!refresh.waits && !refresh.empties);
        let ReportStatement::Refresh(refresh) =
            read("REFRESH MATERIALIZED VIEW r AS OF '2011-12-09'")
        else {
            panic!("a REFRESH")
        };
        assert_eq!((refresh.days, refresh.waits), (Days::Of(day("2011-12-09")), true));
        for wrong in [
            "REFRESH MATERIALIZED VIEW r AS OF yesterday",
            "CREATE MATERIALIZED VIEW r SELECT 1",
            "CREATE MATERIALIZED VIEW r SCHEDULE CRON AS SELECT 1",
            "ALTER MATERIALIZED VIEW r RENAME TO s",
            "DROP MATERIALIZED VIEW r s",
        ] {
            assert_eq!(parse(wrong).unwrap_err().sqlstate(), "42601", "{wrong}");
        }
        assert_eq!(
            parse("CREATE MATERIALIZED VIEW r SCHEDULE CRON 'x' AS SELECT 1")
                .unwrap_err()
                .sqlstate(),
            "22023"
        );
    }

    #[test]
    fn a_file_is_a_statement() {
        let text = "-- grain   one row per customer\n-- schedule CRON '30 2 * * *' AT TIME ZONE 'UTC'\n-- depends on a\n-- with   (mode = 'snapshot')\n-- m  DECIMAL  money\nSELECT 1 AS m -- a comment\nFROM t;\n";
        let sql = statement_of_file(&Name::new("public", "r"), text);
        let ReportStatement::Create(create) = read(&sql) else { panic!("a CREATE") };
        assert_eq!(create.clauses.settings.mode, Mode::Snapshot);
        assert_eq!(create.clauses.depends_on, [Name::new("public", "a")]);
        assert!(create.if_not_exists && !create.with_data);
        assert!(!matches!(create.clauses.schedule, Schedule::Manual));
    }
}
