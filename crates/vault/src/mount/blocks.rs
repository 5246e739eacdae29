//! Reading and writing blocks of files, wherever they are.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::content::{Body, Content, Layer, Origin};
use super::layers::Layers;
use super::lower::Window;
use super::presence::{BLOCK_BYTES, Presence};
use super::record::{self, Kept};

/// What came of reading without waiting.
pub(super) enum Read {
    /// The bytes; fewer than asked for when the file ends.
    Done(Vec<u8>),
    /// Blocks must be fetched first.
    Wait,
}

impl Layers {
    /// Reads what is here already.
    pub(super) fn read_here(&self, content: &Content, range: Range<u64>) -> io::Result<Read> {
        let body = content.look();
        match (&body.file, body.layer) {
            (Some(file), Layer::Whole) => read_some(file, range).map(Read::Done),
            (Some(file), _) if body.presence.first_absent(&range).is_none() => {
                read_some(file, range).map(Read::Done)
            }
            (None, _) if range.start >= body.length => Ok(Read::Done(Vec::new())),
            _ => Ok(Read::Wait),
        }
    }

    /// Reads, and fetches what is not here.
    pub(super) fn read(&self, content: &Arc<Content>, range: Range<u64>) -> io::Result<Vec<u8>> {
        loop {
            if let Read::Done(bytes) = self.read_here(content, range.clone())? {
                return Ok(bytes);
            }
            match self.fetch(content, &range) {
                // A disk that is full keeps nothing more; what was asked for is still read.
                Err(error) if is_full(&error) => return self.read_around(content, range),
                fetched => fetched?,
            }
        }
    }

    /// Reads without keeping anything.
    fn read_around(&self, content: &Content, range: Range<u64>) -> io::Result<Vec<u8>> {
        let body = content.look();
        let end = range.end.min(body.length).max(range.start);
        let mut out = Vec::new();
        let mut at = range.start;
        while at < end {
            let block = at / BLOCK_BYTES;
            let stop = block.saturating_add(1).saturating_mul(BLOCK_BYTES).min(end);
            match (&body.file, content.origin()) {
                (Some(file), _) if body.presence.has(block) => {
                    out.extend(read_some(file, at..stop)?);
                }
                (_, Some(origin)) => {
                    out.extend(self.lower.read(&origin.path, &(at..stop))?.bytes);
                }
                _ => return Err(Errno::IO.into()),
            }
            at = stop;
        }
        Ok(out)
    }

    /// Brings every block with a byte in `range` into the overlay.
    pub(super) fn fetch(&self, content: &Arc<Content>, range: &Range<u64>) -> io::Result<()> {
        let Some(origin) = content.origin() else {
            return Ok(());
        };
        loop {
            let wanted = {
                let body = content.look();
                let absent = body.presence.first_absent(range);
                absent.map(|block| (block, body.presence.visible()))
            };
            let Some((block, visible)) = wanted else {
                return Ok(());
            };
            let window = self.lower.window(&origin.path, block, visible)?;
            let Some(flight) = self.flight(&origin.path, window.start) else {
                continue;
            };
            if content.look().presence.has(block) {
                continue;
            }
            let window = self.lower.read(&origin.path, &window)?;
            self.keep(content, &window)?;
            drop(flight);
        }
    }

    /// Whether a block with a byte in `range` must be fetched.
    pub(super) fn is_absent(&self, content: &Content, range: &Range<u64>) -> bool {
        content.look().presence.first_absent(range).is_some()
    }

    /// Keeps those blocks of a window that the overlay does not have, and returns how many these are.
    pub(super) fn keep(&self, content: &Arc<Content>, window: &Window) -> io::Result<u64> {
        let mut body = content.change();
        if body.layer == Layer::Whole {
            return Ok(0);
        }
        let mut kept = 0_u64;
        let file = self.file(content, &mut body)?;
        let visible = body.presence.visible();
        let first = window.start / BLOCK_BYTES;
        let blocks = window.bytes.chunks(BLOCK_USIZE);
        let mut run: Option<(u64, Vec<u64>)> = None;
        let mut runs = Vec::new();
        for (block, _) in (first..).zip(blocks) {
            match (&mut run, body.presence.has(block)) {
                (_, true) => runs.extend(run.take()),
                (Some((_, run)), false) => run.push(block),
                (None, false) => run = Some((block, vec![block])),
            }
        }
        runs.extend(run);
        for (begin, blocks) in runs {
            let from = begin.saturating_mul(BLOCK_BYTES);
            let count = u64::try_from(blocks.len()).unwrap_or(u64::MAX);
            let to = from.saturating_add(count.saturating_mul(BLOCK_BYTES));
            let within = |at: u64| {
                let at = usize::try_from(at.saturating_sub(window.start)).unwrap_or(usize::MAX);
                at.min(window.bytes.len())
            };
            let bytes = window.bytes.get(within(from)..within(to.min(visible)));
            put(&file, from, bytes.unwrap_or_default())?;
            for block in blocks {
                body.presence.put(block);
            }
            kept = kept.saturating_add(count);
            content.set_unnoted();
        }
        Ok(kept)
    }

    /// Writes; a block that is not written whole is fetched first.
    pub(super) fn write(
        &self,
        content: &Arc<Content>,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let range = offset..offset.saturating_add(length);
        loop {
            {
                let body = content.look();
                if let (Some(file), Layer::Whole) = (&body.file, body.layer) {
                    return file.write_all_at(bytes, offset);
                }
            }
            let mut body = content.change();
            if body.layer == Layer::Whole && body.file.is_some() {
                continue;
            }
            if let Some(edge) = absent_edge(&body.presence, &range) {
                drop(body);
                self.fetch(content, &edge)?;
                continue;
            }
            let file = self.file(content, &mut body)?;
            let (written, failed) = write_some(&file, offset, bytes);
            let end = offset.saturating_add(written);
            cover(&mut body, offset..end);
            body.length = body.length.max(if written > 0 { end } else { 0 });
            content.set_unnoted();
            return failed.map_or(Ok(()), Err);
        }
    }

    /// Makes a file shorter or longer.
    pub(super) fn resize(
        &self,
        content: &Arc<Content>,
        path: Option<&str>,
        size: u64,
    ) -> io::Result<()> {
        let layer = content.look().layer;
        let origin = match (layer, content.origin()) {
            (Layer::Lower | Layer::Partial, Some(origin)) => origin.clone(),
            _ => {
                let mut body = content.change();
                return self.file_at(content, &mut body, path)?.set_len(size);
            }
        };
        let is_backed = content.look().backing.is_some();
        if size == 0 && !content.is_unlinked() && !is_backed {
            return self.empty(content, &origin);
        }
        if size < content.look().presence.visible() {
            let edge = size / BLOCK_BYTES * BLOCK_BYTES..size;
            self.fetch(content, &edge)?;
            return self.cut(content, &origin, size);
        }
        let mut body = content.change();
        let is_open = body.file.is_some();
        self.file_at(content, &mut body, path)?.set_len(size)?;
        body.length = size;
        if !is_open && body.opens == 0 {
            body.file = None;
        }
        content.set_unnoted();
        Ok(())
    }

    /// Returns the file of one that may not be open.
    fn file_at(
        &self,
        content: &Arc<Content>,
        body: &mut Body,
        path: Option<&str>,
    ) -> io::Result<Arc<File>> {
        match (&body.file, body.layer, path) {
            (None, Layer::Whole, Some(path)) => {
                super::overlay::open_file(&self.overlay.data(path)).map(Arc::new)
            }
            _ => self.file(content, body),
        }
    }

    /// Nothing of the restore point's file is seen any more: an empty file takes its place.
    fn empty(&self, content: &Arc<Content>, origin: &Origin) -> io::Result<()> {
        let _turn = content.note();
        let mut body = content.change();
        let (fresh, data) = (self.overlay.fresh(), self.overlay.data(&origin.path));
        self.overlay.make_parents(&data)?;
        let file = File::create_new(&fresh)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        file.set_permissions(private)?;
        self.overlay.own(&fresh)?;
        drop(file);
        let file = super::overlay::open_file(&fresh)?;
        std::fs::rename(&fresh, &data)?;
        self.overlay.forget_partial(&origin.path)?;
        self.partials().remove(&origin.path);
        body.layer = Layer::Whole;
        body.presence = Presence::absent(0);
        body.file = (body.opens > 0).then(|| Arc::new(file));
        Ok(())
    }

    /// Cuts off a part of what is seen of the restore point's file; durable before it is done.
    fn cut(&self, content: &Arc<Content>, origin: &Origin, size: u64) -> io::Result<()> {
        let mut generation = content.note();
        let mut body = content.change();
        if body.layer == Layer::Whole {
            return self.file(content, &mut body)?.set_len(size);
        }
        let file = self.file(content, &mut body)?;
        let mut presence = body.presence.clone();
        presence.shrink(size);
        if !content.is_unlinked() {
            file.sync_data()?;
            let kept = Kept {
                presence: presence.clone(),
                cut: Some(size),
                generation: generation.saturating_add(1),
            };
            self.write_note(origin, &kept)?;
            *generation = kept.generation;
        }
        body.presence = presence;
        file.set_len(size)?;
        body.length = size;
        content.set_unnoted();
        if body.opens == 0 {
            body.file = None;
        }
        Ok(())
    }

    /// Writes the record of a file.
    pub(super) fn write_note(&self, origin: &Origin, kept: &Kept) -> io::Result<()> {
        let note = self.overlay.note(&origin.path);
        if kept.generation == 1 {
            self.overlay.make_parents(&note)?;
            record::sync_parent(&self.overlay.partial(&origin.path))?;
        }
        let record = (origin.size, self.overlay.id());
        record::write(&note, &self.overlay.fresh(), kept, record)
    }

    /// Gives a part of a file room, or takes it.
    pub(super) fn allocate(
        &self,
        content: &Arc<Content>,
        range: Range<u64>,
        flags: FallocateFlags,
    ) -> io::Result<()> {
        let clears = flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE);
        let known =
            FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(flags) {
            return Err(Errno::OPNOTSUPP.into());
        }
        loop {
            let mut body = content.change();
            if clears && let Some(edge) = absent_edge(&body.presence, &range) {
                drop(body);
                self.fetch(content, &edge)?;
                continue;
            }
            let file = self.file(content, &mut body)?;
            // Blocks that come from the restore point get their room when they come.
            let start = match clears || body.layer == Layer::Whole {
                true => range.start,
                false => range.start.max(body.presence.visible()),
            };
            if start < range.end {
                fallocate(&file, flags, start, range.end.saturating_sub(start))?;
            }
            if clears {
                cover(&mut body, range.clone());
            }
            if body.layer != Layer::Whole && !flags.contains(FallocateFlags::KEEP_SIZE) {
                body.length = body.length.max(range.end);
            }
            content.set_unnoted();
            return Ok(());
        }
    }
}

/// The first block that `range` covers only in part, is seen of the restore point and is not here.
fn absent_edge(presence: &Presence, range: &Range<u64>) -> Option<Range<u64>> {
    let first = range.start / BLOCK_BYTES;
    let last = range.end.saturating_sub(1) / BLOCK_BYTES;
    [first, last].into_iter().find_map(|block| {
        let start = block.saturating_mul(BLOCK_BYTES);
        let end = start.saturating_add(BLOCK_BYTES).min(presence.visible());
        let is_covered = range.start <= start && end <= range.end;
        (!presence.has(block) && !is_covered).then_some(start..end)
    })
}

/// Says that the overlay has the blocks that were written whole.
fn cover(body: &mut Body, range: Range<u64>) {
    let visible = body.presence.visible();
    for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
        let start = block.saturating_mul(BLOCK_BYTES);
        let end = start.saturating_add(BLOCK_BYTES).min(visible);
        if range.start <= start && end <= range.end {
            body.presence.put(block);
        }
    }
}

/// Writes what was fetched; zeros become a hole.
fn put(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    if bytes.iter().all(|byte| *byte == 0) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length == 0 || fallocate(file, flags, offset, length).is_ok() {
            return Ok(());
        }
    }
    file.write_all_at(bytes, offset)
}

/// Reads until the end of the range or of the file.
fn read_some(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let length = range.end.saturating_sub(range.start);
    let mut out = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut done = 0;
    while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = u64::try_from(done).unwrap_or(u64::MAX);
        match file.read_at(rest, range.start.saturating_add(at)) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.truncate(done);
    Ok(out)
}

/// Writes, and tells how much was written before it failed.
fn write_some(file: &File, offset: u64, bytes: &[u8]) -> (u64, Option<io::Error>) {
    let mut done = 0_usize;
    let written = |done: usize| u64::try_from(done).unwrap_or(u64::MAX);
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset.saturating_add(written(done))) {
            Ok(0) => return (written(done), Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written(done), Some(error)),
        }
    }
    (written(done), None)
}

fn is_full(error: &io::Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT].map(Errno::raw_os_error);
    error
        .raw_os_error()
        .is_some_and(|code| full.contains(&code))
}

/// [`BLOCK_BYTES`] as memory counts.
const BLOCK_USIZE: usize = 8192;
