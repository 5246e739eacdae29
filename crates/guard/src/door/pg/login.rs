//! From the first byte of a client to a session that both sides have agreed on.

use std::sync::Arc;

use bytes::BytesMut;
use holdfast_core::{Code, Coded, ErrorChain, Secret};
use holdfast_wire::pg::backend;
use holdfast_wire::pg::frontend::{HEADER_BYTES, MessageError, header};
use holdfast_wire::pg::scram::{self, Verifier};
use holdfast_wire::pg::startup::{self, Parameter, Startup, startup};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::dial::{self, Stream};
use super::source::Source;
use super::{Door, refuse};
use crate::clock;
use crate::lease::Lease;

/// The longest message of a login, in bytes.
const LIMIT_LOGIN_BYTES: usize = 64 << 10;

/// A session that is about to begin.
pub(super) struct LoggedIn {
    pub client: TcpStream,
    /// Bytes of the client's that came behind its login.
    pub from_client: BytesMut,
    pub server: Stream,
    /// Bytes of the server's that came behind its login.
    pub from_server: BytesMut,
    pub lease: Lease,
    pub source: Arc<Source>,
    pub parameters: Vec<Parameter>,
    /// The key under which a cancel request finds the session.
    pub key: (u32, [u8; 4]),
    /// What openly reads may run without the gate.
    pub reads_pass: bool,
    /// The server's own.
    pub server_key: (u32, Vec<u8>),
}

/// Why nobody was let in; the client was told what it may know.
pub(super) struct NoSession;

/// What the client is told when it is not let in.
struct Refused {
    code: Code,
    message: String,
    hint: String,
}

impl Refused {
    fn new(code: Code, message: impl Into<String>, hint: &str) -> Self {
        Self {
            code,
            message: message.into(),
            hint: hint.to_owned(),
        }
    }

    /// The client or its connection misbehaves.
    fn garbled(error: &dyn std::fmt::Display) -> Self {
        Self::new(
            Code::ZU404,
            format!("the login cannot be understood: {error}"),
            "",
        )
    }
}

/// Serves the first packets of a connection.
pub(super) async fn log_in(door: &Arc<Door>, mut client: TcpStream) -> Result<LoggedIn, NoSession> {
    let mut from_client = BytesMut::new();
    let Some((minor, parameters)) = first(door, &mut client, &mut from_client).await? else {
        return Err(NoSession);
    };
    let mut talk = Talk {
        client,
        from_client,
    };
    match talk.admit(door, minor, parameters).await {
        Ok(admitted) => Ok(LoggedIn {
            client: talk.client,
            from_client: talk.from_client,
            server: admitted.server.stream,
            from_server: admitted.server.buffer,
            lease: admitted.lease,
            source: admitted.source,
            parameters: admitted.server.parameters,
            key: admitted.key,
            reads_pass: admitted.reads_pass,
            server_key: admitted.server.key,
        }),
        Err(refused) => {
            let mut out = Vec::new();
            refuse(
                &mut out,
                true,
                (refused.code, &refused.message, &refused.hint),
            );
            // A client that has gone need not be told.
            let _ = talk.client.write_all(&out).await;
            let _ = talk.client.shutdown().await;
            Err(NoSession)
        }
    }
}

/// Reads first packets until one asks for a session; answers or serves the others.
async fn first(
    door: &Arc<Door>,
    client: &mut TcpStream,
    buffer: &mut BytesMut,
) -> Result<Option<(u16, Vec<Parameter>)>, NoSession> {
    // GSSAPI and TLS may each be asked for once before the session.
    for _ in 0..3 {
        let wanted = loop {
            match startup(buffer) {
                Ok(Some((wanted, length))) => {
                    drop(buffer.split_to(length));
                    break wanted;
                }
                Ok(None) => match client.read_buf(buffer).await {
                    Ok(count) if count > 0 => {}
                    _ => return Err(NoSession),
                },
                Err(error) => {
                    let mut out = Vec::new();
                    refuse(&mut out, true, (Code::ZU404, &error.to_string(), ""));
                    let _ = client.write_all(&out).await;
                    return Err(NoSession);
                }
            }
        };
        match wanted {
            Startup::Session { minor, parameters } => return Ok(Some((minor, parameters))),
            Startup::Cancel { process, secret } => {
                door.cancel(process, &secret).await;
                return Ok(None);
            }
            Startup::Gss | Startup::Tls => {
                // Whatever came behind the question would have been meant to be encrypted.
                if !buffer.is_empty() || client.write_all(b"N").await.is_err() {
                    return Err(NoSession);
                }
            }
        }
    }
    Err(NoSession)
}

struct Talk {
    client: TcpStream,
    from_client: BytesMut,
}

struct Admitted {
    lease: Lease,
    source: Arc<Source>,
    server: Server,
    key: (u32, [u8; 4]),
    reads_pass: bool,
}

impl Talk {
    async fn admit(
        &mut self,
        door: &Arc<Door>,
        minor: u16,
        parameters: Vec<Parameter>,
    ) -> Result<Admitted, Refused> {
        let value = |wanted: &[u8]| {
            let mut found = parameters.iter().filter(|(name, _)| name == wanted);
            found.next_back().map(|(_, value)| value.clone())
        };
        let off: [&[u8]; 6] = [b"false", b"off", b"no", b"0", b"f", b"n"];
        if value(b"replication").is_some_and(|asked| !off.contains(&asked.as_slice())) {
            let message = "the PostgreSQL door does not pass replication; nothing was executed";
            let hint = "ask the operator for a copy of the data";
            return Err(Refused::new(Code::ZU403, message, hint));
        }
        let unknown: Vec<&[u8]> = parameters
            .iter()
            .map(|(name, _)| name.as_slice())
            .filter(|name| name.starts_with(b"_pq_."))
            .collect();
        if minor > 0 || !unknown.is_empty() {
            let mut out = Vec::new();
            backend::write_negotiation(0, &unknown, &mut out);
            self.send(&out).await?;
        }
        let user = value(b"user").unwrap_or_default();
        let lease = self.authenticate(door, &user).await?;
        let pg = lease.pg.as_ref().ok_or_else(wrong_password)?;
        let database = value(b"database").unwrap_or_else(|| user.clone());
        if database != pg.database.as_bytes() {
            let message = format!("this lease leads to the database `{}` only", pg.database);
            return Err(Refused::new(
                Code::ZL401,
                message,
                "connect with the URL that came with the lease",
            ));
        }
        let source = door.source(&lease.source).ok_or_else(|| {
            let message = format!("the source `{}` has no PostgreSQL door", lease.source);
            Refused::new(Code::ZS401, message, "tell the operator of holdfast")
        })?;
        let server = reach(&source, &lease, parameters).await?;
        // In doubt everything goes through the gate, which costs time only.
        let reads_pass = source.control.reads_can_remove(&pg.database).await == Ok(false);
        let secret = clock::random::<4>().map_err(|error| Refused::garbled(&error))?;
        let key = (server.key.0, secret);
        Ok(Admitted {
            lease,
            source,
            server,
            key,
            reads_pass,
        })
    }

    /// Lets in whoever knows the token of the lease whose role `user` is.
    async fn authenticate(&mut self, door: &Arc<Door>, user: &[u8]) -> Result<Lease, Refused> {
        let lease = std::str::from_utf8(user)
            .ok()
            .and_then(|user| door.leases.find_role(user).ok());
        let kept = lease
            .as_ref()
            .and_then(|lease| lease.pg.as_ref())
            .and_then(|pg| Verifier::parse(&pg.scram));
        let verifier = match kept {
            Some(verifier) => verifier,
            None => Verifier::of_nobody(clock::random().map_err(|e| Refused::garbled(&e))?),
        };
        let mechanisms = [
            &10_u32.to_be_bytes()[..],
            scram::MECHANISM.as_bytes(),
            &[0, 0],
        ]
        .concat();
        self.send_message(b'R', &mechanisms).await?;
        let initial = self.password().await?;
        let first = initial_response(&initial).ok_or_else(|| Refused::garbled(&"no SCRAM"))?;
        let nonce =
            data_encoding::BASE64.encode(&clock::random::<18>().map_err(|e| Refused::garbled(&e))?);
        let (begun, answer) =
            scram::begin(verifier, first, &nonce).map_err(|error| Refused::garbled(&error))?;
        let challenge = [&11_u32.to_be_bytes()[..], &answer].concat();
        self.send_message(b'R', &challenge).await?;
        let last = self.password().await?;
        let proof = begun.finish(&last).map_err(|_| wrong_password())?;
        let lease = lease.ok_or_else(wrong_password)?;
        if let Some(ended) = lease.ended(clock::now()) {
            let hint = ended.hint().unwrap_or_default();
            return Err(Refused::new(ended.code(), ended.to_string(), &hint));
        }
        let mut out = Vec::new();
        let done = [&12_u32.to_be_bytes()[..], &proof].concat();
        backend::write_message(b'R', &done, &mut out);
        self.send(&out).await?;
        Ok(lease)
    }

    /// Reads one message that answers a request for authentication.
    async fn password(&mut self) -> Result<Vec<u8>, Refused> {
        let (tag, body) = read_message(&mut self.client, &mut self.from_client)
            .await
            .map_err(|error| Refused::garbled(&error))?;
        match tag {
            b'p' => Ok(body.to_vec()),
            _ => Err(Refused::garbled(&"a password message was expected")),
        }
    }

    async fn send_message(&mut self, tag: u8, body: &[u8]) -> Result<(), Refused> {
        let mut out = Vec::new();
        backend::write_message(tag, body, &mut out);
        self.send(&out).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let sent = self.client.write_all(bytes).await;
        sent.map_err(|error| Refused::garbled(&error))
    }
}

fn wrong_password() -> Refused {
    let message = "no lease has this role and this token";
    Refused::new(
        Code::ZL401,
        message,
        "a human issues a new one with `holdfast lease issue`",
    )
}

/// Takes mechanism and length off a `SASLInitialResponse`.
fn initial_response(body: &[u8]) -> Option<&[u8]> {
    let rest = body
        .strip_prefix(scram::MECHANISM.as_bytes())?
        .strip_prefix(&[0])?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (rest.len() == length).then_some(rest)
}

/// Reads one whole message.
async fn read_message(
    stream: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut BytesMut,
) -> Result<(u8, BytesMut), String> {
    loop {
        let found = header(buffer, LIMIT_LOGIN_BYTES).map_err(|e: MessageError| e.to_string())?;
        if let Some(found) = found.filter(|found| buffer.len() >= found.total) {
            let mut message = buffer.split_to(found.total);
            let body = message.split_off(HEADER_BYTES);
            return Ok((found.tag, body));
        }
        match stream.read_buf(buffer).await {
            Ok(0) => return Err("the connection ended".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The server's side after its login.
struct Server {
    stream: Stream,
    buffer: BytesMut,
    parameters: Vec<Parameter>,
    key: (u32, Vec<u8>),
}

/// Connects to the source as the role of the lease.
async fn reach(
    source: &Arc<Source>,
    lease: &Lease,
    parameters: Vec<Parameter>,
) -> Result<Server, Refused> {
    let unreachable = |why: String| {
        let message = format!("the source `{}` cannot be reached: {why}", lease.source);
        Refused::new(Code::ZS401, message, "tell the operator of holdfast")
    };
    let pg = lease.pg.as_ref().ok_or_else(wrong_password)?;
    let password = source
        .password(&pg.role, &pg.database)
        .await
        .map_err(|error| unreachable(ErrorChain(&error).to_string()))?;
    let stream = dial::dial(&source.url).await.map_err(unreachable)?;
    let mut server = Server {
        stream,
        buffer: BytesMut::new(),
        parameters: Vec::new(),
        key: (0, Vec::new()),
    };
    let mut kept: Vec<Parameter> = parameters
        .into_iter()
        .filter(|(name, _)| {
            !name.starts_with(b"_pq_.")
                && !matches!(
                    name.as_slice(),
                    b"replication" | b"default_transaction_read_only"
                )
        })
        .collect();
    // The last one wins: whatever does not go through the gate runs read only.
    kept.push((b"default_transaction_read_only".to_vec(), b"on".to_vec()));
    let mut out = Vec::new();
    startup::write_session(&kept, &mut out);
    server.send(&out).await.map_err(unreachable)?;
    server.log_in(&password).await.map_err(unreachable)?;
    server.check()?;
    Ok(server)
}

impl Server {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(|error| error.to_string())
    }

    async fn log_in(&mut self, password: &Secret) -> Result<(), String> {
        let mut begun: Option<ScramSha256> = None;
        let mut proven = false;
        loop {
            let (tag, body) = read_message(&mut self.stream, &mut self.buffer).await?;
            match tag {
                b'R' => match (body.split_first_chunk::<4>(), begun.as_mut()) {
                    (Some(([0, 0, 0, 0], _)), _) if proven => {}
                    (Some(([0, 0, 0, 10], _)), None) => {
                        let binding = ChannelBinding::unsupported();
                        let scram = ScramSha256::new(password.expose().as_bytes(), binding);
                        let mut out = BytesMut::new();
                        frontend::sasl_initial_response(
                            scram::MECHANISM,
                            scram.message(),
                            &mut out,
                        )
                        .map_err(|error| error.to_string())?;
                        self.send(&out).await?;
                        begun = Some(scram);
                    }
                    (Some(([0, 0, 0, 11], rest)), Some(scram)) => {
                        scram.update(rest).map_err(|error| error.to_string())?;
                        let mut out = BytesMut::new();
                        frontend::sasl_response(scram.message(), &mut out)
                            .map_err(|error| error.to_string())?;
                        self.send(&out).await?;
                    }
                    (Some(([0, 0, 0, 12], rest)), Some(scram)) => {
                        scram.finish(rest).map_err(|error| error.to_string())?;
                        proven = true;
                    }
                    // The role has a SCRAM password: a server that wants less is not asked further.
                    _ => {
                        return Err(
                            "it does not ask the role of the lease for SCRAM-SHA-256".to_owned()
                        );
                    }
                },
                b'S' => {
                    if let Some((name, value)) = backend::parameter(&body) {
                        self.parameters.push((name.to_vec(), value.to_vec()));
                    }
                }
                b'K' => {
                    let (process, secret) = backend::key(&body).ok_or("its key is malformed")?;
                    self.key = (process, secret.to_vec());
                }
                b'Z' => return Ok(()),
                b'E' => return Err(told(&body)),
                b'N' | b'v' => {}
                other => return Err(format!("it sends an unexpected message {other}")),
            }
        }
    }

    /// Refuses servers on which the door's measures do not hold.
    fn check(&self) -> Result<(), Refused> {
        let value = |wanted: &[u8]| {
            let mut found = self.parameters.iter().filter(|(name, _)| name == wanted);
            found.next_back().map(|(_, value)| value.as_slice())
        };
        let version = value(b"server_version").unwrap_or_default();
        let digits: String = version
            .iter()
            .map(|byte| char::from(*byte))
            .take_while(char::is_ascii_digit)
            .collect();
        if digits.parse::<u32>().unwrap_or(0) < 15 {
            let message = "the source is older than PostgreSQL 15";
            return Err(Refused::new(Code::ZS401, message, "upgrade the source"));
        }
        if value(b"default_transaction_read_only") != Some(b"on") {
            let message = "the source does not let sessions begin read only";
            return Err(Refused::new(
                Code::ZS401,
                message,
                "tell the operator of holdfast",
            ));
        }
        if !value(b"client_encoding").is_some_and(super::session::is_safe_encoding) {
            let message = "the PostgreSQL door does not pass this encoding: a byte of a character could look like a backslash";
            return Err(Refused::new(
                Code::ZU403,
                message,
                "set client_encoding to UTF8",
            ));
        }
        Ok(())
    }
}

/// What a server says when it lets nobody in.
fn told(body: &[u8]) -> String {
    let message = holdfast_wire::pg::replication::server_message(body);
    message.to_string()
}
