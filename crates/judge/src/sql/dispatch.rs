//! From the shape of a node to the family that judges it.

use holdfast_core::Effect;
use pg_raw_parse::Node;
use pg_raw_parse::raw::NodeTag;

use super::found::Found;
use super::{
    StatementKind, alter, alter_table, copy, create, database, drop, foreign, functions,
    maintenance, modify, prepare, replication, role, routine, select, session, settings,
    transaction, trigger, walk,
};

/// Judges one node: a statement by its family, an expression by its parts.
///
/// What is neither makes the statement unknown.
pub(super) fn judge<'a>(node: Node<'a>, found: &mut Found<'a>) {
    match node {
        Node::FuncCall(x) => functions::call(x, found),
        Node::RangeVar(x) => select::relation(x, found),
        Node::SelectStmt(x) => select::select(x, found),
        Node::ColumnDef(x) => create::column(x, found),
        Node::Constraint(x) => create::constraint(x, found),
        _ if walk::parts(node, found) => {}
        _ if data(node, found) || structure(node, found) || session::judge(node, found) => {}
        _ if roles(node, found) || trigger::judge(node, found) => {}
        _ if foreign::judge(node, found) || replication::judge(node, found) => {}
        _ if database::judge(node, found) => {}
        _ if create::simple(node, found) || alter::simple(node, found) => {}
        _ => found.does_for_good(
            Effect::Unknown,
            None,
            "it is a statement of an unknown kind",
        ),
    }
}

fn data<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::CopyStmt(x) => copy::copy(x, found),
        Node::DeclareCursorStmt(x) => prepare::declare(x, found),
        Node::DeleteStmt(x) => modify::delete(x, found),
        Node::DoStmt(x) => routine::block(x, found),
        Node::CallStmt(x) => routine::procedure(x, found),
        Node::ExecuteStmt(x) => prepare::execute(x, found),
        Node::ExplainStmt(x) => prepare::explain(x, found),
        Node::InsertStmt(x) => modify::insert(x, found),
        Node::MergeStmt(x) => modify::merge(x, found),
        Node::PrepareStmt(x) => prepare::prepare(x, found),
        Node::TransactionStmt(x) => transaction::transaction(x, found),
        Node::TruncateStmt(x) => drop::truncate(x, found),
        Node::UpdateStmt(x) => modify::update(x, found),
        Node::VariableSetStmt(x) => settings::set(x, found),
        _ => return false,
    }
    true
}

fn structure<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::AlterDomainStmt(x) => alter::domain(x, found),
        Node::AlterEnumStmt(x) => alter::enumeration(x, found),
        Node::AlterFunctionStmt(x) => routine::alter(x, found),
        Node::AlterObjectSchemaStmt(x) => alter::schema(x, found),
        Node::AlterTableMoveAllStmt(x) => alter_table::move_all(x, found),
        Node::AlterTableStmt(x) => alter_table::alter(x, found),
        Node::CheckPointStmt(_) => maintenance::checkpoint(found),
        Node::ClusterStmt(x) => maintenance::cluster(x, found),
        Node::CommentStmt(x) => alter::comment(x, found),
        Node::CreateDomainStmt(x) => create::domain(x, found),
        Node::CreateFunctionStmt(x) => routine::create(x, found),
        Node::CreatePLangStmt(x) => routine::language(x, found),
        Node::CreateSchemaStmt(x) => create::schema(x, found),
        Node::CreateStmt(x) => create::table(x, found),
        Node::CreateTableAsStmt(x) => create::table_as(x, found),
        Node::CreateTransformStmt(x) => routine::transform(x, found),
        Node::DefineStmt(x) => create::define(x, found),
        Node::DropOwnedStmt(x) => drop::owned(x, found),
        Node::DropStmt(x) => drop::drop(x, found),
        Node::IndexStmt(x) => create::index(x, found),
        Node::RefreshMatViewStmt(x) => maintenance::refresh(x, found),
        Node::ReindexStmt(x) => maintenance::reindex(x, found),
        Node::RenameStmt(x) => alter::rename(x, found),
        Node::TableLikeClause(x) => found.reads(x.relation().map(super::name::table)),
        Node::VacuumStmt(x) => maintenance::vacuum(x, found),
        Node::ViewStmt(x) => create::view(x, found),
        _ => return false,
    }
    true
}

fn roles<'a>(node: Node<'a>, found: &mut Found<'a>) -> bool {
    match node {
        Node::AlterDefaultPrivilegesStmt(x) => role::defaults(x, found),
        Node::AlterOwnerStmt(x) => alter::owner(x, found),
        Node::AlterRoleSetStmt(x) => role::alter_set(x, found),
        Node::AlterRoleStmt(x) => role::alter(x, found),
        Node::CreateRoleStmt(x) => role::create(x, found),
        Node::DropRoleStmt(x) => drop::role(x, found),
        Node::GrantRoleStmt(x) => role::membership(x, found),
        Node::GrantStmt(x) => role::grant(x, found),
        Node::ReassignOwnedStmt(x) => alter::reassign(x, found),
        Node::SecLabelStmt(x) => alter::label(x, found),
        _ => return false,
    }
    true
}

/// Returns the family of a statement.
pub(super) fn kind(node: Node<'_>) -> StatementKind {
    use StatementKind as Kind;
    match node {
        Node::AlterSystemStmt(_) => Kind::System,
        Node::AlterTableStmt(_) | Node::AlterTableMoveAllStmt(_) => Kind::AlterTable,
        Node::CallStmt(_) => Kind::Call,
        Node::CommentStmt(_) => Kind::Comment,
        Node::ConstraintsSetStmt(_) => Kind::Constraints,
        Node::CopyStmt(_) => Kind::Copy,
        Node::DeclareCursorStmt(_) | Node::FetchStmt(_) | Node::ClosePortalStmt(_) => Kind::Cursor,
        Node::DeallocateStmt(_) => Kind::Deallocate,
        Node::DeleteStmt(_) => Kind::Delete,
        Node::DiscardStmt(_) => Kind::Discard,
        Node::DoStmt(_) => Kind::Do,
        Node::DropStmt(_) | Node::DropOwnedStmt(_) => Kind::Drop,
        Node::ExecuteStmt(_) => Kind::Execute,
        Node::ExplainStmt(_) => Kind::Explain,
        Node::IndexStmt(_) => Kind::Index,
        Node::InsertStmt(_) => Kind::Insert,
        Node::ListenStmt(_) | Node::UnlistenStmt(_) => Kind::Listen,
        Node::LoadStmt(_) => Kind::Load,
        Node::LockStmt(_) => Kind::Lock,
        Node::MergeStmt(_) => Kind::Merge,
        Node::NotifyStmt(_) => Kind::Notify,
        Node::PrepareStmt(_) => Kind::Prepare,
        Node::SelectStmt(_) => Kind::Select,
        Node::VariableSetStmt(_) => Kind::Set,
        Node::VariableShowStmt(_) => Kind::Show,
        Node::TransactionStmt(_) => Kind::Transaction,
        Node::TruncateStmt(_) => Kind::Truncate,
        Node::UpdateStmt(_) => Kind::Update,
        _ => structural(node),
    }
}

fn structural(node: Node<'_>) -> StatementKind {
    use StatementKind as Kind;
    match node {
        Node::CheckPointStmt(_)
        | Node::ClusterStmt(_)
        | Node::RefreshMatViewStmt(_)
        | Node::ReindexStmt(_)
        | Node::VacuumStmt(_) => Kind::Maintenance,
        Node::AlterFunctionStmt(_)
        | Node::CreateFunctionStmt(_)
        | Node::CreatePLangStmt(_)
        | Node::CreateTransformStmt(_) => Kind::Routine,
        Node::AlterDefaultPrivilegesStmt(_)
        | Node::AlterRoleSetStmt(_)
        | Node::AlterRoleStmt(_)
        | Node::CreateRoleStmt(_)
        | Node::DropRoleStmt(_)
        | Node::GrantRoleStmt(_)
        | Node::GrantStmt(_)
        | Node::ReassignOwnedStmt(_)
        | Node::SecLabelStmt(_) => Kind::Role,
        Node::AlterEventTrigStmt(_)
        | Node::AlterPolicyStmt(_)
        | Node::CreateEventTrigStmt(_)
        | Node::CreatePolicyStmt(_)
        | Node::CreateTrigStmt(_)
        | Node::RuleStmt(_) => Kind::Trigger,
        Node::AlterPublicationStmt(_)
        | Node::AlterSubscriptionStmt(_)
        | Node::CreatePublicationStmt(_)
        | Node::CreateSubscriptionStmt(_)
        | Node::DropSubscriptionStmt(_) => Kind::Replication,
        Node::AlterExtensionContentsStmt(_)
        | Node::AlterExtensionStmt(_)
        | Node::AlterFdwStmt(_)
        | Node::AlterForeignServerStmt(_)
        | Node::AlterUserMappingStmt(_)
        | Node::CreateAmStmt(_)
        | Node::CreateExtensionStmt(_)
        | Node::CreateFdwStmt(_)
        | Node::CreateForeignServerStmt(_)
        | Node::CreateUserMappingStmt(_)
        | Node::DropUserMappingStmt(_)
        | Node::ImportForeignSchemaStmt(_) => Kind::Foreign,
        Node::Invalid(x) if x.type_ == NodeTag::T_CreateForeignTableStmt => Kind::Foreign,
        Node::AlterDatabaseRefreshCollStmt(_)
        | Node::AlterDatabaseSetStmt(_)
        | Node::AlterDatabaseStmt(_)
        | Node::CreateTableSpaceStmt(_)
        | Node::CreatedbStmt(_)
        | Node::DropTableSpaceStmt(_)
        | Node::DropdbStmt(_) => Kind::Database,
        _ => defining(node),
    }
}

fn defining(node: Node<'_>) -> StatementKind {
    use StatementKind as Kind;
    match node {
        Node::CompositeTypeStmt(_)
        | Node::CreateCastStmt(_)
        | Node::CreateConversionStmt(_)
        | Node::CreateDomainStmt(_)
        | Node::CreateEnumStmt(_)
        | Node::CreateOpClassStmt(_)
        | Node::CreateOpFamilyStmt(_)
        | Node::CreateRangeStmt(_)
        | Node::CreateSchemaStmt(_)
        | Node::CreateSeqStmt(_)
        | Node::CreateStatsStmt(_)
        | Node::CreateStmt(_)
        | Node::CreateTableAsStmt(_)
        | Node::DefineStmt(_)
        | Node::ViewStmt(_) => Kind::Create,
        Node::AlterCollationStmt(_)
        | Node::AlterDomainStmt(_)
        | Node::AlterEnumStmt(_)
        | Node::AlterObjectDependsStmt(_)
        | Node::AlterObjectSchemaStmt(_)
        | Node::AlterOpFamilyStmt(_)
        | Node::AlterOperatorStmt(_)
        | Node::AlterOwnerStmt(_)
        | Node::AlterSeqStmt(_)
        | Node::AlterStatsStmt(_)
        | Node::AlterTSConfigurationStmt(_)
        | Node::AlterTSDictionaryStmt(_)
        | Node::AlterTableSpaceOptionsStmt(_)
        | Node::AlterTypeStmt(_)
        | Node::RenameStmt(_) => Kind::Alter,
        _ => Kind::Unknown,
    }
}
