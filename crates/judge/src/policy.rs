//! What is to be done about an action: Cedar text, validated against a schema when it is loaded.

use holdfast_core::{Action, Code, Coded, DoorKind, Effects, Reason, Verdict};

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

/// Why a policy text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not Cedar.
    #[error("read the policy: {0}; the policy was not loaded")]
    Syntax(String),
    /// The text is Cedar, but does not fit the schema.
    #[error("validate the policy: {0}; the policy was not loaded")]
    Schema(String),
}

impl Coded for PolicyError {
    fn code(&self) -> Code {
        Code::ZU101
    }

    fn hint(&self) -> Option<String> {
        Some("mend the policy text; docs/policy.md lists what a policy may ask for".into())
    }
}

/// A policy that has been validated and is ready to decide.
#[derive(Clone, Debug)]
pub struct Policy {}

impl Policy {
    /// Returns the policy that Holdfast ships.
    pub fn shipped() -> Self {
        Self {}
    }

    /// Reads a policy from Cedar text and validates it against the schema.
    ///
    /// # Errors
    /// [`PolicyError`]: the text is not Cedar, or asks for what the schema does not have.
    pub fn parse(_cedar_text: &str) -> Result<Self, PolicyError> {
        Err(PolicyError::Syntax("it is not parsed".into()))
    }

    /// Decides: each impact is one request, and the strictest answer wins.
    pub fn verdict(&self, _action: &Action, _effects: &Effects, _facts: &Facts) -> Verdict {
        Verdict::Deny(vec![Reason::new("holdfast", "the policy is not loaded")])
    }

    /// Returns the Cedar schema that policies are validated against.
    pub fn schema_text() -> &'static str {
        ""
    }
}
