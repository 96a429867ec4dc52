//! `clientele refresh NAME [--as-of DAY]`

use super::sql::LOCAL_USER;
use super::{block_on, open_engine, table_name};
use crate::config::Config;
use crate::dialect::{literal, quoted};
use crate::error::Result;
use crate::sql::{Outcome, execute, parse};
use crate::store::Location;

/// Computes materialized views anew, one after the other, and publishes each when it is whole.
///
/// Without a day it is the last one that is over in the view's zone.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Materialized views
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// The day to speak for
    #[arg(long, value_name = "DAY", conflicts_with_all = ["from", "to"])]
    as_of: Option<String>,
    /// First day of a backfill
    #[arg(long, value_name = "DAY", requires = "to")]
    from: Option<String>,
    /// Last day of a backfill
    #[arg(long, value_name = "DAY", requires = "from")]
    to: Option<String>,
    /// Length of its periods: day, week or month [default: one for every run of the schedule]
    #[arg(long, value_name = "STEP", requires = "from")]
    step: Option<String>,
}

pub(super) fn run(args: &Args, dir: &Location, config: Config) -> Result<()> {
    let days = match (&args.as_of, &args.from, &args.to) {
        (Some(day), ..) => format!(" AS OF {}", literal(day)),
        (None, Some(from), Some(to)) => {
            let step = args.step.as_ref().map(|step| format!(" STEP {}", literal(step)));
            format!(" FROM {} TO {}{}", literal(from), literal(to), step.unwrap_or_default())
        }
        _ => String::new(),
    };
    block_on(async {
        let engine = open_engine(dir, config, false).await?;
        let session = engine.session(LOCAL_USER);
        for name in &args.names {
            let full = table_name(name)?;
            let (schema, table) = (quoted(&full.schema), quoted(&full.table));
            let sql = format!("REFRESH MATERIALIZED VIEW {schema}.{table}{days}");
            for parsed in parse(&sql).map_err(|error| error.at(None))? {
                let told = match execute(&session, &parsed, &[]).await? {
                    Outcome::Noticed { notice, .. } => notice,
                    _ => "refreshed".to_owned(),
                };
                eprintln!("{name}: {told}");
            }
        }
        Ok(())
    })
}
