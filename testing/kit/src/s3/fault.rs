//! A proxy in front of an object storage that answers wrongly on command.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, code and header line, and never reaches the storage.
    Answer {
        /// The status.
        status: u16,
        /// The error code in the body.
        code: &'static str,
        /// One more header, `name: value`, or nothing.
        header: &'static str,
    },
    /// It is performed; the connection is closed instead of the answer.
    CutAfterSuccess,
    /// The connection is closed before it reaches the storage.
    CutBefore,
    /// It is performed; the answer says that it is this many seconds later, or earlier.
    Clock(i64),
    /// It is performed; the answer comes one byte at a time, with this pause between two.
    Drip(Duration),
    /// It is performed this much later, and answered.
    Late(Duration),
    /// It is performed and answered.
    None,
    /// It is performed; nothing is ever answered.
    Silence,
    /// It is performed; only this many bytes of the body are answered, under the full length.
    Truncate(usize),
    /// It is performed; the body is answered with this many bytes less, and a length that says so.
    Shorten(usize),
}

/// One request in one connection: forwards each to the storage, except where a fault is due.
#[derive(Debug)]
pub struct S3Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    target: SocketAddr,
}

#[derive(Debug, Default)]
struct State {
    due: Vec<(String, Fault, u32)>,
    seen: Vec<String>,
    closed: bool,
}

impl S3Proxy {
    /// Listens on a port of 127.0.0.1 and forwards to `target`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a port")?;
        let address = listener.local_addr().context("learn the port")?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            target,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.lock().closed {
                    return;
                }
                let shared = Arc::clone(&accepting);
                if let Ok(client) = client {
                    // What goes wrong shows to the client as a closed connection.
                    std::thread::spawn(move || drop(serve(client, &shared)));
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets the next `times` requests whose first line contains `wanted` meet a fault.
    pub fn on(&self, wanted: &str, fault: Fault, times: u32) {
        let due = (wanted.to_owned(), fault, times);
        self.shared.lock().due.push(due);
    }

    /// Lets the next `times` requests whose first line contains `wanted` pass, before what is due later.
    pub fn pass(&self, wanted: &str, times: u32) {
        self.on(wanted, Fault::None, times);
    }

    /// Returns how many requests are still to meet a fault.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.shared
            .lock()
            .due
            .iter()
            .map(|(_, _, times)| times)
            .sum()
    }

    /// Forgets all faults that are still due.
    pub fn heal(&self) {
        self.shared.lock().due.clear();
    }

    /// Returns the first lines of the requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<String> {
        self.shared.lock().seen.clone()
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        // Wakes the accepting thread, which then sees that the proxy is closed.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, line: &str) -> Option<Fault> {
        let mut state = self.lock();
        state.seen.push(line.to_owned());
        let due = state.due.iter_mut();
        let mut due = due.filter(|(wanted, _, times)| *times > 0 && line.contains(wanted.as_str()));
        let (_, fault, times) = due.next()?;
        *times -= 1;
        Some(fault.clone())
    }

    /// Waits without a busy loop; ends early when the proxy is dropped.
    fn wait(&self, time: Duration) {
        let state = self.lock();
        let _ = self
            .changed
            .wait_timeout_while(state, time, |state| !state.closed);
    }
}

fn serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    while let Some((line, request)) = message(&mut reader)? {
        let fault = shared.fault(&line);
        match &fault {
            Some(Fault::CutBefore) => return client.shutdown(Shutdown::Both),
            Some(Fault::Answer {
                status,
                code,
                header,
            }) => {
                let text = format!("<Error><Code>{code}</Code><Message>injected</Message></Error>");
                let body = if line.starts_with("HEAD") { "" } else { &text };
                let header = match *header {
                    "" => String::new(),
                    header => format!("{header}\r\n"),
                };
                write!(
                    client,
                    "HTTP/1.1 {status} Injected\r\ncontent-length: {}\r\n{header}connection: close\r\n\r\n{body}",
                    body.len()
                )?;
                return client.shutdown(Shutdown::Both);
            }
            Some(Fault::Late(pause)) => shared.wait(*pause),
            _ => {}
        }
        let mut target = TcpStream::connect(shared.target)?;
        target.set_nodelay(true)?;
        target.write_all(&request)?;
        let mut answers = BufReader::new(target);
        let answer = answer(&mut answers, line.starts_with("HEAD"))?;
        match fault {
            Some(Fault::CutAfterSuccess) => return client.shutdown(Shutdown::Both),
            Some(Fault::Silence) => {
                shared.wait(Duration::from_secs(600));
                return Ok(());
            }
            Some(Fault::Drip(pause)) => {
                for byte in &answer {
                    client.write_all(std::slice::from_ref(byte))?;
                    shared.wait(pause);
                }
            }
            Some(Fault::Truncate(bytes)) => {
                let kept = head_bytes(&answer).saturating_add(bytes);
                client.write_all(answer.get(..kept).unwrap_or(&answer))?;
                return client.shutdown(Shutdown::Both);
            }
            Some(Fault::Clock(seconds)) => client.write_all(&dated(&answer, seconds)?)?,
            Some(Fault::Shorten(bytes)) => client.write_all(&shortened(&answer, bytes))?,
            _ => client.write_all(&answer)?,
        }
    }
    Ok(())
}

/// Reads a request whole; returns its first line as well.
pub(super) fn message(reader: &mut impl BufRead) -> io::Result<Option<(String, Vec<u8>)>> {
    let Some((bytes, length)) = head(reader)? else {
        return Ok(None);
    };
    let line = String::from_utf8_lossy(&bytes);
    let line = line.lines().next().unwrap_or_default().to_owned();
    let mut bytes = bytes;
    reader.take(length.unwrap_or(0)).read_to_end(&mut bytes)?;
    Ok(Some((line, bytes)))
}

/// Reads an answer whole.
pub(super) fn answer(reader: &mut impl BufRead, without_body: bool) -> io::Result<Vec<u8>> {
    let Some((mut bytes, length)) = head(reader)? else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let has_none = without_body || bytes.starts_with(b"HTTP/1.1 204");
    match length {
        _ if has_none => {}
        Some(length) => {
            reader.take(length).read_to_end(&mut bytes)?;
        }
        None => {
            let body = chunks(reader)?;
            let head = String::from_utf8_lossy(&bytes);
            let lines = head.lines().filter(|line| {
                let line = line.to_ascii_lowercase();
                !line.is_empty() && !line.starts_with("transfer-encoding:")
            });
            let mut head: String = lines.map(|line| format!("{line}\r\n")).collect();
            head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
            bytes = [head.as_bytes(), &body].concat();
        }
    }
    Ok(bytes)
}

/// Reads a body that comes in chunks; it is passed on in one piece, so that faults can measure it.
fn chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        reader.take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Reads up to the empty line; returns the stated length of what follows.
fn head(reader: &mut impl BufRead) -> io::Result<Option<(Vec<u8>, Option<u64>)>> {
    let mut bytes = Vec::new();
    let mut length = None;
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&line);
        let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
        if text.trim().is_empty() {
            return Ok(Some((bytes, length)));
        }
    }
}

fn head_bytes(answer: &[u8]) -> usize {
    let ends = answer.windows(4).position(|four| four == b"\r\n\r\n");
    ends.map_or(answer.len(), |at| at.saturating_add(4))
}

/// Moves the date of an answer.
fn dated(answer: &[u8], by_seconds: i64) -> io::Result<Vec<u8>> {
    let (head, body) = answer.split_at(head_bytes(answer));
    let mut moved = String::new();
    for line in String::from_utf8_lossy(head).lines() {
        let line = match line.to_ascii_lowercase().starts_with("date:") {
            true => {
                let date = line.split_once(':').map_or("", |(_, date)| date.trim());
                let date = httpdate::parse_http_date(date).map_err(io::Error::other)?;
                let by = Duration::from_secs(by_seconds.unsigned_abs());
                let date = match by_seconds < 0 {
                    true => date.checked_sub(by),
                    false => date.checked_add(by),
                };
                let date = date.ok_or(io::ErrorKind::InvalidInput)?;
                format!("date: {}", httpdate::fmt_http_date(date))
            }
            false => line.to_owned(),
        };
        moved.push_str(&line);
        moved.push_str("\r\n");
    }
    Ok([moved.as_bytes(), body].concat())
}

fn shortened(answer: &[u8], by: usize) -> Vec<u8> {
    let (head, body) = answer.split_at(head_bytes(answer));
    let kept = body.get(..body.len().saturating_sub(by)).unwrap_or(body);
    let head: String = String::from_utf8_lossy(head)
        .lines()
        .map(
            |line| match line.to_ascii_lowercase().starts_with("content-length:") {
                true => format!("content-length: {}\r\n", kept.len()),
                false => format!("{line}\r\n"),
            },
        )
        .collect();
    [head.as_bytes(), kept].concat()
}
