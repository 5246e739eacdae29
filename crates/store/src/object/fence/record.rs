//! What writers leave in the repository: claims, heartbeats, a word when they stop.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use holdfast_core::{ByteCount, Timestamp, Untrusted};
use serde::{Deserialize, Serialize};

use super::super::{ObjectError, ObjectKey, ObjectStore};
use super::{FenceError, SILENT_BEATS};

/// The folder of the records; no source can have this name, because it has more to it than one.
pub const FENCE_FOLDER: &str = "holdfast-writer";
/// The largest record, in bytes.
const LIMIT_RECORD_BYTES: u64 = 4 * 1024;
const CLAIM: &str = "claim.json";
const RELEASED: &str = "released.json";

/// Who writes, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The random name of its state directory.
    pub writer: String,
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub process: u32,
    /// Its epoch.
    pub epoch: u64,
    /// Since when, by the storage's clock.
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.writer.chars().take(8).collect();
        write!(
            f,
            "`{}` (process {} on `{}`, epoch {}, since {})",
            Untrusted(&short),
            self.process,
            Untrusted(&self.host),
            self.epoch,
            self.since
        )
    }
}

/// One writer's claim to an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claim {
    pub(super) format: u32,
    pub(super) epoch: u64,
    pub(super) writer: String,
    pub(super) host: String,
    pub(super) process: u32,
    /// By the storage's clock.
    pub(super) since: Timestamp,
    pub(super) heartbeat_s: u64,
}

impl Claim {
    pub(super) fn key_of(epoch: u64) -> Result<ObjectKey, ObjectError> {
        key(&format!("{FENCE_FOLDER}/{epoch:010}/{CLAIM}"))
    }

    pub(super) fn key(&self) -> Result<ObjectKey, ObjectError> {
        Self::key_of(self.epoch)
    }

    pub(super) fn text(&self) -> Result<Vec<u8>, ObjectError> {
        text(self)
    }

    pub(super) fn silence(&self) -> Duration {
        Duration::from_secs(self.heartbeat_s).saturating_mul(SILENT_BEATS)
    }

    pub(super) fn holder(&self) -> Holder {
        Holder {
            writer: self.writer.clone(),
            host: self.host.clone(),
            process: self.process,
            epoch: self.epoch,
            since: self.since,
        }
    }
}

/// One sign of life; with number 0 the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beat {
    pub(super) epoch: u64,
    pub(super) number: u64,
    /// By the storage's clock.
    pub(super) at: Timestamp,
}

impl Beat {
    pub(super) fn key(&self) -> Result<ObjectKey, ObjectError> {
        let Self { epoch, number, at } = self;
        let micros = at.0.max(0);
        key(&format!(
            "{FENCE_FOLDER}/{epoch:010}/beat-{number:010}-{micros:020}.json"
        ))
    }

    pub(super) fn released(&self) -> Result<ObjectKey, ObjectError> {
        key(&format!("{FENCE_FOLDER}/{:010}/{RELEASED}", self.epoch))
    }

    pub(super) fn text(&self) -> Result<Vec<u8>, ObjectError> {
        text(self)
    }
}

/// Returns the time of a heartbeat, from its name alone.
pub fn beat_time(name: &str) -> Option<Timestamp> {
    let (_, micros) = name
        .strip_prefix("beat-")?
        .strip_suffix(".json")?
        .split_once('-')?;
    micros.parse().ok().map(Timestamp)
}

/// The newest epoch and what is known of it.
pub(super) struct Newest {
    pub(super) claim: Claim,
    pub(super) released: bool,
    beat: Option<Timestamp>,
}

impl Newest {
    /// Returns when this writer was last heard, by the storage's clock.
    pub(super) fn heard(&self) -> Timestamp {
        self.beat
            .map_or(self.claim.since, |at| at.max(self.claim.since))
    }
}

/// What is there of each epoch, from names alone.
pub(super) struct Records {
    epochs: BTreeMap<u64, Epoch>,
}

#[derive(Default)]
struct Epoch {
    released: bool,
    beat: Option<Timestamp>,
}

impl Records {
    pub(super) fn list(store: &dyn ObjectStore) -> Result<Self, ObjectError> {
        let mut epochs: BTreeMap<u64, Epoch> = BTreeMap::new();
        for (key, _) in store.list(FENCE_FOLDER)? {
            let mut parts = key.as_str().split('/').skip(1);
            let number = parts.next().and_then(|part| part.parse().ok());
            let Some(number) = number else { continue };
            let epoch = epochs.entry(number).or_default();
            epoch.released |= key.name() == RELEASED;
            epoch.beat = epoch.beat.max(beat_time(key.name()));
        }
        Ok(Self { epochs })
    }

    /// Returns the newest epoch, 0 when there is none.
    pub(super) fn epoch(&self) -> u64 {
        self.epochs.keys().next_back().copied().unwrap_or(0)
    }

    /// Reads who claimed the newest epoch.
    pub(super) fn newest(&self, store: &dyn ObjectStore) -> Result<Option<Newest>, FenceError> {
        let Some((number, epoch)) = self.epochs.last_key_value() else {
            return Ok(None);
        };
        let key = Claim::key_of(*number)?;
        let text = store.get(&key, ByteCount(LIMIT_RECORD_BYTES))?;
        let claim: Claim = serde_json::from_slice(&text).map_err(|_| ObjectError::Unreadable {
            place: key.to_string(),
        })?;
        if claim.format != 1 || claim.epoch != *number {
            let place = key.to_string();
            return Err(ObjectError::Unreadable { place }.into());
        }
        Ok(Some(Newest {
            claim,
            released: epoch.released,
            beat: epoch.beat,
        }))
    }
}

fn key(text: &str) -> Result<ObjectKey, ObjectError> {
    text.parse().map_err(|_| ObjectError::Unreadable {
        place: text.to_owned(),
    })
}

fn text(record: &impl Serialize) -> Result<Vec<u8>, ObjectError> {
    serde_json::to_vec(record).map_err(|error| ObjectError::Io {
        step: "write a record of",
        what: FENCE_FOLDER.to_owned(),
        source: std::io::Error::other(error.to_string()),
    })
}
