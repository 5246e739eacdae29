//! Calls of functions inside expressions.
//!
//! A function that is on neither list may do anything that its body says.
//! It is no open harm: the statement runs READ ONLY first, and the server refuses hidden writes.
//! READ ONLY does not stop `dblink`, `NOTIFY`, advisory locks and, on PostgreSQL 15, `lo_create`
//! inside such a function; against those stand the rights of the lease's role.

mod known;

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::FuncCall;

use super::found::Found;
use super::{StatementKind, inner, name, settings, walk};

/// Judges one call and puts its arguments on the list of work.
pub(super) fn call<'a>(call: &'a FuncCall, found: &mut Found<'a>) {
    found.visit_all(call.args());
    found.visit_all(call.agg_order().iter().map(Node::SortBy));
    found.visit(call.agg_filter());
    found.visit_all(call.over().map(Node::WindowDef));
    let full = name::dotted(call.funcname()).to_ascii_lowercase();
    let resource = || Some(Resource::new("pg:function", full.as_str()));
    match meaning(&full) {
        known::Meaning::Does(effect, because) => found.does_for_good(effect, resource(), because),
        known::Meaning::Writes(because) => {
            found.does(Effect::Write, Resource::new("pg:function", &full), because);
        }
        known::Meaning::ReadsText => text(call, found),
        known::Meaning::Pure => {}
        known::Meaning::SetConfig => set_config(call, found),
        known::Meaning::Sleeps => sleep(call, found),
        known::Meaning::Unlisted => found.hidden = true,
    }
}

/// Judges calls in an expression that is only kept now, such as a default: those that act.
pub(super) fn later<'a>(expression: Node<'a>, found: &mut Found<'a>) {
    let mut parts = Found::new(StatementKind::Select, None, 0);
    parts.visit(expression);
    while let Some(node) = parts.next() {
        let Node::FuncCall(call) = node else {
            if !walk::parts(node, &mut parts) {
                found.visit(node);
            }
            continue;
        };
        let full = name::dotted(call.funcname()).to_ascii_lowercase();
        if let known::Meaning::Does(effect, because) = meaning(&full)
            && effect != Effect::Write
        {
            found.does_for_good(effect, Some(Resource::new("pg:function", full)), because);
        }
        parts.visit_all(call.args());
    }
}

/// Judges a name that is called in the body of a code block.
pub(super) fn named(full: &str, found: &mut Found<'_>) {
    let full = full.to_ascii_lowercase();
    if let known::Meaning::Does(effect, because) = meaning(&full) {
        found.does_for_good(effect, Some(Resource::new("pg:function", full)), because);
    }
}

fn meaning(full: &str) -> known::Meaning {
    match full.rsplit_once('.') {
        Some((schema, function)) => known::meaning(Some(schema), function),
        None => known::meaning(None, full),
    }
}

/// Tells whether a call gives every row another value, so that a column's default rewrites the table.
pub(super) fn is_volatile(call: &FuncCall) -> bool {
    let full = name::dotted(call.funcname()).to_ascii_lowercase();
    let function = full.rsplit('.').next().unwrap_or_default();
    known::is_volatile(function) || meaning(&full) != known::Meaning::Pure
}

/// Judges a function that is given SQL as text, such as `query_to_xml('...')`.
fn text(call: &FuncCall, found: &mut Found<'_>) {
    found.hidden = true;
    for argument in call.args() {
        if let Some(text) = name::constant(argument)
            && inner::looks_like_sql(&text)
        {
            inner::statements(&text, found);
        }
    }
}

fn set_config(call: &FuncCall, found: &mut Found<'_>) {
    let mut arguments = call.args().iter().map(name::constant);
    let setting = arguments.next().flatten();
    let value = arguments.next().flatten();
    match setting {
        Some(setting) => settings::assign(&setting, value.as_deref(), found),
        None => found.does_for_good(
            Effect::Disarm,
            None,
            "it sets a setting whose name cannot be told",
        ),
    }
}

fn sleep(call: &FuncCall, found: &mut Found<'_>) {
    let seconds = call.args().first().and_then(name::constant);
    let seconds = seconds.and_then(|text| text.parse::<f64>().ok());
    if !seconds.is_some_and(|seconds| seconds <= LIMIT_SLEEP_S) {
        let resource = Resource::new("pg:function", "pg_sleep");
        let because = "it sleeps long, with whatever it has locked";
        found.does_for_good(Effect::Interrupt, Some(resource), because);
    }
}

/// The longest sleep that counts as reading, in seconds.
const LIMIT_SLEEP_S: f64 = 60.0;
