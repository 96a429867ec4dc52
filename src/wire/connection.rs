//! One connection: messages in, answers out, in PostgreSQL's order.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::datatypes::DataType;
use bytes::{Bytes, BytesMut};
use datafusion::sql::sqlparser::ast::Expr;
use pgwire::messages::PgWireFrontendMessage as Message;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete,
    PortalSuspended,
};
use pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use pgwire::messages::startup::{BackendKeyData, SecretKey};
use pgwire::tokio::server::MaybeTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::auth::{LOGIN_TIMEOUT, Login, login, refuse};
use super::commands::{no_portal, no_statement};
use super::encode::Rows;
use super::executor::{End, Piece, Running, Work, binary_columns};
use super::frames::{MESSAGE_BYTES_MAX, decode, read_frame};
use super::registry::{Busy, Place};
use super::reply::{self, Severity};
use super::{Shared, parameters};
use crate::catalog::pg_catalog::type_of;
use crate::config::MaxBad;
use crate::error::{Error, Kind, Result};
use crate::ingest::{self, CopyRequest};
use crate::session::{Session, Settings};
use crate::sql::statement::{Parsed, Statement};
use crate::sql::{CopySource, CopyStatement, Described, OutputColumn, SessionCommand};

/// Bytes gathered before they are sent.
const FLUSH_BYTES: usize = 32 << 10;

/// Bytes of later messages that are read ahead while a statement runs, to notice a client that left.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// Columns of a result, as in PostgreSQL.
const COLUMNS_MAX: usize = 1664;

/// Serves one socket to its end.
pub(super) async fn run(
    socket: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
) -> std::io::Result<()> {
    let Ok(logged_in) = timeout(LOGIN_TIMEOUT, Box::pin(login(socket, peer, shared))).await else {
        return Ok(());
    };
    let Some(mut login) = logged_in? else { return Ok(()) };
    let Some(place) = shared.registry.enter(shared.engine.config().server.connections_max) else {
        shared.registry.metrics().refused_total.fetch_add(1, Ordering::Relaxed);
        let full = Error::new(Kind::TooManyConnections, "too many connections")
            .hint("close some, or raise server.connections_max");
        return refuse(&mut login.io, &full).await;
    };
    let session = Arc::new(shared.engine.session(&login.user));
    if let Err(error) = apply_startup(&session, &login.user, &login.parameters) {
        return refuse(&mut login.io, &error).await;
    }
    let Login { io, buffer, greeting, .. } = login;
    let mut connection = Connection {
        io,
        incoming: buffer,
        out: greeting,
        session,
        shared: Arc::clone(shared),
        place,
        status: TransactionStatus::Idle,
        statements: HashMap::new(),
        portals: HashMap::new(),
        savepoints: Vec::new(),
        wrote_in_block: false,
        before_block: None,
        local_settings: Vec::new(),
    };
    connection.greet();
    Box::pin(connection.serve()).await
}

/// Settings that a client sends when it connects become what RESET returns to.
fn apply_startup(session: &Session, user: &str, given: &BTreeMap<String, String>) -> Result<()> {
    session.with_settings(|settings| {
        settings.set_user(user);
        for (name, value) in given {
            match name.as_str() {
                "user" | "database" | "replication" => {}
                "options" => {
                    for (name, value) in startup_options(value) {
                        settings.set(&name, Some(&value))?;
                    }
                }
                name if name.starts_with("_pq_.") => {}
                name => {
                    settings.set(name, Some(value))?;
                }
            }
        }
        settings.keep_as_defaults();
        Ok(())
    })
}

/// `-c name=value --name=value`, as libpq's options parameter has them.
fn startup_options(text: &str) -> Vec<(String, String)> {
    let text = text.replace("\\ ", "\u{0}");
    let mut options = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let assignment = match word {
            "-c" => words.next().unwrap_or_default(),
            word => word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or_default(),
        };
        if let Some((name, value)) = assignment.split_once('=') {
            options.push((name.replace('-', "_"), value.replace('\u{0}', " ")));
        }
    }
    options
}

/// A statement that was parsed and described.
pub(super) struct Prepared {
    /// Text as it was sent.
    pub(super) sql: String,
    /// `None` for an empty statement.
    pub(super) parsed: Option<Parsed>,
    pub(super) described: Described,
}

/// How the rows of a portal are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// All of them, with a description: the simple protocol.
    Simple,
    /// So many at most, 0 for all: an Execute message.
    Execute(usize),
    /// So many at most, 0 for all: FETCH from a cursor.
    Fetch(usize),
}

impl Ask {
    fn rows_max(self) -> usize {
        match self {
            Self::Simple => 0,
            Self::Execute(rows) | Self::Fetch(rows) => rows,
        }
    }

    fn tag(self, tag: &'static str) -> &'static str {
        if matches!(self, Self::Fetch(_)) { "FETCH" } else { tag }
    }
}

/// A prepared statement with its values, perhaps half fetched; a cursor is one too.
pub(super) struct Portal {
    pub(super) prepared: Arc<Prepared>,
    pub(super) values: Vec<Expr>,
    pub(super) formats: Vec<i16>,
    pub(super) progress: Progress,
    /// Whether it outlives its transaction block.
    pub(super) is_held: bool,
}

pub(super) enum Progress {
    New,
    Open(Box<Open>),
    Done,
}

/// A statement whose rows are being fetched.
pub(super) struct Open {
    running: Running,
    /// Rows that were computed and not yet sent: the chunk, and how many of it are gone.
    rest: Option<(Rows, usize)>,
}

/// Why the connection ends.
pub(super) enum Stop {
    /// The client said so, or is gone.
    Left,
    /// The socket failed.
    Io(std::io::Error),
    /// We end it, with a last word.
    Fatal(Error),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Why a statement ended early.
pub(super) enum Halt {
    /// It failed; the connection goes on.
    Failed(Error),
    /// The connection ends.
    Stop(Stop),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for Halt {
    fn from(error: std::io::Error) -> Self {
        Self::Stop(Stop::Io(error))
    }
}

pub(super) struct Connection {
    io: MaybeTls,
    incoming: BytesMut,
    pub(super) out: BytesMut,
    pub(super) session: Arc<Session>,
    shared: Arc<Shared>,
    pub(super) place: Place,
    pub(super) status: TransactionStatus,
    pub(super) statements: HashMap<String, Arc<Prepared>>,
    pub(super) portals: HashMap<String, Portal>,
    /// Names of savepoints, and settings as they were at each.
    pub(super) savepoints: Vec<(String, Settings)>,
    /// Whether the open block has written something, which a rollback cannot take back.
    pub(super) wrote_in_block: bool,
    /// Settings as they were when the open block began.
    pub(super) before_block: Option<Settings>,
    /// Settings that end with the open block, as they were before.
    pub(super) local_settings: Vec<(&'static str, Option<String>)>,
}

impl Connection {
    fn greet(&mut self) {
        let settings = self.session.settings();
        for name in [
            "application_name",
            "client_encoding",
            "DateStyle",
            "default_transaction_read_only",
            "in_hot_standby",
            "integer_datetimes",
            "IntervalStyle",
            "is_superuser",
            "server_encoding",
            "server_version",
            "session_authorization",
            "standard_conforming_strings",
            "TimeZone",
        ] {
            if let Ok((name, value)) = settings.show(name) {
                reply::parameter(&mut self.out, name, &value);
            }
        }
        reply::put(
            &mut self.out,
            &BackendKeyData::new(self.place.pid, SecretKey::I32(self.place.secret)),
        );
        reply::ready(&mut self.out, self.status);
    }

    async fn serve(&mut self) -> std::io::Result<()> {
        let stop = loop {
            if let Err(error) = self.flush().await {
                break Stop::Io(error);
            }
            match self.next_message().await {
                Ok(message) => match Box::pin(self.handle(message)).await {
                    Ok(()) => {}
                    Err(stop) => break stop,
                },
                Err(stop) => break stop,
            }
        };
        match stop {
            Stop::Left => Ok(()),
            Stop::Io(error) => Err(error),
            Stop::Fatal(error) => {
                reply::error(&mut self.out, Severity::Fatal, &error, "");
                self.flush().await?;
                self.io.shutdown().await
            }
        }
    }

    async fn next_message(&mut self) -> std::result::Result<Message, Stop> {
        let frame = tokio::select! {
            frame = read_frame(&mut self.io, &mut self.incoming, MESSAGE_BYTES_MAX) => frame,
            () = self.place.entry.stop.cancelled() => {
                return Err(Stop::Fatal(Error::new(Kind::Shutdown, "terminating connection: the server is stopping")));
            }
        };
        let Some(frame) = frame? else { return Err(Stop::Left) };
        let kind = frame[0];
        match decode(frame) {
            Ok(message) => Ok(message),
            // A known message with a wrong body is an error of its own; an unknown one ends the connection.
            Err(problem) if b"QPBDECHSfcd".contains(&kind) => {
                Err(Stop::Fatal(Error::new(Kind::Protocol, problem)))
            }
            Err(problem) => {
                Err(Stop::Fatal(Error::new(Kind::Protocol, format!("{problem}: {kind}"))))
            }
        }
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        if !self.out.is_empty() {
            self.io.write_all(&self.out).await?;
            self.out.clear();
            self.io.flush().await?;
        }
        Ok(())
    }

    async fn handle(&mut self, message: Message) -> std::result::Result<(), Stop> {
        match message {
            Message::Query(query) => return Box::pin(self.simple(query.query)).await,
            Message::Sync(_) => {
                self.portals_end_with_statement();
                reply::ready(&mut self.out, self.status);
                return Ok(());
            }
            Message::Flush(_)
            | Message::CopyData(_)
            | Message::CopyDone(_)
            | Message::CopyFail(_) => return Ok(()),
            Message::Terminate(_) => return Err(Stop::Left),
            _ => {}
        }
        let mut sql = String::new();
        let result = match message {
            Message::Parse(parse) => {
                sql.clone_from(&parse.query);
                self.parse(parse).await.map_err(Halt::Failed)
            }
            Message::Bind(bind) => self.bind(bind).map_err(Halt::Failed),
            Message::Describe(describe) => self.describe(&describe).map_err(Halt::Failed),
            Message::Execute(execute) => Box::pin(self.execute(&execute)).await,
            Message::Close(close) => {
                self.close(&close);
                Ok(())
            }
            _ => return Err(Stop::Fatal(Error::new(Kind::Protocol, "unexpected message"))),
        };
        match result {
            Ok(()) => Ok(()),
            Err(Halt::Stop(stop)) => Err(stop),
            Err(Halt::Failed(error)) => {
                self.fail(&error, &sql);
                self.skip_to_sync().await
            }
        }
    }

    /// After an error everything up to the next Sync is discarded.
    async fn skip_to_sync(&mut self) -> std::result::Result<(), Stop> {
        self.flush().await?;
        loop {
            match self.next_message().await? {
                Message::Sync(_) => {
                    self.portals_end_with_statement();
                    reply::ready(&mut self.out, self.status);
                    return Ok(());
                }
                Message::Terminate(_) => return Err(Stop::Left),
                _ => {}
            }
        }
    }

    fn portals_end_with_statement(&mut self) {
        if self.status == TransactionStatus::Idle {
            self.portals.retain(|_, portal| portal.is_held);
        }
    }

    fn fail(&mut self, error: &Error, sql: &str) {
        self.place.metrics().statements_failed_total.fetch_add(1, Ordering::Relaxed);
        reply::error(&mut self.out, Severity::Error, error, sql);
        if self.status == TransactionStatus::Transaction {
            self.status = TransactionStatus::Error;
        }
    }

    async fn simple(&mut self, sql: String) -> std::result::Result<(), Stop> {
        let failed = match crate::sql::parse(&sql) {
            Err(error) => Some(error),
            Ok(statements) if statements.is_empty() => {
                reply::put(&mut self.out, &EmptyQueryResponse::new());
                None
            }
            Ok(statements) => {
                let mut failed = None;
                for parsed in statements {
                    match Box::pin(self.simple_statement(parsed)).await {
                        Ok(()) => {}
                        Err(Halt::Failed(error)) => {
                            failed = Some(error);
                            break;
                        }
                        Err(Halt::Stop(stop)) => return Err(stop),
                    }
                }
                failed
            }
        };
        if let Some(error) = failed {
            self.fail(&error, &sql);
        }
        self.portals_end_with_statement();
        reply::ready(&mut self.out, self.status);
        Ok(())
    }

    async fn simple_statement(&mut self, parsed: Parsed) -> std::result::Result<(), Halt> {
        self.check_block(&parsed.statement)?;
        if let Statement::Session(command) = &parsed.statement {
            return self.command(command, true, &[]).await;
        }
        self.run_to_end(parsed, Vec::new(), true, &[]).await
    }

    /// In a failed block only its end is accepted.
    fn check_block(&self, statement: &Statement) -> Result<()> {
        let is_end = matches!(
            statement,
            Statement::Session(
                SessionCommand::Commit | SessionCommand::Rollback | SessionCommand::RollbackTo(_)
            )
        );
        if self.status == TransactionStatus::Error && !is_end {
            return Err(Error::new(
                Kind::InFailedTransaction,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        Ok(())
    }

    /// Runs a statement and sends everything it gives, in the simple protocol with a description of its columns.
    pub(super) async fn run_to_end(
        &mut self,
        parsed: Parsed,
        values: Vec<Expr>,
        describes: bool,
        formats: &[i16],
    ) -> std::result::Result<(), Halt> {
        let mut portal = Portal {
            prepared: Arc::new(Prepared {
                sql: parsed.text.clone(),
                parsed: Some(parsed),
                described: Described { parameters: vec![], columns: None },
            }),
            values,
            formats: formats.to_vec(),
            progress: Progress::New,
            is_held: false,
        };
        let ask = if describes { Ask::Simple } else { Ask::Execute(0) };
        self.advance(&mut portal, ask).await
    }

    async fn parse(&mut self, parse: Parse) -> Result<()> {
        let name = parse.name.unwrap_or_default();
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Error::new(
                Kind::DuplicateStatement,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let declared = parse.type_oids.iter().map(|oid| parameters::type_of_oid(*oid)).collect();
        let prepared = self.prepare(parse.query, declared).await?;
        self.statements.insert(name, Arc::new(prepared));
        reply::put(&mut self.out, &ParseComplete::new());
        Ok(())
    }

    pub(super) async fn prepare(
        &self,
        sql: String,
        declared: Vec<Option<DataType>>,
    ) -> Result<Prepared> {
        let mut statements = crate::sql::parse(&sql)?;
        if statements.len() > 1 {
            return Err(Error::new(
                Kind::Syntax,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        let Some(parsed) = statements.pop() else {
            return Ok(Prepared {
                sql,
                parsed: None,
                described: Described { parameters: vec![], columns: None },
            });
        };
        self.check_block(&parsed.statement)?;
        let described = match &parsed.statement {
            Statement::Session(command) => self.describe_command(command),
            _ => {
                let (session, parsed) = (Arc::clone(&self.session), parsed.clone());
                let describing = async move {
                    Box::pin(crate::sql::describe(&session, &parsed, &declared)).await
                };
                self.shared.executor.spawn(describing).join().await??
            }
        };
        Ok(Prepared { sql, parsed: Some(parsed), described })
    }

    fn bind(&mut self, bind: Bind) -> Result<()> {
        let statement = bind.statement_name.unwrap_or_default();
        let name = bind.portal_name.unwrap_or_default();
        let prepared =
            Arc::clone(self.statements.get(&statement).ok_or_else(|| no_statement(&statement))?);
        if let Some(parsed) = &prepared.parsed {
            self.check_block(&parsed.statement)?;
        }
        let types = &prepared.described.parameters;
        if bind.parameters.len() != types.len() {
            return Err(Error::new(
                Kind::Protocol,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                    bind.parameters.len(),
                    types.len()
                ),
            ));
        }
        let codes = &bind.parameter_format_codes;
        if codes.len() > 1 && codes.len() != types.len() {
            return Err(Error::new(
                Kind::Protocol,
                format!(
                    "bind message has {} parameter formats but {} parameters",
                    codes.len(),
                    types.len()
                ),
            ));
        }
        let mut values = Vec::with_capacity(types.len());
        for (i, (bytes, data_type)) in bind.parameters.iter().zip(types).enumerate() {
            let code = if codes.len() == 1 { codes[0] } else { codes.get(i).copied().unwrap_or(0) };
            let value = parameters::read(i + 1, bytes.as_deref(), code == 1, data_type)?;
            values.push(crate::sql::literal_of(&value)?);
        }
        if let Some(columns) = &prepared.described.columns {
            binary_columns(&bind.result_column_format_codes, columns.len())?;
        }
        let portal = Portal {
            prepared,
            values,
            formats: bind.result_column_format_codes,
            progress: Progress::New,
            is_held: false,
        };
        self.portals.insert(name, portal);
        reply::put(&mut self.out, &BindComplete::new());
        Ok(())
    }

    fn describe(&mut self, describe: &Describe) -> Result<()> {
        let name = describe.name.clone().unwrap_or_default();
        let (prepared, formats) = if describe.target_type == b'S' {
            let prepared =
                Arc::clone(self.statements.get(&name).ok_or_else(|| no_statement(&name))?);
            let types = prepared.described.parameters.iter().map(oid_of).collect();
            reply::put(&mut self.out, &ParameterDescription::new(types));
            (prepared, vec![])
        } else {
            let portal = self.portals.get(&name).ok_or_else(|| no_portal(&name))?;
            (Arc::clone(&portal.prepared), portal.formats.clone())
        };
        match &prepared.described.columns {
            Some(columns) => describe_columns(&mut self.out, columns, &formats)?,
            None => reply::put(&mut self.out, &NoData::new()),
        }
        Ok(())
    }

    async fn execute(&mut self, execute: &Execute) -> std::result::Result<(), Halt> {
        let name = execute.name.clone().unwrap_or_default();
        let rows_max = usize::try_from(execute.max_rows).unwrap_or(0);
        let Some(mut portal) = self.portals.remove(&name) else {
            return Err(no_portal(&name).into());
        };
        let result = Box::pin(self.execute_portal(&mut portal, rows_max)).await;
        // A command may have ended the block and with it every portal.
        self.portals.insert(name, portal);
        result
    }

    async fn execute_portal(
        &mut self,
        portal: &mut Portal,
        rows_max: usize,
    ) -> std::result::Result<(), Halt> {
        let prepared = Arc::clone(&portal.prepared);
        let Some(parsed) = &prepared.parsed else {
            reply::put(&mut self.out, &EmptyQueryResponse::new());
            return Ok(());
        };
        self.check_block(&parsed.statement)?;
        match &parsed.statement {
            Statement::Session(command) => self.command(command, false, &portal.formats).await,
            _ => self.advance(portal, Ask::Execute(rows_max)).await,
        }
    }

    fn close(&mut self, close: &Close) {
        let name = close.name.clone().unwrap_or_default();
        if close.target_type == b'S' {
            self.statements.remove(&name);
        } else {
            self.portals.remove(&name);
        }
        reply::put(&mut self.out, &CloseComplete::new());
    }

    /// Runs a portal on, until it ends or as many rows are sent as were asked for.
    pub(super) async fn advance(
        &mut self,
        portal: &mut Portal,
        ask: Ask,
    ) -> std::result::Result<(), Halt> {
        let started = Instant::now();
        let registry = Arc::clone(&self.shared.registry);
        registry.metrics().statements_total.fetch_add(1, Ordering::Relaxed);
        let deadline = self.session.settings().statement_timeout().map(|t| started + t);
        let result = Box::pin(self.advance_until(portal, ask, deadline)).await;
        let elapsed = started.elapsed();
        registry
            .metrics()
            .statement_us_total
            .fetch_add(elapsed.as_micros() as u64, Ordering::Relaxed);
        let outcome = match &result {
            Ok(()) => "ok",
            Err(Halt::Failed(error)) => {
                portal.progress = Progress::Done;
                if error.kind() == Kind::Cancelled {
                    registry.metrics().statements_cancelled_total.fetch_add(1, Ordering::Relaxed);
                }
                error.sqlstate()
            }
            Err(Halt::Stop(_)) => "client left",
        };
        let query_id = query_id(&portal.prepared.sql);
        tracing::debug!(
            query_id,
            pid = self.place.pid,
            outcome,
            elapsed_ms = elapsed.as_millis() as u64,
            "statement"
        );
        result
    }

    async fn advance_until(
        &mut self,
        portal: &mut Portal,
        ask: Ask,
        deadline: Option<Instant>,
    ) -> std::result::Result<(), Halt> {
        let rows_max = ask.rows_max();
        let prepared = Arc::clone(&portal.prepared);
        let Some(parsed) = &prepared.parsed else { return Ok(()) };
        let is_copy = matches!(parsed.statement, Statement::Copy(_));
        let wrote = parsed.statement.writes().is_some();
        let mut open = match std::mem::replace(&mut portal.progress, Progress::Done) {
            Progress::Done => {
                reply::complete(&mut self.out, &format!("{} 0", ask.tag("SELECT")));
                return Ok(());
            }
            Progress::Open(open) => open,
            Progress::New => {
                let permit = self.wait_for_turn(deadline).await?;
                let work = Work {
                    session: Arc::clone(&self.session),
                    parsed: parsed.clone(),
                    values: std::mem::take(&mut portal.values),
                    formats: portal.formats.clone(),
                };
                Box::new(Open {
                    running: self.shared.executor.start(work, Some(permit)),
                    rest: None,
                })
            }
        };
        let mut sent = 0;
        loop {
            if let Some((rows, gone)) = open.rest.take() {
                let left = rows.ends.len() - gone;
                let wanted = if rows_max == 0 { left } else { left.min(rows_max - sent) };
                let from = if gone == 0 { 0 } else { rows.ends[gone - 1] };
                let to = if gone + wanted == 0 {
                    rows.bytes.len()
                } else {
                    rows.ends[gone + wanted - 1]
                };
                self.out.extend_from_slice(&rows.bytes[from..to]);
                sent += wanted;
                if self.out.len() >= FLUSH_BYTES {
                    self.flush().await?;
                }
                if wanted < left {
                    open.rest = Some((rows, gone + wanted));
                }
                if rows_max > 0 && sent == rows_max {
                    self.place.metrics().rows_sent_total.fetch_add(sent as u64, Ordering::Relaxed);
                    // A portal that is only kept open computes nothing and holds nobody up.
                    open.running.permit = None;
                    portal.progress = Progress::Open(open);
                    match ask {
                        Ask::Fetch(_) => reply::complete(&mut self.out, &format!("FETCH {sent}")),
                        _ => reply::put(&mut self.out, &PortalSuspended::new()),
                    }
                    return Ok(());
                }
                continue;
            }
            match self.next_piece(&mut open.running, deadline).await? {
                Piece::Notice(notice) => {
                    reply::notice(&mut self.out, Severity::Notice, "00000", &notice);
                }
                Piece::Columns(columns) => {
                    if columns.len() > COLUMNS_MAX {
                        return Err(Error::new(
                            Kind::LimitExceeded,
                            format!("a result has at most {COLUMNS_MAX} columns"),
                        )
                        .into());
                    }
                    if is_copy {
                        let formats = vec![0; columns.len()];
                        reply::put(
                            &mut self.out,
                            &CopyOutResponse::new(0, columns.len() as i16, formats),
                        );
                    } else if ask == Ask::Simple {
                        describe_columns(&mut self.out, &columns, &portal.formats)?;
                    }
                }
                Piece::Rows(rows) if rows.ends.is_empty() => {
                    self.out.extend_from_slice(&rows.bytes)
                }
                Piece::Rows(rows) => open.rest = Some((rows, 0)),
                Piece::End(end) => {
                    self.place.metrics().rows_sent_total.fetch_add(sent as u64, Ordering::Relaxed);
                    self.wrote_in_block |= wrote && self.status == TransactionStatus::Transaction;
                    return self.finish(end, ask, sent, deadline).await;
                }
            }
        }
    }

    async fn finish(
        &mut self,
        end: End,
        ask: Ask,
        rows: usize,
        deadline: Option<Instant>,
    ) -> std::result::Result<(), Halt> {
        match end {
            End::Rows(tag) => reply::complete(&mut self.out, &format!("{} {rows}", ask.tag(tag))),
            End::Copied => {
                reply::put(&mut self.out, &CopyDone::new());
                reply::complete(&mut self.out, &format!("COPY {rows}"));
            }
            End::Done(tag) => reply::complete(&mut self.out, &tag),
            End::Noticed(tag, notice) => {
                reply::notice(&mut self.out, Severity::Notice, "00000", &notice);
                reply::complete(&mut self.out, &tag);
            }
            End::Session(command) => Box::pin(self.command(&command, false, &[])).await?,
            End::CopyIn(copy) => return Box::pin(self.copy_in(*copy, deadline)).await,
        }
        Ok(())
    }

    async fn wait_for_turn(
        &mut self,
        deadline: Option<Instant>,
    ) -> std::result::Result<tokio::sync::OwnedSemaphorePermit, Halt> {
        let executor = self.shared.executor.clone();
        let Self { place, io, incoming, .. } = self;
        let busy = place.begin_statement();
        watched(executor.turn(), &busy, place, io, incoming, deadline).await?.map_err(Halt::Failed)
    }

    /// The next piece of a running statement, unless it is cancelled, out of time, or nobody is there any more.
    async fn next_piece(
        &mut self,
        running: &mut Running,
        deadline: Option<Instant>,
    ) -> std::result::Result<Piece, Halt> {
        // What is ready goes out while the next rows are computed, but not piece by piece.
        if self.out.len() >= FLUSH_BYTES {
            self.flush().await?;
        }
        let Self { place, io, incoming, .. } = self;
        let busy = place.begin_statement();
        watched(running.next(), &busy, place, io, incoming, deadline).await?.map_err(Halt::Failed)
    }

    /// Takes the rows of COPY FROM STDIN.
    async fn copy_in(
        &mut self,
        copy: CopyStatement,
        deadline: Option<Instant>,
    ) -> std::result::Result<(), Halt> {
        const CHUNKS_AHEAD: usize = 16;
        let CopySource::Table(table, columns) = copy.source else {
            return Err(Error::internal("rows go into a table").into());
        };
        let count = columns.as_ref().map_or(0, Vec::len) as i16;
        reply::put(&mut self.out, &CopyInResponse::new(0, count, vec![0; count as usize]));
        self.flush().await?;
        let (sender, receiver) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
        let max_bad = match copy.max_bad {
            Some(max_bad) => max_bad,
            None => MaxBad::parse(&self.shared.engine.config().load.max_bad)?,
        };
        let session = Arc::clone(&self.session);
        let (format, key, user) = (copy.format, copy.key, session.user().to_owned());
        let request = CopyRequest { table, columns, format, max_bad, key, user };
        let mut load = self.shared.executor.spawn(async move {
            let warehouse = Arc::clone(session.engine().warehouse());
            let copying = ingest::copy_in(&warehouse, request, receiver);
            Box::pin(copying).await
        });
        let mut sender = Some(sender);
        loop {
            match self.next_message().await.map_err(Halt::Stop)? {
                Message::CopyData(data) => {
                    if let Some(open) = &sender
                        && open.send(data.data).await.is_err()
                    {
                        // The load has failed; what still comes is swallowed until the client ends it.
                        sender = None;
                    }
                }
                Message::CopyDone(_) => break,
                Message::CopyFail(fail) => {
                    drop(load);
                    let message = format!("COPY from stdin failed: {}", fail.message);
                    return Err(Error::new(Kind::Cancelled, message).into());
                }
                Message::Flush(_) | Message::Sync(_) => {}
                Message::Terminate(_) => return Err(Halt::Stop(Stop::Left)),
                _ => {
                    return Err(Halt::Stop(Stop::Fatal(Error::new(
                        Kind::Protocol,
                        "unexpected message type during COPY",
                    ))));
                }
            }
        }
        drop(sender);
        let Self { place, io, incoming, .. } = self;
        let busy = place.begin_statement();
        let loaded = watched(load.join(), &busy, place, io, incoming, deadline).await?;
        drop(busy);
        let (loaded, notes) = loaded.map_err(Halt::Failed)?.map_err(Halt::Failed)?;
        for note in &notes {
            reply::notice(&mut self.out, Severity::Notice, "00000", note);
        }
        if loaded.quarantined > 0 {
            let notice =
                format!("{} rows did not fit and are in system.quarantine", loaded.quarantined);
            reply::notice(&mut self.out, Severity::Notice, "00000", &notice);
        }
        reply::complete(&mut self.out, &format!("COPY {}", loaded.rows));
        Ok(())
    }
}

/// Waits for `work` while watching for everything that ends it early.
async fn watched<T>(
    work: impl Future<Output = T>,
    busy: &Busy<'_>,
    place: &Place,
    io: &mut MaybeTls,
    incoming: &mut BytesMut,
    deadline: Option<Instant>,
) -> std::result::Result<T, Halt> {
    const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
    let cancelled = |why: &str| {
        Halt::Failed(Error::new(Kind::Cancelled, format!("canceling statement due to {why}")))
    };
    let deadline = deadline.unwrap_or_else(|| Instant::now() + FOR_EVER);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = busy.token.cancelled() => return Err(cancelled("user request")),
            () = sleep_until(deadline) => return Err(cancelled("statement timeout")),
            () = place.entry.stop.cancelled() => {
                let stopping = Error::new(Kind::Shutdown, "terminating connection: the server is stopping");
                return Err(Halt::Stop(Stop::Fatal(stopping)));
            }
            // What a client sends meanwhile is kept for later; that it has gone is acted on at once.
            read = io.read_buf(incoming), if incoming.len() < READ_AHEAD_BYTES => {
                if read? == 0 {
                    return Err(Halt::Stop(Stop::Left));
                }
            }
        }
    }
}

/// Tells statements apart in the log without showing them.
fn query_id(sql: &str) -> u64 {
    let mut first = [0u8; 8];
    first.copy_from_slice(&blake3::hash(sql.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

pub(super) fn describe_columns(
    out: &mut BytesMut,
    columns: &[OutputColumn],
    formats: &[i16],
) -> Result<()> {
    let binary = binary_columns(formats, columns.len())?;
    reply::row_description(out, columns, |i| i16::from(binary[i]));
    Ok(())
}

fn oid_of(data_type: &arrow::datatypes::DataType) -> u32 {
    type_of(&arrow::datatypes::Field::new("", data_type.clone(), true)).0 as u32
}
