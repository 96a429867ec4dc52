//! Whether a report has to run now, and what a failure means for the next time.

use std::collections::VecDeque;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::day_before;
use super::definition::{CatchUp, Mode, Report};
use super::progress::{Outcome, Progress};
use super::schedule::Schedule;
use crate::error::{Error, Kind};
use crate::store::Name;

/// First day of a report that begins at the beginning of everything.
pub const FIRST_DAY: NaiveDate = match NaiveDate::from_ymd_opt(1700, 1, 1) {
    Some(day) => day,
    None => NaiveDate::MIN,
};

/// Slots that fail one after the other before a report is stopped until somebody looks at it.
pub const FAILURES_MAX: u32 = 5;

/// Where missed slots are not caught up, one is missed when it is this long past.
const GRACE: TimeDelta = TimeDelta::minutes(1);

/// How long no more rows may come before a load starts a report: loads of many files are one.
pub const QUIET: TimeDelta = TimeDelta::seconds(10);

/// Most slots that are looked through for those that were missed.
const SLOTS_MAX: usize = 200_000;

/// What is to be done about a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing, and the clock will not change that before then.
    Not(Option<DateTime<Utc>>),
    /// A run for this slot.
    Run(DateTime<Utc>),
    /// Slots up to this one were missed, and stay so.
    Missed(DateTime<Utc>),
}

/// What is to be done about report `name` at an instant, as far as its clock says.
pub fn due(name: &Name, report: &Report, progress: &Progress, now: DateTime<Utc>) -> Due {
    if report.is_suspended || progress.is_stopped(report) {
        return Due::Not(None);
    }
    let zone = report.zone();
    let scheduled = DateTime::from_timestamp_micros(report.scheduled_at_us).unwrap_or_default();
    let settled = progress.settled().unwrap_or(scheduled).max(scheduled);
    let retry = progress.retry_slot_us.zip(progress.retry_at_us).and_then(|(slot, at)| {
        Some((DateTime::from_timestamp_micros(slot)?, DateTime::from_timestamp_micros(at)?))
    });
    let next = || report.schedule.next_after(now, zone);
    let slot = match report.settings.catchup {
        CatchUp::All => oldest_missed(report, settled, now),
        CatchUp::Latest | CatchUp::None => report.schedule.last_until(now, settled, zone),
    };
    let jitter = TimeDelta::seconds(jitter_s(name, report.settings.jitter_s));
    match (slot, retry) {
        // A newer slot takes the place of one that is tried again, except where each has to be run.
        (Some(slot), Some((again, at))) if slot <= again => when(at, now, again),
        (None, Some((again, at))) => when(at, now, again),
        (Some(slot), _) => {
            let is_missed = now - slot > GRACE + jitter;
            if report.settings.catchup == CatchUp::None && is_missed {
                return Due::Missed(slot);
            }
            when(slot + jitter, now, slot)
        }
        (None, None) => Due::Not(next()),
    }
}

fn when(at: DateTime<Utc>, now: DateTime<Utc>, slot: DateTime<Utc>) -> Due {
    if now < at { Due::Not(Some(at)) } else { Due::Run(slot) }
}

/// The oldest of the newest `catchup_max` slots that are not done with.
fn oldest_missed(
    report: &Report,
    settled: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let zone = report.zone();
    let most = report.settings.catchup_max.max(1) as usize;
    let mut missed = VecDeque::new();
    let mut slot = report.schedule.next_after(settled, zone).filter(|slot| *slot <= now);
    let mut looked_at = 0;
    while let Some(at) = slot {
        missed.push_back(at);
        if missed.len() > most {
            missed.pop_front();
        }
        looked_at += 1;
        if looked_at >= SLOTS_MAX {
            break;
        }
        slot = report.schedule.next_after(at, zone).filter(|slot| *slot <= now);
    }
    missed.pop_front()
}

/// Seconds after its slot that a report begins: always the same for one report.
fn jitter_s(name: &Name, most: u64) -> i64 {
    let hash = blake3::hash(name.noted("jitter").table.as_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first).checked_rem(most).and_then(|s| i64::try_from(s).ok()).unwrap_or(0)
}

/// What a failure says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It may be gone in a while.
    Passing,
    /// The query or the rows: the same would happen again.
    Lasting,
    /// Something that the query reads is not there any more, or is something else.
    Invalid,
}

impl Trouble {
    /// What `error` says.
    pub fn of(error: &Error) -> Self {
        match error.kind() {
            Kind::Io
            | Kind::DiskFull
            | Kind::OutOfMemory
            | Kind::TooManyConnections
            | Kind::Serialization
            | Kind::StaleBase
            | Kind::OutcomeUnknown
            | Kind::Shutdown
            | Kind::Cancelled => Self::Passing,
            Kind::UndefinedTable
            | Kind::UndefinedColumn
            | Kind::UndefinedFunction
            | Kind::UndefinedObject
            | Kind::UndefinedSchema
            | Kind::DatatypeMismatch
            | Kind::AmbiguousColumn
            | Kind::WrongObjectType
            | Kind::NotAllowed => Self::Invalid,
            _ => Self::Lasting,
        }
    }
}

/// How long after its failure a run is tried again: from 10 seconds, doubled each time, to 10 minutes.
pub fn backoff(attempt: u32) -> TimeDelta {
    TimeDelta::seconds((10_i64 << attempt.min(6)).min(600))
}

impl Progress {
    /// A run for `slot` and the day `as_of` has failed. Without a slot somebody asked for it, and was told.
    pub fn failed(
        &mut self,
        slot: Option<DateTime<Utc>>,
        as_of: NaiveDate,
        error: &Error,
        retries: u32,
        now: DateTime<Utc>,
    ) {
        self.error_code = Some(error.sqlstate().to_owned());
        self.error = Some(error.message().to_owned());
        let trouble = Trouble::of(error);
        if let (Trouble::Passing, Some(slot), true) = (trouble, slot, self.attempt < retries) {
            self.outcome = Outcome::Retrying;
            self.retry_slot_us = Some(slot.timestamp_micros());
            self.retry_at_us = Some((now + backoff(self.attempt)).timestamp_micros());
            self.attempt += 1;
            return;
        }
        self.outcome = match trouble {
            Trouble::Invalid => Outcome::Invalid,
            _ => Outcome::Failed,
        };
        if slot.is_some() {
            self.failed_asof = self.failed_asof.max(Some(as_of));
            // That it runs at all says that somebody has let it go on.
            if self.stopped_at_us.take().is_some() {
                self.failures = 0;
            }
            self.failures += 1;
            self.stopped_at_us = (self.failures >= FAILURES_MAX).then(|| now.timestamp_micros());
        }
        self.settle(slot);
    }

    /// A run for `slot` did not take place, for something that it depends on has failed.
    pub fn upstream_failed(&mut self, slot: DateTime<Utc>, as_of: NaiveDate, error: &Error) {
        self.error_code = Some(error.sqlstate().to_owned());
        self.error = Some(error.message().to_owned());
        self.outcome = Outcome::UpstreamFailed;
        self.failed_asof = self.failed_asof.max(Some(as_of));
        self.settle(Some(slot));
    }

    /// The day that the rows speak for, up to which none is left out, once those of a run for `from` to `as_of` are among them.
    pub fn reached(
        &self,
        report: &Report,
        (from, as_of): (NaiveDate, NaiveDate),
        started: DateTime<Utc>,
    ) -> Option<NaiveDate> {
        let whole = day_before(started, report.zone());
        match (report.settings.mode, self.data_asof) {
            (Mode::Replace | Mode::Audience, _) => Some(as_of),
            // One of a day to come says nothing of the days before it.
            (Mode::Snapshot, before) if as_of > whole => before,
            (Mode::Snapshot, before) => before.max(Some(as_of)),
            // Of today and of days to come not everything is known: they are computed again.
            (Mode::Incremental, None) if from <= FIRST_DAY => Some(as_of.min(whole)),
            (Mode::Incremental, Some(day)) if day.succ_opt().is_some_and(|next| from <= next) => {
                Some(day.max(as_of.min(whole)))
            }
            // There are days before, or between, that nobody has asked for.
            (Mode::Incremental, before) => before,
        }
    }

    /// A run has published its rows, which speak for `data_asof` now.
    pub fn succeeded(
        &mut self,
        slot: Option<DateTime<Utc>>,
        data_asof: Option<NaiveDate>,
        generation: u64,
        now: DateTime<Utc>,
    ) {
        self.outcome = Outcome::Succeeded;
        (self.error_code, self.error) = (None, None);
        self.succeeded_at_us = Some(now.timestamp_micros());
        self.data_asof = data_asof;
        self.data_generation = Some(generation);
        (self.failures, self.stopped_at_us) = (0, None);
        self.settle(slot);
    }

    /// Slots up to this one are done with.
    pub fn settle(&mut self, slot: Option<DateTime<Utc>>) {
        if let Some(slot) = slot {
            self.settled_us = self.settled_us.max(Some(slot.timestamp_micros()));
            (self.retry_slot_us, self.retry_at_us, self.attempt) = (None, None, 0);
        }
    }

    /// What stands between a report that depends on this one and its run for a day.
    pub fn stands_in_the_way(&self, upstream: &Report, as_of: NaiveDate) -> Option<InTheWay> {
        let has_failed = self.failed_asof.is_some_and(|day| day >= as_of);
        let ended_badly =
            matches!(self.outcome, Outcome::Failed | Outcome::Invalid | Outcome::UpstreamFailed);
        if self.data_asof.is_some_and(|day| day >= as_of) {
            // Of a report that runs several times a day the last run counts.
            return (has_failed && ended_badly).then_some(InTheWay::Failed);
        }
        // Without a clock it has no day that it ought to be at.
        let has_clock = matches!(upstream.schedule, Schedule::Cron(_) | Schedule::Every { .. });
        if !has_clock {
            return (!self.is_populated()).then_some(InTheWay::Waiting);
        }
        let will_not = upstream.is_suspended || self.is_stopped(upstream) || has_failed;
        Some(if will_not { InTheWay::Failed } else { InTheWay::Waiting })
    }
}

/// What an upstream report does to those that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InTheWay {
    /// It will run yet.
    Waiting,
    /// It will not.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::super::definition::Settings;
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn report(schedule: Schedule, timezone: &str, catchup: CatchUp) -> Report {
        Report {
            sql: "SELECT 1".to_owned(),
            written: String::new(),
            schedule,
            timezone: timezone.to_owned(),
            settings: Settings { catchup, ..Settings::default() },
            depends_on: vec![],
            reads: vec![],
            assertions: vec![],
            export: None,
            owner: "ana".to_owned(),
            scheduled_at_us: at("2024-01-01T00:00:00Z").timestamp_micros(),
            resumed_at_us: 0,
            is_suspended: false,
        }
    }

    /// The slots that a server runs whose clock shows these times, one look after the other; every run succeeds.
    fn runs(report: &Report, looks: impl IntoIterator<Item = DateTime<Utc>>) -> Vec<String> {
        let name = Name::new("public", "r");
        let mut progress = Progress::default();
        let mut found = Vec::new();
        for now in looks {
            loop {
                match due(&name, report, &progress, now) {
                    Due::Run(slot) => {
                        found.push(slot.format("%m-%d %H:%M").to_string());
                        let day = super::super::day_before(slot, report.zone());
                        progress.succeeded(Some(slot), Some(day), 1, now);
                    }
                    Due::Missed(slot) => progress.settle(Some(slot)),
                    Due::Not(_) => break,
                }
            }
        }
        found
    }

    /// Looks every half minute.
    fn looks(from: &str, to: &str) -> impl Iterator<Item = DateTime<Utc>> {
        let (from, to) = (at(from), at(to));
        (0..).map(move |i| from + TimeDelta::seconds(30 * i)).take_while(move |now| *now <= to)
    }

    #[test]
    fn a_week_down_is_caught_up_as_was_said() {
        let daily = |catchup| report(Schedule::cron("30 2 * * *").unwrap(), "UTC", catchup);
        let away = || {
            looks("2024-03-01T00:00:00Z", "2024-03-02T12:00:00Z")
                .chain(looks("2024-03-09T12:00:00Z", "2024-03-10T12:00:00Z"))
        };
        // Made in January: on the first look only the newest slot counts.
        let newest = ["02-29 02:30", "03-01 02:30", "03-02 02:30", "03-09 02:30", "03-10 02:30"];
        assert_eq!(runs(&daily(CatchUp::Latest), away()), newest);
        assert_eq!(
            runs(&daily(CatchUp::None), away()),
            ["03-01 02:30", "03-02 02:30", "03-10 02:30"]
        );
        let mut all = daily(CatchUp::All);
        all.settings.catchup_max = 4;
        assert_eq!(
            runs(&all, looks("2024-03-09T12:00:00Z", "2024-03-10T12:00:00Z")),
            ["03-06 02:30", "03-07 02:30", "03-08 02:30", "03-09 02:30", "03-10 02:30"]
        );
    }

    #[test]
    fn rows_speak_for_the_day_that_they_reach() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let started = at("2024-03-10T12:00:00Z");
        let mut report = report(Schedule::Manual, "UTC", CatchUp::None);
        let mut progress = Progress::default();
        let mut reached = |mode, from: &str, as_of: &str| {
            report.settings.mode = mode;
            let reached = progress.reached(&report, (day(from), day(as_of)), started);
            progress.data_asof = reached;
            reached.map_or("none".to_owned(), |day| day.to_string())
        };
        // Rows that are replaced are those of the run, whatever was before.
        assert_eq!(reached(Mode::Replace, "2024-03-05", "2024-03-05"), "2024-03-05");
        assert_eq!(reached(Mode::Replace, "2024-03-01", "2024-03-01"), "2024-03-01");
        assert_eq!(reached(Mode::Snapshot, "2024-02-01", "2024-02-01"), "2024-03-01");
        assert_eq!(reached(Mode::Snapshot, "2030-01-01", "2030-01-01"), "2024-03-01");
        // Days in between, today and tomorrow are still to come.
        assert_eq!(reached(Mode::Incremental, "2024-03-04", "2024-03-06"), "2024-03-01");
        assert_eq!(reached(Mode::Incremental, "2024-03-02", "2024-03-06"), "2024-03-06");
        assert_eq!(reached(Mode::Incremental, "2024-01-01", "2024-01-31"), "2024-03-06");
        assert_eq!(reached(Mode::Incremental, "2024-03-07", "2062-01-01"), "2024-03-09");
    }

    #[test]
    fn a_clock_that_jumps_runs_nothing_twice() {
        let daily = report(Schedule::cron("30 2 * * *").unwrap(), "UTC", CatchUp::None);
        let forth_and_back = looks("2024-03-01T00:00:00Z", "2024-03-01T12:00:00Z")
            .chain(looks("2024-03-02T12:00:00Z", "2024-03-03T06:00:00Z"))
            .chain(looks("2024-03-02T06:00:00Z", "2024-03-04T06:00:00Z"));
        assert_eq!(runs(&daily, forth_and_back), ["03-01 02:30", "03-03 02:30", "03-04 02:30"]);
    }

    /// Each local day has its run, whatever its length.
    #[test]
    fn both_changes_of_the_clock_in_berlin() {
        let daily = report(Schedule::cron("30 2 * * *").unwrap(), "Europe/Berlin", CatchUp::None);
        assert_eq!(
            runs(&daily, looks("2024-03-29T12:00:00Z", "2024-04-01T12:00:00Z")),
            ["03-30 01:30", "03-31 01:00", "04-01 00:30"]
        );
        assert_eq!(
            runs(&daily, looks("2024-10-25T12:00:00Z", "2024-10-28T12:00:00Z")),
            ["10-26 00:30", "10-27 00:30", "10-28 01:30"]
        );
        let shanghai = report(Schedule::cron("0 0 * * *").unwrap(), "Asia/Shanghai", CatchUp::None);
        assert_eq!(
            runs(&shanghai, looks("2024-03-01T12:00:00Z", "2024-03-02T18:00:00Z")),
            ["03-01 16:00", "03-02 16:00"]
        );
    }

    #[test]
    fn passing_failures_are_tried_again_and_lasting_ones_stop_the_report_in_the_end() {
        let report = report(Schedule::cron("0 2 * * *").unwrap(), "UTC", CatchUp::Latest);
        let name = Name::new("public", "r");
        let slot = at("2024-03-01T02:00:00Z");
        let day = slot.date_naive();
        let full = Error::new(Kind::DiskFull, "no space left");
        let mut progress = Progress::default();
        for (attempt, seconds) in [10, 20, 40].into_iter().enumerate() {
            assert_eq!(
                due(&name, &report, &progress, slot),
                if attempt == 0 { Due::Run(slot) } else { due(&name, &report, &progress, slot) }
            );
            progress.failed(Some(slot), day, &full, 3, slot);
            let again = slot + TimeDelta::seconds(seconds);
            assert_eq!(due(&name, &report, &progress, slot), Due::Not(Some(again)));
            assert_eq!(due(&name, &report, &progress, again), Due::Run(slot));
        }
        progress.failed(Some(slot), day, &full, 3, slot);
        assert_eq!((progress.outcome, progress.failures), (Outcome::Failed, 1));
        let next = at("2024-03-02T02:00:00Z");
        assert_eq!(due(&name, &report, &progress, slot), Due::Not(Some(next)));
        let wrong = Error::new(Kind::UndefinedColumn, "column \"x\" does not exist");
        for later in 1..FAILURES_MAX {
            let slot = slot + TimeDelta::days(i64::from(later));
            assert_eq!(due(&name, &report, &progress, slot), Due::Run(slot));
            progress.failed(Some(slot), slot.date_naive(), &wrong, 3, slot);
            assert_eq!(progress.outcome, Outcome::Invalid);
        }
        assert!(progress.is_stopped(&report));
        assert_eq!(due(&name, &report, &progress, at("2024-04-01T00:00:00Z")), Due::Not(None));
        // Somebody lets it go on; one more failure is one.
        let now = at("2024-04-01T12:00:00Z");
        let resumed = Report { resumed_at_us: now.timestamp_micros(), ..report };
        let slot = at("2024-04-01T02:00:00Z");
        assert_eq!(due(&name, &resumed, &progress, now), Due::Run(slot));
        progress.failed(Some(slot), slot.date_naive(), &wrong, 3, now);
        assert_eq!((progress.failures, progress.is_stopped(&resumed)), (1, false));
    }

    #[test]
    fn a_report_waits_for_those_it_depends_on() {
        let upstream = report(Schedule::cron("0 2 * * *").unwrap(), "UTC", CatchUp::Latest);
        let day = at("2024-03-01T00:00:00Z").date_naive();
        let mut progress = Progress::default();
        assert_eq!(progress.stands_in_the_way(&upstream, day), Some(InTheWay::Waiting));
        progress.failed_asof = Some(day);
        assert_eq!(progress.stands_in_the_way(&upstream, day), Some(InTheWay::Failed));
        progress.succeeded(None, Some(day), 1, at("2024-03-02T03:00:00Z"));
        assert_eq!(progress.stands_in_the_way(&upstream, day), None);
        let manual = Report { schedule: Schedule::Manual, ..upstream };
        let later = day.succ_opt().unwrap();
        assert_eq!(progress.stands_in_the_way(&manual, later), None);
        assert_eq!(Progress::default().stands_in_the_way(&manual, day), Some(InTheWay::Waiting));
    }

    #[test]
    fn jitter_is_within_its_bounds_and_stays() {
        let name = Name::new("public", "r");
        assert_eq!(jitter_s(&name, 0), 0);
        assert!((0..120).contains(&jitter_s(&name, 120)));
        assert_eq!(jitter_s(&name, 120), jitter_s(&name, 120));
    }
}
