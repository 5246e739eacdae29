//! `BEGIN`, `COMMIT`, savepoints and two-phase commit.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::nodes::TransactionStmt;
use pg_raw_parse::raw::TransactionStmtKind;

use super::found::Found;
use super::{Control, settings};

/// Judges what a statement asks of the transaction it stands in.
pub(super) fn transaction<'a>(stmt: &'a TransactionStmt, found: &mut Found<'a>) {
    let chain = stmt.chain;
    found.beyond_read_only = true;
    let control = match stmt.kind {
        TransactionStmtKind::TRANS_STMT_BEGIN | TransactionStmtKind::TRANS_STMT_START => {
            let mut modes = stmt.options().iter().filter_map(settings::mode_read_only);
            let read_only = modes.next_back().unwrap_or(false);
            Control::Begin { read_only }
        }
        TransactionStmtKind::TRANS_STMT_COMMIT => Control::Commit { chain },
        TransactionStmtKind::TRANS_STMT_ROLLBACK => Control::Rollback { chain },
        TransactionStmtKind::TRANS_STMT_SAVEPOINT => Control::Savepoint,
        TransactionStmtKind::TRANS_STMT_RELEASE => Control::Release,
        TransactionStmtKind::TRANS_STMT_ROLLBACK_TO => Control::RollbackTo,
        TransactionStmtKind::TRANS_STMT_PREPARE => {
            found.prepared = stmt.gid().map(str::to_owned);
            Control::PrepareTransaction
        }
        TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED => {
            prepared(stmt, "it commits what was prepared, unseen", found);
            Control::CommitPrepared
        }
        TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED => {
            prepared(stmt, "it throws away what was prepared, unseen", found);
            Control::RollbackPrepared
        }
        _ => {
            return found.does_unnamed(
                Effect::Unknown,
                "it is a transaction statement of a new kind",
            );
        }
    };
    found.control = Some(control);
}

fn prepared(stmt: &TransactionStmt, because: &str, found: &mut Found<'_>) {
    found.needs_no_block = true;
    found.prepared = stmt.gid().map(str::to_owned);
    let resource = Resource::new(
        "pg:prepared_transaction",
        stmt.gid().unwrap_or_default().to_owned(),
    );
    found.does_for_good(Effect::Unknown, Some(resource), because);
}
