//! Flags in, exit code out.

use std::process::ExitCode;

use clap::Parser;

/// Queries allocate from many threads at once, and what one of them gives back another one needs: jemalloc is as fast at that as any,
/// and holds little more than what is used (benches/results.md). How it keeps house is said when it is built: .cargo/config.toml.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
