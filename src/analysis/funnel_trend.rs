//! `funnel_trend(events, ...)`: how far those came who entered a funnel in each period.

use super::buckets::Buckets;
use super::funnel::Funnel;
use super::{Request, all_known};
use crate::dialect::quoted;
use crate::error::Result;

/// Writes the report over the relation; `docs/funnel_trend.md` states its rules.
pub(super) fn select(mut request: Request) -> Result<String> {
    let interval = request.arguments.word("interval", &Buckets::UNITS)?;
    let from = request.arguments.expression("from").map(|from| format!("CAST({from} AS DATE)"));
    let to = request.arguments.expression("to").map(|to| format!("CAST({to} AS DATE)"));
    let as_of = request.as_of()?;
    let timezone = request.timezone()?;
    let customer = request.customer()?;
    let time = request.time_column(&["occurred_at", "ordered_at"])?;

    let day = format!("local_date({}, {timezone})", quoted(&time));
    if let Some(as_of) = &as_of {
        let is_known = format!("{} IS NOT NULL AND {day} <= {as_of}", quoted(&time));
        request.relation = format!("(SELECT * FROM {} AS __r WHERE {is_known})", request.relation);
    }
    let known = all_known(&customer);
    let newest = format!("(SELECT max({day}) FROM {} AS __r WHERE {known})", request.relation);
    let latest = as_of.unwrap_or(newest);
    let last_day = to.clone().unwrap_or_else(|| latest.clone());
    let buckets = Buckets::new(interval, last_day.clone());
    let bucket = |day: &str| format!("CAST({} AS TEXT)", buckets.index(day));
    let funnel = Funnel::read(&mut request, Some(&bucket))?;

    let steps = 1..=funnel.steps.len();
    let measures = steps
        .clone()
        .map(|step| format!("count(*) FILTER (WHERE {}) AS __u{step}", funnel.reached(step)));
    let cases = steps.map(|step| format!("WHEN {step} THEN __u{step}"));
    let entered = "CAST(get_field(__a, 'bucket') AS BIGINT)";
    let first = from.as_ref().map_or("min(__i) OVER ()".to_owned(), |from| buckets.index(from));
    let by_bucket = format!(
        "SELECT {entered} AS __i, breakdown AS __b, {} FROM ({}) AS __paths WHERE {entered} <= {} GROUP BY 1, 2",
        measures.collect::<Vec<_>>().join(", "),
        funnel.paths,
        buckets.index(&last_day),
    );
    let bounded = format!(
        "SELECT *, {first} AS __first, {last} AS __last, row_number() OVER (PARTITION BY __b ORDER BY __i) AS __n, \
           lead(__i) OVER (PARTITION BY __b ORDER BY __i) AS __next FROM ({by_bucket}) AS __by_bucket",
        last = buckets.index(&last_day),
    );
    // From each period to before the next one of the same value, so that periods without entries are there, too.
    let filled = format!(
        "SELECT *, unnest(__series(CASE __n WHEN 1 THEN least(__i, __first) ELSE __i END, coalesce(__next - 1, __last))) AS __j \
         FROM ({bounded}) AS __bounded"
    );
    let users = format!(
        "CASE WHEN __j = __i THEN CASE step {} END ELSE 0 END",
        cases.collect::<Vec<_>>().join(" ")
    );
    // Who entered on the last day of the period has had the whole window.
    let ends = format!("{} + {}", buckets.start("__j + 1"), funnel.window);
    Ok(format!(
        "SELECT {begins} AS bucket, __b AS breakdown, CAST(step AS INT) AS step, users, \
           CAST(users AS DOUBLE) / nullif(CASE WHEN __j = __i THEN __u1 ELSE 0 END, 0) AS rate, \
           {ends} <= {latest} + INTERVAL '1 day' AS complete \
         FROM (SELECT *, CAST({users} AS BIGINT) AS users FROM ({filled}) AS __filled \
           CROSS JOIN (VALUES {table}) AS __steps(step, name)) AS __all",
        begins = buckets.start("__j"),
        table = funnel.table_of_steps(),
    ))
}
