//! `clientele compact [TABLE...]`

use super::{block_on, open_engine, table_name};
use crate::config::Config;
use crate::error::Result;
use crate::sql::{compact, describe_vacuum};
use crate::store::{Location, Name, Relation};

/// Puts the fresh rows of clustered tables among their clustered ones, small files of others together, and deletes what has
/// been out of use for storage.keep_days.
///
/// A server may run meanwhile: its readers keep the files they began with, and its loads stay. The rows are the same before
/// and after, or nothing is changed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tables, or schema.table [default: all]
    tables: Vec<String>,
}

pub(super) fn run(args: &Args, dir: &Location, config: Config) -> Result<()> {
    block_on(async {
        let engine = open_engine(dir, config, false).await?;
        let session = engine.session(super::sql::LOCAL_USER);
        let newest = engine.warehouse().newest().await?;
        let wanted = args.tables.iter().map(|table| table_name(table));
        let mut wanted = wanted.collect::<Result<Vec<Name>>>()?;
        if wanted.is_empty() {
            for (name, relation) in &newest.relations {
                let Relation::Table(def) = relation else { continue };
                let snapshot = engine.warehouse().snapshot(def).await?;
                if snapshot.clustering.is_some() || snapshot.files.len() > 1 {
                    wanted.push(name.clone());
                }
            }
        }
        for name in &wanted {
            match compact(&session, None, name).await? {
                Some(done) => eprintln!(
                    "{name}: {} rows, {} files became {}",
                    done.rows, done.files_before, done.files_after
                ),
                None => eprintln!("{name}: nothing to do"),
            }
        }
        let purged = engine.warehouse().purge(None).await?;
        if purged.rows > 0 {
            eprintln!("{} rows of erased records taken out", purged.rows);
        }
        let done = engine.warehouse().vacuum(None, engine.config().storage.keep()).await?;
        eprintln!("{}", describe_vacuum(&done));
        Ok(())
    })
}
