//! A calendar unit, counted from 1970-01-01.

use arrow::array::AsArray;
use chrono::{Datelike, Days, NaiveDate};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;

use crate::BadArgument;

/// A calendar period; weeks begin on Monday.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Unit {
    pub(crate) fn parse(function: &'static str, text: &str) -> Result<Self> {
        match text {
            "day" => Ok(Self::Day),
            "week" => Ok(Self::Week),
            "month" => Ok(Self::Month),
            "quarter" => Ok(Self::Quarter),
            "year" => Ok(Self::Year),
            other => Err(BadArgument::err(
                function,
                "interval",
                format!(
                    "{other:?} is not a period; one of day, week, month, quarter, year is needed"
                ),
            )),
        }
    }

    /// Number of the period that holds `days` since 1970-01-01.
    pub(crate) fn index_of(self, days: i32) -> i64 {
        let months = |per: i64| {
            let date = date_of(days);
            (i64::from(date.year()) * 12 + i64::from(date.month0())).div_euclid(per)
        };
        match self {
            Self::Day => i64::from(days),
            // 1970-01-01 was a Thursday.
            Self::Week => (i64::from(days) + 3).div_euclid(7),
            Self::Month => months(1),
            Self::Quarter => months(3),
            Self::Year => months(12),
        }
    }

    /// First day of period `index`, in days since 1970-01-01; `None` past the calendar.
    pub(crate) fn start_of(self, index: i64) -> Option<i32> {
        let of_month = |months: i64| {
            let year = i32::try_from(months.div_euclid(12)).ok()?;
            let date = NaiveDate::from_ymd_opt(year, months.rem_euclid(12) as u32 + 1, 1)?;
            i32::try_from((date - NaiveDate::default()).num_days()).ok()
        };
        match self {
            Self::Day => i32::try_from(index).ok(),
            Self::Week => i32::try_from(index.checked_mul(7)?.checked_sub(3)?).ok(),
            Self::Month => of_month(index),
            Self::Quarter => of_month(index.checked_mul(3)?),
            Self::Year => of_month(index.checked_mul(12)?),
        }
    }
}

/// The units of a call's rows; nearly always one constant, which is read once.
pub(crate) enum Units {
    All(Option<Unit>),
    Each(Vec<Option<Unit>>),
}

impl Units {
    pub(crate) fn read(function: &'static str, units: &ColumnarValue, rows: usize) -> Result<Self> {
        let parse = |unit: Option<&str>| unit.map(|unit| Unit::parse(function, unit)).transpose();
        if let ColumnarValue::Scalar(unit) = units {
            return Ok(Self::All(parse(unit.try_as_str().flatten())?));
        }
        let units = units.to_array(rows)?;
        Ok(Self::Each(units.as_string::<i32>().iter().map(parse).collect::<Result<_>>()?))
    }

    pub(crate) fn at(&self, row: usize) -> Option<Unit> {
        match self {
            Self::All(unit) => *unit,
            Self::Each(units) => units[row],
        }
    }
}

/// A day as `yyyymmdd`.
pub(crate) fn as_number(days: i32) -> i64 {
    let date = date_of(days);
    i64::from(date.year()) * 10_000 + i64::from(date.month() * 100 + date.day())
}

fn date_of(days: i32) -> NaiveDate {
    let epoch = NaiveDate::default();
    let magnitude = Days::new(u64::from(days.unsigned_abs()));
    let date = if days < 0 {
        epoch.checked_sub_days(magnitude)
    } else {
        epoch.checked_add_days(magnitude)
    };
    date.unwrap_or(epoch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weeks_begin_on_monday() {
        // 2011-12-05 was a Monday.
        let monday = (NaiveDate::from_ymd_opt(2011, 12, 5).unwrap() - NaiveDate::default())
            .num_days() as i32;
        assert_eq!(Unit::Week.index_of(monday), Unit::Week.index_of(monday + 6));
        assert_eq!(Unit::Week.index_of(monday - 1) + 1, Unit::Week.index_of(monday));
        assert_eq!(Unit::Week.start_of(Unit::Week.index_of(monday + 3)), Some(monday));
    }

    proptest! {
        #[test]
        fn a_period_starts_at_its_first_day(days in -100_000i32..100_000) {
            for unit in [Unit::Day, Unit::Week, Unit::Month, Unit::Quarter, Unit::Year] {
                let index = unit.index_of(days);
                let start = unit.start_of(index).unwrap();
                prop_assert!(start <= days);
                prop_assert_eq!(unit.index_of(start), index);
                prop_assert_eq!(unit.index_of(start - 1), index - 1);
            }
        }
    }
}
