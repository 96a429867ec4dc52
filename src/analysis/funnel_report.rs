//! `funnel_report(events, ...)`: how many customers reach each step, and how long it takes them.

use arrow::datatypes::DataType;

use super::steps::Step;
use super::{Request, all_known, column_list, misuse};
use crate::dialect::{literal, quoted};
use crate::error::Result;

/// Two-sided 95 % point of the normal distribution, for Wilson's interval.
const Z: &str = "CAST('1.959963984540054' AS DOUBLE)";

/// Writes the report over the relation. Rules: research "behaviour", section 5; `docs/funnel_report.md` states them.
pub(super) fn select(mut request: Request) -> Result<String> {
    let customer = request.customer()?;
    let time = request.needed_column("time", &["occurred_at", "ordered_at"])?;
    let event = request.column("event", &["event"])?;
    let steps = request.arguments.texts("steps")?;
    let window = request
        .arguments
        .expression("window")
        .map_or("INTERVAL '14 days'".to_owned(), |w| w.to_string());
    let order = request.arguments.word("order", &["ordered"])?;
    let breakdown = request.column("breakdown", &[])?;
    let from = request.arguments.expression("from");
    let to = request.arguments.expression("to");
    let timezone = request.timezone()?;
    request.arguments.finish()?;
    debug_assert_eq!(order, "ordered");
    let Some(steps) = steps else {
        return Err(misuse(request.function, "the steps are missing")
            .hint("steps => ARRAY['visit', 'cart', 'pay']"));
    };
    let steps =
        steps.iter().map(|text| Step::parse(text, event.as_deref())).collect::<Result<Vec<_>>>()?;

    let names = column_list(&customer);
    let conditions = steps.iter().map(|s| s.condition.clone()).collect::<Vec<_>>().join(", ");
    let day = format!("local_date({}, {timezone})", quoted(&time));
    let mut rows = format!("{} AND {} IS NOT NULL", all_known(&customer), quoted(&time));
    if let Some(from) = from {
        rows.push_str(&format!(" AND {day} >= CAST({from} AS DATE)"));
    }
    if let Some(to) = to {
        rows.push_str(&format!(" AND {day} <= CAST({to} AS DATE)"));
    }
    // The breakdown of a customer is that of the first event of step 1.
    let broken = breakdown.as_ref().map_or("CAST(NULL AS TEXT)".to_owned(), |column| {
        format!(
            "first_value(CAST({} AS TEXT) ORDER BY {}) FILTER (WHERE {})",
            quoted(column),
            quoted(&time),
            steps[0].condition
        )
    });
    let paths = format!(
        "SELECT {names}, {broken} AS breakdown, funnel_path({window}, 'default', {time}, {conditions}) AS __path \
         FROM {relation} AS __r WHERE {rows} GROUP BY {names}",
        time = quoted(&time),
        relation = request.relation,
    );
    let per_second = match request.columns.data_type(&time) {
        Some(DataType::Date32 | DataType::Date64) => "86400.0",
        _ => "0.000001",
    };
    let reached = |step: usize| format!("get_field(__path, 'level') >= {step}");
    let at =
        |step: usize| format!("CAST(array_element(get_field(__path, 'times'), {step}) AS BIGINT)");
    let mut measures = Vec::new();
    let mut cells = vec![Vec::new(); 5];
    for (i, step) in (1..=steps.len()).enumerate() {
        measures.push(format!("count(*) FILTER (WHERE {}) AS __u{step}", reached(step)));
        let seconds =
            format!("CAST({} - {} AS DOUBLE) * {per_second}", at(step), at(step.max(2) - 1));
        let when = if i == 0 { "false".to_owned() } else { reached(step) };
        measures.push(format!("avg({seconds}) FILTER (WHERE {when}) AS __a{step}"));
        measures.push(format!("median({seconds}) FILTER (WHERE {when}) AS __h{step}"));
        measures.push(format!("percentile_cont(0.9) WITHIN GROUP (ORDER BY {seconds}) FILTER (WHERE {when}) AS __q{step}"));
        let previous = step.max(2) - 1;
        for (cell, column) in cells.iter_mut().zip([
            format!("__u{step}"),
            format!("__u{previous}"),
            format!("__a{step}"),
            format!("__h{step}"),
            format!("__q{step}"),
        ]) {
            cell.push(format!("WHEN {step} THEN {column}"));
        }
    }
    let cell = |i: usize| format!("CASE step {} END", cells[i].join(" "));
    let group_by = if breakdown.is_some() { "GROUP BY breakdown" } else { "" };
    let shown = if breakdown.is_some() { "breakdown" } else { "CAST(NULL AS TEXT) AS breakdown" };
    // Customers who never took step 1 belong to no breakdown.
    let entered = if breakdown.is_some() { "WHERE get_field(__path, 'level') >= 1" } else { "" };
    let table = steps
        .iter()
        .enumerate()
        .map(|(i, s)| format!("({}, {})", i + 1, literal(&s.name)))
        .collect::<Vec<_>>();
    let by_step = format!(
        "SELECT breakdown, CAST(step AS INT) AS step, name, {users} AS users, __u1 AS __entered, {before} AS __before, \
           {avg} AS seconds_avg, {median} AS seconds_median, {p90} AS seconds_p90 \
         FROM (SELECT {shown}, {measures} FROM ({paths}) AS __paths {entered} {group_by}) AS __totals \
         CROSS JOIN (VALUES {table}) AS __steps(step, name)",
        users = cell(0),
        before = cell(1),
        avg = cell(2),
        median = cell(3),
        p90 = cell(4),
        measures = measures.join(", "),
        table = table.join(", "),
    );
    let rate = "CAST(users AS DOUBLE) / nullif(__entered, 0)";
    let n = "nullif(CAST(__entered AS DOUBLE), CAST(0 AS DOUBLE))";
    let centre = format!("({rate} + {Z}*{Z}/(2*{n}))/(1 + {Z}*{Z}/{n})");
    let spread = format!("{Z}*sqrt({rate}*(1-{rate})/{n} + {Z}*{Z}/(4*{n}*{n}))/(1 + {Z}*{Z}/{n})");
    Ok(format!(
        "SELECT breakdown, step, name, users, {rate} AS rate_total, \
           CAST(users AS DOUBLE) / nullif(__before, 0) AS rate_previous, \
           CASE step WHEN 1 THEN 0 ELSE __before - users END AS dropped, \
           CAST(seconds_avg AS DOUBLE) AS seconds_avg, CAST(seconds_median AS DOUBLE) AS seconds_median, \
           CAST(seconds_p90 AS DOUBLE) AS seconds_p90, \
           greatest(CAST({centre} - {spread} AS DOUBLE), CAST(0 AS DOUBLE)) AS ci_low, least(CAST({centre} + {spread} AS DOUBLE), CAST(1 AS DOUBLE)) AS ci_high \
         FROM ({by_step}) AS __by_step"
    ))
}
