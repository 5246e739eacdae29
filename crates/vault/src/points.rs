//! What can be brought back, and what is known of it: spans, holes, sizes, lag, proofs.

mod openable;
mod proofs;
mod shown;

use holdfast_core::{ByteCount, PointId, SourceName, Timestamp};

use crate::engine::directory::DirectoryStatus;
use crate::repository::{PointSummary, Reader, RepositoryError};
use crate::restore::Place;
use crate::restore::spans::{self, Span};
use crate::retention::{self, Mark};
use crate::status::{CaptureState, SourceStatus};
use proofs::Proofs;

pub use openable::{Openable, Opened, Refused, openable};
pub use shown::{Lag, LagAgainst, LogHole, LogRange, PointProof, PointShown, PointSpan, SpanKind};

/// What a running vault says; empty when none runs.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// How its PostgreSQL clusters stand.
    pub sources: Vec<SourceStatus>,
    /// How its directories stand.
    pub directories: Vec<DirectoryStatus>,
}

/// Tells what can be brought back: every span of every source, in order of name and time.
///
/// A span's newest commit is read from the end of its log. How far the newest span is behind its source
/// only a running vault knows; without one that is said to be unknown.
///
/// # Errors
/// When the repository cannot be read or a manifest does not verify.
pub fn points(
    place: &Place,
    running: &Running,
    now: Timestamp,
) -> Result<Vec<PointSpan>, RepositoryError> {
    let reader = Reader::open(&place.repository, place.vault_key, &place.keys)?;
    let proofs = Proofs::read(place, &reader);
    let mut all = Vec::new();
    for source in reader.sources()? {
        let summaries = reader.points(&source)?;
        let marks = retention::marks(&reader, &source)?;
        let context = Context {
            source: &source,
            proofs: &proofs,
            marks: &marks,
            running,
            now,
        };
        let bases: Vec<_> = summaries.iter().filter_map(PointSummary::base).collect();
        let spans = spans::spans(place, &reader, &source, &bases)?;
        // The newest one is what the source writes on: neither left nor of another cluster.
        let newest = spans.iter().rposition(|span| !span.is_left);
        for (index, span) in spans.iter().enumerate() {
            all.push(context.of_log(span, &summaries, newest == Some(index)));
        }
        let moments: Vec<&PointSummary> = summaries
            .iter()
            .filter(|point| point.postgres.is_none())
            .collect();
        all.extend(context.of_moments(&moments));
    }
    Ok(all)
}

/// What a span is made of.
struct Parts {
    log: Option<LogRange>,
    from: Timestamp,
    to: Timestamp,
    /// What its log occupies.
    logged: ByteCount,
    lag: Option<Lag>,
    points: Vec<PointShown>,
}

/// What every span of a source needs.
struct Context<'a> {
    source: &'a SourceName,
    proofs: &'a Proofs,
    marks: &'a [Mark],
    running: &'a Running,
    now: Timestamp,
}

impl Context<'_> {
    fn of_log(&self, span: &Span, summaries: &[PointSummary], is_newest: bool) -> PointSpan {
        let is_in = |summary: &&PointSummary| {
            let mut bases = span.bases.iter();
            bases.any(|base| base.point == summary.point)
        };
        let points: Vec<PointShown> = summaries
            .iter()
            .filter(is_in)
            .map(|summary| self.point(summary, summary.at))
            .collect();
        let from = points.iter().map(|point| point.at).min();
        let from = from.unwrap_or_default();
        let latest = points.iter().map(|point| point.at).max();
        // Without a commit in what was read, the newest base is what is known to come back.
        let newest = span.newest_commit.or(latest).unwrap_or_default();
        let earliest = span.bases.iter().map(|base| base.stop_lsn).min();
        let lag = is_newest.then(|| self.lag(span));
        self.span(Parts {
            log: Some(LogRange {
                timeline: span.timeline,
                from_lsn: earliest.unwrap_or_default(),
                to_lsn: span.to,
                spooled: span.spooled,
                is_left: span.is_left,
                hole: span.hole.map(|(from, to)| LogHole {
                    from_lsn: from,
                    to_lsn: to,
                    bytes: to.since(from),
                }),
            }),
            from,
            to: newest.max(from),
            logged: span.stored,
            lag,
            points,
        })
    }

    /// A directory comes back as it was when a point was begun, and at no time between.
    fn of_moments(&self, moments: &[&PointSummary]) -> Option<PointSpan> {
        let (first, last) = (moments.first()?, moments.last()?);
        let points = moments.iter().map(|point| self.point(point, point.began));
        let directories = &self.running.directories;
        let known = directories.iter().find(|one| one.source == *self.source);
        let lag = Lag {
            against: LagAgainst::Unknown,
            bytes: None,
            seconds: None,
            why: match known.and_then(|known| known.trouble.as_ref()) {
                Some(trouble) => Some(format!("{} {}", trouble.code, trouble.what)),
                None => {
                    Some("what has changed since is known when the next point is made".to_owned())
                }
            },
        };
        Some(self.span(Parts {
            log: None,
            from: first.began,
            to: last.began,
            logged: ByteCount(0),
            lag: Some(lag),
            points: points.collect(),
        }))
    }

    /// Sums up what the points of a span say.
    fn span(&self, parts: Parts) -> PointSpan {
        let points = &parts.points;
        let stored = points.iter().map(|point| point.stored.0);
        let newest = points.iter().max_by_key(|point| point.at);
        // That of the newest point: an older one is drilled too, and says nothing of what is newest.
        let drilled = points.iter().rfind(|point| point.proof.at.is_some());
        PointSpan {
            source: self.source.clone(),
            kind: match parts.log {
                Some(_) => SpanKind::Log,
                None => SpanKind::Moments,
            },
            from: parts.from,
            to: parts.to,
            age_s: self.age(parts.to),
            bytes: ByteCount(stored.fold(parts.logged.0, u64::saturating_add)),
            restored: newest.map_or(ByteCount(0), |point| point.bytes),
            lag_s: parts.lag.as_ref().and_then(|lag| lag.seconds),
            lag: parts.lag,
            proof: drilled.map(|point| point.proof.clone()).unwrap_or_default(),
            log: parts.log,
            points: parts.points,
        }
    }

    fn point(&self, summary: &PointSummary, at: Timestamp) -> PointShown {
        PointShown {
            point: summary.point.clone(),
            at,
            lsn: summary.postgres.as_ref().map(|postgres| postgres.stop_lsn),
            age_s: self.age(at),
            bytes: summary.bytes,
            stored: summary.stored,
            is_whole: summary.parent.is_none(),
            proof: self.proofs.of(self.source, &summary.point),
            kept: self.kept(&summary.point),
        }
    }

    fn kept(&self, point: &PointId) -> Option<Mark> {
        let mut marks = self.marks.iter();
        let mark = marks.find(|mark| mark.point == *point)?;
        mark.keeps(self.now).then(|| mark.clone())
    }

    fn age(&self, at: Timestamp) -> f64 {
        self.now.since(at).as_secs_f64()
    }

    /// Compares the end of a span with what the source has written, as far as that is known.
    fn lag(&self, span: &Span) -> Lag {
        let unknown = |why: &str| Lag {
            against: LagAgainst::Unknown,
            bytes: None,
            seconds: None,
            why: Some(why.to_owned()),
        };
        let sources = &self.running.sources;
        let Some(status) = sources.iter().find(|one| one.source == *self.source) else {
            return unknown("no vault runs that could ask the source");
        };
        let base = span.bases.last();
        let is_it = base.map(|base| base.system_identifier) == status.system_identifier
            && span.timeline == status.timeline;
        if !is_it || status.flushed.0 == 0 {
            return unknown("the vault has not heard of this cluster and timeline since it began");
        }
        // What the vault had when it was asked may have grown until the repository was read.
        let written = status.flushed.0.saturating_add(status.lag.0);
        let bytes = ByteCount(written.saturating_sub(span.to.0));
        let is_live = status.state == CaptureState::Streaming;
        let seconds = match bytes.0 {
            0 if is_live => 0.0,
            _ => status.lag_s,
        };
        Lag {
            against: match is_live {
                true => LagAgainst::Source,
                false => LagAgainst::LastHeard,
            },
            bytes: Some(bytes),
            seconds: Some(seconds),
            why: status
                .trouble
                .as_ref()
                .map(|trouble| format!("{} {}", trouble.code, trouble.what)),
        }
    }
}
