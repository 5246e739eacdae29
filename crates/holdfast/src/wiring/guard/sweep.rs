//! Roles of leases that have ended do not stay in the sources, whatever crashed in between.

use std::collections::BTreeMap;

use holdfast_core::ledger::Draft;
use holdfast_core::{Code, Coded, Principal};
use holdfast_guard::door::pg::{PgDoorSource, sweep_roles};
use holdfast_guard::lease::Lease;
use holdfast_guard::limits::LEASE_SWEEPS_EVERY;
use tokio_util::sync::CancellationToken;

use super::{GuardState, copies};
use crate::config::Config;
use crate::wiring::now;

/// Looks after the roles of leases until `stop`; the first look is at once.
pub(super) async fn serve(
    (config, sources): (Config, Vec<PgDoorSource>),
    state: GuardState,
    stop: CancellationToken,
) {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut looks = tokio::time::interval(LEASE_SWEEPS_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        end_with_clones(&config, &state);
        for source in &sources {
            let trouble = tokio::select! {
                () = stop.cancelled() => return,
                trouble = sweep(source, &state) => trouble,
            };
            let name = source.name.to_string();
            match trouble {
                Some(trouble) if told.get(&name) != Some(&trouble) => {
                    tracing::warn!(
                        source = name,
                        trouble,
                        "roles of ended leases stay in the source"
                    );
                    told.insert(name, trouble);
                }
                Some(_) => {}
                None => drop(told.remove(&name)),
            }
        }
    }
}

/// Ends the leases for clones that are gone.
fn end_with_clones(config: &Config, state: &GuardState) {
    let is_left = |lease: &Lease| {
        let of_clone = lease.pg.as_ref().is_some_and(|pg| pg.copy_of.is_some());
        of_clone && lease.ended(now()).is_none() && copies::is_gone(config, &lease.source)
    };
    for lease in state.leases.list().into_iter().filter(is_left) {
        match state.leases.revoke(&lease.id, Principal::service("guard")) {
            Ok(_) => {
                tracing::info!(lease = %lease.id, clone = %lease.source, "ended with its clone")
            }
            Err(error) => tracing::warn!(lease = %lease.id, %error, "does not end with its clone"),
        }
    }
}

/// Sweeps one source; answers what should be told.
async fn sweep(source: &PgDoorSource, state: &GuardState) -> Option<String> {
    let _no_issue = state.roles.lock().await;
    let swept = sweep_roles(source, &state.leases, &state.guard_key(), now()).await;
    let swept = match swept {
        Ok(swept) => swept,
        // A source that is away is told of elsewhere, and its roles cannot be used meanwhile.
        Err(error) if error.code() == Code::ZS401 => {
            tracing::info!(source = %source.name, %error, "not looked through for ended leases");
            return None;
        }
        Err(error) => return Some(crate::wiring::failure(&error).message),
    };
    let mut trouble = None;
    for one in swept {
        if let Err(error) = one.removed {
            let message = crate::wiring::failure(&error).message;
            trouble = Some(format!("{}: {message}", one.role));
            continue;
        }
        tracing::info!(source = %source.name, role = one.role, "the role of an ended lease is gone");
        let entry = Draft::new("lease.role_removed", Principal::service("guard"), now())
            .source(source.name.clone())
            .with("role", one.role);
        if let Err(error) = state.ledger.append(entry) {
            trouble = Some(crate::wiring::failure(&error).message);
        }
    }
    trouble
}
