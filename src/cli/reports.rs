//! `clientele reports install`

use super::sql::LOCAL_USER;
use super::{block_on, open_engine};
use crate::config::Config;
use crate::error::Result;
use crate::sql::{Installed, install_reports, shipped_reports};
use crate::store::Location;

/// The standing reports of a shop, which come with the program.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make them as materialized views, which a server then computes by their schedules
    Install {
        /// Some of them [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Hold their schedules until ALTER MATERIALIZED VIEW ... RESUME
        #[arg(long)]
        suspended: bool,
    },
    /// Name them
    List,
}

/// Whether all could be made.
pub(super) fn run(args: &Args, dir: &Location, config: Config) -> Result<bool> {
    let (names, suspended) = match &args.action {
        Action::List => {
            for name in shipped_reports() {
                super::output_line(name)?;
            }
            return Ok(true);
        }
        Action::Install { names, suspended } => (names, *suspended),
    };
    block_on(async {
        let engine = open_engine(dir, config, false).await?;
        let session = engine.session(LOCAL_USER);
        let mut is_all = true;
        for (name, made) in install_reports(&session, names, suspended).await? {
            match made {
                Ok(Installed::Now) => eprintln!("{name}: installed"),
                Ok(Installed::Before) => eprintln!("{name}: already there, left as it is"),
                Err(error) => {
                    is_all = false;
                    eprintln!("{name}: left out: {}", error.message());
                }
            }
        }
        Ok(is_all)
    })
}
