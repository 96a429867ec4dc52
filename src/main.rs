//! Flags in, exit code out.

use std::process::ExitCode;

use clap::Parser;

/// Queries allocate from many threads at once; mimalloc is faster at that than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Statements of the command line are read and planned here: as deep as those of a connection.
    let main = std::thread::Builder::new()
        .name("main".to_owned())
        .stack_size(clientele::wire::STACK_BYTES);
    match main.spawn(|| clientele::cli::run(clientele::cli::Cli::parse())).map(|main| main.join()) {
        Ok(Ok(code)) => code,
        Ok(Err(_)) | Err(_) => ExitCode::from(2),
    }
}
