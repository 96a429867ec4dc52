//! `clientele sql "..."`

use std::io::{Read, Write};
use std::path::PathBuf;

use chrono_tz::Tz;
use futures::StreamExt;

use super::output::{Format, Printer};
use super::{block_on, open_engine};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::sql::{Outcome, SessionCommand, execute, parse};
use crate::store::Location;

/// Who works on the command line.
pub(super) const LOCAL_USER: &str = crate::wire::LOCAL_USER;

/// Answers statements without a server.
///
/// Several statements are separated by semicolons; the first that fails ends the run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Statements
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    sql: Option<String>,
    /// Read the statements from a file, - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Form of the results
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(args: &Args, dir: &Location, config: Config) -> Result<()> {
    let sql = match (&args.sql, &args.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(file)) if file.as_os_str() == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
        (None, Some(file)) => std::fs::read_to_string(file).map_err(|error| {
            Error::new(Kind::UndefinedFile, format!("{} cannot be read: {error}", file.display()))
        })?,
        (None, None) => String::new(),
    };
    block_on(async {
        let engine = open_engine(dir, config, false).await?;
        let session = engine.session(LOCAL_USER);
        let answered = answer(&session, &sql, args.format).await;
        // What was begun with NOWAIT would end with the process.
        while engine.runs().are_expected() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        answered
    })
}

/// Runs every statement of `sql` and prints what it gives.
pub(super) async fn answer(session: &Session, sql: &str, format: Format) -> Result<()> {
    for parsed in parse(sql).map_err(|error| shown(error, sql))? {
        let outcome = execute(session, &parsed, &[]).await.map_err(|error| shown(error, sql))?;
        print(session, outcome, format).await?;
    }
    Ok(())
}

/// Marks the place of an error in the statement.
fn shown(error: Error, sql: &str) -> Error {
    let Some(place) = error.place() else { return error };
    let Some(line) = sql.lines().nth(place.line.saturating_sub(1) as usize) else { return error };
    let mark = " ".repeat(place.column.saturating_sub(1) as usize);
    let detail = error.detail_text().map(|d| format!("{d}\n  ")).unwrap_or_default();
    let marked = format!("{detail}{line}\n  {mark}^");
    error.detail(marked)
}

async fn print(session: &Session, outcome: Outcome, format: Format) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match outcome {
        Outcome::Rows { columns, mut stream, notices, .. } => {
            notices.iter().for_each(|notice| eprintln!("NOTICE: {notice}"));
            let zone: Tz = session.settings().timezone().parse().unwrap_or(Tz::UTC);
            let mut printer = Printer::new(format, &columns, zone);
            printer.begin(&mut out)?;
            while let Some(batch) = stream.next().await {
                printer.batch(&batch?, &mut out)?;
            }
            printer.end(&mut out)?;
        }
        Outcome::Done(tag) => eprintln!("{tag}"),
        Outcome::Noticed { tag, notice } => eprintln!("{tag}: {notice}"),
        Outcome::Session(SessionCommand::Set { name, value, .. }) => {
            session.with_settings(|s| s.set(&name, value.as_deref()))?;
        }
        Outcome::Session(SessionCommand::Reset(name)) => {
            session.with_settings(|s| s.set(&name, None))?;
        }
        Outcome::Session(SessionCommand::Show(name)) => {
            writeln!(out, "{}", session.settings().show(&name)?.1)?
        }
        Outcome::Session(_) => {
            return Err(Error::not_supported(
                "transactions and prepared statements need a connection",
            )
            .hint("clientele serve, and psql"));
        }
        Outcome::CopyIn(_) | Outcome::CopyOut { .. } => {
            return Err(Error::not_supported("COPY with STDIN or STDOUT needs a connection")
                .hint("clientele load reads files; --format csv writes results"));
        }
    }
    out.flush()?;
    Ok(())
}
