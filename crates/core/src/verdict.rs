//! The judge's answer.

use serde::{Deserialize, Serialize};

/// One reason of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The policy that decided, by its `@id`; `holdfast` where no policy was asked.
    pub policy: String,
    /// Why, for a person: lower case, no full stop.
    pub text: String,
}

impl Reason {
    /// Makes a reason.
    pub fn new(policy: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            policy: policy.into(),
            text: text.into(),
        }
    }
}

/// The judge's answer about one action. It has no `Default`: a verdict is always stated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verdict", content = "because")]
pub enum Verdict {
    /// Policy permits it as it is.
    Allow(Vec<Reason>),
    /// Policy would not permit it even with an approval.
    Deny(Vec<Reason>),
    /// Policy would permit it if a human approved.
    Hold(Vec<Reason>),
}

impl Verdict {
    /// Returns `allow`, `deny` or `hold`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Deny(_) => "deny",
            Self::Hold(_) => "hold",
        }
    }

    /// Returns the reasons.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Allow(reasons) | Self::Deny(reasons) | Self::Hold(reasons) => reasons,
        }
    }

    /// Returns the stricter of two verdicts, with the reasons of both where they are equally strict.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny(mut a), Self::Deny(b)) => {
                a.extend(b);
                Self::Deny(a)
            }
            (Self::Deny(a), _) | (_, Self::Deny(a)) => Self::Deny(a),
            (Self::Hold(mut a), Self::Hold(b)) => {
                a.extend(b);
                Self::Hold(a)
            }
            (Self::Hold(a), _) | (_, Self::Hold(a)) => Self::Hold(a),
            (Self::Allow(mut a), Self::Allow(b)) => {
                a.extend(b);
                Self::Allow(a)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_verdict_wins_in_either_order() {
        let make = |word: &str| match word {
            "allow" => Verdict::Allow(vec![]),
            "hold" => Verdict::Hold(vec![]),
            _ => Verdict::Deny(vec![]),
        };
        for (a, b, strictest) in [
            ("allow", "allow", "allow"),
            ("allow", "hold", "hold"),
            ("allow", "deny", "deny"),
            ("hold", "deny", "deny"),
        ] {
            assert_eq!(make(a).strictest(make(b)).word(), strictest);
            assert_eq!(make(b).strictest(make(a)).word(), strictest);
        }
    }
}
