//! Who asks for what, on what, and what was measured about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ActionId, Digest, LeaseId, SourceName, Timestamp};

/// The kind of principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalKind {
    /// A model that acts by itself.
    Agent,
    /// A person.
    Human,
    /// A program of ours or of the user's.
    Service,
}

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// Agent, human or service.
    pub kind: PrincipalKind,
    /// The name it goes by, such as `cursor`.
    pub name: String,
}

impl Principal {
    /// Names an agent.
    pub fn agent(name: impl Into<String>) -> Self {
        Self {
            kind: PrincipalKind::Agent,
            name: name.into(),
        }
    }

    /// Names a person.
    pub fn human(name: impl Into<String>) -> Self {
        Self {
            kind: PrincipalKind::Human,
            name: name.into(),
        }
    }

    /// Names a program.
    pub fn service(name: impl Into<String>) -> Self {
        Self {
            kind: PrincipalKind::Service,
            name: name.into(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PrincipalKind::Agent => "agent",
            PrincipalKind::Human => "human",
            PrincipalKind::Service => "service",
        };
        write!(f, "{kind}:{}", crate::Untrusted(&self.name))
    }
}

/// The protocol of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorKind {
    /// An agent's own hook, asked before it acts; advisory.
    Hook,
    /// HTTP APIs of providers.
    Http,
    /// The Model Context Protocol.
    Mcp,
    /// PostgreSQL's protocol.
    Pg,
}

impl DoorKind {
    /// Returns the word used in policies, JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Http => "http",
            Self::Mcp => "mcp",
            Self::Pg => "pg",
        }
    }
}

/// A thing that an action touches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resource {
    /// What kind of thing, with its family before a colon: `pg:table`, `railway:volume`.
    pub kind: String,
    /// What it is called there: `public.orders`, a volume's id.
    pub name: String,
    /// The source it belongs to, once that is known from the target itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
}

impl Resource {
    /// Names a thing whose source is not known yet.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            name: name.into(),
            source: None,
        }
    }

    /// States the source it belongs to.
    #[must_use]
    pub fn of(mut self, source: SourceName) -> Self {
        self.source = Some(source);
        self
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self
            .kind
            .split_once(':')
            .map_or(self.kind.as_str(), |(_, kind)| kind);
        write!(f, "{kind} `{}`", crate::Untrusted(&self.name))
    }
}

/// One thing asked for at a door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Its id, new for every attempt.
    pub id: ActionId,
    /// Who asks.
    pub principal: Principal,
    /// Under which lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// The source that the door leads to, where it leads to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// Where it was asked.
    pub door: DoorKind,
    /// What is asked, short and for people; never contains a secret.
    pub summary: String,
    /// Digest of exactly what was asked; the same request has the same digest.
    pub digest: Digest,
    /// When it arrived.
    pub at: Timestamp,
}

/// One measured fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceItem {
    /// What was measured, such as `rows deleted in public.orders`.
    pub fact: String,
    /// What it was.
    pub value: String,
}

/// Measured facts about an action, with the position or time at which they were measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The facts, in the order they were measured.
    pub items: Vec<EvidenceItem>,
}

impl Evidence {
    /// Adds one fact.
    pub fn push(&mut self, fact: impl Into<String>, value: impl Into<String>) {
        self.items.push(EvidenceItem {
            fact: fact.into(),
            value: value.into(),
        });
    }

    /// Returns the digest that an approval is bound to.
    pub fn digest(&self) -> Digest {
        let mut digest = crate::DigestBuilder::new("holdfast evidence 1");
        for item in &self.items {
            digest = digest
                .field(item.fact.as_bytes())
                .field(item.value.as_bytes());
        }
        digest.finish()
    }
}
