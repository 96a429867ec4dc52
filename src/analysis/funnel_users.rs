//! `funnel_users(events, ...)`: the customers behind a number of `funnel_report`.

use super::funnel::{Funnel, LEVEL};
use super::{Request, misuse};
use crate::error::Result;

/// Writes the report over the relation; `docs/funnel_report.md` states its rules.
pub(super) fn select(mut request: Request) -> Result<String> {
    let step = request.arguments.number("step", 1..=i64::from(i32::MAX))?;
    let dropped = request.arguments.flag("dropped")?;
    let Funnel { names, steps, paths, .. } = Funnel::read(&mut request)?;
    let last = steps.len() as i64;
    let step = step.unwrap_or(last);
    if step > last {
        return Err(misuse(
            request.function,
            format!("step => {step}: the funnel has {last} steps"),
        ));
    }
    let is_meant = match dropped {
        // Who never took the first step was in no funnel.
        true => format!("{LEVEL} = {} AND {LEVEL} > 0", step - 1),
        false => format!("{LEVEL} >= {step}"),
    };
    Ok(format!(
        "SELECT {names}, breakdown, {LEVEL} AS level, array_element(get_field(__path, 'times'), 1) AS attempt_start, \
           get_field(__path, 'times') AS step_times FROM ({paths}) AS __paths WHERE {is_meant}"
    ))
}
