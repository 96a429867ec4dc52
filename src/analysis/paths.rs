//! `path_edges(events, ...)` and `path_top(events, ...)`: the ways customers take through their visits.

use super::steps::rule;
use super::{Request, all_known, column_list, within};
use crate::dialect::{literal, quoted};
use crate::error::Result;

/// The passages from each node to the next; `docs/path_edges.md` states the rules.
pub(super) fn edges(mut request: Request) -> Result<String> {
    let top = request.arguments.number("top", 1..=1_000_000)?;
    let Paths { per_customer, min_users, counts_sessions } =
        Paths::read(&mut request, "__path_edges")?;
    let users = match counts_sessions {
        true => "count(*)",
        false => "count(*) FILTER (WHERE get_field(__p, 'is_first'))",
    };
    let place = "row_number() OVER (PARTITION BY step ORDER BY users DESC, source, target)";
    let is_shown = top.map_or("true".to_owned(), |top| format!("__place <= {top}"));
    Ok(format!(
        "SELECT step, source, target, users, seconds_median FROM (SELECT *, {place} AS __place FROM ( \
           SELECT get_field(__p, 'step') AS step, get_field(__p, 'source') AS source, get_field(__p, 'target') AS target, \
             {users} AS users, CAST(median(get_field(__p, 'seconds')) AS DOUBLE) AS seconds_median \
           FROM (SELECT unnest(__p) AS __p FROM ({per_customer}) AS __customers) AS __paths \
           GROUP BY get_field(__p, 'step'), get_field(__p, 'source'), get_field(__p, 'target')) AS __each) AS __ranked \
         WHERE users >= {min_users} AND {is_shown}"
    ))
}

/// The paths that most customers take.
pub(super) fn tops(mut request: Request) -> Result<String> {
    let top = request.arguments.number("top", 1..=1_000_000)?.unwrap_or(20);
    let Paths { per_customer, min_users, counts_sessions } =
        Paths::read(&mut request, "__path_tops")?;
    let sessions = "CAST(sum(get_field(__p, 'sessions')) AS BIGINT)";
    let (users, all) = match counts_sessions {
        true => (sessions, sessions),
        false => ("count(*)", "count(*) FILTER (WHERE get_field(__p, 'is_first'))"),
    };
    Ok(format!(
        "SELECT path, users, CAST(users AS DOUBLE) / nullif(__all, 0) AS share FROM ( \
           SELECT *, sum(__entered) OVER () AS __all, row_number() OVER (ORDER BY users DESC, path) AS __place FROM ( \
             SELECT get_field(__p, 'path') AS path, {users} AS users, {all} AS __entered \
             FROM (SELECT unnest(__p) AS __p FROM ({per_customer}) AS __customers) AS __paths \
             GROUP BY get_field(__p, 'path')) AS __each) AS __ranked \
         WHERE __place <= {top} AND users >= {min_users}"
    ))
}

/// What both take.
struct Paths {
    /// A query with a row for each customer: its paths as `__p`.
    per_customer: String,
    min_users: i64,
    /// Whether visits are counted, not customers.
    counts_sessions: bool,
}

impl Paths {
    fn read(request: &mut Request<'_>, aggregate: &str) -> Result<Self> {
        let customer = request.customer()?;
        let time = request.time_column(&["occurred_at", "ordered_at"])?;
        let event = request.needed_column("event", &["event"])?;
        let start = request.arguments.text("start")?;
        let end = request.arguments.text("end")?;
        let gap = request.arguments.expression("session_gap");
        let gap = gap.map_or("INTERVAL '30 minutes'".to_owned(), |gap| gap.to_string());
        let steps = request.arguments.number("max_steps", 2..=100)?.unwrap_or(5);
        let min_users = request.arguments.number("min_users", 1..=i64::MAX)?.unwrap_or(1);
        let count = request.arguments.word("count", &["users", "sessions"])?;
        let groups = request.arguments.texts("groups")?.unwrap_or_default();
        let left_out = request.arguments.texts("exclude")?.unwrap_or_default();
        let repeats = request.arguments.word("repeats", &["merge", "keep"])?;
        let from = request.arguments.expression("from");
        let to = request.arguments.expression("to");
        let timezone = request.timezone()?;
        request.arguments.finish()?;

        let mut node = format!("CAST({} AS TEXT)", quoted(&event));
        if !groups.is_empty() {
            let cases = groups.iter().map(|group| {
                let (name, condition) = rule(group)?;
                Ok(format!("WHEN {condition} THEN {}", literal(&name)))
            });
            let cases = cases.collect::<Result<Vec<_>>>()?.join(" ");
            node = format!("CASE {cases} ELSE {node} END");
        }
        let day = format!("local_date({}, {timezone})", quoted(&time));
        let mut rows = format!("{} AND {} IS NOT NULL", all_known(&customer), quoted(&time));
        rows.push_str(&within(&day, from, to));
        if !left_out.is_empty() {
            let names: Vec<String> = left_out.iter().map(|name| literal(name)).collect();
            rows.push_str(&format!(" AND ({node}) NOT IN ({})", names.join(", ")));
        }
        let name = |name: Option<String>| {
            name.map_or("CAST(NULL AS TEXT)".to_owned(), |name| literal(&name))
        };
        let per_customer = format!(
            "SELECT {aggregate}({gap}, {steps}, {keeps}, {start}, {end}, {time}, {node}) AS __p \
             FROM {relation} AS __r WHERE {rows} GROUP BY {names}",
            keeps = repeats == "keep",
            start = name(start),
            end = name(end),
            time = quoted(&time),
            relation = request.relation,
            names = column_list(&customer),
        );
        Ok(Self { per_customer, min_users, counts_sessions: count == "sessions" })
    }
}
