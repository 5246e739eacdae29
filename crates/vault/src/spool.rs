//! The spool: WAL as it arrives, durable before its position is acknowledged.
//!
//! One folder per source holds WAL under PostgreSQL's own segment names. A file is as long as what
//! was received. What another process finds after a crash is trusted up to the last closed segment;
//! the open one is compared with the source, byte by byte, when the stream begins again.

mod removal;
mod room;
mod segment;
mod writer;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use holdfast_core::{Code, Coded, Lsn, SourceName};
use holdfast_store::durable::make_folder;
use serde::{Deserialize, Serialize};

pub(crate) use room::received;
pub(crate) use segment::{Segment, SegmentBytes};
pub(crate) use writer::SpoolWriter;

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The source sends other bytes than it sent before, where the repository has them already.
    #[error("the source sends other write-ahead log at {at} than it sent before")]
    Diverged {
        /// Where they differ.
        at: Lsn,
    },
    /// The disk is full.
    #[error("no space left in the spool to {step} `{}`", path.display())]
    Full {
        /// What was attempted.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The source left out a part of its log.
    #[error("the source sent write-ahead log from {found} where {expected} was next")]
    Gap {
        /// The next position.
        expected: Lsn,
        /// What came.
        found: Lsn,
    },
    /// Any other trouble of the system.
    #[error("cannot {step} `{}` in the spool", path.display())]
    Io {
        /// What was attempted.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The note about the cluster cannot be read.
    #[error("`{}` in the spool is not readable", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl SpoolError {
    fn of(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { step, path, source }
            }
            _ => Self::Io { step, path, source },
        }
    }
}

impl Coded for SpoolError {
    fn code(&self) -> Code {
        match self {
            Self::Diverged { .. } => Code::ZI301,
            Self::Full { .. } => Code::ZS303,
            Self::Gap { .. } => Code::ZI302,
            Self::Io { .. } | Self::Unreadable { .. } => Code::ZS304,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Diverged { .. } => "nothing that is kept was changed; if the source was restored from an older copy, add it under a new name".to_owned(),
            Self::Full { .. } => "free space on the spool's disk; nothing was acknowledged that is not kept, and the vault goes on by itself".to_owned(),
            Self::Gap { .. } => "nothing was acknowledged; the vault connects again by itself".to_owned(),
            Self::Io { .. } => "check the disk and who owns the state directory; nothing was acknowledged that is not kept".to_owned(),
            Self::Unreadable { .. } => "put the file back from a copy, or move the folder away so that a new base backup begins".to_owned(),
        })
    }
}

/// Returns the name of a source's slot below a state directory, when it is not the usual one.
pub(crate) fn kept_slot(state: &Path, source: &SourceName) -> Option<String> {
    let folder = state.join("spool").join(source.as_str());
    Spool { folder }.slot().ok().flatten()
}

/// Which cluster a spool belongs to; it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// PostgreSQL's system identifier.
    pub(crate) system_identifier: u64,
    /// The size of its segments.
    pub(crate) segment_bytes: SegmentBytes,
}

/// A file of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) segment: Segment,
    /// How much of it is there.
    pub(crate) bytes: u64,
}

impl Stored {
    /// Returns the position after its last byte.
    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.segment.start.0.saturating_add(self.bytes))
    }
}

/// One source's folder in the spool.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// Opens the folder of `source` below the state directory, making it if need be.
    pub(crate) fn open(state: &Path, source: &SourceName) -> Result<Self, SpoolError> {
        let folder = state.join("spool").join(source.as_str());
        make_folder(&folder).map_err(SpoolError::of("make", &folder))?;
        sync_folder(&folder)?;
        Ok(Self { folder })
    }

    /// Returns which cluster it belongs to, once that is known.
    pub(crate) fn cluster(&self) -> Result<Option<Cluster>, SpoolError> {
        let path = self.folder.join(CLUSTER);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| SpoolError::Unreadable { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SpoolError::of("read", &path)(error)),
        }
    }

    /// Notes for ever which cluster it belongs to.
    pub(crate) fn bind(&self, cluster: &Cluster) -> Result<(), SpoolError> {
        let path = self.folder.join(CLUSTER);
        let text = serde_json::to_vec_pretty(cluster).map_err(|source| SpoolError::Unreadable {
            path: path.clone(),
            source,
        })?;
        self.replace_file(&path, &text)
    }

    /// Returns the name of the slot, when it is not the usual one.
    pub(crate) fn slot(&self) -> Result<Option<String>, SpoolError> {
        let path = self.folder.join(SLOT);
        match fs::read_to_string(&path) {
            Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SpoolError::of("read", &path)(error)),
        }
    }

    /// Notes the name of the slot from now on.
    pub(crate) fn keep_slot(&self, name: &str) -> Result<(), SpoolError> {
        self.replace_file(&self.folder.join(SLOT), name.as_bytes())
    }

    /// Returns where the log begins that has no hole up to today; zero when it never had one.
    pub(crate) fn unbroken_from(&self) -> Result<Lsn, SpoolError> {
        let path = self.folder.join(UNBROKEN);
        match fs::read_to_string(&path) {
            // What is not readable must not make a broken log look whole: then it begins nowhere.
            Ok(text) => Ok(text.trim().parse().unwrap_or(Lsn(u64::MAX))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lsn::ZERO),
            Err(error) => Err(SpoolError::of("read", &path)(error)),
        }
    }

    /// Notes that the log has a hole before `at`; older bases are not continued by what comes.
    pub(crate) fn keep_unbroken_from(&self, at: Lsn) -> Result<(), SpoolError> {
        self.replace_file(&self.folder.join(UNBROKEN), at.to_string().as_bytes())
    }

    /// Returns the segments that are there, by timeline and position.
    pub(crate) fn stored(&self, size: SegmentBytes) -> Result<Vec<Stored>, SpoolError> {
        let failed = || SpoolError::of("list", &self.folder);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            let Some(segment) = name.to_str().and_then(|name| Segment::parse(name, size)) else {
                continue;
            };
            let bytes = received(&entry.path(), size.get()).map_err(failed())?;
            all.push(Stored { segment, bytes });
        }
        all.sort_unstable_by_key(|stored| stored.segment);
        Ok(all)
    }

    /// Reads `length` bytes of a segment from `from` on; fewer when the file ends before.
    pub(crate) fn read(
        &self,
        segment: Segment,
        size: SegmentBytes,
        from: Lsn,
        length: u64,
    ) -> Result<Vec<u8>, SpoolError> {
        let path = self.folder.join(segment.name(size));
        let offset = from.since(segment.start).0;
        let length = length.min(size.get().saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let file = File::open(&path).map_err(SpoolError::of("open", &path))?;
        let mut filled = 0_usize;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match file.read_at(rest, at) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SpoolError::of("read", &path)(error)),
            }
        }
        bytes.resize(filled, 0);
        Ok(bytes)
    }

    /// Tells whether a segment, or a part of it, is there.
    pub(crate) fn has(&self, segment: Segment, size: SegmentBytes) -> bool {
        self.path(segment, size).exists()
    }

    /// Keeps the history of a timeline; it never changes once the timeline exists.
    pub(crate) fn keep_history(&self, timeline: u32, text: &[u8]) -> Result<(), SpoolError> {
        let path = self.folder.join(format!("{timeline:08X}{HISTORY}"));
        if path.exists() {
            return Ok(());
        }
        self.replace_file(&path, text)
    }

    /// Returns the histories that are kept, by timeline.
    pub(crate) fn histories(&self) -> Result<Vec<(u32, Vec<u8>)>, SpoolError> {
        let failed = || SpoolError::of("list", &self.folder);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let digits = name.and_then(|name| name.strip_suffix(HISTORY));
            let Some(timeline) = digits.and_then(|hex| u32::from_str_radix(hex, 16).ok()) else {
                continue;
            };
            let text = fs::read(&path).map_err(SpoolError::of("read", &path))?;
            all.push((timeline, text));
        }
        all.sort_unstable();
        Ok(all)
    }

    fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
        let fresh = path.with_extension("new");
        File::create(&fresh)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&fresh, path))
            .map_err(SpoolError::of("write", path))?;
        sync_folder(&self.folder)
    }

    /// Returns where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, segment: Segment, size: SegmentBytes) -> PathBuf {
        self.folder.join(segment.name(size))
    }
}

fn sync_folder(folder: &Path) -> Result<(), SpoolError> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(SpoolError::of("sync", folder))
}

const CLUSTER: &str = "cluster.json";
const SLOT: &str = "slot";
const UNBROKEN: &str = "unbroken-from";
const HISTORY: &str = ".history";

#[cfg(test)]
mod tests;
