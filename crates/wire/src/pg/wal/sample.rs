//! Writes a log as a server would, for tests.

use holdfast_core::Lsn;

use super::page::{LONG_HEADER, PAGE_BYTES, SHORT_HEADER, WalVersion};

pub(super) const SEGMENT: u32 = 1 << 20;
pub(super) const SYSTEM: u64 = 0x1234_5678_9ABC_DEF0;

/// A log that grows.
pub(super) struct Writer {
    pub(super) version: WalVersion,
    pub(super) start: Lsn,
    pub(super) bytes: Vec<u8>,
    pub(super) timeline: u32,
    previous: u64,
}

/// One record before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) xid: u32,
    pub(super) rmgr: u8,
    pub(super) info: u8,
    pub(super) body: Vec<u8>,
}

impl Writer {
    pub(super) fn at(version: WalVersion, start: u64) -> Self {
        assert_eq!(start % PAGE_BYTES, 0);
        Self {
            version,
            start: Lsn(start),
            bytes: Vec::new(),
            timeline: 1,
            previous: 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.start.0 + u64::try_from(self.bytes.len()).unwrap()
    }

    /// Writes a record and returns where it begins.
    pub(super) fn record(&mut self, draft: &Draft) -> Lsn {
        while !self.end().is_multiple_of(8) {
            self.bytes.push(0);
        }
        if self.end().is_multiple_of(PAGE_BYTES) {
            self.page_header(0, 0);
        }
        let start = self.end();
        let length = u32::try_from(24 + draft.body.len()).unwrap();
        let mut head = Vec::new();
        head.extend(length.to_le_bytes());
        head.extend(draft.xid.to_le_bytes());
        head.extend(self.previous.to_le_bytes());
        head.extend([draft.info, draft.rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&draft.body), &head);
        head.extend(crc.to_le_bytes());
        head.extend(&draft.body);
        self.put(&head);
        self.previous = start;
        Lsn(start)
    }

    /// Writes bytes of one record over as many pages as it takes.
    pub(super) fn put(&mut self, record: &[u8]) {
        let mut rest = record;
        while !rest.is_empty() {
            if self.end().is_multiple_of(PAGE_BYTES) {
                self.page_header(1, rest.len());
            }
            let room = usize::try_from(PAGE_BYTES - self.end() % PAGE_BYTES).unwrap();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(now);
            rest = later;
        }
    }

    /// Ends the segment early, as a switch does.
    pub(super) fn switch(&mut self) {
        self.record(&draft(0, 0, 0x40, 0));
        while !self.end().is_multiple_of(u64::from(SEGMENT)) {
            self.bytes.push(0);
        }
    }

    pub(super) fn page_header(&mut self, flags: u16, remaining: usize) {
        let at = self.end();
        let first = at.is_multiple_of(u64::from(SEGMENT));
        let flags = flags | if first { 2 } else { 0 };
        let from = self.bytes.len();
        self.bytes.extend(self.version.magic().to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        let remaining = u32::try_from(remaining).unwrap();
        self.bytes.extend(remaining.to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(SYSTEM.to_le_bytes());
            self.bytes.extend(SEGMENT.to_le_bytes());
            self.bytes.extend(8192_u32.to_le_bytes());
        }
        let wanted = if first { LONG_HEADER } else { SHORT_HEADER };
        assert_eq!(self.bytes.len() - from, wanted);
    }
}

/// A record with main data of `length` bytes.
pub(super) fn draft(xid: u32, rmgr: u8, info: u8, length: usize) -> Draft {
    let data: Vec<u8> = (0..length)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    with_data(xid, rmgr, info, &data)
}

/// A record with the main data `data`.
pub(super) fn with_data(xid: u32, rmgr: u8, info: u8, data: &[u8]) -> Draft {
    let mut body = Vec::new();
    if !data.is_empty() {
        match u8::try_from(data.len()) {
            Ok(short) => body.extend([255, short]),
            Err(_) => {
                body.push(254);
                body.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            }
        }
        body.extend(data);
    }
    Draft {
        xid,
        rmgr,
        info,
        body,
    }
}
