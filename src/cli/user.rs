//! `clientele user add | password | list | remove`

use std::io::{BufRead, IsTerminal};

use clap::Subcommand;

use super::block_on;
use crate::error::{Error, Kind, Result};
use crate::store::{Location, Warehouse};

/// Adds, lists and removes users.
///
/// With a first user the server asks everybody for a name and a password. Passwords are kept as SCRAM-SHA-256 verifiers.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a user; the password is asked for, or read from standard input or CLIENTELE_PASSWORD
    Add {
        /// Name
        name: String,
    },
    /// Give a user another password
    Password {
        /// Name
        name: String,
    },
    /// List the users
    List,
    /// Remove a user
    Remove {
        /// Name
        name: String,
    },
}

pub(super) fn run(args: &Args, dir: &Location) -> Result<()> {
    block_on(run_in(args, dir))
}

async fn run_in(args: &Args, dir: &Location) -> Result<()> {
    let warehouse = Warehouse::open_or_create(dir).await?;
    match &args.command {
        Command::Add { name } => {
            warehouse.set_user(name, &password()?, false).await?;
            eprintln!("user {name} added");
        }
        Command::Password { name } => {
            warehouse.set_user(name, &password()?, true).await?;
            eprintln!("password of {name} changed");
        }
        Command::List => {
            for name in warehouse.users().await?.users.keys() {
                super::output_line(name)?;
            }
        }
        Command::Remove { name } => {
            warehouse.remove_user(name).await?;
            eprintln!("user {name} removed");
        }
    }
    Ok(())
}

/// From the environment, a prompt, or the first line of standard input; never from a flag, which others could see.
fn password() -> Result<String> {
    if let Ok(password) = std::env::var("CLIENTELE_PASSWORD") {
        return Ok(password);
    }
    if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ")?;
        if rpassword::prompt_password("Again: ")? != first {
            return Err(Error::new(Kind::InvalidParameter, "the two passwords differ"));
        }
        return Ok(first);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
