//! What a server does by the clock: runs of reports, and scheduled statements.
//!
//! The clock is looked at every few seconds and never slept towards, so that a clock that is set, or a machine that slept, makes no
//! difference. Of several servers of one warehouse the holder of the lease does it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use tokio::sync::Semaphore;

use super::execute::execute;
use super::refresh::{Ask, end_without_rows, run_once, seen, write_down};
use super::statement::parse;
use super::{Outcome, cron};
use crate::catalog::DATABASE;
use crate::error::{Error, Kind, Result};
use crate::report::{
    Due, InTheWay, Job, JobRun, Progress, QUIET, Report, Run, Schedule, Trigger, day_before,
    definitions, due, job_runs, jobs,
};
use crate::session::Engine;
use crate::session::stop::Stop;
use crate::store::{Generation, Lease, Name, Relation, system};

/// Longest pause between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Shortest one.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(200);

/// How long the lease is held beyond a look.
const LEASE: TimeDelta = TimeDelta::seconds(60);

/// Setting of a transaction that a command of a job begins.
const READ_ONLY: &str = "transaction_read_only";

/// Runs what is due until the future is dropped; `holder` is who holds the lease.
pub async fn keep_schedule(engine: Arc<Engine>, holder: String) {
    let mut scheduler = Scheduler::new(engine);
    loop {
        let looked = Box::pin(scheduler.look(&holder)).await;
        if let Err(error) = &looked {
            tracing::warn!(code = error.sqlstate(), %error, "the schedule could not be looked at");
        }
        let error = looked.as_ref().err();
        let error = error.map(|error| (error.sqlstate().to_owned(), error.message().to_owned()));
        scheduler.engine.runs().with_unwritten(|unwritten| unwritten.stands_still(error));
        let next = looked.ok().flatten();
        let pause = next.and_then(|at| (at - Utc::now()).to_std().ok());
        let pause = pause.map_or(LOOK_EVERY, |pause| pause.clamp(LOOK_AT_MOST_EVERY, LOOK_EVERY));
        tokio::time::sleep(pause).await;
    }
}

/// The row-changing versions of tables.
type Versions = Vec<(Name, u64)>;

struct Scheduler {
    engine: Arc<Engine>,
    permits: Arc<Semaphore>,
    /// What was started here and has not ended.
    started: Arc<Mutex<HashSet<Name>>>,
    /// Tables whose rows changed, as they were seen, and since when.
    loads: HashMap<Name, (Versions, DateTime<Utc>)>,
}

/// Something that was started; it is no more when this is dropped.
struct Started {
    name: Name,
    all: Arc<Mutex<HashSet<Name>>>,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Scheduler {
    fn new(engine: Arc<Engine>) -> Self {
        let permits = Arc::new(Semaphore::new(engine.config().reports.runs_max.max(1)));
        Self { engine, permits, started: Arc::default(), loads: HashMap::new() }
    }

    /// Starts what is due; says when to look again, where the clock knows.
    async fn look(&mut self, holder: &str) -> Result<Option<DateTime<Utc>>> {
        let warehouse = Arc::clone(self.engine.warehouse());
        if !self.engine.runs().unwritten().is_empty()
            && let Err(error) = write_down(&self.engine).await
        {
            tracing::warn!(code = error.sqlstate(), "what has run cannot be written down yet");
        }
        let newest = warehouse.newest().await?;
        let reports = definitions(&newest)?;
        let jobs = jobs(&newest)?;
        let has_clock = |(_, report): &(Name, Report)| report.schedule != Schedule::Manual;
        if jobs.is_empty() && !reports.iter().any(has_clock) {
            return Ok(None);
        }
        let us = LEASE.num_microseconds().unwrap_or_default();
        let Some(lease) = warehouse.take_lease(holder, us).await? else { return Ok(None) };
        let now = Utc::now();
        let mut next: Option<DateTime<Utc>> = None;
        let mut sooner = |at: Option<DateTime<Utc>>| {
            next = match (next, at) {
                (Some(known), Some(at)) => Some(known.min(at)),
                (known, at) => known.or(at),
            };
        };
        for (name, report) in reports.iter().filter(|report| has_clock(report)) {
            // One that cannot be looked at keeps no other from its run.
            match Box::pin(self.consider(name, report, &newest, (lease, now))).await {
                Ok(at) => sooner(at),
                Err(error) => {
                    tracing::warn!(report = %name, code = error.sqlstate(), %error, "a report could not be looked at");
                }
            }
        }
        for job in jobs {
            let name = cron::note(&job);
            sooner(job.next_after(now));
            match job.due(now) {
                Due::Not(_) => {}
                _ if self.is_started(&name) => {}
                Due::Missed(slot) => settle_job(&self.engine, job.id, slot).await?,
                Due::Run(slot) => {
                    settle_job(&self.engine, job.id, slot).await?;
                    let (engine, started) = (Arc::clone(&self.engine), self.start(&name));
                    tokio::spawn(async move {
                        let _started = started;
                        Box::pin(run_job(&engine, &job, slot)).await;
                    });
                }
            }
        }
        Ok(next)
    }

    /// Starts a report when it is due; says when to look again, where the clock knows.
    async fn consider(
        &mut self,
        name: &Name,
        report: &Report,
        state: &Generation,
        (lease, now): (Lease, DateTime<Utc>),
    ) -> Result<Option<DateTime<Utc>>> {
        if self.is_started(name) || self.engine.runs().is_running(name) {
            return Ok(report.schedule.next_after(now, report.zone()));
        }
        let progress = self.engine.runs().progress(state, name)?;
        let what = match report.schedule {
            Schedule::AfterLoad(_) => self.after_load(name, report, &progress, state, now),
            _ => due(name, report, &progress, now),
        };
        match what {
            Due::Not(at) => Ok(at),
            Due::Missed(slot) => self.let_go(name, slot).await.map(|()| None),
            Due::Run(slot) => {
                let is_begun = self.begin(name, report, state, (lease, slot)).await?;
                Ok(match is_begun {
                    true => report.schedule.next_after(now, report.zone()),
                    false => Some(now + TimeDelta::seconds(1)),
                })
            }
        }
    }

    fn is_started(&self, name: &Name) -> bool {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    fn start(&self, name: &Name) -> Started {
        self.started.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        Started { name: name.clone(), all: Arc::clone(&self.started) }
    }

    /// Whether loads start a report: rows have changed since its last run, and have been still for a while.
    fn after_load(
        &mut self,
        name: &Name,
        report: &Report,
        progress: &Progress,
        state: &Generation,
        now: DateTime<Utc>,
    ) -> Due {
        if report.is_suspended || progress.is_stopped(report) {
            return Due::Not(None);
        }
        if let (Some(slot), Some(at)) = (progress.retry_slot_us, progress.retry_at_us)
            && let (Some(slot), Some(at)) =
                (DateTime::from_timestamp_micros(slot), DateTime::from_timestamp_micros(at))
        {
            return if now < at { Due::Not(Some(at)) } else { Due::Run(slot) };
        }
        let current = seen(report, state);
        if current == progress.seen {
            self.loads.remove(name);
            return Due::Not(None);
        }
        let (known, since) = self.loads.entry(name.clone()).or_insert((current.clone(), now));
        if *known != current {
            (*known, *since) = (current, now);
        }
        let at = *since + QUIET;
        if now < at { Due::Not(Some(at)) } else { Due::Run(now) }
    }

    /// Slots that were missed stay so.
    async fn let_go(&self, name: &Name, slot: DateTime<Utc>) -> Result<()> {
        self.engine
            .warehouse()
            .publish_names(|state| {
                if !state.is_report(name) {
                    return Ok(BTreeMap::new());
                }
                let mut progress = Progress::of(state, name)?;
                progress.settle(Some(slot));
                Ok(BTreeMap::from([(Progress::note(name), progress.noted()?)]))
            })
            .await?;
        tracing::info!(report = %name, %slot, "a missed slot is left out, as its catchup says");
        Ok(())
    }

    /// Starts a run, unless it has to wait: for others that it depends on, or for a free place. `true` when it was started or is
    /// not to be.
    async fn begin(
        &self,
        name: &Name,
        report: &Report,
        state: &Generation,
        (lease, slot): (Lease, DateTime<Utc>),
    ) -> Result<bool> {
        let as_of = day_before(slot, report.zone());
        if !report.settings.allow_stale
            && let Some((upstream, way)) = self.in_the_way(report, state, as_of)?
        {
            if way == InTheWay::Waiting {
                return Ok(false);
            }
            let error = Error::new(
                Kind::NotInState,
                format!("\"{upstream}\", which it depends on, has no rows of {as_of}"),
            );
            let run = run_that_was_not(name, as_of, slot, state, &error);
            let seen = seen(report, state);
            let change = |progress: &mut Progress| {
                progress.upstream_failed(slot, as_of, &error);
                progress.seen.clone_from(&seen);
            };
            end_without_rows(&self.engine, name, run, change).await;
            return Ok(true);
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return Ok(false) };
        let (engine, started) = (Arc::clone(&self.engine), self.start(name));
        let trigger = match report.schedule {
            Schedule::AfterLoad(_) => Trigger::Load,
            _ => Trigger::Schedule,
        };
        let name = name.clone();
        let by_clock = trigger == Trigger::Schedule;
        tokio::spawn(async move {
            let (_permit, _started) = (permit, started);
            let (held, owned) = (Arc::clone(&engine), name.clone());
            let run = async move {
                let place = held.runs().enter(&owned, as_of).await;
                // Somebody else may have run the slot since the clock was looked at.
                let newest = held.warehouse().newest().await?;
                let settled = held.runs().progress(&newest, &owned)?.settled();
                if by_clock && settled.is_some_and(|settled| settled >= slot) {
                    return Ok(());
                }
                let lease = Some(lease);
                let ask = Ask { trigger, slot: Some(slot), as_of, from: None, lease };
                // What came of it is in reports.runs, and was logged.
                let _ = Box::pin(run_once(&held, &owned, &ask, &place)).await;
                Ok::<(), Error>(())
            };
            let ended = tokio::spawn(Stop::default().over(Box::pin(run))).await;
            let error = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                // A run that stopped in the middle of a word is done with, or it would be begun again and again.
                Err(_) => {
                    Error::internal("the run stopped unexpectedly; this is a mistake of the server")
                }
            };
            tracing::error!(report = %name, %error, "a run ended without an answer");
            let Ok(newest) = engine.warehouse().newest().await else { return };
            let run = run_that_was_not(&name, as_of, slot, &newest, &error);
            let change =
                |progress: &mut Progress| progress.failed(Some(slot), as_of, &error, 0, Utc::now());
            end_without_rows(&engine, &name, run, change).await;
        });
        Ok(true)
    }

    /// The first of the reports that one depends on which stands in the way of its run.
    fn in_the_way(
        &self,
        report: &Report,
        state: &Generation,
        as_of: chrono::NaiveDate,
    ) -> Result<Option<(Name, InTheWay)>> {
        let mut waits = None;
        for name in &report.depends_on {
            let Some(upstream) = Report::of(state, name)? else { continue };
            let progress = self.engine.runs().progress(state, name)?;
            match progress.stands_in_the_way(&upstream, as_of) {
                Some(InTheWay::Failed) => return Ok(Some((name.clone(), InTheWay::Failed))),
                Some(InTheWay::Waiting) => waits = Some((name.clone(), InTheWay::Waiting)),
                None => {}
            }
        }
        Ok(waits)
    }
}

fn run_that_was_not(
    name: &Name,
    as_of: chrono::NaiveDate,
    slot: DateTime<Utc>,
    state: &Generation,
    error: &Error,
) -> Run {
    let now = Utc::now();
    Run {
        id: uuid::Uuid::new_v4().to_string(),
        report: name.clone(),
        trigger: Trigger::Schedule,
        slot: Some(slot),
        as_of,
        from: as_of,
        attempt: 0,
        outcome: crate::report::Outcome::UpstreamFailed,
        started: now,
        ended: now,
        rows: 0,
        bytes: 0,
        bytes_read: 0,
        peak_memory: 0,
        generation: state.number,
        error: Some((error.sqlstate().to_owned(), error.message().to_owned())),
        exported_to: None,
    }
}

/// The slot of a job is done with, before it runs: a statement that stops the server is not run again and again.
async fn settle_job(engine: &Engine, id: i64, slot: DateTime<Utc>) -> Result<()> {
    engine
        .warehouse()
        .publish_names(|state| {
            let Some(Relation::Note(note)) = state.relations.get(&Job::note(id)) else {
                return Ok(BTreeMap::new());
            };
            let mut job: Job = serde_json::from_value(note.clone())?;
            job.settled_us = job.settled_us.max(slot.timestamp_micros());
            Ok(BTreeMap::from([(Job::note(id), job.noted()?)]))
        })
        .await?;
    Ok(())
}

async fn run_job(engine: &Arc<Engine>, job: &Job, slot: DateTime<Utc>) {
    let started = Utc::now();
    let result = Stop::default().over(Box::pin(statements(engine, job))).await;
    let ended = Utc::now();
    let elapsed_ms = (ended - started).num_milliseconds();
    match &result {
        Ok(_) => tracing::info!(job = job.shown(), elapsed_ms, "a scheduled statement has run"),
        Err(error) => {
            tracing::warn!(
                job = job.shown(),
                code = error.sqlstate(),
                elapsed_ms,
                "a scheduled statement failed"
            );
        }
    }
    let run = JobRun {
        job: job.id,
        id: started.timestamp_micros(),
        user: job.user.clone(),
        command: job.command.clone(),
        result: result.map_err(|error| error.to_string()),
        started,
        ended,
        slot,
    };
    let written =
        engine.warehouse().append_to_system(system::job_runs(), job_runs(&run, DATABASE)).await;
    if let Err(error) = written {
        tracing::warn!(code = error.sqlstate(), %error, "a run could not be written down");
    }
}

/// Runs the statements of a job, one after the other; the tag of the last.
async fn statements(engine: &Arc<Engine>, job: &Job) -> Result<String> {
    let session = engine.session(&job.user);
    session.with_settings(|settings| settings.set("TimeZone", Some(&job.timezone)))?;
    let mut said = String::new();
    for parsed in parse(&job.command)? {
        said = match execute(&session, &parsed, &[]).await? {
            Outcome::Done(tag) | Outcome::Noticed { tag, .. } => tag,
            Outcome::Rows { mut stream, tag, .. } => {
                let mut rows = 0;
                while let Some(batch) = stream.next().await {
                    rows += batch?.num_rows();
                }
                format!("{tag} {rows}")
            }
            Outcome::Session(super::SessionCommand::Set { name, value, .. }) => {
                session.with_settings(|settings| settings.set(&name, value.as_deref()))?;
                "SET".to_owned()
            }
            // Each statement is published by itself, in a block or not.
            Outcome::Session(super::SessionCommand::Begin { reads_only }) => {
                let value = reads_only.map(|on| if on { "on" } else { "off" });
                session.with_settings(|settings| settings.set(READ_ONLY, value))?;
                "BEGIN".to_owned()
            }
            Outcome::Session(super::SessionCommand::Commit) => {
                session.with_settings(|settings| settings.set(READ_ONLY, None))?;
                "COMMIT".to_owned()
            }
            Outcome::Session(_) | Outcome::CopyIn(_) | Outcome::CopyOut { .. } => {
                return Err(Error::not_supported("a scheduled statement has no client"));
            }
        };
    }
    Ok(said)
}
