//! From bytes in any pieces to whole records.

use holdfast_core::Lsn;

use super::WalError;
use super::page::{LONG_HEADER, PAGE_BYTES, PageHeader, SHORT_HEADER};
use super::partial::{self, Partial};
use super::record::{Record, Rmgr};

const INFO_SWITCH: u8 = 0x40;

/// What must be known of a log before it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalShape {
    /// Bytes of a segment: a power of two from 1 MiB to 1 GiB.
    pub segment_bytes: u32,
    /// The cluster that must have written it; `None` takes any.
    pub system_identifier: Option<u64>,
}

/// Reads the log incrementally, with memory bounded by [`crate::limits::WAL_RECORD_BYTES_KEPT`].
///
/// It begins at any position: up to the next page boundary nothing is read, and the rest of a record
/// that began earlier is skipped. It never goes backwards; bytes that it has seen are passed over.
#[derive(Clone, Debug)]
pub struct WalReader {
    shape: WalShape,
    at: Option<Lsn>,
    header: Vec<u8>,
    page: Option<PageHeader>,
    state: State,
    record: Partial,
    last: Option<Last>,
}

/// The last whole record.
#[derive(Clone, Copy, Debug)]
struct Last {
    start: Lsn,
    end: Lsn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Up to the next page boundary nothing can be understood.
    Align,
    /// Between records.
    Between,
    /// In a record whose bytes are collected.
    In,
    /// In a page header, and what follows it.
    Header(After),
    /// In the rest of a record that began before we did: this many bytes.
    Skip(u32),
    /// Behind the last record of a segment that was left early.
    Unused,
}

/// What was going on when a page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Between,
    First,
    In,
    Skip(u32),
}

impl WalReader {
    /// Makes a reader that has seen nothing.
    pub fn new(shape: WalShape) -> Self {
        Self {
            shape,
            at: None,
            header: Vec::with_capacity(LONG_HEADER),
            page: None,
            state: State::Align,
            record: Partial::default(),
            last: None,
        }
    }

    /// Returns the position that must come next, or `None` before the first bytes.
    pub fn position(&self) -> Option<Lsn> {
        self.at
    }

    /// Returns the end of the last whole record, if there was one.
    pub fn record_end(&self) -> Option<Lsn> {
        self.last.map(|last| last.end)
    }

    /// Returns the timeline of the newest page.
    pub fn timeline(&self) -> Option<u32> {
        self.page.map(|page| page.timeline)
    }

    /// Reads `bytes`, which stand at `at`, and hands every record that ends in them to `each`.
    ///
    /// # Errors
    /// [`WalError`]; the reader then stays where the error is and a new one must begin elsewhere.
    pub fn feed(
        &mut self,
        at: Lsn,
        bytes: &[u8],
        each: &mut dyn FnMut(&Record<'_>) -> Result<(), WalError>,
    ) -> Result<(), WalError> {
        let expected = *self.at.get_or_insert(at);
        if at > expected {
            return Err(WalError::Gap {
                expected,
                found: at,
            });
        }
        let seen = usize::try_from(expected.0 - at.0).unwrap_or(usize::MAX);
        let mut rest = bytes.get(seen..).unwrap_or_default();
        while !rest.is_empty() {
            let taken = self.step(rest, each)?;
            rest = rest.get(taken..).unwrap_or_default();
            self.at = self.at.map(|at| {
                Lsn(at
                    .0
                    .saturating_add(u64::try_from(taken).unwrap_or(u64::MAX)))
            });
        }
        Ok(())
    }

    /// Takes at least one byte from the front of `rest`, and at most up to the end of the page.
    fn step(
        &mut self,
        rest: &[u8],
        each: &mut dyn FnMut(&Record<'_>) -> Result<(), WalError>,
    ) -> Result<usize, WalError> {
        let at = self.at.unwrap_or_default();
        let in_page = at.0 % PAGE_BYTES;
        if in_page == 0 {
            match self.state {
                State::Align => self.state = State::Header(After::First),
                State::Between => self.state = State::Header(After::Between),
                State::In => self.state = State::Header(After::In),
                State::Skip(left) => self.state = State::Header(After::Skip(left)),
                State::Unused if at.0.is_multiple_of(u64::from(self.shape.segment_bytes)) => {
                    self.state = State::Header(After::Between);
                }
                State::Unused | State::Header(_) => {}
            }
        }
        let room = usize::try_from(PAGE_BYTES - in_page).unwrap_or(usize::MAX);
        let rest = rest.get(..room).unwrap_or(rest);
        match self.state {
            State::Align | State::Unused => Ok(rest.len()),
            State::Header(after) => self.take_header(rest, at, after),
            State::Skip(left) => Ok(self.skip(rest, left)),
            State::Between => self.take_between(rest, at, each),
            State::In => self.take_record(rest, at, each),
        }
    }

    fn take_header(&mut self, rest: &[u8], at: Lsn, after: After) -> Result<usize, WalError> {
        let page_at = Lsn(at.0 - at.0 % PAGE_BYTES);
        let first = page_at
            .0
            .is_multiple_of(u64::from(self.shape.segment_bytes));
        let wanted = if first { LONG_HEADER } else { SHORT_HEADER };
        let missing = wanted.saturating_sub(self.header.len());
        let taken = rest.get(..missing).unwrap_or(rest);
        self.header.extend_from_slice(taken);
        if self.header.len() < wanted {
            return Ok(taken.len());
        }
        let page = PageHeader::read(&self.header, page_at);
        self.header.clear();
        let page = page?;
        self.check_page(&page, page_at, first)?;
        self.page = Some(page);
        let broken = || WalError::Continuation {
            at: self.record.start(),
            page: page_at,
        };
        self.state = match after {
            After::First if page.continues => State::Skip(page.remaining),
            After::First => State::Between,
            After::Between if page.continues => {
                let what = "it continues a record that was not begun";
                return Err(WalError::Page { at: page_at, what });
            }
            After::Between => State::Between,
            After::In | After::Skip(_) if page.overwrites && !page.continues => State::Between,
            After::In if page.remaining == self.record.missing() => State::In,
            After::Skip(left) if page.remaining == left => State::Skip(left),
            After::In | After::Skip(_) => return Err(broken()),
        };
        Ok(taken.len())
    }

    fn check_page(&self, page: &PageHeader, at: Lsn, first: bool) -> Result<(), WalError> {
        let wrong = |what| Err(WalError::Page { at, what });
        match page.long {
            None if first => return wrong("a segment begins without a long header"),
            Some(_) if !first => return wrong("it has a long header inside a segment"),
            Some(long) if long.segment_bytes != self.shape.segment_bytes => {
                return wrong("its segments have another size");
            }
            Some(long) if u64::from(long.page_bytes) != PAGE_BYTES => {
                return wrong("its pages do not have 8 KiB");
            }
            Some(long)
                if self
                    .shape
                    .system_identifier
                    .is_some_and(|id| id != long.system_identifier) =>
            {
                return wrong("another cluster wrote it");
            }
            _ => {}
        }
        match self.page {
            Some(before) if before.version != page.version => wrong("another version wrote it"),
            Some(before) if before.timeline > page.timeline => wrong("its timeline runs backwards"),
            _ => Ok(()),
        }
    }

    fn skip(&mut self, rest: &[u8], left: u32) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
        self.state = if left == 0 {
            State::Between
        } else {
            State::Skip(left)
        };
        taken
    }

    /// Passes over the padding before the next record, or takes it, or begins it.
    fn take_between(
        &mut self,
        rest: &[u8],
        at: Lsn,
        each: &mut dyn FnMut(&Record<'_>) -> Result<(), WalError>,
    ) -> Result<usize, WalError> {
        let padding = usize::try_from(at.0.wrapping_neg() % 8).unwrap_or(0);
        if padding > 0 {
            return Ok(padding.min(rest.len()));
        }
        let timeline = self.page.map_or(0, |page| page.timeline);
        if let Some(page) = self.page
            && let Some(whole) = partial::whole((at, timeline, page.version), rest)?
        {
            let taken = usize::try_from(whole.length).unwrap_or(usize::MAX);
            let (end, state) = after(&whole, at, taken, self.shape);
            Self::show(&mut self.last, whole, end, each)?;
            self.state = state;
            return Ok(taken);
        }
        self.record.begin(at, timeline);
        self.state = State::In;
        self.record.take(rest.get(..1).unwrap_or(rest))
    }

    fn take_record(
        &mut self,
        rest: &[u8],
        at: Lsn,
        each: &mut dyn FnMut(&Record<'_>) -> Result<(), WalError>,
    ) -> Result<usize, WalError> {
        let taken = self.record.take(rest)?;
        let Some(page) = self.page.filter(|_| self.record.is_whole()) else {
            return Ok(taken);
        };
        let whole = self.record.finish(page.version)?;
        let (end, state) = after(&whole, at, taken, self.shape);
        Self::show(&mut self.last, whole, end, each)?;
        self.state = state;
        Ok(taken)
    }

    /// Hands out a record that follows the last one.
    fn show(
        last: &mut Option<Last>,
        mut whole: Record<'_>,
        end: Lsn,
        each: &mut dyn FnMut(&Record<'_>) -> Result<(), WalError>,
    ) -> Result<(), WalError> {
        if last.is_some_and(|last| last.start != whole.previous) {
            return Err(whole.wrong("it does not follow the record before it"));
        }
        whole.end = end;
        *last = Some(Last {
            start: whole.start,
            end,
        });
        each(&whole)
    }
}

/// Returns where the next record may begin when the last `taken` bytes of this one stood at `at`.
fn after(whole: &Record<'_>, at: Lsn, taken: usize, shape: WalShape) -> (Lsn, State) {
    let end = at.0.saturating_add(u64::try_from(taken).unwrap_or(0));
    if whole.rmgr == Rmgr::XLOG && whole.info & 0xF0 == INFO_SWITCH {
        let segment = u64::from(shape.segment_bytes);
        (Lsn(end.next_multiple_of(segment)), State::Unused)
    } else {
        (Lsn(end.next_multiple_of(8)), State::Between)
    }
}
