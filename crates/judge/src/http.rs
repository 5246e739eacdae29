//! `holdfast judge http`: one request as JSON in, a verdict out.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use holdfast_core::{Action, ActionId, DoorKind, Effect, Principal, Timestamp, Untrusted};
use holdfast_wire::http::{HttpRequest, Target, read_head};
use serde::Deserialize;

use crate::line::JudgeLine;
use crate::packs::Packs;
use crate::policy::{Facts, Policy};

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
pub fn verdict_line(line: &HttpLine, packs: &Packs, policy: &Policy) -> JudgeLine {
    let request = match request(line) {
        Ok(request) => request,
        Err(because) => {
            return JudgeLine {
                id: line.id.clone(),
                verdict: "deny",
                effects: vec![Effect::Unknown],
                because: vec![because],
                static_only: false,
            };
        }
    };
    let judgement = packs.judge(&request);
    let action = Action {
        id: ActionId::from_random([0; 12]),
        principal: Principal::agent("judge"),
        lease: None,
        source: None,
        door: DoorKind::Http,
        summary: judgement.summary.clone(),
        digest: request.digest(),
        at: Timestamp(0),
    };
    let facts = Facts::unmeasured("production", DoorKind::Http);
    let verdict = policy.verdict(&action, &judgement.effects, &facts);
    let because = judgement.effects.impacts().iter();
    let because = because.map(|impact| format!("{}: {}", impact.effect, impact.because));
    JudgeLine {
        id: line.id.clone(),
        verdict: verdict.word(),
        effects: judgement.effects.kinds(),
        because: because.collect(),
        static_only: false,
    }
}

/// Reads the line as the door would read it from the wire: what the door refuses is an error here.
fn request(line: &HttpLine) -> Result<HttpRequest, String> {
    let body = match (&line.body, &line.body_b64) {
        (Some(_), Some(_)) => return Err("the body stands twice".to_owned()),
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(coded)) => BASE64
            .decode(coded.as_bytes())
            .map_err(|_| "`body_b64` is not Base64".to_owned())?,
        (None, None) => Vec::new(),
    };
    let mut head = format!("{} {} HTTP/1.1\r\n", line.method, line.url);
    let mut has_host = false;
    for (name, value) in &line.headers {
        has_host |= name.eq_ignore_ascii_case("host");
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let url_host = line.url.split("://").nth(1).unwrap_or_default();
    let url_host = url_host.split(['/', '?']).next().unwrap_or_default();
    if !has_host {
        head.push_str(&format!("host: {url_host}\r\n"));
    }
    head.push_str("\r\n");
    let refused = |why: &dyn std::fmt::Display| format!("the door refuses the request: {why}");
    let (read, length) = match read_head(head.as_bytes()) {
        Ok(Some(read)) => read,
        Ok(None) => return Err(refused(&"the head has no end")),
        Err(error) => return Err(refused(&error)),
    };
    let Target::Absolute {
        scheme,
        host,
        port,
        path,
        query,
    } = read.target
    else {
        return Err(refused(&"the URL is not absolute"));
    };
    let stated = read.host.as_ref().map(|(host, _)| host.as_str());
    if length != head.len() || stated != Some(host.as_str()) {
        let other = Untrusted(stated.unwrap_or_default()).to_string();
        return Err(refused(&format!("the header `host` says `{other}`")));
    }
    Ok(HttpRequest {
        method: read.method,
        scheme,
        host,
        port,
        path,
        query,
        headers: read.headers,
        body,
    })
}
