//! Bundles and map objects: many frames in one object, each readable on its own.

use std::sync::Arc;

use holdfast_core::Digest;
use holdfast_store::object::{ObjectError, ObjectKey, ObjectStore, Range};
use sha2::{Digest as _, Sha256};

use super::RepositoryError;
use super::format::{
    self, DETAIL_BYTES, Fields, Format, HEADER_BYTES, Header, INDEX_FRAME, Kind, damaged, length,
};
use crate::limits;

/// Bytes of one entry of an index.
const INDEX_ENTRY_BYTES: usize = 44;

/// Room for the header and the largest index.
const ROOM: usize = 512 * 1024;

/// Where a frame is in its object and what it holds.
///
/// # Shape
/// In the index, little-endian: stored length u32, decompressed length u32, CRC-32C of the stored
/// bytes u32, SHA-256 of the decompressed bytes. Frames follow each other without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameRecord {
    pub(crate) offset: u64,
    pub(crate) stored_bytes: u32,
    pub(crate) raw_bytes: u32,
    pub(crate) stored_sum: u32,
    pub(crate) sum: [u8; 32],
}

/// What is stated of an object of frames by what refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    pub(crate) key: ObjectKey,
    pub(crate) format: Format,
    pub(crate) kind: Kind,
    /// The letters of the id of the point that wrote it.
    pub(crate) letters: String,
    pub(crate) number: u32,
    pub(crate) size: FramesSize,
    /// The most that one of its frames holds.
    pub(crate) frame_bytes: u32,
}

/// How large an object of frames is, and what its index sums up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FramesSize {
    /// Bytes of the object.
    pub(crate) bytes: u64,
    pub(crate) frames: u32,
    /// Bytes of its frames, decompressed.
    pub(crate) raw_bytes: u64,
    /// SHA-256 of the entries of its index.
    pub(crate) index_sha256: Digest,
}

/// An object of frames whose index was read and checked.
#[derive(Debug)]
pub(crate) struct Frames {
    pub(crate) key: ObjectKey,
    /// The most that one of its frames holds; every frame that another continues holds as much.
    pub(crate) frame_bytes: u32,
    pub(crate) records: Vec<FrameRecord>,
}

impl Frames {
    /// Reads the header and the index and checks them against what is stated.
    pub(crate) fn open(
        store: &dyn ObjectStore,
        stated: &Stated,
    ) -> Result<Arc<Self>, RepositoryError> {
        let key = &stated.key;
        let frames = usize::try_from(stated.size.frames).unwrap_or(usize::MAX);
        let index_bytes = frames.saturating_mul(INDEX_ENTRY_BYTES).saturating_add(8);
        let opened = match stated.format {
            Format::V1 => {
                let head = range(0, HEADER_BYTES);
                let end = length_of(index_bytes);
                let tail = range(stated.size.bytes.saturating_sub(end), index_bytes);
                let head = store.get_range(key, head);
                head.and_then(|head| Ok((head, store.get_range(key, tail)?)))
            }
            Format::V2 => {
                let both = range(0, HEADER_BYTES.saturating_add(index_bytes));
                store.get_range(key, both).map(|mut head| {
                    let index = head.split_off(head.len().min(HEADER_BYTES));
                    (head, index)
                })
            }
        };
        let (head, index) = opened.map_err(|error| explain(error, key))?;
        let records = check(stated, &head, &index)?;
        Ok(Arc::new(Self {
            key: key.clone(),
            frame_bytes: stated.frame_bytes,
            records,
        }))
    }

    /// Returns the record of a frame.
    pub(crate) fn record(&self, frame: u32) -> Result<&FrameRecord, RepositoryError> {
        let at = usize::try_from(frame).unwrap_or(usize::MAX);
        self.records
            .get(at)
            .ok_or_else(|| damaged(&self.key, "its map names a frame that it does not have"))
    }

    /// Says that a map has more in a frame than the frame has.
    pub(crate) fn too_short(&self) -> RepositoryError {
        damaged(&self.key, "a frame of it is shorter than its map says")
    }

    /// Returns where the stored bytes of the frames from `first` to `last` are.
    pub(crate) fn range(&self, first: u32, last: u32) -> Result<Range, RepositoryError> {
        let (first, last) = (self.record(first)?, self.record(last)?);
        let end = last.offset.saturating_add(u64::from(last.stored_bytes));
        let length = end.saturating_sub(first.offset);
        Ok(range(
            first.offset,
            usize::try_from(length).unwrap_or(usize::MAX),
        ))
    }
}

fn range(offset: u64, length: usize) -> Range {
    Range { offset, length }
}

fn length_of(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// An object that ends early is damaged, like one that says something else.
fn explain(error: ObjectError, key: &ObjectKey) -> RepositoryError {
    match error {
        ObjectError::Short(_) => damaged(key, "it is cut short"),
        error => error.into(),
    }
}

/// What the header says of itself: the letters of a point's id, its number, its frames.
fn detail(letters: &str, number: u32, frames: u32) -> [u8; DETAIL_BYTES] {
    let mut detail = [0; DETAIL_BYTES];
    let fields = letters
        .bytes()
        .take(16)
        .chain(number.to_le_bytes())
        .chain(frames.to_le_bytes());
    for (place, byte) in detail.iter_mut().zip(fields) {
        *place = byte;
    }
    detail
}

/// Checks a header and an index, its frame included, against what is stated.
fn check(stated: &Stated, head: &[u8], index: &[u8]) -> Result<Vec<FrameRecord>, RepositoryError> {
    let (key, size) = (&stated.key, &stated.size);
    let header = Header::decode(key, (stated.format, stated.kind), head)?;
    let said = (
        header.raw_bytes,
        header.stored_bytes,
        header.sum,
        header.detail,
    );
    let after = size.bytes.saturating_sub(length_of(HEADER_BYTES));
    let detail = detail(&stated.letters, stated.number, size.frames);
    if said != (size.raw_bytes, after, size.index_sha256.0, detail) {
        return Err(damaged(key, "its header is not what the map says"));
    }
    if crc32c::crc32c(index) != header.stored_sum {
        return Err(damaged(key, "its index does not match its checksum"));
    }
    let mut fields = Fields(index);
    let frame = fields.u32().zip(fields.u32());
    let expected = u32::try_from(fields.0.len())
        .ok()
        .map(|length| (INDEX_FRAME, length));
    if frame != expected || Digest::of(fields.0) != size.index_sha256 {
        return Err(damaged(key, "its index does not match its checksum"));
    }
    let begin = match stated.format {
        Format::V1 => length_of(HEADER_BYTES),
        Format::V2 => length_of(HEADER_BYTES).saturating_add(length(index)),
    };
    let records = entries(key, fields, begin)?;
    let end = records.last().map_or(begin, |last| {
        last.offset.saturating_add(u64::from(last.stored_bytes))
    });
    let end = match stated.format {
        Format::V1 => end.saturating_add(length(index)),
        Format::V2 => end,
    };
    let raw = records.iter().map(|frame| u64::from(frame.raw_bytes)).sum();
    let fits = records
        .iter()
        .all(|frame| frame.raw_bytes <= stated.frame_bytes);
    if (end, raw) != (size.bytes, size.raw_bytes) || !fits {
        return Err(damaged(key, "its index contradicts itself"));
    }
    Ok(records)
}

/// Reads the entries of an index whose first frame begins at `offset`.
fn entries(
    key: &ObjectKey,
    mut fields: Fields<'_>,
    mut offset: u64,
) -> Result<Vec<FrameRecord>, RepositoryError> {
    let mut records = Vec::with_capacity(fields.0.len() / INDEX_ENTRY_BYTES);
    while let Some((stored_bytes, raw_bytes)) = fields.u32().zip(fields.u32()) {
        let (stored_sum, sum) = fields
            .u32()
            .zip(fields.array())
            .ok_or_else(|| damaged(key, "its index is cut short"))?;
        records.push(FrameRecord {
            offset,
            stored_bytes,
            raw_bytes,
            stored_sum,
            sum,
        });
        offset = offset.saturating_add(u64::from(stored_bytes));
    }
    Ok(records)
}

/// Opens frames: one for each thread, so that its memory is used again.
pub(crate) struct FrameOpener {
    decompressor: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
}

impl FrameOpener {
    /// Makes one.
    pub(crate) fn new() -> Result<Self, RepositoryError> {
        let decompressor =
            zstd::bulk::Decompressor::new().map_err(|error| RepositoryError::System {
                step: "decompress",
                what: error.to_string(),
            })?;
        Ok(Self {
            decompressor,
            raw: Vec::new(),
        })
    }

    /// Returns the decompressed bytes of one frame, or says that it is damaged.
    pub(crate) fn open(
        &mut self,
        key: &ObjectKey,
        record: &FrameRecord,
        stored: &[u8],
    ) -> Result<&[u8], RepositoryError> {
        let bad = |what: &str| damaged(key, &format!("the frame at byte {} {what}", record.offset));
        if crc32c::crc32c(stored) != record.stored_sum {
            return Err(bad("does not match its checksum"));
        }
        let capacity = usize::try_from(record.raw_bytes).unwrap_or(0);
        self.raw.clear();
        self.raw.reserve(capacity);
        self.decompressor
            .decompress_to_buffer(stored, &mut self.raw)
            .map_err(|error| bad(&format!("is refused by zstd: {error}")))?;
        if self.raw.len() != capacity || Sha256::digest(&self.raw).as_slice() != record.sum {
            return Err(bad("does not match its checksum"));
        }
        Ok(&self.raw)
    }
}

/// One compressed frame and what the index says of it.
pub(crate) struct Packed {
    pub(crate) stored: Vec<u8>,
    raw_bytes: u32,
    stored_sum: u32,
    sum: [u8; 32],
}

impl Packed {
    /// Compresses one frame.
    pub(crate) fn pack(
        compressor: &mut zstd::bulk::Compressor<'_>,
        raw: &[u8],
    ) -> Result<Self, RepositoryError> {
        let stored = compressor
            .compress(raw)
            .map_err(|error| format::compressing(&error))?;
        let raw_bytes = u32::try_from(raw.len()).map_err(|_| RepositoryError::Misuse {
            what: "a frame is too large".to_owned(),
        })?;
        Ok(Self {
            raw_bytes,
            stored_sum: crc32c::crc32c(&stored),
            sum: Sha256::digest(raw).into(),
            stored,
        })
    }

    /// Returns the SHA-256 of what was compressed.
    pub(crate) fn sum(&self) -> Digest {
        Digest(self.sum)
    }
}

/// An object of frames that is being gathered.
///
/// Room for header and index is kept in front of the frames, so that nothing has to be moved.
pub(crate) struct Gathering {
    object: Vec<u8>,
    index: Vec<u8>,
    count: u32,
    raw_bytes: u64,
}

/// An object of frames that is complete.
pub(crate) struct Gathered {
    object: Vec<u8>,
    /// Where it begins in these bytes.
    begin: usize,
    pub(crate) size: FramesSize,
}

impl Gathered {
    /// Returns the object.
    pub(crate) fn object(&self) -> &[u8] {
        self.object.get(self.begin..).unwrap_or_default()
    }

    /// Returns the memory, to be used again.
    pub(crate) fn memory(self) -> Vec<u8> {
        self.object
    }
}

impl Gathering {
    /// Begins an object in memory that may have been used before.
    pub(crate) fn begin(memory: Vec<u8>) -> Self {
        let mut object = memory;
        object.clear();
        object.resize(ROOM, 0);
        Self {
            object,
            index: Vec::new(),
            count: 0,
            raw_bytes: 0,
        }
    }

    /// Adds a frame.
    pub(crate) fn take(&mut self, packed: &Packed) {
        let stored = u32::try_from(packed.stored.len()).unwrap_or(u32::MAX);
        self.object.extend_from_slice(&packed.stored);
        self.index.extend_from_slice(&stored.to_le_bytes());
        self.index
            .extend_from_slice(&packed.raw_bytes.to_le_bytes());
        self.index
            .extend_from_slice(&packed.stored_sum.to_le_bytes());
        self.index.extend_from_slice(&packed.sum);
        self.count = self.count.saturating_add(1);
        self.raw_bytes = self.raw_bytes.saturating_add(u64::from(packed.raw_bytes));
    }

    /// Returns how many frames it has.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns how many bytes its frames have.
    pub(crate) fn bytes(&self) -> usize {
        self.object.len().saturating_sub(ROOM)
    }

    /// Says whether it has as many frames or bytes as an object should have.
    pub(crate) fn is_full(&self, bytes: usize) -> bool {
        self.bytes() >= bytes || self.count >= limits::FRAMES_PER_OBJECT
    }

    /// Puts header and index in front of the frames.
    pub(crate) fn close(
        mut self,
        kind: Kind,
        letters: &str,
        number: u32,
    ) -> Result<Gathered, RepositoryError> {
        let index = format::skippable(INDEX_FRAME, &self.index);
        let sum = Digest::of(&self.index);
        let header = Header {
            format: Format::V2,
            kind,
            raw_bytes: self.raw_bytes,
            stored_bytes: length(&index).saturating_add(length_of(self.bytes())),
            sum: sum.0,
            detail: detail(letters, number, self.count),
            stored_sum: crc32c::crc32c(&index),
        };
        let mut front = header.encode();
        front.extend_from_slice(&index);
        let begin = ROOM.checked_sub(front.len());
        let place = begin.and_then(|begin| self.object.get_mut(begin..ROOM).zip(Some(begin)));
        let Some((place, begin)) = place else {
            return Err(RepositoryError::Misuse {
                what: "an object has too many frames".to_owned(),
            });
        };
        place.copy_from_slice(&front);
        let size = FramesSize {
            bytes: length_of(self.object.len().saturating_sub(begin)),
            frames: self.count,
            raw_bytes: self.raw_bytes,
            index_sha256: sum,
        };
        Ok(Gathered {
            object: self.object,
            begin,
            size,
        })
    }
}
