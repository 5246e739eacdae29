//! What an action would do: nine effects, from harmless to worst.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Resource, RowCount};

/// One kind of consequence. The order is from harmless to worst; a later one dominates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Nothing changes.
    Read,
    /// Rows inserted, changed or removed; a deploy.
    Write,
    /// Service is interrupted: restart, terminated sessions, heavy locks, scaling to zero.
    Interrupt,
    /// Data stays, but the application looks elsewhere: connection strings, DNS, mount paths.
    Redirect,
    /// Somebody gains power: tokens, grants, roles, keys, `SECURITY DEFINER`.
    Escalate,
    /// Data or structure is gone.
    Destroy,
    /// A way back or a guard is taken away: backups, retention, slots, archiving, triggers.
    Disarm,
    /// It leaves the door's sight: `COPY PROGRAM`, dblink, shell tokens, replication mode.
    Escape,
    /// It cannot be told what it does; treated as the worst.
    Unknown,
}

impl Effect {
    /// All effects, from harmless to worst.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Interrupt,
        Self::Redirect,
        Self::Escalate,
        Self::Destroy,
        Self::Disarm,
        Self::Escape,
        Self::Unknown,
    ];

    /// Tells whether nothing but a way back can undo it; such an action needs a proof.
    pub fn is_irreversible(self) -> bool {
        match self {
            Self::Read | Self::Write | Self::Interrupt | Self::Redirect | Self::Escalate => false,
            Self::Destroy | Self::Disarm | Self::Escape | Self::Unknown => true,
        }
    }

    /// Returns the word used in policies, JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Interrupt => "interrupt",
            Self::Redirect => "redirect",
            Self::Escalate => "escalate",
            Self::Destroy => "destroy",
            Self::Disarm => "disarm",
            Self::Escape => "escape",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Effect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|effect| effect.word() == text)
            .ok_or_else(|| {
                let words = Self::ALL.map(Self::word).join(", ");
                format!(
                    "`{}` is not an effect; the effects are {words}",
                    crate::Untrusted(text)
                )
            })
    }
}

/// One effect with what it touches and why it was concluded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// The kind of consequence.
    pub effect: Effect,
    /// What is touched; empty when that cannot be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// Rows touched, where a number was measured or is certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCount>,
    /// Why, for a person: lower case, no full stop.
    pub because: String,
}

impl Impact {
    /// Makes an impact without resources and rows.
    pub fn new(effect: Effect, because: impl Into<String>) -> Self {
        Self {
            effect,
            resources: Vec::new(),
            rows: None,
            because: because.into(),
        }
    }

    /// Adds a resource that is touched.
    #[must_use]
    pub fn on(mut self, resource: Resource) -> Self {
        self.resources.push(resource);
        self
    }

    /// States how many rows are touched.
    #[must_use]
    pub fn rows(mut self, rows: RowCount) -> Self {
        self.rows = Some(rows);
        self
    }
}

/// Everything an action would do. Empty means it does nothing at all, such as `BEGIN`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Effects(Vec<Impact>);

impl Effects {
    /// Begins with no effect.
    pub fn none() -> Self {
        Self::default()
    }

    /// Makes the set with one impact.
    pub fn one(impact: Impact) -> Self {
        Self(vec![impact])
    }

    /// Adds an impact, unless an equal one is there.
    pub fn push(&mut self, impact: Impact) {
        if !self.0.contains(&impact) {
            self.0.push(impact);
        }
    }

    /// Adds all impacts of `other`.
    pub fn extend(&mut self, other: Self) {
        for impact in other.0 {
            self.push(impact);
        }
    }

    /// Returns what they are where a copy alone is touched, which cannot be left.
    ///
    /// What would be gone, held up, given away or taken off its guard there is still whole in the
    /// original, so it is a `write`. Leaving the copy, and what cannot be told, stay what they are.
    #[must_use]
    pub fn on_a_copy(self) -> Self {
        let impacts = self.0.into_iter().map(|mut impact| {
            impact.effect = match impact.effect {
                Effect::Read => Effect::Read,
                Effect::Write
                | Effect::Interrupt
                | Effect::Redirect
                | Effect::Escalate
                | Effect::Destroy
                | Effect::Disarm => Effect::Write,
                Effect::Escape => Effect::Escape,
                Effect::Unknown => Effect::Unknown,
            };
            impact
        });
        impacts.collect()
    }

    /// Returns the impacts, in the order they were found.
    pub fn impacts(&self) -> &[Impact] {
        &self.0
    }

    /// Returns the worst effect, or `None` when there is none.
    pub fn worst(&self) -> Option<Effect> {
        self.0.iter().map(|impact| impact.effect).max()
    }

    /// Tells whether `effect` is among them.
    pub fn contains(&self, effect: Effect) -> bool {
        self.0.iter().any(|impact| impact.effect == effect)
    }

    /// Returns the distinct effects, from harmless to worst.
    pub fn kinds(&self) -> Vec<Effect> {
        Effect::ALL
            .into_iter()
            .filter(|effect| self.contains(*effect))
            .collect()
    }

    /// Tells whether any of them needs a way back.
    pub fn is_irreversible(&self) -> bool {
        self.0.iter().any(|impact| impact.effect.is_irreversible())
    }

    /// Returns the sum of the rows that were measured.
    pub fn rows(&self) -> RowCount {
        RowCount(
            self.0
                .iter()
                .filter_map(|impact| impact.rows)
                .fold(0, |sum, rows| u64::saturating_add(sum, rows.0)),
        )
    }
}

impl FromIterator<Impact> for Effects {
    fn from_iter<I: IntoIterator<Item = Impact>>(impacts: I) -> Self {
        let mut effects = Self::none();
        for impact in impacts {
            effects.push(impact);
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_is_the_worst_effect_and_needs_a_way_back() {
        assert!(Effect::ALL.is_sorted());
        assert_eq!(Effect::ALL.into_iter().max(), Some(Effect::Unknown));
        assert!(Effect::Unknown.is_irreversible());
        assert!(!Effect::Write.is_irreversible());
    }

    #[test]
    fn words_and_json_are_the_same() {
        for effect in Effect::ALL {
            assert_eq!(serde_json::to_value(effect).unwrap(), effect.word());
            assert_eq!(effect.word().parse::<Effect>(), Ok(effect));
        }
        assert!("delete".parse::<Effect>().unwrap_err().contains("destroy"));
    }

    #[test]
    fn on_a_copy_nothing_is_gone_and_leaving_it_stays_what_it_is() {
        for effect in Effect::ALL {
            let on_a_copy = Effects::one(Impact::new(effect, "e")).on_a_copy();
            let wanted = match effect {
                Effect::Read | Effect::Escape | Effect::Unknown => effect,
                _ => Effect::Write,
            };
            assert_eq!(on_a_copy.worst(), Some(wanted), "{effect}");
        }
    }

    #[test]
    fn row_sums_do_not_overflow() {
        let effects: Effects = [u64::MAX, 7]
            .into_iter()
            .map(|rows| Impact::new(Effect::Write, "w").rows(RowCount(rows)))
            .collect();
        assert_eq!(effects.rows(), RowCount(u64::MAX));
    }
}
