//! What a restore will do, decided before anything is written.

use std::path::PathBuf;

use holdfast_core::{ActionId, Lsn, SourceName, Timestamp};
use holdfast_store::ledger;
use holdfast_wire::pg::replication::TimelineHistory;

use super::{Place, RestoreError, RestoreRequest, RestoreTarget};
use crate::repository::log::{Log, Origin, Piece};
use crate::repository::{BaseSummary, Point, Reader, RepositoryError, WalPlace};
use crate::watch::DESTRUCTION_SEEN;

/// Where recovery stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Just before the record that begins here.
    Before(Lsn),
    /// At the end of the log.
    End,
    /// After the record that begins here.
    Lsn(Lsn),
    /// After the last commit up to here.
    Time(Timestamp),
}

/// One timeline's part of the log that is needed.
pub(super) struct Stretch {
    pub(super) at: WalPlace,
    pub(super) from: Lsn,
    /// The position after its last byte.
    pub(super) to: Lsn,
    pub(super) log: Log,
    /// The text of its history file; the first timeline has none.
    pub(super) history: Option<Vec<u8>>,
}

/// Everything that a restore needs to know.
pub(super) struct Plan {
    pub(super) reader: Reader,
    pub(super) base: BaseSummary,
    /// The same, with its files.
    pub(super) point: Point,
    pub(super) stop: Stop,
    /// In order; the last one's end is the end of the log.
    pub(super) stretches: Vec<Stretch>,
    /// There is log behind a hole that cannot be used.
    pub(super) is_cut: bool,
}

impl Plan {
    /// Decides, or says what is possible instead.
    pub(super) fn make(
        place: &Place,
        request: &RestoreRequest,
        now: Timestamp,
    ) -> Result<Self, RestoreError> {
        let reader = Reader::open(&place.repository, place.vault_key)?;
        let bases = reader.bases(&request.source)?;
        let Some(newest) = bases.last() else {
            return Err(RepositoryError::NoPoints(request.source.clone()).into());
        };
        let target = Target {
            text: request.at.to_string(),
        };
        let stop = match &request.at {
            RestoreTarget::Before(action) => {
                Stop::Before(look_up(place, &reader, request, action)?)
            }
            RestoreTarget::BeforeLsn(lsn) => Stop::Before(*lsn),
            RestoreTarget::Latest => Stop::End,
            RestoreTarget::Lsn(lsn) => Stop::Lsn(*lsn),
            RestoreTarget::Time(time) if *time > now => {
                return Err(target.refused("that time has not come yet", Some("latest".to_owned())));
            }
            RestoreTarget::Time(time) => Stop::Time(*time),
        };
        let is_same = |base: &&BaseSummary| base.system_identifier == newest.system_identifier;
        let fits = |base: &&BaseSummary| match stop {
            Stop::Before(lsn) | Stop::Lsn(lsn) => is_same(base) && base.stop_lsn <= lsn,
            Stop::End => true,
            Stop::Time(time) => base.at <= time,
        };
        let Some(chosen) = bases.iter().rfind(fits) else {
            let oldest = bases
                .iter()
                .find(|base| matches!(stop, Stop::Time(_)) || is_same(base));
            let nearest = oldest.map(|base| match stop {
                Stop::Time(_) => base.at.to_string(),
                Stop::Before(_) | Stop::End | Stop::Lsn(_) => base.stop_lsn.to_string(),
            });
            return Err(target.refused("nothing that is kept reaches back so far", nearest));
        };
        let point = reader.point(&request.source, &chosen.point)?;
        let (stretches, is_cut) = stretches(place, &reader, chosen, &request.source)?;
        let plan = Self {
            reader,
            base: chosen.clone(),
            point,
            stop,
            stretches,
            is_cut,
        };
        plan.check_end(&target, chosen)?;
        Ok(plan)
    }

    /// Returns the end of the log that can be brought in.
    pub(super) fn wal_end(&self) -> Lsn {
        self.stretches.last().map_or(Lsn::ZERO, |last| last.to)
    }

    /// Returns the last timeline.
    pub(super) fn timeline(&self) -> u32 {
        self.stretches.last().map_or(1, |last| last.at.timeline)
    }

    /// Checks that the log reaches the base's consistent point and the target.
    fn check_end(&self, target: &Target, base: &BaseSummary) -> Result<(), RestoreError> {
        let end = self.wal_end();
        if end < base.stop_lsn {
            return Err(RepositoryError::MissingLog {
                timeline: self.timeline(),
                from: end.max(base.start_lsn),
                to: base.stop_lsn,
            }
            .into());
        }
        match self.stop {
            Stop::Before(lsn) | Stop::Lsn(lsn) if lsn > end => {
                let why = format!("the log that is kept ends at {end}");
                Err(target.refused(&why, Some(end.to_string())))
            }
            Stop::Before(_) | Stop::End | Stop::Lsn(_) | Stop::Time(_) => Ok(()),
        }
    }
}

struct Target {
    text: String,
}

impl Target {
    fn refused(&self, why: &str, nearest: Option<String>) -> RestoreError {
        RestoreError::Target {
            target: self.text.clone(),
            why: why.to_owned(),
            nearest,
        }
    }
}

/// Finds the position before which an action destroyed something, in the vault's ledger.
fn look_up(
    place: &Place,
    reader: &Reader,
    request: &RestoreRequest,
    action: &ActionId,
) -> Result<Lsn, RestoreError> {
    let failed = |source| RestoreError::Ledger {
        action: action.to_string(),
        source,
    };
    let mut found = None;
    ledger::verify(&place.state.join("ledger"), reader.key(), |entry| {
        let draft = &entry.draft;
        let is_it = draft.kind == DESTRUCTION_SEEN
            && draft.action.as_ref() == Some(action)
            && draft
                .source
                .as_ref()
                .is_none_or(|source| *source == request.source);
        if is_it {
            found = draft
                .body
                .get("before_lsn")
                .and_then(|value| value.as_str()?.parse().ok());
        }
    })
    .map_err(|error| failed(Box::new(error)))?;
    found.ok_or_else(|| RestoreError::Target {
        target: request.at.to_string(),
        why: "the vault has seen no such action destroy anything in this source".to_owned(),
        nearest: None,
    })
}

/// Returns the log from the base on over the newest line of timelines that is kept without a hole.
fn stretches(
    place: &Place,
    reader: &Reader,
    base: &BaseSummary,
    source: &SourceName,
) -> Result<(Vec<Stretch>, bool), RestoreError> {
    let first = WalPlace {
        source: source.clone(),
        system_identifier: base.system_identifier,
        timeline: base.timeline,
        segment_bytes: base.segment_bytes,
    };
    let mut newer = reader.histories(&first)?;
    newer.retain(|timeline| *timeline > base.timeline);
    newer.sort_unstable();
    for timeline in newer.into_iter().rev() {
        if let Some(line) = line_to(place, reader, (base, &first), timeline)? {
            let is_cut = line.last().is_some_and(is_cut);
            return Ok((line, is_cut));
        }
    }
    let mut only = stretch(place, reader, &first, base.start_lsn)?;
    only.to = only.log.end_from(base.start_lsn).unwrap_or(base.start_lsn);
    let is_cut = is_cut(&only);
    Ok((vec![only], is_cut))
}

fn is_cut(stretch: &Stretch) -> bool {
    stretch
        .log
        .runs()
        .last()
        .is_some_and(|run| run.0 > stretch.to)
}

/// Returns the log up to `timeline`, or `None` when that is no descendant or has holes.
fn line_to(
    place: &Place,
    reader: &Reader,
    (base, first): (&BaseSummary, &WalPlace),
    timeline: u32,
) -> Result<Option<Vec<Stretch>>, RestoreError> {
    let on = |timeline| WalPlace {
        timeline,
        ..first.clone()
    };
    let text = reader.history(&on(timeline))?;
    let Ok(history) = TimelineHistory::parse(&text) else {
        return Ok(None);
    };
    let Some(begin) = history
        .switches
        .iter()
        .position(|s| s.timeline == base.timeline)
    else {
        return Ok(None);
    };
    let mut line = Vec::new();
    let mut from = base.start_lsn;
    for switch in history.switches.iter().skip(begin) {
        let mut stretch = stretch(place, reader, &on(switch.timeline), from)?;
        let is_whole = stretch
            .log
            .end_from(from)
            .is_some_and(|end| end >= switch.at);
        if !is_whole || switch.at < base.stop_lsn {
            return Ok(None);
        }
        stretch.to = switch.at;
        from = switch.at;
        line.push(stretch);
    }
    let mut last = stretch(place, reader, &on(timeline), from)?;
    let Some(end) = last.log.end_from(from) else {
        return Ok(None);
    };
    last.to = end;
    last.history = Some(text);
    line.push(last);
    Ok(Some(line))
}

fn stretch(
    place: &Place,
    reader: &Reader,
    at: &WalPlace,
    from: Lsn,
) -> Result<Stretch, RestoreError> {
    Ok(Stretch {
        at: at.clone(),
        from,
        to: from,
        log: logs(place, reader, at)?,
        history: None,
    })
}

/// Returns what repository and spool together have of a timeline's log.
pub(crate) fn logs(place: &Place, reader: &Reader, at: &WalPlace) -> Result<Log, RepositoryError> {
    let mut log = reader.log(at)?;
    log.add(spooled(place, at));
    Ok(log)
}

/// Returns what the spool has of a timeline; it may be gone, and may belong to another cluster.
fn spooled(place: &Place, at: &WalPlace) -> Vec<Piece> {
    let folder: PathBuf = place.state.join("spool").join(at.source.as_str());
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut pieces = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let start = name.to_str().and_then(|name| at.read_segment_name(name));
        let Some((start, metadata)) = start.zip(entry.metadata().ok()) else {
            continue;
        };
        let bytes = metadata.len().min(u64::from(at.segment_bytes));
        if bytes > 0 && super::log::is_of_cluster(&entry.path(), at, start) {
            pieces.push(Piece {
                start,
                end: Lsn(start.0.saturating_add(bytes)),
                stored: holdfast_core::ByteCount(0),
                origin: Origin::Spool(entry.path()),
            });
        }
    }
    pieces
}
