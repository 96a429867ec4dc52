//! `funnel_report(events, ...)`: how many customers reach each step, and how long it takes them.

use super::Request;
use super::funnel::Funnel;
use crate::error::Result;

/// Two-sided 95 % point of the normal distribution, for Wilson's interval.
const Z: &str = "CAST('1.959963984540054' AS DOUBLE)";

/// Writes the report over the relation. Rules: research "behaviour", section 5; `docs/funnel_report.md` states them.
pub(super) fn select(mut request: Request) -> Result<String> {
    let funnel = Funnel::read(&mut request, None)?;
    let Funnel { steps, is_broken_down, paths, .. } = &funnel;
    let mut measures = Vec::new();
    let mut cells = vec![Vec::new(); 5];
    for step in 1..=steps.len() {
        measures.push(format!("count(*) FILTER (WHERE {}) AS __u{step}", funnel.reached(step)));
        // Of an optional step before this one nobody is asked: those count who came to the last step that is not.
        let previous = funnel.needed_before(step);
        let seconds = funnel.seconds_to(&request, step);
        let when = if step == 1 { "false".to_owned() } else { funnel.reached(step) };
        measures.push(format!("avg({seconds}) FILTER (WHERE {when}) AS __a{step}"));
        measures.push(format!("median({seconds}) FILTER (WHERE {when}) AS __h{step}"));
        measures.push(format!("percentile_cont(0.9) WITHIN GROUP (ORDER BY {seconds}) FILTER (WHERE {when}) AS __q{step}"));
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
    let group_by = if *is_broken_down { "GROUP BY breakdown" } else { "" };
    let shown = if *is_broken_down { "breakdown" } else { "CAST(NULL AS TEXT) AS breakdown" };
    let by_step = format!(
        "SELECT breakdown, CAST(step AS INT) AS step, name, {users} AS users, __u1 AS __entered, {before} AS __before, \
           {avg} AS seconds_avg, {median} AS seconds_median, {p90} AS seconds_p90 \
         FROM (SELECT {shown}, {measures} FROM ({paths}) AS __paths {group_by}) AS __totals \
         CROSS JOIN (VALUES {table}) AS __steps(step, name)",
        users = cell(0),
        before = cell(1),
        avg = cell(2),
        median = cell(3),
        p90 = cell(4),
        measures = measures.join(", "),
        table = funnel.table_of_steps(),
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
