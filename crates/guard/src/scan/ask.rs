//! Asks a provider, by questions that read, what a credential reaches.

use holdfast_core::Secret;
use holdfast_judge::packs::{Packs, Question};
use holdfast_wire::http::HttpRequest;
use serde::Serialize;
use serde_json::Value;

use super::Finding;
use crate::door::http::{Asker, UpstreamOverride};

/// The most names that are told.
const LIMIT_NAMES: usize = 100;

/// What a provider said about a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Whether the provider takes it; `None` when it could not be asked.
    pub valid: Option<bool>,
    /// Names of accounts, projects and volumes that it reaches.
    pub names: Vec<String>,
    /// Why something is not known.
    pub problems: Vec<String>,
}

/// Asks the provider of a finding what the credential reaches. Only with the user's consent: it uses
/// the credential, though only to read.
///
/// The pack's own questions are asked, in each place where the provider takes a credential.
pub async fn ask_reach(finding: &Finding, packs: &Packs, upstreams: &[UpstreamOverride]) -> Reach {
    let mut reach = Reach::default();
    let Some(host) = finding.hosts.first() else {
        reach
            .problems
            .push("no provider is known for it".to_owned());
        return reach;
    };
    let asker = match Asker::new(upstreams) {
        Ok(asker) => asker,
        Err(why) => {
            reach.problems.push(why);
            return reach;
        }
    };
    let questions = packs.reach_questions(&finding.provider);
    for place in packs.credential_places(host) {
        let value = Secret::new(format!("{}{}", place.prefix, finding.secret.expose()));
        let credentials = [(place.header, value)];
        for question in &questions {
            let read = asker
                .ask(&request(host, question), question, &credentials)
                .await;
            take(&mut reach, read);
        }
    }
    reach.names.sort();
    reach.names.dedup();
    reach.names.truncate(LIMIT_NAMES);
    reach.problems.dedup();
    reach
}

fn request(host: &str, question: &Question) -> HttpRequest {
    HttpRequest {
        method: "POST".to_owned(),
        scheme: "https".to_owned(),
        host: host.to_owned(),
        port: 443,
        path: question.path.clone(),
        query: None,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

fn take(reach: &mut Reach, read: Result<Vec<u8>, String>) {
    let body = match read {
        Ok(body) => body,
        Err(why) => return reach.problems.push(why),
    };
    let Ok(answer) = serde_json::from_slice::<Value>(&body) else {
        return reach.problems.push("it did not answer in JSON".to_owned());
    };
    match answer.get("data") {
        Some(data @ Value::Object(_)) if has_content(data) => {
            reach.valid = Some(true);
            names(data, &mut reach.names);
        }
        _ => reach.valid = reach.valid.or(Some(false)),
    }
}

/// `{"me": null}` is an answer without content.
fn has_content(data: &Value) -> bool {
    data.as_object()
        .is_some_and(|fields| fields.values().any(|value| !value.is_null()))
}

fn names(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if matches!(key.as_str(), "name" | "email") => {
                        out.push(holdfast_core::Untrusted(text).to_string());
                    }
                    other => names(other, out),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, out)),
        _ => {}
    }
}
