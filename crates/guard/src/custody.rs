//! Custody: real credentials that agents must not have, and the lease tokens that stand for them.
//!
//! A credential is bound to the hosts of its provider. Only the HTTP door takes it out, after the
//! verdict, for such a host and over TLS. It lies in guard's state file (mode 0600), not yet encrypted:
//! whoever can read that file as this user has it. It is never logged, never in an error, never in
//! the ledger.

mod file;

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use holdfast_core::ledger::Draft;
use holdfast_core::{Code, Coded, Digest, LeaseId, Principal, Secret, Timestamp, Untrusted};
use holdfast_store::ledger::{Ledger, LedgerError};
use holdfast_store::record::{Record, RecordError, Records};
use serde::{Deserialize, Serialize};

use crate::clock::{self, RandomError};
use crate::lease::Issued;
use crate::limits::CUSTODY_FILE_BYTES_MAX;

/// A credential as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    provider: String,
    hosts: Vec<String>,
    lease: LeaseId,
    token: Digest,
    credential: String,
    file: PathBuf,
    mode: u32,
    /// Digest of the file as custody left it.
    left: Digest,
    taken: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restored: Option<Timestamp>,
}

impl Record for Kept {
    const KIND: &'static str = "custody";
}

/// The file as it was before, in Base64; it contains the credential.
#[derive(Serialize, Deserialize)]
struct Original {
    bytes: String,
}

impl Record for Original {
    const KIND: &'static str = "custody-original";
}

/// What lies in custody, without the credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CustodyItem {
    /// Its id.
    pub id: String,
    /// The provider, by its pack's name.
    pub provider: String,
    /// The hosts that the credential may go to.
    pub hosts: Vec<String>,
    /// The lease whose token stands for it.
    pub lease: LeaseId,
    /// The file that it was taken from.
    pub file: PathBuf,
    /// When it was taken.
    pub taken: Timestamp,
    /// When the file was put back, if it was.
    pub restored: Option<Timestamp>,
}

/// What is to be taken into custody.
pub struct TakeRequest<'a> {
    /// The file that holds it.
    pub file: &'a Path,
    /// The credential.
    pub credential: &'a Secret,
    /// The provider, by its pack's name.
    pub provider: &'a str,
    /// The hosts that it may go to.
    pub hosts: &'a [String],
    /// The lease that stands for it.
    pub issued: &'a Issued,
    /// What takes its place: the lease's token, or the lease's connection string for a database.
    pub replacement: &'a Secret,
}

impl fmt::Debug for TakeRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakeRequest")
            .field("file", &self.file)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// Why a credential is not taken, found or put back.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The file does not hold the credential any more.
    #[error("`{}` does not hold the credential any more; it is unchanged", .0.display())]
    Absent(PathBuf),
    /// The file holds something else than custody left there.
    #[error("`{}` was changed since; it is left as it is", .0.display())]
    Changed(PathBuf),
    /// The file cannot be read or written.
    #[error("cannot {step} `{}`; it is unchanged", path.display())]
    File {
        /// What was done.
        step: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The ledger could not be written, so nothing was done.
    #[error("the taking cannot be recorded; the file is unchanged")]
    Ledger(#[source] LedgerError),
    /// No randomness for an id.
    #[error("no id can be made")]
    Random(#[source] RandomError),
    /// The state file could not be read or written.
    #[error("custody cannot keep it; the file is unchanged")]
    Record(#[source] RecordError),
    /// The file is too long, or no ordinary file.
    #[error("`{}` is no ordinary file of at most {CUSTODY_FILE_BYTES_MAX} bytes", .0.display())]
    Unfit(PathBuf),
    /// There is no such item.
    #[error("there is no `{0}` in custody")]
    Unknown(String),
}

impl Coded for CustodyError {
    fn code(&self) -> Code {
        match self {
            Self::Absent(_)
            | Self::Changed(_)
            | Self::File { .. }
            | Self::Unfit(_)
            | Self::Unknown(_) => Code::ZU506,
            Self::Ledger(error) => error.code(),
            Self::Random(_) => Code::ZS202,
            Self::Record(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Absent(_) | Self::Unfit(_) | Self::Unknown(_) => {
                Some("run `holdfast scan` again".to_owned())
            }
            Self::Changed(_) => {
                Some("look at the file, and put the credential in by hand".to_owned())
            }
            Self::File { .. } => {
                Some("let holdfast read and write the file and its folder".to_owned())
            }
            Self::Ledger(error) => error.hint(),
            Self::Random(_) => None,
            Self::Record(error) => error.hint(),
        }
    }
}

/// All credentials in custody. Clones share one state file.
#[derive(Clone)]
pub struct Custody {
    records: Records,
    ledger: Ledger,
}

impl Custody {
    /// Makes the view on what lies in custody.
    pub fn new(records: Records, ledger: Ledger) -> Self {
        Self { records, ledger }
    }

    /// Returns what lies in custody, newest first.
    ///
    /// # Errors
    /// [`CustodyError::Record`].
    pub fn list(&self) -> Result<Vec<CustodyItem>, CustodyError> {
        let mut items: Vec<CustodyItem> = self.kept()?.iter().map(Kept::item).collect();
        items.sort_by(|a, b| b.taken.cmp(&a.taken).then_with(|| a.id.cmp(&b.id)));
        Ok(items)
    }

    /// Takes a credential out of a file and puts a lease token in its place.
    ///
    /// Kept durably first, then the file is replaced in one step, with its mode, at every place where
    /// the credential stands. A link is followed; its target is replaced.
    ///
    /// # Errors
    /// [`CustodyError`]; the file is unchanged.
    pub fn take(
        &self,
        request: &TakeRequest<'_>,
        by: Principal,
    ) -> Result<CustodyItem, CustodyError> {
        let file = file::read(request.file)?;
        let secret = request.credential.expose().as_bytes();
        let replacement = request.replacement.expose().as_bytes();
        let replaced = file::replace(&file.bytes, secret, replacement);
        let replaced = replaced.ok_or_else(|| CustodyError::Absent(file.path.clone()))?;
        let now = clock::now();
        let id: [u8; 6] = clock::random().map_err(CustodyError::Random)?;
        let kept = Kept {
            id: format!("custody-{}", HEXLOWER.encode(&id)),
            provider: request.provider.to_owned(),
            hosts: request.hosts.to_vec(),
            lease: request.issued.lease.id.clone(),
            token: request.issued.lease.token,
            credential: request.credential.expose().to_owned(),
            file: file.path.clone(),
            mode: file.mode,
            left: Digest::of(&replaced),
            taken: now,
            restored: None,
        };
        let entry = self.entry("custody.taken", &kept, by, now);
        self.ledger.append(entry).map_err(CustodyError::Ledger)?;
        let original = Original {
            bytes: BASE64.encode(&file.bytes),
        };
        self.records
            .insert(&kept.id, &original)
            .and_then(|()| self.records.insert(&kept.id, &kept))
            .map_err(CustodyError::Record)?;
        file::write(&file.path, &replaced, file.mode)?;
        Ok(kept.item())
    }

    /// Puts a file back as it was, when nobody has changed it since.
    ///
    /// # Errors
    /// [`CustodyError`]; the file is unchanged, and the credential stays in custody.
    pub fn restore(&self, id: &str, by: Principal) -> Result<CustodyItem, CustodyError> {
        let unknown = || CustodyError::Unknown(Untrusted(id).to_string());
        let found = self
            .records
            .find::<Kept>(id)
            .map_err(CustodyError::Record)?;
        let (mut kept, version) = found.ok_or_else(unknown)?;
        let original = self
            .records
            .find::<Original>(id)
            .map_err(CustodyError::Record)?;
        let (original, _) = original.ok_or_else(unknown)?;
        let original = BASE64
            .decode(original.bytes.as_bytes())
            .map_err(|_| unknown())?;
        let file = file::read(&kept.file)?;
        if Digest::of(&file.bytes) != kept.left && file.bytes != original {
            return Err(CustodyError::Changed(file.path));
        }
        let now = clock::now();
        let entry = self.entry("custody.restored", &kept, by, now);
        self.ledger.append(entry).map_err(CustodyError::Ledger)?;
        file::write(&file.path, &original, kept.mode)?;
        kept.restored = Some(now);
        self.records
            .replace(&kept.id, version, &kept)
            .map_err(CustodyError::Record)?;
        Ok(kept.item())
    }

    /// Returns the credential that a lease token stands for at a host, for the door alone.
    pub(crate) fn credential(
        &self,
        token: &str,
        host: &str,
    ) -> Result<Option<Secret>, CustodyError> {
        let token = Digest::of(token.as_bytes());
        let fits = |kept: &Kept| {
            kept.restored.is_none() && kept.token == token && kept.hosts.iter().any(|h| h == host)
        };
        let kept = self.kept()?;
        Ok(kept
            .iter()
            .find(|one| fits(one))
            .map(|one| Secret::new(&one.credential)))
    }

    /// Tells whether anything in custody is for this host.
    pub(crate) fn is_bound(&self, host: &str) -> bool {
        let bound = |kept: &Kept| kept.restored.is_none() && kept.hosts.iter().any(|h| h == host);
        self.kept().is_ok_and(|kept| kept.iter().any(bound))
    }

    fn kept(&self) -> Result<Vec<Kept>, CustodyError> {
        let kept = self.records.list::<Kept>().map_err(CustodyError::Record)?;
        Ok(kept.into_iter().map(|(kept, _)| kept).collect())
    }

    fn entry(&self, kind: &str, kept: &Kept, by: Principal, now: Timestamp) -> Draft {
        Draft::new(kind, by, now)
            .lease(kept.lease.clone())
            .with("custody", kept.id.clone())
            .with("provider", kept.provider.clone())
            .with("file", kept.file.display().to_string())
    }
}

impl Kept {
    fn item(&self) -> CustodyItem {
        CustodyItem {
            id: self.id.clone(),
            provider: self.provider.clone(),
            hosts: self.hosts.clone(),
            lease: self.lease.clone(),
            file: self.file.clone(),
            taken: self.taken,
            restored: self.restored,
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // What is left of the credential in memory is overwritten, as `Secret` does.
        drop(Secret::new(std::mem::take(&mut self.credential)));
    }
}

#[cfg(test)]
mod tests;
