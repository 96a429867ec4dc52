//! Reports of several days: which days, and who went from where to where between them.

use chrono::{Datelike, Days, Months, NaiveDate};

use super::{Request, misuse};
use crate::error::Result;

/// Most days of a trend: each is a report of its own.
const DAYS_MAX: usize = 366;

/// The days of a trend, from its arguments; `step` is the default.
pub(super) fn days(request: &mut Request, step: &'static str) -> Result<Vec<NaiveDate>> {
    if request.arguments.expression("as_of").is_some() {
        return Err(misuse(request.function, "as_of: the days are those from \"from\" to \"to\""));
    }
    let from = request.arguments.day("from", request.defaults.as_of)?;
    let to = request.arguments.day("to", request.defaults.as_of)?;
    let steps = match step {
        "week" => ["week", "day", "month", "quarter", "year"],
        _ => ["month", "day", "week", "quarter", "year"],
    };
    let step = request.arguments.word("step", &steps)?;
    let days = match (from, to) {
        (Some(from), Some(to)) if from <= to => days_of(from, to, step),
        (Some(from), Some(to)) => {
            return Err(misuse(request.function, format!("from {from} is after to {to}")));
        }
        // Described before its values are known; the columns are the same.
        _ if request.arguments.is_described() => vec![NaiveDate::default()],
        _ => {
            return Err(misuse(request.function, "\"from\" and \"to\" are needed, both dates"));
        }
    };
    if days.len() > DAYS_MAX {
        return Err(misuse(
            request.function,
            format!("more than {DAYS_MAX} days are asked for, and each is a report of its own"),
        )
        .hint("a longer step, or a shorter time"));
    }
    Ok(days)
}

/// How many customers went from which `label` to which, from each day to the next. `report` gives the customers of a day, with their label.
pub(super) fn moves(
    names: &str,
    label: &str,
    days: &[NaiveDate],
    report: impl Fn(&NaiveDate) -> String,
) -> String {
    let last = days.len() as i64 - 1;
    let each: Vec<String> = { days.iter().enumerate() }
        .map(|(at, day)| {
            format!("SELECT {names}, {at} AS __at, {label} FROM ({}) AS __of_day", report(day))
        })
        .collect();
    let dates: Vec<String> =
        days.iter().enumerate().map(|(at, day)| format!("WHEN {at} THEN DATE '{day}'")).collect();
    let order = format!("OVER (PARTITION BY {names} ORDER BY __at)");
    let moves = format!(
        "SELECT __at, {label}, lag(__at) {order} AS __before, lag({label}) {order} AS __was, lead(__at) {order} AS __after \
         FROM ({}) AS __reports",
        each.join(" UNION ALL ")
    );
    // Each customer of a day is there on that day; one that is not there the next day has left by then.
    format!(
        "SELECT CASE __at {} END AS as_of, previous, {label}, count(*) AS customers FROM \
           (SELECT __at + __leaves AS __at, \
              CASE WHEN __leaves = 1 THEN {label} WHEN __before = __at - 1 THEN __was END AS previous, \
              CASE WHEN __leaves = 0 THEN {label} END AS {label} \
            FROM ({moves}) AS __moves CROSS JOIN (VALUES (0), (1)) AS __ways(__leaves) \
            WHERE __leaves = 0 OR (__at < {last} AND (__after IS NULL OR __after > __at + 1))) AS __counted \
         GROUP BY __at, previous, {label}",
        dates.join(" ")
    )
}

/// The days of a trend: `to`, and back from it while they are not before `from`. From the last day of a month months go to last days.
fn days_of(from: NaiveDate, to: NaiveDate, step: &str) -> Vec<NaiveDate> {
    let is_last = to.succ_opt().is_some_and(|next| next.day() == 1);
    let months = |count: u32| {
        let day = to.checked_sub_months(Months::new(count))?;
        if !is_last {
            return Some(day);
        }
        day.with_day(1)?.checked_add_months(Months::new(1))?.pred_opt()
    };
    let back = |at: u32| match step {
        "day" => to.checked_sub_days(Days::new(u64::from(at))),
        "week" => to.checked_sub_days(Days::new(u64::from(at) * 7)),
        "quarter" => months(at * 3),
        "year" => months(at * 12),
        _ => months(at),
    };
    let days = (0..).map_while(back).take_while(|day| *day >= from);
    let mut days: Vec<NaiveDate> = days.take(DAYS_MAX + 1).collect();
    days.reverse();
    days
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_go_back_from_the_last() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let days = |from, to, step| {
            let days = days_of(day(from), day(to), step);
            days.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            days("2011-01-01", "2011-03-31", "month"),
            ["2011-01-31", "2011-02-28", "2011-03-31"]
        );
        assert_eq!(
            days("2011-01-01", "2011-03-09", "month"),
            ["2011-01-09", "2011-02-09", "2011-03-09"]
        );
        assert_eq!(
            days("2011-03-01", "2011-03-15", "week"),
            ["2011-03-01", "2011-03-08", "2011-03-15"]
        );
        assert_eq!(days("2010-01-01", "2011-12-09", "year"), ["2010-12-09", "2011-12-09"]);
    }
}
