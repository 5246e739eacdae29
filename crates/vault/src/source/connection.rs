//! One blocking connection to a PostgreSQL server: start-up, authentication, questions, raw frames.
//!
//! It blocks on purpose: a WAL stream has a thread of its own, so that nothing stands between the
//! bytes, the disk and the acknowledgement.

mod login;

pub(crate) use login::APPLICATION_NAME;

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use holdfast_wire::pg::replication::{
    Frame, LIMIT_FRAME_BYTES, ServerMessage, columns, next_frame_within, row, server_message,
};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use tokio_util::sync::CancellationToken;

use super::url::{ConnectionUrl, SslMode};
use super::{SourceError, from_frame, from_reply, tls};
use crate::capture::Waker;
use crate::limits;

/// Bytes that are read from the socket at once.
const READ_BYTES: usize = 256 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// SQL.
    Query,
    /// Physical replication commands.
    Replication,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buf),
            Self::Tls(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

/// An answer with rows, as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Reply {
    /// Returns the value in the first row under `column`; `None` when absent or NULL.
    pub(crate) fn value(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.rows.first()?.get(at)?.as_deref()
    }

    /// Returns the first value of the first row.
    pub(crate) fn single(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }

    /// Returns the first value of each row that has one.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(|row| row.first()?.as_deref())
    }

    /// Returns all rows.
    pub(crate) fn rows(&self) -> &[Vec<Option<String>>] {
        &self.rows
    }
}

/// A connection that has passed authentication.
pub(crate) struct Connection {
    stream: Stream,
    buffer: BytesMut,
    scratch: Box<[u8]>,
    address: String,
    user: String,
    version: u32,
    frame_bytes: usize,
    /// When an exchange must have ended, however often the server speaks.
    ends: Option<Instant>,
    stop: CancellationToken,
}

impl Connection {
    /// Connects and logs in.
    pub(crate) fn open(url: &ConnectionUrl, purpose: Purpose) -> Result<Self, SourceError> {
        Self::open_until(url, purpose, &CancellationToken::new())
    }

    /// Connects and logs in; every later wait ends early when `stop` is cancelled.
    pub(crate) fn open_until(
        url: &ConnectionUrl,
        purpose: Purpose,
        stop: &CancellationToken,
    ) -> Result<Self, SourceError> {
        let address = url.address();
        let unreachable = |source| SourceError::Unreachable {
            address: address.clone(),
            source,
        };
        let tcp = dial(url).map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        tcp.set_read_timeout(Some(limits::POLL))
            .map_err(unreachable)?;
        tcp.set_write_timeout(Some(limits::ANSWER_WAIT))
            .map_err(unreachable)?;
        rustix::net::sockopt::set_socket_keepalive(&tcp, true)
            .map_err(|errno| unreachable(errno.into()))?;
        let stream = encrypt(tcp, url)?;
        let mut connection = Self::around(stream, address, &url.user, stop);
        if purpose == Purpose::Replication {
            connection.frame_bytes = limits::REPLICATION_FRAME_BYTES;
        }
        connection.log_in(url, purpose)?;
        Ok(connection)
    }

    /// Connects to a server of ours over the socket in `folder`.
    pub(crate) fn open_local(
        folder: &Path,
        url: &ConnectionUrl,
        stop: &CancellationToken,
    ) -> Result<Self, SourceError> {
        let path = folder.join(format!(".s.PGSQL.{}", url.port));
        let address = path.display().to_string();
        let unreachable = |source| SourceError::Unreachable {
            address: address.clone(),
            source,
        };
        let unix = UnixStream::connect(&path).map_err(unreachable)?;
        unix.set_read_timeout(Some(limits::POLL))
            .map_err(unreachable)?;
        let mut connection = Self::around(Stream::Unix(unix), address, &url.user, stop);
        connection.log_in(url, Purpose::Query)?;
        Ok(connection)
    }

    fn around(stream: Stream, address: String, user: &str, stop: &CancellationToken) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(READ_BYTES),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            address,
            user: user.to_owned(),
            version: 0,
            frame_bytes: LIMIT_FRAME_BYTES,
            ends: None,
            stop: stop.clone(),
        }
    }

    /// Returns the server's major version.
    pub(crate) fn major(&self) -> u32 {
        self.version
    }

    /// Asks a question or gives a command and returns the last set of rows.
    pub(crate) fn query(&mut self, sql: &str, step: &'static str) -> Result<Reply, SourceError> {
        self.query_within(sql, step, limits::ANSWER_WAIT)
    }

    /// As [`Connection::query`], with a wait of the caller's choice between two messages.
    pub(crate) fn query_within(
        &mut self,
        sql: &str,
        step: &'static str,
        wait: Duration,
    ) -> Result<Reply, SourceError> {
        self.begin(sql, step)?;
        self.ends = Some(Instant::now() + wait.saturating_mul(limits::ANSWER_WAITS));
        let answer = self.answer_to(step, wait);
        self.ends = None;
        answer
    }

    fn answer_to(&mut self, step: &'static str, wait: Duration) -> Result<Reply, SourceError> {
        let mut reply = Reply::default();
        let mut refused: Option<ServerMessage> = None;
        let mut allowance = Allowance::default();
        loop {
            let frame = self.next(wait, step)?;
            allowance.take(&frame, step)?;
            match frame.tag {
                b'T' => {
                    reply.columns = columns(&frame.body).map_err(from_reply(step))?;
                    reply.rows.clear();
                }
                b'D' if reply.rows.len() < limits::ANSWER_ROWS => {
                    let values = row(&frame.body).map_err(from_reply(step))?;
                    let text = |value: bytes::Bytes| String::from_utf8_lossy(&value).into_owned();
                    reply
                        .rows
                        .push(values.into_iter().map(|value| value.map(text)).collect());
                }
                b'E' => {
                    let message = server_message(&frame.body);
                    if message.severity == "FATAL" || message.severity == "PANIC" {
                        return Err(SourceError::Refused {
                            step,
                            source: Box::new(message),
                        });
                    }
                    refused.get_or_insert(message);
                }
                b'Z' => break,
                b'C' | b'I' | b'N' | b'S' | b'A' => {}
                other => return Err(SourceError::nonsense(step, format!("message {other}"))),
            }
        }
        match refused {
            Some(message) => Err(SourceError::Refused {
                step,
                source: Box::new(message),
            }),
            None => Ok(reply),
        }
    }

    /// Sends a command whose answer the caller reads frame by frame.
    pub(crate) fn begin(&mut self, sql: &str, step: &'static str) -> Result<(), SourceError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|error| SourceError::nonsense(step, error))?;
        self.send(&out, step)
    }

    /// Sends a statement with parameters as text; the rows that the caller reads are binary.
    pub(crate) fn begin_binary(
        &mut self,
        sql: &str,
        parameters: &[&str],
        step: &'static str,
    ) -> Result<(), SourceError> {
        let mut out = BytesMut::new();
        let bad = |error: io::Error| SourceError::nonsense(step, error);
        frontend::parse("", sql, [], &mut out).map_err(bad)?;
        let value = |text: &&str, out: &mut BytesMut| {
            out.extend_from_slice(text.as_bytes());
            Ok(IsNull::No)
        };
        frontend::bind("", "", [], parameters, value, [1], &mut out)
            .map_err(|_| SourceError::nonsense(step, "the parameters are too long"))?;
        frontend::execute("", 0, &mut out).map_err(bad)?;
        frontend::sync(&mut out);
        self.send(&out, step)
    }

    /// Sends bytes that are complete messages.
    pub(crate) fn send(&mut self, bytes: &[u8], step: &'static str) -> Result<(), SourceError> {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .map_err(|source| self.broken(step, source))
    }

    /// Returns the next message, or an error when none comes in `wait`.
    pub(crate) fn next(
        &mut self,
        wait: Duration,
        step: &'static str,
    ) -> Result<Frame, SourceError> {
        let deadline = Instant::now() + wait;
        loop {
            let is_over = self.ends.is_some_and(|ends| Instant::now() >= ends);
            if let Some(frame) = self.poll(step)?.filter(|_| !is_over) {
                return Ok(frame);
            }
            if is_over || Instant::now() >= deadline {
                return Err(SourceError::Silent {
                    address: self.address.clone(),
                    step,
                });
            }
        }
    }

    /// Returns the next message, or `None` when none comes within [`limits::POLL`].
    fn poll(&mut self, step: &'static str) -> Result<Option<Frame>, SourceError> {
        if let Some(frame) = self.buffered(step)? {
            return Ok(Some(frame));
        }
        if self.stop.is_cancelled() {
            return Err(SourceError::Stopped { step });
        }
        self.read(step)
    }

    /// Returns the next message, or `None` when none comes in `wait` or `waker` is woken before.
    ///
    /// Unlike [`Connection::next`] it does not look again and again whether it should stop: whoever
    /// cancels wakes it.
    pub(crate) fn wait(
        &mut self,
        waker: &Waker,
        wait: Duration,
        step: &'static str,
    ) -> Result<Option<Frame>, SourceError> {
        if let Some(frame) = self.buffered(step)? {
            return Ok(Some(frame));
        }
        let is_readable = waker
            .wait_for(self.stream.as_fd(), wait)
            .map_err(|source| self.broken(step, source))?;
        if self.stop.is_cancelled() {
            return Err(SourceError::Stopped { step });
        }
        if is_readable {
            self.read(step)
        } else {
            Ok(None)
        }
    }

    /// Reads what has arrived; of a session with TLS all of it is decrypted at once, so that nothing
    /// stays behind that the socket knows nothing of.
    fn read(&mut self, step: &'static str) -> Result<Option<Frame>, SourceError> {
        match self.stream.read(&mut self.scratch) {
            Ok(0) => {
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                Err(self.broken(step, source))
            }
            Ok(count) => {
                self.buffer
                    .extend_from_slice(self.scratch.get(..count).unwrap_or_default());
                self.buffered(step)
            }
            Err(error) if is_timeout(&error) => Ok(None),
            Err(source) => Err(self.broken(step, source)),
        }
    }

    /// Tells whether a message has begun to arrive and is not complete.
    pub(crate) fn is_within_message(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Returns a message that has already arrived completely.
    pub(crate) fn buffered(&mut self, step: &'static str) -> Result<Option<Frame>, SourceError> {
        next_frame_within(&mut self.buffer, self.frame_bytes).map_err(from_frame(step))
    }

    fn broken(&self, step: &'static str, source: io::Error) -> SourceError {
        SourceError::Broken {
            address: self.address.clone(),
            step,
            source,
        }
    }
}

/// What an answer may still bring: a server that is not to be trusted must not fill our memory, nor
/// speak for ever without saying anything.
#[derive(Debug)]
pub(crate) struct Allowance {
    bytes: usize,
    chatter: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            bytes: limits::ANSWER_BYTES,
            chatter: limits::CHATTER,
        }
    }
}

impl Allowance {
    /// Counts one message of an answer.
    ///
    /// # Errors
    /// [`SourceError::Nonsense`] when it is too much.
    pub(crate) fn take(&mut self, frame: &Frame, step: &'static str) -> Result<(), SourceError> {
        let left = match frame.tag {
            b'T' | b'D' => {
                // A row of nothing takes memory as well.
                let bytes = frame.body.len().saturating_add(ROW_BYTES);
                self.bytes = self.bytes.saturating_sub(bytes);
                self.bytes
            }
            _ => {
                self.chatter = self.chatter.saturating_sub(1);
                self.chatter
            }
        };
        if left == 0 {
            return Err(SourceError::nonsense(step, "its answer does not end"));
        }
        Ok(())
    }
}

/// What a row takes beside its text.
const ROW_BYTES: usize = 64;

impl Drop for Connection {
    fn drop(&mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        let _ = self
            .stream
            .write_all(&out)
            .and_then(|()| self.stream.flush());
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn dial(url: &ConnectionUrl) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limits::CONNECT_WAIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn encrypt(mut tcp: TcpStream, url: &ConnectionUrl) -> Result<Stream, SourceError> {
    if url.ssl == SslMode::Disable {
        return Ok(Stream::Plain(tcp));
    }
    let failed = |why: String| SourceError::Tls {
        address: url.address(),
        why,
    };
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    // One byte exactly: whatever came behind it unencrypted would be somebody else's.
    let mut answer = [0_u8; 1];
    let deadline = Instant::now() + limits::CONNECT_WAIT;
    tcp.write_all(&out)
        .map_err(|error| failed(error.to_string()))?;
    loop {
        match tcp.read_exact(&mut answer) {
            Ok(()) => break,
            Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    match (answer, url.ssl) {
        ([b'S'], _) => {
            let client = tls::client(url).map_err(failed)?;
            let mut stream = rustls::StreamOwned::new(client, tcp);
            while stream.conn.is_handshaking() {
                match stream.conn.complete_io(&mut stream.sock) {
                    Ok(_) => {}
                    Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
                    Err(error) => return Err(failed(error.to_string())),
                }
            }
            Ok(Stream::Tls(Box::new(stream)))
        }
        ([b'N'], SslMode::Prefer) => Ok(Stream::Plain(tcp)),
        _ => Err(failed("the server does not offer encryption".to_owned())),
    }
}
