//! The runtime on which statements are planned and computed, and who may use it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono_tz::Tz;
use datafusion::sql::sqlparser::ast::Expr;
use futures::StreamExt;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::encode::{self, Prepared, Rows, Style};
use crate::config::{Config, processors};
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::session::stop::Stop;
use crate::sql::statement::Parsed;
use crate::sql::{CopyStatement, Outcome, OutputColumn, SessionCommand};

/// Stack of every thread that handles a statement: reading, planning and freeing recurse over its depth.
pub const STACK_BYTES: usize = 64 << 20;

/// Computing threads for a processor. A task that computes for long without a pause, such as the sort of one large group,
/// holds its thread; with threads to spare the others' statements get their share of the processors from the system.
const THREADS_A_PROCESSOR: usize = 4;

/// Threads that read and write files. Each keeps some megabytes of what passed through it: with the runtime's 512 a compaction of a large
/// table held a fifth more.
const BLOCKING_THREADS: usize = 16;

/// Chunks that may wait for a slow client; then the computation waits too.
const CHUNKS_AHEAD: usize = 4;

/// Runs statements, a bounded number at once.
#[derive(Clone)]
pub struct Executor {
    handle: Handle,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue_max: usize,
    queue_timeout: Duration,
}

impl Executor {
    /// Makes the computing runtime; the caller keeps it alive.
    pub fn runtime() -> Result<Runtime> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(processors() * THREADS_A_PROCESSOR)
            .thread_name("compute")
            .thread_stack_size(STACK_BYTES)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        Ok(runtime)
    }

    /// An executor on that runtime, within the limits of `config`.
    pub fn new(handle: Handle, config: &Config) -> Self {
        Self {
            handle,
            permits: Arc::new(Semaphore::new(config.statements_max())),
            waiting: Arc::default(),
            queue_max: config.server.queue_max,
            queue_timeout: Duration::from_secs(config.server.queue_timeout_s),
        }
    }

    /// Waits for a turn. A full queue, or a wait that is too long, is said in words and not with silence.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let busy = |what: &str| {
            Error::new(Kind::TooManyConnections, format!("too many statements: {what}"))
                .hint("try again in a moment, or raise server.statements_max and server.queue_max")
        };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.queue_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(busy("the queue is full"));
        }
        let waited =
            tokio::time::timeout(self.queue_timeout, Arc::clone(&self.permits).acquire_owned())
                .await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        match waited {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::new(Kind::Shutdown, "the server is stopping")),
            Err(_) => Err(busy("no turn came within the queue's time")),
        }
    }

    /// Statements that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Runs `work` on the computing runtime; dropping the task ends it.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let stop = Stop::default();
        Task { handle: self.handle.spawn(stop.over(work)), stop }
    }
}

/// Work on the computing runtime. It ends when this is dropped.
pub(crate) struct Task<T> {
    handle: JoinHandle<T>,
    stop: Stop,
}

impl<T> Task<T> {
    /// Waits for the result; a panic is an error of ours, not the end of the server.
    pub(crate) async fn join(&mut self) -> Result<T> {
        (&mut self.handle).await.map_err(|error| {
            if error.is_panic() {
                tracing::error!("a statement panicked");
                Error::internal(
                    "the statement stopped unexpectedly; this is a mistake of the server",
                )
            } else {
                Error::new(Kind::Cancelled, "the statement was stopped")
            }
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.stop.set();
        self.handle.abort();
    }
}

/// What a running statement hands over, piece by piece.
pub(crate) enum Piece {
    /// What the user should know.
    Notice(String),
    /// Rows will follow.
    Columns(Vec<OutputColumn>),
    /// Rows.
    Rows(Rows),
    /// The end.
    End(End),
}

/// How a statement ended.
pub(crate) enum End {
    /// After rows; the tag without their number.
    Rows(&'static str),
    /// After COPY data.
    Copied,
    /// Without rows; the whole tag.
    Done(String),
    /// The same, with a notice.
    Noticed(String, String),
    /// It is about the session.
    Session(SessionCommand),
    /// The client is to send rows.
    CopyIn(Box<CopyStatement>),
}

/// A statement under way.
pub(crate) struct Running {
    pieces: mpsc::Receiver<Result<Piece>>,
    task: Task<()>,
    // Held while computing; given up when the portal is only kept open.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Running {
    /// The next piece.
    pub(crate) async fn next(&mut self) -> Result<Piece> {
        match self.pieces.recv().await {
            Some(piece) => piece,
            None => {
                self.task.join().await?;
                Err(Error::internal("the statement ended without an answer"))
            }
        }
    }
}

/// What to run and how to write what it gives.
pub(crate) struct Work {
    pub(crate) session: Arc<Session>,
    pub(crate) parsed: Parsed,
    pub(crate) values: Vec<Expr>,
    /// Format codes as the client gave them: none, one for all, or one a column.
    pub(crate) formats: Vec<i16>,
}

impl Executor {
    /// Starts a statement.
    pub(crate) fn start(&self, work: Work, permit: Option<OwnedSemaphorePermit>) -> Running {
        let (sender, pieces) = mpsc::channel(CHUNKS_AHEAD);
        let task = self.spawn(async move {
            if let Err(error) = run(work, &sender).await {
                // Nobody listens any more when the connection has moved on.
                let _ = sender.send(Err(error)).await;
            }
        });
        Running { pieces, task, permit }
    }
}

async fn run(work: Work, sender: &mpsc::Sender<Result<Piece>>) -> Result<()> {
    let zone: Tz = work.session.settings().timezone().parse().unwrap_or(Tz::UTC);
    let outcome = Box::pin(crate::sql::execute(&work.session, &work.parsed, &work.values)).await?;
    let is_quiet = work.session.settings().is_quiet();
    let end = match outcome {
        Outcome::Rows { columns, mut stream, tag, notices } => {
            for notice in notices.into_iter().filter(|_| !is_quiet) {
                send(sender, Piece::Notice(notice)).await?;
            }
            let binary = binary_columns(&work.formats, columns.len())?;
            send(sender, Piece::Columns(columns.clone())).await?;
            stream_rows(&mut stream, &columns, &Style::Wire(binary), zone, sender).await?;
            End::Rows(tag)
        }
        Outcome::CopyOut { copy, columns, mut stream, notices } => {
            for notice in notices.into_iter().filter(|_| !is_quiet) {
                send(sender, Piece::Notice(notice)).await?;
            }
            send(sender, Piece::Columns(columns.clone())).await?;
            if let Some(bytes) = encode::copy_header(&columns, &copy.format) {
                send(sender, Piece::Rows(Rows { bytes, ends: Vec::new() })).await?;
            }
            stream_rows(&mut stream, &columns, &Style::Copy(copy.format.clone()), zone, sender)
                .await?;
            End::Copied
        }
        Outcome::Done(tag) => End::Done(tag),
        Outcome::Noticed { tag, .. } if is_quiet => End::Done(tag),
        Outcome::Noticed { tag, notice } => End::Noticed(tag, notice),
        Outcome::Session(command) => End::Session(command),
        Outcome::CopyIn(copy) => End::CopyIn(copy),
    };
    send(sender, Piece::End(end)).await
}

async fn send(sender: &mpsc::Sender<Result<Piece>>, piece: Piece) -> Result<()> {
    sender
        .send(Ok(piece))
        .await
        .map_err(|_| Error::new(Kind::Cancelled, "nobody waits for the rows any more"))
}

async fn stream_rows(
    stream: &mut datafusion::execution::SendableRecordBatchStream,
    columns: &[OutputColumn],
    style: &Style,
    zone: Tz,
    sender: &mpsc::Sender<Result<Piece>>,
) -> Result<()> {
    while let Some(batch) = stream.next().await {
        let batch = Prepared::new(&batch?, columns, zone)?;
        let mut row = 0;
        while row < batch.len {
            let (rows, next) = encode::rows(&batch, style, row)?;
            row = next;
            send(sender, Piece::Rows(rows)).await?;
        }
    }
    Ok(())
}

/// For each column whether it leaves in binary.
pub(crate) fn binary_columns(formats: &[i16], columns: usize) -> Result<Vec<bool>> {
    if let Some(code) = formats.iter().find(|code| !matches!(code, 0 | 1)) {
        return Err(Error::new(Kind::InvalidParameter, format!("unsupported format code: {code}")));
    }
    match formats {
        [] => Ok(vec![false; columns]),
        [one] => Ok(vec![*one == 1; columns]),
        each if each.len() == columns => Ok(each.iter().map(|code| *code == 1).collect()),
        each => Err(Error::new(
            Kind::Protocol,
            format!(
                "bind message has {} result formats but query has {columns} columns",
                each.len()
            ),
        )),
    }
}
