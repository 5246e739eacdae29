//! How a clone stands while it is served: whether it still may, and what becomes of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use holdfast_core::{ByteCount, Timestamp};

use super::folder::{self, failed};
use super::mounted::{self, Hydrated};
use super::open::{ThinClone, admit};
use super::record::CloneState;
use super::{CloneError, CloneId, CloneRequest, Form, processes};
use crate::limits;
use crate::restore::{Held, Place};

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
        let disk = folder::disk(self.path(), self.record.form);
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
        self.bring_rest()?;
        self.lock_keeper_out()?;
        self.stop()?;
        let data = self.own_data()?;
        fs::rename(&data, into).map_err(|error| failed("move", &data, error))?;
        let parents = [into.parent(), data.parent()];
        for parent in parents.into_iter().flatten() {
            holdfast_store::durable::sync_folder(parent)
                .map_err(|error| failed("make durable", parent, error))?;
        }
        self.close()?;
        Ok(into.to_owned())
    }

    /// Waits until everything of a mounted clone has come.
    fn bring_rest(&self) -> Result<(), CloneError> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        self.begin_to_hydrate(held, None)?;
        loop {
            let Some(hydration) = held.hydration() else {
                return Ok(());
            };
            match (hydration.is_complete, hydration.failed) {
                (true, _) => return Ok(()),
                (false, Some(why)) => return Err(self.not_kept(why)),
                (false, None) => std::thread::sleep(limits::CLONE_POLL),
            }
        }
    }

    /// Returns the data directory that is on the disk, when nothing serves it any more.
    fn own_data(&mut self) -> Result<PathBuf, CloneError> {
        let (Form::Mounted, Some(folder)) = (self.record.form, &self.folder) else {
            return Ok(self.data());
        };
        let overlay = folder.overlay();
        if let Some(held) = self.held.take() {
            held.close()?;
        }
        match mounted::unfinished(&overlay) {
            0 => Ok(overlay.join("data")),
            left => Err(self.not_kept(format!("{left} files of it are not whole"))),
        }
    }

    fn not_kept(&self, why: String) -> CloneError {
        CloneError::State {
            id: self.record.id.clone(),
            what: "kept",
            why,
        }
    }

    /// Brings the rest of a mounted clone in the background, at most so many bytes in a second; what is
    /// asked for comes first. Called again, it only sets the bound.
    ///
    /// # Errors
    /// [`CloneError::State`] when everything would be more than it may take of the disk.
    pub fn hydrate(&mut self, rate: Option<ByteCount>) -> Result<(), CloneError> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        if let Some(why) = self.too_much() {
            return Err(CloneError::State {
                id: self.record.id.clone(),
                what: "hydrated",
                why,
            });
        }
        self.begin_to_hydrate(held, rate)?;
        // So that it goes on when the clone is opened again.
        self.record.hydrate = rate.or(Some(ByteCount(u64::MAX)));
        self.write()
    }

    fn begin_to_hydrate(&self, held: &Held, rate: Option<ByteCount>) -> Result<(), CloneError> {
        let begun = held.hydrate(rate);
        begun.map_err(|error| failed("bring the rest of", &self.data(), error))
    }

    /// Begins what the clone was made with.
    pub(super) fn hydrate_beside(&mut self) -> Result<(), CloneError> {
        let (Some(held), Some(rate)) = (&self.held, self.record.hydrate) else {
            return Ok(());
        };
        match self.too_much() {
            None => self.begin_to_hydrate(held, Some(rate)),
            Some(why) => {
                let note = format!("the rest of it is not brought in the background: {why}");
                if !self.record.notes.contains(&note) {
                    self.record.notes.push(note);
                }
                Ok(())
            }
        }
    }

    fn too_much(&self) -> Option<String> {
        let (all, max) = (self.hydrated()?.total, self.record.disk_max);
        (all > max).then(|| format!("everything is {all}, and it may take {max} of the disk"))
    }

    /// Tells how much of a mounted clone has come.
    #[must_use]
    pub fn hydrated(&self) -> Option<Hydrated> {
        self.held.as_ref()?.hydration().map(Hydrated::from)
    }

    /// Writes down how much has come, for whoever lists the clones.
    ///
    /// # Errors
    /// [`CloneError::Folder`] when that cannot be written.
    pub fn note_hydration(&mut self) -> Result<(), CloneError> {
        let now = self.hydrated();
        let is_known = match (&self.record.hydration, &now) {
            (Some(known), Some(now)) => known.is_near(now),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if is_known {
            return Ok(());
        }
        self.record.hydration = now;
        self.write()
    }

    /// Mounts it again, if it is a mounted one.
    pub(super) fn mount_again(&mut self, place: &Place) -> Result<(), CloneError> {
        let (Form::Mounted, Some(folder), Some(point)) =
            (self.record.form, &self.folder, &self.record.point)
        else {
            return Ok(());
        };
        self.held = Some(mounted::again(place, folder, (&self.record.source, point))?);
        Ok(())
    }

    /// Ends its mount; what was written stays in its overlay.
    pub(super) fn unmount(&mut self) {
        if let Some(Err(error)) = self.held.take().map(Held::close) {
            let what = holdfast_core::ErrorChain(&error).to_string();
            tracing::warn!(clone = %self.record.id, what, "a clone's mount has not ended well");
        }
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
