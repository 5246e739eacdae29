//! The messages inside a WAL stream.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_core::{Lsn, Timestamp};

/// One message of the server inside the copy stream of `START_REPLICATION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamMessage {
    /// A run of WAL bytes.
    Wal {
        /// Position of the first byte.
        start: Lsn,
        /// The server's end of WAL when it sent this.
        server_end: Lsn,
        /// The server's clock when it sent this.
        sent_at: Timestamp,
        /// The bytes.
        data: Bytes,
    },
    /// The server is alive.
    Keepalive {
        /// The server's end of WAL.
        server_end: Lsn,
        /// The server's clock.
        sent_at: Timestamp,
        /// It wants an answer at once.
        reply: bool,
    },
}

/// Why bytes are not a message of a WAL stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Shorter than its fixed fields.
    #[error("a message of the WAL stream is cut off")]
    Short,
    /// An unknown kind.
    #[error("the WAL stream contains a message of unknown kind {0}")]
    Unknown(u8),
}

impl StreamMessage {
    /// Reads one message from the body of a `CopyData`.
    ///
    /// # Shape
    /// `w`: start u64, end u64, clock i64, WAL. `k`: end u64, clock i64, reply u8. All big-endian.
    ///
    /// # Units
    /// The clock is microseconds since 2000-01-01 UTC.
    ///
    /// # Errors
    /// [`StreamError`].
    ///
    /// # Source
    /// <https://www.postgresql.org/docs/18/protocol-replication.html>, `XLogData`
    pub fn parse(body: &Bytes) -> Result<Self, StreamError> {
        let number = |at: usize| {
            body.get(at..)
                .and_then(|rest| rest.first_chunk::<8>())
                .ok_or(StreamError::Short)
        };
        let position = |at| number(at).map(|b| Lsn(u64::from_be_bytes(*b)));
        let clock = |at| number(at).map(|b| Timestamp::from_postgres(i64::from_be_bytes(*b)));
        match body.first() {
            Some(b'w') => Ok(Self::Wal {
                start: position(1)?,
                server_end: position(9)?,
                sent_at: clock(17)?,
                data: body.slice(25..),
            }),
            Some(b'k') => Ok(Self::Keepalive {
                server_end: position(1)?,
                sent_at: clock(9)?,
                reply: *body.get(17).ok_or(StreamError::Short)? != 0,
            }),
            Some(other) => Err(StreamError::Unknown(*other)),
            None => Err(StreamError::Short),
        }
    }
}

/// What the client tells the server about its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Written up to here.
    pub written: Lsn,
    /// Durable up to here: what synchronous commits wait for.
    pub flushed: Lsn,
    /// Applied up to here; for a receiver that applies nothing, zero keeps `remote_apply` waiting
    /// instead of lying.
    pub applied: Lsn,
    /// The client's clock.
    pub at: Timestamp,
    /// Asks the server for a sign of life.
    pub reply: bool,
}

impl StandbyStatus {
    /// Writes the message as a complete `CopyData` frame.
    ///
    /// # Shape
    /// `d`, length, `r`, written u64, flushed u64, applied u64, clock i64, reply wanted u8.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(b'd');
        out.put_u32(4 + 34);
        out.put_u8(b'r');
        out.put_u64(self.written.0);
        out.put_u64(self.flushed.0);
        out.put_u64(self.applied.0);
        out.put_i64(self.at.to_postgres());
        out.put_u8(u8::from(self.reply));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wal_and_keepalives_are_read() {
        let mut w = BytesMut::new();
        w.put_u8(b'w');
        w.put_u64(0x0100_0000);
        w.put_u64(0x0100_0008);
        w.put_i64(0);
        w.extend_from_slice(b"12345678");
        let Ok(StreamMessage::Wal {
            start,
            data,
            sent_at,
            ..
        }) = StreamMessage::parse(&w.freeze())
        else {
            panic!("not WAL");
        };
        assert_eq!((start, &data[..]), (Lsn(0x0100_0000), &b"12345678"[..]));
        assert_eq!(sent_at, Timestamp::POSTGRES_EPOCH);
        assert_eq!(
            StreamMessage::parse(&Bytes::from_static(b"k123")),
            Err(StreamError::Short)
        );
        assert_eq!(
            StreamMessage::parse(&Bytes::from_static(b"x")),
            Err(StreamError::Unknown(b'x'))
        );
        assert_eq!(StreamMessage::parse(&Bytes::new()), Err(StreamError::Short));
    }

    #[test]
    fn a_status_states_its_own_length() {
        let mut out = BytesMut::new();
        StandbyStatus {
            written: Lsn(3),
            flushed: Lsn(2),
            applied: Lsn(0),
            at: Timestamp(0),
            reply: true,
        }
        .encode(&mut out);
        let frame = super::super::next_frame(&mut out).unwrap().unwrap();
        assert!(out.is_empty());
        assert_eq!(frame.body.len(), 34);
        assert_eq!((frame.body[16], frame.body[33]), (2, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = StreamMessage::parse(&Bytes::from(bytes));
        }
    }
}
