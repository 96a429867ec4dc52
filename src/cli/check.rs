//! `clientele check [TABLE...]`

use super::{block_on, open_engine, output_line, table_name};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::sql::{Checked, check_quality};
use crate::store::{Generation, Location, Name, Relation, Warehouse};

/// Compares the files of tables with what was written to them, and looks at the quality of what they hold.
///
/// A damaged, missing or shortened file is a line on standard output: table, file, problem; then the command returns 1. After
/// that come missing, invalid, doubled and orphaned values: check, table, column, source, failed, rows, share, samples, which
/// are kept in system.quality. Nothing else is changed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tables, or schema.table [default: all]
    tables: Vec<String>,
    /// Look at the files alone
    #[arg(long, conflicts_with = "quality")]
    files: bool,
    /// Look at the quality alone
    #[arg(long)]
    quality: bool,
    /// Return 1 as well when a check fails for more than this share of the values
    #[arg(long, value_name = "PERCENT")]
    fail_above: Option<f64>,
}

/// Whether all is well.
pub(super) fn run(args: &Args, dir: &Location, config: Config) -> Result<bool> {
    block_on(async {
        let engine = open_engine(dir, config, false).await?;
        let newest = engine.warehouse().newest().await?;
        let wanted = args.tables.iter().map(|table| table_name(table));
        let wanted = wanted.collect::<Result<Vec<Name>>>()?;
        if let Some(name) = wanted.iter().find(|name| newest.table(name).is_none()) {
            return Err(Error::new(
                Kind::UndefinedTable,
                format!("table \"{name}\" does not exist"),
            ));
        }
        let mut is_well = true;
        if !args.quality {
            is_well = files(engine.warehouse(), &newest, &wanted).await?;
        }
        if !args.files && (is_well || wanted.is_empty()) {
            let session = engine.session(super::sql::LOCAL_USER);
            is_well &=
                quality(&Box::pin(check_quality(&session, &wanted)).await?, args.fail_above)?;
        }
        Ok(is_well)
    })
}

async fn files(warehouse: &Warehouse, newest: &Generation, wanted: &[Name]) -> Result<bool> {
    let (mut files, mut bytes, mut problems) = (0, 0, 0);
    for (name, relation) in &newest.relations {
        let Relation::Table(def) = relation else { continue };
        if !wanted.is_empty() && !wanted.contains(name) {
            continue;
        }
        for file in warehouse.check_table(name, def).await? {
            files += 1;
            bytes += file.bytes.unwrap_or(0);
            if let Some(problem) = &file.problem {
                problems += 1;
                output_line(&format!("{name}\t{}\t{problem}", file.file))?;
            }
        }
    }
    eprintln!("{files} files, {bytes} bytes read: {problems} damaged");
    Ok(problems == 0)
}

/// Prints what fails; whether none is above the limit.
fn quality(checked: &Checked, fail_above: Option<f64>) -> Result<bool> {
    let Checked { found, damaged } = checked;
    let mut is_well = damaged.is_empty();
    damaged.iter().for_each(|told| eprintln!("{told}"));
    let mut failing = 0;
    for quality in found.iter().filter(|quality| quality.failed > 0) {
        failing += 1;
        let percent = quality.share().unwrap_or_default() * 100.0;
        is_well &= fail_above.is_none_or(|limit| percent <= limit);
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        output_line(&format!(
            "{}\t{}\t{}\t{}\t{}\t{}\t{percent:.2}%\t{}",
            quality.check,
            quality.table,
            or_dash(&quality.column),
            or_dash(&quality.source),
            quality.failed,
            quality.rows,
            or_dash(&quality.samples)
        ))?;
    }
    eprintln!("{} checks of a column and source, {failing} with failures", found.len());
    Ok(is_well)
}
