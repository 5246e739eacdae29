//! Doing what was planned: parts of the source's files, on their way into a restore point.

use bytes::Bytes;
use holdfast_core::ByteCount;

use super::plan::{Job, What};
use super::session::{Ask, Session};
use crate::capture::CaptureError;
use crate::repository::{FileEntry, FileKind, FileMeta, PatchTo, PointWriter};
use crate::source::SourceError;
use crate::standing::Busy;

/// The most that is read of a file at once.
const PIECE: u64 = 256 << 10;
/// What is asked for at once, in bytes and in parts.
const BATCH_BYTES: u64 = 32 << 20;
const BATCH_PARTS: usize = 4096;
/// By how much a small file may grow while the others are read.
const GROWTH: u64 = 64 << 10;
/// A file that is read at once and has become larger than this is not small.
const GROWN_MAX: u64 = 64 << 20;

/// A part of a file that is read at once.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    job: &'a Job,
    offset: u64,
    bytes: u64,
    is_first: bool,
    is_last: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// Bytes that the source sent.
    pub(super) read: u64,
    /// Parts that were asked for.
    pub(super) parts: u64,
}

/// Brings files of the source into a restore point.
pub(super) struct Reading<'a> {
    pub(super) session: &'a mut Session,
    pub(super) writer: &'a mut PointWriter,
    pub(super) busy: &'a Busy<'a>,
    pub(super) done: Done,
}

impl Reading<'_> {
    /// Does all of it.
    pub(super) fn run(&mut self, jobs: &[Job]) -> Result<(), CaptureError> {
        let total: u64 = jobs.iter().map(|job| job.what.bytes()).sum();
        for job in jobs {
            self.perform(job)?;
        }
        let mut grown = self.read(jobs, total)?;
        while !grown.is_empty() {
            grown = self.read(&grown, total)?;
        }
        Ok(())
    }

    /// Does what needs nothing of the source.
    fn perform(&mut self, job: &Job) -> Result<(), CaptureError> {
        let path = job.path.as_str();
        match &job.what {
            What::Folder => {
                let mode = job.mode.unwrap_or(self.folder_mode());
                self.begin(path, FileKind::Directory, mode)?;
                self.writer.end_file()?;
            }
            What::Link { target } => {
                let target = target.clone();
                self.begin(path, FileKind::Symlink { target }, 0o777)?;
                self.writer.end_file()?;
            }
            What::Remove => self.writer.remove(path)?,
            What::Patch { bytes, parts } if parts.is_empty() => {
                self.begin_patch(job, *bytes)?;
                self.writer.end_file()?;
            }
            What::Large { .. } | What::Patch { .. } | What::Small { .. } => {}
        }
        Ok(())
    }

    /// Reads what has to be read and returns what has to be read again, because it has grown.
    fn read(&mut self, jobs: &[Job], total: u64) -> Result<Vec<Job>, CaptureError> {
        let mut grown = Vec::new();
        let mut batch: Vec<Piece<'_>> = Vec::new();
        let mut bytes = 0_u64;
        for piece in jobs.iter().flat_map(pieces) {
            bytes = bytes.saturating_add(piece.bytes);
            batch.push(piece);
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_PARTS {
                self.read_batch(&batch, &mut grown)?;
                batch.clear();
                bytes = 0;
                let (read, total) = (self.done.read, self.done.read.max(total));
                let text = format!("restore point: {} of {}", ByteCount(read), ByteCount(total));
                self.busy.says(text);
            }
        }
        self.read_batch(&batch, &mut grown)?;
        Ok(grown)
    }

    fn read_batch(
        &mut self,
        batch: &[Piece<'_>],
        grown: &mut Vec<Job>,
    ) -> Result<(), CaptureError> {
        if batch.is_empty() {
            return Ok(());
        }
        let asked = batch.iter().map(|piece| Ask {
            path: piece.job.path.as_str(),
            offset: piece.offset,
            bytes: piece.bytes,
        });
        let asked: Vec<Ask<'_>> = asked.collect();
        let file_mode = self.session.shape.file_mode;
        let (writer, done) = (&mut *self.writer, &mut self.done);
        self.session.read(&asked, &mut |number, bytes| {
            let Some(piece) = batch.get(number) else {
                return Ok(());
            };
            let length = bytes.as_ref().map_or(0, Bytes::len);
            done.read = done.read.saturating_add(u64::try_from(length).unwrap_or(0));
            done.parts = done.parts.saturating_add(1);
            grown.extend(take(writer, file_mode, *piece, bytes)?);
            Ok(())
        })
    }

    fn begin(&mut self, path: &str, kind: FileKind, mode: u32) -> Result<(), CaptureError> {
        begin(self.writer, path, kind, mode)
    }

    fn begin_patch(&mut self, job: &Job, bytes: u64) -> Result<(), CaptureError> {
        let mode = job.mode.unwrap_or(self.session.shape.file_mode);
        begin_patch(self.writer, job, bytes, mode)
    }

    fn folder_mode(&self) -> u32 {
        match self.session.shape.file_mode {
            0o640 => 0o750,
            _ => 0o700,
        }
    }
}

impl What {
    /// Returns about how many bytes are read for it.
    fn bytes(&self) -> u64 {
        match self {
            Self::Folder | Self::Link { .. } | Self::Remove => 0,
            Self::Large { bytes } | Self::Small { bytes } => *bytes,
            Self::Patch { parts, .. } => parts.iter().map(|part| part.end - part.start).sum(),
        }
    }
}

fn begin(
    writer: &mut PointWriter,
    path: &str,
    kind: FileKind,
    mode: u32,
) -> Result<(), CaptureError> {
    writer.begin_file(FileEntry {
        path: path.to_owned(),
        kind,
        mode,
        meta: FileMeta::default(),
    })?;
    Ok(())
}

/// Writes a file whose content is known.
pub(super) fn put(
    writer: &mut PointWriter,
    path: &str,
    mode: u32,
    content: &[u8],
) -> Result<(), CaptureError> {
    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
    begin(writer, path, FileKind::File { size }, mode)?;
    writer.write(content)?;
    writer.end_file()?;
    Ok(())
}

fn begin_patch(
    writer: &mut PointWriter,
    job: &Job,
    bytes: u64,
    mode: u32,
) -> Result<(), CaptureError> {
    let to = PatchTo {
        size: bytes,
        mode,
        meta: FileMeta::default(),
    };
    writer.begin_patch(&job.path, to)?;
    Ok(())
}

/// Returns the parts in which a file is read.
fn pieces(job: &Job) -> Vec<Piece<'_>> {
    let ranges = match &job.what {
        What::Folder | What::Link { .. } | What::Remove => Vec::new(),
        What::Large { bytes } => std::iter::once(0..*bytes).collect(),
        What::Patch { parts, .. } => parts.clone(),
        // One byte more than there was tells whether it has grown.
        What::Small { bytes } => {
            return vec![Piece {
                job,
                offset: 0,
                bytes: bytes.saturating_add(GROWTH),
                is_first: true,
                is_last: true,
            }];
        }
    };
    let mut pieces = Vec::new();
    for range in ranges {
        let mut offset = range.start;
        while offset < range.end {
            let bytes = (range.end - offset).min(PIECE);
            pieces.push(Piece {
                job,
                offset,
                bytes,
                is_first: pieces.is_empty(),
                is_last: false,
            });
            offset = offset.saturating_add(bytes);
        }
    }
    if let Some(last) = pieces.last_mut() {
        last.is_last = true;
    }
    pieces
}

/// Takes a part that was read; returns the file when it has to be read again.
fn take(
    writer: &mut PointWriter,
    file_mode: u32,
    piece: Piece<'_>,
    bytes: Option<Bytes>,
) -> Result<Option<Job>, CaptureError> {
    let job = piece.job;
    let mode = job.mode.unwrap_or(file_mode);
    match &job.what {
        What::Folder | What::Link { .. } | What::Remove => {}
        What::Small { bytes: before } => match bytes {
            // It vanished while the others were read.
            None if job.mode.is_some() => writer.remove(&job.path)?,
            None => {}
            Some(bytes) if u64::try_from(bytes.len()) == Ok(piece.bytes) => {
                if *before > GROWN_MAX {
                    let what = format!("`{}` grows without end", job.path);
                    return Err(SourceError::nonsense("read files of the source", what).into());
                }
                let bytes = piece.bytes.saturating_mul(4);
                return Ok(Some(Job {
                    what: What::Small { bytes },
                    ..job.clone()
                }));
            }
            Some(bytes) => put(writer, &job.path, mode, &bytes)?,
        },
        What::Large { bytes: size } => {
            if piece.is_first {
                begin(writer, &job.path, FileKind::File { size: *size }, mode)?;
            }
            writer.write(&filled(bytes, piece.bytes))?;
        }
        What::Patch { bytes: size, .. } => {
            if piece.is_first {
                begin_patch(writer, job, *size, mode)?;
            }
            writer.write_at(piece.offset, &filled(bytes, piece.bytes))?;
        }
    }
    let is_open = matches!(job.what, What::Large { .. } | What::Patch { .. });
    if is_open && piece.is_last {
        writer.end_file()?;
    }
    Ok(None)
}

/// Fills up with zeros what the file no longer has; replay cuts it as the source did.
fn filled(bytes: Option<Bytes>, wanted: u64) -> Bytes {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    let bytes = bytes.unwrap_or_default();
    if bytes.len() == wanted {
        return bytes;
    }
    let mut filled = bytes.to_vec();
    filled.resize(wanted, 0);
    Bytes::from(filled)
}
