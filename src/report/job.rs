//! Statements with a schedule, as pg_cron's users know them.

use std::sync::Arc;

use arrow::array::{BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::due::Due;
use super::schedule::{Schedule, Unit};
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Generation, Name, Relation};

/// Schema of the notes that keep them.
const JOBS: &str = "cron.jobs";

/// Schema of the note that keeps the last number.
const NUMBERS: &str = "cron.numbers";

/// A slot is missed when it is this long past; missed slots are left out, as pg_cron does.
const GRACE: TimeDelta = TimeDelta::minutes(1);

/// A statement and when it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Number, never given twice.
    pub id: i64,
    /// Name, when it has one.
    pub name: Option<String>,
    /// Schedule as it was given: a cron pattern, or `'30 seconds'`.
    pub schedule: String,
    /// Zone of its clock.
    pub timezone: String,
    /// The statement.
    pub command: String,
    /// Who it runs as.
    pub user: String,
    /// Whether it runs.
    pub is_active: bool,
    /// Slots up to this one are done with, in microseconds since 1970.
    pub settled_us: i64,
}

impl Job {
    /// Reads a schedule.
    pub fn read_schedule(text: &str) -> Result<Schedule> {
        // As pg_cron has them: 1 to 59 seconds, or a pattern.
        let text = text.trim();
        let seconds = text.strip_suffix("seconds").or_else(|| text.strip_suffix("second"));
        let Some(seconds) = seconds else { return Schedule::cron(text) };
        match seconds.trim().parse() {
            Ok(count @ 1..=59) => Ok(Schedule::Every { count, unit: Unit::Second }),
            _ => Err(Error::new(
                Kind::InvalidParameter,
                format!(
                    "'{text}' is no schedule: 1 to 59 seconds, such as '30 seconds', or a cron pattern"
                ),
            )),
        }
    }

    /// The name of its note.
    pub fn note(id: i64) -> Name {
        Name::new(JOBS, id.to_string())
    }

    /// The note that keeps it.
    pub fn noted(&self) -> Result<Change> {
        Ok(Change::Set(Relation::Note(serde_json::to_value(self)?)))
    }

    /// The name that is shown.
    pub fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }

    /// Its schedule and the zone of its clock; none while it is held.
    fn clock(&self) -> Option<(Schedule, Tz)> {
        let schedule = Self::read_schedule(&self.schedule).ok().filter(|_| self.is_active)?;
        Some((schedule, self.timezone.parse().unwrap_or(Tz::UTC)))
    }

    /// Its next slot after an instant; none while it is held.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let (schedule, zone) = self.clock()?;
        schedule.next_after(now, zone)
    }

    /// What is to be done about it at an instant.
    pub fn due(&self, now: DateTime<Utc>) -> Due {
        let Some((schedule, zone)) = self.clock() else { return Due::Not(None) };
        let settled = DateTime::from_timestamp_micros(self.settled_us).unwrap_or_default();
        match schedule.last_until(now, settled, zone) {
            None => Due::Not(schedule.next_after(now, zone)),
            Some(slot) if now - slot > GRACE => Due::Missed(slot),
            Some(slot) => Due::Run(slot),
        }
    }
}

/// Every job of a state, by number.
pub fn jobs(state: &Generation) -> Result<Vec<Job>> {
    let mut found = Vec::new();
    for (name, relation) in &state.relations {
        if let (JOBS, Relation::Note(note)) = (name.schema.as_str(), relation) {
            found.push(serde_json::from_value::<Job>(note.clone()).map_err(Error::from)?);
        }
    }
    found.sort_by_key(|job| job.id);
    Ok(found)
}

/// The last number that was given to a job.
pub fn last_number(state: &Generation) -> Result<i64> {
    let noted = state.note(&numbers()).and_then(serde_json::Value::as_i64).unwrap_or(0);
    Ok(jobs(state)?.last().map_or(noted, |job| job.id.max(noted)))
}

/// The note that a number was given, and what it says.
pub fn numbered(number: i64) -> (Name, Change) {
    (numbers(), Change::Set(Relation::Note(serde_json::Value::from(number))))
}

fn numbers() -> Name {
    Name::new(NUMBERS, "job")
}

/// `cron.job`.
pub fn job_table(state: &Generation, database: &str) -> Result<RecordBatch> {
    let all = jobs(state)?;
    let text = |value: &dyn Fn(&Job) -> Option<String>| {
        Arc::new(all.iter().map(value).collect::<StringArray>())
    };
    let column = |name, data_type| Field::new(name, data_type, true);
    let schema = Schema::new(vec![
        column("jobid", DataType::Int64),
        column("schedule", DataType::Utf8),
        column("command", DataType::Utf8),
        column("nodename", DataType::Utf8),
        column("nodeport", DataType::Int32),
        column("database", DataType::Utf8),
        column("username", DataType::Utf8),
        column("active", DataType::Boolean),
        column("jobname", DataType::Utf8),
        column("timezone", DataType::Utf8),
    ]);
    Ok(RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int64Array::from_iter_values(all.iter().map(|job| job.id))),
            text(&|job| Some(job.schedule.clone())),
            text(&|job| Some(job.command.clone())),
            text(&|_| Some("localhost".to_owned())),
            Arc::new(Int32Array::from(vec![5433; all.len()])),
            text(&|_| Some(database.to_owned())),
            text(&|job| Some(job.user.clone())),
            Arc::new(BooleanArray::from_iter(all.iter().map(|job| Some(job.is_active)))),
            text(&|job| job.name.clone()),
            text(&|job| Some(job.timezone.clone())),
        ],
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_slots_are_left_out() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let job = Job {
            id: 1,
            name: None,
            schedule: "30 2 * * *".to_owned(),
            timezone: "Asia/Shanghai".to_owned(),
            command: "VACUUM".to_owned(),
            user: "ana".to_owned(),
            is_active: true,
            settled_us: at("2024-03-01T00:00:00Z").timestamp_micros(),
        };
        let slot = at("2024-03-01T18:30:00Z");
        assert_eq!(job.due(at("2024-03-01T18:29:59Z")), Due::Not(Some(slot)));
        assert_eq!(job.due(slot), Due::Run(slot));
        assert_eq!(job.due(at("2024-03-01T19:00:00Z")), Due::Missed(slot));
        let paused = Job { is_active: false, ..job.clone() };
        assert_eq!(paused.due(slot), Due::Not(None));
        let often = Job { schedule: "30 seconds".to_owned(), ..job };
        assert_eq!(often.due(at("2024-03-01T18:29:59Z")), Due::Run(at("2024-03-01T18:29:30Z")));
    }
}
