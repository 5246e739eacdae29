//! How a clone stands while it is served: whether it still may, and what becomes of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use holdfast_core::{ByteCount, Timestamp};

use super::folder::{self, failed};
use super::open::{ThinClone, admit};
use super::record::CloneState;
use super::{CloneError, CloneId, CloneRequest, processes};

/// How a clone stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its time is up.
    Expired,
    /// It serves.
    Good,
    /// It has ended by itself, or took more than it may.
    Halted(String),
}

/// Makes the folder of a clone that another process will open; the limits are looked at.
///
/// # Errors
/// [`CloneError`] when there would be more than there may be; nothing then stays.
pub fn prepare(request: &CloneRequest) -> Result<CloneId, CloneError> {
    let (folder, record) = admit(request)?;
    drop(folder);
    Ok(record.id)
}

impl ThinClone {
    /// Looks whether its server runs and whether it takes no more than it may.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        if now >= self.record.expires {
            return Standing::Expired;
        }
        match &self.server {
            None => return Standing::Halted("its server was stopped".to_owned()),
            Some(server) => {
                if let Some(status) = server.ended() {
                    let error = server.trouble(format!("its server ended ({status})"));
                    return Standing::Halted(error.to_string());
                }
            }
        }
        let data = self.data();
        let disk = ByteCount(folder::occupied(&data));
        if disk > self.record.disk_max {
            let max = self.record.disk_max;
            return Standing::Halted(format!("it took {disk} of the disk, and may take {max}"));
        }
        let memory = ByteCount(processes::memory(&data));
        if memory > self.record.memory_max {
            let max = self.record.memory_max;
            return Standing::Halted(format!(
                "it took {memory} of the memory, and may take {max}"
            ));
        }
        Standing::Good
    }

    /// Stops its server and lets its folder say why; what is in it stays until it is closed.
    ///
    /// # Errors
    /// [`CloneError`] when the server does not stop or the record cannot be written.
    pub fn halt(&mut self, why: String) -> Result<(), CloneError> {
        self.leave();
        self.record.state = CloneState::Halted;
        self.record.why = Some(why);
        self.write()?;
        self.stop()
    }

    /// Looks whether `into` can become its data directory, before anything is changed.
    ///
    /// # Errors
    /// [`CloneError::State`] when it is not new, or lies on another disk.
    pub fn may_be_kept(&self, into: &Path) -> Result<(), CloneError> {
        let refused = |what: &str| {
            Err(CloneError::State {
                id: self.record.id.clone(),
                what: "kept",
                why: format!("`{}` {what}", into.display()),
            })
        };
        let parent = into.parent().and_then(|parent| fs::metadata(parent).ok());
        let own = fs::metadata(self.path()).ok();
        match (parent, own) {
            _ if !into.is_absolute() => refused("is not an absolute path"),
            _ if fs::symlink_metadata(into).is_ok() => refused("is there already"),
            (None, _) => refused("has no folder to lie in"),
            (Some(parent), Some(own)) if parent.dev() != own.dev() => {
                refused("is on another disk than the clones")
            }
            _ => Ok(()),
        }
    }

    /// Makes an ordinary data directory of it: its server is stopped in order, its data gets the name
    /// `into`, and everything else of it goes.
    ///
    /// # Errors
    /// [`CloneError`]; what was refused by [`ThinClone::may_be_kept`] has changed nothing, and of
    /// anything else the data stays where it is.
    pub fn keep(mut self, into: &Path) -> Result<PathBuf, CloneError> {
        self.leave();
        self.may_be_kept(into)?;
        self.lock_keeper_out()?;
        self.stop()?;
        let data = self.data();
        fs::rename(&data, into).map_err(|error| failed("move", &data, error))?;
        let parents = [into.parent(), data.parent()];
        for parent in parents.into_iter().flatten() {
            holdfast_store::durable::sync_folder(parent)
                .map_err(|error| failed("make durable", parent, error))?;
        }
        self.close()?;
        Ok(into.to_owned())
    }

    /// Takes our own role's right to log in away: the directory belongs to somebody else from now on.
    fn lock_keeper_out(&self) -> Result<(), CloneError> {
        let step = "lock our own role out";
        let sql = format!(
            "ALTER ROLE \"{}\" NOLOGIN PASSWORD NULL",
            self.record.keeper.name
        );
        let connected = self
            .connect("postgres")
            .or_else(|_| self.connect("template1"));
        let done = connected.and_then(|mut connection| connection.query(&sql, step));
        done.map(|_| ()).map_err(|source| CloneError::Disarm {
            id: self.record.id.clone(),
            step,
            source,
        })
    }
}
