//! Of several that want the same at once, one fetches it and the others wait.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What is being fetched.
#[derive(Debug)]
pub(super) struct Flights<K> {
    under_way: Mutex<HashSet<K>>,
    landed: Condvar,
}

/// The turn to fetch something.
pub(super) struct Flight<'a, K: Eq + Hash> {
    flights: &'a Flights<K>,
    what: K,
}

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self {
            under_way: Mutex::default(),
            landed: Condvar::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Flights<K> {
    /// Takes the turn to fetch something; `None` after somebody else had it.
    pub(super) fn take(&self, what: K) -> Option<Flight<'_, K>> {
        let mut under_way = self.lock();
        if under_way.insert(what.clone()) {
            drop(under_way);
            return Some(Flight {
                flights: self,
                what,
            });
        }
        while under_way.contains(&what) {
            let waited = self.landed.wait(under_way);
            under_way = waited.unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<K>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Flight<'_, K> {
    fn drop(&mut self) {
        let flights = &self.flights.under_way;
        let mut under_way = flights.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.what);
        self.flights.landed.notify_all();
    }
}
