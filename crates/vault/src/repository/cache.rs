//! A bounded memory of what was read: what was used lately stays.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Two generations: what is used moves into the young one; when that is half of the limit, the old
/// one is forgotten and the young one grows old.
pub(crate) struct Cache<K, V> {
    weight_max: usize,
    generations: Mutex<Generations<K, V>>,
}

struct Generations<K, V> {
    young: BTreeMap<K, (Arc<V>, usize)>,
    young_weight: usize,
    old: BTreeMap<K, (Arc<V>, usize)>,
}

impl<K: Ord + Clone, V> Cache<K, V> {
    /// Makes an empty one that holds things of at most this weight together.
    pub(crate) fn new(weight_max: usize) -> Self {
        Self {
            weight_max,
            generations: Mutex::new(Generations {
                young: BTreeMap::new(),
                young_weight: 0,
                old: BTreeMap::new(),
            }),
        }
    }

    /// Returns what is remembered under `key`.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        let mut generations = self.lock();
        if let Some((found, _)) = generations.young.get(key) {
            return Some(Arc::clone(found));
        }
        let (found, weight) = generations.old.remove(key)?;
        self.put(&mut generations, key.clone(), (Arc::clone(&found), weight));
        Some(found)
    }

    /// Remembers something.
    pub(crate) fn insert(&self, key: K, value: Arc<V>, weight: usize) {
        self.put(&mut self.lock(), key, (value, weight));
    }

    fn put(&self, generations: &mut Generations<K, V>, key: K, value: (Arc<V>, usize)) {
        let weight = value.1;
        if let Some((_, before)) = generations.young.insert(key, value) {
            generations.young_weight = generations.young_weight.saturating_sub(before);
        }
        generations.young_weight = generations.young_weight.saturating_add(weight);
        if generations.young_weight > self.weight_max / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_weight = 0;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations<K, V>> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten_at_the_limit() {
        let cache = Cache::new(100);
        for key in 0..1000 {
            cache.insert(key, Arc::new(key), 10);
            assert_eq!(cache.get(&0).as_deref(), Some(&0));
        }
        let kept = (0..1000).filter(|key| cache.get(key).is_some()).count();
        assert!((1..=12).contains(&kept), "{kept}");
    }
}
