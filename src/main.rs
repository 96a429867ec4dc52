//! Flags in, exit code out.

use std::process::ExitCode;

use clap::Parser;

/// Queries allocate from many threads at once; mimalloc is faster at that than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    clientele::cli::run(clientele::cli::Cli::parse())
}
