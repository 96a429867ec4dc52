//! `clientele serve`

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::open_engine;
use crate::config::Config;
use crate::error::Result;
use crate::session::Engine;
use crate::store::Location;
use crate::wire::{Executor, Server};

/// Serves the warehouse over the PostgreSQL protocol until it is told to stop.
///
/// Without users it listens on this machine only and knows the user admin. SIGTERM and Ctrl-C let running statements end.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:5433]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

pub(super) fn run(args: &Args, dir: &Location, mut config: Config) -> Result<()> {
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    let computing = Executor::runtime()?;
    let network = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("network")
        .thread_stack_size(crate::wire::STACK_BYTES)
        .enable_all()
        .build()?;
    let executor = Executor::new(computing.handle().clone(), &config);
    let engine = computing.block_on(Box::pin(open_engine(dir, config, true)))?;
    keep_house(&computing, &engine);
    let served = network.block_on(serve(engine, executor, |server| {
        eprintln!("clientele serves {} at {}", dir, server.address()?);
        if let Some(http) = server.http_address() {
            eprintln!("health and metrics at http://{http}/healthz and http://{http}/metrics");
        }
        eprintln!("try: {}", server.psql_line()?);
        Ok(())
    }));
    network.shutdown_timeout(std::time::Duration::from_secs(1));
    computing.shutdown_timeout(std::time::Duration::from_secs(1));
    served
}

/// Lets a server put its tables in order and run what is scheduled.
pub(super) fn keep_house(computing: &tokio::runtime::Runtime, engine: &Arc<Engine>) {
    let holder = uuid::Uuid::new_v4().to_string();
    let every = engine.config().storage.compact_every_s;
    if every > 0 {
        let every = std::time::Duration::from_secs(every);
        computing.spawn(crate::sql::keep_tidy(Arc::clone(engine), every, holder.clone()));
    }
    if engine.config().reports.scheduled {
        computing.spawn(crate::sql::keep_schedule(Arc::clone(engine), holder));
    }
}

/// Serves until a signal; `greet` speaks when the address is known.
pub(super) async fn serve(
    engine: Arc<Engine>,
    executor: Executor,
    greet: impl FnOnce(&Server) -> Result<()>,
) -> Result<()> {
    let server = Server::bind(engine, executor).await?;
    greet(&server)?;
    let stop = CancellationToken::new();
    let mut terminated = signal(SignalKind::terminate())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stopping.cancel();
    });
    server.serve(stop).await
}
