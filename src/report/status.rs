//! `reports.status`: how every report stands.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use chrono::{DateTime, NaiveDate, TimeZone, Utc};

use super::definition::{Mode, Report, definitions};
use super::due::{Due, due};
use super::progress::{Outcome, Progress};
use super::schedule::Schedule;
use super::unwritten::Unwritten;
use crate::error::Result;
use crate::store::{Generation, Name};

/// A run that is under way in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The report.
    pub report: Name,
    /// When it began, in microseconds since 1970.
    pub started_us: i64,
    /// Day that it computes now.
    pub as_of: NaiveDate,
    /// Rows that it has written so far.
    pub rows: u64,
    /// Of a backfill, periods that are done and all of them.
    pub periods: Option<(u64, u64)>,
}

/// How a report stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is being computed.
    Running,
    /// Its last run failed and is tried again.
    Retrying,
    /// Its schedule is held, by hand or after too many failures.
    Suspended,
    /// Its query cannot be planned any more.
    Invalid,
    /// Its last slot was left out, for something that it depends on has failed.
    UpstreamFailed,
    /// Its last run failed.
    Failed,
    /// It waits for its next slot.
    Scheduled,
    /// It runs when somebody asks.
    Manual,
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Retrying => "RETRYING",
            Self::Suspended => "SUSPENDED",
            Self::Invalid => "INVALID",
            Self::UpstreamFailed => "UPSTREAM_FAILED",
            Self::Failed => "FAILED",
            Self::Scheduled => "SCHEDULED",
            Self::Manual => "MANUAL",
        }
    }

    fn of(report: &Report, progress: &Progress, is_running: bool, misses: bool) -> Self {
        match progress.outcome {
            _ if is_running => Self::Running,
            _ if misses => Self::Invalid,
            _ if report.is_suspended || progress.is_stopped(report) => Self::Suspended,
            Outcome::Retrying => Self::Retrying,
            Outcome::Invalid => Self::Invalid,
            Outcome::UpstreamFailed => Self::UpstreamFailed,
            Outcome::Failed => Self::Failed,
            _ if report.schedule == Schedule::Manual => Self::Manual,
            _ => Self::Scheduled,
        }
    }
}

/// A report, how far it has come and how it stands.
type Standing = (Name, Report, Progress, State);

/// Every report, how it stands and how far it has come.
fn states(
    state: &Generation,
    running: &[Running],
    unwritten: &Unwritten,
    now: DateTime<Utc>,
) -> Result<Vec<Standing>> {
    let all = definitions(state)?.into_iter().map(|(name, report)| {
        let mut progress = unwritten.progress(state, &name)?;
        let is_running = running.iter().any(|run| run.report == name);
        let missing = report.misses(state);
        if let (Some(missing), false) = (missing, progress.outcome == Outcome::Invalid) {
            progress.error_code = Some("42P01".to_owned());
            progress.error = Some(format!("relation \"{missing}\" is not there any more"));
        }
        let mut stands = State::of(&report, &progress, is_running, missing.is_some());
        let is_held = |stands| matches!(stands, State::Running | State::Suspended | State::Invalid);
        if let (Some((code, error)), false) = (unwritten.standstill(), is_held(stands))
            && matches!(due(&name, &report, &progress, now), Due::Run(_))
        {
            stands = State::Retrying;
            progress.error_code = Some(code.clone());
            progress.error = Some(format!("nothing runs by the clock: {error}"));
        }
        Ok((name, report, progress, stands))
    });
    all.collect()
}

/// Seconds since the end of the day that rows speak for.
fn lag_s(report: &Report, day: NaiveDate, now: DateTime<Utc>) -> Option<i64> {
    let end = day.succ_opt()?.and_hms_opt(0, 0, 0)?;
    let end = report.zone().from_local_datetime(&end).earliest()?;
    Some((now - end.with_timezone(&Utc)).num_seconds())
}

/// `reports.audiences`: how many are in each, and in which version.
pub fn audience_table(state: &Generation) -> Result<RecordBatch> {
    let mut all = Vec::new();
    for (name, report) in definitions(state)? {
        if report.settings.mode == Mode::Audience {
            all.push((audience_of(&name), Progress::of(state, &name)?, report));
        }
    }
    let number = |value: &dyn Fn(&Progress) -> u64| -> ArrayRef {
        let numbers = all.iter().map(|(_, progress, _)| i64::try_from(value(progress)).ok());
        Arc::new(numbers.collect::<Int64Array>())
    };
    let days = |day: NaiveDate| (day - NaiveDate::default()).num_days() as i32;
    let refreshed = all.iter().map(|(_, progress, _)| progress.succeeded_at_us);
    let refreshed = refreshed.collect::<TimestampMicrosecondArray>().with_timezone("UTC");
    let names = all.iter().map(|(name, ..)| name.to_string());
    let queries = all.iter().map(|(_, _, report)| report.written.as_str());
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns: Vec<(&str, DataType, ArrayRef)> = vec![
        ("name", DataType::Utf8, Arc::new(StringArray::from_iter_values(names))),
        ("version", DataType::Int64, number(&|progress| progress.version)),
        ("members", DataType::Int64, number(&|progress| progress.members)),
        ("added", DataType::Int64, number(&|progress| progress.added)),
        ("removed", DataType::Int64, number(&|progress| progress.removed)),
        (
            "data_asof",
            DataType::Date32,
            Arc::new(all.iter().map(|(_, p, _)| p.data_asof.map(days)).collect::<Date32Array>()),
        ),
        ("refreshed_at", utc, Arc::new(refreshed)),
        ("definition", DataType::Utf8, Arc::new(StringArray::from_iter_values(queries))),
    ];
    table(columns)
}

/// End of the name of the table that keeps an audience.
const HISTORY: &str = "_history";

/// The table that keeps the audience `name`.
pub fn history_of(name: &Name) -> Name {
    Name::new(name.schema.clone(), format!("{}{HISTORY}", name.table))
}

/// The audience that a table keeps.
pub fn audience_of(history: &Name) -> Name {
    let table = history.table.strip_suffix(HISTORY).unwrap_or(&history.table);
    Name::new(history.schema.clone(), table)
}

fn table(columns: Vec<(&str, DataType, ArrayRef)>) -> Result<RecordBatch> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, kind, _)| Field::new(*name, kind.clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// `reports.status`.
pub fn status_table(
    state: &Generation,
    running: &[Running],
    unwritten: &Unwritten,
    now: DateTime<Utc>,
) -> Result<RecordBatch> {
    let all = states(state, running, unwritten, now)?;
    let text = |value: &dyn Fn(&Standing) -> Option<String>| -> ArrayRef {
        Arc::new(all.iter().map(value).collect::<StringArray>())
    };
    let instant = |value: &dyn Fn(&Standing) -> Option<i64>| -> ArrayRef {
        let array = all.iter().map(value).collect::<TimestampMicrosecondArray>();
        Arc::new(array.with_timezone("UTC"))
    };
    let number = |value: &dyn Fn(&Standing) -> Option<i64>| -> ArrayRef {
        Arc::new(all.iter().map(value).collect::<Int64Array>())
    };
    let run_of = |name: &Name| running.iter().find(|run| run.report == *name);
    let days = |day: NaiveDate| (day - NaiveDate::default()).num_days() as i32;
    let next = |name: &Name, report: &Report, progress: &Progress| match due(
        name, report, progress, now,
    ) {
        Due::Not(next) => next,
        Due::Run(_) | Due::Missed(_) => Some(now),
    };
    let mode = |report: &Report| match report.settings.mode {
        Mode::Replace => "replace",
        Mode::Snapshot => "snapshot",
        Mode::Incremental => "incremental",
        Mode::Audience => "audience",
    };
    let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns: Vec<(&str, DataType, ArrayRef)> = vec![
        ("name", DataType::Utf8, text(&|r| Some(r.0.to_string()))),
        ("state", DataType::Utf8, text(&|r| Some(r.3.name().to_owned()))),
        (
            "data_asof",
            DataType::Date32,
            Arc::new(all.iter().map(|r| r.2.data_asof.map(days)).collect::<Date32Array>()),
        ),
        ("lag_seconds", DataType::Int64, number(&|r| lag_s(&r.1, r.2.data_asof?, now))),
        ("last_success_at", utc(), instant(&|r| r.2.succeeded_at_us)),
        ("next_run_at", utc(), instant(&|r| Some(next(&r.0, &r.1, &r.2)?.timestamp_micros()))),
        (
            "consecutive_failures",
            DataType::Int32,
            Arc::new(Int32Array::from_iter_values(all.iter().map(|r| r.2.failures as i32))),
        ),
        ("last_error_code", DataType::Utf8, text(&|r| r.2.error_code.clone())),
        ("last_error", DataType::Utf8, text(&|r| r.2.error.clone())),
        ("data_generation", DataType::Int64, number(&|r| i64::try_from(r.2.data_generation?).ok())),
        (
            "is_populated",
            DataType::Boolean,
            Arc::new(BooleanArray::from_iter(all.iter().map(|r| Some(r.2.is_populated())))),
        ),
        ("schedule", DataType::Utf8, text(&|r| Some(r.1.schedule.described()))),
        ("timezone", DataType::Utf8, text(&|r| Some(r.1.timezone.clone()))),
        ("mode", DataType::Utf8, text(&|r| Some(mode(&r.1).to_owned()))),
        (
            "depends_on",
            DataType::Utf8,
            text(&|r| {
                let names: Vec<String> = r.1.depends_on.iter().map(ToString::to_string).collect();
                (!names.is_empty()).then(|| names.join(", "))
            }),
        ),
        ("owner", DataType::Utf8, text(&|r| Some(r.1.owner.clone()))),
        ("running_since", utc(), instant(&|r| Some(run_of(&r.0)?.started_us))),
        ("running_rows", DataType::Int64, number(&|r| i64::try_from(run_of(&r.0)?.rows).ok())),
        (
            "running_period",
            DataType::Utf8,
            text(&|r| {
                let (done, all) = run_of(&r.0)?.periods?;
                Some(format!("{} of {all}", done + 1))
            }),
        ),
    ];
    table(columns)
}
