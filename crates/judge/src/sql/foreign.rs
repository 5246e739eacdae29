//! Foreign servers and tables, and extensions: ways out of the database.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::raw::NodeTag;

use super::found::Found;

/// Judges the statements about foreign data and extensions.
///
/// Answers `false` when the node is none of them.
pub(super) fn judge<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::CreateFdwStmt(x) => out(x.fdwname(), found),
        Node::AlterFdwStmt(x) => out(x.fdwname(), found),
        Node::CreateForeignServerStmt(x) => out(x.servername(), found),
        Node::AlterForeignServerStmt(x) => out(x.servername(), found),
        Node::CreateUserMappingStmt(x) => out(x.servername(), found),
        Node::AlterUserMappingStmt(x) => out(x.servername(), found),
        Node::ImportForeignSchemaStmt(x) => out(x.server_name(), found),
        Node::DropUserMappingStmt(x) => {
            let because = "foreign tables can no longer be reached";
            found.does(Effect::Destroy, server(x.servername()), because);
        }
        Node::CreateExtensionStmt(x) => extension(x.extname(), found),
        Node::AlterExtensionStmt(x) => extension(x.extname(), found),
        Node::AlterExtensionContentsStmt(x) => {
            let resource = Resource::new("pg:extension", x.extname().unwrap_or_default());
            let because = "what belongs to an extension changes";
            found.does(Effect::Escalate, resource, because);
        }
        Node::CreateAmStmt(x) => {
            let resource = Resource::new("pg:object", x.amname().unwrap_or_default());
            let because = "it makes an access method, whose functions are C code";
            found.does(Effect::Escape, resource, because);
        }
        // The parser's binding has no shape for it.
        Node::Invalid(x) if x.type_ == NodeTag::T_CreateForeignTableStmt => out(None, found),
        _ => return false,
    }
    true
}

fn out(called: Option<&str>, found: &mut Found<'_>) {
    let because = "it opens a way to data outside of this database";
    found.does(Effect::Escape, server(called), because);
}

fn extension(called: Option<&str>, found: &mut Found<'_>) {
    let called = called.unwrap_or_default();
    let resource = Resource::new("pg:extension", called);
    let lower = called.to_ascii_lowercase();
    let leaves = WAYS_OUT.contains(&lower.as_str())
        || lower.ends_with("_fdw")
        || (lower.starts_with("pl") && lower.ends_with('u'));
    match leaves {
        true => {
            let because = "the extension acts outside of this database";
            found.does(Effect::Escape, resource, because);
        }
        false => {
            let because = "the extension's code runs with its owner's rights";
            found.does(Effect::Escalate, resource, because);
        }
    }
}

fn server(called: Option<&str>) -> Resource {
    Resource::new("pg:foreign_server", called.unwrap_or_default())
}

const WAYS_OUT: &[&str] = &[
    "adminpack",
    "aws_lambda",
    "aws_s3",
    "dblink",
    "http",
    "pageinspect",
    "pg_background",
    "pg_cron",
    "pg_net",
    "pg_surgery",
    "pglogical",
    "plsh",
    "xml2",
];
