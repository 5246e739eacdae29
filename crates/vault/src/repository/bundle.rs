//! Bundles: many frames in one object, each readable on its own.
//!
//! Frames are compressed by a few threads, put back in order and collected; the memory in use is the
//! bundle being collected and a fixed number of frames.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use holdfast_core::{Digest, PointId};
use holdfast_store::object::{ObjectKey, ObjectStore};
use sha2::{Digest as _, Sha256};

use super::format::{
    self, DETAIL_BYTES, Fields, HEADER_BYTES, Header, INDEX_FRAME, Kind, compressing, compressor,
    damaged, length,
};
use super::manifest::BundleRecord;
use super::{RepositoryError, layout};
use crate::limits;

/// Bytes of one entry of an index.
const INDEX_ENTRY_BYTES: usize = 44;

/// Where a frame is in its bundle and what it holds.
///
/// # Shape
/// In the index, little-endian: stored length u32, decompressed length u32, CRC-32C of the stored
/// bytes u32, SHA-256 of the decompressed bytes. Frames follow each other from the end of the header without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameRecord {
    pub(crate) offset: u64,
    pub(crate) stored_bytes: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) stored_sum: u32,
    pub(crate) sum: [u8; 32],
}

/// Takes the stream of all files in and writes bundles.
pub(crate) struct Packer {
    jobs: Option<SyncSender<Job>>,
    workers: Vec<JoinHandle<()>>,
    collector: Option<JoinHandle<Result<Vec<BundleRecord>, RepositoryError>>>,
    complete: Arc<AtomicBool>,
    next: u64,
}

struct Job {
    number: u64,
    raw: Vec<u8>,
}

struct Packed {
    number: u64,
    frame: Result<(Vec<u8>, FrameRecord), RepositoryError>,
}

impl Packer {
    /// Starts the threads of one base.
    pub(crate) fn start(
        store: Arc<dyn ObjectStore>,
        folder: String,
        point: PointId,
    ) -> Result<Self, RepositoryError> {
        let (jobs, waiting) = sync_channel::<Job>(limits::FRAMES_WAITING);
        let (done, packed) = sync_channel::<Packed>(limits::FRAMES_WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut workers = Vec::new();
        for _ in 0..limits::PACK_THREADS {
            let (waiting, done) = (Arc::clone(&waiting), done.clone());
            workers.push(spawn("holdfast-pack", move || pack(&waiting, &done))?);
        }
        let complete = Arc::new(AtomicBool::new(false));
        let collecting = Collecting {
            store,
            folder,
            point,
            complete: Arc::clone(&complete),
            records: Vec::new(),
            open: Open::default(),
        };
        let collector = spawn("holdfast-bundle", move || collecting.run(&packed))?;
        Ok(Self {
            jobs: Some(jobs),
            workers,
            collector: Some(collector),
            complete,
            next: 0,
        })
    }

    /// Takes the next frame's bytes, waiting when too many are under way.
    pub(crate) fn frame(&mut self, raw: Vec<u8>) -> Result<(), RepositoryError> {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        let sent = self
            .jobs
            .as_ref()
            .map(|jobs| jobs.send(Job { number, raw }));
        match sent {
            Some(Ok(())) => Ok(()),
            // The collector has ended early: it knows why.
            _ => Err(self.end().err().unwrap_or_else(gone)),
        }
    }

    /// Waits until all bundles are durable.
    pub(crate) fn finish(mut self) -> Result<Vec<BundleRecord>, RepositoryError> {
        self.complete.store(true, Ordering::SeqCst);
        self.end()
    }

    fn end(&mut self) -> Result<Vec<BundleRecord>, RepositoryError> {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        match self.collector.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            _ => Err(gone()),
        }
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        // Without `complete` the collector writes no further bundle.
        let _ = self.end();
    }
}

fn gone() -> RepositoryError {
    RepositoryError::System {
        step: "go on with the base",
        what: "a thread of it has ended".to_owned(),
    }
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RepositoryError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| RepositoryError::System {
            step: "start a thread",
            what: error.to_string(),
        })
}

/// Compresses frames until there are no more.
fn pack(waiting: &Mutex<Receiver<Job>>, done: &SyncSender<Packed>) {
    let mut compressor = compressor();
    loop {
        let job = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(Job { number, raw }) = job else { return };
        let frame = match &mut compressor {
            Ok(compressor) => compressor
                .compress(&raw)
                .map_err(|error| compressing(&error)),
            Err(_) => Err(gone()),
        };
        let frame = frame.and_then(|stored| {
            let record = FrameRecord {
                offset: 0,
                stored_bytes: u32::try_from(stored.len()).map_err(|_| gone())?,
                raw_bytes: u32::try_from(raw.len()).map_err(|_| gone())?,
                stored_sum: crc32c::crc32c(&stored),
                sum: Sha256::digest(&raw).into(),
            };
            Ok((stored, record))
        });
        if done.send(Packed { number, frame }).is_err() {
            return;
        }
    }
}

/// Puts frames back in order and writes bundles.
struct Collecting {
    store: Arc<dyn ObjectStore>,
    folder: String,
    point: PointId,
    complete: Arc<AtomicBool>,
    records: Vec<BundleRecord>,
    open: Open,
}

/// The bundle that is being collected.
#[derive(Default)]
struct Open {
    frames: Vec<u8>,
    index: Vec<u8>,
    count: u32,
    raw_bytes: u64,
}

impl Collecting {
    fn run(mut self, packed: &Receiver<Packed>) -> Result<Vec<BundleRecord>, RepositoryError> {
        let mut early = BTreeMap::new();
        let mut next = 0_u64;
        while let Ok(Packed { number, frame }) = packed.recv() {
            early.insert(number, frame?);
            while let Some((stored, record)) = early.remove(&next) {
                next = next.saturating_add(1);
                self.take(&stored, &record)?;
            }
        }
        if self.complete.load(Ordering::SeqCst) && self.open.count > 0 {
            self.close()?;
        }
        Ok(self.records)
    }

    fn take(&mut self, stored: &[u8], record: &FrameRecord) -> Result<(), RepositoryError> {
        let open = &mut self.open;
        open.frames.extend_from_slice(stored);
        open.index
            .extend_from_slice(&record.stored_bytes.to_le_bytes());
        open.index
            .extend_from_slice(&record.raw_bytes.to_le_bytes());
        open.index
            .extend_from_slice(&record.stored_sum.to_le_bytes());
        open.index.extend_from_slice(&record.sum);
        open.count = open.count.saturating_add(1);
        open.raw_bytes = open.raw_bytes.saturating_add(u64::from(record.raw_bytes));
        if open.frames.len() >= limits::BUNDLE_BYTES {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), RepositoryError> {
        let open = std::mem::take(&mut self.open);
        let number = u32::try_from(self.records.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let index = format::skippable(INDEX_FRAME, &open.index);
        let sum = Digest::of(&open.index);
        let header = Header {
            kind: Kind::Bundle,
            raw_bytes: open.raw_bytes,
            stored_bytes: length(&open.frames).saturating_add(length(&index)),
            sum: sum.0,
            detail: detail(&self.point, number, open.count),
            stored_sum: crc32c::crc32c(&index),
        };
        let mut object = header.encode();
        object.reserve(open.frames.len().saturating_add(index.len()));
        object.extend_from_slice(&open.frames);
        object.extend_from_slice(&index);
        self.store
            .create_new(&layout::bundle(&self.folder, number)?, &object)?;
        self.records.push(BundleRecord {
            number,
            bytes: length(&object),
            frames: open.count,
            raw_bytes: open.raw_bytes,
            index_sha256: sum,
        });
        Ok(())
    }
}

/// What a bundle's header says of itself: the letters of its base's id, its number, its frames.
fn detail(point: &PointId, number: u32, frames: u32) -> [u8; DETAIL_BYTES] {
    let mut detail = [0; DETAIL_BYTES];
    let fields = point
        .as_str()
        .bytes()
        .take(16)
        .chain(number.to_le_bytes())
        .chain(frames.to_le_bytes());
    for (place, byte) in detail.iter_mut().zip(fields) {
        *place = byte;
    }
    detail
}

/// Returns how many bytes at the end of a bundle are its index, the eight of the frame included.
pub(crate) fn index_bytes(record: &BundleRecord) -> usize {
    let frames = usize::try_from(record.frames).unwrap_or(usize::MAX);
    frames.saturating_mul(INDEX_ENTRY_BYTES).saturating_add(8)
}

/// Reads a bundle's header and index and checks them against the manifest.
pub(crate) fn read_index(
    key: &ObjectKey,
    point: &PointId,
    record: &BundleRecord,
    (head, tail): (&[u8], &[u8]),
) -> Result<Vec<FrameRecord>, RepositoryError> {
    let header = Header::decode(key, Kind::Bundle, head)?;
    let stored_bytes = record.bytes.saturating_sub(length(&header.encode()));
    let stated = (
        header.raw_bytes,
        header.stored_bytes,
        header.sum,
        header.detail,
    );
    let detail = detail(point, record.number, record.frames);
    if stated
        != (
            record.raw_bytes,
            stored_bytes,
            record.index_sha256.0,
            detail,
        )
    {
        return Err(damaged(key, "its header is not what the manifest says"));
    }
    if crc32c::crc32c(tail) != header.stored_sum {
        return Err(damaged(key, "its index does not match its checksum"));
    }
    let mut fields = Fields(tail);
    let frame = fields.u32().zip(fields.u32());
    let expected = u32::try_from(fields.0.len())
        .ok()
        .map(|length| (INDEX_FRAME, length));
    if frame != expected || Digest::of(fields.0) != record.index_sha256 {
        return Err(damaged(key, "its index does not match its checksum"));
    }
    let mut frames = Vec::new();
    let mut offset = length(&header.encode());
    let mut raw_bytes = 0_u64;
    while let Some((stored, raw)) = fields.u32().zip(fields.u32()) {
        let (stored_sum, sum) = fields
            .u32()
            .zip(fields.array())
            .ok_or_else(|| damaged(key, "its index is cut short"))?;
        frames.push(FrameRecord {
            offset,
            stored_bytes: stored,
            raw_bytes: raw,
            stored_sum,
            sum,
        });
        offset = offset.saturating_add(u64::from(stored));
        raw_bytes = raw_bytes.saturating_add(u64::from(raw));
    }
    let end = offset.saturating_add(length(tail));
    let largest = frames.iter().map(|f| f.raw_bytes).max().unwrap_or(0);
    let fits = usize::try_from(largest).is_ok_and(|largest| largest <= limits::FRAME_BYTES);
    if end != record.bytes || raw_bytes != record.raw_bytes || !fits {
        return Err(damaged(key, "its index contradicts itself"));
    }
    Ok(frames)
}

/// Returns the decompressed bytes of one frame, or says that it is damaged.
pub(crate) fn open_frame(
    decompressor: &mut zstd::bulk::Decompressor<'_>,
    key: &ObjectKey,
    record: &FrameRecord,
    stored: &[u8],
) -> Result<Vec<u8>, RepositoryError> {
    let bad = |what: &str| damaged(key, &format!("the frame at byte {} {what}", record.offset));
    if crc32c::crc32c(stored) != record.stored_sum {
        return Err(bad("does not match its checksum"));
    }
    let capacity = usize::try_from(record.raw_bytes).unwrap_or(limits::FRAME_BYTES);
    let raw = decompressor
        .decompress(stored, capacity)
        .map_err(|error| bad(&format!("is refused by zstd: {error}")))?;
    if raw.len() != capacity || Sha256::digest(&raw).as_slice() != record.sum {
        return Err(bad("does not match its checksum"));
    }
    Ok(raw)
}

/// Returns the range that a bundle's header occupies.
pub(crate) fn head_range() -> holdfast_store::object::Range {
    holdfast_store::object::Range {
        offset: 0,
        length: HEADER_BYTES,
    }
}
