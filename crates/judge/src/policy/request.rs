//! Turns an impact into the words of Cedar: principal, action, resource, context.

use std::collections::HashSet;
use std::str::FromStr;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};

use holdfast_core::{Action, Effect, Impact, PrincipalKind};

use super::{Facts, PolicyError};

/// The names that never change, parsed once.
#[derive(Clone, Debug)]
pub(super) struct Words {
    agent: EntityTypeName,
    human: EntityTypeName,
    service: EntityTypeName,
    source: EntityTypeName,
    environment: EntityTypeName,
    effects: Vec<(Effect, EntityUid)>,
}

impl Words {
    pub(super) fn new() -> Result<Self, PolicyError> {
        let action = name("Action")?;
        Ok(Self {
            agent: name("Agent")?,
            human: name("Human")?,
            service: name("Service")?,
            source: name("Source")?,
            environment: name("Environment")?,
            effects: Effect::ALL
                .into_iter()
                .map(|effect| (effect, uid(&action, effect.word())))
                .collect(),
        })
    }

    fn effect(&self, effect: Effect) -> Option<EntityUid> {
        self.effects
            .iter()
            .find(|(one, _)| *one == effect)
            .map(|(_, uid)| uid.clone())
    }
}

/// What all requests about one action have in common.
pub(super) struct Asked<'a> {
    facts: &'a Facts,
    principal: EntityUid,
    source: EntityUid,
    entities: Entities,
}

impl<'a> Asked<'a> {
    pub(super) fn new(words: &Words, action: &Action, facts: &'a Facts) -> Option<Self> {
        let kind = match action.principal.kind {
            PrincipalKind::Agent => &words.agent,
            PrincipalKind::Human => &words.human,
            PrincipalKind::Service => &words.service,
        };
        let source_name = action
            .source
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        let source = uid(&words.source, &source_name);
        let environment = uid(&words.environment, &facts.environment);
        let in_environment = Entity::new_no_attrs(source.clone(), HashSet::from([environment]));
        Some(Self {
            facts,
            principal: uid(kind, &action.principal.name),
            source,
            entities: Entities::from_entities([in_environment], None).ok()?,
        })
    }

    /// How many people have approved it.
    pub(super) fn approvals(&self) -> u8 {
        self.facts.approved_by_people
    }

    pub(super) fn entities(&self) -> &Entities {
        &self.entities
    }

    /// Makes the request about one impact, as if `people` had approved it.
    pub(super) fn request(&self, words: &Words, impact: &Impact, people: u8) -> Option<Request> {
        // The shapes are those of the schema by construction, and a test compares them; checking
        // every request again would cost more than deciding it.
        Request::new(
            self.principal.clone(),
            words.effect(impact.effect)?,
            self.source.clone(),
            self.context(impact, people)?,
            None,
        )
        .ok()
    }

    pub(super) fn context(&self, impact: &Impact, people: u8) -> Option<Context> {
        let facts = self.facts;
        let mut pairs = vec![
            ("door", text(facts.door.word())),
            ("environment", text(&facts.environment)),
            (
                "kinds",
                set(impact.resources.iter().map(|r| r.kind.as_str())),
            ),
            (
                "names",
                set(impact.resources.iter().map(|r| r.name.as_str())),
            ),
            ("rowsTransaction", long(facts.rows_transaction)),
            ("rowsTransactionMax", long(facts.rows_transaction_max)),
            ("rowsLeaseHour", long(facts.rows_lease_hour)),
            ("rowsLeaseHourMax", long(facts.rows_lease_hour_max)),
            ("additive", RestrictedExpression::new_bool(facts.additive)),
            (
                "wayBackProven",
                RestrictedExpression::new_bool(facts.way_back_proven),
            ),
            ("approved", RestrictedExpression::new_bool(people > 0)),
            ("approvals", long(people.into())),
        ];
        if let Some(rows) = impact.rows {
            pairs.push(("rows", long(rows.0)));
        }
        Context::from_pairs(
            pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value)),
        )
        .ok()
    }
}

fn name(text: &str) -> Result<EntityTypeName, PolicyError> {
    EntityTypeName::from_str(text).map_err(|error| PolicyError::Schema(error.to_string()))
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn set<'a>(values: impl Iterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.map(text))
}

/// Cedar counts in `i64`; what is more stays the most.
fn long(value: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(value).unwrap_or(i64::MAX))
}
