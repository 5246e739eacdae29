//! The text of a pack, and what it becomes. Everything is checked when it is loaded.

mod raw;

use std::collections::BTreeMap;

use holdfast_core::Effect;
use serde_json::Value;

use super::pattern::Pattern;
use super::{CredentialPlace, PackError, ProviderCredentials};

/// A pack, checked.
#[derive(Clone, Debug)]
pub(super) struct Pack {
    pub name: String,
    pub hosts: Vec<String>,
    pub graphql_paths: Vec<String>,
    pub rest: Vec<RestRule>,
    pub places: Vec<CredentialPlace>,
    pub scan: ProviderCredentials,
    pub reach: Vec<String>,
    pub rules: BTreeMap<(Kind, String), Rule>,
    pub questions: Vec<QuestionRule>,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A field anywhere below the root.
    Field,
    /// A root field of a mutation.
    Mutation,
    /// A root field of a query or subscription.
    Query,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Field => "field",
            Self::Mutation => "mutation",
            Self::Query => "query",
        }
    }
}

/// One request that is not GraphQL.
#[derive(Clone, Debug)]
pub(super) struct RestRule {
    pub methods: Vec<String>,
    /// The path; `*` stands for one segment.
    pub path: Vec<String>,
    pub effect: Effect,
    pub because: String,
}

/// What is known about one operation.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub effect: Effect,
    pub because: String,
    pub resources: Vec<ResourceRule>,
    pub whens: Vec<When>,
    pub state: Option<State>,
    pub save: Option<String>,
    pub undo: Option<String>,
}

/// Where a resource's id stands.
#[derive(Clone, Debug)]
pub(super) struct ResourceRule {
    pub kind: String,
    pub place: Place,
}

/// How a resource's id is found.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// At a pattern over the arguments.
    At(Pattern),
    /// Under this name among the captures of the condition.
    Captured(String),
}

/// A further effect, by argument.
#[derive(Clone, Debug)]
pub(super) struct When {
    pub at: Pattern,
    pub test: Test,
    pub effect: Effect,
    pub because: String,
    pub resources: Vec<ResourceRule>,
    /// It replaces the effect of the operation.
    pub instead: bool,
}

/// What a value must be.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// There is none, or it is null.
    Absent,
    /// There is none, or it is null, `[]`, `{}` or `""`.
    Empty,
    /// It contains all of these.
    Includes(Vec<Value>),
    /// It is one of these, or a list that contains one.
    Is(Vec<Value>),
    /// It is there and none of these.
    Not(Vec<Value>),
    /// It is there and null.
    Null,
    /// It is there, and everything in it stands at one of these places.
    Only(Vec<Pattern>),
    /// It is there and not null.
    Present,
}

/// An operation that names nothing: what it does was said earlier.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub question: String,
    /// The operation whose rule judges what was said earlier.
    pub judge_as: String,
    /// The argument of that operation.
    pub argument: String,
}

/// How to ask the provider.
#[derive(Clone, Debug)]
pub(super) struct QuestionRule {
    pub id: String,
    /// The kind of resource it is about; `None` for questions about a state or a credential.
    pub about: Option<String>,
    pub query: String,
    /// Variable and where its value stands: `{name}`, or a pattern over the arguments.
    pub variables: BTreeMap<String, Variable>,
    /// Where the id stands in the answer; the captures are used by `facts`.
    pub find: Option<Pattern>,
    /// Where the answer to a question about a state stands.
    pub answer: Option<Pattern>,
    pub facts: Vec<(String, Pattern)>,
    /// Further resources that the thing is, or is part of.
    pub also: Vec<(String, Pattern)>,
}

/// Where the value of a variable comes from.
#[derive(Clone, Debug)]
pub(super) enum Variable {
    /// The resource's id.
    Name,
    /// An argument of the operation.
    Argument(Pattern),
}

impl Pack {
    pub(super) fn parse(given_name: &str, text: &str) -> Result<Self, PackError> {
        let raw: raw::Pack = toml::from_str(text).map_err(|error| PackError::Syntax {
            pack: given_name.to_owned(),
            why: error.message().replace('\n', ", "),
        })?;
        let name = raw.name.clone();
        let pack = raw.check().map_err(|why| PackError::Invalid {
            pack: name.clone(),
            why,
        })?;
        pack.check_references()
            .map_err(|why| PackError::Invalid { pack: name, why })?;
        Ok(pack)
    }

    pub(super) fn credentials(&self) -> ProviderCredentials {
        let destroys = self.rules.iter().filter(|((kind, _), rule)| {
            *kind == Kind::Mutation
                && (rule.effect == Effect::Destroy
                    || rule.whens.iter().any(|when| when.effect == Effect::Destroy))
        });
        ProviderCredentials {
            destroys: destroys.map(|((_, name), _)| name.clone()).collect(),
            ..self.scan.clone()
        }
    }

    pub(super) fn operations(&self) -> Vec<(&'static str, String)> {
        let keys = self.rules.keys();
        keys.map(|(kind, name)| (kind.word(), name.clone()))
            .collect()
    }

    pub(super) fn question(&self, id: &str) -> Option<&QuestionRule> {
        self.questions.iter().find(|question| question.id == id)
    }

    fn check_references(&self) -> Result<(), String> {
        for ((_, name), rule) in &self.rules {
            if let Some(state) = &rule.state {
                if self
                    .question(&state.question)
                    .is_none_or(|q| q.answer.is_none())
                {
                    return Err(format!(
                        "`{name}` asks `{}`, which answers nothing",
                        state.question
                    ));
                }
                let judged_as = (Kind::Mutation, state.judge_as.clone());
                if !self.rules.contains_key(&judged_as) {
                    return Err(format!(
                        "`{name}` is judged as `{}`, which is not listed",
                        state.judge_as
                    ));
                }
            }
            for when in &rule.whens {
                for resource in &when.resources {
                    if let Place::Captured(capture) = &resource.place
                        && !when.at.captures(capture)
                    {
                        return Err(format!("`{name}`: nothing is captured as `{capture}`"));
                    }
                }
            }
        }
        match self.reach.iter().find(|id| self.question(id).is_none()) {
            Some(id) => Err(format!("there is no question `{id}`")),
            None => Ok(()),
        }
    }
}
