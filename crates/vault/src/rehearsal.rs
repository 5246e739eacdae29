//! Running a held action on a clone of its source, to measure what it would do.
//!
//! The clone is opened at the newest position. The action runs there with the rights of its lease and
//! no others, in a transaction that is rolled back; what it did is measured as guard measures it on
//! production, and more: objects by name, locks with their time, errors.
//!
//! # Architecture invariants
//! - **I8 never in place.** It runs on a clone, which is thrown away.
//! - **I11 no waiting inside.** Nothing on production waits for it, and it never connects to production.

mod locks;
mod objects;
mod run;
mod stage;

use std::time::Instant;

use holdfast_core::{Confinement, NoRehearsal, Rehearsal, RehearsalRequest, Timestamp, Untrusted};

use crate::limits;
use crate::restore::Place;
use crate::source::Connection;
use run::{Actors, Patience, broken};
pub use stage::OWNER as REHEARSAL_OWNER;
use stage::Stage;
pub(crate) use stage::Stages;

/// What a rehearsal needs besides the request.
pub(crate) struct RehearsalContext<'a> {
    pub(crate) place: &'a Place,
    pub(crate) stages: &'a Stages,
    /// The newest commit of the source that is here.
    pub(crate) newest_commit: Option<Timestamp>,
    pub(crate) clock: &'a dyn Fn() -> Timestamp,
    pub(crate) cancelled: &'a dyn Fn() -> bool,
}

/// Rehearses; blocks.
///
/// # Errors
/// [`NoRehearsal`]; the clone is gone then.
pub(crate) fn rehearse(
    ctx: &RehearsalContext<'_>,
    request: &RehearsalRequest,
) -> Result<Rehearsal, NoRehearsal> {
    let _turn = ctx.stages.turn(ctx.cancelled)?;
    let begun = Instant::now();
    let (stage, actors) = enter(ctx, request)?;
    let took = begun.elapsed();
    if (ctx.cancelled)() {
        return Err(NoRehearsal::Cancelled);
    }
    let patience = Patience {
        deadline: Instant::now() + ctx.stages.lasts(),
        limit: ctx.stages.lasts(),
        cancelled: ctx.cancelled,
    };
    let ran = run::run(actors, request, &patience)?;
    let more = |count: usize| {
        u64::try_from(count.saturating_sub(limits::REHEARSAL_NAMED)).unwrap_or(u64::MAX)
    };
    let mut rehearsal = Rehearsal {
        request: request.digest(),
        position: stage.position(),
        newest_commit: stage.newest_commit(),
        at: (ctx.clock)(),
        form: stage.form().to_owned(),
        confinement: stage.confinement(),
        opened: took,
        objects_more: more(ran.objects.len()),
        locks_more: more(ran.locks.len()),
        steps: ran.steps,
        failed: ran.failed,
        rows: ran.rows,
        objects: ran.objects,
        locks: ran.locks,
        notes: ran.notes,
    };
    if request.after > Some(rehearsal.position) {
        let note = "production was further already: the vault has not got everything yet";
        rehearsal.notes.push(note.to_owned());
    }
    bound(&mut rehearsal);
    if !ran.is_spent {
        ctx.stages.keep(&request.source, stage);
    }
    Ok(rehearsal)
}

/// Leaves the first of them.
fn first<T>(all: &mut Vec<T>) {
    *all = std::mem::take(all)
        .into_iter()
        .take(limits::REHEARSAL_NAMED)
        .collect();
}

/// What a person reads and the records keep is bounded.
fn bound(rehearsal: &mut Rehearsal) {
    first(&mut rehearsal.objects);
    first(&mut rehearsal.locks);
    first(&mut rehearsal.steps);
    let more = rehearsal.rows.len().saturating_sub(limits::REHEARSAL_NAMED);
    if more > 0 {
        first(&mut rehearsal.rows);
        rehearsal
            .notes
            .push(format!("rows of {more} further tables"));
    }
    if let Some(failed) = &mut rehearsal.failed {
        failed.message = Untrusted(&failed.message).to_string();
    }
}

/// Opens a clone, or takes the one that is open, and connects to it.
fn enter(
    ctx: &RehearsalContext<'_>,
    request: &RehearsalRequest,
) -> Result<(Stage, Actors), NoRehearsal> {
    if let Some(stage) = ctx.stages.take(&request.source, ctx.newest_commit) {
        // Its server may have ended meanwhile.
        if let Ok(actors) = connect(&stage, request) {
            return Ok((stage, actors));
        }
    }
    let stage = Stage::open(ctx.place, &request.source, ctx.stages.form())?;
    let actors = connect(&stage, request)?;
    Ok((stage, actors))
}

fn connect(stage: &Stage, request: &RehearsalRequest) -> Result<Actors, NoRehearsal> {
    if request.leaves && stage.confinement() == Confinement::Advisory {
        let why = "it may act outside of the server, and no clone can be confined on this machine";
        return Err(NoRehearsal::NotHere {
            why: why.to_owned(),
        });
    }
    let database = request.database.as_str();
    let missing = |what: String| NoRehearsal::NotHere {
        why: format!("{what} at position {}", stage.position()),
    };
    let mut keeper = stage.keeper(database).map_err(|_| {
        missing(format!(
            "the clone has no database `{}`",
            Untrusted(database)
        ))
    })?;
    admit(&mut keeper, stage, request)?;
    Ok(Actors {
        lease: stage.role(&request.role, database).map_err(broken)?,
        watcher: stage.keeper(database).map_err(broken)?,
        keeper,
    })
}

/// Looks whether the role of the lease is there, and has no rights by which it could leave a clone that
/// only its settings keep in.
fn admit(
    keeper: &mut Connection,
    stage: &Stage,
    request: &RehearsalRequest,
) -> Result<(), NoRehearsal> {
    let role = postgres_protocol::escape::escape_literal(&request.role);
    let sql = format!(
        "SELECT CASE WHEN r.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.rolsuper
             AND pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER')) THEN 'superuser'
           WHEN EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.rolname IN ('pg_execute_server_program',
             'pg_write_server_files', 'pg_read_server_files') AND pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER'))
             THEN 'outside' ELSE 'plain' END
         FROM pg_catalog.pg_roles r WHERE r.rolname = {role}"
    );
    let reply = keeper
        .query(&sql, "look for the role of the lease")
        .map_err(broken)?;
    let refused = |why: String| Err(NoRehearsal::NotHere { why });
    match (reply.single(), stage.confinement()) {
        (Some("plain"), _) | (Some("outside"), Confinement::Enforced) => Ok(()),
        (Some("outside"), Confinement::Advisory) => refused(
            "the role of the lease may run programs or use files, and no clone can be confined on this machine"
                .to_owned(),
        ),
        (Some(_), _) => refused("the role of the lease is a superuser".to_owned()),
        (None, _) => refused(format!(
            "the clone does not know the role of the lease at position {}",
            stage.position()
        )),
    }
}
