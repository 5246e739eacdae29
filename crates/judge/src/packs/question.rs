//! What a provider is asked before a decision, and what its answers change.

use std::collections::BTreeMap;

use holdfast_core::{Effect, Evidence, Impact, Resource, Untrusted};
use serde_json::{Value, json};

use super::HttpJudgement;
use super::format::{Kind, Pack, QuestionRule, Rule, State, Variable};
use super::pattern::Pattern;

/// Questions that one request leads to at most; a longer list is cut, which leaves the effects strict.
const LIMIT_QUESTIONS: usize = 16;

/// A reading question to the provider itself, to be sent where and as the judged request was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The rule of the pack that it comes from.
    pub id: String,
    /// The JSON body to be sent by POST to the endpoint of the judged request.
    pub body: String,
    /// The path to be asked.
    pub path: String,
    /// The resource that it is about.
    pub about: Option<Resource>,
    /// The operation that does what was staged earlier, which the question is about.
    pub state_of: Option<String>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was asked.
    pub question: Question,
    /// The body of the answer, or why there is none.
    pub body: Result<Vec<u8>, String>,
}

/// A judgement after the answers came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// What the request would do; never less strict than an unanswered question leaves it.
    pub judgement: HttpJudgement,
    /// What the provider said.
    pub evidence: Evidence,
    /// Resources that a touched resource is or is part of, by the provider's answer.
    pub also: Vec<(Resource, Resource)>,
}

impl Learnt {
    pub(super) fn nothing(judgement: HttpJudgement) -> Self {
        Self {
            judgement,
            evidence: Evidence::default(),
            also: Vec::new(),
        }
    }
}

impl Pack {
    /// Lists what to ask about one operation.
    pub(super) fn ask(
        &self,
        (name, rule): (&str, &Rule),
        arguments: &Value,
        resources: &[Resource],
        out: &mut Vec<Question>,
    ) {
        let mut push = |question: Question| {
            if out.len() < LIMIT_QUESTIONS && !out.contains(&question) {
                out.push(question);
            }
        };
        let harmless = |effect: Effect| effect <= Effect::Write;
        let whens = rule.whens.iter().all(|when| harmless(when.effect));
        if harmless(rule.effect) && whens && rule.state.is_none() {
            return;
        }
        for resource in resources {
            let about = |question: &&QuestionRule| question.about.as_ref() == Some(&resource.kind);
            if let Some(question) = self.questions.iter().find(about) {
                push(self.question_of(question, arguments, Some(resource.clone()), None));
            }
        }
        if let Some(state) = &rule.state
            && let Some(question) = self.question(&state.question)
        {
            let state_of = Some(name.to_owned());
            push(self.question_of(question, arguments, None, state_of));
        }
    }

    /// Lists what tells a credential's reach.
    pub(super) fn reach_questions(&self) -> Vec<Question> {
        let rules = self.reach.iter().filter_map(|id| self.question(id));
        rules
            .map(|rule| self.question_of(rule, &Value::Null, None, None))
            .collect()
    }

    fn question_of(
        &self,
        rule: &QuestionRule,
        arguments: &Value,
        about: Option<Resource>,
        state_of: Option<String>,
    ) -> Question {
        let mut variables = serde_json::Map::new();
        for (name, from) in &rule.variables {
            let value = match (from, &about) {
                (Variable::Name, Some(resource)) => Some(resource.name.clone()),
                (Variable::Name, None) => None,
                (Variable::Argument(at), _) => at.names(arguments).into_iter().next(),
            };
            variables.insert(name.clone(), value.map_or(Value::Null, Value::String));
        }
        Question {
            id: rule.id.clone(),
            body: json!({ "query": rule.query, "variables": variables }).to_string(),
            path: self.graphql_paths.first().cloned().unwrap_or_default(),
            about,
            state_of,
        }
    }

    /// Takes answers in.
    pub(super) fn learn(&self, judgement: HttpJudgement, answers: &[Answer]) -> Learnt {
        let mut learnt = Learnt::nothing(judgement);
        for answer in answers {
            let Some(rule) = self.question(&answer.question.id) else {
                continue;
            };
            let read = answer.body.clone().and_then(|body| {
                serde_json::from_slice::<Value>(&body)
                    .map_err(|_| "it did not answer in JSON".to_owned())
            });
            match (&answer.question.about, &answer.question.state_of) {
                (Some(resource), _) => self.identify(rule, resource, read, &mut learnt),
                (None, Some(name)) => self.state(rule, name, read, &mut learnt),
                (None, None) => {}
            }
        }
        learnt
    }

    fn identify(
        &self,
        rule: &QuestionRule,
        resource: &Resource,
        answer: Result<Value, String>,
        learnt: &mut Learnt,
    ) {
        let fact = format!("what {} says {resource} is", self.name);
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                learnt
                    .evidence
                    .push(fact, format!("not known: {}", Untrusted(&why)));
                return;
            }
        };
        let Some(captured) = rule.located(resource, &answer) else {
            learnt
                .evidence
                .push(fact, "not known: the provider names no such thing");
            return;
        };
        for (name, at) in &rule.facts {
            let mut values = at.at(&captured).names(&answer);
            values.sort();
            values.dedup();
            let values: Vec<String> = values.iter().map(|v| Untrusted(v).to_string()).collect();
            if !values.is_empty() {
                learnt
                    .evidence
                    .push(format!("{fact}: {name}"), values.join(", "));
            }
        }
        for (kind, at) in &rule.also {
            for name in at.at(&captured).names(&answer) {
                learnt
                    .also
                    .push((resource.clone(), Resource::new(kind, name)));
            }
        }
    }

    fn state(
        &self,
        rule: &QuestionRule,
        name: &str,
        answer: Result<Value, String>,
        learnt: &mut Learnt,
    ) {
        let fact = format!("what {} says was staged", self.name);
        let Some((asked, state, judged)) = self.staged_rules(name) else {
            return;
        };
        let staged = answer.ok().and_then(|answer| {
            let found = rule.answer.as_ref()?.find(&answer);
            found
                .into_iter()
                .next()
                .map(|found| found.value.into_owned())
        });
        let Some(staged @ Value::Object(_)) = staged else {
            learnt.evidence.push(fact, "not known");
            return;
        };
        learnt
            .evidence
            .push(fact, Untrusted(&staged.to_string()).to_string());
        let effects = judged.effects(name, &json!({ state.argument.as_str(): staged }));
        // What was unknown only because it had not been asked is known now.
        let unasked = Impact::new(asked.effect, asked.because_of(name));
        let stated = std::mem::take(&mut learnt.judgement.effects);
        let known = stated.impacts().iter().filter(|impact| {
            (impact.effect, &impact.because) != (unasked.effect, &unasked.because)
        });
        learnt.judgement.effects = known.cloned().chain(effects.impacts().to_vec()).collect();
    }

    fn staged_rules(&self, name: &str) -> Option<(&Rule, &State, &Rule)> {
        let asked = self.rules.get(&(Kind::Mutation, name.to_owned()))?;
        let state = asked.state.as_ref()?;
        let judged = self.rules.get(&(Kind::Mutation, state.judge_as.clone()))?;
        Some((asked, state, judged))
    }
}

impl QuestionRule {
    /// Finds the resource in the answer; returns the keys that lead there.
    fn located(&self, resource: &Resource, answer: &Value) -> Option<BTreeMap<String, String>> {
        let find: &Pattern = self.find.as_ref()?;
        let found = find.find(answer);
        let is_it = |value: &Value| value.as_str() == Some(&resource.name);
        let found = found.into_iter().find(|found| is_it(&found.value))?;
        Some(found.captured)
    }
}
