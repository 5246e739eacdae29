//! What concerns the session or the whole server: `LISTEN`, `NOTIFY`, `LOCK`, `DISCARD`, `LOAD`,
//! `ALTER SYSTEM`.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{AlterSystemStmt, LockStmt, VariableSetStmt};
use pg_raw_parse::raw::DiscardMode;

use super::found::Found;
use super::name;

/// Judges the statements about the session and the server.
///
/// Answers `false` when the node is none of them.
pub(super) fn judge<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::AlterSystemStmt(x) => system(x, found),
        Node::ClosePortalStmt(_)
        | Node::ConstraintsSetStmt(_)
        | Node::DeallocateStmt(_)
        | Node::ListenStmt(_)
        | Node::UnlistenStmt(_) => {}
        Node::DiscardStmt(x) => found.needs_no_block |= x.target == DiscardMode::DISCARD_ALL,
        Node::FetchStmt(_) => {
            found.reads(None);
            found.hidden = true;
        }
        Node::LoadStmt(x) => {
            let resource = Resource::new("pg:library", x.filename().unwrap_or_default());
            let because = "it loads a library into the server";
            found.does_for_good(Effect::Escape, Some(resource), because);
        }
        Node::LockStmt(x) => lock(x, found),
        Node::NotifyStmt(x) => {
            let resource = Resource::new("pg:channel", x.conditionname().unwrap_or_default());
            found.does(Effect::Write, resource, "it notifies other sessions");
        }
        Node::VariableShowStmt(_) => found.reads(None),
        _ => return false,
    }
    true
}

fn system(stmt: &AlterSystemStmt, found: &mut Found<'_>) {
    found.needs_no_block = true;
    let setting = stmt.setstmt().and_then(VariableSetStmt::name);
    let resource = Resource::new("pg:setting", setting.unwrap_or("all"));
    let because = "a setting of the whole server changes";
    found.does_for_good(Effect::Disarm, Some(resource), because);
}

/// A lock that lets others write is no interruption.
fn lock(stmt: &LockStmt, found: &mut Found<'_>) {
    found.beyond_read_only = true;
    for relation in stmt.relations() {
        let table = match relation {
            Node::RangeVar(var) => name::table(var),
            _ => name::table_of(None),
        };
        if stmt.mode >= SHARE_LOCK {
            let because = "others who use the table are blocked until the transaction ends";
            found.does_for_good(Effect::Interrupt, Some(table), because);
        } else {
            found.reads(Some(table));
        }
    }
}

/// SOURCE: `ShareLock` of PostgreSQL's `storage/lockdefs.h`, the weakest that blocks writers.
const SHARE_LOCK: i32 = 5;
