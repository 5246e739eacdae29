//! The object that says what a repository is.

use holdfast_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::ObjectError;
use crate::envelope::Recipient;

/// The name of the marker, at the top of the repository.
pub const MARKER: &str = "holdfast-repository.json";
/// The largest marker that is read, in bytes.
pub const LIMIT_MARKER_BYTES: u64 = 16 * 1024;
/// The format that this version writes; older ones are read.
const FORMAT: u32 = 2;

/// What the marker states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The repository format, 1 or 2.
    pub format: u32,
    /// A random name that no other repository has.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// The vault's public key, 64 hexadecimal digits: manifests are signed with it.
    pub vault_key: String,
    /// What the first objects were sealed to, from format 2 on. A record, never what is sealed to: that
    /// comes from the vault's own folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<Recipient>,
}

impl Marker {
    /// Reads the marker of the repository at `place`.
    ///
    /// # Errors
    /// [`ObjectError::NewerFormat`], [`ObjectError::Unreadable`].
    pub(super) fn read(text: &[u8], place: &str) -> Result<Self, ObjectError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |_| ObjectError::Unreadable {
            place: place.to_owned(),
        };
        let Format { format } = serde_json::from_slice(text).map_err(unreadable)?;
        if format > FORMAT {
            return Err(ObjectError::NewerFormat {
                place: place.to_owned(),
                found: format,
                known: FORMAT,
            });
        }
        serde_json::from_slice(text).map_err(unreadable)
    }

    /// Returns the text of the marker, for people too.
    pub(super) fn text(&self, place: &str) -> Result<Vec<u8>, ObjectError> {
        serde_json::to_vec_pretty(self).map_err(|error| ObjectError::Io {
            step: "write the marker of",
            what: place.to_owned(),
            source: std::io::Error::other(error.to_string()),
        })
    }
}
