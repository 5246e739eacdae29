//! A client that sends exactly the messages it is told to.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A session of its own.
pub struct Raw {
    stream: TcpStream,
    buffer: BytesMut,
}

/// What came back up to the awaited `ReadyForQuery` messages.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// SQLSTATE and text of every error.
    pub errors: Vec<String>,
    /// The last field of the last row.
    pub last: Option<String>,
    pub rows: usize,
    pub tags: Vec<String>,
    /// The connection ended, or nothing came in time.
    pub ended: bool,
}

/// Whom a client says it is.
#[derive(Clone, Debug)]
pub struct Login {
    pub address: std::net::SocketAddr,
    pub user: String,
    pub password: String,
    pub database: String,
}

/// How long an answer may take.
const WAITS_MAX: Duration = Duration::from_secs(30);

/// Appends one message.
pub fn message(tag: u8, body: &[u8], out: &mut BytesMut) {
    out.put_u8(tag);
    out.put_u32(u32::try_from(body.len() + 4).unwrap());
    out.put_slice(body);
}

/// Appends text with its zero.
pub fn text(text: &[u8]) -> Vec<u8> {
    [text, &[0]].concat()
}

impl Raw {
    pub async fn connect(login: &Login) -> Result<Self, String> {
        let stream = TcpStream::connect(login.address)
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).unwrap();
        let mut raw = Self {
            stream,
            buffer: BytesMut::new(),
        };
        let pairs = [("user", &login.user), ("database", &login.database)];
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for (name, value) in pairs {
            body.extend(text(name.as_bytes()));
            body.extend(text(value.as_bytes()));
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        raw.send(&[&length[..], &body].concat()).await?;
        raw.authenticate(&login.password).await?;
        Ok(raw)
    }

    async fn authenticate(&mut self, password: &str) -> Result<(), String> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (tag, body) = self.next().await?;
            let step = body.first_chunk::<4>().map(|x| u32::from_be_bytes(*x));
            match (tag, step) {
                (b'R', Some(10)) => {
                    let first = scram.message();
                    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
                    let body = [&text(b"SCRAM-SHA-256")[..], &length, first].concat();
                    self.password(&body).await?;
                }
                (b'R', Some(11)) => {
                    scram.update(&body[4..]).map_err(|e| e.to_string())?;
                    let proof = scram.message().to_vec();
                    self.password(&proof).await?;
                }
                (b'R', Some(12)) => scram.finish(&body[4..]).map_err(|e| e.to_string())?,
                (b'E', _) => return Err(error(&body)),
                (b'Z', _) => return Ok(()),
                _ => {}
            }
        }
    }

    async fn password(&mut self, body: &[u8]) -> Result<(), String> {
        let mut out = BytesMut::new();
        message(b'p', body, &mut out);
        self.send(&out).await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = self.stream.write_all(bytes).await;
        sent.map_err(|error| error.to_string())
    }

    async fn next(&mut self) -> Result<(u8, Vec<u8>), String> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<5>() {
                let tag = header[0];
                let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
                if self.buffer.len() > length {
                    let message = self.buffer.split_to(length + 1);
                    return Ok((tag, message[5..].to_vec()));
                }
            }
            let read = self.stream.read_buf(&mut self.buffer);
            match tokio::time::timeout(WAITS_MAX, read).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => return Err("the connection ended".to_owned()),
            }
        }
    }

    /// Reads until so many `ReadyForQuery` have come; rows of `copy` are sent when they are asked for.
    pub async fn answer(&mut self, ready: usize, copy: Option<&[u8]>) -> Answer {
        let mut answer = Answer::default();
        let mut left = ready;
        while left > 0 {
            let Ok((tag, body)) = self.next().await else {
                answer.ended = true;
                break;
            };
            match tag {
                b'E' => answer.errors.push(error(&body)),
                b'D' => {
                    answer.rows += 1;
                    answer.last = last_field(&body);
                }
                b'C' => answer
                    .tags
                    .push(String::from_utf8_lossy(&body[..body.len() - 1]).into_owned()),
                b'G' => {
                    let mut out = BytesMut::new();
                    message(b'd', copy.unwrap_or_default(), &mut out);
                    message(b'c', &[], &mut out);
                    if self.send(&out).await.is_err() {
                        answer.ended = true;
                        break;
                    }
                }
                b'Z' => left -= 1,
                _ => {}
            }
        }
        answer
    }

    /// Sends a simple query and reads its answer.
    pub async fn query(&mut self, sql: &[u8], copy: Option<&[u8]>) -> Answer {
        let mut out = BytesMut::new();
        message(b'Q', &text(sql), &mut out);
        if self.send(&out).await.is_err() {
            return Answer {
                ended: true,
                ..Answer::default()
            };
        }
        self.answer(1, copy).await
    }
}

fn error(body: &[u8]) -> String {
    let mut found = String::new();
    for field in body.split(|byte| *byte == 0) {
        if let Some((b'C' | b'M', text)) = field.split_first() {
            found += &format!("{} ", String::from_utf8_lossy(text));
        }
    }
    found.trim().to_owned()
}

fn last_field(body: &[u8]) -> Option<String> {
    let mut rest = body.get(2..)?;
    let mut last = None;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        if length < 0 {
            (last, rest) = (None, after);
            continue;
        }
        let (field, after) = after.split_at_checked(length as usize)?;
        (last, rest) = (Some(String::from_utf8_lossy(field).into_owned()), after);
    }
    last
}
