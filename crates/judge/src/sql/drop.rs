//! `DROP` and `TRUNCATE`.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{DropOwnedStmt, DropRoleStmt, DropStmt, TruncateStmt};
use pg_raw_parse::raw::{DropBehavior, ObjectType};

use super::found::Found;
use super::name;

/// Judges `DROP` of everything that has no statement of its own.
pub(super) fn drop<'a>(stmt: &'a DropStmt, found: &mut Found<'a>) {
    found.needs_no_block |= stmt.concurrent;
    if stmt.concurrent {
        found.stop_before = true;
    }
    let (effect, because) = meaning(stmt.remove_type);
    let cascade = match stmt.behavior {
        DropBehavior::DROP_CASCADE => ", and all that depends on it",
        _ => "",
    };
    for object in stmt.objects() {
        let called = name::object(object);
        let (effect, because) = match is_own(&called) {
            true => (Effect::Write, "a temporary thing is dropped"),
            false => (effect, because),
        };
        let resource = Resource::new(name::kind(stmt.remove_type), called);
        found.does(effect, resource, &format!("{because}{cascade}"));
    }
}

fn is_own(name: &str) -> bool {
    name.starts_with("pg_temp.") || name.starts_with("pg_temp_")
}

fn meaning(object: ObjectType::Type) -> (Effect, &'static str) {
    match object {
        ObjectType::OBJECT_TRIGGER | ObjectType::OBJECT_EVENT_TRIGGER => {
            (Effect::Disarm, "a trigger no longer acts")
        }
        ObjectType::OBJECT_RULE => (Effect::Disarm, "a rule no longer acts"),
        ObjectType::OBJECT_POLICY => (Effect::Disarm, "a row security policy is gone"),
        ObjectType::OBJECT_PUBLICATION | ObjectType::OBJECT_SUBSCRIPTION => {
            (Effect::Disarm, "a copy kept by replication ends")
        }
        ObjectType::OBJECT_INDEX => (
            Effect::Interrupt,
            "an index is gone, and queries slow down until it is built again",
        ),
        ObjectType::OBJECT_STATISTIC_EXT => {
            (Effect::Interrupt, "statistics are gone, and plans change")
        }
        ObjectType::OBJECT_TABLE
        | ObjectType::OBJECT_FOREIGN_TABLE
        | ObjectType::OBJECT_MATVIEW => (Effect::Destroy, "a table and its rows are gone"),
        ObjectType::OBJECT_SCHEMA => (Effect::Destroy, "a schema is gone"),
        ObjectType::OBJECT_EXTENSION => (Effect::Destroy, "an extension and its objects are gone"),
        _ => (Effect::Destroy, "structure is gone"),
    }
}

/// Judges `TRUNCATE`.
pub(super) fn truncate<'a>(stmt: &'a TruncateStmt, found: &mut Found<'a>) {
    let because = match stmt.behavior {
        DropBehavior::DROP_CASCADE => "all rows are gone, also of tables that refer to it",
        _ => "all rows are gone",
    };
    for relation in stmt.relations() {
        let Node::RangeVar(var) = relation else {
            found.does_unnamed(Effect::Destroy, because);
            continue;
        };
        let effect = match name::is_temporary(var) {
            true => Effect::Write,
            false => Effect::Destroy,
        };
        found.does(effect, name::table(var), because);
    }
}

/// Judges `DROP ROLE`.
pub(super) fn role<'a>(stmt: &'a DropRoleStmt, found: &mut Found<'a>) {
    for role in stmt.roles() {
        let resource = Resource::new("pg:role", name::object(role));
        found.does(
            Effect::Destroy,
            resource,
            "a role is gone, and cannot log in",
        );
    }
}

/// Judges `DROP OWNED`.
pub(super) fn owned<'a>(stmt: &'a DropOwnedStmt, found: &mut Found<'a>) {
    for role in stmt.roles() {
        let resource = Resource::new("pg:role", name::object(role));
        let because = "all that the role owns is gone, and all that it was granted";
        found.does(Effect::Destroy, resource, because);
    }
}
