//! Roles and rights: `GRANT`, `REVOKE`, `CREATE ROLE`, `ALTER ROLE`, default privileges.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{
    AlterDefaultPrivilegesStmt, AlterRoleSetStmt, AlterRoleStmt, CreateRoleStmt, GrantRoleStmt,
    GrantStmt,
};
use pg_raw_parse::raw::{GrantTargetType, ObjectType};

use super::found::Found;
use super::name;

/// Judges `GRANT` and `REVOKE` of rights on things.
pub(super) fn grant<'a>(stmt: &'a GrantStmt, found: &mut Found<'a>) {
    let (effect, because) = match stmt.is_grant {
        true => (Effect::Escalate, "a role gains rights"),
        false => (Effect::Interrupt, "a role loses rights that it may need"),
    };
    let kind = name::kind(stmt.objtype);
    let names_tables = stmt.targtype == GrantTargetType::ACL_TARGET_OBJECT
        && matches!(
            stmt.objtype,
            ObjectType::OBJECT_TABLE | ObjectType::OBJECT_SEQUENCE
        );
    if !names_tables {
        return found.does(effect, Resource::new(kind, ""), because);
    }
    for table in stmt.objects() {
        found.does(effect, Resource::new(kind, name::relation(table)), because);
    }
}

/// Judges `ALTER DEFAULT PRIVILEGES`.
pub(super) fn defaults<'a>(stmt: &'a AlterDefaultPrivilegesStmt, found: &mut Found<'a>) {
    match stmt.action().is_some_and(|action| !action.is_grant) {
        true => found.does_unnamed(
            Effect::Interrupt,
            "roles get fewer rights to what is made later",
        ),
        false => found.does_unnamed(Effect::Escalate, "roles gain rights to what is made later"),
    }
}

/// Judges `GRANT` and `REVOKE` of membership in roles.
pub(super) fn membership<'a>(stmt: &'a GrantRoleStmt, found: &mut Found<'a>) {
    let (effect, because) = match stmt.is_grant {
        true => (Effect::Escalate, "a role gains the rights of another"),
        false => (Effect::Interrupt, "a role loses the rights of another"),
    };
    for role in stmt.granted_roles() {
        let called = match role {
            Node::AccessPriv(role) => role.priv_name().unwrap_or_default().to_owned(),
            other => name::object(other),
        };
        found.does(effect, Resource::new("pg:role", called), because);
    }
}

/// Judges `CREATE ROLE`, `CREATE USER` and `CREATE GROUP`.
pub(super) fn create<'a>(stmt: &'a CreateRoleStmt, found: &mut Found<'a>) {
    let role = stmt.role().unwrap_or_default().to_owned();
    found.does(
        Effect::Escalate,
        Resource::new("pg:role", role),
        "it makes a role",
    );
}

/// Judges `ALTER ROLE`.
pub(super) fn alter<'a>(stmt: &'a AlterRoleStmt, found: &mut Found<'a>) {
    let role = stmt.role().map(name::role).unwrap_or_default();
    let because = "what a role may do, or its password, changes";
    found.does(Effect::Escalate, Resource::new("pg:role", role), because);
}

/// Judges `ALTER ROLE ... SET`.
pub(super) fn alter_set<'a>(stmt: &'a AlterRoleSetStmt, found: &mut Found<'a>) {
    let role = stmt.role().map(name::role).unwrap_or_default();
    let resource = Resource::new("pg:role", role);
    super::database::lasting(stmt.setstmt(), resource, found);
}
