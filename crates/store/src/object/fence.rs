//! The fence: one writer, also where no file lock reaches.
//!
//! Every writer claims the next epoch by creating its object; of many, the storage lets one win.
//! A writer looks for the epoch after its own before it confirms anything, at bounded intervals; once
//! that one is there, it writes nothing more. Who takes over must first have seen, by the storage's own
//! clock, that the writer before has been silent for [`SILENT_BEATS`] of its heartbeats.

mod identity;
mod record;
mod store;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::{Code, Coded, Timestamp};

use super::{ObjectError, ObjectKey, ObjectStore};
use record::{Beat, Claim, Records};

pub use identity::WriterIdentity;
pub use record::{FENCE_FOLDER, Holder, beat_time};
pub use store::FencedStore;

/// So many heartbeats must be missing until a writer counts as gone.
pub const SILENT_BEATS: u32 = 5;
/// The longest time between two looks for a newer epoch.
pub const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Why a repository cannot be written by this process. Nothing was written, except what is said.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The writer was heard too short a time ago.
    #[error(
        "the writer {holder} was heard at {last} and it is {now} by the storage's clock; it counts as gone after {silence_s} s"
    )]
    Alive {
        /// Who.
        holder: Holder,
        /// When it was heard.
        last: Timestamp,
        /// The storage's clock.
        now: Timestamp,
        /// Seconds of silence that count.
        silence_s: u64,
    },
    /// Another vault took over what this state directory wrote to.
    #[error("another vault has taken over the repository with epoch {by}")]
    Fenced {
        /// Its epoch.
        by: u64,
    },
    /// Another vault writes here.
    #[error("the repository belongs to the writer {holder}, heard at {last}")]
    Held {
        /// Who.
        holder: Holder,
        /// When it was heard.
        last: Timestamp,
    },
    /// The state directory cannot be used.
    #[error("cannot {step} `{what}`")]
    Io {
        /// What was attempted.
        step: &'static str,
        /// On what.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another writer claimed the epoch at the same moment.
    #[error("another vault claimed epoch {0} at the same moment")]
    Lost(u64),
    /// The storage refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Another process runs from the state directory.
    #[error("another process writes from the state directory `{state}`")]
    Running {
        /// Which directory.
        state: String,
    },
}

impl Coded for FenceError {
    fn code(&self) -> Code {
        match self {
            Self::Alive { .. } => Code::ZS352,
            Self::Fenced { .. } => Code::ZI352,
            Self::Held { .. } | Self::Lost(_) => Code::ZU353,
            Self::Io { .. } => Code::ZS251,
            Self::Object(error) => error.code(),
            Self::Running { .. } => Code::ZU254,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Alive { .. } => {
                "nothing was changed; stop that vault, then try again after that time".to_owned()
            }
            Self::Fenced { .. } => {
                "this vault writes nothing more; if it shall write again, stop the other \
                and run `holdfast vault takeover`"
                    .to_owned()
            }
            Self::Held { .. } => {
                "one vault writes to a repository; if that one is gone for good, run \
                `holdfast vault takeover`"
                    .to_owned()
            }
            Self::Lost(_) => "nothing was changed; leave one of the two running".to_owned(),
            Self::Io { .. } => {
                "nothing was written; check the disk and who owns the state directory".to_owned()
            }
            Self::Object(error) => return error.hint(),
            Self::Running { .. } => "nothing was changed; stop that process first".to_owned(),
        })
    }
}

/// What was found before a takeover.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Silence {
    /// Who wrote, if anybody did.
    pub holder: Option<Holder>,
    /// When it was heard, by the storage's clock.
    pub last: Option<Timestamp>,
    /// The storage's clock.
    pub now: Timestamp,
    /// It said itself that it stops.
    pub released: bool,
    /// Seconds of silence after which it counts as gone.
    pub silence_s: u64,
}

impl Silence {
    /// Looks who writes to the repository, and when it was heard.
    ///
    /// # Errors
    /// When the storage cannot be asked or a record cannot be read.
    pub fn look(store: &dyn ObjectStore) -> Result<Self, FenceError> {
        let records = Records::list(store)?;
        let now = store.now()?;
        let Some(newest) = records.newest(store)? else {
            return Ok(Self {
                holder: None,
                last: None,
                now,
                released: false,
                silence_s: 0,
            });
        };
        let silence = newest.claim.silence();
        Ok(Self {
            last: Some(newest.heard()),
            released: newest.released,
            silence_s: silence.as_secs(),
            holder: Some(newest.claim.holder()),
            now,
        })
    }

    /// Tells whether nobody writes any more: it said so, or it was silent for long enough.
    ///
    /// # Errors
    /// [`FenceError::Alive`]; also when the storage's clock is before what it showed at a heartbeat.
    pub fn proves_gone(&self) -> Result<(), FenceError> {
        let (Some(holder), Some(last)) = (&self.holder, self.last) else {
            return Ok(());
        };
        let silence = Duration::from_secs(self.silence_s);
        if self.released || self.now >= last.plus(silence) {
            return Ok(());
        }
        Err(FenceError::Alive {
            holder: holder.clone(),
            last,
            now: self.now,
            silence_s: self.silence_s,
        })
    }
}

/// The right to write, for as long as nobody claims the next epoch. Clones share it.
///
/// Dropped without [`Fence::release`] it stays claimed, as after a crash.
#[derive(Clone)]
pub struct Fence {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn ObjectStore>,
    identity: WriterIdentity,
    claim: Claim,
    beats: AtomicU64,
    /// When the last look that found nothing newer began.
    looked: Mutex<Instant>,
    fenced: AtomicBool,
}

impl Fence {
    /// Claims the next epoch: of a new repository, after a writer that said it stops, or after this
    /// very state directory, whose lock shows that no other process of it runs.
    ///
    /// # Errors
    /// [`FenceError::Held`] when another writer may still be there, [`FenceError::Fenced`] when one
    /// took over from this state directory, [`FenceError::Lost`] when two claim at once.
    pub fn claim(
        store: Arc<dyn ObjectStore>,
        identity: WriterIdentity,
        heartbeat: Duration,
    ) -> Result<Self, FenceError> {
        if let Some(by) = identity.fenced_by() {
            return Err(FenceError::Fenced { by });
        }
        let records = Records::list(store.as_ref())?;
        if let Some(newest) = records.newest(store.as_ref())?
            && newest.claim.writer != identity.id()
            && !newest.released
        {
            return Err(FenceError::Held {
                last: newest.heard(),
                holder: newest.claim.holder(),
            });
        }
        Self::claim_next(store, identity, heartbeat, &records)
    }

    /// Claims the next epoch after proof that the writer before is gone.
    ///
    /// # Errors
    /// [`FenceError::Alive`] when that is not certain; nothing is then changed.
    pub fn take_over(
        store: Arc<dyn ObjectStore>,
        identity: WriterIdentity,
        heartbeat: Duration,
    ) -> Result<(Self, Silence), FenceError> {
        let silence = Silence::look(store.as_ref())?;
        let is_own = silence
            .holder
            .as_ref()
            .is_some_and(|holder| holder.writer == identity.id());
        if !is_own {
            silence.proves_gone()?;
        }
        let records = Records::list(store.as_ref())?;
        let fence = Self::claim_next(store, identity, heartbeat, &records)?;
        fence.shared.identity.take_over(fence.epoch())?;
        Ok((fence, silence))
    }

    fn claim_next(
        store: Arc<dyn ObjectStore>,
        identity: WriterIdentity,
        heartbeat: Duration,
        records: &Records,
    ) -> Result<Self, FenceError> {
        let looked = Instant::now();
        let claim = Claim {
            format: 1,
            epoch: records.epoch().saturating_add(1),
            writer: identity.id().to_owned(),
            host: identity.host().to_owned(),
            process: std::process::id(),
            since: store.now()?,
            heartbeat_s: heartbeat.as_secs().max(1),
        };
        match store.create_new(&claim.key()?, &claim.text()?) {
            Err(ObjectError::Exists(_)) => return Err(FenceError::Lost(claim.epoch)),
            stored => stored?,
        }
        let shared = Shared {
            store,
            identity,
            claim,
            beats: AtomicU64::new(0),
            looked: Mutex::new(looked),
            fenced: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns the epoch.
    pub fn epoch(&self) -> u64 {
        self.shared.claim.epoch
    }

    /// Returns the object that claims the epoch: without it nobody could say who writes.
    ///
    /// # Errors
    /// Never for an epoch that was claimed.
    pub fn claim_key(&self) -> Result<ObjectKey, ObjectError> {
        self.shared.claim.key()
    }

    /// Tells whether a newer epoch was seen; nothing is written any more then.
    pub fn is_fenced(&self) -> bool {
        self.shared.fenced.load(Ordering::Acquire)
    }

    /// Returns how long a look for a newer epoch is believed.
    pub fn check_every(&self) -> Duration {
        CHECK_EVERY.min(self.heartbeat())
    }

    /// Returns the time between two heartbeats.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.shared.claim.heartbeat_s)
    }

    /// Looks whether a newer epoch exists, now.
    ///
    /// # Errors
    /// [`ObjectError::Fenced`] when one does, and for good; what the storage says when it cannot be
    /// asked, and then nothing may be confirmed.
    pub fn check(&self) -> Result<(), ObjectError> {
        let shared = &self.shared;
        let next = shared.claim.epoch.saturating_add(1);
        let fenced = ObjectError::Fenced {
            epoch: shared.claim.epoch,
            by: next,
        };
        if self.is_fenced() {
            return Err(fenced);
        }
        let began = Instant::now();
        if shared.store.head(&Claim::key_of(next)?)?.is_some() {
            shared.fenced.store(true, Ordering::Release);
            // It must not come back by a restart; that it stops now does not depend on it.
            let _ = shared.identity.fence(next);
            return Err(fenced);
        }
        *shared.looked.lock().unwrap_or_else(PoisonError::into_inner) = began;
        Ok(())
    }

    /// Looks for a newer epoch unless that was done within [`Fence::check_every`].
    ///
    /// # Errors
    /// As [`Fence::check`].
    pub fn ensure(&self) -> Result<(), ObjectError> {
        let looked = *self
            .shared
            .looked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !self.is_fenced() && looked.elapsed() < self.check_every() {
            return Ok(());
        }
        self.check()
    }

    /// Leaves a heartbeat, stamped with the storage's time, and returns that time.
    ///
    /// # Errors
    /// As [`Fence::check`], and when the storage refuses.
    pub fn beat(&self) -> Result<Timestamp, ObjectError> {
        self.check()?;
        let shared = &self.shared;
        let beat = Beat {
            epoch: shared.claim.epoch,
            number: shared
                .beats
                .fetch_add(1, Ordering::Relaxed)
                .saturating_add(1),
            at: shared.store.now()?,
        };
        shared.store.create_new(&beat.key()?, &beat.text()?)?;
        Ok(beat.at)
    }

    /// Says that this writer stops, so that another one need not wait.
    ///
    /// # Errors
    /// When the storage refuses; a takeover then waits for the silence.
    pub fn release(&self) -> Result<(), ObjectError> {
        let shared = &self.shared;
        self.check()?;
        let beat = Beat {
            epoch: shared.claim.epoch,
            number: 0,
            at: shared.store.now()?,
        };
        match shared.store.create_new(&beat.released()?, &beat.text()?) {
            Err(ObjectError::Exists(_)) => Ok(()),
            stored => stored,
        }
    }
}

#[cfg(test)]
mod tests;
