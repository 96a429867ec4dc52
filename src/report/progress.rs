//! How far a report has come, kept in a note of its own beside its definition.

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use super::definition::Report;
use crate::error::Result;
use crate::store::{Change, Generation, Name, Relation};

/// Schema of these notes.
const PROGRESS: &str = "reports.progress";

/// How a run ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There was none yet.
    #[default]
    None,
    /// Its rows are published.
    Succeeded,
    /// It failed for good.
    Failed,
    /// It failed and will be tried again.
    Retrying,
    /// Its query can no longer be planned: something that it reads has changed.
    Invalid,
    /// It did not run, for what it depends on failed.
    UpstreamFailed,
    /// It was stopped by somebody.
    Cancelled,
}

impl Outcome {
    /// As it stands in `reports.runs`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Retrying => "RETRYING",
            Self::Invalid => "INVALID",
            Self::UpstreamFailed => "UPSTREAM_FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// How far a report has come. Instants are microseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Slots up to this one are done with, whatever came of them.
    pub settled_us: Option<i64>,
    /// The slot that is tried again.
    pub retry_slot_us: Option<i64>,
    /// When it is.
    pub retry_at_us: Option<i64>,
    /// How often it has been tried.
    pub attempt: u32,
    /// Slots that failed one after the other.
    pub failures: u32,
    /// When so many had failed that nothing runs until somebody says so.
    pub stopped_at_us: Option<i64>,
    /// How the last run ended.
    pub outcome: Outcome,
    /// Code of its error.
    pub error_code: Option<String>,
    /// What its error said.
    pub error: Option<String>,
    /// When rows were published last.
    pub succeeded_at_us: Option<i64>,
    /// The day that the newest rows speak for.
    pub data_asof: Option<NaiveDate>,
    /// Number of the publish that was read for them.
    pub data_generation: Option<u64>,
    /// Newest day for which a run has failed for good.
    pub failed_asof: Option<NaiveDate>,
    /// Row-changing versions of the tables whose loads start it, as the last run saw them.
    pub seen: Vec<(Name, u64)>,
    /// A backfill that has not come to its end.
    pub backfill: Option<Backfill>,
    /// Of an audience, the version of its newest members.
    pub version: u64,
    /// How many they are.
    pub members: u64,
    /// How many of them are new in this version.
    pub added: u64,
    /// How many are gone since the version before.
    pub removed: u64,
}

/// A backfill that can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// First day that was asked for.
    pub from: NaiveDate,
    /// Last day that was asked for.
    pub to: NaiveDate,
    /// How many periods there are.
    pub periods: usize,
    /// Periods up to this day are done.
    pub done: NaiveDate,
}

impl Progress {
    /// That of `name`; the beginning when nothing is kept.
    pub fn of(state: &Generation, name: &Name) -> Result<Self> {
        match state.note(&Self::note(name)) {
            Some(note) => Ok(serde_json::from_value(note.clone())?),
            None => Ok(Self::default()),
        }
    }

    /// The name of the note about `name`.
    pub fn note(name: &Name) -> Name {
        name.noted(PROGRESS)
    }

    /// The note that keeps it.
    pub fn noted(&self) -> Result<Change> {
        Ok(Change::Set(Relation::Note(serde_json::to_value(self)?)))
    }

    /// The last slot that is done with.
    pub fn settled(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.settled_us?)
    }

    /// Whether so many slots failed that nothing runs, and nobody has said since that it should.
    pub fn is_stopped(&self, report: &Report) -> bool {
        self.stopped_at_us.is_some_and(|at| at > report.resumed_at_us)
    }

    /// The same with its rows taken away: what was done by the clock stays done.
    pub fn without_rows(self) -> Self {
        Self {
            succeeded_at_us: None,
            data_asof: None,
            data_generation: None,
            backfill: None,
            outcome: Outcome::None,
            ..self
        }
    }

    /// Whether rows were ever published.
    pub fn is_populated(&self) -> bool {
        self.succeeded_at_us.is_some()
    }
}
