//! One line of `holdfast judge sql`: a text in, a verdict out, nothing executed.

use serde::Serialize;

use holdfast_core::Effect;

use crate::policy::Policy;

/// The answer to one line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgeLine {
    /// The id of the question, unchanged.
    pub id: serde_json::Value,
    /// `allow`, `hold` or `deny`.
    pub verdict: &'static str,
    /// The distinct effects, from harmless to worst.
    pub effects: Vec<Effect>,
    /// Why.
    pub because: Vec<String>,
    /// Only execution can tell what it does, so the gate measures it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub static_only: bool,
}

/// Judges a text as an agent's on production would be judged before it runs, without a database.
pub fn verdict_line(id: serde_json::Value, _sql: &str, _policy: &Policy) -> JudgeLine {
    JudgeLine {
        id,
        verdict: "deny",
        effects: vec![Effect::Unknown],
        because: vec!["the policy is not loaded".into()],
        static_only: true,
    }
}
