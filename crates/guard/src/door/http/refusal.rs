//! How a refusal is told: in the provider's own dialect, so that its clients show it.

use holdfast_core::Code;
use holdfast_judge::packs::Dialect;
use serde_json::json;

use crate::decide::Refusal;

/// An answer of the door's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub status: u16,
    pub reason: &'static str,
    /// A further header line, with its line end.
    pub header: &'static str,
    pub body: String,
    /// The connection cannot be used any more.
    pub close: bool,
}

impl Reply {
    /// Refuses what the door itself cannot pass.
    pub(super) fn trouble(status: (u16, &'static str), code: Code, message: &str) -> Self {
        let refusal = Refusal {
            code,
            message: format!("{message}; nothing was forwarded"),
            hint: format!("docs/errors/{code}.md says more"),
            hold: None,
        };
        Self {
            status: status.0,
            reason: status.1,
            header: "",
            body: json_body(&refusal),
            close: true,
        }
    }

    /// Asks for a lease.
    pub(super) fn no_lease(why: &str) -> Self {
        let refusal = Refusal {
            code: Code::ZL501,
            message: format!("the HTTP door asks for a lease: {why}; nothing was forwarded"),
            hint: "a human issues one with `holdfast lease issue`; its `env` holds the proxy's address with the token".to_owned(),
            hold: None,
        };
        Self {
            status: 407,
            reason: "Proxy Authentication Required",
            header: "proxy-authenticate: Basic realm=\"holdfast\"\r\n",
            body: json_body(&refusal),
            close: false,
        }
    }

    /// Tells a refusal of the gatekeeper's.
    pub(super) fn refused(refusal: &Refusal, dialect: Dialect) -> Self {
        let (status, reason, body) = match dialect {
            Dialect::GraphQl => (200, "OK", graphql_body(refusal)),
            Dialect::Json => (403, "Forbidden", json_body(refusal)),
        };
        Self {
            status,
            reason,
            header: "",
            body,
            close: false,
        }
    }

    /// Returns the bytes; `HEAD` is answered without body.
    pub(super) fn bytes(&self, head_only: bool, keep: bool) -> Vec<u8> {
        let connection = if keep && !self.close {
            "keep-alive"
        } else {
            "close"
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: {connection}\r\n{}\r\n",
            self.status,
            self.reason,
            self.body.len(),
            self.header
        )
        .into_bytes();
        if !head_only {
            bytes.extend(self.body.bytes());
        }
        bytes
    }
}

fn graphql_body(refusal: &Refusal) -> String {
    let hold = refusal.hold.as_ref().map(ToString::to_string);
    let message = format!("{}: {}. {}", refusal.code, refusal.message, refusal.hint);
    json!({
        "data": null,
        "errors": [{
            "message": message,
            "extensions": {
                "code": refusal.code,
                "hold": hold,
                "hint": refusal.hint,
                "retry": false,
            },
        }],
    })
    .to_string()
}

fn json_body(refusal: &Refusal) -> String {
    json!({
        "error": {
            "code": refusal.code,
            "message": refusal.message,
            "hint": refusal.hint,
            "hold": refusal.hold.as_ref().map(ToString::to_string),
            "retry": false,
        },
    })
    .to_string()
}
