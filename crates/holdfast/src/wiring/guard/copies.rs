//! Doors to clones: sandboxes for agents, judged as copies that cannot be left.

use holdfast_core::{Code, SourceName, Timestamp};
use holdfast_guard::door::pg::{Copies, PgDoorSource};
use holdfast_vault::clone::{Kept, way_in};
use holdfast_wire::pg::url::UrlError;

use crate::config::Config;
use crate::report::Failure;
use crate::wiring::{clones, failure};

/// The environment of every clone, as policies see it.
pub(super) const SANDBOX: &str = "sandbox";

/// The clones of this machine.
pub(super) struct Clones(pub(super) Config);

impl Copies for Clones {
    fn find(&self, name: &SourceName) -> Option<PgDoorSource> {
        find(&self.0, name.as_str()).ok().map(|(copy, _)| copy)
    }
}

/// Returns a clone as a door leads to it, and when it ends by itself.
///
/// # Errors
/// When there is none of that name, it is not open, or it cannot have a door.
pub(super) fn find(config: &Config, id: &str) -> Result<(PgDoorSource, Timestamp), Failure> {
    let clone = way_in(&clones::config(config), id)?;
    let refused = |why: &str, hint: &str| {
        let message = format!("the clone `{id}` cannot have a door: {why}; nothing was changed");
        Failure::new(Code::ZU520, message, hint)
    };
    if clone.kept != Kept::Enforced {
        return Err(refused(
            "settings alone keep it in, so that what a lease does there could leave it",
            "run clones where the system keeps them in (docs/clones.md)",
        ));
    }
    let name = id.parse().map_err(|_| {
        refused(
            "its name is too long for a lease",
            "give the source a name of at most 33 characters",
        )
    })?;
    let url = clone
        .url
        .expose()
        .parse()
        .map_err(|error: UrlError| failure(&error))?;
    let copy = PgDoorSource {
        name,
        environment: SANDBOX.to_owned(),
        url,
        copy_of: Some(clone.source),
    };
    Ok((copy, clone.expires))
}

/// Tells whether a clone has ended for good, so that no lease for it may stay open.
pub(super) fn is_gone(config: &Config, name: &SourceName) -> bool {
    let found = way_in(&clones::config(config), name.as_str());
    matches!(found, Err(holdfast_vault::clone::CloneError::Unknown(_)))
}
