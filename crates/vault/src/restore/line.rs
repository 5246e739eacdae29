//! Lines of timelines: which log leads from a base to where, and where it has holes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_core::{Lsn, SourceName};
use holdfast_wire::pg::replication::TimelineHistory;

use super::Place;
use crate::repository::log::{Log, Origin, Piece};
use crate::repository::{BaseSummary, Reader, RepositoryError, WalPlace};

/// One timeline's part of the log that is needed.
pub(super) struct Stretch {
    pub(super) at: WalPlace,
    pub(super) from: Lsn,
    /// The position after its last byte.
    pub(super) to: Lsn,
    pub(super) log: Arc<Log>,
    /// The text of its history file; the first timeline has none.
    pub(super) history: Option<Vec<u8>>,
}

/// A timeline with its ancestors.
pub(super) struct Line {
    /// Its last timeline.
    pub(super) timeline: u32,
    /// Oldest first: the timeline, and where it was left; the last one was not.
    pub(super) portions: Vec<(u32, Option<Lsn>)>,
    history: Option<Vec<u8>>,
}

/// The log from a base on, as far as it is there.
pub(super) struct Walk {
    /// In order; the last one's end is the end of the log.
    pub(super) stretches: Vec<Stretch>,
    /// There is log behind a hole that cannot be used.
    pub(super) is_cut: bool,
}

/// One cluster's log in repository and spool.
pub(super) struct Cluster<'a> {
    pub(super) place: &'a Place,
    pub(super) reader: &'a Reader,
    /// Of any timeline.
    pub(super) at: WalPlace,
    /// What was listed already.
    listed: RefCell<BTreeMap<u32, Arc<Log>>>,
}

impl<'a> Cluster<'a> {
    /// Returns the cluster that a base is of.
    pub(super) fn of(
        place: &'a Place,
        reader: &'a Reader,
        source: &SourceName,
        base: &BaseSummary,
    ) -> Self {
        Self {
            place,
            reader,
            at: WalPlace {
                source: source.clone(),
                system_identifier: base.system_identifier,
                timeline: base.timeline,
                segment_bytes: base.segment_bytes,
            },
            listed: RefCell::default(),
        }
    }

    /// Returns the place of one timeline's log.
    pub(super) fn on(&self, timeline: u32) -> WalPlace {
        WalPlace {
            timeline,
            ..self.at.clone()
        }
    }

    /// Returns what is kept of one timeline's log.
    pub(super) fn log(&self, timeline: u32) -> Result<Arc<Log>, RepositoryError> {
        if let Some(log) = self.listed.borrow().get(&timeline) {
            return Ok(Arc::clone(log));
        }
        let log = Arc::new(logs(self.place, self.reader, &self.on(timeline))?);
        self.listed.borrow_mut().insert(timeline, Arc::clone(&log));
        Ok(log)
    }

    /// Returns the histories of timelines after `timeline`, without a hole between them.
    ///
    /// A promoted server takes the first number that it finds no history of.
    pub(super) fn newer_histories(
        &self,
        timeline: u32,
    ) -> Result<Vec<(u32, Vec<u8>)>, RepositoryError> {
        let known = self.reader.histories(&self.at)?;
        let newer = (timeline.saturating_add(1)..).take_while(|newer| known.contains(newer));
        newer
            .map(|newer| Ok((newer, self.reader.history(&self.on(newer))?)))
            .collect()
    }

    /// Returns the lines that are known, that of the newest timeline first.
    ///
    /// A timeline without a history is a line of its own; one whose history cannot be read is none.
    pub(super) fn lines(&self, bases: &[BaseSummary]) -> Result<Vec<Line>, RepositoryError> {
        let with_history = self.reader.histories(&self.at)?;
        let of_base = bases
            .iter()
            .filter(|base| base.system_identifier == self.at.system_identifier)
            .map(|base| base.timeline);
        let mut timelines: Vec<u32> = with_history.iter().copied().chain(of_base).collect();
        timelines.sort_unstable();
        timelines.dedup();
        let mut lines = Vec::new();
        for timeline in timelines.into_iter().rev() {
            if !with_history.contains(&timeline) {
                lines.push(Line::new(timeline, vec![(timeline, None)], None));
                continue;
            }
            let text = self.reader.history(&self.on(timeline))?;
            if let Ok(history) = TimelineHistory::parse(&text) {
                let older = history.switches.iter();
                let older = older.map(|switch| (switch.timeline, Some(switch.at)));
                let portions = older.chain([(timeline, None)]).collect();
                lines.push(Line::new(timeline, portions, Some(text)));
            }
        }
        Ok(lines)
    }

    /// Follows the log of a line from a base on, to `until` or to its end or its first hole.
    pub(super) fn walk(
        &self,
        line: &Line,
        base: &BaseSummary,
        until: Option<Lsn>,
    ) -> Result<Walk, RepositoryError> {
        let mut walk = Walk {
            stretches: Vec::new(),
            is_cut: false,
        };
        let mut from = base.start_lsn;
        let portions = line.portions.iter();
        for (timeline, left) in portions.skip_while(|portion| portion.0 != base.timeline) {
            let log = self.log(*timeline)?;
            // A timeline may have been left where it began.
            let is_nothing = *left == Some(from);
            let end = log.end_from(from).or(is_nothing.then_some(from));
            let to = end.unwrap_or(from).min(left.unwrap_or(Lsn(u64::MAX)));
            let is_first = walk.stretches.is_empty();
            if end.is_none() && !is_first {
                walk.is_cut = true;
                break;
            }
            walk.is_cut = match left {
                Some(left) => to < *left,
                None => log.runs().last().is_some_and(|run| run.0 > to),
            };
            walk.stretches.push(Stretch {
                at: self.on(*timeline),
                from,
                to,
                log,
                history: self.history_of(line, *timeline)?,
            });
            let is_far_enough = until.is_some_and(|until| left.is_none_or(|left| until < left));
            if walk.is_cut || is_far_enough {
                break;
            }
            from = to;
        }
        Ok(walk)
    }

    fn history_of(&self, line: &Line, timeline: u32) -> Result<Option<Vec<u8>>, RepositoryError> {
        if timeline == line.timeline {
            return Ok(line.history.clone());
        }
        let at = self.on(timeline);
        if self.reader.histories(&at)?.contains(&timeline) {
            return self.reader.history(&at).map(Some);
        }
        Ok(None)
    }
}

impl Line {
    pub(super) fn new(
        timeline: u32,
        portions: Vec<(u32, Option<Lsn>)>,
        history: Option<Vec<u8>>,
    ) -> Self {
        Self {
            timeline,
            portions,
            history,
        }
    }

    /// Returns whether a base lies on it.
    pub(super) fn holds(&self, base: &BaseSummary) -> bool {
        self.portions.iter().any(|(timeline, left)| {
            *timeline == base.timeline && left.is_none_or(|left| base.stop_lsn <= left)
        })
    }
}

impl Walk {
    /// Returns the end of the log that can be brought in.
    pub(super) fn end(&self) -> Lsn {
        self.stretches.last().map_or(Lsn::ZERO, |last| last.to)
    }

    /// Returns the last timeline.
    pub(super) fn timeline(&self) -> u32 {
        self.stretches.last().map_or(1, |last| last.at.timeline)
    }
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
        let Some(start) = start else {
            continue;
        };
        let bytes = crate::spool::received(&entry.path(), u64::from(at.segment_bytes));
        let bytes = bytes.unwrap_or_default();
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
