//! The changes at the root.

mod deletion;
mod naming;
mod patch;
mod volume;

pub use volume::instance;

use serde_json::Value;

use crate::graphql::Asked;
use crate::node::Found;
use crate::world::{Caller, Refusal, World};

/// Carries out one field of a mutation.
///
/// # Errors
/// When the caller may not, or what it names is not there.
pub fn change(world: &mut World, who: &Caller, asked: &Asked) -> Result<Found, Refusal> {
    match asked.name.as_str() {
        "environmentDelete" => deletion::environment(world, who, asked.text("id")).map(done),
        "environmentPatchCommit" => patch::commit(world, who, asked),
        "environmentPatchCommitStaged" => patch::commit_staged(world, who, asked),
        "environmentStageChanges" => patch::stage(world, who, asked),
        "projectDelete" => deletion::project(world, who, asked.text("id")).map(done),
        "serviceDelete" => {
            deletion::service(world, who, asked.text("id"), asked.given("environmentId")).map(done)
        }
        "volumeCreate" => volume::create(world, who, &asked.input()),
        "volumeDelete" => deletion::volume(world, who, asked.text("volumeId")).map(done),
        "volumeInstanceBackupCreate" => volume::back_up(world, who, asked),
        "volumeInstanceBackupDelete" => volume::delete_backup(world, who, asked),
        "volumeInstanceBackupRestore" => volume::restore(world, who, asked),
        "volumeInstanceUpdate" => volume::update_instance(world, who, asked),
        "volumeUpdate" => volume::update(world, who, asked),
        _ => naming::change(world, who, asked),
    }
}

fn done(_: ()) -> Found {
    Found::Value(Value::Bool(true))
}

fn text(input: &serde_json::Map<String, Value>, at: &str) -> Option<String> {
    input.get(at).and_then(Value::as_str).map(str::to_owned)
}

fn needed(input: &serde_json::Map<String, Value>, at: &str) -> String {
    text(input, at).unwrap_or_default()
}
