//! `funnel_users(events, ...)`: the customers behind a number of `funnel_report`.

use super::funnel::{Funnel, LEVEL};
use super::{Request, misuse};
use crate::error::Result;

/// Writes the report over the relation; `docs/funnel_report.md` states its rules.
pub(super) fn select(mut request: Request) -> Result<String> {
    let step = request.arguments.number("step", 1..=i64::from(i32::MAX))?;
    let dropped = request.arguments.flag("dropped")?;
    let funnel = Funnel::read(&mut request, None)?;
    let last = funnel.steps.len();
    let step = step.filter(|_| funnel.is_known).map_or(last, |step| step as usize);
    if step > last {
        return Err(misuse(
            request.function,
            format!("step => {step}: the funnel has {last} steps"),
        ));
    }
    let is_meant = match (dropped, step) {
        // Who never took the first step was in no funnel.
        (true, 1) => "false".to_owned(),
        (true, _) => {
            let before = funnel.reached(funnel.needed_before(step));
            format!("{before} AND NOT {}", funnel.reached(step))
        }
        (false, _) => funnel.reached(step),
    };
    const OWN: [&str; 4] = ["breakdown", "level", "attempt_start", "step_times"];
    if let Some(column) = OWN.into_iter().find(|own| funnel.customer.iter().any(|c| c == own)) {
        return Err(misuse(
            request.function,
            format!("customer => '{column}': the report has a column of this name"),
        )
        .hint("another name in a query in brackets: SELECT level AS customer_level, ..."));
    }
    let Funnel { names, paths, .. } = funnel;
    Ok(format!(
        "SELECT {names}, breakdown, {LEVEL} AS level, array_element(get_field(__a, 'times'), 1) AS attempt_start, \
           get_field(__a, 'times') AS step_times FROM ({paths}) AS __paths WHERE {is_meant}"
    ))
}
