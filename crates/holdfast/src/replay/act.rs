//! The five acts, and what each of them returns.

use serde::Serialize;

use super::guards::Recovery;

/// Which protections are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// None.
    Unprotected,
    /// What lay in the agent's workspace is in custody; nothing else.
    Custody,
    /// The agent's way out leads through a door; nothing else.
    Doors,
    /// The vault captures; nothing stands in the agent's way.
    Vault,
    /// Everything.
    All,
}

impl Act {
    /// All of them, in the order in which they are played.
    pub const EACH: [Self; 5] = [
        Self::Unprotected,
        Self::Custody,
        Self::Doors,
        Self::Vault,
        Self::All,
    ];

    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unprotected => "unprotected",
            Self::Custody => "custody",
            Self::Doors => "doors",
            Self::Vault => "vault",
            Self::All => "all",
        }
    }

    /// Says what is there.
    pub fn about(self) -> &'static str {
        match self {
            Self::Unprotected => "nothing stands between the agent and the data",
            Self::Custody => "the credentials in the workspace are in custody",
            Self::Doors => "the agent's only way out is a door",
            Self::Vault => "the vault captures, nothing stands in the way",
            Self::All => "custody, doors and vault",
        }
    }

    /// Tells whether what lies in the workspace is taken into custody.
    pub fn has_custody(self) -> bool {
        matches!(self, Self::Custody | Self::All)
    }

    /// Tells whether the agent goes through the doors.
    pub fn has_doors(self) -> bool {
        matches!(self, Self::Doors | Self::All)
    }

    /// Tells whether the vault captures.
    pub fn has_vault(self) -> bool {
        matches!(self, Self::Vault | Self::All)
    }
}

/// What one act ended with. All counts are of bookings.
#[derive(Clone, Debug, Serialize)]
pub struct Ended {
    /// Which act.
    pub act: Act,
    /// Bookings whose COMMIT was acknowledged, by the journal outside the database.
    pub acknowledged: u64,
    /// Those of them that are in the database that serves at the end.
    pub present: u64,
    /// Those that are not.
    pub lost: u64,
    /// Bookings whose answer was lost; they may be there or not.
    pub unknown: u64,
    /// Seconds from the start of the agent to its destroying call.
    pub called_after_s: f64,
    /// Seconds from the start of the agent until the data was seen to be gone, if it was.
    pub gone_after_s: Option<f64>,
    /// Seconds from the start of the agent until its call was refused, if it was.
    pub stopped_after_s: Option<f64>,
    /// What stopped the call, if anything did.
    pub stopped_by: Option<String>,
    /// Seconds from the loss, or from the refused call, to the next acknowledged booking on pages that
    /// say they can write; none when that never came.
    pub serving_again_after_s: Option<f64>,
    /// How the vault brought it back, if it had to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// How often the vault was killed and started again.
    #[serde(skip_serializing_if = "is_zero")]
    pub vault_kills: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Ended {
    /// Says how it ended otherwise than promised, if it did.
    pub fn broken_promise(&self) -> Option<String> {
        let act = self.act.word();
        if self.acknowledged == 0 {
            return Some(format!("{act}: no booking was acknowledged"));
        }
        if self.act == Act::Unprotected {
            return match (self.present, self.gone_after_s) {
                (0, Some(_)) => None,
                (present, _) => Some(format!(
                    "{act}: {present} of {} bookings are still there, so nothing was shown",
                    self.acknowledged
                )),
            };
        }
        if self.lost > 0 {
            return Some(format!(
                "{act}: {} of {} acknowledged bookings are lost",
                self.lost, self.acknowledged
            ));
        }
        if self.act != Act::Vault && self.gone_after_s.is_some() {
            return Some(format!(
                "{act}: the data was gone before anything stopped it"
            ));
        }
        match self.serving_again_after_s {
            Some(_) => None,
            None => Some(format!("{act}: no booking was accepted afterwards")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(act: Act) -> Ended {
        Ended {
            act,
            acknowledged: 100,
            present: 100,
            lost: 0,
            unknown: 0,
            called_after_s: 1.0,
            gone_after_s: None,
            stopped_after_s: None,
            stopped_by: None,
            serving_again_after_s: Some(0.1),
            recovery: None,
            vault_kills: 0,
        }
    }

    #[test]
    fn a_protected_act_keeps_everything_and_the_unprotected_one_loses_everything() {
        let kept = ended(Act::Doors);
        assert_eq!(kept.broken_promise(), None);
        let lost_one = Ended {
            present: 99,
            lost: 1,
            ..ended(Act::Doors)
        };
        assert!(lost_one.broken_promise().unwrap().contains("1 of 100"));
        let never_served = Ended {
            serving_again_after_s: None,
            ..ended(Act::Vault)
        };
        assert!(never_served.broken_promise().is_some());
        let too_late = Ended {
            gone_after_s: Some(1.0),
            ..ended(Act::Custody)
        };
        assert!(too_late.broken_promise().is_some());
        let brought_back = Ended {
            gone_after_s: Some(1.0),
            ..ended(Act::Vault)
        };
        assert_eq!(brought_back.broken_promise(), None);
        let idle = Ended {
            acknowledged: 0,
            present: 0,
            ..ended(Act::Vault)
        };
        assert!(idle.broken_promise().is_some());
    }

    #[test]
    fn an_unprotected_act_in_which_nothing_is_lost_shows_nothing() {
        assert!(ended(Act::Unprotected).broken_promise().is_some());
        let gone = Ended {
            present: 0,
            lost: 100,
            gone_after_s: Some(1.0),
            serving_again_after_s: None,
            ..ended(Act::Unprotected)
        };
        assert_eq!(gone.broken_promise(), None);
    }

    #[test]
    fn the_json_of_an_act_has_the_agreed_names() {
        let value = serde_json::to_value(ended(Act::All)).unwrap();
        assert_eq!(value["act"], "all");
        for name in ["acknowledged", "present", "lost"] {
            assert!(value[name].is_u64(), "{name}");
        }
        for name in ["gone_after_s", "stopped_by"] {
            assert!(value.get(name).unwrap().is_null(), "{name}");
        }
        assert!(value["serving_again_after_s"].is_f64());
    }
}
