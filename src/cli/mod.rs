//! The command line: one file a subcommand. Data goes to stdout, everything else to stderr.

mod check;
mod compact;
mod demo;
mod erase;
mod load;
mod output;
mod progress;
mod refresh;
mod reports;
mod serve;
mod sql;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::{Config, LogFormat};
use crate::error::{Error, Kind, Result};
use crate::session::Engine;
use crate::sql::full_name;
use crate::store::{Location, Name, Warehouse};

/// A columnar warehouse for customer data: who is who, what each customer is worth and what they do, as SQL over the
/// PostgreSQL protocol.
#[derive(Debug, Parser)]
#[command(name = "clientele", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Folder of the warehouse, or s3://bucket/prefix
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        default_value = "./warehouse",
        env = "CLIENTELE_DIR"
    )]
    dir: Location,
    /// Configuration file [default: clientele.toml in the warehouse]
    #[arg(long, global = true, value_name = "FILE", env = "CLIENTELE_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: load the sample, answer four questions, and serve it
    Demo(demo::Args),
    /// Serve the warehouse to psql and BI tools
    Serve(serve::Args),
    /// Load CSV, JSON lines or Parquet files into a table
    Load(load::Args),
    /// Answer statements without a server
    Sql(sql::Args),
    /// Compute materialized views anew
    Refresh(refresh::Args),
    /// Install the standing reports of a shop
    Reports(reports::Args),
    /// Put fresh rows of clustered tables among their clustered ones
    Compact(compact::Args),
    /// Compare files with what was written to them, and look at the quality of the data
    Check(check::Args),
    /// Erase people, and show that nothing of them is left
    Erase(erase::Args),
    /// Add, list and remove users
    User(user::Args),
}

/// Runs a command line: 0 when all is well, 1 for findings, 2 for errors.
pub fn run(cli: Cli) -> ExitCode {
    let result =
        Config::read(cli.common.config.as_deref(), cli.common.dir.folder()).and_then(|config| {
            init_log(&config)?;
            match cli.command {
                Command::Demo(args) => demo::run(&args, &cli.common.dir, config),
                Command::Serve(args) => serve::run(&args, &cli.common.dir, config),
                Command::Load(args) => load::run(&args, &cli.common.dir, &config),
                Command::Sql(args) => sql::run(&args, &cli.common.dir, config),
                Command::User(args) => user::run(&args, &cli.common.dir),
                Command::Compact(args) => compact::run(&args, &cli.common.dir, config),
                Command::Refresh(args) => refresh::run(&args, &cli.common.dir, config),
                Command::Reports(args) => return reports::run(&args, &cli.common.dir, config),
                Command::Erase(args) => return erase::run(&args, &cli.common.dir, config),
                Command::Check(args) => return check::run(&args, &cli.common.dir, config),
            }
            .map(|()| true)
        });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clientele: {error}");
            ExitCode::from(2)
        }
    }
}

/// The reader of our output has seen enough.
fn is_broken_pipe(error: &Error) -> bool {
    error.kind() == Kind::Io && error.message().contains("Broken pipe")
}

fn init_log(config: &Config) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter)
        .map_err(|error| Error::new(Kind::Config, format!("log.filter: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    // A second initialisation (in tests) keeps the first.
    let _ = match config.log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // What a thread that stops has to say may quote somebody's value: where it stopped is told, and with RUST_BACKTRACE how it got there.
    std::panic::set_hook(Box::new(|stopped| {
        let at = stopped.location().map(ToString::to_string).unwrap_or_default();
        let way = std::backtrace::Backtrace::capture();
        match way.status() {
            std::backtrace::BacktraceStatus::Captured => {
                tracing::error!(at, %way, "a thread stopped unexpectedly");
            }
            _ => tracing::error!(at, "a thread stopped unexpectedly"),
        }
    }));
    Ok(())
}

/// Runs async work of a command that computes in this process.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = crate::wire::Executor::runtime()?;
    let result = runtime.block_on(Box::pin(work));
    // Work that was given up must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

async fn open_engine(dir: &Location, config: Config, create: bool) -> Result<Arc<Engine>> {
    let warehouse =
        if create { Warehouse::open_or_create(dir).await? } else { Warehouse::open(dir).await? };
    let warehouse = Arc::new(warehouse);
    announce(&warehouse).await?;
    Engine::new(warehouse, config)
}

/// Says to other processes that this one reads, for as long as it holds the warehouse.
async fn announce(warehouse: &Arc<Warehouse>) -> Result<()> {
    match warehouse.announce().await {
        // Who frees a full disk has to be able to look at what is there.
        Err(error) if error.kind() == Kind::DiskFull => {
            tracing::warn!(code = error.sqlstate(), %error, "what is read could not be announced");
        }
        announced => announced?,
    }
    tokio::spawn(Warehouse::keep_announced(Arc::downgrade(warehouse)));
    Ok(())
}

/// A table as it is named on the command line: `table` or `schema.table`.
fn table_name(text: &str) -> Result<Name> {
    full_name(text.split('.').map(str::to_owned).collect())
}

/// One line of data.
fn output_line(line: &str) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}
