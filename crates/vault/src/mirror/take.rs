//! Taking over: the rest of the log is fed and replayed, and the mirror is promoted.

use std::path::Path;
use std::time::Instant;

use super::feed::{Feeder, Step};
use super::folder::Folder;
use super::log::KeptLog;
use super::run::begin;
use super::server::Server;
use super::{MirrorError, Promoted};
use crate::limits;
use crate::repository::Reader;
use crate::restore::{Place, Standby};
use crate::spool::Spool;
use crate::watch::CutAt;
use holdfast_core::SourceName;

/// Feeds the rest, waits until it is replayed, promotes; `handed` is called before the promotion.
pub(super) fn take_over(
    server: &mut Server,
    feeder: &mut Feeder,
    (cut, slot): (CutAt, &str),
    handed: impl FnOnce() -> Result<(), MirrorError>,
) -> Result<Promoted, MirrorError> {
    let deadline = Instant::now() + limits::MIRROR_PROMOTE;
    loop {
        match feeder.step()? {
            Step::Brink(_) => feeder.release(),
            Step::Cut => break,
            Step::Fed => {}
            // A time behind the newest commit is not confirmed by any.
            Step::Idle if matches!(cut, CutAt::Never | CutAt::Time(_)) => break,
            Step::Idle => {
                return Err(MirrorError::None {
                    why: "the log that is kept does not lead there".to_owned(),
                });
            }
        }
    }
    let wanted = feeder.behind();
    let reached = loop {
        let replayed = server.replayed()?;
        if replayed >= wanted {
            break replayed;
        }
        if Instant::now() >= deadline {
            return Err(MirrorError::None {
                why: "it does not replay what it was given".to_owned(),
            });
        }
        std::thread::sleep(limits::PROMOTION_POLL);
    };
    // From here on the directory is not ours any more, whatever happens.
    handed()?;
    server.promote(slot)?;
    Ok(Promoted {
        directory: server.standby.data.clone(),
        timeline: server.timeline()?,
        local: server.local.clone(),
        reached,
        newest_commit: feeder.newest_commit(),
    })
}

/// Takes over with the mirror that a vault left which does not run: of a machine that is left alone.
///
/// # Errors
/// [`MirrorError::None`] when there is no mirror, or a vault has it.
pub(crate) fn take_over_alone(
    place: &Place,
    (root, source): (&Path, &SourceName),
    (cut, timeline): (CutAt, u32),
    slot: &str,
) -> Result<Promoted, MirrorError> {
    let none = |why: &str| MirrorError::None {
        why: why.to_owned(),
    };
    if !root.join(source.as_str()).is_dir() {
        return Err(none("there is none"));
    }
    let folder = Folder::open(root, source)?;
    let spool = Spool::open(&place.state, source)?;
    let cluster = spool.cluster()?.ok_or_else(|| none("its spool is gone"))?;
    let current = folder.current(cluster.system_identifier);
    let (note, data) = current.ok_or_else(|| none("it was not whole"))?;
    let standby = Standby::find(place, &data, note.major)?;
    let reader = Reader::open(&place.repository, place.vault_key, &place.keys)?;
    let log = KeptLog::new(source.clone(), (spool, reader), cluster, None);
    let mut feeder = begin(&standby, &note, log)?;
    if timeline < feeder.timeline() || !feeder.aim(cut) {
        return Err(MirrorError::Passed);
    }
    let mut meanwhile = || {
        while feeder.step()? == Step::Fed {}
        Ok(())
    };
    let mut server = Server::up(&standby, &mut meanwhile)?;
    // It may have been given more before than is asked for now.
    if let CutAt::After(lsn) | CutAt::Before(lsn) = cut
        && server.replayed()? > lsn
    {
        return Err(MirrorError::Passed);
    }
    take_over(&mut server, &mut feeder, (cut, slot), || folder.hand_over())
}
