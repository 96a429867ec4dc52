//! Runs of reports: the query over one published state, its rows staged and asserted, then published in one moment.
//!
//! Whatever happens before that moment leaves the report as it was: what a run has written is named by no log yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Date32Array, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, Schema, SchemaRef};
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::execute::{Planned, fill_all, plan, shown_schema};
use super::export;
use super::materialized::{AS_OF, Days, Refresh, key_of};
use crate::dialect::{parse_query, quoted};
use crate::error::{Error, Kind, Result};
use crate::report::{
    self, Backfill, FIRST_DAY, Mode, Progress, Report, Run, Schedule, Trigger, day_before, periods,
};
use crate::session::stop::Stop;
use crate::session::{Engine, RunPlace, Session};
use crate::store::{
    FileEntry, Generation, Group, Holding, Lease, Name, Replaced, TableChange, TableDef,
    TableSnapshot, WrittenFile, stored_schema, system,
};

/// The relation that assertions are asked of.
const STAGED: &str = "staged";

/// What a run is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    /// What started it.
    pub(super) trigger: Trigger,
    /// Its slot; none when somebody asked for it.
    pub(super) slot: Option<DateTime<Utc>>,
    /// The day that it speaks for.
    pub(super) as_of: NaiveDate,
    /// First day of its period, where that is not the report's own affair.
    pub(super) from: Option<NaiveDate>,
    /// The right to run what is due; none when somebody asked for it.
    pub(super) lease: Option<Lease>,
}

/// REFRESH MATERIALIZED VIEW.
pub(super) async fn run(session: &Session, refresh: &Refresh) -> Result<Outcome> {
    const TAG: &str = "REFRESH MATERIALIZED VIEW";
    let engine = session.engine();
    let name = &refresh.name;
    let newest = engine.warehouse().newest().await?;
    let report = Report::existing(&newest, name)?;
    if refresh.empties {
        if report.settings.mode == Mode::Audience {
            return Err(Error::not_supported("an audience keeps who came and who went")
                .hint("DROP AUDIENCE drops it; one of nobody has a query of nobody"));
        }
        empty(engine, name).await?;
        return Ok(Outcome::Done(TAG.to_owned()));
    }
    let days = match refresh.days {
        Days::Last => Days::Of(match session.settings().as_of() {
            Some(day) => day,
            None => day_before(Utc::now(), report.zone()),
        }),
        days => days,
    };
    // What is wrong with the question is told at once.
    if let Days::Between(from, to, step) = days {
        backfill_periods(&report, name, from, to, step)?;
    }
    if !refresh.waits {
        let (engine, owned) = (Arc::clone(engine), name.clone());
        let expected = engine.runs().expect();
        tokio::spawn(async move {
            let _expected = expected;
            let wanted = CancellationToken::new();
            if let Err(error) = Box::pin(compute_days(&engine, &owned, days, &wanted)).await {
                tracing::warn!(report = %owned, code = error.sqlstate(), "a refresh failed");
            }
        });
        let notice =
            format!("the refresh of \"{name}\" has begun; reports.status and reports.runs show it");
        return Ok(Outcome::Noticed { tag: TAG.to_owned(), notice });
    }
    let (held, owned) = (Arc::clone(engine), name.clone());
    let told = in_own_task(|wanted| {
        Box::pin(async move { compute_days(&held, &owned, days, &wanted).await })
    });
    Ok(match told.await? {
        Some(notice) => Outcome::Noticed { tag: TAG.to_owned(), notice },
        None => Outcome::Done(TAG.to_owned()),
    })
}

/// `work` as a task of its own, which comes to a good end also when nobody waits for this statement any more: then the token that it
/// is given is cancelled.
pub(super) async fn in_own_task<T: Send + 'static>(
    work: impl FnOnce(CancellationToken) -> BoxFuture<'static, Result<T>>,
) -> Result<T> {
    let wanted = CancellationToken::new();
    let gone = wanted.clone().drop_guard();
    let ended = tokio::spawn(Stop::default().over(work(wanted))).await;
    gone.disarm();
    ended.map_err(|_| Error::internal("the run stopped unexpectedly"))?
}

/// A place among the runs, as long as it is `wanted`.
async fn enter(
    engine: &Arc<Engine>,
    name: &Name,
    day: NaiveDate,
    wanted: &CancellationToken,
) -> Result<RunPlace> {
    let place = tokio::select! {
        place = engine.runs().enter(name, day) => place,
        () = wanted.cancelled() => {
            return Err(Error::new(Kind::Cancelled, "the refresh was cancelled"));
        }
    };
    place.is_wanted_by(wanted);
    Ok(place)
}

/// Computes the days that somebody asked for; says what there is to say.
async fn compute_days(
    engine: &Arc<Engine>,
    name: &Name,
    days: Days,
    wanted: &CancellationToken,
) -> Result<Option<String>> {
    match days {
        Days::Between(from, to, step) => {
            let place = enter(engine, name, from, wanted).await?;
            backfill(engine, name, (from, to, step), &place).await.map(Some)
        }
        Days::Of(as_of) => one_day(engine, name, as_of, wanted).await.map(|_| None),
        Days::Last => Err(Error::internal("the last day is a day")),
    }
}

/// Computes one day, for somebody who waits for it.
pub(super) async fn one_day(
    engine: &Arc<Engine>,
    name: &Name,
    as_of: NaiveDate,
    wanted: &CancellationToken,
) -> Result<Run> {
    let place = enter(engine, name, as_of, wanted).await?;
    let ask = Ask { trigger: Trigger::Hand, slot: None, as_of, from: None, lease: None };
    run_once(engine, name, &ask, &place).await
}

fn backfill_periods(
    report: &Report,
    name: &Name,
    from: NaiveDate,
    to: NaiveDate,
    step: Option<report::Step>,
) -> Result<Vec<(NaiveDate, NaiveDate)>> {
    if matches!(report.settings.mode, Mode::Replace | Mode::Audience) {
        return Err(Error::new(
            Kind::NotInState,
            format!("materialized view \"{name}\" keeps one day only; FROM ... TO would leave the last one"),
        )
        .hint("WITH (mode = 'snapshot') keeps every day, mode = 'incremental' its periods; REFRESH ... AS OF computes one day"));
    }
    periods(report, from, to, step)
}

/// Computes every period, the oldest first; each is published by itself. One that was broken off goes on where it was.
async fn backfill(
    engine: &Arc<Engine>,
    name: &Name,
    (from, to, step): (NaiveDate, NaiveDate, Option<report::Step>),
    place: &RunPlace,
) -> Result<String> {
    let warehouse = engine.warehouse();
    let newest = warehouse.newest().await?;
    let report = Report::existing(&newest, name)?;
    let all = backfill_periods(&report, name, from, to, step)?;
    let before = Progress::of(&newest, name)?.backfill;
    let count = all.len();
    let is_same = |b: &Backfill| b.from == from && b.to == to && b.periods == count;
    let done = before.filter(is_same).map(|b| b.done);
    let left: Vec<_> =
        all.iter().filter(|(_, last)| done.is_none_or(|done| *last > done)).collect();
    let skipped = all.len() - left.len();
    for (at, (first, last)) in left.into_iter().enumerate() {
        place.goes_on(*last, (skipped + at) as u64, all.len() as u64);
        let ask = Ask {
            trigger: Trigger::Backfill,
            slot: None,
            as_of: *last,
            from: Some(*first),
            lease: None,
        };
        run_once(engine, name, &ask, place).await?;
        let done = (*last < to).then_some(Backfill { from, to, periods: count, done: *last });
        note_backfill(engine, name, done).await?;
    }
    note_backfill(engine, name, None).await?;
    let told = match skipped {
        0 => format!("{} periods computed", all.len()),
        n => format!("{} periods computed, {n} were there from before", all.len() - n),
    };
    let is_incremental = report.settings.mode == Mode::Incremental;
    let reached = Progress::of(warehouse.newest().await?.as_ref(), name)?.data_asof;
    Ok(match reached {
        Some(day) if is_incremental && day < from => {
            format!("{told}; the days between {day} and {from} are left to the next REFRESH")
        }
        None if is_incremental => {
            format!(
                "{told}; the days before {from} are left to the next REFRESH, which begins at the beginning"
            )
        }
        _ => told,
    })
}

async fn note_backfill(engine: &Engine, name: &Name, backfill: Option<Backfill>) -> Result<()> {
    engine
        .warehouse()
        .publish_names(|state| {
            let mut progress = Progress::of(state, name)?;
            if progress.backfill == backfill || !state.is_report(name) {
                return Ok(BTreeMap::new());
            }
            progress.backfill = backfill.clone();
            Ok(BTreeMap::from([(Progress::note(name), progress.noted()?)]))
        })
        .await?;
    Ok(())
}

/// Takes the rows away: WITH NO DATA. What was done by the clock stays done.
async fn empty(engine: &Engine, name: &Name) -> Result<()> {
    let warehouse = engine.warehouse();
    let _place = engine.runs().enter(name, FIRST_DAY).await;
    let newest = warehouse.newest().await?;
    let def = table_of(&newest, name)?;
    let progress = Progress::of(&newest, name)?.without_rows();
    let change = TableChange::replace(name.clone(), def.path, vec![]);
    let names = BTreeMap::from([(Progress::note(name), progress.noted()?)]);
    warehouse.publish(Group { names, ..Group::of(change) }).await?;
    Ok(())
}

/// One run, from its query to its row in `reports.runs`. A failure is written down too, and given back.
pub(super) async fn run_once(
    engine: &Arc<Engine>,
    name: &Name,
    ask: &Ask,
    place: &RunPlace,
) -> Result<Run> {
    let newest = engine.warehouse().newest().await?;
    let report = Report::existing(&newest, name)?;
    let progress = engine.runs().progress(&newest, name)?;
    let from = first_day(&report, &progress, ask);
    let seen_now = seen(&report, &newest);
    let meter = engine.runs().meter();
    let mut run = Run {
        id: uuid::Uuid::new_v4().to_string(),
        report: name.clone(),
        trigger: ask.trigger,
        slot: ask.slot,
        as_of: ask.as_of,
        from,
        attempt: progress.attempt + 1,
        outcome: report::Outcome::Succeeded,
        started: Utc::now(),
        ended: Utc::now(),
        rows: 0,
        bytes: 0,
        bytes_read: 0,
        peak_memory: 0,
        generation: newest.number,
        error: None,
        exported_to: None,
    };
    drop(newest);
    let stop = Stop::current().metered(&meter);
    let work = Box::pin(stage(engine, &report, &mut run, place));
    let staged = within(&report, place, &stop, work).await;
    run.peak_memory = meter.peak() as u64;
    run.ended = Utc::now();
    // What is to be published is published, whoever wants it stopped now: a run that has both happened and failed is nobody's wish.
    let done = match staged {
        Ok(staged) => {
            Box::pin(publish(engine, &report, ask, &mut run, &staged)).await.map(|()| staged.export)
        }
        Err(error) => Err(error),
    };
    let elapsed_ms = (run.ended - run.started).num_milliseconds();
    match done {
        Ok(export) => {
            tracing::info!(report = %name, as_of = %run.as_of, rows = run.rows, elapsed_ms, "refreshed");
            if let Some(file) = export {
                file.publish()
                    .map_err(|error| error.about("the rows are published, their file is not"))?;
            }
            Ok(run)
        }
        Err(error) => {
            tracing::warn!(report = %name, as_of = %run.as_of, code = error.sqlstate(), elapsed_ms, "a refresh failed");
            // What another server has taken over is for that one to run and to write down.
            if engine.warehouse().check_lease(ask.lease).await.is_ok() {
                write_failure(engine, &report, ask, run, (&error, seen_now), place).await;
            }
            Err(error)
        }
    }
}

/// `work` until it ends, its time is over, or somebody stops it.
async fn within<T>(
    report: &Report,
    place: &RunPlace,
    stop: &Stop,
    work: BoxFuture<'_, Result<T>>,
) -> Result<T> {
    let cancel = place.cancelled();
    let timeout_s = report.settings.timeout_s;
    let timeout = async {
        match timeout_s {
            0 => std::future::pending().await,
            seconds => tokio::time::sleep(Duration::from_secs(seconds)).await,
        }
    };
    tokio::select! {
        done = stop.over(work) => done,
        () = cancel.cancelled() => {
            Err(Error::new(Kind::Cancelled, "the refresh was cancelled"))
        }
        () = timeout => {
            Err(Error::new(Kind::Cancelled, format!("the refresh took longer than its timeout of {timeout_s} s")))
        }
    }
}

/// First day of the period of a run.
fn first_day(report: &Report, progress: &Progress, ask: &Ask) -> NaiveDate {
    let lookback = |day: NaiveDate| {
        let days = chrono::Days::new(u64::from(report.settings.lookback_days));
        day.checked_sub_days(days).unwrap_or(FIRST_DAY).max(FIRST_DAY)
    };
    match (ask.from, report.settings.mode, progress.data_asof) {
        (Some(from), ..) => from,
        (None, Mode::Incremental, None) => FIRST_DAY,
        // A day from before is computed again by itself.
        (None, Mode::Incremental, Some(day)) => {
            lookback(day.succ_opt().unwrap_or(day).min(ask.as_of))
        }
        (None, Mode::Replace | Mode::Snapshot | Mode::Audience, _) => ask.as_of,
    }
}

/// Gives a session the day, the period and the zone of a run.
pub(super) fn with_day(
    session: &Session,
    report: &Report,
    from: NaiveDate,
    as_of: NaiveDate,
) -> Result<()> {
    session.with_settings(|settings| {
        settings.set("as_of", Some(&as_of.to_string()))?;
        settings.set("report_from", Some(&from.to_string()))?;
        settings.set("TimeZone", Some(&report.timezone))?;
        settings.set("statement_timeout", Some("0"))
    })?;
    Ok(())
}

/// Columns of the table that keeps an audience: a member, and the versions in which it came and went.
fn columns_of_audience() -> SchemaRef {
    let column = |name| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(["one_id", "added_in", "removed_in"].map(column).to_vec()))
}

/// Columns of a report's table: its query's, with the day where every day is kept.
pub(super) fn stored_columns(report: &Report, query: &SchemaRef) -> Result<SchemaRef> {
    if report.settings.mode == Mode::Audience {
        let is_one = query.fields().len() == 1 && query.field(0).data_type().is_integer();
        return match is_one {
            true => Ok(columns_of_audience()),
            false => Err(Error::new(
                Kind::DatatypeMismatch,
                "the query of an audience gives one column, the one_id of its members as BIGINT",
            )
            .hint("CREATE AUDIENCE a AS SELECT one_id FROM ...")),
        };
    }
    let Some(key) = key_of(report) else { return Ok(Arc::clone(query)) };
    let found = query.fields().iter().find(|field| field.name() == key);
    match (found, report.settings.mode) {
        (Some(field), _) if *field.data_type() == DataType::Date32 => Ok(Arc::clone(query)),
        (Some(field), _) => Err(Error::new(
            Kind::DatatypeMismatch,
            format!(
                "column \"{key}\" tells the days of this materialized view apart and is no DATE but {}",
                field.data_type()
            ),
        )),
        (None, Mode::Snapshot) => {
            let day = Arc::new(Field::new(AS_OF, DataType::Date32, true));
            let fields = std::iter::once(day).chain(query.fields().iter().cloned());
            Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
        }
        (None, _) => Err(Error::new(
            Kind::UndefinedColumn,
            format!("time = '{key}': the query gives no such column"),
        )
        .detail(format!(
            "its columns: {}",
            query.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// Refuses a query whose columns are no longer those of the table.
fn unless_changed(table: &Schema, now: &Schema) -> Result<()> {
    let shown = |schema: &Schema| {
        let field = |f: &Arc<Field>| format!("{} {}", f.name(), f.data_type());
        schema.fields().iter().map(field).collect::<Vec<_>>().join(", ")
    };
    let is_same = table.fields().len() == now.fields().len()
        && table
            .fields()
            .iter()
            .zip(now.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
    if is_same {
        return Ok(());
    }
    Err(Error::new(
        Kind::DatatypeMismatch,
        "the query's columns are not those of the materialized view any more",
    )
    .detail(format!("they are {}; it has {}", shown(now), shown(table)))
    .hint("what it reads has changed: DROP and CREATE it, or mend the source"))
}

/// Computes the rows of a run and writes them where nobody sees them yet.
async fn stage(
    engine: &Arc<Engine>,
    report: &Report,
    run: &mut Run,
    place: &RunPlace,
) -> Result<Staged> {
    let warehouse = engine.warehouse();
    let session = engine.session(&report.owner);
    with_day(&session, report, run.from, run.as_of)?;
    let is_audience = report.settings.mode == Mode::Audience;
    let version = Progress::of(warehouse.newest().await?.as_ref(), &run.report)?.version + 1;
    let sql = match is_audience {
        true => members_and_changes(report, &run.report, version),
        false => report.sql.clone(),
    };
    let query = ast::Statement::Query(Box::new(parse_query(&sql)?));
    let Planned { plan, planning, .. } = plan(&session, query, &sql, &[]).await?;
    let state = Arc::clone(planning.pinned().generation());
    let mut audience = is_audience.then(|| Members { version, ..Members::default() });
    run.generation = state.number;
    let def = table_of(&state, &run.report)?;
    let snapshot = warehouse.snapshot(&def).await?;
    let (mut stream, measured) = planning.run_measured(&plan).await?;
    let query_columns = stored_schema(&shown_schema(&stream.schema()))?;
    let now = match is_audience {
        true => query_columns,
        false => stored_columns(report, &query_columns)?,
    };
    unless_changed(&snapshot.schema, &now)?;
    let schema = Arc::clone(&snapshot.schema);
    let mut writer =
        warehouse.writer(&def.path, Arc::clone(&schema), &snapshot.personal, None).await?;
    while let Some(batch) = stream.next().await {
        let batch = fill_all(&with_as_of(&batch?, &schema, run.as_of)?, &schema)?;
        check_days(report, &batch, run)?;
        if let Some(audience) = &mut audience {
            audience.count(&batch);
        }
        run.rows += batch.num_rows() as u64;
        place.add_rows(batch.num_rows());
        writer.write(&batch).await?;
    }
    run.rows -= writer.left_out();
    let files = writer.finish().await?;
    run.bytes = files.iter().map(|file| file.size).sum();
    run.bytes_read = measured.bytes_read();
    drop(stream);
    let staged = Staged { files, state, audience, export: None };
    match Box::pin(checked(&session, report, run, &snapshot, staged)).await {
        Ok(staged) => Ok(staged),
        Err((error, files)) => {
            warehouse.discard(&def.path, &files).await;
            Err(error)
        }
    }
}

/// The rows of a run: written, and not published.
struct Staged {
    files: Vec<WrittenFile>,
    /// The state that was read.
    state: Arc<Generation>,
    audience: Option<Members>,
    /// The file that goes with them.
    export: Option<export::Prepared>,
}

/// Asks the assertions of the rows of a run, and writes the file that goes with them; where that fails the rows are given back to be
/// discarded.
async fn checked(
    session: &Session,
    report: &Report,
    run: &mut Run,
    snapshot: &TableSnapshot,
    mut staged: Staged,
) -> std::result::Result<Staged, (Error, Vec<WrittenFile>)> {
    let rows = Arc::new(snapshot.with_files(&staged.files));
    session.stage(Name::new(crate::catalog::DEFAULT_SCHEMA, STAGED), rows);
    let check = async {
        for assertion in &report.assertions {
            if !holds(session, &assertion.sql).await? {
                return Err(Error::new(
                    Kind::AssertionFailed,
                    format!(
                        "assertion '{}' does not hold of the new rows of \"{}\"",
                        assertion.name, run.report
                    ),
                )
                .hint(
                    "the rows from before are served; the assertion can be asked of the source",
                ));
            }
        }
        let Some(path) = &report.export else { return Ok(None) };
        let rows = match &staged.audience {
            Some(_) => "SELECT one_id FROM staged WHERE removed_in IS NULL",
            None => "SELECT * FROM staged",
        };
        export::prepare(session, path, rows, run.as_of).await.map(Some)
    };
    match Box::pin(check).await {
        Ok(export) => {
            run.exported_to = export.as_ref().map(|file| file.shown().to_owned());
            staged.export = export;
            Ok(staged)
        }
        Err(error) => Err((error, staged.files)),
    }
}

/// How many are in an audience, and how many came and went with a version.
#[derive(Debug, Default)]
struct Members {
    version: u64,
    members: u64,
    added: u64,
    removed: u64,
}

impl Members {
    fn count(&mut self, batch: &RecordBatch) {
        let (added, removed) = (
            batch.column(1).as_primitive::<Int64Type>(),
            batch.column(2).as_primitive::<Int64Type>(),
        );
        let is_now = |version: Option<i64>| version == i64::try_from(self.version).ok();
        let count =
            |is: &dyn Fn(usize) -> bool| (0..batch.num_rows()).filter(|row| is(*row)).count();
        let is_member = |row: usize| removed.is_null(row);
        let members = count(&is_member);
        let came = count(&|row| is_member(row) && is_now(Some(added.value(row))));
        let went = count(&|row| removed.is_valid(row) && is_now(Some(removed.value(row))));
        self.members += members as u64;
        self.added += came as u64;
        self.removed += went as u64;
    }
}

/// The query of an audience's next version: who is in it now, and everybody who was, with the versions in which they came and went.
fn members_and_changes(report: &Report, history: &Name, version: u64) -> String {
    let kept = format!("{}.{}", quoted(&history.schema), quoted(&history.table));
    format!(
        "SELECT coalesce(__was.one_id, __is.one_id) AS one_id, coalesce(__was.added_in, {version}) AS added_in, \
           CASE WHEN __is.one_id IS NULL THEN {version} END AS removed_in \
         FROM (SELECT * FROM {kept} WHERE removed_in IS NULL) AS __was \
         FULL JOIN (SELECT DISTINCT CAST(one_id AS BIGINT) AS one_id FROM ({}) AS __query (one_id) WHERE one_id IS NOT NULL) AS __is \
           ON __is.one_id = __was.one_id \
         UNION ALL SELECT one_id, added_in, removed_in FROM {kept} WHERE removed_in IS NOT NULL",
        report.sql
    )
}

fn table_of(state: &Generation, name: &Name) -> Result<TableDef> {
    state.table(name).cloned().ok_or_else(|| {
        Error::new(
            Kind::UndefinedTable,
            format!("materialized view \"{name}\" was dropped meanwhile"),
        )
    })
}

/// The rows with the day in front, where the table has it and the query does not give it.
fn with_as_of(batch: &RecordBatch, schema: &SchemaRef, as_of: NaiveDate) -> Result<RecordBatch> {
    if batch.num_columns() == schema.fields().len() {
        return Ok(batch.clone());
    }
    let days = (as_of - NaiveDate::default()).num_days() as i32;
    let day: ArrayRef = Arc::new(Date32Array::from(vec![days; batch.num_rows()]));
    let columns: Vec<ArrayRef> =
        std::iter::once(day).chain(batch.columns().iter().cloned()).collect();
    let given = batch.schema();
    let day = Arc::new(Field::new(AS_OF, DataType::Date32, true));
    let fields: Vec<_> = std::iter::once(day).chain(given.fields().iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Refuses rows of days that the run does not replace: they would be there twice after the next one.
fn check_days(report: &Report, batch: &RecordBatch, run: &Run) -> Result<()> {
    let Some(key) = key_of(report) else { return Ok(()) };
    let Some(days) = batch.column_by_name(key) else { return Ok(()) };
    let days = days.as_primitive::<Date32Type>();
    let first = first_replaced(report, run);
    let (from, to) = (day_number(first), day_number(run.as_of));
    let is_in = |day: Option<i32>| day.is_some_and(|day| (from..=to).contains(&day));
    if days.iter().all(is_in) {
        return Ok(());
    }
    Err(Error::new(
        Kind::InvalidParameter,
        format!(
            "the query gives rows whose \"{key}\" is not within {} and {}, the period of the run",
            run.from, run.as_of
        ),
    )
    .hint("WHERE ... >= report_from() AND ... < report_to() + 1, in days of the report's zone"))
}

fn day_number(day: NaiveDate) -> i32 {
    (day - NaiveDate::default()).num_days() as i32
}

/// Publishes the rows of a run, its row in `reports.runs` and how far the report has come.
async fn publish(
    engine: &Arc<Engine>,
    report: &Report,
    ask: &Ask,
    run: &mut Run,
    staged: &Staged,
) -> Result<()> {
    const TRIES_MAX: u32 = 5;
    let warehouse = engine.warehouse();
    let name = run.report.clone();
    let Staged { files, state: read, audience, .. } = staged;
    for _ in 0..TRIES_MAX {
        warehouse.check_lease(ask.lease).await?;
        let newest = warehouse.newest().await?;
        let def = table_of(&newest, &name)?;
        if def.path != table_of(read, &name)?.path {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("materialized view \"{name}\" was dropped and made anew meanwhile"),
            ));
        }
        if newest.erasures() > read.erasures() {
            return Err(Error::new(
                Kind::Serialization,
                "people were erased while the query ran, and may be among its rows",
            )
            .hint("refresh it again"));
        }
        let (change, kept) = match key_of(report) {
            // A version follows the one that it was computed from.
            None if audience.is_some() => {
                let was = table_of(read, &name)?;
                let gone =
                    warehouse.snapshot(&was).await?.files.iter().map(|f| f.path.clone()).collect();
                let mut change = TableChange::append(name.clone(), def.path.clone(), files.clone());
                change.replaced = Some(Replaced { version: was.version, files: gone });
                (change, vec![])
            }
            None => (TableChange::replace(name.clone(), def.path.clone(), files.clone()), vec![]),
            Some(key) => {
                let snapshot = warehouse.snapshot(&def).await?;
                let (gone, kept) =
                    without_days(engine, &snapshot, key, (first_replaced(report, run), run.as_of))
                        .await?;
                let all = files.iter().chain(&kept).cloned().collect();
                let mut change = TableChange::append(name.clone(), def.path.clone(), all);
                change.replaced = Some(Replaced { version: def.version, files: gone });
                (change, kept)
            }
        };
        let mut progress = Progress::of(&newest, &name)?;
        let reached = progress.reached(report, (run.from, run.as_of), run.started);
        progress.succeeded(ask.slot, reached, run.generation, run.ended);
        progress.seen = seen(report, read);
        if let Some(audience) = audience {
            progress.version = audience.version;
            (progress.members, progress.added, progress.removed) =
                (audience.members, audience.added, audience.removed);
        }
        let names = BTreeMap::from([(Progress::note(&name), progress.noted()?)]);
        let group = Group { names, ..Group::of(change) };
        let runs = report::runs(std::slice::from_ref(run));
        match warehouse.publish_with_system(system::report_runs(), runs, group).await {
            Ok(()) => return Ok(()),
            // Somebody else has changed the table: what stays of it has to be looked at again.
            Err(error) if error.kind() == Kind::StaleBase && audience.is_none() => {
                warehouse.discard(&def.path, &kept).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(Kind::Serialization, "other writers were faster every time")
        .hint("refresh it again"))
}

/// The row-changing versions of the tables whose loads start a report.
pub(super) fn seen(report: &Report, state: &Generation) -> Vec<(Name, u64)> {
    let Schedule::AfterLoad(tables) = &report.schedule else { return vec![] };
    let version = |name: &Name| Some((name.clone(), state.table(name)?.rows_version));
    tables.iter().filter_map(version).collect()
}

/// First of the days whose rows a run replaces: a snapshot is of one day, however long its period is.
fn first_replaced(report: &Report, run: &Run) -> NaiveDate {
    if report.settings.mode == Mode::Snapshot { run.as_of } else { run.from }
}

/// Which files of a table have rows of these days, and files with their other rows.
async fn without_days(
    engine: &Engine,
    snapshot: &TableSnapshot,
    key: &str,
    (first, last): (NaiveDate, NaiveDate),
) -> Result<(Vec<String>, Vec<WrittenFile>)> {
    let place = snapshot.schema.index_of(key)?;
    let (from, to) = (day_number(first), day_number(last));
    let bound = |value: &serde_json::Value| value.as_str()?.parse::<NaiveDate>().ok();
    let may_have = |file: &FileEntry| {
        let bounds = file.bounds.get(key).map(|(low, high)| (bound(low), bound(high)));
        !matches!(bounds, Some((Some(low), Some(high))) if high < first || low > last)
    };
    let stays = |batch: &RecordBatch| -> Result<BooleanArray> {
        let days = cast(batch.column(place), &DataType::Date32)?;
        let stays = |day: Option<i32>| Some(day.is_none_or(|day| !(from..=to).contains(&day)));
        Ok(days.as_primitive::<Date32Type>().iter().map(stays).collect())
    };
    let left = without_rows(engine, snapshot, may_have, stays).await?;
    Ok((left.gone, left.files))
}

/// What is left of a table without some of its rows.
pub(super) struct Left {
    /// Files that had some of them.
    pub(super) gone: Vec<String>,
    /// Files with the others of those.
    pub(super) files: Vec<WrittenFile>,
    /// How many they were.
    pub(super) rows: usize,
}

/// Writes the files of a table anew that have rows which do not stay, without them; those that cannot have any are not read.
pub(super) async fn without_rows(
    engine: &Engine,
    snapshot: &TableSnapshot,
    may_have: impl Fn(&FileEntry) -> bool,
    stays: impl Fn(&RecordBatch) -> Result<BooleanArray>,
) -> Result<Left> {
    let warehouse = engine.warehouse();
    let columns: Vec<String> = snapshot.schema.fields().iter().map(|f| f.name().clone()).collect();
    let (mut gone, mut rows) = (Vec::new(), 0);
    let mut writer = warehouse
        .writer(&snapshot.path, Arc::clone(&snapshot.schema), &snapshot.personal, None)
        .await?;
    for file in snapshot.files.iter().filter(|file| may_have(file)) {
        let mut batches = Vec::new();
        let one = snapshot.only(std::slice::from_ref(file));
        warehouse.read_columns(&one, &columns, |batch| batches.push(batch)).await?;
        let mut left = Vec::with_capacity(batches.len());
        let mut of_file = 0;
        for batch in batches {
            let stays = stays(&batch)?;
            of_file += stays.len() - stays.true_count();
            left.push(filter_record_batch(&batch, &stays)?);
        }
        if of_file == 0 {
            continue;
        }
        rows += of_file;
        gone.push(file.path.clone());
        for batch in left {
            writer.write(&fill_all(&batch, &snapshot.schema)?).await?;
        }
    }
    Ok(Left { gone, files: writer.finish().await?, rows })
}

/// Whether a query of booleans says true in every row, of which there is one at least.
async fn holds(session: &Session, sql: &str) -> Result<bool> {
    let query = ast::Statement::Query(Box::new(parse_query(sql)?));
    let Planned { plan, planning, .. } = plan(session, query, sql, &[]).await?;
    let mut stream = planning.run(&plan).await?;
    let (mut rows, mut hold) = (0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let values = cast(batch.column(0), &DataType::Boolean)?;
        rows += batch.num_rows();
        hold += values.as_boolean().true_count();
    }
    Ok(rows > 0 && hold == rows)
}

/// Plans the assertions of a new report, so that a mistake is told to the one who makes it.
pub(super) async fn check_assertions_can_be_asked(
    session: &Session,
    report: &Report,
    path: &str,
) -> Result<()> {
    if report.assertions.is_empty() {
        return Ok(());
    }
    let def = TableDef {
        path: path.to_owned(),
        version: 0,
        erased: 0,
        holding: Holding::default(),
        rows_version: 0,
    };
    let staged = session.engine().warehouse().snapshot(&def).await?;
    session.stage(Name::new(crate::catalog::DEFAULT_SCHEMA, STAGED), staged);
    for assertion in &report.assertions {
        let about = format!("assertion '{}'", assertion.name);
        let query = ast::Statement::Query(Box::new(parse_query(&assertion.sql)?));
        let planned = plan(session, query, &assertion.sql, &[]).await;
        let planned = planned.map_err(|error| error.at(None).about(&about))?;
        let fields = planned.plan.schema().fields();
        if fields.len() != 1 || *fields[0].data_type() != DataType::Boolean {
            return Err(Error::new(
                Kind::DatatypeMismatch,
                format!("{about}: a query of one boolean is needed"),
            )
            .hint("SELECT count(*) > 0 FROM staged"));
        }
    }
    Ok(())
}

/// Writes down that a run has failed, and when it is tried again.
async fn write_failure(
    engine: &Arc<Engine>,
    report: &Report,
    ask: &Ask,
    mut run: Run,
    (error, seen): (&Error, Vec<(Name, u64)>),
    place: &RunPlace,
) {
    let name = run.report.clone();
    run.error = Some((error.sqlstate().to_owned(), error.message().to_owned()));
    let is_cancelled = place.cancelled().is_cancelled();
    let change = |progress: &mut Progress| {
        progress.failed(ask.slot, ask.as_of, error, report.settings.retries, Utc::now());
        if is_cancelled {
            // Somebody has decided: it is not tried again by itself.
            progress.outcome = report::Outcome::Cancelled;
            progress.settle(ask.slot);
        }
        if progress.outcome != report::Outcome::Retrying {
            // Rows that a run has failed over start no other one.
            progress.seen.clone_from(&seen);
        }
    };
    end_without_rows(engine, &name, run, change).await;
}

/// Writes down a run that has no rows: what `change` makes of the report's progress, and a row in `reports.runs`. What cannot be
/// written, for the disk is full or the store away, is kept in mind until it can.
pub(super) async fn end_without_rows(
    engine: &Engine,
    name: &Name,
    mut run: Run,
    change: impl Fn(&mut Progress),
) {
    let runs = engine.runs();
    let mut steps = None;
    let published = engine.warehouse().publish_names(|state| {
        let mut real = runs.progress(state, name)?;
        change(&mut real);
        let noted = real.noted()?;
        steps = Some((Progress::of(state, name)?, real));
        match state.is_report(name) {
            true => Ok(BTreeMap::from([(Progress::note(name), noted)])),
            false => Ok(BTreeMap::new()),
        }
    });
    let published = published.await;
    run.outcome = steps.as_ref().map_or(report::Outcome::Failed, |(_, real)| real.outcome);
    (run.rows, run.bytes) = (0, 0);
    if let (Err(error), Some((before, real))) = (&published, steps) {
        tracing::warn!(report = %name, code = error.sqlstate(), "how a run ended cannot be written down yet");
        runs.with_unwritten(|unwritten| unwritten.keep_progress(name, before, real));
    }
    runs.with_unwritten(|unwritten| unwritten.keep_run(run));
    if published.is_ok()
        && let Err(error) = write_down(engine).await
    {
        tracing::warn!(report = %name, code = error.sqlstate(), "a run cannot be written down yet");
    }
}

/// Writes down what could not be written before.
pub(super) async fn write_down(engine: &Engine) -> Result<()> {
    let (warehouse, runs) = (engine.warehouse(), engine.runs());
    let unwritten = runs.unwritten();
    warehouse
        .publish_names(|state| {
            let mut names = BTreeMap::new();
            for name in unwritten.reports().filter(|name| state.is_report(name)) {
                let real = unwritten.progress(state, name)?;
                if real != Progress::of(state, name)? {
                    names.insert(Progress::note(name), real.noted()?);
                }
            }
            Ok(names)
        })
        .await?;
    runs.with_unwritten(|all| all.drop_progress(&unwritten));
    if !unwritten.runs().is_empty() {
        let rows = report::runs(unwritten.runs());
        warehouse.append_to_system(system::report_runs(), rows).await?;
        runs.with_unwritten(|all| all.drop_runs(&unwritten));
    }
    Ok(())
}
