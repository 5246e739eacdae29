//! Which positions can be brought back: bases, with the log that leads on from them, line by line.

use std::collections::BTreeMap;

use holdfast_core::{ByteCount, Lsn, SourceName, Timestamp};

use super::Place;
use super::line::{Cluster, Line, Stretch, Walk};
use super::survey::Survey;
use crate::repository::log::{Log, Origin, Piece};
use crate::repository::{BaseSummary, Reader, RepositoryError};

/// Positions without a hole between them, each of which can be brought back.
pub(crate) struct Span {
    /// The timeline of its end.
    pub(crate) timeline: u32,
    /// The bases in it, oldest first; never empty.
    pub(crate) bases: Vec<BaseSummary>,
    /// The end of its log.
    pub(crate) to: Lsn,
    /// The newest commit of a bounded part before the end.
    pub(crate) newest_commit: Option<Timestamp>,
    /// What its log occupies in the repository.
    pub(crate) stored: ByteCount,
    /// How much of the log before its end only the spool has.
    pub(crate) spooled: ByteCount,
    /// What is missing of the log behind its end: from where to where.
    pub(crate) hole: Option<(Lsn, Lsn)>,
    /// The source has left this part of its timeline; `--timeline` brings it back.
    pub(crate) is_left: bool,
}

/// Bases of one line with the log that all of them lead along.
struct Along<'a> {
    line: &'a Line,
    walk: Walk,
    bases: Vec<BaseSummary>,
}

/// Returns the spans of a PostgreSQL cluster, in order of their first bases.
///
/// A base whose own log is not there is in none of them.
///
/// # Errors
/// When the repository cannot be read.
pub(crate) fn spans(
    place: &Place,
    reader: &Reader,
    source: &SourceName,
    bases: &[BaseSummary],
) -> Result<Vec<Span>, RepositoryError> {
    let mut clusters: BTreeMap<u64, Vec<BaseSummary>> = BTreeMap::new();
    for base in bases {
        let of_cluster = clusters.entry(base.system_identifier).or_default();
        of_cluster.push(base.clone());
    }
    let mut spans = Vec::new();
    for bases in clusters.values() {
        let Some(newest) = bases.last() else { continue };
        let cluster = Cluster::of(place, reader, source, newest);
        let lines = cluster.lines(bases)?;
        let mut found: Vec<Along<'_>> = Vec::new();
        for line in &lines {
            for along in along(&cluster, &lines, line, bases)? {
                if !found.iter().any(|newer| is_part(&along, newer)) {
                    found.push(along);
                }
            }
        }
        for along in found {
            let newest = lines.first();
            let left = newest.and_then(|newest| left(newest, &along.walk));
            let is_left = left.is_some_and(|left| along.walk.end() > left);
            spans.push(span(&cluster, along, is_left)?);
        }
    }
    spans.sort_by_key(|span| span.bases.first().map(|base| (base.at, base.stop_lsn)));
    Ok(spans)
}

/// Follows a line from its bases on; those whose log leads to the same end come together.
fn along<'a>(
    cluster: &Cluster<'_>,
    lines: &[Line],
    line: &'a Line,
    bases: &[BaseSummary],
) -> Result<Vec<Along<'a>>, RepositoryError> {
    let mut found: Vec<Along<'a>> = Vec::new();
    for base in bases.iter().filter(|base| line.holds(base)) {
        let is_passed = |stretch: &Stretch| {
            stretch.at.timeline == base.timeline
                && stretch.from <= base.start_lsn
                && base.stop_lsn <= stretch.to
        };
        let passed = found
            .iter_mut()
            .find(|along| along.walk.stretches.iter().any(is_passed));
        if let Some(along) = passed {
            along.bases.push(base.clone());
            continue;
        }
        let walk = cluster.walk(line, base, None)?;
        // What ends on an older timeline is told of with that one.
        let is_older = walk.timeline() != line.timeline
            && lines.iter().any(|line| line.timeline == walk.timeline());
        if walk.end() >= base.stop_lsn && !is_older {
            found.push(Along {
                line,
                walk,
                bases: vec![base.clone()],
            });
        }
    }
    Ok(found)
}

/// Tells whether everything of `one` is in `newer`, which leads further.
fn is_part(one: &Along<'_>, newer: &Along<'_>) -> bool {
    let has = |base: &BaseSummary| newer.bases.iter().any(|other| other.point == base.point);
    let is_on_the_way = match left(newer.line, &one.walk) {
        Some(left) => one.walk.end() <= left,
        None => newer.line.timeline == one.walk.timeline() && one.walk.end() <= newer.walk.end(),
    };
    is_on_the_way && one.bases.iter().all(has)
}

/// Returns where a line left the timeline on which a walk ends; `None` when it did not.
fn left(line: &Line, walk: &Walk) -> Option<Lsn> {
    let mut portions = line.portions.iter();
    match portions.find(|portion| portion.0 == walk.timeline()) {
        Some((_, left)) => *left,
        // A line that never was on that timeline left it before it began.
        None => Some(Lsn::ZERO),
    }
}

fn span(cluster: &Cluster<'_>, along: Along<'_>, is_left: bool) -> Result<Span, RepositoryError> {
    let Along { walk, bases, .. } = along;
    let mut newest_commit = None;
    for stretch in walk.stretches.iter().rev() {
        let range = (stretch.from, stretch.to);
        let survey = Survey::of(cluster.reader, &stretch.at, &stretch.log, range);
        newest_commit = survey.newest_commit()?;
        if newest_commit.is_some() {
            break;
        }
    }
    let mut stored = 0_u64;
    for stretch in &walk.stretches {
        let within = |piece: &&Piece| piece.start < stretch.to && piece.end > stretch.from;
        let pieces = stretch.log.pieces.iter().filter(within);
        stored = pieces.fold(stored, |sum, piece| sum.saturating_add(piece.stored.0));
    }
    Ok(Span {
        timeline: walk.timeline(),
        to: walk.end(),
        newest_commit,
        stored: ByteCount(stored),
        spooled: walk.stretches.last().map(spooled).unwrap_or_default(),
        hole: walk
            .stretches
            .last()
            .and_then(|last| hole(last, &along.line.portions)),
        is_left,
        bases,
    })
}

/// Returns how much of the end of a stretch the repository does not have.
fn spooled(last: &Stretch) -> ByteCount {
    let pieces = last.log.pieces.iter();
    let kept = pieces.filter(|piece| !matches!(piece.origin, Origin::Spool(_)));
    let mut log = Log::default();
    log.add(kept.cloned());
    let end = log.end_from(last.from).unwrap_or(last.from);
    last.to.since(end.min(last.to))
}

/// Returns what is missing of the log behind a stretch that ends before it should.
fn hole(last: &Stretch, portions: &[(u32, Option<Lsn>)]) -> Option<(Lsn, Lsn)> {
    let left = portions
        .iter()
        .find(|portion| portion.0 == last.at.timeline);
    let left = left.and_then(|(_, left)| *left);
    let later = last.log.runs().into_iter().map(|run| run.0);
    let next = later
        .filter(|begin| *begin > last.to && left.is_none_or(|left| *begin < left))
        .min()
        .or(left.filter(|left| last.to < *left));
    next.map(|next| (last.to, next))
}
