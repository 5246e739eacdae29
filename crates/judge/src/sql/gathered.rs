//! Effects gathered from many statements, one impact for each effect and reason.

use std::collections::BTreeSet;

use holdfast_core::{Effects, Impact};

/// Impacts with the same effect and reason become one that names all that is touched.
///
/// A text of a megabyte can name a hundred thousand things; comparing each with each would take
/// longer than parsing it.
#[derive(Default)]
pub(super) struct Gathered {
    impacts: Vec<Impact>,
    named: BTreeSet<(usize, String, String)>,
}

impl Gathered {
    /// Adds an impact.
    pub(super) fn add(&mut self, impact: Impact) {
        let mut known = self.impacts.iter();
        let at = known.position(|one| one.effect == impact.effect && one.because == impact.because);
        let at = at.unwrap_or_else(|| {
            self.impacts
                .push(Impact::new(impact.effect, impact.because));
            self.impacts.len().saturating_sub(1)
        });
        let Some(one) = self.impacts.get_mut(at) else {
            return;
        };
        for resource in impact.resources {
            let key = (at, resource.kind.clone(), resource.name.clone());
            if self.named.insert(key) {
                one.resources.push(resource);
            }
        }
    }

    /// Ends with what was gathered, in the order it was found.
    pub(super) fn finish(self) -> Effects {
        self.impacts.into_iter().collect()
    }
}
