//! Leave to perform one action once. The centre of invariant I1.

use std::marker::PhantomData;

use crate::{Action, Code, Coded, Covering, Digest, Effects, Verdict, VerifiedApproval};

mod sealed {
    pub trait Sealed {}
}

/// Whether an action can be undone without a way back. Implemented by [`Reversible`] and [`Irreversible`] only.
pub trait Reversibility: sealed::Sealed {
    /// What a permit for such an action must be given.
    type WayBack: IntoWayBack;
}

/// An action whose effects need no way back.
#[derive(Debug)]
pub struct Reversible;

/// An action that only a proven way back can undo.
#[derive(Debug)]
pub struct Irreversible;

impl sealed::Sealed for Reversible {}
impl sealed::Sealed for Irreversible {}

impl Reversibility for Reversible {
    type WayBack = ();
}

impl Reversibility for Irreversible {
    type WayBack = Covering;
}

/// An action with its effects and verdict. Made by [`Judged::new`] only.
#[derive(Debug)]
pub struct JudgedAction<R> {
    action: Action,
    effects: Effects,
    verdict: Verdict,
    reversibility: PhantomData<R>,
}

impl<R> JudgedAction<R> {
    /// Returns what was asked.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Returns what it would do.
    pub fn effects(&self) -> &Effects {
        &self.effects
    }

    /// Returns the judge's answer.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

/// A judged action, sorted by whether it can be undone without a way back.
#[derive(Debug)]
pub enum Judged {
    /// Needs a [`Covering`].
    Irreversible(JudgedAction<Irreversible>),
    /// Needs none.
    Reversible(JudgedAction<Reversible>),
}

impl Judged {
    /// Sorts an action by its effects; nobody else decides what is irreversible.
    pub fn new(action: Action, effects: Effects, verdict: Verdict) -> Self {
        if effects.is_irreversible() {
            let reversibility = PhantomData;
            Self::Irreversible(JudgedAction {
                action,
                effects,
                verdict,
                reversibility,
            })
        } else {
            let reversibility = PhantomData;
            Self::Reversible(JudgedAction {
                action,
                effects,
                verdict,
                reversibility,
            })
        }
    }
}

/// On whose word an action may go ahead.
#[derive(Debug)]
pub enum Leave {
    /// A human approved exactly this action.
    Approval(VerifiedApproval),
    /// Policy allows it without asking.
    Policy,
}

/// Leave to perform one action once.
///
/// It has private fields, one constructor, and is not `Clone`; the forwarder takes it by value.
/// For an irreversible action the constructor's type demands a [`Covering`], which only a
/// [`Proof`](crate::Proof) gives. This does not compile:
///
/// ```compile_fail
/// use holdfast_core::{Irreversible, JudgedAction, Leave, Permit};
/// fn without_way_back(judged: JudgedAction<Irreversible>) {
///     let permit = Permit::new(judged, Leave::Policy, ());
/// }
/// ```
#[derive(Debug)]
pub struct Permit {
    action: Action,
    leave: Leave,
    way_back: Option<Covering>,
}

/// Turns what a reversibility demands into what a permit remembers.
pub trait IntoWayBack {
    /// Returns the covering proof, if one was demanded.
    fn into_way_back(self) -> Option<Covering>;
}

impl IntoWayBack for () {
    fn into_way_back(self) -> Option<Covering> {
        None
    }
}

impl IntoWayBack for Covering {
    fn into_way_back(self) -> Option<Covering> {
        Some(self)
    }
}

impl Permit {
    /// Grants leave, if the verdict and the leave fit together.
    ///
    /// # Errors
    /// [`PermitRefused`] when the verdict is `Deny`, or it is `Hold` and no human approved this very action.
    pub fn new<R: Reversibility>(
        judged: JudgedAction<R>,
        leave: Leave,
        way_back: R::WayBack,
    ) -> Result<Self, PermitRefused> {
        match (&judged.verdict, &leave) {
            (Verdict::Deny(_), _) => return Err(PermitRefused::Denied),
            (Verdict::Hold(_), Leave::Policy) => return Err(PermitRefused::NotApproved),
            (Verdict::Allow(_), Leave::Policy) => {}
            (Verdict::Allow(_) | Verdict::Hold(_), Leave::Approval(approval)) => {
                if approval.action() != judged.action.digest {
                    return Err(PermitRefused::OtherAction);
                }
            }
        }
        Ok(Self {
            action: judged.action,
            leave,
            way_back: way_back.into_way_back(),
        })
    }

    /// Returns what may be performed.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Returns the digest of exactly what may be performed.
    pub fn digest(&self) -> Digest {
        self.action.digest
    }

    /// Returns on whose word.
    pub fn leave(&self) -> &Leave {
        &self.leave
    }

    /// Returns the proven way back, which an irreversible action always has.
    pub fn way_back(&self) -> Option<&Covering> {
        self.way_back.as_ref()
    }
}

/// Why no permit was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitRefused {
    /// Policy would not permit it even with an approval.
    #[error("denied by policy; an approval does not change that")]
    Denied,
    /// A human must approve first.
    #[error("held until a human approves it")]
    NotApproved,
    /// The approval is for another action.
    #[error("the approval is for another action")]
    OtherAction,
}

impl Coded for PermitRefused {
    fn code(&self) -> Code {
        match self {
            Self::Denied => Code::ZH002,
            Self::NotApproved => Code::ZH001,
            Self::OtherAction => Code::ZH005,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::{Effect, Impact, Proof, Resource, Timestamp};

    fn approval(action: &Action) -> VerifiedApproval {
        let key = SigningKey::from_bytes(&[5; 32]);
        let evidence = Digest::of(b"e");
        crate::approval::tests::approve(action, evidence, &key)
            .verify(action, evidence, &key.verifying_key(), Timestamp(12))
            .unwrap()
    }

    fn judged(effect: Effect, verdict: Verdict) -> Judged {
        let volume = Resource::new("railway:volume", "v").of("prod".parse().unwrap());
        let effects = Effects::one(Impact::new(effect, "test").on(volume));
        Judged::new(crate::approval::tests::action("x"), effects, verdict)
    }

    fn covering(effects: &Effects) -> Covering {
        let key = crate::proof::tests::key();
        Proof::attest(crate::proof::tests::report(), &key)
            .unwrap()
            .covering(effects, Duration::from_secs(60), Timestamp(2_000_001))
            .unwrap()
    }

    #[test]
    fn every_effect_is_sorted_by_whether_it_can_be_undone() {
        for effect in Effect::ALL {
            let irreversible = matches!(
                judged(effect, Verdict::Allow(vec![])),
                Judged::Irreversible(_)
            );
            assert_eq!(irreversible, effect.is_irreversible(), "{effect}");
        }
    }

    #[test]
    fn a_denied_action_gets_no_permit_even_with_an_approval_and_a_proof() {
        let Judged::Irreversible(denied) = judged(Effect::Disarm, Verdict::Deny(vec![])) else {
            panic!("disarm is irreversible")
        };
        let (yes, way_back) = (approval(denied.action()), covering(denied.effects()));
        let refused = Permit::new(denied, Leave::Approval(yes), way_back);
        assert_eq!(refused.map(|_| ()), Err(PermitRefused::Denied));
    }

    #[test]
    fn a_held_action_needs_its_own_approval() {
        let held = || {
            let Judged::Irreversible(held) = judged(Effect::Destroy, Verdict::Hold(vec![])) else {
                panic!("destroy is irreversible")
            };
            held
        };
        let way_back = covering(held().effects());
        let refused = Permit::new(held(), Leave::Policy, way_back);
        assert_eq!(refused.map(|_| ()), Err(PermitRefused::NotApproved));

        let other = approval(&crate::approval::tests::action("another"));
        let way_back = covering(held().effects());
        let refused = Permit::new(held(), Leave::Approval(other), way_back);
        assert_eq!(refused.map(|_| ()), Err(PermitRefused::OtherAction));

        let (yes, way_back) = (approval(held().action()), covering(held().effects()));
        let permit = Permit::new(held(), Leave::Approval(yes), way_back).unwrap();
        assert!(permit.way_back().is_some());
    }
}
