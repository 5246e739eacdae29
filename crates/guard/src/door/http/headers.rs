//! Headers that are for one connection only, and those that the door keeps to itself.

use holdfast_wire::http::HttpRequest;

/// Headers that end at the next hop.
///
/// SOURCE: RFC 9110, section 7.6.1; RFC 9112.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

pub(super) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// Takes off what must not be forwarded, before the request is judged: what is judged is what is sent.
///
/// A request for another protocol keeps its `upgrade`, so that it is judged as one; `h2c`, which curl
/// offers and does not insist on, is dropped.
pub(super) fn strip(request: &mut HttpRequest) {
    let mut named: Vec<String> = Vec::new();
    for (_, value) in request
        .headers
        .iter()
        .filter(|(name, _)| name == "connection")
    {
        let value = String::from_utf8_lossy(value).to_lowercase();
        named.extend(value.split(',').map(|word| word.trim().to_owned()));
    }
    let insists = request
        .header("upgrade")
        .is_none_or(|protocol| !protocol.trim().eq_ignore_ascii_case("h2c"));
    request.headers.retain(|(name, _)| {
        let upgrade = name == "upgrade" && insists;
        upgrade
            || !(is_hop_by_hop(name)
                || named.contains(name)
                || matches!(name.as_str(), "host" | "content-length" | "expect"))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(headers: &[(&str, &str)]) -> Vec<String> {
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let mut request = HttpRequest {
            method: "POST".to_owned(),
            scheme: "https".to_owned(),
            host: "api.example".to_owned(),
            port: 443,
            path: "/".to_owned(),
            query: None,
            headers: headers.collect(),
            body: Vec::new(),
        };
        strip(&mut request);
        request.headers.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_is_for_one_connection_is_not_forwarded() {
        let kept = stripped(&[
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("proxy-authorization", "Basic x"),
            ("te", "trailers"),
            ("host", "api.example"),
            ("content-length", "3"),
            ("authorization", "Bearer x"),
            ("accept", "*/*"),
        ]);
        assert_eq!(kept, ["authorization", "accept"]);
    }

    #[test]
    fn a_request_for_another_protocol_stays_visible() {
        assert_eq!(stripped(&[("upgrade", "websocket")]), ["upgrade"]);
        assert_eq!(stripped(&[("upgrade", "h2c")]), Vec::<String>::new());
    }
}
