//! `COPY`.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::nodes::CopyStmt;

use super::found::Found;
use super::{modify, name, select};

/// Judges `COPY`: a program or a file of the server leaves sight, the client's own stream does not.
pub(super) fn copy<'a>(stmt: &'a CopyStmt, found: &mut Found<'a>) {
    if stmt.is_program {
        let because = "it runs a program on the server";
        found.does_for_good(Effect::Escape, None, because);
    } else if let Some(file) = stmt.filename() {
        let because = match stmt.is_from {
            true => "it reads a file of the server",
            false => "it writes a file of the server",
        };
        let resource = Resource::new("pg:file", file.to_owned());
        found.does_for_good(Effect::Escape, Some(resource), because);
    }
    if stmt.is_from {
        modify::writes(stmt.relation(), "it copies rows in", found);
    } else {
        found.reads(None);
        if let Some(var) = stmt.relation() {
            select::relation(var, found);
        }
    }
    if stmt.relation().is_none() && stmt.is_from {
        found.does(
            Effect::Unknown,
            name::table_of(None),
            "it copies to what has no name",
        );
    }
    found.visit(stmt.query());
    found.visit(stmt.where_clause());
}
