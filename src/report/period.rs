//! The periods of a backfill.

use chrono::{Datelike, Days, Months, NaiveDate, TimeDelta};

use super::definition::Report;
use super::schedule::{Unit, day_before};
use crate::error::{Error, Kind, Result};

/// Most periods of one backfill.
const PERIODS_MAX: usize = 10_000;

/// How long a period of a backfill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A day.
    Day,
    /// From Monday to Sunday.
    Week,
    /// A calendar month.
    Month,
}

impl Step {
    /// The step of this name.
    pub fn named(name: &str) -> Result<Self> {
        match Unit::named(name) {
            Some(Unit::Day) => Ok(Self::Day),
            Some(Unit::Week) => Ok(Self::Week),
            Some(Unit::Month) => Ok(Self::Month),
            _ => Err(Error::new(
                Kind::InvalidParameter,
                format!("STEP '{name}': allowed are day, week and month"),
            )),
        }
    }

    /// The last day of the period that a day is in.
    fn end(self, day: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Day => Some(day),
            Self::Week => {
                let left = 6 - u64::from(day.weekday().num_days_from_monday());
                day.checked_add_days(Days::new(left))
            }
            Self::Month => day.with_day(1)?.checked_add_months(Months::new(1))?.pred_opt(),
        }
    }
}

/// First and last day of each period from `from` to `to`: as the step says, else one for every slot of the report's clock, else days.
/// The periods are cut to the days that were asked for, and lie one behind the other.
pub fn periods(
    report: &Report,
    from: NaiveDate,
    to: NaiveDate,
    step: Option<Step>,
) -> Result<Vec<(NaiveDate, NaiveDate)>> {
    if from > to {
        return Err(Error::new(Kind::InvalidParameter, format!("FROM {from} is after TO {to}")));
    }
    let ends = match step {
        Some(step) => by_calendar(from, to, step),
        None => by_clock(report, from, to).unwrap_or_else(|| by_calendar(from, to, Step::Day)),
    };
    if ends.len() > PERIODS_MAX {
        return Err(Error::new(
            Kind::LimitExceeded,
            format!("more than {PERIODS_MAX} periods from {from} to {to}"),
        )
        .hint("STEP 'month' makes longer ones"));
    }
    let mut first = from;
    let mut periods = Vec::with_capacity(ends.len());
    for end in ends {
        periods.push((first, end));
        first = end.succ_opt().unwrap_or(end);
    }
    Ok(periods)
}

fn by_calendar(from: NaiveDate, to: NaiveDate, step: Step) -> Vec<NaiveDate> {
    let mut ends = Vec::new();
    let mut day = Some(from);
    while let Some(first) = day.filter(|day| *day <= to) {
        let end = step.end(first).unwrap_or(to).min(to);
        ends.push(end);
        day = end.succ_opt();
        if ends.len() > PERIODS_MAX {
            break;
        }
    }
    ends
}

/// The days that the runs of a report's clock speak for; `None` when it has no clock, or none of them lies there.
fn by_clock(report: &Report, from: NaiveDate, to: NaiveDate) -> Option<Vec<NaiveDate>> {
    let zone = report.zone();
    // A day has begun somewhere before midnight UTC.
    let mut now = from.and_time(chrono::NaiveTime::MIN).and_utc() - TimeDelta::days(1);
    let mut ends: Vec<NaiveDate> = Vec::new();
    while let Some(slot) = report.schedule.next_after(now, zone) {
        let day = day_before(slot, zone);
        if day > to || ends.len() > PERIODS_MAX {
            break;
        }
        if day >= from && ends.last() != Some(&day) {
            ends.push(day);
        }
        now = slot;
    }
    (!ends.is_empty()).then_some(ends)
}

#[cfg(test)]
mod tests {
    use super::super::definition::Settings;
    use super::super::schedule::Schedule;
    use super::*;

    fn found(schedule: Schedule, from: &str, to: &str, step: Option<Step>) -> Vec<String> {
        let report = Report {
            sql: String::new(),
            written: String::new(),
            schedule,
            timezone: "Asia/Shanghai".to_owned(),
            settings: Settings::default(),
            depends_on: vec![],
            reads: vec![],
            assertions: vec![],
            export: None,
            owner: String::new(),
            scheduled_at_us: 0,
            resumed_at_us: 0,
            is_suspended: false,
        };
        let periods = periods(&report, from.parse().unwrap(), to.parse().unwrap(), step).unwrap();
        periods.iter().map(|(first, last)| format!("{first} {last}")).collect()
    }

    #[test]
    fn periods_lie_one_behind_the_other() {
        assert_eq!(
            found(Schedule::Manual, "2011-01-15", "2011-03-01", Some(Step::Month)),
            ["2011-01-15 2011-01-31", "2011-02-01 2011-02-28", "2011-03-01 2011-03-01"]
        );
        assert_eq!(
            found(Schedule::Manual, "2011-12-30", "2012-01-02", Some(Step::Week)),
            ["2011-12-30 2012-01-01", "2012-01-02 2012-01-02"]
        );
        assert_eq!(found(Schedule::Manual, "2011-12-30", "2012-01-02", None).len(), 4);
        // On Mondays at 02:30: the week up to Sunday.
        let weekly = Schedule::cron("30 2 * * 1").unwrap();
        assert_eq!(
            found(weekly, "2011-12-05", "2011-12-20", None),
            ["2011-12-05 2011-12-11", "2011-12-12 2011-12-18"]
        );
    }
}
