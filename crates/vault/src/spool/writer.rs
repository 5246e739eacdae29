//! Writing the log as it comes, and saying what of it is durable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use holdfast_core::Lsn;

use crate::limits;

use super::removal::give_back_room;
use super::{Segment, SegmentBytes, Spool, SpoolError, room, sync_folder};

/// Writes one timeline's log, in order, from the beginning of a segment.
pub(crate) struct SpoolWriter {
    spool: Spool,
    timeline: u32,
    size: SegmentBytes,
    /// Below this the repository has the bytes: they may not differ.
    kept: Lsn,
    next: Lsn,
    durable: Lsn,
    open: Option<Open>,
    /// Room is made before the log comes.
    makes_room: bool,
    /// A sync failed: nothing more counts as durable until the stream begins again.
    failed: bool,
}

struct Open {
    file: File,
    segment: Segment,
    /// Bytes that the file has; those before the writer's position were received by it or compared.
    stored: u64,
    /// The same with the zeros behind it.
    room: u64,
}

impl SpoolWriter {
    /// Begins at the start of the segment that contains `from`.
    ///
    /// What the spool has there already is compared with what comes, not trusted: a crash of the
    /// machine may have torn it. `kept` is the end of what the repository has.
    pub(crate) fn begin(spool: &Spool, from: Segment, size: SegmentBytes, kept: Lsn) -> Self {
        Self {
            spool: spool.clone(),
            timeline: from.timeline,
            size,
            kept,
            next: from.start,
            durable: from.start,
            open: None,
            makes_room: false,
            failed: false,
        }
    }

    /// The same, for log that commits wait for: a sync is cheaper in a file that is long enough.
    pub(crate) fn with_room(mut self) -> Self {
        self.makes_room = true;
        self
    }

    /// Returns the position that must come next.
    pub(crate) fn next(&self) -> Lsn {
        self.next
    }

    /// Returns the position up to which everything is durable.
    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }

    /// Takes bytes in; they are durable after [`SpoolWriter::sync`].
    pub(crate) fn write(&mut self, start: Lsn, mut bytes: &[u8]) -> Result<(), SpoolError> {
        if start != self.next {
            return Err(SpoolError::Gap {
                expected: self.next,
                found: start,
            });
        }
        let end = self.next.0.saturating_add(length(bytes));
        if end >= limits::POSITION_MAX.0 {
            return Err(SpoolError::Gap {
                expected: self.next,
                found: Lsn(end),
            });
        }
        while !bytes.is_empty() {
            let segment = Segment::containing(self.timeline, self.next, self.size);
            let room = segment.end(self.size).since(self.next).0;
            let count = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
            self.write_part(segment, part)?;
            bytes = rest;
            self.next = Lsn(self.next.0.saturating_add(length(part)));
            if self.next == segment.end(self.size) {
                // A segment is durable before the next one begins, so that only the newest can be torn.
                self.sync()?;
                self.open = None;
            }
        }
        Ok(())
    }

    /// Makes everything durable and returns the position up to which that is so.
    pub(crate) fn sync(&mut self) -> Result<Lsn, SpoolError> {
        if self.durable < self.next
            && let Some(open) = &self.open
        {
            let synced = match self.failed {
                true => Err(io::Error::other("an earlier sync of it failed")),
                false => open.file.sync_data(),
            };
            // The system may now call pages clean that never reached the disk, and a second sync would
            // succeed. What was durable before stays where it is; the rest is received and written anew.
            self.failed = synced.is_err();
            synced.map_err(|error| self.spool.trouble("sync", open.segment, self.size, error))?;
        }
        self.durable = self.next;
        Ok(self.durable)
    }

    fn write_part(&mut self, segment: Segment, part: &[u8]) -> Result<(), SpoolError> {
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.segment != segment)
        {
            self.open = Some(self.spool.open_segment(segment, self.size)?);
        }
        let offset = self.next.since(segment.start).0;
        let Some(open) = self.open.as_mut() else {
            return Ok(());
        };
        let known = open.stored.saturating_sub(offset).min(length(part));
        let known = usize::try_from(known).unwrap_or(0);
        let again = part.get(..known).unwrap_or(part);
        let mut before = vec![0; again.len()];
        let compared = open.file.read_exact_at(&mut before, offset);
        compared.map_err(|error| self.spool.trouble("compare", segment, self.size, error))?;
        let differs = before.iter().zip(again).position(|(a, b)| a != b);
        if let Some(index) = differs {
            let at = Lsn(self
                .next
                .0
                .saturating_add(u64::try_from(index).unwrap_or(0)));
            return self.replace(segment, at, part);
        }
        let end = offset.saturating_add(length(part));
        if self.makes_room {
            // Where there is none left, the log itself may still find some.
            let made = room::make(&open.file, open.room, end, self.size.get());
            open.room = made.unwrap_or(open.room);
        }
        // What is there already may be there in memory only, after a sync that failed: all is written.
        let written = open.file.write_all_at(part, offset);
        written.map_err(|error| self.spool.trouble("write", segment, self.size, error))?;
        open.stored = open.stored.max(end);
        open.room = open.room.max(end);
        Ok(())
    }

    /// Writes a file whose end is not what the source sends anew, beside the old one, and gives it its
    /// name when it is durable: what was acknowledged is there at every moment.
    fn replace(&mut self, segment: Segment, at: Lsn, part: &[u8]) -> Result<(), SpoolError> {
        if at < self.kept {
            return Err(SpoolError::Diverged { at });
        }
        tracing::warn!(%at, segment = segment.name(self.size), "the spool's end was torn");
        let same = self.next.since(segment.start).0;
        let head = self.spool.read(segment, self.size, segment.start, same)?;
        self.open = None;
        self.spool.link_aside(segment, self.size)?;
        let whole = [head.as_slice(), part].concat();
        let path = self.spool.path(segment, self.size);
        self.spool.replace_file(&path, &whole)?;
        self.open = Some(self.spool.open_segment(segment, self.size)?);
        Ok(())
    }
}

impl Drop for SpoolWriter {
    /// Gives back the room that no log came for.
    fn drop(&mut self) {
        if let Some(open) = self.open.as_ref().filter(|open| open.room > open.stored)
            && self.makes_room
        {
            // What stays are zeros, which nobody takes for log.
            let _ = give_back_room(&open.file, open.stored);
        }
    }
}

impl Spool {
    /// Tells what went wrong with a segment's file; only then is its name wanted.
    fn trouble(
        &self,
        step: &'static str,
        segment: Segment,
        size: SegmentBytes,
        error: io::Error,
    ) -> SpoolError {
        SpoolError::of(step, &self.path(segment, size))(error)
    }

    fn open_segment(&self, segment: Segment, size: SegmentBytes) -> Result<Open, SpoolError> {
        let path = self.path(segment, size);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let file = match options.clone().create_new(true).open(&path) {
            Ok(file) => {
                file.sync_all().map_err(SpoolError::of("sync", &path))?;
                sync_folder(&self.folder)?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = options.open(&path).map_err(SpoolError::of("open", &path))?;
                // What is compared and found equal counts as durable, so it must be.
                file.sync_all().map_err(SpoolError::of("sync", &path))?;
                file
            }
            Err(error) => return Err(SpoolError::of("make", &path)(error)),
        };
        let room = file.metadata().map_err(SpoolError::of("look at", &path))?;
        let room = room.len();
        // Zeros at its end may be room that was made for what never came.
        let stored = if room == size.get() {
            room
        } else {
            room::end_of_content(&file, room).map_err(SpoolError::of("look at", &path))?
        };
        let open = Open {
            file,
            segment,
            stored,
            room,
        };
        if room > size.get() {
            self.set_aside(segment, size)?;
            return self.open_segment(segment, size);
        }
        Ok(open)
    }

    /// Renames a file that is not to be believed; it stays as evidence.
    fn set_aside(&self, segment: Segment, size: SegmentBytes) -> Result<(), SpoolError> {
        let (path, aside) = (self.path(segment, size), self.aside(segment, size));
        fs::rename(&path, &aside).map_err(SpoolError::of("set aside", &path))?;
        sync_folder(&self.folder)
    }

    /// Keeps a file that is about to be replaced, as evidence.
    fn link_aside(&self, segment: Segment, size: SegmentBytes) -> Result<(), SpoolError> {
        let (path, aside) = (self.path(segment, size), self.aside(segment, size));
        match fs::hard_link(&path, &aside) {
            // The most that is kept as evidence is kept.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked.map_err(SpoolError::of("set aside", &path)),
        }
    }

    /// Returns the first name for evidence that is free, or the last.
    fn aside(&self, segment: Segment, size: SegmentBytes) -> PathBuf {
        let name = segment.name(size);
        let named = |number: u32| self.folder.join(format!("{name}.torn-{number}"));
        let free = (1..ASIDE_MAX).map(named).find(|path| !path.exists());
        free.unwrap_or_else(|| named(ASIDE_MAX))
    }
}

/// How many torn forms of one segment are kept as evidence.
const ASIDE_MAX: u32 = 8;

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
