//! `retention_matrix(events, ...)`: of the customers who started in a period, how many came back in the later ones.

use super::steps::Step;
use super::{Request, all_known, column_list};
use crate::dialect::{literal, quoted};
use crate::error::Result;

/// Writes the report over the relation. Rules: research "behaviour", section 5; `docs/retention_matrix.md` states them.
pub(super) fn select(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.needed_column("time", &["occurred_at", "ordered_at"])?;
    let event = request.column("event", &["event"])?;
    let start = request.arguments.text("start")?;
    let back = request.arguments.text("back")?;
    let interval =
        request.arguments.word("interval", &["day", "week", "month", "quarter", "year"])?;
    let kind = request.arguments.word("kind", &["recurring", "first_time"])?;
    let retained = request.arguments.word("retained", &["on", "on_or_after"])?;
    let periods = request.arguments.number("periods", 0..=400)?.unwrap_or(12);
    let from = request.arguments.expression("from");
    let to = request.arguments.expression("to");
    let timezone = request.timezone()?;
    let as_of = request.as_of()?;
    request.arguments.finish()?;
    // Without a start or a return, any row is one.
    let condition = |text: Option<String>| match text {
        Some(text) => Step::parse(&text, event.as_deref()).map(|step| step.condition),
        None => Ok("true".to_owned()),
    };
    let (start, back) = (condition(start)?, condition(back)?);

    let tag = request.tag;
    let names = column_list(&customer);
    let day = format!("local_date({}, {timezone})", quoted(&time));
    let unit = literal(interval);
    let until = as_of.as_ref().map_or(String::new(), |as_of| format!("AND {day} <= {as_of}"));
    let rows = format!(
        "{} AS __r WHERE {} AND {} IS NOT NULL {until}",
        request.relation,
        all_known(&customer),
        quoted(&time)
    );
    let last_day = as_of.unwrap_or_else(|| format!("(SELECT max({day}) FROM {rows})"));
    let active = |condition: &str| {
        format!(
            "SELECT DISTINCT {names}, period_index({day}, {unit}) AS __p FROM {rows} AND {condition}"
        )
    };
    let starts = match kind {
        "first_time" => format!(
            "SELECT {names}, min(__p) AS __p FROM ({}) AS __all GROUP BY {names}",
            active(&start)
        ),
        _ => active(&start),
    };
    let mut range = "true".to_owned();
    if let Some(from) = from {
        range.push_str(&format!(" AND __p >= period_index(CAST({from} AS DATE), {unit})"));
    }
    if let Some(to) = to {
        range.push_str(&format!(" AND __p <= period_index(CAST({to} AS DATE), {unit})"));
    }
    let same = customer
        .iter()
        .map(|c| format!("__s.{c} = __b.{c}", c = quoted(c)))
        .collect::<Vec<_>>()
        .join(" AND ");
    let (starts_name, counts_name) = (format!("__starts_{tag}"), format!("__counts_{tag}"));
    // One row a customer, cohort and period of return; for on_or_after only the last return counts, for every period up to it.
    let returns = match retained {
        "on_or_after" => format!(
            "SELECT __cohort, __last AS __period, count(*) AS __users FROM (SELECT __s.__p AS __cohort, max(__b.__p - __s.__p) AS __last \
             FROM {starts_name} AS __s JOIN ({backs}) AS __b ON {same} AND __b.__p >= __s.__p GROUP BY {keys}, __s.__p) AS __lasts \
             GROUP BY __cohort, __last",
            backs = active(&back),
            keys = customer
                .iter()
                .map(|c| format!("__s.{}", quoted(c)))
                .collect::<Vec<_>>()
                .join(", "),
        ),
        _ => format!(
            "SELECT __s.__p AS __cohort, __b.__p - __s.__p AS __period, count(*) AS __users \
             FROM {starts_name} AS __s JOIN ({backs}) AS __b ON {same} AND __b.__p >= __s.__p \
             GROUP BY __s.__p, __b.__p - __s.__p",
            backs = active(&back),
        ),
    };
    let (reach, total) = match retained {
        "on_or_after" => ("__c.__period >= __g.period", "coalesce(sum(__c.__users), 0)"),
        _ => ("__c.__period = __g.period", "coalesce(sum(__c.__users), 0)"),
    };
    Ok(format!(
        "WITH {starts_name} AS (SELECT {names}, __p FROM ({starts}) AS __started WHERE {range}), \
         {counts_name} AS ({returns}) \
         SELECT period_start(__g.__p, {unit}) AS cohort, __g.__size AS cohort_size, __g.period, \
           CAST({total} AS BIGINT) AS retained, \
           CAST({total} AS DOUBLE) / nullif(__g.__size, 0) AS rate, \
           period_start(__g.__p + __g.period + 1, {unit}) <= {last_day} + INTERVAL '1 day' AS complete \
         FROM (SELECT __p, count(*) AS __size, unnest(ARRAY[{numbers}]) AS period FROM {starts_name} GROUP BY __p) AS __g \
         LEFT JOIN {counts_name} AS __c ON __c.__cohort = __g.__p AND {reach} \
         WHERE period_start(__g.__p + __g.period, {unit}) <= {last_day} \
         GROUP BY __g.__p, __g.__size, __g.period",
        numbers = (0..=periods).map(|n| n.to_string()).collect::<Vec<_>>().join(", "),
    ))
}
