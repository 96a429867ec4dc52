//! From the first byte to a known user: TLS, start-up packet, SCRAM.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::{Authentication, NegotiateProtocolVersion, SecretKey, Startup};
use pgwire::messages::{DecodeContext, Message, PgWireFrontendMessage, ProtocolVersion};
use pgwire::tokio::server::MaybeTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frames::{LOGIN_BYTES_MAX, read_frame};
use super::reply::{self, Severity};
use super::{LOCAL_USER, Shared, tls};
use crate::catalog::DATABASE;
use crate::error::{Error, Kind, Result};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// How long a peer may take to say who it is.
pub(super) const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the users may take to be read.
const USERS_TIMEOUT: Duration = Duration::from_secs(20);

/// A refused password is answered after this long, so that guessing is slow.
const REFUSAL_DELAY: Duration = Duration::from_millis(500);

/// Who connects, once known.
pub(super) struct Login {
    pub(super) io: MaybeTls,
    pub(super) buffer: BytesMut,
    pub(super) user: String,
    pub(super) parameters: BTreeMap<String, String>,
    /// Messages that go before the first ReadyForQuery.
    pub(super) greeting: BytesMut,
}

/// Takes a socket to a login; `None` when there is nothing more to do: the peer left, was refused, or only cancelled.
pub(super) async fn login(
    socket: TcpStream,
    peer: SocketAddr,
    shared: &Shared,
) -> std::io::Result<Option<Login>> {
    let Some((mut io, packet)) = open(socket, shared.tls.as_ref()).await? else { return Ok(None) };
    let code = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
    if code == CANCEL_REQUEST {
        if let Some((pid, secret)) = cancel_key(packet) {
            shared.registry.cancel(pid, secret);
        }
        return Ok(None);
    }
    let mut greeting = BytesMut::new();
    let mut buffer = BytesMut::with_capacity(8 << 10);
    let known = match start(packet, &mut greeting) {
        Ok(parameters) => {
            authenticate(&mut io, &mut buffer, &mut greeting, parameters, peer, shared).await?
        }
        Err(error) => Err(error),
    };
    match known {
        Ok((user, parameters)) => Ok(Some(Login { io, buffer, user, parameters, greeting })),
        Err(error) => {
            tracing::info!(%peer, code = error.sqlstate(), "login refused");
            shared.registry.metrics().logins_failed_total.fetch_add(1, Ordering::Relaxed);
            refuse(&mut io, &error).await?;
            Ok(None)
        }
    }
}

/// Says why, and closes.
pub(super) async fn refuse(io: &mut MaybeTls, error: &Error) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    reply::error(&mut out, Severity::Fatal, error, "");
    io.write_all(&out).await?;
    io.shutdown().await
}

/// Negotiates TLS and reads the first packet. Reads are exact, so nothing sent in plain is taken for what came over TLS.
async fn open(
    tcp: TcpStream,
    tls: Option<&tls::Acceptor>,
) -> std::io::Result<Option<(MaybeTls, BytesMut)>> {
    tcp.set_nodelay(true)?;
    let mut first = [0u8; 1];
    if tcp.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    const TLS_HELLO: u8 = 0x16;
    let mut io = if first[0] == TLS_HELLO {
        let Some(acceptor) = tls else { return Ok(None) };
        let stream = acceptor.accept(tcp).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"postgresql".as_slice()) {
            return Ok(None);
        }
        MaybeTls::Tls(Box::new(stream))
    } else {
        MaybeTls::Plain(tcp)
    };
    let (mut asked_tls, mut asked_gss) = (false, false);
    loop {
        let Ok(length) = io.read_u32().await else { return Ok(None) };
        let length = length as usize;
        if !(8..=LOGIN_BYTES_MAX).contains(&length) {
            return Ok(None);
        }
        let mut packet = BytesMut::zeroed(length);
        packet[..4].copy_from_slice(&(length as u32).to_be_bytes());
        io.read_exact(&mut packet[4..]).await?;
        let code = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        io = match (io, code) {
            (MaybeTls::Plain(mut tcp), SSL_REQUEST) if length == 8 && !asked_tls => {
                asked_tls = true;
                tcp.write_all(if tls.is_some() { b"S" } else { b"N" }).await?;
                match tls {
                    Some(acceptor) => MaybeTls::Tls(Box::new(acceptor.accept(tcp).await?)),
                    None => MaybeTls::Plain(tcp),
                }
            }
            (MaybeTls::Plain(mut tcp), GSS_REQUEST) if length == 8 && !asked_gss => {
                asked_gss = true;
                tcp.write_all(b"N").await?;
                MaybeTls::Plain(tcp)
            }
            (_, SSL_REQUEST | GSS_REQUEST) => return Ok(None),
            (io, _) => return Ok(Some((io, packet))),
        };
    }
}

fn cancel_key(mut packet: BytesMut) -> Option<(i32, i32)> {
    let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_2);
    context.awaiting_frontend_ssl = false;
    match PgWireFrontendMessage::decode(&mut packet, &context) {
        Ok(Some(PgWireFrontendMessage::CancelRequest(CancelRequest {
            pid, secret_key, ..
        }))) => {
            let secret = match secret_key {
                SecretKey::I32(secret) => secret,
                SecretKey::Bytes(bytes) => i32::from_be_bytes(bytes.as_ref().try_into().ok()?),
            };
            Some((pid, secret))
        }
        _ => None,
    }
}

/// Reads the start-up packet.
fn start(mut packet: BytesMut, greeting: &mut BytesMut) -> Result<BTreeMap<String, String>> {
    let major = u16::from_be_bytes([packet[4], packet[5]]);
    let minor = u16::from_be_bytes([packet[6], packet[7]]);
    if major != 3 {
        return Err(Error::not_supported(format!(
            "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"
        )));
    }
    let malformed = || {
        Error::new(
            Kind::Protocol,
            "invalid startup packet layout: expected terminator as last byte",
        )
    };
    if packet.last() != Some(&0) {
        return Err(malformed());
    }
    let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    context.awaiting_frontend_ssl = false;
    let parameters = match PgWireFrontendMessage::decode(&mut packet, &context) {
        Ok(Some(PgWireFrontendMessage::Startup(Startup { parameters, .. }))) => parameters,
        _ => return Err(malformed()),
    };
    let unknown: Vec<String> =
        parameters.keys().filter(|key| key.starts_with("_pq_.")).cloned().collect();
    if minor > 0 || !unknown.is_empty() {
        const PROTOCOL_3_0: i32 = 196_608;
        reply::put(greeting, &NegotiateProtocolVersion::new(PROTOCOL_3_0, unknown));
    }
    Ok(parameters)
}

type Known = Result<(String, BTreeMap<String, String>)>;

async fn authenticate(
    io: &mut MaybeTls,
    buffer: &mut BytesMut,
    greeting: &mut BytesMut,
    parameters: BTreeMap<String, String>,
    peer: SocketAddr,
    shared: &Shared,
) -> std::io::Result<Known> {
    let user = parameters.get("user").cloned().unwrap_or_default();
    if user.is_empty() {
        return Ok(Err(Error::new(
            Kind::InvalidAuthorization,
            "no PostgreSQL user name specified in startup packet",
        )));
    }
    let is_plain = !matches!(io, MaybeTls::Tls(_));
    let config = shared.engine.config();
    if is_plain && (config.tls.required || !peer.ip().is_loopback()) {
        return Ok(Err(Error::new(
            Kind::InvalidAuthorization,
            "a connection without TLS is not accepted",
        )
        .hint("connect with sslmode=require, or verify-full and the server's certificate")));
    }
    let reading = timeout(USERS_TIMEOUT, shared.engine.warehouse().users()).await;
    let users = match reading.unwrap_or_else(|_| Err(Error::new(Kind::Io, "no answer"))) {
        Ok(users) => users.users,
        Err(error) => {
            // Where the warehouse lies and what its store says is not told to somebody who is nobody yet.
            tracing::warn!(code = error.sqlstate(), %error, "the users could not be read");
            return Ok(Err(Error::new(error.kind(), "who may connect cannot be read now")
                .hint("try again in a while; the server's log says why")));
        }
    };
    if users.is_empty() {
        if user != LOCAL_USER || !shared.is_loopback {
            return Ok(Err(Error::new(
                Kind::InvalidAuthorization,
                format!("role \"{user}\" does not exist"),
            )
            .detail(format!(
                "this warehouse has no users; on this machine \"{LOCAL_USER}\" may connect"
            ))
            .hint(format!(
                "connect as {LOCAL_USER}, or make a user with: clientele user add NAME"
            ))));
        }
    } else if let Err(refused) =
        scram(io, buffer, greeting, &user, users.get(&user).map(|u| &u.verifier), shared).await?
    {
        return Ok(Err(refused));
    }
    let database = parameters.get("database").unwrap_or(&user);
    if database != DATABASE {
        return Ok(Err(Error::new(
            Kind::UndefinedDatabase,
            format!("database \"{database}\" does not exist"),
        )
        .hint(format!("the database is called {DATABASE}"))));
    }
    reply::put(greeting, &Authentication::Ok);
    Ok(Ok((user, parameters)))
}

/// A SCRAM-SHA-256 exchange. An unknown user goes through the same steps, so that nobody learns which names exist.
async fn scram(
    io: &mut MaybeTls,
    buffer: &mut BytesMut,
    greeting: &mut BytesMut,
    user: &str,
    verifier: Option<&crate::store::Verifier>,
    shared: &Shared,
) -> std::io::Result<Result<()>> {
    const MECHANISM: &str = "SCRAM-SHA-256";
    let wrong = || {
        Error::new(
            Kind::InvalidPassword,
            format!("password authentication failed for user \"{user}\""),
        )
    };
    let malformed = || Error::new(Kind::Protocol, "malformed SCRAM message");
    send(io, greeting, &Authentication::SASL(vec![MECHANISM.to_owned()])).await?;
    let Some(body) = read_password(io, buffer).await? else { return Ok(Err(malformed())) };
    let Some((mechanism, first)) = initial(&body) else { return Ok(Err(malformed())) };
    if mechanism != MECHANISM {
        return Ok(Err(Error::new(
            Kind::Protocol,
            "client selected an invalid SASL authentication mechanism",
        )));
    }
    let secret = verifier
        .and_then(secret_of)
        .unwrap_or_else(|| nobodys_secret(user, shared.engine.warehouse().key()));
    let Ok((server_first, waiting)) =
        ScramServerAuth::new().on_client_first_message_with_secret(first, secret)
    else {
        return Ok(Err(malformed()));
    };
    send(io, greeting, &Authentication::SASLContinue(server_first.into())).await?;
    let Some(body) = read_password(io, buffer).await? else { return Ok(Err(malformed())) };
    match waiting.on_client_final_message(&body) {
        Ok(server_final) => {
            reply::put(greeting, &Authentication::SASLFinal(server_final.into()));
            Ok(Ok(()))
        }
        Err(_) => {
            tokio::time::sleep(REFUSAL_DELAY).await;
            Ok(Err(wrong()))
        }
    }
}

async fn send(
    io: &mut MaybeTls,
    before: &mut BytesMut,
    message: &impl Message,
) -> std::io::Result<()> {
    let mut out = before.split();
    reply::put(&mut out, message);
    io.write_all(&out).await?;
    io.flush().await
}

/// The body of the next password message.
async fn read_password(io: &mut MaybeTls, buffer: &mut BytesMut) -> std::io::Result<Option<Bytes>> {
    let Some(mut frame) = read_frame(io, buffer, LOGIN_BYTES_MAX).await? else { return Ok(None) };
    if frame[0] != b'p' {
        return Ok(None);
    }
    Ok(Some(frame.split_off(5).freeze()))
}

/// Mechanism and first message of a SASL initial response; pgwire's own reader panics on a wrong length.
fn initial(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = body.iter().position(|b| *b == 0)?;
    let (length, data) = body[end + 1..].split_first_chunk::<4>()?;
    let is_whole = usize::try_from(i32::from_be_bytes(*length)).ok()? == data.len();
    is_whole.then_some((std::str::from_utf8(&body[..end]).ok()?, data))
}

fn secret_of(verifier: &crate::store::Verifier) -> Option<ScramSecret> {
    let decode = |text: &str| STANDARD.decode(text).ok();
    let (stored_key, server_key) = (decode(&verifier.stored_key)?, decode(&verifier.server_key)?);
    (stored_key.len() == 32 && server_key.len() == 32).then_some(ScramSecret::Verifier {
        salt: decode(&verifier.salt)?,
        iterations: verifier.iterations as usize,
        stored_key,
        server_key,
    })
}

/// A verifier that no password fits, with a salt that is the same each time a name is tried.
fn nobodys_secret(user: &str, key: &[u8; 32]) -> ScramSecret {
    let derive = |purpose: &str| {
        blake3::keyed_hash(key, format!("{purpose}\0{user}").as_bytes()).as_bytes().to_vec()
    };
    ScramSecret::Verifier {
        salt: derive("scram salt")[..16].to_vec(),
        iterations: 4096,
        stored_key: derive("scram stored key"),
        server_key: derive("scram server key"),
    }
}
