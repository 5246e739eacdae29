//! How a clone is reached by whoever keeps a door for it.

use holdfast_core::{Secret, SourceName, Timestamp};

use super::{CloneError, CloneId, CloneState, ClonesConfig, Kept, folder};

/// The way into an open clone.
#[derive(Clone, Debug)]
pub struct WayIn {
    /// Of which source it is.
    pub source: SourceName,
    /// Its connection string, with the password of its role.
    pub url: Secret,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// What keeps it in.
    pub kept: Kept,
}

/// Returns the way into a clone; that it is open is told by its record, and whether it answers is not.
///
/// # Errors
/// [`CloneError::Unknown`] when there is none of that name, [`CloneError::State`] when it is not open,
/// and [`CloneError::Record`].
pub fn way_in(clones: &ClonesConfig, id: &str) -> Result<WayIn, CloneError> {
    let unknown = || CloneError::Unknown(id.chars().take(80).collect());
    let id: CloneId = id.parse().map_err(|_| unknown())?;
    let record = folder::read(&clones.dir, &id)?;
    if record.state != CloneState::Open {
        return Err(CloneError::State {
            id,
            what: "entered",
            why: record.why.unwrap_or_else(|| "it is not open".to_owned()),
        });
    }
    let kept = record.confinement.as_ref().map(|one| one.kept);
    Ok(WayIn {
        url: Secret::new(record.url()),
        source: record.source,
        expires: record.expires,
        kept: kept.unwrap_or(Kept::Advisory),
    })
}
