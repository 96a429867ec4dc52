//! `/healthz` and `/metrics` on a port of their own.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Shared;

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, _)) = accepted else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(&request, &shared).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "http connection ended");
            }
        });
    }
}

async fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => match shared.engine.warehouse().check_alive().await {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(error) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the warehouse cannot be read: {}\n", error.sqlstate()),
            ),
        },
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics(shared)),
        _ => (StatusCode::NOT_FOUND, "known are /healthz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, text);
    response
}

/// The counters in Prometheus' text format.
fn metrics(shared: &Shared) -> String {
    let counters = shared.registry.metrics();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let pool = shared.engine.memory_reserved() as f64;
    let all = [
        (
            "clientele_connections",
            "gauge",
            "Open connections.",
            shared.registry.connections() as f64,
        ),
        (
            "clientele_statements_running",
            "gauge",
            "Statements that run now.",
            shared.registry.running() as f64,
        ),
        (
            "clientele_statements_waiting",
            "gauge",
            "Statements that wait for their turn.",
            shared.executor.waiting() as f64,
        ),
        ("clientele_memory_reserved_bytes", "gauge", "Memory that queries hold.", pool),
        (
            "clientele_connections_total",
            "counter",
            "Connections accepted.",
            count(&counters.connections_total),
        ),
        (
            "clientele_connections_refused_total",
            "counter",
            "Connections refused for their number.",
            count(&counters.refused_total),
        ),
        (
            "clientele_logins_failed_total",
            "counter",
            "Logins refused.",
            count(&counters.logins_failed_total),
        ),
        (
            "clientele_statements_total",
            "counter",
            "Statements begun.",
            count(&counters.statements_total),
        ),
        (
            "clientele_statements_failed_total",
            "counter",
            "Statements that ended in an error.",
            count(&counters.statements_failed_total),
        ),
        (
            "clientele_statements_cancelled_total",
            "counter",
            "Statements cancelled or timed out.",
            count(&counters.statements_cancelled_total),
        ),
        ("clientele_rows_sent_total", "counter", "Rows sent.", count(&counters.rows_sent_total)),
        (
            "clientele_statement_seconds_total",
            "counter",
            "Time in statements.",
            count(&counters.statement_us_total) / 1e6,
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in all {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    text
}
