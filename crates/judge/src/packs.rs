//! Provider knowledge as data: which requests of HTTP have which effect.
//!
//! A pack names the hosts of a provider, its operations with their effects by name, by argument and by
//! state, how to ask the provider what an id really is, and how the provider tells errors.
//! `docs/packs.md` describes the format. What no pack lists is `unknown`.

mod format;
mod graphql;
mod pattern;
mod question;
mod rest;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use holdfast_core::{Code, Coded, Effect, Effects, Impact, Resource, Untrusted};
use holdfast_wire::http::HttpRequest;

use format::Pack;

pub use question::{Answer, Learnt, Question};

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
    /// What to ask the provider before deciding; see [`Packs::learn`].
    pub questions: Vec<Question>,
    /// What to save before, and how to undo it, where the pack knows.
    pub advice: Vec<String>,
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
    /// Ends of the paths of files in which every credential-shaped text is one.
    pub files: Vec<String>,
    /// Words that stand near a credential, lower case.
    pub words: Vec<String>,
    /// Regular shape of a credential: `uuid`, or `prefix:` and a literal beginning.
    pub shape: String,
    /// Operations that destroy what the credential reaches.
    pub destroys: Vec<String>,
    /// The hosts it is for.
    pub hosts: Vec<String>,
}

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It contradicts itself or another pack, or says something that has no meaning.
    #[error("the pack `{pack}` cannot be used: {why}")]
    Invalid {
        /// Its name.
        pack: String,
        /// What is wrong.
        why: String,
    },
    /// Not TOML, or a key that packs do not have.
    #[error("the pack `{pack}` is not readable: {why}")]
    Syntax {
        /// The name it was given by.
        pack: String,
        /// What TOML said, in one line.
        why: String,
    },
}

impl Coded for PackError {
    fn code(&self) -> Code {
        Code::ZU507
    }

    fn hint(&self) -> Option<String> {
        Some("mend the pack; docs/packs.md describes the format".to_owned())
    }
}

/// All packs. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    packs: Arc<Vec<Pack>>,
}

impl Packs {
    /// Returns the packs that Holdfast ships.
    #[expect(
        clippy::expect_used,
        reason = "the texts are part of this crate and a test loads them"
    )]
    pub fn shipped() -> Self {
        // INVARIANT: the shipped packs are valid.
        Self::parse(&Self::shipped_texts()).expect("the shipped packs are valid")
    }

    /// Returns the packs that Holdfast ships, as name and text.
    pub fn shipped_texts() -> Vec<(&'static str, &'static str)> {
        vec![("railway", include_str!("../../../packs/railway/pack.toml"))]
    }

    /// Reads packs, each with the name it goes by.
    ///
    /// # Errors
    /// [`PackError`]: unknown keys, an operation that stands twice, a host that two packs claim.
    pub fn parse(texts: &[(&str, &str)]) -> Result<Self, PackError> {
        let mut packs: Vec<Pack> = Vec::new();
        for (name, text) in texts {
            let pack = Pack::parse(name, text)?;
            let taken = |host: &&String| packs.iter().any(|other| other.hosts.contains(host));
            if let Some(host) = pack.hosts.iter().find(taken) {
                return Err(PackError::Invalid {
                    pack: pack.name.clone(),
                    why: format!("another pack claims `{}`", Untrusted(host)),
                });
            }
            packs.push(pack);
        }
        Ok(Self {
            packs: Arc::new(packs),
        })
    }

    /// Tells what a request would do. What no pack knows: reading methods read, the rest is unknown.
    pub fn judge(&self, request: &HttpRequest) -> HttpJudgement {
        let pack = self.of_host(&request.host);
        let mut judgement = match pack {
            Some(pack) => pack.judge(request),
            None => rest::of_no_pack(request),
        };
        for because in rest::doubts(request) {
            judgement
                .effects
                .push(Impact::new(Effect::Unknown, because));
        }
        judgement
    }

    /// Takes the provider's answers in: what the things are, and what a staged change would do.
    ///
    /// An answer that is missing or cannot be read leaves the judgement as strict as it was.
    pub fn learn(&self, judgement: HttpJudgement, answers: &[Answer]) -> Learnt {
        match judgement.pack.as_deref().and_then(|name| self.named(name)) {
            Some(pack) => pack.learn(judgement, answers),
            None => Learnt::nothing(judgement),
        }
    }

    /// Returns where the provider of this host wants its credential; empty when no pack knows it.
    pub fn credential_places(&self, host: &str) -> Vec<CredentialPlace> {
        self.of_host(host)
            .map(|pack| pack.places.clone())
            .unwrap_or_default()
    }

    /// Returns what is known about credentials, for scanning.
    pub fn credentials(&self) -> Vec<ProviderCredentials> {
        self.packs.iter().map(Pack::credentials).collect()
    }

    /// Returns every operation that a pack classifies, as kind and name.
    pub fn operations(&self, pack: &str) -> Vec<(&'static str, String)> {
        self.named(pack).map(Pack::operations).unwrap_or_default()
    }

    /// Returns the reading questions that tell what a credential reaches, as host, path and JSON body.
    pub fn reach_questions(&self, provider: &str) -> Vec<Question> {
        self.named(provider)
            .map(Pack::reach_questions)
            .unwrap_or_default()
    }

    fn of_host(&self, host: &str) -> Option<&Pack> {
        self.packs
            .iter()
            .find(|pack| pack.hosts.iter().any(|known| known == host))
    }

    fn named(&self, name: &str) -> Option<&Pack> {
        self.packs.iter().find(|pack| pack.name == name)
    }
}

/// Names a resource in a few words for a summary.
fn brief(resources: &[Resource]) -> String {
    let mut text = String::new();
    for resource in resources.iter().take(3) {
        text.push(' ');
        text.push_str(&Untrusted(&resource.name).to_string());
    }
    if resources.len() > 3 {
        text.push_str(" …");
    }
    text
}
