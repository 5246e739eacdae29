//! What a new or changed column means for the rows that are there.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{AlterTableCmd, ColumnDef, Constraint};
use pg_raw_parse::raw::ConstrType;

use super::super::found::Found;
use super::super::{functions, name};

/// `ADD COLUMN`: it only adds, unless every row must be written or checked for it.
pub(super) fn add<'a>(command: &'a AlterTableCmd, table: &Resource, found: &mut Found<'a>) {
    found.adds(table.clone(), "it adds a column");
    let Node::ColumnDef(column) = command.def() else {
        return found.does(
            Effect::Unknown,
            table.clone(),
            "it adds an unknown kind of column",
        );
    };
    if let Some(because) = rewrites(column) {
        found.blocks(table.clone(), because);
    }
    found.visit(command.def());
}

fn rewrites(column: &ColumnDef) -> Option<&'static str> {
    let type_name = column.type_name().map(name::type_name).unwrap_or_default();
    if SERIAL.contains(&type_name.as_str()) {
        return Some("every row is written anew to be numbered, while all others are blocked");
    }
    for constraint in column.constraints() {
        let Node::Constraint(constraint) = constraint else {
            continue;
        };
        let because = match constraint.contype {
            ConstrType::CONSTR_DEFAULT if varies(constraint.raw_expr()) => {
                "every row is written anew for its default, while all others are blocked"
            }
            ConstrType::CONSTR_GENERATED if u8::try_from(constraint.generated_kind) != Ok(b'v') => {
                "every row is written anew for its value, while all others are blocked"
            }
            ConstrType::CONSTR_IDENTITY => {
                "every row is written anew to be numbered, while all others are blocked"
            }
            ConstrType::CONSTR_CHECK => "all others are blocked while rows are checked",
            ConstrType::CONSTR_PRIMARY | ConstrType::CONSTR_UNIQUE => {
                "an index is built while all others are blocked"
            }
            _ => continue,
        };
        return Some(because);
    }
    None
}

/// Tells whether an expression gives rows different values.
fn varies(expression: Node<'_>) -> bool {
    let mut parts = Found::new(super::super::StatementKind::Select, None, 0);
    parts.visit(expression);
    while let Some(node) = parts.next() {
        if let Node::FuncCall(call) = node {
            if functions::is_volatile(call) {
                return true;
            }
            parts.visit_all(call.args());
        } else if !super::super::walk::parts(node, &mut parts) {
            return true;
        }
    }
    false
}

/// `ALTER COLUMN TYPE`: rows are written anew, and some types keep less than others.
pub(super) fn retype<'a>(command: &'a AlterTableCmd, table: &Resource, found: &mut Found<'a>) {
    let Node::ColumnDef(column) = command.def() else {
        return found.does(Effect::Unknown, table.clone(), "it changes a column's type");
    };
    let wide = column.type_name().is_some_and(|kind| {
        kind.typmods().is_empty() && WIDE.contains(&name::type_name(kind).as_str())
    });
    let computed = !matches!(column.raw_default(), Node::None);
    if wide && !computed {
        let because = "every row is written anew in another type, while all others are blocked";
        found.does(Effect::Write, table.clone(), "a column's type changes");
        found.blocks(table.clone(), because);
    } else {
        let because = "every value of a column is replaced, and what the new type cannot hold \
                       is gone";
        found.does(Effect::Destroy, table.clone(), because);
    }
    found.visit(column.raw_default());
}

/// `ADD CONSTRAINT`: checking the rows that are there blocks others.
pub(super) fn constrain<'a>(command: &'a AlterTableCmd, table: &Resource, found: &mut Found<'a>) {
    let Node::Constraint(constraint) = command.def() else {
        return found.does(Effect::Unknown, table.clone(), "it adds an unknown rule");
    };
    found.adds(table.clone(), "it adds a constraint");
    if constraint.indexname().is_none() && !constraint.skip_validation {
        found.blocks(table.clone(), checks(constraint));
    }
    found.visit(command.def());
}

fn checks(constraint: &Constraint) -> &'static str {
    match constraint.contype {
        ConstrType::CONSTR_FOREIGN => "writes to both tables are blocked while rows are checked",
        ConstrType::CONSTR_PRIMARY | ConstrType::CONSTR_UNIQUE | ConstrType::CONSTR_EXCLUSION => {
            "an index is built while all others are blocked"
        }
        _ => "all others are blocked while rows are checked",
    }
}

const SERIAL: &[&str] = &[
    "bigserial",
    "serial",
    "serial2",
    "serial4",
    "serial8",
    "smallserial",
];

/// Types that hold every value of the types they are usually reached from.
const WIDE: &[&str] = &["int8", "bigint", "numeric", "text", "varchar"];
