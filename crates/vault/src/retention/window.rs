//! The lock window: how long everything is kept at least. It can only grow.
//!
//! Every window that was ever used is an object of the repository; the largest counts, for every vault
//! and for the process that removes.

use std::time::Duration;

use holdfast_core::{Code, Coded};
use holdfast_store::object::{ObjectError, ObjectStore};

use super::rules::Span;

/// The folder of the windows.
pub(crate) const WINDOW_FOLDER: &str = "holdfast-window";
/// The default.
pub const LOCK_FOR: Span = Span::days(14);

/// Why the window cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The storage refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// It would shrink.
    #[error("`lock_for` is {wanted}, but this repository was promised {recorded}")]
    Shrinks {
        /// What the configuration says.
        wanted: Span,
        /// The largest ever used.
        recorded: Span,
    },
}

impl Coded for WindowError {
    fn code(&self) -> Code {
        match self {
            Self::Object(error) => error.code(),
            Self::Shrinks { .. } => Code::ZU351,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Object(error) => error.hint(),
            Self::Shrinks { recorded, .. } => Some(format!(
                "nothing was changed; set `lock_for = \"{recorded}\"` or more, or begin a new repository"
            )),
        }
    }
}

/// Returns the largest window that was ever used.
///
/// # Errors
/// When the storage cannot be read.
pub fn recorded(store: &dyn ObjectStore) -> Result<Span, ObjectError> {
    let listed = store.list(WINDOW_FOLDER)?;
    let seconds = listed.iter().filter_map(|(key, _)| {
        let digits = key.name().strip_suffix("s.json")?;
        digits.parse::<u64>().ok()
    });
    let largest = seconds.max().unwrap_or(0);
    Ok(Span(Duration::from_secs(largest)))
}

/// Checks the window against those that were used before.
///
/// # Errors
/// [`WindowError::Shrinks`].
pub fn check(store: &dyn ObjectStore, wanted: Span) -> Result<(), WindowError> {
    let recorded = recorded(store)?;
    match wanted < recorded {
        true => Err(WindowError::Shrinks { wanted, recorded }),
        false => Ok(()),
    }
}

/// Records the window, if none as large was recorded before.
///
/// # Errors
/// [`WindowError::Shrinks`], and when the storage refuses.
pub fn settle(store: &dyn ObjectStore, wanted: Span) -> Result<(), WindowError> {
    check(store, wanted)?;
    let seconds = wanted.0.as_secs();
    let name = format!("{WINDOW_FOLDER}/{seconds:012}s.json");
    let key = name.parse().map_err(|_| ObjectError::Unreadable {
        place: name.clone(),
    })?;
    if store.head(&key)?.is_some() {
        return Ok(());
    }
    let text = serde_json::json!({"lock_for": wanted, "since": store.now()?});
    match store.create_new(&key, text.to_string().as_bytes()) {
        Err(ObjectError::Exists(_)) => Ok(()),
        stored => Ok(stored?),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::Timestamp;
    use holdfast_store::object::{DirectoryStore, Marker};

    use super::*;

    #[test]
    fn the_lock_window_grows_and_never_shrinks() {
        let folder = tempfile::tempdir().unwrap();
        let marker = Marker {
            recipients: Vec::new(),
            format: 1,
            id: "00".repeat(16),
            created: Timestamp(0),
            vault_key: "00".repeat(32),
        };
        let root = folder.path().join("repository");
        let store = DirectoryStore::create_or_open(&root, &marker).unwrap();
        assert_eq!(recorded(&store).unwrap(), Span::ZERO);
        for days in [7, 7, 14, 14] {
            settle(&store, Span::days(days)).unwrap();
            assert_eq!(recorded(&store).unwrap(), Span::days(days));
        }
        let refused = settle(&store, Span::days(13)).unwrap_err();
        assert_eq!(refused.code(), Code::ZU351);
        assert!(refused.to_string().contains("2w"), "{refused}");
        settle(&store, Span::days(14)).unwrap();
    }
}
