//! `time_to_convert(events, ...)`: how long customers take from one step of a funnel to another.

use super::funnel::Funnel;
use super::{Request, misuse};
use crate::error::Result;

/// Most bins.
const BINS_MAX: i64 = 1000;

/// Writes the report over the relation; `docs/funnel_report.md` states its rules.
pub(super) fn select(mut request: Request) -> Result<String> {
    let from = request.arguments.number("from_step", 1..=i64::from(i32::MAX))?.unwrap_or(1);
    let to = request.arguments.number("to_step", 1..=i64::from(i32::MAX))?;
    let bins = request.arguments.number("bins", 1..=BINS_MAX)?;
    let funnel = Funnel::read(&mut request, None)?;
    let last = funnel.steps.len() as i64;
    let (from, to) = match funnel.is_known {
        true => (from, to.unwrap_or(last)),
        false => (last, last),
    };
    if to > last || from > to {
        return Err(misuse(
            request.function,
            format!(
                "from_step => {from}, to_step => {to}: the funnel has {last} steps, the first of the two comes first"
            ),
        ));
    }
    let taken = format!(
        "SELECT {} AS __seconds FROM ({}) AS __paths WHERE {} AND {}",
        funnel.seconds(&request, from as usize, to as usize),
        funnel.paths,
        funnel.reached(from as usize),
        funnel.reached(to as usize),
    );
    let numbers: Vec<String> = (0..bins.unwrap_or(BINS_MAX)).map(|n| n.to_string()).collect();
    let bins = match bins {
        Some(bins) => bins.to_string(),
        None => format!("least(CAST(ceil(cbrt(count(*))) AS BIGINT), {BINS_MAX})"),
    };
    let tag = request.tag;
    let (times, span) = (format!("__times_{tag}"), format!("__span_{tag}"));
    // A value at a border belongs to the bin that begins there, the largest one to the last bin.
    let bin = "coalesce(CAST(least(floor((__seconds - __low) * __bins / nullif(__high - __low, 0)), __bins - 1) AS BIGINT), 0)";
    Ok(format!(
        "WITH {times} AS ({taken}), \
         {span} AS (SELECT min(__seconds) AS __low, max(__seconds) AS __high, \
           CASE WHEN min(__seconds) = max(__seconds) THEN 1 ELSE {bins} END AS __bins FROM {times} HAVING count(*) > 0) \
         SELECT __low + (__high - __low) * __g.__bin / __bins AS bin_start, \
           __low + (__high - __low) * (__g.__bin + 1) / __bins AS bin_end, \
           CAST(coalesce(__c.__users, 0) AS BIGINT) AS users \
         FROM (SELECT __low, __high, __bins, unnest(ARRAY[{numbers}]) AS __bin FROM {span}) AS __g \
         LEFT JOIN (SELECT {bin} AS __bin, count(*) AS __users FROM {times} CROSS JOIN {span} GROUP BY 1) AS __c \
           ON __c.__bin = __g.__bin \
         WHERE __g.__bin < __bins",
        numbers = numbers.join(", "),
    ))
}
