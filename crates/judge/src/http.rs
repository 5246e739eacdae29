//! `holdfast judge http`: one request as JSON in, a verdict out.

use std::collections::BTreeMap;

use holdfast_core::Effect;
use serde::Deserialize;

use crate::JudgeLine;
use crate::packs::Packs;
use crate::policy::Policy;

/// One line of input.
#[derive(Clone, Debug, Deserialize)]
pub struct HttpLine {
    /// The id, given back as it is.
    pub id: serde_json::Value,
    /// The method.
    pub method: String,
    /// The absolute URL.
    pub url: String,
    /// The headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body as text.
    #[serde(default)]
    pub body: Option<String>,
    /// The body in Base64, when it is not text.
    #[serde(default)]
    pub body_b64: Option<String>,
}

/// Judges a request as an agent's on production would be judged, without asking anybody.
pub fn verdict_line(line: &HttpLine, _packs: &Packs, _policy: &Policy) -> JudgeLine {
    JudgeLine {
        id: line.id.clone(),
        verdict: "deny",
        effects: vec![Effect::Unknown],
        because: vec!["no pack is loaded".to_owned()],
        static_only: false,
    }
}
