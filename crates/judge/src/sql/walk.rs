//! The parts of an expression, so that no call and no inner statement is passed over.

use pg_raw_parse::Node;

use super::found::Found;

/// Puts the parts of an expression or a clause on the list of work.
///
/// Answers `false` for a node that is neither: its statement is then unknown.
pub(super) fn parts<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    is_leaf(node) || common(node, found) || from(node, found) || json(node, found)
}

fn is_leaf(node: Node<'_>) -> bool {
    matches!(
        node,
        Node::None
            | Node::Alias(_)
            | Node::A_Const(_)
            | Node::A_Star(_)
            | Node::BitString(_)
            | Node::Boolean(_)
            | Node::CTESearchClause(_)
            | Node::ColumnRef(_)
            | Node::CurrentOfExpr(_)
            | Node::Float(_)
            | Node::Integer(_)
            | Node::JsonFormat(_)
            | Node::JsonReturning(_)
            | Node::MergeSupportFunc(_)
            | Node::ParamRef(_)
            | Node::ReturningOption(_)
            | Node::RoleSpec(_)
            | Node::SQLValueFunction(_)
            | Node::SetToDefault(_)
            | Node::String(_)
            | Node::TriggerTransition(_)
            | Node::TypeName(_)
    )
}

fn common<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::NodeList(list) => found.visit_all(list),
        Node::A_ArrayExpr(x) => found.visit_all(x.elements()),
        Node::A_Expr(x) => found.visit_all([x.lexpr(), x.rexpr()]),
        Node::A_Indices(x) => found.visit_all([x.lidx(), x.uidx()]),
        Node::A_Indirection(x) => {
            found.visit(x.arg());
            found.visit_all(x.indirection());
        }
        Node::BoolExpr(x) => found.visit_all(x.args()),
        Node::BooleanTest(x) => found.visit(x.arg()),
        Node::CaseExpr(x) => {
            found.visit_all([x.arg(), x.defresult()]);
            found.visit_all(x.args());
        }
        Node::CaseWhen(x) => found.visit_all([x.expr(), x.result()]),
        Node::CoalesceExpr(x) => found.visit_all(x.args()),
        Node::CollateClause(x) => found.visit(x.arg()),
        Node::CTECycleClause(x) => {
            found.visit_all([x.cycle_mark_value(), x.cycle_mark_default()]);
        }
        Node::DefElem(x) => found.visit(x.arg()),
        Node::GroupingFunc(x) => found.visit_all(x.args()),
        Node::GroupingSet(x) => found.visit_all(x.content()),
        Node::IndexElem(x) => found.visit(x.expr()),
        Node::InferClause(x) => {
            found.visit_all(x.index_elems());
            found.visit(x.where_clause());
        }
        Node::MinMaxExpr(x) => found.visit_all(x.args()),
        Node::MultiAssignRef(x) => found.visit(x.source()),
        Node::NamedArgExpr(x) => found.visit(x.arg()),
        Node::NullTest(x) => found.visit(x.arg()),
        Node::OnConflictClause(x) => {
            found.visit_all(x.infer().map(Node::InferClause));
            found.visit_all(x.target_list().iter().map(Node::ResTarget));
            found.visit(x.where_clause());
        }
        Node::ReturningClause(x) => found.visit_all(x.exprs()),
        Node::ReturnStmt(x) => found.visit(x.returnval()),
        Node::ResTarget(x) => {
            found.visit_all(x.indirection());
            found.visit(x.val());
        }
        Node::RowExpr(x) => found.visit_all(x.args()),
        Node::SortBy(x) => found.visit(x.node()),
        Node::SubLink(x) => found.visit_all([x.testexpr(), x.subselect()]),
        Node::TypeCast(x) => found.visit(x.arg()),
        Node::WindowDef(x) => {
            found.visit_all(x.partition_clause());
            found.visit_all(x.order_clause().iter().map(Node::SortBy));
            found.visit_all([x.start_offset(), x.end_offset()]);
        }
        Node::XmlExpr(x) => {
            found.visit_all(x.named_args());
            found.visit_all(x.args());
        }
        Node::XmlSerialize(x) => found.visit(x.expr()),
        _ => return false,
    }
    true
}

fn from<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::CommonTableExpr(x) => {
            found.visit(x.ctequery());
            found.visit_all(x.cycle_clause().map(Node::CTECycleClause));
        }
        Node::JoinExpr(x) => found.visit_all([x.larg(), x.rarg(), x.quals()]),
        Node::RangeFunction(x) => found.visit_all(x.functions()),
        Node::RangeSubselect(x) => found.visit(x.subquery()),
        Node::RangeTableFunc(x) => {
            found.visit_all([x.docexpr(), x.rowexpr()]);
            found.visit_all(x.namespaces());
            found.visit_all(x.columns().iter().map(Node::RangeTableFuncCol));
        }
        Node::RangeTableFuncCol(x) => found.visit_all([x.colexpr(), x.coldefexpr()]),
        Node::RangeTableSample(x) => {
            found.visit_all([x.relation(), x.repeatable()]);
            found.visit_all(x.args());
        }
        Node::WithClause(x) => found.visit_all(x.ctes().iter().map(Node::CommonTableExpr)),
        _ => return false,
    }
    true
}

fn json<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::JsonAggConstructor(x) => {
            found.visit(x.agg_filter());
            found.visit_all(x.agg_order());
            found.visit_all(x.over().map(Node::WindowDef));
        }
        Node::JsonArgument(x) => found.visit_all(x.val().map(Node::JsonValueExpr)),
        Node::JsonArrayAgg(x) => {
            found.visit_all(x.constructor().map(Node::JsonAggConstructor));
            found.visit_all(x.arg().map(Node::JsonValueExpr));
        }
        Node::JsonArrayConstructor(x) => {
            found.visit_all(x.exprs().iter().map(Node::JsonValueExpr));
        }
        Node::JsonArrayQueryConstructor(x) => found.visit(x.query()),
        Node::JsonBehavior(x) => found.visit(x.expr()),
        Node::JsonFuncExpr(x) => {
            found.visit_all(x.context_item().map(Node::JsonValueExpr));
            found.visit(x.pathspec());
            found.visit_all(x.passing());
            found.visit_all(x.on_empty().map(Node::JsonBehavior));
            found.visit_all(x.on_error().map(Node::JsonBehavior));
        }
        Node::JsonIsPredicate(x) => found.visit(x.expr()),
        Node::JsonKeyValue(x) => {
            found.visit(x.key());
            found.visit_all(x.value().map(Node::JsonValueExpr));
        }
        Node::JsonObjectAgg(x) => {
            found.visit_all(x.constructor().map(Node::JsonAggConstructor));
            found.visit_all(x.arg().map(Node::JsonKeyValue));
        }
        Node::JsonObjectConstructor(x) => {
            found.visit_all(x.exprs().iter().map(Node::JsonKeyValue));
        }
        Node::JsonParseExpr(x) => found.visit_all(x.expr().map(Node::JsonValueExpr)),
        Node::JsonScalarExpr(x) => found.visit(x.expr()),
        Node::JsonSerializeExpr(x) => found.visit_all(x.expr().map(Node::JsonValueExpr)),
        Node::JsonTable(x) => {
            found.visit_all(x.context_item().map(Node::JsonValueExpr));
            found.visit_all(x.passing());
            found.visit_all(x.columns().iter().map(Node::JsonTableColumn));
            found.visit_all(x.on_error().map(Node::JsonBehavior));
        }
        Node::JsonTableColumn(x) => {
            found.visit_all(x.columns());
            found.visit_all(x.on_empty().map(Node::JsonBehavior));
            found.visit_all(x.on_error().map(Node::JsonBehavior));
        }
        Node::JsonTablePathSpec(x) => found.visit(x.string()),
        Node::JsonValueExpr(x) => found.visit_all([x.raw_expr(), x.formatted_expr()]),
        _ => return false,
    }
    true
}
