//! Changes as data: what a patch marks as deleted is deleted.

use serde_json::{Map, Value};

use super::deletion;
use crate::graphql::Asked;
use crate::names;
use crate::node::{Found, Node};
use crate::records::Patch;
use crate::world::{Caller, Refusal, World};

/// Carries out a patch at once.
pub fn commit(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let environment = asked.text("environmentId");
    world.reaches(who, environment)?;
    let patch = asked.arguments.get("patch").cloned().unwrap_or(Value::Null);
    apply(world, who, environment, &patch)?;
    Ok(Found::Value(Value::String(names::uuid())))
}

/// Keeps a patch until it is committed.
pub fn stage(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let environment = asked.text("environmentId").to_owned();
    world.reaches(who, &environment)?;
    let input = asked.arguments.get("input").cloned().unwrap_or(Value::Null);
    let merges = asked.arguments.get("merge") == Some(&Value::Bool(true));
    let earlier = world.staged.get(&environment);
    let mut patch = earlier
        .filter(|_| merges)
        .map_or(Value::Null, |one| one.patch.clone());
    merge(&mut patch, input);
    let now = names::now();
    let staged = Patch {
        id: names::uuid(),
        environment_id: environment.clone(),
        status: "STAGED",
        message: None,
        patch,
        created_at: now.clone(),
        updated_at: now,
        applied_at: None,
    };
    let id = staged.id.clone();
    world.staged.insert(environment, staged);
    Ok(Found::Node(Node::Patch(id)))
}

/// Carries out what was staged.
pub fn commit_staged(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    let environment = asked.text("environmentId");
    world.reaches(who, environment)?;
    let nothing = || Refusal("No patch to apply".to_owned());
    let staged = world.staged.get(environment).cloned().ok_or_else(nothing)?;
    apply(world, who, environment, &staged.patch)?;
    world.staged.remove(environment);
    Ok(Found::Value(Value::String(staged.id)))
}

/// Settings are accepted and have no effect; a deletion is carried out.
fn apply(world: &mut World, who: &Caller, environment: &str, patch: &Value) -> Result<(), Refusal> {
    for id in deleted(patch, "volumes") {
        deletion::volume(world, who, &id)?;
    }
    for id in deleted(patch, "services") {
        deletion::service(world, who, &id, Some(environment))?;
    }
    world.note(format!("patch committed in environment {environment}"));
    Ok(())
}

fn deleted(patch: &Value, kind: &str) -> Vec<String> {
    let things = patch.get(kind).and_then(Value::as_object);
    let gone =
        |value: &Value| value.is_null() || value.get("isDeleted") == Some(&Value::Bool(true));
    let things = things
        .into_iter()
        .flatten()
        .filter(|(_, value)| gone(value));
    things.map(|(id, _)| id.clone()).collect()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, Value::Object(from)) => *into = Value::Object(Map::from_iter(from)),
        (into, from) => *into = from,
    }
}
