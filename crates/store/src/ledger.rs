//! The ledger's file: append-only, one durable line an entry.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use ed25519_dalek::{SigningKey, VerifyingKey};
use holdfast_core::ledger::{
    Chain, Draft, Entry, LIMIT_LINE_BYTES, LineError, TreeHead, TreeHeadStatement,
};
use holdfast_core::{Code, Coded, Digest, Principal, Timestamp};
use rustix::fs::FlockOperation;

use crate::limits::{LEDGER_ENTRIES_PER_HEAD, LEDGER_SYNCS_AFTER};
use state::{Failure, State, Written};

mod state;

/// The name of the file in the ledger's folder.
pub const FILE: &str = "ledger.jsonl";
/// The name of the file with the signed tree heads, one a line.
pub const HEADS: &str = "heads.jsonl";
/// What entry 0 says it is.
const FORMAT: &str = "holdfast-ledger";
const VERSION: u64 = 1;

/// Why the ledger cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be read or written.
    #[error("cannot {step} the ledger `{}`", path.display())]
    File {
        /// What was attempted.
        step: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open for writing.
    #[error("the ledger `{}` is in use by another process", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// An entry does not verify.
    #[error("the ledger `{}` does not verify", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Which entry and why.
        source: LineError,
    },
    /// The file is older than a head that was signed over it: entries were removed or rewritten.
    #[error("the ledger `{}` does not contain the {size} entries that were signed at {at}", path.display())]
    Rewritten {
        /// Which file.
        path: PathBuf,
        /// Entries in the signed head.
        size: u64,
        /// When it was signed.
        at: Timestamp,
    },
    /// Not a ledger, or one of a newer format.
    #[error("`{}` is not a ledger of format 1", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// The entry itself cannot be written.
    #[error("the entry cannot be written")]
    Entry(#[source] LineError),
    /// An earlier write failed half-way and could not be taken back.
    #[error("the ledger stopped after a failed write")]
    Stopped,
}

impl Coded for LedgerError {
    fn code(&self) -> Code {
        match self {
            Self::File { .. } | Self::Stopped => Code::ZS201,
            Self::InUse { .. } | Self::Foreign { .. } => Code::ZU202,
            Self::Broken { .. } | Self::Rewritten { .. } => Code::ZI001,
            Self::Entry(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File { .. } | Self::Stopped => {
                "free space or mend the disk, then restart; until then agents are refused".to_owned()
            }
            Self::InUse { .. } => "stop the other `holdfast` first; `lsof` shows it".to_owned(),
            Self::Foreign { .. } => "name the folder that `holdfast init` made, or update holdfast".to_owned(),
            Self::Broken { .. } | Self::Rewritten { .. } => {
                "keep the file as it is, compare it with an exported copy, and find out who writes there".to_owned()
            }
            Self::Entry(error) => return error.hint(),
        })
    }
}

/// The open ledger. Clones share one file and one writer.
///
/// An entry is written under a lock and made durable outside it: whoever waits for that together waits
/// for one sync of the file.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    key: SigningKey,
    state: Mutex<State>,
    /// Something became durable, or was taken back.
    settled: Condvar,
}

/// An entry that was written and is not durable yet.
#[derive(Clone, Copy, Debug)]
#[must_use = "it is durable only once `Ledger::settle` has returned"]
pub struct Ticket {
    /// The size of the ledger with it.
    size: u64,
    taken_back: u64,
}

impl Ledger {
    /// Opens the ledger in `folder`, verifying every entry, or begins one.
    ///
    /// A last line that was cut by a crash was never acknowledged: it is moved to `torn-N.bin` beside
    /// the ledger and the file ends after the entry before it.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing is written when it does not verify or is in use.
    pub fn open(folder: &Path, key: SigningKey, now: Timestamp) -> Result<Self, LedgerError> {
        let path = folder.join(FILE);
        let failed = |step| {
            let path = path.clone();
            move |source| LedgerError::File { step, path, source }
        };
        crate::durable::make_folder(folder).map_err(failed("make the folder of"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LedgerError::InUse { path }),
            Err(error) => return Err(failed("lock")(error.into())),
        }
        let (heads, heads_bytes) = read_heads(folder, &key.verifying_key())?;
        let read = read_all(&mut file, &path, heads.last(), |_| ())?;
        if let Some(torn) = &read.torn {
            let aside = folder.join(format!("torn-{}.bin", read.chain.size()));
            std::fs::write(&aside, torn).map_err(failed("set aside the torn end of"))?;
            file.set_len(read.bytes)
                .map_err(failed("cut the torn end of"))?;
            file.sync_all().map_err(failed("write"))?;
        }
        let written = Written {
            bytes: read.bytes,
            chain: read.chain,
            at: now,
        };
        let state = State {
            file: Arc::new(file),
            durable: written.clone(),
            written,
            taken_back: 0,
            failure: None,
            later: Vec::new(),
            owed: Vec::new(),
            is_syncing: false,
            is_expected: false,
            id: read.id,
            head_size: heads.last().map_or(0, |head| head.statement.size),
            heads_bytes,
            failing: false,
            stopped: false,
        };
        let shared = Shared {
            folder: folder.to_owned(),
            key,
            state: Mutex::new(state),
            settled: Condvar::new(),
        };
        let ledger = Self {
            shared: Arc::new(shared),
        };
        if ledger.lock().written.chain.size() == 0 {
            let public = data_encoding::HEXLOWER.encode(ledger.public_key().as_bytes());
            let genesis = Draft::new("ledger.begun", Principal::service("holdfast"), now)
                .with("format", FORMAT)
                .with("version", VERSION)
                .with("key", public);
            ledger.append(genesis)?;
            File::open(folder)
                .and_then(|f| f.sync_all())
                .map_err(failed("sync the folder of"))?;
        }
        Ok(ledger)
    }

    /// Writes an entry. It is durable when this returns.
    ///
    /// # Errors
    /// [`LedgerError`]; the entry is then not in the ledger, and the caller must not go on with what
    /// it was about to record.
    pub fn append(&self, draft: Draft) -> Result<Entry, LedgerError> {
        let (entry, ticket) = self.write(draft)?;
        self.settle(ticket)?;
        Ok(entry)
    }

    /// Writes an entry that is durable only once [`Ledger::settle`] has returned.
    ///
    /// # Errors
    /// [`LedgerError`]; the entry is then not in the ledger.
    pub fn write(&self, draft: Draft) -> Result<(Entry, Ticket), LedgerError> {
        let mut state = self.lock();
        let entry = state.write(draft).map_err(|error| error.at(self.path()))?;
        let ticket = state.ticket();
        Ok((entry, ticket))
    }

    /// Waits until an entry is durable. Everything that was written meanwhile is made so at once.
    ///
    /// # Errors
    /// [`LedgerError`]; the entry is then not in the ledger, and the caller must not go on with what
    /// it was about to record.
    pub fn settle(&self, ticket: Ticket) -> Result<(), LedgerError> {
        let mut state = self.lock();
        loop {
            if state.taken_back != ticket.taken_back {
                return Err(state.refusal());
            }
            if state.durable.chain.size() >= ticket.size {
                return Ok(());
            }
            if state.stopped {
                return Err(LedgerError::Stopped);
            }
            if state.is_syncing {
                let waited = self.shared.settled.wait(state);
                state = waited.unwrap_or_else(stopped);
            } else {
                state = self.sync(state);
            }
        }
    }

    /// Writes an entry that nobody has to wait for. It is durable with the next one that somebody
    /// waits for, and soon in any case; when it has to be taken back, it is written again with the next.
    ///
    /// # Errors
    /// [`LedgerError`]; the entry is then not in the ledger.
    pub fn append_soon(&self, draft: Draft) -> Result<(), LedgerError> {
        let mut state = self.lock();
        let kept = draft.clone();
        state.write(draft).map_err(|error| error.at(self.path()))?;
        state.later.push(kept);
        if std::mem::replace(&mut state.is_expected, true) {
            return Ok(());
        }
        let shared = Arc::downgrade(&self.shared);
        let syncing = std::thread::Builder::new().name("ledger".to_owned());
        let begun = syncing.spawn(move || sync_soon(&shared));
        if begun.is_err() {
            // Without a thread it waits for the next one.
            state.is_expected = false;
        }
        Ok(())
    }

    /// Syncs the file for everybody who waits.
    fn sync<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.is_syncing = true;
        let (file, written) = (Arc::clone(&state.file), state.written.clone());
        let later = state.later.len();
        drop(state);
        let synced = file.sync_data();
        let mut state = self.lock();
        state.is_syncing = false;
        let settled = match synced {
            Ok(()) => self.head_over(&mut state, &written),
            Err(source) => Err(Failure::new("write", self.path(), &source)),
        };
        match settled {
            Ok(()) => {
                state.durable = written;
                let later = later.min(state.later.len());
                drop(state.later.drain(..later));
                state.failing = false;
            }
            Err(failure) => state.take_back(failure),
        }
        self.shared.settled.notify_all();
        state
    }

    /// Signs a head once enough entries have come since the last.
    fn head_over(&self, state: &mut State, written: &Written) -> Result<(), Failure> {
        if written.chain.size() < state.head_size + LEDGER_ENTRIES_PER_HEAD {
            return Ok(());
        }
        let signed = self.write_head(state, &written.chain, written.at);
        signed.map(|_| ()).map_err(|error| match error {
            LedgerError::File { step, path, source } => Failure::new(step, path, &source),
            other => Failure::new("sign", self.path(), &io::Error::other(other.to_string())),
        })
    }

    /// Signs the ledger as it is now, and keeps the head beside it.
    ///
    /// # Errors
    /// [`LedgerError::File`] when the head cannot be kept.
    pub fn sign_head(&self, now: Timestamp) -> Result<TreeHead, LedgerError> {
        let state = self.lock();
        let ticket = state.ticket();
        drop(state);
        // A head must not outlive the entries that it was signed over.
        self.settle(ticket)?;
        let mut state = self.lock();
        let chain = state.durable.chain.clone();
        self.write_head(&mut state, &chain, now)
    }

    /// Tells whether the last write failed, so that it is in doubt whether anything can be recorded.
    pub fn is_failing(&self) -> bool {
        let state = self.lock();
        state.failing || state.stopped
    }

    /// Returns the number of entries.
    pub fn size(&self) -> u64 {
        self.lock().written.chain.size()
    }

    /// Returns the key that verifies this ledger's heads.
    pub fn public_key(&self) -> VerifyingKey {
        self.shared.key.verifying_key()
    }

    /// Returns the folder it lies in.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    fn path(&self) -> PathBuf {
        self.shared.folder.join(FILE)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(stopped)
    }

    fn write_head(
        &self,
        state: &mut State,
        chain: &Chain,
        now: Timestamp,
    ) -> Result<TreeHead, LedgerError> {
        let statement = TreeHeadStatement {
            ledger: state.id,
            size: chain.size(),
            root: chain.root(),
            at: now,
        };
        let head = TreeHead::sign(statement, &self.shared.key);
        let path = self.shared.folder.join(HEADS);
        let failed = |source| LedgerError::File {
            step: "sign",
            path: path.clone(),
            source,
        };
        let mut line = serde_json::to_string(&head).map_err(|e| failed(e.into()))?;
        line.push('\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let whole = state.heads_bytes;
        let written = file
            .set_len(whole)
            .and_then(|()| file.seek(SeekFrom::Start(whole)))
            .and_then(|_| file.write_all(line.as_bytes()))
            .and_then(|()| file.sync_data());
        if let Err(source) = written {
            // A head must not outlive the entries that it was signed over.
            let cut = file.set_len(whole).and_then(|()| file.sync_all());
            state.stopped = state.stopped || cut.is_err();
            return Err(failed(source));
        }
        state.heads_bytes += u64::try_from(line.len()).unwrap_or(u64::MAX);
        state.head_size = head.statement.size;
        Ok(head)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.durable.bytes < state.written.bytes {
            // Nobody waits for it any more.
            let _ = state.file.sync_data();
        }
    }
}

/// A lock whose holder ended in the middle: what the file holds is no longer known.
fn stopped(poisoned: PoisonError<MutexGuard<'_, State>>) -> MutexGuard<'_, State> {
    let mut state = poisoned.into_inner();
    state.stopped = true;
    state
}

/// Makes durable what nobody waits for, a little later and many entries at once.
fn sync_soon(shared: &Weak<Shared>) {
    std::thread::sleep(LEDGER_SYNCS_AFTER);
    let Some(shared) = shared.upgrade() else {
        return;
    };
    let ledger = Ledger { shared };
    let mut state = ledger.lock();
    state.is_expected = false;
    let ticket = state.ticket();
    drop(state);
    // When that fails, they are written again with the next entry.
    let _ = ledger.settle(ticket);
}

/// What a whole read of a ledger found.
#[derive(Debug)]
pub struct Verified {
    /// Entries.
    pub size: u64,
    /// Merkle root over them.
    pub root: Digest,
    /// Digest of the first line: which ledger it is.
    pub id: Digest,
    /// Signed heads that were checked against it.
    pub heads: u64,
    /// Bytes of a last line that a crash cut; it was never acknowledged.
    pub torn_bytes: u64,
}

/// Verifies the ledger in `folder` without opening it for writing, and hands every entry to `each`.
///
/// Works beside a running `holdfast`: what is appended meanwhile is not read.
///
/// # Errors
/// [`LedgerError`] names the first thing that is wrong.
pub fn verify(
    folder: &Path,
    key: &VerifyingKey,
    each: impl FnMut(&Entry),
) -> Result<Verified, LedgerError> {
    let path = folder.join(FILE);
    let mut file = File::open(&path).map_err(|source| LedgerError::File {
        step: "open",
        path: path.clone(),
        source,
    })?;
    let (heads, _) = read_heads(folder, key)?;
    let read = read_all(&mut file, &path, heads.last(), each)?;
    Ok(verified(read, heads.len()))
}

/// Verifies one file of entries alone, such as an exported one, and hands every entry to `each`.
///
/// Without the signed heads it can be told that no line was changed, left out or put in, and not whether
/// lines are missing at the end.
///
/// # Errors
/// [`LedgerError`] names the first thing that is wrong.
pub fn verify_file(path: &Path, each: impl FnMut(&Entry)) -> Result<Verified, LedgerError> {
    let mut file = File::open(path).map_err(|source| LedgerError::File {
        step: "open",
        path: path.to_owned(),
        source,
    })?;
    let read = read_all(&mut file, path, None, each)?;
    Ok(verified(read, 0))
}

fn verified(read: ReadAll, heads: usize) -> Verified {
    Verified {
        size: read.chain.size(),
        root: read.chain.root(),
        id: read.id,
        heads: u64::try_from(heads).unwrap_or(u64::MAX),
        torn_bytes: read
            .torn
            .map_or(0, |torn| u64::try_from(torn.len()).unwrap_or(u64::MAX)),
    }
}

struct ReadAll {
    chain: Chain,
    bytes: u64,
    id: Digest,
    torn: Option<Vec<u8>>,
}

fn read_all(
    file: &mut File,
    path: &Path,
    head: Option<&TreeHead>,
    mut each: impl FnMut(&Entry),
) -> Result<ReadAll, LedgerError> {
    let failed = |source| LedgerError::File {
        step: "read",
        path: path.to_owned(),
        source,
    };
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut read = ReadAll {
        chain: Chain::default(),
        bytes: 0,
        id: Digest::of(b""),
        torn: None,
    };
    let mut line = Vec::new();
    let limit = u64::try_from(LIMIT_LINE_BYTES).unwrap_or(u64::MAX);
    loop {
        line.clear();
        let count = reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(failed)?;
        if count == 0 {
            break;
        }
        let whole = line.last() == Some(&b'\n');
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if !whole && line.len() < LIMIT_LINE_BYTES {
            read.torn = Some(line.clone());
            break;
        }
        match read.chain.read(text) {
            Ok(entry) => {
                if read.bytes == 0 {
                    check_format(&entry, path)?;
                    read.id = Digest::of(text);
                }
                each(&entry);
            }
            Err(_) if read.bytes == 0 => {
                return Err(LedgerError::Foreign {
                    path: path.to_owned(),
                });
            }
            Err(source) => {
                return Err(LedgerError::Broken {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        read.bytes += u64::try_from(count).unwrap_or(u64::MAX);
        if let Some(head) = head.filter(|head| head.statement.size == read.chain.size())
            && (head.statement.root != read.chain.root() || head.statement.ledger != read.id)
        {
            return Err(rewritten(path, head));
        }
    }
    match head.filter(|head| head.statement.size > read.chain.size()) {
        Some(head) => Err(rewritten(path, head)),
        None => Ok(read),
    }
}

fn rewritten(path: &Path, head: &TreeHead) -> LedgerError {
    LedgerError::Rewritten {
        path: path.to_owned(),
        size: head.statement.size,
        at: head.statement.at,
    }
}

fn check_format(entry: &Entry, path: &Path) -> Result<(), LedgerError> {
    let body = &entry.draft.body;
    let format = body.get("format").and_then(|format| format.as_str());
    let version = body.get("version").and_then(serde_json::Value::as_u64);
    if format == Some(FORMAT) && version == Some(VERSION) {
        Ok(())
    } else {
        Err(LedgerError::Foreign {
            path: path.to_owned(),
        })
    }
}

/// Reads the signed heads and how many bytes they take; a last line without its line feed was cut by
/// a crash and is left out.
fn read_heads(folder: &Path, key: &VerifyingKey) -> Result<(Vec<TreeHead>, u64), LedgerError> {
    let path = folder.join(HEADS);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(source) => {
            return Err(LedgerError::File {
                step: "read the heads of",
                path,
                source,
            });
        }
    };
    let (mut heads, mut bytes) = (Vec::new(), 0);
    for line in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let head: Option<TreeHead> = serde_json::from_str(line).ok();
        match head.filter(|head| head.verify(key).is_ok()) {
            Some(head) => {
                heads.push(head);
                bytes += u64::try_from(line.len()).unwrap_or(u64::MAX);
            }
            None => {
                let source = LineError::Malformed { seq: 0 };
                return Err(LedgerError::Broken { path, source });
            }
        }
    }
    Ok((heads, bytes))
}

#[cfg(test)]
mod tests;
