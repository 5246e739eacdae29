//! Databases and tablespaces.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{AlterDatabaseStmt, VariableSetStmt};

use super::found::Found;
use super::settings;

/// Judges the statements about databases and tablespaces.
///
/// Answers `false` when the node is none of them.
pub(super) fn judge<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::CreatedbStmt(x) => {
            found.needs_no_block = true;
            found.stop_before = true;
            found.adds(database(x.dbname()), "it makes a database");
        }
        Node::DropdbStmt(x) => {
            found.needs_no_block = true;
            let because = "a database and all that is in it is gone";
            found.does_for_good(Effect::Destroy, Some(database(x.dbname())), because);
        }
        Node::AlterDatabaseStmt(x) => alter(x, found),
        Node::AlterDatabaseRefreshCollStmt(x) => {
            let because = "the recorded version of the collation changes";
            found.does(Effect::Write, database(x.dbname()), because);
        }
        Node::AlterDatabaseSetStmt(x) => lasting(x.setstmt(), database(x.dbname()), found),
        Node::CreateTableSpaceStmt(x) => {
            found.needs_no_block = true;
            let resource = tablespace(x.tablespacename());
            let because = "it makes a place for data on the server's disks";
            found.does_for_good(Effect::Escape, Some(resource), because);
        }
        Node::DropTableSpaceStmt(x) => {
            found.needs_no_block = true;
            let resource = tablespace(x.tablespacename());
            found.does_for_good(Effect::Destroy, Some(resource), "a tablespace is gone");
        }
        _ => return false,
    }
    true
}

fn alter(stmt: &AlterDatabaseStmt, found: &mut Found<'_>) {
    let moves = stmt
        .options()
        .iter()
        .any(|option| option.defname() == Some("tablespace"));
    found.needs_no_block |= moves;
    let because = match moves {
        true => "the whole database is copied, and nobody can use it meanwhile",
        false => "who can connect to the database changes",
    };
    let resource = database(stmt.dbname());
    found.does_for_good(Effect::Interrupt, Some(resource), because);
}

/// Judges a setting that lasts for a role or a database.
pub(super) fn lasting(stmt: Option<&VariableSetStmt>, resource: Resource, found: &mut Found<'_>) {
    let setting = stmt.and_then(VariableSetStmt::name).unwrap_or_default();
    let (effect, because) = match settings::is_guarded(setting) {
        true => (
            Effect::Disarm,
            "a setting that guards something changes for every later session",
        ),
        false => (
            Effect::Interrupt,
            "a setting changes for every later session, also of the application",
        ),
    };
    found.does(effect, resource, because);
}

fn database(called: Option<&str>) -> Resource {
    Resource::new("pg:database", called.unwrap_or_default())
}

fn tablespace(called: Option<&str>) -> Resource {
    Resource::new("pg:tablespace", called.unwrap_or_default())
}
