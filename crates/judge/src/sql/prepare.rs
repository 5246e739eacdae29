//! `PREPARE`, `EXECUTE`, `DEALLOCATE`, cursors and `EXPLAIN`: statements about statements.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::nodes::{DeclareCursorStmt, ExecuteStmt, ExplainStmt, PrepareStmt};

use super::found::Found;
use super::name;

/// Judges `PREPARE` as what it prepares: `EXECUTE` later says only a name.
pub(super) fn prepare<'a>(stmt: &'a PrepareStmt, found: &mut Found<'a>) {
    found.visit(stmt.query());
}

/// Judges `EXECUTE`: what was prepared under the name is not in the text.
pub(super) fn execute<'a>(stmt: &'a ExecuteStmt, found: &mut Found<'a>) {
    let resource = Resource::new("pg:prepared", stmt.name().unwrap_or_default());
    let because = "it runs what was prepared; only execution can tell what it does";
    found.does(Effect::Write, resource, because);
    found.hidden = true;
    found.visit_all(stmt.params());
}

/// Judges `DECLARE CURSOR`; with `WITH HOLD` the query runs inside of `COMMIT`.
pub(super) fn declare<'a>(stmt: &'a DeclareCursorStmt, found: &mut Found<'a>) {
    if stmt.options & CURSOR_OPT_HOLD != 0 {
        found.hidden = true;
    }
    found.visit(stmt.query());
}

/// Judges `EXPLAIN`: with `ANALYZE` the statement runs.
pub(super) fn explain<'a>(stmt: &'a ExplainStmt, found: &mut Found<'a>) {
    found.reads(None);
    let analyzes = stmt
        .options()
        .iter()
        .filter(|option| option.defname() == Some("analyze"))
        .any(|option| {
            let value = name::constant(option.arg()).map(|value| value.to_ascii_lowercase());
            !matches!(
                value.as_deref(),
                Some("false" | "off" | "0" | "no" | "f" | "n")
            )
        });
    if analyzes {
        found.visit(stmt.query());
    }
}

/// SOURCE: `CURSOR_OPT_HOLD` of PostgreSQL's `nodes/parsenodes.h`.
const CURSOR_OPT_HOLD: i32 = 0x0020;
