//! `rfm(orders, ...)`, `rfm_cuts(orders, ...)`, `rfm_trend(orders, ...)`: recency, frequency and monetary value of each customer,
//! scored and named; the thresholds of the scores; and how customers move between segments.

mod customers;
mod scores;

use chrono::NaiveDate;

pub(super) use self::customers::{Figures, Orders};
pub(super) use self::scores::Scoring;

use self::scores::MEASURES;
use super::{Request, column_list, misuse, trend};
use crate::dialect::literal;
use crate::error::Result;

/// Writes the report over the relation. Rules: research "value", section 3; `docs/rfm.md` states them.
pub(super) fn select(mut request: Request) -> Result<String> {
    let (figures, scoring) = read(&mut request)?;
    request.arguments.finish()?;
    Ok(scored(&figures, &scoring, None))
}

fn read(request: &mut Request) -> Result<(Figures, Scoring)> {
    Ok((Figures::read(request)?, Scoring::read(request)?))
}

/// Customers, scored; `as_of` takes the place of the day.
pub(super) fn scored(figures: &Figures, scoring: &Scoring, as_of: Option<&str>) -> String {
    let described = described(figures, scoring);
    let names = column_list(&figures.names);
    scoring.scored(&names, &figures.people(as_of), &described)
}

fn described(figures: &Figures, scoring: &Scoring) -> String {
    format!("{}; {}", scoring.described(), figures.described())
}

/// Writes the thresholds: one row a measure and cut.
pub(super) fn cuts(mut request: Request) -> Result<String> {
    let (figures, scoring) = read(&mut request)?;
    request.arguments.finish()?;
    let Some(cuts) = scoring.cuts() else {
        return Err(misuse(request.function, scoring.has_no_cuts()));
    };
    let columns: Vec<String> = { cuts.iter().zip(MEASURES) }
        .map(|(cuts, (_, name, _))| format!("{cuts} AS __{name}_cuts"))
        .collect();
    let centres = scoring.centres();
    let centres: Vec<String> = { centres.iter().zip(MEASURES) }
        .map(|(centre, (_, name, _))| format!("{centre} AS __{name}_centre"))
        .collect();
    let found = format!(
        "SELECT {}, {}, count(*) FILTER (WHERE __bought) AS customers, max(__as_of) AS as_of FROM ({}) AS __people",
        columns.join(", "),
        centres.join(", "),
        figures.people(None)
    );
    // One after the other, so that the orders are read once.
    let each = |what: &str| -> String {
        let branches = MEASURES.iter().enumerate();
        let branches = branches.map(|(at, (_, name, _))| format!("WHEN {at} THEN __{name}_{what}"));
        branches.collect::<Vec<_>>().join(" ")
    };
    let measures: Vec<String> = MEASURES
        .iter()
        .enumerate()
        .map(|(at, (column, ..))| format!("WHEN {at} THEN {}", literal(column)))
        .collect();
    let listed = format!(
        "SELECT CASE __at {} END AS measure, CASE __at {} END AS __cuts, CASE __at {} END AS centre, customers, as_of \
         FROM ({found}) AS __found CROSS JOIN (VALUES (0), (1), (2)) AS __three(__at)",
        measures.join(" "),
        each("cuts"),
        each("centre")
    );
    Ok(format!(
        "SELECT measure, CAST(row_number() OVER (PARTITION BY measure ORDER BY value) AS INT) AS cut, value, centre, customers, as_of, \
           {} AS method \
         FROM (SELECT measure, unnest(__cuts) AS value, centre, customers, as_of FROM ({listed}) AS __listed) AS __each",
        literal(&described(&figures, &scoring))
    ))
}

/// Writes how many customers went from which segment to which, from one day to the next.
pub(super) fn moves(mut request: Request) -> Result<String> {
    let (figures, scoring) = read(&mut request)?;
    let days = trend::days(&mut request, "month")?;
    request.arguments.finish()?;
    let names = column_list(&figures.names);
    let report = |day: &NaiveDate| {
        let of_day = scored(&figures, &scoring, Some(&format!("DATE '{day}'")));
        format!("SELECT {names}, segment FROM ({of_day}) AS __report")
    };
    Ok(trend::moves(&names, "segment", &days, report))
}
