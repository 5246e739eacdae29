//! The stream: receive, write, sync, acknowledge.
//!
//! What has arrived while the disk was busy is written together and synced once; the acknowledgement
//! leaves right after the sync, because a synchronous commit waits for it. Where none does, both
//! happen a few times a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use holdfast_core::Lsn;
use holdfast_wire::pg::replication::{
    Frame, StandbyStatus, StreamMessage, columns, row, server_message, start_physical,
};
use holdfast_wire::pg::wal::check_pages;

use super::pace::Pace;
use super::prepare::Prepared;
use super::{Capture, CaptureError};
use crate::config::AckAt;
use crate::limits;
use crate::source::{Allowance, Connection, SourceError, from_reply, from_stream};
use crate::spool::SpoolWriter;

const STEP: &str = "stream";

/// How a stream ended without an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The source left this timeline, or is another server, and goes on with another.
    Timeline,
    /// We were told to stop.
    Stopped,
}

struct Stream<'a> {
    capture: &'a Capture,
    connection: Connection,
    timeline: u32,
    writer: SpoolWriter,
    pace: Pace,
    /// Something was taken in since the socket was last left alone.
    has_come: bool,
    /// When the oldest of what is not durable yet was taken in.
    waits_since: Option<Instant>,
    durable: Lsn,
    /// What the source was told last to be flushed.
    told: Lsn,
    server_end: Lsn,
    marks: Marks,
    replied: Instant,
    heard: Instant,
    reply_due: bool,
    /// Which server of the source this is.
    generation: u64,
    /// Messages in a row that carry nothing.
    chatter: usize,
}

impl Capture {
    /// Streams from the prepared position until the source ends it, something fails or we are stopped.
    pub(super) fn stream(&self, prepared: Prepared) -> Result<Ended, CaptureError> {
        let Prepared {
            connection,
            cluster,
            from,
            pace,
            server_end,
        } = prepared;
        let size = cluster.segment_bytes;
        let kept = self.log_end(&cluster, from.timeline)?.unwrap_or_default();
        let writer = SpoolWriter::begin(&self.spool, from, size, kept);
        let mut stream = Stream {
            capture: self,
            connection,
            timeline: from.timeline,
            writer: match pace {
                Pace::AtOnce => writer.with_room(),
                Pace::Gathered => writer,
            },
            pace,
            has_come: false,
            waits_since: None,
            durable: from.start,
            told: Lsn::ZERO,
            server_end,
            marks: Marks::default(),
            replied: Instant::now(),
            heard: Instant::now(),
            reply_due: true,
            generation: self.standing.generation(),
            chatter: 0,
        };
        let start = start_physical(&self.slot_name()?, from.start, from.timeline);
        stream.connection.begin(&start, "start the stream")?;
        if let Some(ended) = stream.first().map_err(|error| self.slot_refused(error))? {
            return Ok(ended);
        }
        self.streaming(from)?;
        stream.run()
    }
}

impl Stream<'_> {
    /// Reads the answer to the command: the stream, or that the timeline ends right here.
    fn first(&mut self) -> Result<Option<Ended>, CaptureError> {
        let mut allowance = Allowance::default();
        loop {
            let frame = self.connection.next(limits::ANSWER_WAIT, STEP)?;
            allowance.take(&frame, STEP)?;
            match frame.tag {
                b'W' => return Ok(None),
                b'T' => {
                    self.settle()?;
                    return self.next_timeline(Some(frame)).map(Some);
                }
                b'E' => return Err(refused(&frame)),
                b'N' | b'S' => {}
                other => return Err(nonsense(other)),
            }
        }
    }

    fn run(&mut self) -> Result<Ended, CaptureError> {
        loop {
            if self.capture.standing.generation() != self.generation {
                self.settle()?;
                return Ok(Ended::Timeline);
            }
            let mut frame = match self.next() {
                Ok(frame) => frame,
                Err(SourceError::Stopped { .. }) => {
                    self.acknowledge()?;
                    return Ok(Ended::Stopped);
                }
                Err(error) => {
                    // What has arrived is worth keeping even if nobody hears that we have it.
                    self.settle()?;
                    return Err(error.into());
                }
            };
            while let Some(next) = frame {
                if next.tag == b'd' {
                    self.heard = Instant::now();
                    self.chatter = 0;
                } else {
                    self.chatter = self.chatter.saturating_add(1);
                    if self.chatter > limits::CHATTER {
                        return Err(SourceError::nonsense(STEP, "it says nothing for ever").into());
                    }
                }
                if let Some(ended) = self.take(next)? {
                    return Ok(ended);
                }
                frame = self.connection.buffered(STEP)?;
            }
            // A closed segment is durable; the source may remove it, if it need not keep it for us.
            let is_closed = self.writer.durable() > self.durable;
            let is_more = is_closed || self.flushed() > self.told;
            if self.patience().is_zero() || self.reply_due || is_more {
                self.acknowledge()?;
            }
            if self.heard.elapsed() >= limits::STREAM_SILENCE {
                return Err(SourceError::nonsense(STEP, "the source fell silent").into());
            }
        }
    }

    /// Waits for the next message, no longer than until something is to be synced or told.
    fn next(&mut self) -> Result<Option<Frame>, SourceError> {
        let waker = &self.capture.links.stream;
        if self.pace == Pace::Gathered && self.has_come {
            let frame = self.connection.wait(waker, Duration::ZERO, STEP)?;
            if frame.is_some() || self.connection.is_within_message() {
                return Ok(frame);
            }
            // All is taken: what comes next gathers in the socket instead of waking us one by one.
            self.has_come = false;
            waker.wait(limits::GATHER);
            if self.capture.stop.is_cancelled() {
                return Err(SourceError::Stopped { step: STEP });
            }
        }
        let frame = self.connection.wait(waker, self.patience(), STEP)?;
        self.has_come |= frame.is_some();
        Ok(frame)
    }

    /// Returns how long we may wait before something is to be synced or told.
    fn patience(&self) -> Duration {
        let quiet = limits::STATUS_EVERY.saturating_sub(self.replied.elapsed());
        let synced = self
            .waits_since
            .map(|since| self.pace.left(since, Instant::now()));
        synced.unwrap_or(quiet).min(quiet)
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Ended>, CaptureError> {
        match frame.tag {
            b'd' => match StreamMessage::parse(&frame.body).map_err(from_stream)? {
                StreamMessage::Wal {
                    start,
                    server_end,
                    data,
                    ..
                } => {
                    check_pages(start, &data)?;
                    self.waits_since.get_or_insert(self.heard);
                    self.writer.write(start, &data)?;
                    self.server_end = self.server_end.max(server_end).max(self.writer.next());
                    self.marks.note(self.server_end, Instant::now());
                }
                StreamMessage::Keepalive {
                    server_end, reply, ..
                } => {
                    self.server_end = self.server_end.max(server_end);
                    self.marks.note(self.server_end, Instant::now());
                    self.reply_due |= reply;
                    self.settle()?;
                }
            },
            b'c' => {
                self.acknowledge()?;
                // CopyDone: the server says what comes next only after ours.
                self.connection.send(b"c\0\0\0\x04", STEP)?;
                return self.next_timeline(None).map(Some);
            }
            b'C' => {
                self.settle()?;
                return Err(CaptureError::ShutDown);
            }
            b'E' => {
                self.settle()?;
                return Err(refused(&frame));
            }
            b'N' | b'S' => {}
            other => return Err(nonsense(other)),
        }
        Ok(None)
    }

    /// Makes durable what has arrived, and says so in memory.
    fn settle(&mut self) -> Result<(), CaptureError> {
        let before = self.durable;
        self.durable = self.writer.sync()?;
        self.waits_since = None;
        self.marks.reach(self.durable);
        let mut facts = self.capture.standing.facts();
        facts.timeline = self.timeline;
        let is_new = !facts.logs.contains_key(&self.timeline);
        // Records that were found whole after a restart count before they were compared again.
        let log = facts.logs.entry(self.timeline).or_default();
        *log = self.durable.max(*log);
        facts.flushed = *log;
        facts.server_end = self.server_end.max(self.durable);
        facts.heard_at = Some(self.heard);
        facts.behind_since = self.marks.oldest();
        drop(facts);
        if is_new {
            self.capture.links.board.wake();
        } else if self.durable > before {
            self.capture.links.board.reach(self.durable);
        }
        Ok(())
    }

    /// Returns up to where the source may believe that nothing is lost.
    fn flushed(&self) -> Lsn {
        match self.capture.standing.config.ack {
            AckAt::Spool => self.durable,
            AckAt::Repository => {
                let facts = self.capture.standing.facts();
                let shipped = facts.shipped_logs.get(&self.timeline).copied();
                // What was there before counts once it was compared with what the source has.
                shipped.unwrap_or_default().min(self.durable)
            }
        }
    }

    /// Makes durable what has arrived, and tells the source.
    fn acknowledge(&mut self) -> Result<(), CaptureError> {
        self.settle()?;
        let flushed = self.flushed();
        let status = StandbyStatus {
            written: self.durable,
            flushed,
            applied: Lsn::ZERO,
            at: self.capture.now(),
            reply: self.heard.elapsed() >= limits::STREAM_QUIET,
        };
        let mut out = BytesMut::with_capacity(64);
        status.encode(&mut out);
        self.connection.send(&out, "acknowledge")?;
        self.replied = Instant::now();
        self.told = flushed;
        self.reply_due = false;
        Ok(())
    }

    /// Reads which timeline follows; the next connection finds the position by the history.
    fn next_timeline(&mut self, first: Option<Frame>) -> Result<Ended, CaptureError> {
        let mut names = Vec::new();
        let mut next: Option<u32> = None;
        let mut frame = first;
        let mut allowance = Allowance::default();
        loop {
            let now = match frame.take() {
                Some(frame) => frame,
                None => self.connection.next(limits::ANSWER_WAIT, STEP)?,
            };
            allowance.take(&now, STEP)?;
            match now.tag {
                b'T' => names = columns(&now.body).map_err(from_reply(STEP))?,
                b'D' => {
                    let values = row(&now.body).map_err(from_reply(STEP))?;
                    let at = names.iter().position(|name| name == "next_tli");
                    let value = at.and_then(|at| values.get(at)?.as_ref());
                    let text = value.and_then(|value| std::str::from_utf8(value).ok());
                    next = text.and_then(|text| text.parse().ok()).or(next);
                }
                b'Z' => break,
                b'E' => return Err(refused(&now)),
                b'c' | b'd' | b'C' | b'N' | b'S' => {}
                other => return Err(nonsense(other)),
            }
        }
        let Some(next) = next else {
            return Err(CaptureError::ShutDown);
        };
        self.capture.history(&mut self.connection, next)?;
        let (from, left) = (self.timeline, self.durable);
        self.capture.note("source.timeline", |draft| {
            draft
                .with("from", from)
                .with("to", next)
                .with("at", left.to_string())
        });
        Ok(Ended::Timeline)
    }
}

fn refused(frame: &Frame) -> CaptureError {
    let message = server_message(&frame.body);
    // 58P01: the segment is gone from the source, so the log has a hole.
    if message.sqlstate == "58P01" {
        return CaptureError::Missing {
            source: Box::new(message),
        };
    }
    SourceError::Refused {
        step: STEP,
        source: Box::new(message),
    }
    .into()
}

fn nonsense(tag: u8) -> CaptureError {
    SourceError::nonsense(STEP, format!("message {tag}")).into()
}

/// When the source's log was first seen to reach which position, as long as it is not durable here.
#[derive(Default)]
struct Marks(VecDeque<(Lsn, Instant)>);

impl Marks {
    fn note(&mut self, end: Lsn, now: Instant) {
        let is_new = self.0.back().is_none_or(|(last, at)| {
            end > *last && now.saturating_duration_since(*at) >= MARK_EVERY
        });
        if is_new && self.0.len() < MARKS_MAX {
            self.0.push_back((end, now));
        }
    }

    fn reach(&mut self, durable: Lsn) {
        while self.0.front().is_some_and(|(end, _)| *end <= durable) {
            self.0.pop_front();
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.front().map(|(_, at)| *at)
    }
}

const MARKS_MAX: usize = 1024;
const MARK_EVERY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_what_is_missing_is_that_of_its_oldest_part() {
        let mut marks = Marks::default();
        let began = Instant::now();
        marks.note(Lsn(10), began);
        marks.note(Lsn(20), began + Duration::from_millis(1));
        marks.note(Lsn(30), began + Duration::from_millis(50));
        assert_eq!(marks.oldest(), Some(began));
        marks.reach(Lsn(10));
        assert_eq!(marks.oldest(), Some(began + Duration::from_millis(50)));
        marks.reach(Lsn(30));
        assert_eq!(marks.oldest(), None);
    }
}
