//! Judges requests that are not GraphQL, and hosts that no pack knows.

use holdfast_core::{Effect, Effects, Impact, Untrusted};
use holdfast_wire::http::HttpRequest;

use super::format::{Pack, RestRule};
use super::{Dialect, HttpJudgement};

/// Headers by which some servers take another method than the request line's.
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

impl Pack {
    pub(super) fn judge_rest(&self, request: &HttpRequest) -> HttpJudgement {
        let rule = self.rest.iter().find(|rule| rule.fits(request));
        let impact = match rule {
            Some(rule) => Impact::new(rule.effect, rule.because.clone()),
            None => Impact::new(Effect::Unknown, "the pack does not list this path"),
        };
        HttpJudgement {
            pack: Some(self.name.clone()),
            summary: summary(request),
            effects: Effects::one(impact),
            dialect: Dialect::Json,
            questions: Vec::new(),
            advice: Vec::new(),
        }
    }
}

impl RestRule {
    fn fits(&self, request: &HttpRequest) -> bool {
        let Some(path) = request.path.strip_prefix('/') else {
            return false;
        };
        let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('%');
        let parts: Vec<&str> = path.split('/').collect();
        self.methods.contains(&request.method)
            && parts.len() == self.path.len()
            && self
                .path
                .iter()
                .zip(&parts)
                .all(|(rule, part)| (rule == "*" && !odd(part)) || rule == part)
    }
}

/// A host that no pack knows: reading methods read, the rest is unknown.
pub(super) fn of_no_pack(request: &HttpRequest) -> HttpJudgement {
    let impact = match request.method.as_str() {
        "GET" | "HEAD" | "OPTIONS" if request.body.is_empty() => {
            Impact::new(Effect::Read, "no pack knows this host; the method reads")
        }
        "GET" | "HEAD" | "OPTIONS" => Impact::new(
            Effect::Unknown,
            "no pack knows this host, and a body comes with the reading method",
        ),
        _ => Impact::new(
            Effect::Unknown,
            "no pack knows this host, and the method may change things",
        ),
    };
    HttpJudgement {
        pack: None,
        summary: summary(request),
        effects: Effects::one(impact),
        dialect: Dialect::Json,
        questions: Vec::new(),
        advice: Vec::new(),
    }
}

/// What makes any request doubtful, whoever the provider is.
pub(super) fn doubts(request: &HttpRequest) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Some(header) = METHOD_OVERRIDES.iter().find(|header| request.has(header)) {
        doubts.push(format!("the header `{header}` may change the method"));
    }
    if request.has("upgrade") {
        doubts.push("it asks for another protocol on the connection".to_owned());
    }
    if is_metadata(&request.host) {
        doubts.push("the host gives out credentials of the machine".to_owned());
    }
    doubts
}

/// Addresses at which clouds give a machine its credentials.
fn is_metadata(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let linked = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(v4)) => v4.is_link_local(),
        Ok(std::net::IpAddr::V6(v6)) => {
            v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_link_local())
                || address == "fd00:ec2::254"
        }
        Err(_) => false,
    };
    linked || host == "metadata.google.internal" || host == "metadata"
}

/// What is asked, without the query: a query may hold secrets.
fn summary(request: &HttpRequest) -> String {
    format!(
        "{} {}{}",
        Untrusted(&request.method),
        Untrusted(&request.host),
        Untrusted(&request.path)
    )
}
