//! What a clone's folder says of it, and how that is kept: checked, so that half of a record or one
//! that somebody edited is not believed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_core::{ByteCount, Lsn, PointId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{CloneError, CloneId, CloneRequest, Confinement, Disabled, Form, FormWish, Hydrated};
use crate::limits;

/// The file in a clone's folder.
pub(super) const FILE: &str = "clone.json";
/// What every record begins with.
const FORMAT: &str = "holdfast-clone";
/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// How far a clone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloneState {
    /// Its data is brought.
    Filling,
    /// It has ended by itself; what is on disk stays until it is closed.
    Halted,
    /// It takes connections.
    Open,
    /// Its server replays the log.
    Recovering,
}

/// How long the parts of opening took, in seconds since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// Until the server could be started.
    pub data_s: f64,
    /// Until it was promoted and had committed a first write.
    pub write_s: f64,
    /// Until everything that could reach outside was disabled, and it was open.
    pub open_s: f64,
}

/// A role of a clone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) password: String,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Role({})", self.name)
    }
}

/// What is known of a clone, as it is kept in its folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloneRecord {
    /// What it is called.
    pub id: CloneId,
    /// Of which source it is.
    pub source: holdfast_core::SourceName,
    /// The moment as it was asked for.
    pub at: String,
    /// The timeline that was asked for.
    pub timeline: Option<u32>,
    /// Who asked for it.
    pub owner: String,
    /// The lease that may use it.
    pub writable_by: Option<String>,
    /// How its data came.
    pub form: Form,
    /// How far it is.
    pub state: CloneState,
    /// Why it halted.
    pub why: Option<String>,
    /// When it was asked for.
    pub made: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// What it may take of the disk.
    pub disk_max: ByteCount,
    /// What it may take of the memory.
    pub memory_max: ByteCount,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The database that its connection string names.
    pub database: String,
    /// The restore point that it was opened from.
    pub point: Option<PointId>,
    /// The log was there up to here.
    pub wal_end: Option<Lsn>,
    /// The newest commit in the log that was brought, if it was read.
    pub newest_commit: Option<Timestamp>,
    /// What whoever asked should know about the target.
    pub notes: Vec<String>,
    /// What keeps it in.
    pub confinement: Option<Confinement>,
    /// What was disabled.
    pub disabled: Vec<Disabled>,
    /// How long opening took.
    pub took: Took,
    /// How much of it has come, when it is mounted.
    #[serde(default)]
    pub hydration: Option<Hydrated>,
    /// In which form it was asked for.
    #[serde(default)]
    pub(super) wish: FormWish,
    /// How fast the rest of it is brought in the background.
    #[serde(default)]
    pub(super) hydrate: Option<ByteCount>,
    /// The start of the machine that it was last opened in.
    pub(super) boot: String,
    /// The private folder of its server's socket.
    pub(super) sockets: PathBuf,
    /// How often it was opened again.
    pub(super) reopened: u32,
    /// Whoever uses it.
    pub(super) role: Role,
    /// We ourselves.
    pub(super) keeper: Role,
}

/// A clone as it is shown: without our own way in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloneShown {
    /// What it is called.
    pub id: CloneId,
    /// Of which source it is.
    pub source: holdfast_core::SourceName,
    /// The moment as it was asked for.
    pub at: String,
    /// Who asked for it.
    pub owner: String,
    /// The lease that may use it.
    pub writable_by: Option<String>,
    /// How its data came.
    pub form: Form,
    /// How far it is.
    pub state: CloneState,
    /// Why it halted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The connection string, with its password.
    pub url: String,
    /// The role in it.
    pub role: String,
    /// When it was asked for.
    pub made: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// What it may take of the disk.
    pub disk_max: ByteCount,
    /// What it takes of it.
    pub disk: ByteCount,
    /// What it may take of the memory.
    pub memory_max: ByteCount,
    /// What its processes take of it.
    pub memory: ByteCount,
    /// Its folder.
    pub directory: PathBuf,
    /// The restore point that it was opened from.
    pub point: Option<PointId>,
    /// The log was there up to here.
    pub wal_end: Option<Lsn>,
    /// The newest commit in the log that was brought, if it was read.
    pub newest_commit: Option<Timestamp>,
    /// What whoever asked should know about the target.
    pub notes: Vec<String>,
    /// What keeps it in.
    pub confinement: Option<Confinement>,
    /// What was disabled.
    pub disabled: Vec<Disabled>,
    /// How long opening took.
    pub took: Took,
    /// How often it was opened again after its process had ended.
    pub reopened: u32,
    /// How much of it has come, when it is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hydration: Option<Hydrated>,
}

impl CloneRecord {
    /// Returns the record of a clone that is about to be opened.
    pub(super) fn new(
        (id, request): (CloneId, &CloneRequest),
        (now, ttl): (Timestamp, Duration),
        roles: (Role, Role),
        sockets: PathBuf,
    ) -> Self {
        Self {
            id,
            source: request.source.clone(),
            at: request.at.to_string(),
            timeline: request.timeline,
            owner: request.owner.clone(),
            writable_by: request.writable_by.clone(),
            form: Form::Restored,
            state: CloneState::Filling,
            why: None,
            made: now,
            expires: now.plus(ttl),
            disk_max: request.clones.disk_max,
            memory_max: request.clones.memory_max,
            port: request.port.unwrap_or(0),
            database: request.database.clone().unwrap_or_default(),
            point: None,
            wal_end: None,
            newest_commit: None,
            notes: Vec::new(),
            confinement: None,
            disabled: Vec::new(),
            took: Took::default(),
            hydration: None,
            wish: request.clones.form,
            hydrate: request.clones.hydrate,
            boot: String::new(),
            sockets,
            reopened: 0,
            role: roles.0,
            keeper: roles.1,
        }
    }

    /// Returns the connection string of whoever uses it.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgresql://{}:{}@127.0.0.1:{}/{}",
            self.role.name,
            self.role.password,
            self.port,
            percent(&self.database)
        )
    }

    /// Returns it as it is shown.
    #[must_use]
    pub fn shown(&self, directory: &Path, (disk, memory): (ByteCount, ByteCount)) -> CloneShown {
        CloneShown {
            id: self.id.clone(),
            source: self.source.clone(),
            at: self.at.clone(),
            owner: self.owner.clone(),
            writable_by: self.writable_by.clone(),
            form: self.form,
            state: self.state,
            why: self.why.clone(),
            url: self.url(),
            role: self.role.name.clone(),
            made: self.made,
            expires: self.expires,
            disk_max: self.disk_max,
            disk,
            memory_max: self.memory_max,
            memory,
            directory: directory.to_owned(),
            point: self.point.clone(),
            wal_end: self.wal_end,
            newest_commit: self.newest_commit,
            notes: self.notes.clone(),
            confinement: self.confinement.clone(),
            disabled: self.disabled.clone(),
            took: self.took,
            reopened: self.reopened,
            hydration: self.hydration.clone(),
        }
    }
}

/// Writes a name as it stands in a connection string.
fn percent(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// A record in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: String,
    version: u32,
    /// Of the record's text, exactly as it stands here.
    sha256: String,
    record: Box<RawValue>,
}

/// Writes a record as it lies in its file.
pub(super) fn write(record: &CloneRecord) -> Result<Vec<u8>, serde_json::Error> {
    let record = serde_json::value::to_raw_value(record)?;
    serde_json::to_vec(&Envelope {
        format: FORMAT.to_owned(),
        version: VERSION,
        sha256: digest(&record),
        record,
    })
}

/// Reads a record from the bytes of the file `path`.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<CloneRecord, CloneError> {
    let refused = |why: String| CloneError::Record {
        path: path.to_owned(),
        why,
    };
    if bytes.len() > limits::CLONE_RECORD_BYTES {
        return Err(refused("it is too long".to_owned()));
    }
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?;
    if envelope.format != FORMAT || envelope.version != VERSION {
        return Err(refused("it is of another version".to_owned()));
    }
    if envelope.sha256 != digest(&envelope.record) {
        return Err(refused("its checksum does not fit".to_owned()));
    }
    serde_json::from_str(envelope.record.get()).map_err(|error| refused(error.to_string()))
}

fn digest(record: &RawValue) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(record.get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone::ClonesConfig;
    use crate::restore::RestoreTarget;

    fn record() -> CloneRecord {
        let clones = ClonesConfig::beside(Path::new("/s/vault"));
        let source: holdfast_core::SourceName = "prod".parse().unwrap();
        let mut request = CloneRequest::new(clones, source.clone(), RestoreTarget::Latest);
        request.database = Some("a b/ü".to_owned());
        let role = |name: &str| Role {
            name: name.to_owned(),
            password: "hunter2".to_owned(),
        };
        let roles = (role("clone_1"), role("keeper_1"));
        let id = CloneId::new(&source, [1, 2, 3]);
        let times = (Timestamp(5), Duration::from_secs(60));
        CloneRecord::new((id, &request), times, roles, "/s".into())
    }

    #[test]
    fn a_record_is_read_back_and_a_changed_or_cut_one_is_not() {
        let record = record();
        let bytes = write(&record).unwrap();
        let path = Path::new("clone.json");
        assert_eq!(read(&bytes, path).unwrap(), record);
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], path).is_err(), "{length}");
        }
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [("60000000", "90000000"), ("\"version\":1", "\"version\":2")] {
            assert!(text.contains(from) || from == "60000000", "{from}");
            let other = text.replace("keeper_1", "keeper_2").replace(from, to);
            assert!(read(other.as_bytes(), path).is_err(), "{from}");
        }
        assert!(read(&vec![b' '; limits::CLONE_RECORD_BYTES + 1], path).is_err());
    }

    #[test]
    fn what_is_shown_has_our_own_password_nowhere_and_the_url_is_one() {
        let mut record = record();
        record.keeper.password = "keepers".to_owned();
        let shown = record.shown(Path::new("/s/clones/x"), (ByteCount(0), ByteCount(0)));
        assert_eq!(
            shown.url,
            "postgresql://clone_1:hunter2@127.0.0.1:0/a%20b%2F%C3%BC"
        );
        assert!(!serde_json::to_string(&shown).unwrap().contains("keepers"));
        assert!(!format!("{record:?}").contains("hunter2"));
    }
}
