//! The two sockets of a session: what is read, what is written, and when a session ends.
//!
//! Everything happens in one task without a hop: what is read goes through a buffer of the thread, so
//! an idle session keeps none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use holdfast_core::{Code, Coded};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::super::refuse;
use super::super::stream::Stream;
use super::steps::Phase;
use super::{End, Session};
use crate::clock;
use crate::decide::Outcome;
use crate::limits::{PG_IDLE_BUFFER_BYTES, PG_READ_BYTES, PG_TELL_WAITS_MAX, PG_WAITING_BYTES_MAX};

thread_local! {
    /// What was just read, of whichever session of this thread.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; PG_READ_BYTES]);
}

impl Session {
    /// Serves until one side ends the session, or `ended` says that it must.
    pub(super) async fn run(
        &mut self,
        mut client: Stream,
        mut server: Stream,
        ended: CancellationToken,
    ) {
        let end = tokio::select! {
            biased;
            end = poll_fn(|ctx| self.poll(ctx, &mut client, &mut server)) => end,
            () = ended.cancelled() => self.lease_end().unwrap_or_else(closing),
        };
        self.record_open(Outcome::Unknown);
        if let End::Told(code, message, hint) = end {
            let mut out = Vec::new();
            refuse(&mut out, true, (code, &message, &hint));
            self.to_client.extend_from_slice(&out);
        }
        let telling = async {
            client.write_all(&self.to_client).await?;
            client.shutdown().await
        };
        // A client that reads nothing does not keep the session.
        let _ = tokio::time::timeout(PG_TELL_WAITS_MAX, telling).await;
        let leaving = async {
            server.write_all(b"X\0\0\0\x04").await?;
            server.shutdown().await
        };
        let _ = tokio::time::timeout(PG_TELL_WAITS_MAX, leaving).await;
    }

    /// Does everything that can be done now.
    fn poll(
        &mut self,
        ctx: &mut Context<'_>,
        client: &mut Stream,
        server: &mut Stream,
    ) -> Poll<End> {
        loop {
            self.is_cancelling = self.flying.is_busy(ctx);
            if let Err(end) = self.turn() {
                return Poll::Ready(end);
            }
            if self.client_gone && !self.must_finish() {
                return Poll::Ready(End::Gone);
            }
            // What was begun just now must be able to wake this task.
            let mut moves = self.poll_decided(ctx);
            match self.poll_server(ctx, server) {
                Ok(moved) => moves |= moved,
                Err(end) => return Poll::Ready(end),
            }
            if !self.client_gone {
                match self.poll_client(ctx, client) {
                    Ok(moved) => moves |= moved,
                    Err(_) => {
                        self.client_gone = true;
                        moves = true;
                    }
                }
            }
            if !moves {
                self.shrink();
                return Poll::Pending;
            }
        }
    }

    fn poll_decided(&mut self, ctx: &mut Context<'_>) -> bool {
        let Some(deciding) = self.deciding.as_mut() else {
            return false;
        };
        let Poll::Ready(decided) = Pin::new(deciding).poll(ctx) else {
            return false;
        };
        self.deciding = None;
        self.decided(super::gate::Decided::or_none(decided));
        true
    }

    /// Does everything that can be done with the bytes that are there.
    fn turn(&mut self) -> Result<(), End> {
        loop {
            let before = self.waiting();
            self.take_replies()?;
            self.advance()?;
            if self.wants_client() {
                self.take_requests()?;
            }
            self.advance()?;
            if before == self.waiting() {
                return Ok(());
            }
        }
    }

    fn waiting(&self) -> (usize, usize, usize) {
        (
            self.from_server.len(),
            self.from_client.len(),
            self.todo.len(),
        )
    }

    fn poll_server(&mut self, ctx: &mut Context<'_>, server: &mut Stream) -> Result<bool, End> {
        let all = self.to_server.len();
        let Ok(mut moves) = write_some(ctx, server, &mut self.to_server, all) else {
            return Err(self.server_gone());
        };
        if self.to_client.len() < PG_WAITING_BYTES_MAX || self.client_gone {
            let read = READ.with_borrow_mut(|buffer| {
                let Poll::Ready(read) = read_some(ctx, server, buffer) else {
                    return Ok(false);
                };
                let Ok(bytes @ [_, ..]) = read else {
                    return Err(self.server_gone());
                };
                // Whole messages go on from here; only what is cut off is kept.
                let taken = if self.from_server.is_empty() {
                    self.take_from_server(bytes)?
                } else {
                    0
                };
                let rest = bytes.get(taken..).unwrap_or_default();
                self.from_server.extend_from_slice(rest);
                Ok(true)
            });
            moves |= read?;
        }
        Ok(moves)
    }

    fn poll_client(&mut self, ctx: &mut Context<'_>, client: &mut Stream) -> io::Result<bool> {
        // What may have to be taken back waits.
        let until = self
            .pass
            .as_ref()
            .map_or(self.to_client.len(), |pass| pass.mark);
        let before = self.to_client.len();
        let mut moves = write_some(ctx, client, &mut self.to_client, until)?;
        let written = before.saturating_sub(self.to_client.len());
        if let Some(pass) = self.pass.as_mut() {
            pass.mark = pass.mark.saturating_sub(written);
        }
        if self.wants_client() {
            let read: io::Result<bool> = READ.with_borrow_mut(|buffer| {
                let Poll::Ready(read) = read_some(ctx, client, buffer) else {
                    return Ok(false);
                };
                match read? {
                    [] => Err(io::ErrorKind::UnexpectedEof.into()),
                    bytes => {
                        self.from_client.extend_from_slice(bytes);
                        Ok(true)
                    }
                }
            });
            moves |= read?;
        }
        Ok(moves)
    }

    /// Gives back what large messages needed.
    fn shrink(&mut self) {
        let buffers = [
            &mut self.from_client,
            &mut self.to_client,
            &mut self.from_server,
            &mut self.to_server,
            &mut self.again,
        ];
        for buffer in buffers {
            if buffer.is_empty() && buffer.capacity() > PG_IDLE_BUFFER_BYTES {
                *buffer = BytesMut::new();
            }
        }
        if self.pass.is_none() && self.again.capacity() > PG_IDLE_BUFFER_BYTES {
            self.again = BytesMut::new();
        }
    }

    fn server_gone(&mut self) -> End {
        if matches!(self.phase, Phase::Committing { .. }) {
            let message = "the source was lost while a COMMIT was on its way; it is not known whether it was done";
            return End::Told(
                Code::ZS401,
                message.to_owned(),
                "look whether it was done before repeating it".to_owned(),
            );
        }
        // Its last words, such as that it was terminated, were relayed already.
        End::Gone
    }

    /// Tells why the session may not go on, once its lease has ended.
    fn lease_end(&self) -> Option<End> {
        let found = match self.door.leases.find(&self.lease.id) {
            Ok(lease) => lease.ended(clock::now())?,
            Err(error) => error,
        };
        let message = format!("{found}; an open transaction was rolled back");
        let hint = found.hint().unwrap_or_default();
        Some(End::Told(found.code(), message, hint))
    }
}

/// Writes what waits in front of `until`, as far as the socket takes it.
fn write_some(
    ctx: &mut Context<'_>,
    stream: &mut Stream,
    bytes: &mut BytesMut,
    until: usize,
) -> io::Result<bool> {
    let Some(waiting) = bytes.get(..until).filter(|waiting| !waiting.is_empty()) else {
        // What TLS holds back goes out as well.
        let _ = Pin::new(stream).poll_flush(ctx)?;
        return Ok(false);
    };
    match Pin::new(stream).poll_write(ctx, waiting) {
        Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
        Poll::Ready(Ok(count)) => {
            bytes.advance(count);
            Ok(true)
        }
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Ok(false),
    }
}

/// Reads what has come; nothing when the other side has closed.
fn read_some<'b>(
    ctx: &mut Context<'_>,
    stream: &mut Stream,
    buffer: &'b mut [u8],
) -> Poll<io::Result<&'b [u8]>> {
    let mut read = ReadBuf::new(buffer);
    let polled = Pin::new(stream).poll_read(ctx, &mut read);
    let count = read.filled().len();
    polled.map_ok(|()| buffer.get(..count).unwrap_or_default())
}

fn closing() -> End {
    let message = "the door closes; an open transaction was rolled back".to_owned();
    End::Told(Code::ZS401, message, "connect again later".to_owned())
}
