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
    let house = keep_house(&computing, &engine);
    let served = network.block_on(serve(engine, executor, |server| {
        eprintln!("clientele serves {} at {}", dir, server.address()?);
        if let Some(http) = server.http_address() {
            eprintln!("health and metrics at http://{http}/healthz and http://{http}/metrics");
        }
        eprintln!("try: {}", server.psql_line()?);
        Ok(())
    }));
    computing.block_on(house.leave());
    network.shutdown_timeout(std::time::Duration::from_secs(1));
    computing.shutdown_timeout(std::time::Duration::from_secs(1));
    served
}

/// What a server does by itself.
pub(super) struct House {
    engine: Arc<Engine>,
    /// Who holds the lease of housekeeping.
    holder: String,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Lets a server put its tables in order and run what is scheduled.
pub(super) fn keep_house(computing: &tokio::runtime::Runtime, engine: &Arc<Engine>) -> House {
    let holder = uuid::Uuid::new_v4().to_string();
    let every = engine.config().storage.compact_every_s;
    let mut tasks = Vec::new();
    if every > 0 {
        let every = std::time::Duration::from_secs(every);
        tasks.push(computing.spawn(crate::sql::keep_tidy(
            Arc::clone(engine),
            every,
            holder.clone(),
        )));
    }
    if engine.config().reports.scheduled {
        tasks.push(computing.spawn(crate::sql::keep_schedule(Arc::clone(engine), holder.clone())));
    }
    House { engine: Arc::clone(engine), holder, tasks }
}

impl House {
    /// Stops, and lets another server of the warehouse go on at once.
    pub(super) async fn leave(self) {
        const WAIT: std::time::Duration = std::time::Duration::from_secs(2);
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let given_back = async {
            for task in self.tasks {
                // Aborted, as was asked.
                let _ = task.await;
            }
            self.engine.warehouse().give_lease_back(&self.holder).await
        };
        match tokio::time::timeout(WAIT, given_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the lease could not be given back"),
            Err(_) => tracing::debug!("the lease could not be given back in time"),
        }
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
