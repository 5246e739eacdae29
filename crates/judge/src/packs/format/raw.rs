//! The TOML of a pack, as it is written. Unknown keys are errors.

use std::collections::BTreeMap;

use holdfast_core::Effect;
use serde::Deserialize;
use serde_json::Value;

use super::super::{CredentialPlace, ProviderCredentials};
use super::{
    Kind, Pattern, Place, QuestionRule, ResourceRule, RestRule, Rule, State, Test, Variable, When,
};

/// The version of the format that this program reads.
const FORMAT: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pack {
    format: u32,
    pub name: String,
    #[expect(dead_code, reason = "for people: the provider's name")]
    title: String,
    #[expect(
        dead_code,
        reason = "for people: the date the provider's behaviour was checked"
    )]
    checked: String,
    #[expect(dead_code, reason = "for people: where the knowledge comes from")]
    sources: Vec<String>,
    hosts: Vec<String>,
    #[serde(default)]
    graphql: Vec<GraphQl>,
    #[serde(default)]
    rest: Vec<Rest>,
    credential: Credential,
    #[serde(default)]
    operation: Vec<Operation>,
    #[serde(default)]
    question: Vec<Question>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphQl {
    paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    methods: Vec<String>,
    path: String,
    effect: String,
    because: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    variables: Vec<String>,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    words: Vec<String>,
    shape: String,
    place: Vec<CredentialPlaceRaw>,
    #[serde(default)]
    reach: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CredentialPlaceRaw {
    header: String,
    #[serde(default)]
    prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    #[serde(default = "mutation")]
    kind: String,
    names: Vec<String>,
    effect: String,
    because: String,
    #[serde(default)]
    resource: Vec<ResourceRaw>,
    #[serde(default)]
    when: Vec<WhenRaw>,
    state: Option<StateRaw>,
    save: Option<String>,
    undo: Option<String>,
}

fn mutation() -> String {
    "mutation".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceRaw {
    kind: String,
    at: Option<String>,
    captured: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhenRaw {
    at: String,
    test: Option<String>,
    is: Option<Vec<Value>>,
    not: Option<Vec<Value>>,
    includes: Option<Vec<Value>>,
    only: Option<Vec<String>>,
    effect: String,
    because: String,
    #[serde(default)]
    resource: Vec<ResourceRaw>,
    #[serde(default)]
    instead: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateRaw {
    question: String,
    judge_as: String,
    argument: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    id: String,
    about: Option<String>,
    query: String,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    find: Option<String>,
    answer: Option<String>,
    #[serde(default)]
    fact: Vec<FactRaw>,
    #[serde(default)]
    also: Vec<AlsoRaw>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FactRaw {
    name: String,
    at: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlsoRaw {
    kind: String,
    at: String,
}

impl Pack {
    pub(super) fn check(self) -> Result<super::Pack, String> {
        if self.format != FORMAT {
            return Err(format!("format {} is not {FORMAT}", self.format));
        }
        let host = |host: &String| {
            !host.is_empty() && !host.contains([':', '/', ' ']) && *host == host.to_lowercase()
        };
        if self.hosts.is_empty() || !self.hosts.iter().all(host) {
            return Err("hosts are names in lower case, without scheme and port".to_owned());
        }
        let mut rules = BTreeMap::new();
        for operation in self.operation {
            let kind = operation.kind()?;
            let names = operation.names.clone();
            let rule = operation.check()?;
            for name in names {
                if rules.insert((kind, name.clone()), rule.clone()).is_some() {
                    return Err(format!("the {} `{name}` stands twice", kind.word()));
                }
            }
        }
        let questions = self.question.into_iter().map(Question::check);
        let place = |place: CredentialPlaceRaw| CredentialPlace {
            header: place.header.to_lowercase(),
            prefix: place.prefix,
        };
        if self.credential.shape != "uuid" && !self.credential.shape.starts_with("prefix:") {
            return Err("a credential's shape is `uuid` or `prefix:` and its beginning".to_owned());
        }
        Ok(super::Pack {
            scan: ProviderCredentials {
                provider: self.name.clone(),
                variables: self.credential.variables,
                files: self.credential.files,
                words: self.credential.words,
                shape: self.credential.shape,
                destroys: Vec::new(),
                hosts: self.hosts.clone(),
            },
            name: self.name,
            hosts: self.hosts,
            graphql_paths: self.graphql.into_iter().flat_map(|g| g.paths).collect(),
            rest: self
                .rest
                .into_iter()
                .map(Rest::check)
                .collect::<Result<_, _>>()?,
            places: self.credential.place.into_iter().map(place).collect(),
            reach: self.credential.reach,
            rules,
            questions: questions.collect::<Result<_, _>>()?,
        })
    }
}

impl Rest {
    fn check(self) -> Result<RestRule, String> {
        let path = self
            .path
            .strip_prefix('/')
            .ok_or("a path begins with `/`")?;
        Ok(RestRule {
            methods: self.methods,
            path: path.split('/').map(str::to_owned).collect(),
            effect: effect(&self.effect)?,
            because: self.because,
        })
    }
}

impl Operation {
    fn kind(&self) -> Result<Kind, String> {
        match self.kind.as_str() {
            "field" => Ok(Kind::Field),
            "mutation" => Ok(Kind::Mutation),
            "query" => Ok(Kind::Query),
            other => Err(format!("`{other}` is no kind of operation")),
        }
    }

    fn check(self) -> Result<Rule, String> {
        if self.names.is_empty() || self.because.is_empty() {
            return Err("an operation has names and says why".to_owned());
        }
        let whens = self.when.into_iter().map(WhenRaw::check);
        Ok(Rule {
            effect: effect(&self.effect)?,
            because: self.because,
            resources: resources(self.resource)?,
            whens: whens.collect::<Result<_, _>>()?,
            state: self.state.map(|state| State {
                question: state.question,
                judge_as: state.judge_as,
                argument: state.argument,
            }),
            save: self.save,
            undo: self.undo,
        })
    }
}

impl WhenRaw {
    fn check(self) -> Result<When, String> {
        let stated = [
            self.test.is_some(),
            self.is.is_some(),
            self.not.is_some(),
            self.includes.is_some(),
            self.only.is_some(),
        ];
        let one = stated.into_iter().filter(|stated| *stated).count() == 1;
        let nonsense = || {
            format!(
                "the condition at `{}` has one of test, is, not, includes and only",
                self.at
            )
        };
        let word = match self.test.as_deref() {
            Some("absent") => Some(Test::Absent),
            Some("empty") => Some(Test::Empty),
            Some("null") => Some(Test::Null),
            Some("present") => Some(Test::Present),
            _ => None,
        };
        let only = self.only.map(|places| {
            let places = places.iter().map(|place| Pattern::parse(place));
            places.collect::<Result<Vec<_>, _>>().map(Test::Only)
        });
        let test = word
            .or(self.is.map(Test::Is))
            .or(self.not.map(Test::Not))
            .or(self.includes.map(Test::Includes))
            .or(only.transpose()?)
            .filter(|_| one)
            .ok_or_else(nonsense)?;
        Ok(When {
            at: Pattern::parse(&self.at)?,
            test,
            effect: effect(&self.effect)?,
            because: self.because,
            resources: resources(self.resource)?,
            instead: self.instead,
        })
    }
}

impl Question {
    fn check(self) -> Result<QuestionRule, String> {
        let pattern = |text: Option<String>| text.map(|text| Pattern::parse(&text)).transpose();
        let mut variables = BTreeMap::new();
        for (name, from) in self.variables {
            let from = match from.as_str() {
                "{name}" => Variable::Name,
                other => Variable::Argument(Pattern::parse(other)?),
            };
            variables.insert(name, from);
        }
        let facts = self.fact.into_iter();
        let facts = facts.map(|fact| Ok::<_, String>((fact.name, Pattern::parse(&fact.at)?)));
        let also = self.also.into_iter();
        let also = also.map(|also| Ok::<_, String>((also.kind, Pattern::parse(&also.at)?)));
        Ok(QuestionRule {
            id: self.id,
            about: self.about,
            query: self.query,
            variables,
            find: pattern(self.find)?,
            answer: pattern(self.answer)?,
            facts: facts.collect::<Result<_, _>>()?,
            also: also.collect::<Result<_, _>>()?,
        })
    }
}

fn resources(raw: Vec<ResourceRaw>) -> Result<Vec<ResourceRule>, String> {
    let one = |raw: ResourceRaw| {
        let place = match (raw.at, raw.captured) {
            (Some(at), None) => Place::At(Pattern::parse(&at)?),
            (None, Some(captured)) => Place::Captured(captured),
            _ => return Err(format!("`{}` stands either `at` or `captured`", raw.kind)),
        };
        Ok(ResourceRule {
            kind: raw.kind,
            place,
        })
    };
    raw.into_iter().map(one).collect()
}

fn effect(word: &str) -> Result<Effect, String> {
    word.parse()
}
