//! From the first byte of a client to a session that both sides have agreed on.

mod client;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use holdfast_core::Code;
use holdfast_wire::pg::frontend::{HEADER_BYTES, MessageError, header};
use holdfast_wire::pg::scram::Binding;
use holdfast_wire::pg::startup::{Parameter, Startup, startup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::source::Source;
use super::stream::Stream;
use super::{Door, Key, refuse};
use crate::lease::Lease;
use client::Talk;

/// The newest minor version of the protocol 3 that is spoken.
const MINOR: u16 = 2;

/// The longest message of a login, in bytes.
const LIMIT_LOGIN_BYTES: usize = 64 << 10;

/// A session that is about to begin.
pub(super) struct LoggedIn {
    pub client: Stream,
    /// Bytes of the client's that came behind its login.
    pub from_client: BytesMut,
    pub server: Stream,
    /// Bytes of the server's that came behind its login.
    pub from_server: BytesMut,
    pub lease: Lease,
    pub source: Arc<Source>,
    pub parameters: Vec<Parameter>,
    /// The key under which a cancel request finds the session.
    pub key: Key,
    /// What openly reads may run without the gate.
    pub reads_pass: bool,
    /// The lease may call what works over connections of its own.
    pub leads_out: bool,
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
pub(super) async fn log_in(
    door: &Arc<Door>,
    client: TcpStream,
    peer: SocketAddr,
) -> Result<LoggedIn, NoSession> {
    let first = First::new(door, client).await?;
    let Some((mut talk, minor, parameters)) = first.session(door).await? else {
        return Err(NoSession);
    };
    let is_safe = peer.ip().to_canonical().is_loopback() || matches!(talk.client, Stream::Tls(_));
    let admitted = match is_safe {
        true => talk.admit(door, minor, parameters).await,
        false => Err(Refused::new(
            Code::ZL441,
            "who comes from another machine must encrypt; nothing was executed",
            "connect with `sslmode=require`, or better `verify-full`",
        )),
    };
    match admitted {
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
            leads_out: admitted.leads_out,
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

/// What every TLS record of a handshake begins with; no first packet does.
const TLS_HANDSHAKE: u8 = 0x16;

/// The protocol that is spoken inside TLS, as PostgreSQL names it.
const ALPN: &[u8] = b"postgresql";

/// A connection that has not said yet what it wants.
struct First {
    client: Stream,
    buffer: BytesMut,
    binding: Binding,
}

impl First {
    /// Begins, with TLS at once when the first byte says so.
    async fn new(door: &Arc<Door>, client: TcpStream) -> Result<Self, NoSession> {
        let mut byte = [0_u8; 1];
        if !matches!(client.peek(&mut byte).await, Ok(1)) {
            return Err(NoSession);
        }
        let mut first = Self {
            client: Stream::Plain(client),
            buffer: BytesMut::new(),
            binding: Binding::Absent,
        };
        if byte == [TLS_HANDSHAKE] {
            first = first.encrypt(door).await?;
            let Stream::Tls(stream) = &first.client else {
                return Err(NoSession);
            };
            // Without a request for it, only this name tells that PostgreSQL is meant.
            if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
                return Err(NoSession);
            }
        }
        Ok(first)
    }

    /// Reads first packets until one asks for a session; answers or serves the others.
    async fn session(
        mut self,
        door: &Arc<Door>,
    ) -> Result<Option<(Talk, u16, Vec<Parameter>)>, NoSession> {
        // GSSAPI and TLS may each be asked for once before the session.
        for _ in 0..3 {
            match self.packet().await? {
                Startup::Session { minor, parameters } => {
                    let talk = Talk {
                        client: self.client,
                        from_client: self.buffer,
                        binding: self.binding,
                    };
                    return Ok(Some((talk, minor, parameters)));
                }
                Startup::Cancel { process, secret } => {
                    door.cancel(process, &secret).await;
                    return Ok(None);
                }
                asked @ (Startup::Gss | Startup::Tls) => {
                    let is_plain = matches!(self.client, Stream::Plain(_));
                    if !is_plain || !self.buffer.is_empty() {
                        // What came behind the question in the clear was put there by somebody else.
                        let text = "unencrypted bytes came behind a request for encryption, or it was encrypted already";
                        return self.refuse(text).await;
                    }
                    self = self.answer(door, asked == Startup::Tls).await?;
                }
            }
        }
        Err(NoSession)
    }

    async fn packet(&mut self) -> Result<Startup, NoSession> {
        loop {
            match startup(&self.buffer) {
                Ok(Some((wanted, length))) => {
                    drop(self.buffer.split_to(length));
                    return Ok(wanted);
                }
                Ok(None) => match self.client.read_buf(&mut self.buffer).await {
                    Ok(count) if count > 0 => {}
                    _ => return Err(NoSession),
                },
                Err(error) => return self.refuse(&error.to_string()).await,
            }
        }
    }

    async fn answer(mut self, door: &Arc<Door>, is_tls: bool) -> Result<Self, NoSession> {
        let answer: &[u8] = if is_tls { b"S" } else { b"N" };
        let sent = self.client.write_all(answer).await;
        match sent {
            Ok(()) if is_tls => self.encrypt(door).await,
            Ok(()) => Ok(self),
            Err(_) => Err(NoSession),
        }
    }

    async fn encrypt(self, door: &Arc<Door>) -> Result<Self, NoSession> {
        let Stream::Plain(client) = self.client else {
            return Err(NoSession);
        };
        let ending = door.tls.ending().map_err(|error| {
            tracing::error!(%error, "the PostgreSQL door cannot encrypt");
            NoSession
        })?;
        let acceptor = tokio_rustls::TlsAcceptor::from(ending.config);
        let stream = acceptor.accept(client).await.map_err(|_| NoSession)?;
        Ok(Self {
            client: Stream::Tls(Box::new(stream.into())),
            buffer: BytesMut::new(),
            binding: ending.binding,
        })
    }

    async fn refuse<T>(&mut self, text: &str) -> Result<T, NoSession> {
        let mut out = Vec::new();
        refuse(&mut out, true, (Code::ZU404, text, ""));
        let _ = self.client.write_all(&out).await;
        let _ = self.client.shutdown().await;
        Err(NoSession)
    }
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
