//! What a restore will do, decided before anything is written.

use holdfast_core::{Lsn, PointId, Timestamp};

use super::choose::Choice;
use super::line::{Stretch, Walk};
use super::{Found, Place, RestoreError, RestoreRequest};
use crate::repository::{BaseSummary, Point, Reader, RepositoryError};

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

/// Everything that a restore needs to know.
pub(super) struct Plan {
    pub(super) reader: Reader,
    pub(super) base: BaseSummary,
    /// The same, with its files.
    pub(super) point: Point,
    pub(super) stop: Stop,
    /// In order; the last one's end is the end of the log.
    pub(super) stretches: Vec<Stretch>,
    /// Histories of timelines that are not gone to; a promoted server must not take their numbers.
    pub(super) histories: Vec<(u32, Vec<u8>)>,
    /// Where a target was found that is no position.
    pub(super) found: Option<Found>,
    /// What whoever asked should know.
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// Decides, or says what is possible instead; `begun` is the point that a restore was begun with.
    pub(super) fn make(
        place: &Place,
        request: &RestoreRequest,
        now: Timestamp,
        begun: Option<&PointId>,
    ) -> Result<Self, RestoreError> {
        let reader = Reader::open(&place.repository, place.vault_key, &place.keys)?;
        let mut bases = reader.bases(&request.source)?;
        if let Some(begun) = begun {
            // What is there already is of this one, whatever has come since.
            bases.retain(|base| base.point == *begun);
        }
        if bases.is_empty() {
            return Err(RepositoryError::NoPoints(request.source.clone()).into());
        }
        let choice = Choice {
            place,
            reader: &reader,
            request,
            bases: &bases,
        };
        let chosen = choice.choose(now)?;
        if chosen.walk.end() < chosen.base.stop_lsn {
            return Err(missing(&chosen.walk, chosen.base.start_lsn, chosen.base.stop_lsn).into());
        }
        Ok(Self {
            point: reader.point(&request.source, &chosen.base.point)?,
            stop: chosen.stop,
            histories: choice.newer_histories(&chosen)?,
            base: chosen.base,
            stretches: chosen.walk.stretches,
            found: chosen.found,
            notes: chosen.notes,
            reader,
        })
    }

    /// Returns how many bytes of log will be written at most.
    pub(super) fn log_bytes(&self) -> u64 {
        let lengths = self.stretches.iter().map(|s| s.to.since(s.from).0);
        lengths.fold(0, u64::saturating_add)
    }

    /// Returns the last timeline.
    pub(super) fn timeline(&self) -> u32 {
        self.stretches.last().map_or(1, |last| last.at.timeline)
    }
}

fn missing(walk: &Walk, start: Lsn, to: Lsn) -> RepositoryError {
    RepositoryError::MissingLog {
        timeline: walk.timeline(),
        from: walk.end().max(start),
        to,
    }
}
