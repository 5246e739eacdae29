//! Judges a request to a GraphQL endpoint by the rules of a pack.

use std::collections::BTreeMap;

use holdfast_core::{Effect, Effects, Impact, Resource, Untrusted};
use holdfast_wire::graphql::{self, Field, Operation, OperationKind};
use holdfast_wire::http::HttpRequest;
use serde_json::Value;

use super::format::{Kind, Pack, Place, ResourceRule, Rule, Test, When};
use super::pattern::{Found, Pattern};
use super::{Dialect, HttpJudgement, brief};

impl Pack {
    /// Judges a request to a host of this pack.
    pub(super) fn judge(&self, request: &HttpRequest) -> HttpJudgement {
        let mut judgement = if self.graphql_paths.contains(&request.path) {
            self.judge_graphql(request)
        } else {
            self.judge_rest(request)
        };
        if request.scheme != "https" {
            let because = "the provider is asked without TLS, so a credential would be seen";
            judgement
                .effects
                .push(Impact::new(Effect::Unknown, because));
        } else if request.port != 443 {
            let because = "the provider is asked at a port that its API does not have";
            judgement
                .effects
                .push(Impact::new(Effect::Unknown, because));
        }
        judgement
    }

    fn judge_graphql(&self, request: &HttpRequest) -> HttpJudgement {
        let mut judgement = HttpJudgement {
            pack: Some(self.name.clone()),
            summary: String::new(),
            effects: Effects::none(),
            dialect: Dialect::GraphQl,
            questions: Vec::new(),
            advice: Vec::new(),
        };
        let operations = match graphql::operations(request) {
            Ok(operations) => operations,
            Err(error) => {
                judgement.summary = format!("{} request", self.name);
                let because = format!("it cannot be told what it runs: {error}");
                judgement
                    .effects
                    .push(Impact::new(Effect::Unknown, because));
                return judgement;
            }
        };
        let mut words = Vec::new();
        for operation in &operations {
            for field in &operation.fields {
                let (effects, resources) = self.judge_root(operation, field, &mut judgement);
                words.push(format!("{}{}", Untrusted(&field.name), brief(&resources)));
                judgement.effects.extend(effects);
            }
        }
        words.dedup();
        judgement.summary = format!("{} {}", self.name, words.join(", "));
        if judgement.summary.chars().count() > Untrusted::LIMIT_CHARS {
            let cut = Untrusted::LIMIT_CHARS;
            judgement.summary = judgement.summary.chars().take(cut).collect::<String>() + "…";
        }
        judgement
    }

    fn judge_root(
        &self,
        operation: &Operation,
        field: &Field,
        judgement: &mut HttpJudgement,
    ) -> (Effects, Vec<Resource>) {
        let kind = match operation.kind {
            OperationKind::Mutation => Kind::Mutation,
            OperationKind::Query | OperationKind::Subscription => Kind::Query,
        };
        let arguments = field.arguments_json();
        let rule = self.rules.get(&(kind, field.name.clone()));
        let mut effects = match (rule, kind) {
            (Some(rule), _) => rule.effects(&field.name, &arguments),
            (None, Kind::Mutation) => Effects::one(Impact::new(
                Effect::Unknown,
                format!("{}: the pack does not list it", Untrusted(&field.name)),
            )),
            (None, Kind::Field | Kind::Query) => {
                Effects::one(Impact::new(Effect::Read, "it is a query"))
            }
        };
        for below in &field.fields {
            self.judge_below(below, &mut effects);
        }
        let mut resources: Vec<Resource> = Vec::new();
        for resource in effects
            .impacts()
            .iter()
            .flat_map(|impact| &impact.resources)
        {
            if !resources.contains(resource) {
                resources.push(resource.clone());
            }
        }
        if let Some(rule) = rule {
            self.ask(
                (&field.name, rule),
                &arguments,
                &resources,
                &mut judgement.questions,
            );
            let name = &field.name;
            let advice = [
                rule.save
                    .as_ref()
                    .map(|save| format!("{name}: before: {save}")),
                rule.undo
                    .as_ref()
                    .map(|undo| format!("{name}: undo: {undo}")),
            ];
            judgement.advice.extend(advice.into_iter().flatten());
        }
        (effects, resources)
    }

    /// Rules about fields below the root: what they give away does not depend on how they are reached.
    fn judge_below(&self, field: &Field, effects: &mut Effects) {
        if let Some(rule) = self.rules.get(&(Kind::Field, field.name.clone())) {
            effects.extend(rule.effects(&field.name, &field.arguments_json()));
        }
        for below in &field.fields {
            self.judge_below(below, effects);
        }
    }
}

impl Rule {
    /// Returns the reason of the effect that the operation has by its name.
    pub(super) fn because_of(&self, name: &str) -> String {
        format!("{name}: {}", self.because)
    }

    /// Returns what an operation with these arguments would do.
    pub(super) fn effects(&self, name: &str, arguments: &Value) -> Effects {
        let mut effects = Effects::none();
        let mut base = true;
        let mut judged = std::collections::BTreeSet::new();
        for when in &self.whens {
            for found in when.matches(arguments) {
                // Of two conditions about one place the first one, the more precise one, counts.
                if !found.place.is_empty() && !judged.insert(found.place.clone()) {
                    continue;
                }
                base &= !when.instead;
                let mut impact = Impact::new(when.effect, format!("{name}: {}", when.because));
                impact.resources = named(&when.resources, arguments, &found.captured);
                if when.resources.is_empty() {
                    impact.resources = named(&self.resources, arguments, &BTreeMap::new());
                }
                effects.push(impact);
            }
        }
        if base {
            let mut impact = Impact::new(self.effect, self.because_of(name));
            impact.resources = named(&self.resources, arguments, &BTreeMap::new());
            effects.push(impact);
        }
        effects
    }
}

impl When {
    fn matches<'a>(&self, arguments: &'a Value) -> Vec<Found<'a>> {
        let nowhere = || Found {
            value: std::borrow::Cow::Owned(Value::Null),
            captured: BTreeMap::new(),
            place: String::new(),
        };
        let mut found = self.at.find(arguments);
        match &self.test {
            Test::Absent if found.iter().all(|one| one.value.is_null()) => vec![nowhere()],
            Test::Empty if found.iter().all(|one| is_empty(&one.value)) => vec![nowhere()],
            Test::Absent | Test::Empty => Vec::new(),
            Test::Includes(wanted) => {
                found.retain(|one| wanted.iter().all(|value| contains(&one.value, value)));
                found
            }
            Test::Is(wanted) => {
                found.retain(|one| wanted.iter().any(|value| contains(&one.value, value)));
                found
            }
            Test::Not(harmless) => {
                found.retain(|one| !harmless.iter().any(|value| same(&one.value, value)));
                found
            }
            Test::Null => {
                found.retain(|one| one.value.is_null());
                found
            }
            Test::Only(places) => {
                found.retain(|one| holds_only(&one.value, places));
                for one in &mut found {
                    // It is about all of the value; conditions about places in it still count.
                    one.place.clear();
                }
                found
            }
            Test::Present => {
                found.retain(|one| !one.value.is_null());
                found
            }
        }
    }
}

fn holds_only(value: &Value, places: &[Pattern]) -> bool {
    let known: Vec<String> = places
        .iter()
        .flat_map(|place| place.find(value))
        .map(|found| found.place)
        .collect();
    let leaves = Pattern::leaves(value);
    let is_known = |leaf: &String| {
        known.iter().any(|place| {
            let rest = leaf.strip_prefix(place.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    value.is_object() && leaves.iter().all(is_known)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A list may be written for a value, and a value for a list of one.
fn contains(value: &Value, wanted: &Value) -> bool {
    match value {
        Value::Array(values) => values.iter().any(|one| same(one, wanted)),
        one => same(one, wanted),
    }
}

fn same(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::String(a), Value::String(b)) => a.eq_ignore_ascii_case(b),
        (a, b) => a == b,
    }
}

fn named(
    rules: &[ResourceRule],
    arguments: &Value,
    captured: &BTreeMap<String, String>,
) -> Vec<Resource> {
    let mut resources = Vec::new();
    for rule in rules {
        let names = match &rule.place {
            Place::At(at) => Pattern::names(at, arguments),
            Place::Captured(name) => captured.get(name).cloned().into_iter().collect(),
        };
        for name in names {
            let resource = Resource::new(&rule.kind, name);
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
    }
    resources
}
