//! Whether a condition leaves any row out.

use pg_raw_parse::Node;
use pg_raw_parse::nodes::{A_Expr, RangeVar, SelectStmt, SubLink};
use pg_raw_parse::raw::{A_Expr_Kind, BoolExprType, NullTestType, SubLinkType};

use super::super::name;

/// Tells whether a condition openly holds for every row: it is absent, `1 = 1`, `id = id`,
/// `id IS NOT NULL`, `name LIKE '%'` and the like.
///
/// What it does not see through is measured when it runs.
pub(super) fn takes_all(condition: Node<'_>, table: Option<&RangeVar>) -> bool {
    matches!(condition, Node::None) || holds(condition, table, LIMIT_DEPTH) == Some(true)
}

/// Returns the value that the condition has for every row, or `None` when that cannot be told.
fn holds(node: Node<'_>, table: Option<&RangeVar>, depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    match node {
        Node::BoolExpr(x) => {
            let parts = || x.args().iter().map(|part| holds(part, table, depth));
            match x.boolop {
                BoolExprType::AND_EXPR if parts().all(|part| part == Some(true)) => Some(true),
                BoolExprType::AND_EXPR if parts().any(|part| part == Some(false)) => Some(false),
                BoolExprType::OR_EXPR if parts().any(|part| part == Some(true)) => Some(true),
                BoolExprType::OR_EXPR if parts().all(|part| part == Some(false)) => Some(false),
                BoolExprType::OR_EXPR if is_null_or_not(x.args()) => Some(true),
                BoolExprType::NOT_EXPR => parts().next().flatten().map(|value| !value),
                _ => None,
            }
        }
        Node::A_Expr(x) => compares(x),
        Node::NullTest(x) => {
            let is_key = column(x.arg()).is_some_and(|name| KEYS.contains(&name.as_str()));
            let asks_null = x.nulltesttype == NullTestType::IS_NULL;
            let is_null = matches!(x.arg(), Node::A_Const(constant) if constant.isnull);
            let constant = name::constant(x.arg()).is_some();
            (is_key || is_null || constant).then_some(is_null == asks_null)
        }
        Node::BooleanTest(x) => holds(x.arg(), table, depth),
        Node::CoalesceExpr(x) => x.args().first().and_then(|x| holds(x, table, depth)),
        Node::SubLink(x) => asks_all(x, table),
        _ => match name::constant(node)?.to_ascii_lowercase().as_str() {
            "true" | "t" | "on" | "yes" | "1" => Some(true),
            "false" | "f" | "off" | "no" | "0" => Some(false),
            _ => None,
        },
    }
}

/// Compares constants with each other, a column with itself, and a key with nothing.
fn compares(x: &A_Expr) -> Option<bool> {
    let operator = name::dotted(x.name());
    let operator = operator.rsplit('.').next().unwrap_or_default();
    match x.kind {
        A_Expr_Kind::AEXPR_LIKE | A_Expr_Kind::AEXPR_ILIKE => {
            let all = name::constant(x.rexpr())?.chars().all(|c| c == '%');
            return (all && !operator.starts_with('!')).then_some(true);
        }
        A_Expr_Kind::AEXPR_NOT_DISTINCT | A_Expr_Kind::AEXPR_OP => {}
        A_Expr_Kind::AEXPR_IN if operator == "=" => {
            let value = name::constant(x.lexpr())?;
            let list = x.rexpr().as_node_list()?;
            let found = list
                .iter()
                .any(|item| name::constant(item).as_ref() == Some(&value));
            return found.then_some(true);
        }
        _ => return None,
    }
    let reflexive = matches!(operator, "=" | "<=" | ">=");
    if let (Some(left), Some(right)) = (path(x.lexpr()), path(x.rexpr())) {
        return (left == right && reflexive).then_some(true);
    }
    if let (Some(left), Some(right)) = (name::constant(x.lexpr()), name::constant(x.rexpr())) {
        return constants(&left, operator, &right);
    }
    let key = column(x.lexpr()).filter(|name| KEYS.contains(&name.as_str()))?;
    let least = name::constant(x.rexpr())?;
    let is_least = match key.as_str() {
        "ctid" => matches!(least.as_str(), "(0,0)" | "(0,1)"),
        _ => least.parse::<i64>().is_ok_and(|number| number <= 0),
    };
    let above = matches!(operator, ">" | ">=" | "<>");
    let one = least == "1" && operator == ">=";
    ((is_least && above) || one).then_some(true)
}

fn constants(left: &str, operator: &str, right: &str) -> Option<bool> {
    let order = match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => left.partial_cmp(&right)?,
        _ => left.cmp(right),
    };
    match operator {
        "=" => Some(order.is_eq()),
        "<>" => Some(order.is_ne()),
        "<" => Some(order.is_lt()),
        "<=" => Some(order.is_le()),
        ">" => Some(order.is_gt()),
        ">=" => Some(order.is_ge()),
        _ => None,
    }
}

/// `x IS NULL OR x IS NOT NULL`.
fn is_null_or_not(parts: &pg_raw_parse::list::NodeList) -> bool {
    let tests: Vec<(Option<String>, bool)> = parts
        .iter()
        .filter_map(|part| match part {
            Node::NullTest(x) => {
                let is_null = x.nulltesttype == NullTestType::IS_NULL;
                Some((path(x.arg()), is_null))
            }
            _ => None,
        })
        .collect();
    tests.iter().any(|(name, is_null)| {
        name.is_some()
            && tests
                .iter()
                .any(|(other, null)| other == name && null != is_null)
    })
}

/// `EXISTS (SELECT 1)` and `id IN (SELECT id FROM the_same_table)`.
fn asks_all(link: &SubLink, table: Option<&RangeVar>) -> Option<bool> {
    let Node::SelectStmt(query) = link.subselect() else {
        return None;
    };
    if !is_plain(query) {
        return None;
    }
    match link.sub_link_type {
        SubLinkType::EXISTS_SUBLINK => query.from_clause().is_empty().then_some(true),
        SubLinkType::ANY_SUBLINK => {
            let Some(Node::RangeVar(from)) = query.from_clause().first() else {
                return None;
            };
            let same = query.from_clause().len() == 1 && from.relname() == table?.relname();
            let asked = query.target_list().first()?.val();
            let same_column = column(asked).is_some() && column(asked) == column(link.testexpr());
            (same && same_column).then_some(true)
        }
        _ => None,
    }
}

/// The query leaves no row out.
fn is_plain(query: &SelectStmt) -> bool {
    matches!(query.where_clause(), Node::None)
        && matches!(query.limit_count(), Node::None)
        && matches!(query.limit_offset(), Node::None)
        && matches!(query.having_clause(), Node::None)
        && query.group_clause().is_empty()
        && query.with_clause().is_none()
        && query.larg().is_none()
}

/// Returns the name of a column or parameter as it was written.
fn path(node: Node<'_>) -> Option<String> {
    match node {
        Node::ColumnRef(column) => Some(name::dotted(column.fields())),
        Node::ParamRef(parameter) => Some(format!("${}", parameter.number)),
        _ => None,
    }
}

/// Returns the last part of a column's name.
fn column(node: Node<'_>) -> Option<String> {
    let Node::ColumnRef(column) = node else {
        return None;
    };
    column
        .fields()
        .iter()
        .next_back()
        .and_then(|part| part.as_str().map(str::to_owned))
}

/// Columns that have a value in every row, and no negative one.
const KEYS: &[&str] = &["id", "ctid", "xmin", "oid", "tableoid"];

/// How deep a condition is followed; a deeper one is measured when it runs.
const LIMIT_DEPTH: usize = 32;
