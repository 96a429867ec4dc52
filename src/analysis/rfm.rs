//! `rfm(orders, ...)`: recency, frequency and monetary value of each customer, scored and named.

use super::{Request, all_known, column_list, misuse};
use crate::dialect::{literal, quoted};
use crate::error::Result;

/// Writes the report over the relation. Rules: research "value", section 3; `docs/rfm.md` states them.
pub(super) fn select(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.needed_column("time", &["ordered_at", "occurred_at"])?;
    let amount = request.needed_column("amount", &["amount"])?;
    let order_id = request.column("order_id", &["order_id"])?;
    let status = request.column("status", &["status"])?;
    let timezone = request.timezone()?;
    let as_of = request.as_of()?;
    let window_days = request.arguments.number("window_days", 1..=36_500)?;
    let bins = request.arguments.number("bins", 2..=100)?.unwrap_or(5);
    let method = request.arguments.word("method", &["quantile"])?;
    let refunds = request.arguments.word("refunds", &["net", "ignore"])?;
    let segments = request.arguments.word("segments", &["eight", "eight_zh", "r10", "putler11"])?;
    let cancelled = request.arguments.texts("cancelled")?;
    request.arguments.finish()?;
    if bins != 5 && ["r10", "putler11"].contains(&segments) {
        return Err(misuse(
            request.function,
            format!("segments => '{segments}' is defined over scores of 1 to 5; leave bins at 5"),
        ));
    }
    debug_assert_eq!(method, "quantile");

    let names = column_list(&customer);
    let known = all_known(&customer);
    let cancelled = cancelled.unwrap_or_else(|| vec!["cancelled".into(), "canceled".into()]);
    let cancelled =
        cancelled.iter().map(|word| literal(&word.to_lowercase())).collect::<Vec<_>>().join(", ");
    let is_cancelled = status.map_or("false".to_owned(), |status| {
        format!("coalesce(lower(CAST({} AS TEXT)) IN ({cancelled}), false)", quoted(&status))
    });
    let (key, group_key) = match order_id {
        Some(order_id) => {
            (format!("{} AS __order", quoted(&order_id)), format!(", {}", quoted(&order_id)))
        }
        None => ("0 AS __order".to_owned(), String::new()),
    };
    // Without an order id each row is an order; with one, lines are summed and a cancelled line cancels the order.
    let (day, sum, void) = if group_key.is_empty() {
        (format!("local_date({}, {timezone})", quoted(&time)), money(&amount), is_cancelled)
    } else {
        let day = format!("min(local_date({}, {timezone}))", quoted(&time));
        (day, format!("sum({})", money(&amount)), format!("bool_or({is_cancelled})"))
    };
    let group_by =
        if group_key.is_empty() { String::new() } else { format!("GROUP BY {names}{group_key}") };
    let orders = format!(
        "SELECT {names}, {key}, {day} AS __day, {sum} AS __amount, {void} AS __void \
         FROM {relation} AS __r WHERE {known} AND {time} IS NOT NULL {group_by}",
        relation = request.relation,
        time = quoted(&time),
    );
    let counts = "(NOT __void AND __amount > 0)";
    // The last day of a counting order is the default day: a report must not depend on when it is run.
    let as_of = as_of.unwrap_or_else(|| {
        format!("(SELECT max(__day) FROM ({orders}) AS __latest WHERE {counts})")
    });
    let from = window_days
        .map_or(String::new(), |days| format!("AND __day > {as_of} - INTERVAL '{days} days'"));
    let refunded = if refunds == "net" { "OR __amount < 0" } else { "" };
    let per_customer = format!(
        "SELECT {names}, CAST({as_of} - max(__day) FILTER (WHERE {counts}) AS BIGINT) AS recency_days, \
           count(*) FILTER (WHERE {counts}) AS frequency, \
           sum(__amount) FILTER (WHERE {counts} {refunded}) AS monetary \
         FROM ({orders}) AS __orders WHERE __day <= {as_of} {from} \
         GROUP BY {names} HAVING count(*) FILTER (WHERE {counts}) > 0"
    );
    let scored = format!(
        "SELECT {names}, recency_days, frequency, monetary, \
           CAST({bins} + 1 - quantile_score(recency_days, {bins}) OVER () AS INT) AS r, \
           CAST(quantile_score(frequency, {bins}) OVER () AS INT) AS f, \
           CAST(quantile_score(monetary, {bins}) OVER () AS INT) AS m, \
           CAST(recency_days * __n < __recency AS BIGINT) AS __r, \
           CAST(frequency * __n > __frequency AS BIGINT) AS __f, \
           CAST(monetary * __n > __monetary AS BIGINT) AS __m \
         FROM (SELECT *, count(*) OVER () AS __n, sum(recency_days) OVER () AS __recency, \
                 sum(frequency) OVER () AS __frequency, sum(monetary) OVER () AS __monetary \
               FROM ({per_customer}) AS __customers) AS __totals"
    );
    let segment = if segments.starts_with("eight") {
        format!("rfm_segment(__r, __f, __m, {})", literal(segments))
    } else {
        format!(
            "rfm_segment(CAST(r AS BIGINT), CAST(f AS BIGINT), CAST(m AS BIGINT), {})",
            literal(segments)
        )
    };
    Ok(format!(
        "SELECT {names}, recency_days, frequency, monetary, r, f, m, \
           concat(CAST(r AS TEXT), CAST(f AS TEXT), CAST(m AS TEXT)) AS rfm, {segment} AS segment \
         FROM ({scored}) AS __scored"
    ))
}

/// Money is summed as a decimal, row by row, whatever it was loaded as.
fn money(column: &str) -> String {
    format!("CAST({} AS DECIMAL(38, 6))", quoted(column))
}
