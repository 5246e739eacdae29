//! Provider knowledge as data: which requests of HTTP have which effect.

use holdfast_core::{Effect, Effects, Impact, Untrusted};
use holdfast_wire::http::HttpRequest;

/// How a provider tells errors, so that a refusal is shown to the one who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Status 200 and `{"data":null,"errors":[{"message":…}]}`.
    GraphQl,
    /// Status 403 and `{"error":{…}}`.
    Json,
}

/// What a request would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpJudgement {
    /// The pack that knows the host; `None` when none does.
    pub pack: Option<String>,
    /// What is asked, short and for people, such as `railway volumeDelete 3d2c…`; without secrets.
    pub summary: String,
    /// What it would do, with the resources that its arguments name.
    pub effects: Effects,
    /// How to refuse it.
    pub dialect: Dialect,
}

/// Where a provider wants its credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialPlace {
    /// Header name, lower case.
    pub header: String,
    /// What stands before the credential, such as `Bearer `.
    pub prefix: String,
}

/// What is known about one provider's credentials, for finding them and saying what they can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderCredentials {
    /// The pack's name, such as `railway`.
    pub provider: String,
    /// Names under which credentials stand in files, upper case, such as `RAILWAY_API_TOKEN`.
    pub variables: Vec<String>,
    /// Regular shape of a credential: `uuid`, or `prefix:` and a literal beginning.
    pub shape: String,
    /// Operations that destroy what the credential reaches.
    pub destroys: Vec<String>,
    /// The hosts it is for.
    pub hosts: Vec<String>,
}

/// All packs.
#[derive(Clone, Debug, Default)]
pub struct Packs {}

impl Packs {
    /// Returns the packs that Holdfast ships.
    pub fn shipped() -> Self {
        Self::default()
    }

    /// Tells what a request would do. What no pack knows: reading methods read, the rest is unknown.
    pub fn judge(&self, request: &HttpRequest) -> HttpJudgement {
        let summary = format!(
            "{} {}{}",
            Untrusted(&request.method),
            request.host,
            Untrusted(&request.path)
        );
        let effect = match request.method.as_str() {
            "GET" | "HEAD" | "OPTIONS" => Effect::Read,
            _ => Effect::Unknown,
        };
        let because = "no pack knows this host";
        HttpJudgement {
            pack: None,
            summary,
            effects: Effects::one(Impact::new(effect, because)),
            dialect: Dialect::Json,
        }
    }

    /// Returns where the provider of this host wants its credential; empty when no pack knows it.
    pub fn credential_places(&self, _host: &str) -> Vec<CredentialPlace> {
        Vec::new()
    }

    /// Returns what is known about credentials, for scanning.
    pub fn credentials(&self) -> Vec<ProviderCredentials> {
        Vec::new()
    }
}
