//! Time zones: instants to local times and back, fast for many values in a row.

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::error::Result;

use crate::BadArgument;

pub(crate) const US_PER_SECOND: i64 = 1_000_000;
pub(crate) const US_PER_MINUTE: i64 = 60 * US_PER_SECOND;
pub(crate) const US_PER_HOUR: i64 = 60 * US_PER_MINUTE;
pub(crate) const US_PER_DAY: i64 = 24 * US_PER_HOUR;

/// The zone of an IANA name, or of a fixed offset as `+08`, `+08:00` or `UTC+8` is not: PostgreSQL turns the sign of those.
///
/// # Errors
/// [`BadArgument`] for a name that IANA does not know.
pub fn parse_zone(function: &'static str, name: &str) -> Result<Tz> {
    let known = name.parse().ok().or_else(|| {
        let is_utc = ["utc", "gmt", "z"].contains(&name.to_lowercase().as_str());
        is_utc.then_some(Tz::UTC)
    });
    let known = known.or_else(|| {
        chrono_tz::TZ_VARIANTS.iter().find(|tz| tz.name().eq_ignore_ascii_case(name)).copied()
    });
    known.ok_or_else(|| {
        BadArgument::err(
            function,
            "zone",
            format!("{name:?} is not an IANA time zone such as 'Asia/Shanghai' or 'UTC'"),
        )
    })
}

/// Days whose offsets are remembered: a few years, of rows in any order.
const DAYS_KEPT: usize = 1024;

/// Turns instants into local times of a zone and back, remembering the offsets of days on which they do not change, and of the last
/// quarter of an hour: offsets change on whole quarters.
#[derive(Debug)]
pub(crate) struct ZoneClock {
    zone: Tz,
    /// By the day, counted in rounds: which day, and its offset, if it has one only.
    days: Vec<(i64, Option<i64>)>,
    quarter: i64,
    offset_us: i64,
    local_quarter: i64,
    local_offset_us: i64,
}

impl ZoneClock {
    pub(crate) fn new(zone: Tz) -> Self {
        let days = if zone == Tz::UTC { vec![] } else { vec![(i64::MIN, None); DAYS_KEPT] };
        let never = i64::MIN;
        Self { zone, days, quarter: never, offset_us: 0, local_quarter: never, local_offset_us: 0 }
    }

    fn offset_at(&self, at_us: i64) -> i64 {
        DateTime::from_timestamp(at_us.div_euclid(US_PER_SECOND), 0).map_or(0, |utc| {
            let offset = self.zone.offset_from_utc_datetime(&utc.naive_utc()).fix();
            i64::from(offset.local_minus_utc()) * US_PER_SECOND
        })
    }

    /// The offset of a whole day of UTC; `None` when it changes on it.
    fn offset_of_day(&mut self, day: i64) -> Option<i64> {
        let kept = day.rem_euclid(DAYS_KEPT as i64) as usize;
        if self.days[kept].0 != day {
            let (begin, end) = (day.saturating_mul(US_PER_DAY), day.saturating_add(1));
            let offsets = (self.offset_at(begin), self.offset_at(end.saturating_mul(US_PER_DAY)));
            // No clock was ever changed and changed back on one day.
            self.days[kept] = (day, (offsets.0 == offsets.1).then_some(offsets.0));
        }
        self.days[kept].1
    }

    /// The zone's clock at an instant, both in microseconds.
    pub(crate) fn local(&mut self, at_us: i64) -> i64 {
        if self.days.is_empty() {
            return at_us;
        }
        if let Some(offset_us) = self.offset_of_day(at_us.div_euclid(US_PER_DAY)) {
            return at_us.saturating_add(offset_us);
        }
        let quarter = at_us.div_euclid(US_PER_HOUR / 4);
        if quarter != self.quarter {
            self.quarter = quarter;
            self.offset_us = self.offset_at(at_us);
        }
        at_us.saturating_add(self.offset_us)
    }

    /// The instant at which the zone's clock shows `local_us`.
    ///
    /// As in PostgreSQL, a time that occurs twice when clocks go back is the second one, in standard time, and one that is
    /// skipped when they go forward is read with the offset from before.
    pub(crate) fn instant(&mut self, local_us: i64) -> i64 {
        let quarter = local_us.div_euclid(US_PER_HOUR / 4);
        if quarter != self.local_quarter {
            self.local_quarter = quarter;
            self.local_offset_us = DateTime::from_timestamp(local_us.div_euclid(US_PER_SECOND), 0)
                .map_or(0, |local| self.offset_of_local(local.naive_utc()));
        }
        local_us.saturating_sub(self.local_offset_us)
    }

    fn offset_of_local(&self, local: NaiveDateTime) -> i64 {
        let offset = match self.zone.offset_from_local_datetime(&local) {
            LocalResult::Single(offset) | LocalResult::Ambiguous(_, offset) => offset.fix(),
            LocalResult::None => {
                let before = local - chrono::TimeDelta::hours(3);
                self.zone.offset_from_utc_datetime(&before).fix()
            }
        };
        i64::from(offset.local_minus_utc()) * US_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
    }

    /// Each expectation was read off PostgreSQL 15.18 (`timestamp AT TIME ZONE 'Europe/Berlin'`).
    #[test]
    fn times_that_occur_twice_or_never_are_read_as_postgresql_reads_them() {
        let mut berlin = ZoneClock::new(Tz::Europe__Berlin);
        assert_eq!(berlin.instant(us("2024-07-01 12:00")), us("2024-07-01 10:00"));
        assert_eq!(berlin.instant(us("2024-10-27 02:30")), us("2024-10-27 01:30"));
        assert_eq!(berlin.instant(us("2024-03-31 02:30")), us("2024-03-31 01:30"));
        assert_eq!(berlin.local(us("2024-03-31 01:30")), us("2024-03-31 03:30"));
    }

    /// Hour by hour over years with changes of all kinds, forward and back, the clock is the zone's own.
    #[test]
    fn remembered_offsets_are_the_zones_own() {
        for zone in
            [Tz::Europe__Berlin, Tz::Asia__Shanghai, Tz::Africa__Casablanca, Tz::Pacific__Apia]
        {
            let mut clock = ZoneClock::new(zone);
            let (from, to) = (us("2010-12-01 00:00"), us("2013-02-01 00:00"));
            let mut hours: Vec<i64> = (0..(to - from) / US_PER_HOUR).collect();
            hours.extend(hours.clone().into_iter().rev());
            for hour in hours {
                let at = from + hour * US_PER_HOUR + 17;
                let utc = DateTime::from_timestamp(at.div_euclid(US_PER_SECOND), 0).unwrap();
                let offset = zone.offset_from_utc_datetime(&utc.naive_utc()).fix();
                let expected = at + i64::from(offset.local_minus_utc()) * US_PER_SECOND;
                assert_eq!(clock.local(at), expected, "{zone} {utc}");
            }
        }
    }

    #[test]
    fn a_zone_has_its_name_in_any_case() {
        assert_eq!(parse_zone("f", "asia/shanghai").unwrap(), Tz::Asia__Shanghai);
        assert_eq!(parse_zone("f", "utc").unwrap(), Tz::UTC);
        assert!(parse_zone("f", "Mars/Olympus").is_err());
    }
}
