//! `ALTER TABLE` and its likes, command by command.

mod column;

use holdfast_core::{Effect, Resource};
use pg_raw_parse::Node;
use pg_raw_parse::nodes::{AlterTableCmd, AlterTableMoveAllStmt, AlterTableStmt};
use pg_raw_parse::raw::AlterTableType;

use super::found::Found;
use super::name;

/// Judges `ALTER TABLE`, `ALTER INDEX`, `ALTER VIEW`, `ALTER SEQUENCE`, `ALTER FOREIGN TABLE` and
/// `ALTER TYPE` of a composite type.
pub(super) fn alter<'a>(stmt: &'a AlterTableStmt, found: &mut Found<'a>) {
    let called = stmt.relation().map(name::relation).unwrap_or_default();
    let table = Resource::new(name::kind(stmt.objtype), called);
    for command in stmt.cmds() {
        match command {
            Node::AlterTableCmd(command) => one(command, &table, found),
            _ => found.does(
                Effect::Unknown,
                table.clone(),
                "it changes a table in an unknown way",
            ),
        }
    }
}

/// Judges `ALTER TABLE ALL IN TABLESPACE ... SET TABLESPACE`.
pub(super) fn move_all<'a>(stmt: &'a AlterTableMoveAllStmt, found: &mut Found<'a>) {
    let from = stmt.orig_tablespacename().unwrap_or_default().to_owned();
    let because = "all tables there are copied and blocked meanwhile";
    found.does(
        Effect::Interrupt,
        Resource::new("pg:tablespace", from),
        because,
    );
}

fn one<'a>(command: &'a AlterTableCmd, table: &Resource, found: &mut Found<'a>) {
    match command.subtype {
        AlterTableType::AT_AddColumn => column::add(command, table, found),
        AlterTableType::AT_AlterColumnType => column::retype(command, table, found),
        AlterTableType::AT_AddConstraint => column::constrain(command, table, found),
        AlterTableType::AT_AddIndexConstraint | AlterTableType::AT_ColumnDefault => {
            found.does(
                Effect::Write,
                table.clone(),
                "a column or constraint changes",
            );
            found.visit(command.def());
        }
        AlterTableType::AT_DetachPartition => {
            if let Node::PartitionCmd(partition) = command.def() {
                found.needs_no_block |= partition.concurrent;
            }
            let because = "a partition's rows are no longer seen in the table";
            found.does(Effect::Redirect, table.clone(), because);
        }
        AlterTableType::AT_ReplicaIdentity => replica_identity(command, table, found),
        subtype => {
            let (effect, because) = meaning(subtype);
            match effect {
                Effect::Interrupt => found.blocks(table.clone(), because),
                _ => found.does(effect, table.clone(), because),
            }
        }
    }
}

fn replica_identity(command: &AlterTableCmd, table: &Resource, found: &mut Found<'_>) {
    let nothing = match command.def() {
        Node::ReplicaIdentityStmt(identity) => u8::try_from(identity.identity_type) == Ok(b'n'),
        _ => true,
    };
    match nothing {
        true => {
            let because = "copies kept by replication can no longer follow changes";
            found.does(Effect::Disarm, table.clone(), because);
        }
        false => found.does(Effect::Write, table.clone(), "the replica identity changes"),
    }
}

/// What each command does that needs no look at its arguments.
fn meaning(subtype: AlterTableType::Type) -> (Effect, &'static str) {
    use AlterTableType as At;
    match subtype {
        At::AT_DropColumn => (Effect::Destroy, "a column and its values are gone"),
        At::AT_DropConstraint => (
            Effect::Destroy,
            "a constraint that kept the rows right is gone",
        ),
        At::AT_DisableTrig
        | At::AT_DisableTrigAll
        | At::AT_DisableTrigUser
        | At::AT_EnableReplicaTrig => (Effect::Disarm, "triggers no longer act"),
        At::AT_DisableRule | At::AT_EnableReplicaRule => (Effect::Disarm, "a rule no longer acts"),
        At::AT_DisableRowSecurity | At::AT_NoForceRowSecurity => {
            (Effect::Disarm, "row security is switched off")
        }
        At::AT_SetUnLogged => (
            Effect::Disarm,
            "the table is no longer in the WAL, so neither a crash nor a restore brings it back",
        ),
        At::AT_EnableRowSecurity | At::AT_ForceRowSecurity => (
            Effect::Interrupt,
            "rows are no longer seen where no policy allows them",
        ),
        At::AT_ChangeOwner => (Effect::Escalate, "another role becomes its owner"),
        At::AT_SetNotNull => (
            Effect::Interrupt,
            "the table is read to its end while all others are blocked",
        ),
        At::AT_SetLogged | At::AT_SetAccessMethod | At::AT_SetTableSpace | At::AT_SetExpression => {
            (
                Effect::Interrupt,
                "the table is written anew while all others are blocked",
            )
        }
        At::AT_DropInherit | At::AT_DetachPartitionFinalize => (
            Effect::Redirect,
            "rows are no longer seen in the parent table",
        ),
        At::AT_GenericOptions | At::AT_AlterColumnGenericOptions => (
            Effect::Redirect,
            "a foreign table is read from somewhere else",
        ),
        _ => mild(subtype),
    }
}

/// The commands that change how a table works and take nothing from it.
fn mild(subtype: AlterTableType::Type) -> (Effect, &'static str) {
    use AlterTableType as At;
    match subtype {
        At::AT_DropNotNull
        | At::AT_DropExpression
        | At::AT_DropIdentity
        | At::AT_AddIdentity
        | At::AT_SetIdentity => (Effect::Write, "how a column gets its values changes"),
        At::AT_SetStatistics
        | At::AT_SetOptions
        | At::AT_ResetOptions
        | At::AT_SetStorage
        | At::AT_SetCompression
        | At::AT_ClusterOn
        | At::AT_DropCluster
        | At::AT_DropOids
        | At::AT_SetRelOptions
        | At::AT_ResetRelOptions
        | At::AT_ReplaceRelOptions => (Effect::Write, "how it is stored changes"),
        At::AT_EnableTrig
        | At::AT_EnableAlwaysTrig
        | At::AT_EnableTrigAll
        | At::AT_EnableTrigUser
        | At::AT_EnableRule
        | At::AT_EnableAlwaysRule => (Effect::Write, "triggers or rules act again"),
        At::AT_AddInherit | At::AT_AttachPartition | At::AT_AddOf | At::AT_DropOf => {
            (Effect::Write, "it becomes part of another table or type")
        }
        At::AT_ValidateConstraint | At::AT_AlterConstraint => {
            (Effect::Write, "a constraint is checked or changed")
        }
        _ => (Effect::Unknown, "it changes a table in an unknown way"),
    }
}
