//! `clientele check [TABLE...]`

use std::path::Path;

use super::{block_on, output_line, table_name};
use crate::error::{Error, Kind, Result};
use crate::store::{Relation, Warehouse};

/// Compares the files of tables with what was written to them.
///
/// Each damaged, missing or shortened file is a line on standard output: table, file, problem. Nothing is changed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tables, or schema.table [default: all]
    tables: Vec<String>,
}

/// Whether all is well.
pub(super) fn run(args: &Args, dir: &Path) -> Result<bool> {
    block_on(async {
        let warehouse = Warehouse::open(dir).await?;
        let newest = warehouse.newest().await?;
        let mut wanted = Vec::new();
        for table in &args.tables {
            let name = table_name(table);
            if newest.table(&name).is_none() {
                return Err(Error::new(
                    Kind::UndefinedTable,
                    format!("table \"{name}\" does not exist"),
                ));
            }
            wanted.push(name);
        }
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
    })
}
