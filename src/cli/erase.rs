//! `clientele erase --source SOURCE RECORD_ID...`

use super::{block_on, open_engine, output_line};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::sql::{Erase, check_erased, erase_records};
use crate::store::Location;

/// Erases people: the rows of their records leave every table, for good, and no later load brings them back.
///
/// They are hidden at once and taken out of the tables' files; past versions keep them for storage.keep_days, or go at once
/// with --now. --check decodes every file, log and checkpoint, prints what is left of anybody who was erased, and returns 1
/// when something is left that should not be.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Source that the records are of
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Record ids in that source
    #[arg(requires = "source")]
    records: Vec<String>,
    /// Why; kept in system.erased
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Take past versions away too, without the time of grace
    #[arg(long)]
    now: bool,
    /// Look for what is left of everybody who was erased
    #[arg(long)]
    check: bool,
}

/// Whether all was done that was asked for, and nothing is left that should not be.
pub(super) fn run(args: &Args, dir: &Location, config: Config) -> Result<bool> {
    if args.records.is_empty() && !args.check {
        return Err(Error::new(Kind::InvalidParameter, "nobody to erase is named")
            .hint("clientele erase --source shop 17 18; clientele erase --check"));
    }
    if args.check && !args.records.is_empty() {
        return Err(Error::new(
            Kind::InvalidParameter,
            "--check looks for everybody who was erased; records with it would be erased",
        )
        .hint("clientele erase --source shop 17, then clientele erase --check"));
    }
    block_on(async {
        let engine = open_engine(dir, config, false).await?;
        let user = super::sql::LOCAL_USER;
        let mut is_clean = true;
        if let (Some(source), false) = (&args.source, args.records.is_empty()) {
            let records = args.records.iter().map(|record| (source.clone(), record.clone()));
            let (records, reason) = (records.collect(), args.reason.clone());
            let erase = Erase { records, reason, is_now: args.now };
            let (told, is_done) = erase_records(&engine, &erase, user).await?;
            eprintln!("{told}");
            is_clean = is_done;
        }
        if args.check {
            let check = check_erased(&engine, user).await?;
            for residue in &check.found {
                output_line(&format!(
                    "{}\t{}\t{}\t{}\t{}",
                    residue.state(),
                    residue.file,
                    residue.part,
                    residue.what,
                    residue.hits
                ))?;
            }
            eprintln!(
                "{}: {} records and {} values looked for in {} files, {} bytes; certificate {}",
                check.verdict(),
                check.records,
                check.values,
                check.files,
                check.bytes,
                check.id
            );
            is_clean &= check.verdict() != "found";
        }
        Ok(is_clean)
    })
}
