//! The PostgreSQL protocol: our own connection loop over pgwire's messages.
//!
//! Sockets live on one runtime and queries on another, so that a long query never makes the server deaf. A connection is
//! one task: it reads frames, hands statements to the executor, and sends chunks of encoded rows as they come, watching the
//! socket all the while, so that a cancel, a timeout or a client that went away ends the computation.

mod auth;
mod commands;
mod connection;
mod encode;
mod executor;
mod frames;
mod http;
mod parameters;
mod registry;
mod reply;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::catalog::DATABASE;
use crate::error::{Error, Kind, Result};
use crate::session::Engine;

pub use executor::{Executor, STACK_BYTES};
pub use registry::Registry;

/// Who may come in without users: this one, from this machine.
pub const LOCAL_USER: &str = "admin";

/// What connections share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) executor: Executor,
    pub(crate) registry: Arc<Registry>,
    pub(crate) tls: Option<tls::Acceptor>,
    pub(crate) is_loopback: bool,
}

/// A server that is bound to its address and not yet serving.
pub struct Server {
    listener: TcpListener,
    http: Option<TcpListener>,
    /// A role that may connect.
    somebody: String,
    shared: Arc<Shared>,
}

impl Server {
    /// Binds, and refuses what would not be safe.
    pub async fn bind(engine: Arc<Engine>, executor: Executor) -> Result<Self> {
        let config = engine.config();
        let is_loopback = config.server.listen.ip().is_loopback();
        let users = engine.warehouse().users().await?.users;
        let has_users = !users.is_empty();
        let tls = tls::acceptor(&config.tls)?;
        let is_guarded = has_users && tls.is_some();
        if !is_loopback && !is_guarded {
            return Err(Error::new(
                Kind::Config,
                format!(
                    "{} is reachable from other machines, and the server has {}",
                    config.server.listen,
                    missing(has_users, tls.is_some())
                ),
            )
            .detail("off this machine only users over TLS are served")
            .hint("clientele user add NAME; set tls.cert and tls.key; or listen on 127.0.0.1"));
        }
        let bind = |address: SocketAddr| async move {
            TcpListener::bind(address).await.map_err(|error| {
                Error::new(Kind::Io, format!("{address} cannot be listened on: {error}"))
                    .hint("--listen names another address")
            })
        };
        let listener = bind(config.server.listen).await?;
        let http = match config.http.listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let registry = Arc::new(Registry::default());
        let shared = Arc::new(Shared { engine, executor, registry, tls, is_loopback });
        let somebody = users.into_keys().next().unwrap_or_else(|| LOCAL_USER.to_owned());
        Ok(Self { listener, http, somebody, shared })
    }

    /// The address, with the port that was given out for port 0.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// The address of health and metrics.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|http| http.local_addr().ok())
    }

    /// How to connect, as a line for psql.
    pub fn psql_line(&self) -> Result<String> {
        let address = self.address()?;
        let (host, port, user) = (address.ip(), address.port(), &self.somebody);
        Ok(format!("psql -h {host} -p {port} -U {user} -d {DATABASE}"))
    }

    /// Serves until `stop`; then lets running statements end within the configured time.
    pub async fn serve(self, stop: CancellationToken) -> Result<()> {
        let Self { listener, http, shared, .. } = self;
        let users = shared.engine.warehouse().users().await?.users.len();
        if users == 0 {
            tracing::warn!("no users: anyone on this machine may connect as {LOCAL_USER}");
        }
        tracing::info!(address = %listener.local_addr()?, tls = shared.tls.is_some(), users, "serving");
        if let Some(http) = http {
            tokio::spawn(http::serve(http, Arc::clone(&shared), stop.clone()));
        }
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => begin(socket, peer, &shared),
                Err(error) => {
                    // Out of descriptors, most likely: the ones that are open must end first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        drain(&shared).await;
        Ok(())
    }
}

fn missing(has_users: bool, has_tls: bool) -> &'static str {
    match (has_users, has_tls) {
        (false, false) => "neither users nor TLS",
        (false, true) => "no users",
        _ => "no TLS",
    }
}

fn begin(socket: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let metrics = shared.registry.metrics();
        metrics.connections_total.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = connection::run(socket, peer, &shared).await {
            tracing::debug!(%error, "connection ended");
        }
    });
}

/// Idle connections end at once, busy ones when their statement does or the time is over.
async fn drain(shared: &Shared) {
    const LOOK_AGAIN: Duration = Duration::from_millis(50);
    let config = shared.engine.config();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(config.server.drain_timeout_s);
    tracing::info!(running = shared.registry.running(), "stopping; running statements may end");
    shared.registry.stop_idle();
    while shared.registry.running() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    shared.registry.stop_all();
    // A moment for the last answers to leave.
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    while shared.registry.connections() > 0 && tokio::time::Instant::now() < end {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    tracing::info!("stopped");
}
