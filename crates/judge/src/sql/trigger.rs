//! Triggers, rules and row security policies: what acts when others write or read.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{CreateTrigStmt, RuleStmt};

use super::found::Found;
use super::name;

/// Judges the statements about triggers, rules and policies.
///
/// Answers `false` when the node is none of them.
pub(super) fn judge<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::CreateTrigStmt(x) => trigger(x, found),
        Node::CreateEventTrigStmt(x) => {
            let resource = Resource::new("pg:event_trigger", x.trigname().unwrap_or_default());
            let because = "its function runs with the rights of whoever changes structure";
            found.does(Effect::Escalate, resource, because);
        }
        Node::AlterEventTrigStmt(x) => {
            let resource = Resource::new("pg:event_trigger", x.trigname().unwrap_or_default());
            match u8::try_from(x.tgenabled) {
                Ok(b'O' | b'A') => {
                    found.does(Effect::Write, resource, "an event trigger acts again");
                }
                _ => found.does(Effect::Disarm, resource, "an event trigger no longer acts"),
            }
        }
        Node::RuleStmt(x) => rule(x, found),
        Node::CreatePolicyStmt(x) => {
            let because = "who sees or changes which rows changes";
            found.does(Effect::Escalate, name::table_of(x.table()), because);
        }
        Node::AlterPolicyStmt(x) => {
            let because = "who sees or changes which rows changes";
            found.does(Effect::Escalate, name::table_of(x.table()), because);
        }
        _ => return false,
    }
    true
}

fn trigger<'a>(stmt: &'a CreateTrigStmt, found: &mut Found<'a>) {
    let because = "its function runs with the rights of whoever writes to the table";
    found.does(Effect::Escalate, name::table_of(stmt.relation()), because);
}

fn rule<'a>(stmt: &'a RuleStmt, found: &mut Found<'a>) {
    let table = name::table_of(stmt.relation());
    if stmt.instead {
        let because = "what others write to it does something else instead";
        found.does(Effect::Redirect, table.clone(), because);
    }
    let because = "its actions run whenever somebody uses the table";
    found.does(Effect::Escalate, table, because);
    found.visit_all(stmt.actions());
    found.visit(stmt.where_clause());
}
