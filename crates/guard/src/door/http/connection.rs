//! One connection of an agent: requests come in, tunnels are opened and their TLS is ended here.

use std::sync::Arc;

use holdfast_core::Code;
use holdfast_wire::http::{BodyFraming, ChunkError, Chunks, Head, HttpRequest, Target, read_head};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::exchange::{Answer, Door};
use super::refusal::Reply;
use super::upstream::Destination;
use crate::limits::{
    HTTP_BODY_BYTES_MAX, HTTP_BODY_WAITS_MAX, HTTP_HANDSHAKE_WAITS_MAX, HTTP_HEAD_WAITS_MAX,
    HTTP_IDLE_MAX,
};

/// What ends a connection before its peer closes it.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing is to be said.
    Silent,
    /// This is said first.
    Said(Box<Reply>),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Silent
    }
}

/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

const BAD_REQUEST: (u16, &str) = (400, "Bad Request");
const TOO_LARGE: (u16, &str) = (413, "Content Too Large");
const MISDIRECTED: (u16, &str) = (421, "Misdirected Request");

/// Where the tunnel leads that requests come through, and the token it was opened with.
#[derive(Clone)]
pub(super) struct Tunnel {
    pub to: Destination,
    pub token: Option<String>,
}

/// Serves one connection to its end.
pub(super) async fn serve(door: Arc<Door>, stream: TcpStream) {
    let mut peer = Peer::new(stream);
    let ended = outer(&door, &mut peer).await;
    let tunnel = match ended {
        Ok(Some(tunnel)) => tunnel,
        Ok(None) => return,
        Err(end) => return peer.say(end).await,
    };
    let mut first = [0; 1];
    let peeked = timeout(HTTP_HEAD_WAITS_MAX, peer.stream.peek(&mut first)).await;
    if !matches!(peeked, Ok(Ok(1))) {
        return;
    }
    // A TLS record of the handshake begins with 22; anything else is HTTP in the clear.
    if first != [22] {
        let to = Destination {
            https: false,
            ..tunnel.to.clone()
        };
        let tunnel = Tunnel { to, ..tunnel };
        if let Err(end) = requests(&door, &mut peer, &tunnel).await {
            peer.say(end).await;
        }
        return;
    }
    let Ok(config) = door.ca.server_config(&tunnel.to.host) else {
        return;
    };
    let accepting = TlsAcceptor::from(config).accept(peer.stream);
    let Ok(Ok(stream)) = timeout(HTTP_HANDSHAKE_WAITS_MAX, accepting).await else {
        return;
    };
    let named = stream.get_ref().1.server_name().map(str::to_lowercase);
    let mut peer = Peer::new(stream);
    if named.is_some_and(|named| named.trim_end_matches('.') != tunnel.to.host) {
        let message = "the tunnel leads to another host than TLS asks for";
        let reply = Reply::trouble(MISDIRECTED, Code::ZU503, message);
        return peer.say(End::Said(Box::new(reply))).await;
    }
    if let Err(end) = requests(&door, &mut peer, &tunnel).await {
        peer.say(end).await;
    }
    drop(peer.stream.shutdown().await);
}

/// Serves requests to the door itself until a tunnel is opened.
async fn outer(door: &Arc<Door>, peer: &mut Peer<TcpStream>) -> Result<Option<Tunnel>, End> {
    loop {
        let Some(head) = peer.head().await? else {
            return Ok(None);
        };
        match &head.target {
            Target::Authority { host, port } => {
                let to = Destination {
                    https: true,
                    host: host.clone(),
                    port: *port,
                };
                if let Some(tunnel) = connect(door, peer, &head, to).await? {
                    return Ok(Some(tunnel));
                }
            }
            Target::Absolute {
                scheme,
                host,
                port,
                path,
                query,
            } => {
                check_host(&head, host, *port)?;
                let to = Destination {
                    https: scheme == "https",
                    host: host.clone(),
                    port: *port,
                };
                let where_to = (to, path.clone(), query.clone());
                request(door, peer, head, where_to, None).await?;
            }
            Target::Origin { path, query } => {
                let where_to = reverse(path, query.clone())?;
                request(door, peer, head, where_to, None).await?;
            }
        }
    }
}

/// The reverse form: `/-/host/path`, for clients that cannot be told of a proxy but of a base address.
fn reverse(
    path: &str,
    query: Option<String>,
) -> Result<(Destination, String, Option<String>), End> {
    let rest = path.strip_prefix("/-/").and_then(|rest| {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        (!host.is_empty() && host.bytes().all(known)).then(|| (host.to_ascii_lowercase(), path))
    });
    let Some((host, path)) = rest else {
        let message = "this is a proxy; ask it for an absolute URL, or for /-/HOST/PATH";
        let reply = Reply::trouble(BAD_REQUEST, Code::ZU501, message);
        return Err(End::Said(Box::new(reply)));
    };
    let to = Destination {
        https: true,
        host,
        port: 443,
    };
    Ok((to, format!("/{path}"), query))
}

/// Opens a tunnel, or refuses and goes on.
async fn connect(
    door: &Arc<Door>,
    peer: &mut Peer<TcpStream>,
    head: &Head,
    to: Destination,
) -> Result<Option<Tunnel>, End> {
    check_host(head, &to.host, to.port)?;
    if head.framing != BodyFraming::Length(0) || !peer.buffer.is_empty() {
        let message = "bytes came before the tunnel was open";
        let reply = Reply::trouble(BAD_REQUEST, Code::ZU501, message);
        return Err(End::Said(Box::new(reply)));
    }
    let token = match door.proxy_token(head) {
        Ok(token) => token,
        Err(reply) => {
            peer.write(&reply.bytes(false, head.is_1_1)).await?;
            return if head.is_1_1 {
                Ok(None)
            } else {
                Err(End::Silent)
            };
        }
    };
    if token.is_none() && !door.is_bound(&to.host) {
        let reply = Reply::no_lease("the request carries none");
        peer.write(&reply.bytes(false, head.is_1_1)).await?;
        return if head.is_1_1 {
            Ok(None)
        } else {
            Err(End::Silent)
        };
    }
    peer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    Ok(Some(Tunnel { to, token }))
}

/// Serves the requests in a tunnel.
async fn requests<S>(door: &Arc<Door>, peer: &mut Peer<S>, tunnel: &Tunnel) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let Some(head) = peer.head().await? else {
            return Ok(());
        };
        let (path, query) = match &head.target {
            Target::Origin { path, query } => (path.clone(), query.clone()),
            Target::Absolute {
                scheme,
                host,
                port,
                path,
                query,
            } if (scheme == "https", host, *port)
                == (tunnel.to.https, &tunnel.to.host, tunnel.to.port) =>
            {
                (path.clone(), query.clone())
            }
            Target::Absolute { .. } | Target::Authority { .. } => return Err(misdirected()),
        };
        check_host(&head, &tunnel.to.host, tunnel.to.port)?;
        let where_to = (tunnel.to.clone(), path, query);
        request(door, peer, head, where_to, Some(tunnel)).await?;
    }
}

fn misdirected() -> End {
    let message = "the request names another host than the connection leads to";
    End::Said(Box::new(Reply::trouble(MISDIRECTED, Code::ZU503, message)))
}

fn check_host(head: &Head, host: &str, port: u16) -> Result<(), End> {
    match &head.host {
        Some((named, stated)) if named != host || stated.is_some_and(|p| p != port) => {
            Err(misdirected())
        }
        _ => Ok(()),
    }
}

/// Reads the body, has the request judged and performed, and writes the answer.
async fn request<S>(
    door: &Arc<Door>,
    peer: &mut Peer<S>,
    head: Head,
    (to, path, query): (Destination, String, Option<String>),
    tunnel: Option<&Tunnel>,
) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let body = peer.body(&head).await?;
    let close = head.lists("connection", "close") || !head.is_1_1;
    let proxy_token = match tunnel {
        Some(tunnel) => tunnel.token.clone(),
        None => match door.proxy_token(&head) {
            Ok(token) => token,
            Err(reply) => {
                let end = if close { Err(End::Silent) } else { Ok(()) };
                peer.write(&reply.bytes(head.method == "HEAD", !close))
                    .await?;
                return end;
            }
        },
    };
    let head_only = head.method == "HEAD";
    let request = HttpRequest {
        method: head.method,
        scheme: if to.https { "https" } else { "http" }.to_owned(),
        host: to.host,
        port: to.port,
        path,
        query,
        headers: head.headers,
        body,
    };
    let keep = match door.exchange(request, proxy_token).await {
        Answer::Own(reply) => {
            peer.write(&reply.bytes(head_only, !close)).await?;
            !reply.close
        }
        Answer::Provider(answer) => {
            super::relay::relay(
                door,
                *answer,
                &mut peer.stream,
                (head_only, head.is_1_1, close),
            )
            .await
        }
    };
    if close || !keep {
        Err(End::Silent)
    } else {
        Ok(())
    }
}

/// The agent's side of a connection.
pub(super) struct Peer<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn say(&mut self, end: End) {
        if let End::Said(reply) = end {
            // The peer may be gone; then nobody is left to be told.
            drop(self.write(&reply.bytes(false, false)).await);
            drop(self.stream.shutdown().await);
        }
    }

    async fn fill(&mut self) -> Result<bool, End> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Reads a head, or `None` when the peer closed between two requests.
    async fn head(&mut self) -> Result<Option<Head>, End> {
        if self.buffer.is_empty() {
            match timeout(HTTP_IDLE_MAX, self.fill()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false) | Err(_)) | Err(_) => return Ok(None),
            }
        }
        let reading = async {
            loop {
                match read_head(&self.buffer) {
                    Ok(Some((head, length))) => {
                        self.buffer.drain(..length);
                        return Ok(Some(head));
                    }
                    Ok(None) if self.fill().await? => {}
                    Ok(None) => return Err(End::Silent),
                    Err(error) => {
                        let reply = Reply::trouble(BAD_REQUEST, Code::ZU501, &error.to_string());
                        return Err(End::Said(Box::new(reply)));
                    }
                }
            }
        };
        timeout(HTTP_HEAD_WAITS_MAX, reading)
            .await
            .unwrap_or(Err(End::Silent))
    }

    async fn body(&mut self, head: &Head) -> Result<Vec<u8>, End> {
        if head.framing == BodyFraming::Length(0) {
            return Ok(Vec::new());
        }
        let too_large =
            |message: &str| End::Said(Box::new(Reply::trouble(TOO_LARGE, Code::ZU502, message)));
        if let BodyFraming::Length(length) = head.framing
            && usize::try_from(length).is_ok_and(|length| length > HTTP_BODY_BYTES_MAX)
        {
            return Err(too_large("the body is longer than the door judges"));
        }
        if head.lists("expect", "100-continue") && self.buffer.is_empty() {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let reading = async {
            match head.framing {
                BodyFraming::Length(length) => {
                    let length = usize::try_from(length).map_err(|_| End::Silent)?;
                    while self.buffer.len() < length {
                        if !self.fill().await? {
                            return Err(End::Silent);
                        }
                    }
                    let rest = self.buffer.split_off(length);
                    Ok(std::mem::replace(&mut self.buffer, rest))
                }
                BodyFraming::Chunked => self.chunks().await.map_err(|error| match error {
                    Some(ChunkError::TooLong) => {
                        too_large("the body is longer than the door judges")
                    }
                    Some(error) => {
                        let reply = Reply::trouble(BAD_REQUEST, Code::ZU501, &error.to_string());
                        End::Said(Box::new(reply))
                    }
                    None => End::Silent,
                }),
            }
        };
        timeout(HTTP_BODY_WAITS_MAX, reading)
            .await
            .unwrap_or(Err(End::Silent))
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, Option<ChunkError>> {
        let mut chunks = Chunks::new(HTTP_BODY_BYTES_MAX);
        loop {
            let taken = chunks.take(&self.buffer).map_err(Some)?;
            self.buffer.drain(..taken);
            if let Some(body) = chunks.finished() {
                return Ok(body);
            }
            if !self.fill().await.map_err(|_| None)? {
                return Err(None);
            }
        }
    }
}
