//! Reports that are kept: what one is, when it is due, and how far it has come.
//!
//! A materialized view is a table whose rows a query gives, a note that says which query and when, and a note of how far its runs
//! have come; a run publishes all three in one moment. This room knows what they mean and computes nothing: runs are made by `sql`,
//! which plans their queries.

mod definition;
mod due;
mod job;
mod period;
mod progress;
mod runs;
mod schedule;
mod status;
mod unwritten;

pub use definition::{Assertion, CatchUp, Mode, Report, Settings, definitions};
pub use due::{Due, FAILURES_MAX, FIRST_DAY, InTheWay, QUIET, Trouble, backoff, due};
pub use job::{Job, job_table, jobs, last_number, numbered};
pub use period::{Step, periods};
pub use progress::{Backfill, Outcome, Progress};
pub use runs::{JobRun, Run, Trigger, job_runs, runs};
pub use schedule::{Schedule, Unit, day_before};
pub use status::{Running, State, audience_of, audience_table, history_of, status_table};
pub use unwritten::Unwritten;
