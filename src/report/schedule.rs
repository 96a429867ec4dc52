//! When something runs: cron patterns, every so often, after loads, or when somebody asks.

use std::str::FromStr;

use chrono::{DateTime, Days, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::store::Name;

/// Shortest time between two slots.
const SECONDS_MIN: i64 = 10;

/// When a report or a job runs. Times of the clock are those of a zone, which is kept beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// When somebody asks.
    #[default]
    Manual,
    /// At the times of a cron pattern of five fields, or six with seconds first.
    Cron(String),
    /// Every so often, counted from 1970: times of a clock from midnight UTC on, days from midnight of the zone.
    Every {
        /// How many units.
        count: u32,
        /// Of what.
        unit: Unit,
    },
    /// After rows came into one of these tables.
    AfterLoad(Vec<Name>),
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// From midnight to midnight.
    Day,
    /// Seven days, from Monday.
    Week,
    /// A calendar month.
    Month,
}

impl Unit {
    const NAMES: [(Self, &str); 6] = [
        (Self::Second, "second"),
        (Self::Minute, "minute"),
        (Self::Hour, "hour"),
        (Self::Day, "day"),
        (Self::Week, "week"),
        (Self::Month, "month"),
    ];

    /// The unit of this name, in singular or plural.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let name = name.strip_suffix('s').unwrap_or(&name);
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(unit, _)| *unit)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(unit, _)| *unit == self).map_or("", |(_, name)| name)
    }

    fn seconds(self) -> Option<i64> {
        match self {
            Self::Second => Some(1),
            Self::Minute => Some(60),
            Self::Hour => Some(3_600),
            Self::Day | Self::Week | Self::Month => None,
        }
    }
}

impl Schedule {
    /// Reads `'1 hour'`, `'2 days'`.
    pub fn every(text: &str) -> Result<Self> {
        let bad = |problem: &str| {
            Error::new(Kind::InvalidParameter, format!("EVERY '{text}': {problem}"))
                .hint("a number and a unit from seconds to months, such as '15 minutes' or '1 day'")
        };
        let mut words = text.split_whitespace();
        let (count, unit) = match (words.next(), words.next(), words.next()) {
            (Some(count), Some(unit), None) => (count, unit),
            (Some(unit), None, None) => ("1", unit),
            _ => return Err(bad("a number and a unit are needed")),
        };
        let count = count.parse().ok().filter(|n| (1..=10_000).contains(n));
        let count: u32 = count.ok_or_else(|| bad("the number is not from 1 to 10000"))?;
        let unit = Unit::named(unit).ok_or_else(|| bad("the unit is not known"))?;
        if unit.seconds().is_some_and(|seconds| seconds * i64::from(count) < SECONDS_MIN) {
            return Err(bad(&format!("{SECONDS_MIN} seconds are the least")));
        }
        Ok(Self::Every { count, unit })
    }

    /// Reads a cron pattern.
    pub fn cron(pattern: &str) -> Result<Self> {
        parsed(pattern)?;
        Ok(Self::Cron(pattern.to_owned()))
    }

    /// As it would be written.
    pub fn described(&self) -> String {
        match self {
            Self::Manual => "MANUAL".to_owned(),
            Self::Cron(pattern) => format!("CRON '{pattern}'"),
            Self::Every { count, unit } => {
                format!("EVERY '{count} {}{}'", unit.name(), if *count == 1 { "" } else { "s" })
            }
            Self::AfterLoad(tables) => {
                let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
                format!("AFTER LOAD {}", tables.join(", "))
            }
        }
    }

    /// The first slot after an instant; `None` where the clock does not say.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        match self {
            Self::Manual | Self::AfterLoad(_) => None,
            Self::Cron(pattern) => {
                let cron = parsed(pattern).ok()?;
                let next = cron.find_next_occurrence(&after.with_timezone(&zone), false).ok()?;
                Some(next.with_timezone(&Utc))
            }
            Self::Every { count, unit } => match unit.seconds() {
                Some(seconds) => {
                    let step = seconds.checked_mul(i64::from(*count))?;
                    let at =
                        after.timestamp().div_euclid(step).checked_add(1)?.checked_mul(step)?;
                    DateTime::from_timestamp(at, 0)
                }
                None => next_midnight(after, zone, *count, *unit),
            },
        }
    }

    /// The last slot up to an instant and after `settled`; `None` when there is none.
    pub fn last_until(
        &self,
        now: DateTime<Utc>,
        settled: DateTime<Utc>,
        zone: Tz,
    ) -> Option<DateTime<Utc>> {
        // Going back from now: windows that double reach any schedule in few steps.
        let mut window = TimeDelta::hours(2);
        loop {
            let from = now.checked_sub_signed(window).unwrap_or(settled).max(settled);
            let mut slot = self.next_after(from, zone).filter(|slot| *slot <= now);
            let mut last = None;
            while let Some(at) = slot {
                last = Some(at);
                slot = self.next_after(at, zone).filter(|slot| *slot <= now);
            }
            if last.is_some() || from <= settled {
                return last;
            }
            window = window.checked_mul(2)?;
        }
    }
}

/// The first midnight of a whole number of steps after an instant.
fn next_midnight(after: DateTime<Utc>, zone: Tz, count: u32, unit: Unit) -> Option<DateTime<Utc>> {
    let step = u64::from(count) * if unit == Unit::Week { 7 } else { 1 };
    let today = after.with_timezone(&zone).date_naive();
    // Weeks are counted from a Monday.
    let first = NaiveDate::from_ymd_opt(1969, 12, 29)?;
    let mut day = match unit {
        Unit::Month => today.checked_sub_months(Months::new(count))?,
        _ => today.checked_sub_days(Days::new(step))?,
    };
    for _ in 0..=2 * step.max(62) * 31 {
        day = day.succ_opt()?;
        let is_slot = match unit {
            Unit::Month => {
                use chrono::Datelike;
                let months = i64::from(day.year()) * 12 + i64::from(day.month0());
                day.day() == 1 && months % i64::from(count) == 0
            }
            Unit::Week => (day - first).num_days().rem_euclid(step as i64) == 0,
            _ => (day - NaiveDate::default()).num_days().rem_euclid(step as i64) == 0,
        };
        if is_slot {
            let at = midnight(day, zone);
            if at > after {
                return Some(at);
            }
        }
    }
    None
}

/// The first instant of a local day, which is not midnight where the clock jumps over it.
fn midnight(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let mut at = day.and_time(NaiveTime::MIN);
    for _ in 0..48 {
        if let Some(found) = zone.from_local_datetime(&at).earliest() {
            return found.with_timezone(&Utc);
        }
        at += TimeDelta::minutes(30);
    }
    Utc.from_utc_datetime(&at)
}

/// The last local day that is over at an instant.
pub fn day_before(instant: DateTime<Utc>, zone: Tz) -> NaiveDate {
    let today = instant.with_timezone(&zone).date_naive();
    today.pred_opt().unwrap_or(today)
}

fn parsed(pattern: &str) -> Result<Cron> {
    Cron::from_str(pattern).map_err(|error| {
        Error::new(Kind::InvalidParameter, format!("CRON '{pattern}': {error}"))
            .hint("minute, hour, day of month, month, day of week, such as '30 2 * * *'; a sixth field in front is seconds")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn slots(schedule: &Schedule, zone: Tz, from: &str, to: &str) -> Vec<String> {
        let (mut now, to) = (at(from), at(to));
        let mut found = Vec::new();
        while let Some(slot) = schedule.next_after(now, zone).filter(|slot| *slot <= to) {
            found.push(slot.with_timezone(&zone).format("%d %H:%M %z").to_string());
            now = slot;
        }
        found
    }

    #[test]
    fn midnight_in_shanghai_is_the_evening_before_in_utc() {
        let cron = Schedule::cron("0 0 * * *").unwrap();
        let next = cron.next_after(at("2024-03-01T15:59:59Z"), Tz::Asia__Shanghai);
        assert_eq!(next, Some(at("2024-03-01T16:00:00Z")));
        assert_eq!(
            day_before(at("2024-03-01T16:00:00Z"), Tz::Asia__Shanghai).to_string(),
            "2024-03-01"
        );
        let daily = Schedule::every("1 day").unwrap();
        assert_eq!(daily.next_after(at("2024-03-01T15:59:59Z"), Tz::Asia__Shanghai), next);
    }

    /// 02:30 does not exist on 31 March 2024 in Berlin, and exists twice on 27 October: one run each.
    #[test]
    fn a_day_has_one_run_when_the_clock_is_changed() {
        let cron = Schedule::cron("30 2 * * *").unwrap();
        let berlin = Tz::Europe__Berlin;
        assert_eq!(
            slots(&cron, berlin, "2024-03-30T00:00:00Z", "2024-04-01T12:00:00Z"),
            ["30 02:30 +0100", "31 03:00 +0200", "01 02:30 +0200"]
        );
        assert_eq!(
            slots(&cron, berlin, "2024-10-26T00:00:00Z", "2024-10-28T12:00:00Z"),
            ["26 02:30 +0200", "27 02:30 +0200", "28 02:30 +0100"]
        );
        let daily = Schedule::every("1 day").unwrap();
        assert_eq!(slots(&daily, berlin, "2024-03-29T12:00:00Z", "2024-04-01T12:00:00Z").len(), 3);
        // By the clock an hour is an hour: 23 and 25 of them.
        let hourly = Schedule::every("1 hour").unwrap();
        assert_eq!(
            slots(&hourly, berlin, "2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z").len(),
            23
        );
        assert_eq!(
            slots(&hourly, berlin, "2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z").len(),
            25
        );
    }

    #[test]
    fn the_last_slot_is_found_however_far_back() {
        let yearly = Schedule::cron("0 5 1 1 *").unwrap();
        let last =
            yearly.last_until(at("2024-12-30T00:00:00Z"), at("2020-06-01T00:00:00Z"), Tz::UTC);
        assert_eq!(last, Some(at("2024-01-01T05:00:00Z")));
        let none =
            yearly.last_until(at("2024-12-30T00:00:00Z"), at("2024-01-01T05:00:00Z"), Tz::UTC);
        assert_eq!(none, None);
        let monthly = Schedule::every("3 months").unwrap();
        let last =
            monthly.last_until(at("2024-12-30T00:00:00Z"), at("2020-06-01T00:00:00Z"), Tz::UTC);
        assert_eq!(last, Some(at("2024-10-01T00:00:00Z")));
        let weekly = Schedule::every("week").unwrap();
        let last =
            weekly.last_until(at("2024-12-30T00:00:00Z"), at("2020-06-01T00:00:00Z"), Tz::UTC);
        assert_eq!(last, Some(at("2024-12-30T00:00:00Z")));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["0 hours", "soon", "5 seconds", "1 fortnight", "1 2 3"] {
            assert_eq!(Schedule::every(text).unwrap_err().sqlstate(), "22023", "{text}");
        }
        for pattern in ["61 * * * *", "", "* * *", "every day"] {
            assert_eq!(Schedule::cron(pattern).unwrap_err().sqlstate(), "22023", "{pattern}");
        }
    }
}
