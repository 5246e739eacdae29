//! Who a writer is: the state directory it runs from, not the process and not the machine.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::FenceError;

/// The file in the state directory: one line for each thing that happened, the last one counts.
const FILE: &str = "writer.jsonl";
/// The longest file that is read, in bytes.
const LIMIT_BYTES: u64 = 1024 * 1024;

/// A state directory as a writer; held by one process at a time. Clones share it.
#[derive(Clone, Debug)]
pub struct WriterIdentity {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: String,
    host: String,
    path: PathBuf,
    /// Its lock ends with the process, however that ends; a writer that passes by has none.
    file: Option<Mutex<File>>,
    fenced_by: Mutex<Option<u64>>,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    /// A newer epoch was seen.
    Fenced(u64),
    /// The directory got its name.
    Id(String),
    /// The repository was taken over with this epoch.
    TookOver(u64),
}

impl WriterIdentity {
    /// Opens the identity that lies in `state`, or makes one; `random` is used for a new one only.
    ///
    /// # Errors
    /// [`FenceError::Io`] when the directory cannot be used or another process runs from it.
    pub fn open(state: &Path, random: [u8; 16]) -> Result<Self, FenceError> {
        let path = state.join(FILE);
        let failed = |step| {
            let what = path.display().to_string();
            move |source| FenceError::Io { step, what, source }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let state = state.display().to_string();
                return Err(FenceError::Running { state });
            }
            Err(errno) => return Err(failed("lock")(errno.into())),
        }
        let (mut id, mut fenced_by) = (None, None);
        let lines = BufReader::new(&mut file).take(LIMIT_BYTES).lines();
        for line in lines {
            let line = line.map_err(failed("read"))?;
            // A line that a crash cut was never relied on.
            match serde_json::from_str(&line) {
                Ok(Line::Id(text)) => id = Some(text),
                Ok(Line::Fenced(by)) => fenced_by = Some(by),
                Ok(Line::TookOver(_)) => fenced_by = None,
                Err(_) => {}
            }
        }
        let is_new = id.is_none();
        let identity = Self {
            shared: Arc::new(Shared {
                id: id.unwrap_or_else(|| data_encoding::HEXLOWER.encode(&random)),
                host: host(),
                path: path.clone(),
                file: Some(Mutex::new(file)),
                fenced_by: Mutex::new(fenced_by),
            }),
        };
        if is_new {
            identity.write(&Line::Id(identity.shared.id.clone()))?;
            // The name must outlive a crash: it is what lets this directory go on at once.
            File::open(state)
                .and_then(|folder| folder.sync_all())
                .map_err(failed("sync the folder of"))?;
        }
        Ok(identity)
    }

    /// Makes an identity that no directory keeps: it ends with the process, which says so at its end.
    #[must_use]
    pub fn passing(random: [u8; 16]) -> Self {
        Self {
            shared: Arc::new(Shared {
                id: data_encoding::HEXLOWER.encode(&random),
                host: host(),
                path: PathBuf::new(),
                file: None,
                fenced_by: Mutex::new(None),
            }),
        }
    }

    /// Returns its random name.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// Returns the name of this machine.
    pub fn host(&self) -> &str {
        &self.shared.host
    }

    /// Returns the epoch that fenced this directory off, unless it took over since.
    pub fn fenced_by(&self) -> Option<u64> {
        *self
            .shared
            .fenced_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a newer epoch was seen, so that a restart does not claim the next one.
    pub(super) fn fence(&self, by: u64) -> Result<(), FenceError> {
        self.set_fenced(Some(by));
        self.write(&Line::Fenced(by))
    }

    pub(super) fn take_over(&self, epoch: u64) -> Result<(), FenceError> {
        self.write(&Line::TookOver(epoch))?;
        self.set_fenced(None);
        Ok(())
    }

    fn set_fenced(&self, by: Option<u64>) {
        let shared = &self.shared;
        *shared
            .fenced_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = by;
    }

    fn write(&self, line: &Line) -> Result<(), FenceError> {
        let shared = &self.shared;
        let failed = |source| FenceError::Io {
            step: "write",
            what: shared.path.display().to_string(),
            source,
        };
        let text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        let Some(file) = &shared.file else {
            return Ok(());
        };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // A line feed first: what a crash cut ends there.
        file.write_all(format!("\n{text}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)
    }
}

fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .chars()
        .take(64)
        .collect()
}
