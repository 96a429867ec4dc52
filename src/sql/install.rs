//! The reports that come with the program, as files of `sql/reports`.

use super::execute::execute;
use super::materialized::statement_of_file;
use super::statement::parse;
use crate::catalog::DEFAULT_SCHEMA;
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::store::Name;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../sql/reports/", $name, ".sql")))),*]
    };
}

/// Name and text of each; those that others depend on come first.
const REPORTS: [(&str, &str); 12] = files![
    "customer_rfm",
    "rfm_movement",
    "dormant_weekly",
    "stage_daily",
    "retention_weekly",
    "funnel_daily",
    "channel_daily",
    "data_quality",
    "identity_health",
    "campaign_daily",
    "clv_monthly",
    "audience_sizes",
];

/// Names of the reports that come with the program.
pub fn shipped_reports() -> Vec<&'static str> {
    REPORTS.iter().map(|(name, _)| *name).collect()
}

/// Makes the reports of these names, all when none is named, and says of each what came of it. With `is_suspended` their schedules
/// are held.
///
/// # Errors
/// 42704 for a name that is none of theirs. That one cannot be made, as without events there are no funnels, is its own affair.
pub async fn install_reports(
    session: &Session,
    names: &[String],
    is_suspended: bool,
) -> Result<Vec<(&'static str, Result<Installed>)>> {
    if let Some(unknown) = names.iter().find(|name| !shipped_reports().contains(&name.as_str())) {
        return Err(Error::new(
            Kind::UndefinedObject,
            format!("no report \"{unknown}\" comes with the program"),
        )
        .detail(format!("there are {}", shipped_reports().join(", "))));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let mut made = Vec::new();
    for (name, text) in REPORTS.into_iter().filter(|(name, _)| wanted(name)) {
        made.push((name, Box::pin(install(session, name, text, is_suspended)).await));
    }
    Ok(made)
}

/// What became of a report that was to be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// It was made.
    Now,
    /// One of its name was there, and is as it was.
    Before,
}

async fn install(
    session: &Session,
    name: &str,
    text: &str,
    is_suspended: bool,
) -> Result<Installed> {
    let full = Name::new(DEFAULT_SCHEMA, name);
    if session.engine().warehouse().newest().await?.is_report(&full) {
        return Ok(Installed::Before);
    }
    let mut sql = statement_of_file(&full, text);
    if is_suspended {
        sql.push_str(&format!("; ALTER MATERIALIZED VIEW {name} SUSPEND"));
    }
    for parsed in parse(&sql).map_err(|error| error.at(None))? {
        execute(session, &parsed, &[]).await.map_err(|error| error.at(None))?;
    }
    Ok(Installed::Now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_can_be_read() {
        for (name, text) in REPORTS {
            let sql = statement_of_file(&Name::new(DEFAULT_SCHEMA, name), text);
            let read = parse(&sql).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(read.len(), 1, "{name}");
            assert!(text.contains("-- schedule"), "{name} has no schedule");
        }
    }
}
