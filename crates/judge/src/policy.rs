//! What is to be done about an action: Cedar text, validated against a schema when it is loaded.
//!
//! Each impact of an action is one authorization request, and the strictest answer wins.
//! What the policy permits now is [`Verdict::Allow`]; what it would permit if people approved is
//! [`Verdict::Hold`]; what it would not permit even then is [`Verdict::Deny`].
//! Cedar skips a policy that errs, so a broken `forbid` would vanish: any diagnostic is a refusal.

mod load;
mod request;
#[cfg(test)]
mod tests;

use cedar_policy::{Authorizer, Decision, PolicySet, Response};

use holdfast_core::{Action, Code, Coded, DoorKind, Effects, Impact, Reason, Verdict};

use request::{Asked, Words};

/// What is known about an action besides its effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where the resource lives: `production`, `staging`, `sandbox`, or a word of the user's.
    pub environment: String,
    /// The door it came through.
    pub door: DoorKind,
    /// A fresh proof covers what it touches.
    pub way_back_proven: bool,
    /// Rows changed by this transaction, this action included.
    pub rows_transaction: u64,
    /// The budget of one transaction.
    pub rows_transaction_max: u64,
    /// Rows changed under this lease in the last hour, this action included.
    pub rows_lease_hour: u64,
    /// The budget of a lease for an hour.
    pub rows_lease_hour_max: u64,
    /// It only adds.
    pub additive: bool,
    /// How many people have approved exactly this.
    pub approved_by_people: u8,
}

impl Facts {
    /// Begins with nothing known: no proof, no approval, no row changed, the budget of `environment`.
    pub fn unmeasured(environment: &str, door: DoorKind) -> Self {
        let budget = Budget::of(environment);
        Self {
            environment: environment.to_owned(),
            door,
            way_back_proven: false,
            rows_transaction: 0,
            rows_transaction_max: budget.rows_transaction_max,
            rows_lease_hour: 0,
            rows_lease_hour_max: budget.rows_lease_hour_max,
            additive: false,
            approved_by_people: 0,
        }
    }
}

/// How many rows may be changed before a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Rows of one transaction; cascaded rows count.
    pub rows_transaction_max: u64,
    /// Rows of a lease within an hour.
    pub rows_lease_hour_max: u64,
}

impl Budget {
    /// Returns the default budget of an environment; a word that is not known counts as production.
    pub fn of(environment: &str) -> Self {
        match environment {
            "sandbox" => Self {
                rows_transaction_max: 100_000,
                rows_lease_hour_max: 1_000_000,
            },
            _ => Self {
                rows_transaction_max: 100,
                rows_lease_hour_max: 250,
            },
        }
    }
}

/// Why a policy text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A policy has no `@id`, no `@message`, an id that another one has, or is a template.
    #[error("{0}; the policy was not loaded")]
    Annotation(String),
    /// The text is Cedar, but does not fit the schema.
    #[error("the policy does not fit the schema: {0}; it was not loaded")]
    Schema(String),
    /// The text is not Cedar.
    #[error("the policy is not Cedar: {0}; it was not loaded")]
    Syntax(String),
    /// The text is longer than a policy may be.
    #[error("the policy has {bytes} bytes, more than {LIMIT_POLICY_BYTES}; it was not loaded")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl Coded for PolicyError {
    fn code(&self) -> Code {
        Code::ZU101
    }

    fn hint(&self) -> Option<String> {
        Some("mend the policy text; docs/policy.md lists what a policy may ask for".into())
    }
}

/// The longest policy text that is read, in bytes.
pub const LIMIT_POLICY_BYTES: usize = 256 << 10;

/// The most approvals that are tried to tell a hold from a denial.
const LIMIT_PEOPLE: u8 = 5;

/// The word for reasons that no policy gave.
const HOUSE: &str = "holdfast";

/// A policy that has been validated and is ready to decide.
#[derive(Clone, Debug)]
pub struct Policy {
    policies: PolicySet,
    words: Words,
}

impl Policy {
    /// Returns the policy that Holdfast ships.
    #[expect(
        clippy::expect_used,
        reason = "the text is part of this crate and a test loads it"
    )]
    pub fn shipped() -> Self {
        // INVARIANT: the shipped text fits the shipped schema.
        Self::parse(Self::shipped_text()).expect("the shipped policy fits the shipped schema")
    }

    /// Returns the text of the policy that Holdfast ships.
    pub fn shipped_text() -> &'static str {
        include_str!("policy/default.cedar")
    }

    /// Returns the Cedar schema that policies are validated against.
    pub fn schema_text() -> &'static str {
        include_str!("policy/schema.cedarschema")
    }

    /// Reads a policy from Cedar text and validates it against the schema.
    ///
    /// # Errors
    /// [`PolicyError`]: the text is not Cedar, asks for what the schema does not have, or has a policy
    /// without `@id` and `@message`.
    pub fn parse(cedar_text: &str) -> Result<Self, PolicyError> {
        Ok(Self {
            policies: load::policies(cedar_text)?,
            words: Words::new()?,
        })
    }

    /// Decides: each impact is one request, and the strictest answer wins.
    ///
    /// An action without effects is allowed. Whether an irreversible action has a proven way back is
    /// not decided here: its `Permit` cannot be built without one.
    pub fn verdict(&self, action: &Action, effects: &Effects, facts: &Facts) -> Verdict {
        let Some(asked) = Asked::new(&self.words, action, facts) else {
            return deny("the request cannot be put to the policy");
        };
        let mut verdict = Verdict::Allow(Vec::new());
        for impact in effects.impacts() {
            let mut one = self.verdict_of(&asked, impact);
            if let (Verdict::Allow(known), Verdict::Allow(new)) = (&verdict, &mut one) {
                new.retain(|reason| !known.contains(reason));
            }
            verdict = verdict.strictest(one);
        }
        if verdict.reasons().is_empty() {
            return Verdict::Allow(vec![Reason::new(HOUSE, "it has no effect")]);
        }
        verdict
    }

    fn verdict_of(&self, asked: &Asked<'_>, impact: &Impact) -> Verdict {
        let given = asked.approvals();
        let now = match self.answer(asked, impact, given) {
            Ok(now) => now,
            Err(refusal) => return refusal,
        };
        if now.decision() == Decision::Allow {
            return Verdict::Allow(self.reasons(&now, None));
        }
        for people in given.saturating_add(1)..=LIMIT_PEOPLE {
            match self.answer(asked, impact, people) {
                Ok(then) if then.decision() == Decision::Allow => {
                    return Verdict::Hold(self.reasons(&then, Some(impact)));
                }
                Ok(_) => {}
                Err(refusal) => return refusal,
            }
        }
        let mut reasons = self.reasons(&now, Some(impact));
        if reasons.is_empty() {
            reasons.push(Reason::new(
                HOUSE,
                format!("no policy permits it: {}", because(impact)),
            ));
        }
        Verdict::Deny(reasons)
    }

    fn answer(&self, asked: &Asked<'_>, impact: &Impact, people: u8) -> Result<Response, Verdict> {
        let Some(request) = asked.request(&self.words, impact, people) else {
            return Err(deny("the request cannot be put to the policy"));
        };
        let response = Authorizer::new().is_authorized(&request, &self.policies, asked.entities());
        let mut texts: Vec<String> = response
            .diagnostics()
            .errors()
            .map(ToString::to_string)
            .collect();
        if texts.is_empty() {
            return Ok(response);
        }
        texts.sort();
        texts.truncate(3);
        Err(deny(format!(
            "a policy cannot be evaluated: {}",
            one_line(&texts.join("; "))
        )))
    }

    /// Returns the policies that decided, by id, with what they say and what it is about.
    fn reasons(&self, response: &Response, impact: Option<&Impact>) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = response
            .diagnostics()
            .reason()
            .map(|id| {
                let message = self.policies.annotation(id, "message").unwrap_or_default();
                let text = match impact {
                    Some(impact) => format!("{}; {message}", because(impact)),
                    None => message.to_owned(),
                };
                Reason::new(AsRef::<str>::as_ref(id), text)
            })
            .collect();
        reasons.sort_by(|a, b| a.policy.cmp(&b.policy));
        reasons
    }
}

fn because(impact: &Impact) -> String {
    format!("{}: {}", impact.effect, impact.because)
}

fn deny(text: impl Into<String>) -> Verdict {
    Verdict::Deny(vec![Reason::new(HOUSE, text)])
}

/// Puts a message of Cedar's on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
