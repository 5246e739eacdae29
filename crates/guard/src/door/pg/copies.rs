//! Copies of sources, which come and go while the door is open: sandboxes with a gate of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use holdfast_core::SourceName;

use super::PgDoorSource;
use super::source::Source;

/// Who knows the copies that are open.
pub trait Copies: Send + Sync {
    /// Returns the copy of this name, or `None` when it is not open (any more).
    fn find(&self, name: &SourceName) -> Option<PgDoorSource>;
}

/// The copies that the door has led to.
#[derive(Default)]
pub(super) struct Known {
    copies: OnceLock<Arc<dyn Copies>>,
    sources: Mutex<HashMap<SourceName, Arc<Source>>>,
}

impl Known {
    /// Says who knows them; the first who does stays.
    pub(super) fn ask(&self, copies: Arc<dyn Copies>) {
        let _ = self.copies.set(copies);
    }

    /// Returns a copy that is open now, with what is kept about it.
    pub(super) fn source(&self, name: &SourceName) -> Option<Arc<Source>> {
        let found = self.copies.get()?.find(name);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = found else {
            sources.remove(name);
            return None;
        };
        let is_same = |source: &&Arc<Source>| {
            let (known, told) = (&source.url, &found.url);
            (known.port, &known.user) == (told.port, &told.user)
        };
        if let Some(known) = sources.get(name).filter(is_same) {
            return Some(Arc::clone(known));
        }
        let source = Arc::new(Source::new(found));
        sources.insert(name.clone(), Arc::clone(&source));
        Some(source)
    }
}
