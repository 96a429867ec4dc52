//! What a report is: its query, when it runs, and what a run does with its rows.

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use super::status::audience_of;
use crate::error::{Error, Kind, Result, nearest};
use crate::store::{Change, Generation, Name, REPORTS, Relation};

/// A materialized view, as its note keeps it. Its rows are the table of its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The query, with everything folded in that a session could change.
    pub sql: String,
    /// The query as it was written, for those who want to read it.
    pub written: String,
    /// When it runs.
    pub schedule: Schedule,
    /// Zone of its clock and of its days.
    pub timezone: String,
    /// What a run does.
    pub settings: Settings,
    /// Relations that must be there, and reports that must have run for the day before it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Name>,
    /// Relations that the query reads, also those that it names in texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Name>,
    /// What must hold of the rows of a run before they are published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assertions: Vec<Assertion>,
    /// File below a folder of `export.roots` that a run that has succeeded writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// Who made it: its runs are theirs.
    pub owner: String,
    /// When it got its schedule, in microseconds since 1970: slots from before are none of its.
    pub scheduled_at_us: i64,
    /// When somebody said last that it should go on.
    #[serde(default)]
    pub resumed_at_us: i64,
    /// Whether its schedule is held by hand.
    #[serde(default)]
    pub is_suspended: bool,
}

/// A condition on the rows of a run, which are the relation `staged`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// What it is called when it fails.
    pub name: String,
    /// A query of one boolean.
    pub sql: String,
}

/// What a run does with its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They take the place of all others.
    #[default]
    Replace,
    /// They take the place of those of the same `as_of`, which is a column; every day stays.
    Snapshot,
    /// They take the place of those of the days that were computed anew.
    Incremental,
    /// They are the members of an audience; who came and who went is kept, version by version.
    Audience,
}

/// What becomes of slots that nobody was there for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// The newest one is run.
    #[default]
    Latest,
    /// All are run, the oldest first.
    All,
    /// They are left out.
    None,
}

/// The `WITH (...)` of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What becomes of the rows from before.
    pub mode: Mode,
    /// What becomes of missed slots.
    pub catchup: CatchUp,
    /// Of missed slots at most so many are run.
    pub catchup_max: u32,
    /// How often a run is tried again that failed for a passing reason.
    pub retries: u32,
    /// Seconds a run may take; 0 is no limit.
    pub timeout_s: u64,
    /// Seconds that a run may begin after its slot, so that many of one time do not begin at once.
    pub jitter_s: u64,
    /// In mode incremental, the column of days by which rows are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// In mode incremental, days before the new ones that are computed again.
    pub lookback_days: u32,
    /// Whether it runs although a report that it depends on has failed.
    pub allow_stale: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Replace,
            catchup: CatchUp::Latest,
            catchup_max: 366,
            retries: 3,
            timeout_s: 0,
            jitter_s: 0,
            time: None,
            lookback_days: 0,
            allow_stale: false,
        }
    }
}

const NAMES: [&str; 9] = [
    "mode",
    "catchup",
    "catchup_max",
    "retries",
    "timeout",
    "jitter",
    "time",
    "lookback",
    "allow_stale",
];

impl Settings {
    /// Takes one `name = value` of WITH.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let bad = |allowed: &str| {
            Error::new(Kind::InvalidParameter, format!("{name} = '{value}': {allowed}"))
        };
        let number = |most: u32| {
            let number = value.parse().ok().filter(|n: &u32| *n <= most);
            number.ok_or_else(|| bad(&format!("a whole number up to {most} is needed")))
        };
        match name {
            "mode" => {
                self.mode = match value {
                    "replace" => Mode::Replace,
                    "append" | "snapshot" => Mode::Snapshot,
                    "incremental" => Mode::Incremental,
                    _ => return Err(bad("allowed are replace, append, snapshot, incremental")),
                }
            }
            "catchup" => {
                self.catchup = match value {
                    "latest" => CatchUp::Latest,
                    "all" => CatchUp::All,
                    "none" => CatchUp::None,
                    _ => return Err(bad("allowed are latest, all, none")),
                }
            }
            "catchup_max" => self.catchup_max = number(10_000)?,
            "retries" => self.retries = number(100)?,
            "timeout" => {
                self.timeout_s =
                    seconds(value).ok_or_else(|| bad("a duration such as '30 min' is needed"))?
            }
            "jitter" => {
                self.jitter_s =
                    seconds(value).ok_or_else(|| bad("a duration such as '2 min' is needed"))?
            }
            "time" => self.time = Some(value.to_owned()),
            "lookback" => {
                let days = value.strip_suffix("days").or_else(|| value.strip_suffix("day"));
                let days = days.unwrap_or(value).trim();
                let days = days.parse().ok().filter(|days: &u32| *days <= 3_660);
                self.lookback_days =
                    days.ok_or_else(|| bad("days up to 3660 are needed, such as '3 days'"))?;
            }
            "allow_stale" => {
                self.allow_stale = match value {
                    "true" | "on" => true,
                    "false" | "off" => false,
                    _ => return Err(bad("allowed are true and false")),
                }
            }
            _ => {
                let error = Error::new(
                    Kind::InvalidParameter,
                    format!("a materialized view has no setting \"{name}\""),
                );
                return Err(match nearest(name, &NAMES.map(str::to_owned)) {
                    Some(near) => error.hint(format!("perhaps you mean {near}")),
                    None => error.detail(format!("settings: {}", NAMES.join(", "))),
                });
            }
        }
        Ok(())
    }

    /// The settings of an audience: its mode is no matter of choice.
    pub fn of_audience(mut self) -> Result<Self> {
        if self.mode != Mode::Replace {
            return Err(Error::new(
                Kind::InvalidParameter,
                "an audience has no mode: it keeps who came and who went",
            ));
        }
        self.mode = Mode::Audience;
        Ok(self)
    }

    /// Refuses settings that do not go together.
    pub fn check(&self) -> Result<()> {
        let is_incremental = self.mode == Mode::Incremental;
        if is_incremental != self.time.is_some() {
            return Err(Error::new(
                Kind::InvalidParameter,
                "mode = 'incremental' and time = 'column' go together: rows are replaced by the days of that column",
            ));
        }
        if self.lookback_days > 0 && !is_incremental {
            return Err(Error::new(
                Kind::InvalidParameter,
                "lookback belongs to mode = 'incremental'",
            ));
        }
        Ok(())
    }
}

/// Seconds of `30 min`, `2h`, `45 seconds`; a bare number is seconds.
fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        _ => return None,
    };
    number.checked_mul(unit).filter(|seconds| *seconds <= 30 * 86_400)
}

impl Report {
    /// The definition of `name`; `None` when that is no materialized view.
    pub fn of(state: &Generation, name: &Name) -> Result<Option<Self>> {
        match state.note(&name.noted(REPORTS)) {
            Some(note) => Ok(Some(serde_json::from_value(note.clone())?)),
            None => Ok(None),
        }
    }

    /// As [`Self::of`], for one that has to be there.
    ///
    /// # Errors
    /// 42P01 when nothing has that name, 42809 when it is something else.
    pub fn existing(state: &Generation, name: &Name) -> Result<Self> {
        if let Some(report) = Self::of(state, name)? {
            return Ok(report);
        }
        Err(match state.relations.contains_key(name) {
            true => {
                Error::new(Kind::WrongObjectType, format!("\"{name}\" is not a materialized view"))
            }
            false => Error::new(
                Kind::UndefinedTable,
                match audience_of(name) {
                    audience if audience == *name => {
                        format!("materialized view \"{name}\" does not exist")
                    }
                    audience => format!(
                        "there is no audience \"{audience}\", and no materialized view \"{name}\""
                    ),
                },
            )
            .hint("SELECT name FROM reports.status lists those that there are"),
        })
    }

    /// The note that keeps it.
    pub fn noted(&self) -> Result<Change> {
        Ok(Change::Set(Relation::Note(serde_json::to_value(self)?)))
    }

    /// Something that it reads, or whose loads start it, and that is not there any more.
    pub fn misses(&self, state: &Generation) -> Option<&Name> {
        let loads = match &self.schedule {
            Schedule::AfterLoad(tables) => tables.as_slice(),
            _ => &[],
        };
        self.reads.iter().chain(loads).find(|name| !state.relations.contains_key(*name))
    }

    /// Its zone.
    pub fn zone(&self) -> Tz {
        self.timezone.parse().unwrap_or(Tz::UTC)
    }
}

/// Every report of a state, by name.
pub fn definitions(state: &Generation) -> Result<Vec<(Name, Report)>> {
    let notes = state.relations.iter().filter(|(name, _)| name.schema == REPORTS);
    let mut found = Vec::new();
    for (note, relation) in notes {
        if let (Some(name), Relation::Note(value)) = (Name::of_note(note), relation) {
            found.push((name, serde_json::from_value(value.clone())?));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_checked() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("mode", "incremental"),
            ("time", "day"),
            ("lookback", "3 days"),
            ("timeout", "30min"),
            ("jitter", "2 min"),
            ("retries", "5"),
            ("catchup", "all"),
        ] {
            settings.set(name, value).unwrap();
        }
        settings.check().unwrap();
        assert_eq!(
            (settings.lookback_days, settings.timeout_s, settings.jitter_s),
            (3, 1_800, 120)
        );
        let error = settings.set("retrys", "5").unwrap_err();
        assert_eq!(
            (error.sqlstate(), error.hint_text()),
            ("22023", Some("perhaps you mean retries"))
        );
        assert_eq!(settings.set("mode", "sometimes").unwrap_err().sqlstate(), "22023");
        settings.time = None;
        assert_eq!(settings.check().unwrap_err().sqlstate(), "22023");
    }
}
