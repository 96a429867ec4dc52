//! Runs that have ended, as rows of `reports.runs` and `cron.job_run_details`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use chrono::{DateTime, NaiveDate, Utc};

use super::progress::Outcome;
use crate::store::Name;

/// What a run was started by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The clock.
    Schedule,
    /// Rows that were loaded.
    Load,
    /// Somebody who asked for it.
    Hand,
    /// A backfill.
    Backfill,
}

impl Trigger {
    /// As it stands in `reports.runs`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Load => "load",
            Self::Hand => "hand",
            Self::Backfill => "backfill",
        }
    }
}

/// A run of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The report.
    pub report: Name,
    /// What it was started by.
    pub trigger: Trigger,
    /// Its slot.
    pub slot: Option<DateTime<Utc>>,
    /// The day that it speaks for.
    pub as_of: NaiveDate,
    /// First day of its period.
    pub from: NaiveDate,
    /// Which try of its slot it was, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// Rows that it gave.
    pub rows: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes of files that its query read.
    pub bytes_read: u64,
    /// Most memory that it held at once.
    pub peak_memory: u64,
    /// Number of the publish that it read.
    pub generation: u64,
    /// Code and text of its error.
    pub error: Option<(String, String)>,
    /// File that it wrote.
    pub exported_to: Option<String>,
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn days(day: NaiveDate) -> i32 {
    (day - NaiveDate::default()).num_days() as i32
}

fn instants(values: impl Iterator<Item = Option<DateTime<Utc>>>) -> ArrayRef {
    let us = values.map(|at| at.map(|at| at.timestamp_micros()));
    Arc::new(us.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// Columns of `reports.runs`.
pub fn runs(all: &[Run]) -> Vec<ArrayRef> {
    let text = |value: &dyn Fn(&Run) -> Option<String>| -> ArrayRef {
        Arc::new(all.iter().map(value).collect::<StringArray>())
    };
    let bigint = |value: &dyn Fn(&Run) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(all.iter().map(|run| number(value(run)))))
    };
    let day = |value: &dyn Fn(&Run) -> NaiveDate| -> ArrayRef {
        Arc::new(Date32Array::from_iter_values(all.iter().map(|run| days(value(run)))))
    };
    vec![
        text(&|run| Some(run.id.clone())),
        text(&|run| Some(run.report.to_string())),
        text(&|run| Some(run.trigger.name().to_owned())),
        instants(all.iter().map(|run| run.slot)),
        day(&|run| run.as_of),
        day(&|run| run.from),
        Arc::new(Int32Array::from_iter_values(all.iter().map(|run| run.attempt as i32))),
        text(&|run| Some(run.outcome.name().to_owned())),
        instants(all.iter().map(|run| Some(run.started))),
        instants(all.iter().map(|run| Some(run.ended))),
        bigint(&|run| run.rows),
        bigint(&|run| run.bytes),
        bigint(&|run| run.bytes_read),
        bigint(&|run| run.peak_memory),
        bigint(&|run| run.generation),
        text(&|run| run.error.as_ref().map(|(code, _)| code.clone())),
        text(&|run| run.error.as_ref().map(|(_, error)| error.clone())),
        text(&|run| run.exported_to.clone()),
    ]
}

/// A run of a scheduled statement.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRun {
    /// The job.
    pub job: i64,
    /// Its id.
    pub id: i64,
    /// Who it ran as.
    pub user: String,
    /// The statement.
    pub command: String,
    /// Whether it came to its end, and what it said.
    pub result: Result<String, String>,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended.
    pub ended: DateTime<Utc>,
    /// Its slot.
    pub slot: DateTime<Utc>,
}

/// Columns of `cron.job_run_details`.
pub fn job_runs(run: &JobRun, database: &str) -> Vec<ArrayRef> {
    let text = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
    let (status, message) = match &run.result {
        Ok(tag) => ("succeeded", tag),
        Err(error) => ("failed", error),
    };
    vec![
        Arc::new(Int64Array::from(vec![run.job])),
        Arc::new(Int64Array::from(vec![run.id])),
        Arc::new(Int32Array::from(vec![std::process::id() as i32])),
        text(database),
        text(&run.user),
        text(&run.command),
        text(status),
        text(message),
        instants([Some(run.started)].into_iter()),
        instants([Some(run.ended)].into_iter()),
        instants([Some(run.slot)].into_iter()),
    ]
}
