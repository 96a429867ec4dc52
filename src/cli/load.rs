//! `clientele load TABLE FILE...`

use std::sync::Arc;

use super::progress::Bar;
use super::{announce, block_on, table_name};
use crate::config::{Config, MaxBad};
use crate::error::{Error, Kind, Result};
use crate::ingest::{self, CsvOptions, Format, Key, LoadRequest, Loaded};
use crate::store::{Location, Name, Pin, Warehouse};

/// Loads files into a table: all that are new, or none of them.
///
/// The table is made when it is missing, with columns and types from the first file. A file that the table has already is
/// known by its content and left out. Columns that a file has and the table has not are added to it. Rows that do not fit go
/// to system.quarantine, up to --max-bad.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Table, or schema.table
    table: String,
    /// Files, patterns or folders; .gz and .zst are understood
    #[arg(required = true)]
    files: Vec<String>,
    /// csv, json (one object a line) or parquet [default: from the file's name]
    #[arg(long)]
    format: Option<String>,
    /// Bad rows that are put up with: a number, or a share of all rows [default: 1%]
    #[arg(long, value_name = "N|N%")]
    max_bad: Option<String>,
    /// Between the values of a CSV [default: comma, tab for .tsv]
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<char>,
    /// Spelling of NULL in a CSV [default: nothing]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    null: String,
    /// The CSV has no header line; columns are taken in the table's order
    #[arg(long)]
    no_header: bool,
    /// Columns that name a row: one that comes again takes the place of the one from before, the newest wins
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    key: Vec<String>,
    /// Column that says when a row was changed, for --key [default: updated_at where the table has it]
    #[arg(long, value_name = "COLUMN", requires = "key")]
    latest: Option<String>,
    /// Columns to mark PERSONAL beside phone, email, name and their kind, when the table is made
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    personal: Vec<String>,
}

pub(super) fn run(args: &Args, dir: &Location, config: &Config) -> Result<()> {
    let request = request(args, config)?;
    block_on(async {
        let warehouse = Arc::new(Warehouse::open_or_create(dir).await?);
        warehouse.configure(&config.storage);
        // A load with a key reads files of the table.
        let _pin = Pin::new(&warehouse, false);
        announce(&warehouse).await?;
        let loaded = ingest::load(&warehouse, &request, &Bar::new()).await?;
        for file in &loaded {
            eprintln!("{}", describe(file, &request.table));
        }
        Ok(())
    })
}

fn request(args: &Args, config: &Config) -> Result<LoadRequest> {
    let table = table_name(&args.table)?;
    if table.schema.is_empty() || table.table.is_empty() {
        return Err(Error::new(
            Kind::InvalidParameter,
            format!("{:?} is no table's name", args.table),
        ));
    }
    if table.is_reserved() || table.table.starts_with("pg_") {
        return Err(Error::new(
            Kind::NotAllowed,
            format!("{:?} belongs to the warehouse", args.table),
        ));
    }
    let delimiter = match args.delimiter {
        None => None,
        Some(c) => Some(u8::try_from(c).ok().filter(u8::is_ascii).ok_or_else(|| {
            Error::new(Kind::InvalidParameter, "the delimiter must be one ASCII character")
        })?),
    };
    Ok(LoadRequest {
        table,
        files: ingest::expand(&args.files)?,
        format: args.format.as_deref().map(Format::parse).transpose()?,
        csv: CsvOptions {
            delimiter,
            null: args.null.clone(),
            has_header: !args.no_header,
            ..CsvOptions::default()
        },
        max_bad: MaxBad::parse(args.max_bad.as_deref().unwrap_or(&config.load.max_bad))?,
        personal: args.personal.clone(),
        key: (!args.key.is_empty())
            .then(|| Key { columns: args.key.clone(), latest: args.latest.clone() }),
        adds_columns: true,
        user: super::sql::LOCAL_USER.to_owned(),
    })
}

/// One line on what became of a file.
pub(super) fn describe(file: &Loaded, table: &Name) -> String {
    if file.was_loaded {
        return format!("{}: already loaded into {table}", file.source);
    }
    let mut line = format!("{}: {} rows loaded into {table}", file.source, file.rows);
    if file.quarantined > 0 {
        line.push_str(&format!(", {} put into system.quarantine", file.quarantined));
    }
    if file.left_out > 0 {
        line.push_str(&format!(", {} of erased records left out", file.left_out));
    }
    line
}
