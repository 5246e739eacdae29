//! What can be brought back: continuous spans of the log behind bases.

use std::collections::BTreeMap;

use holdfast_core::{ByteCount, Lsn, PointId, Proof, SourceName, Timestamp};

use crate::repository::log::{Log, Piece};
use crate::repository::{BaseSummary, Reader, RepositoryError, WalPlace};
use crate::restore::survey::Survey;
use crate::restore::{Place, logs};
use crate::status::{PointSpan, ProofState, ProofStatus};

/// Tells what can be brought back: every continuous span of every source, in order of name and time.
///
/// A span's newest commit is read from the end of its log. Whether the vault lags behind the source is
/// not known here: `lag_s` is the age of that commit for the newest span of a source, and zero for
/// spans that ended before another began.
///
/// # Errors
/// When the repository cannot be read or a manifest does not verify.
pub fn points(place: &Place, now: Timestamp) -> Result<Vec<PointSpan>, RepositoryError> {
    let reader = Reader::open(&place.repository, place.vault_key)?;
    let mut all = Vec::new();
    for source in reader.sources()? {
        let mut spans = of_source(place, &reader, &source)?;
        spans.sort_by_key(|span| (span.from, span.from_lsn));
        if let Some(newest) = spans.last_mut() {
            newest.lag_s = now.since(newest.to).as_secs_f64();
        }
        all.append(&mut spans);
    }
    Ok(all)
}

fn of_source(
    place: &Place,
    reader: &Reader,
    source: &SourceName,
) -> Result<Vec<PointSpan>, RepositoryError> {
    let mut lines: BTreeMap<(u64, u32), Vec<BaseSummary>> = BTreeMap::new();
    for base in reader.bases(source)? {
        lines
            .entry((base.system_identifier, base.timeline))
            .or_default()
            .push(base);
    }
    let proofs = proofs(reader, source)?;
    let mut spans = Vec::new();
    for ((system_identifier, timeline), bases) in lines {
        let Some(first) = bases.first() else { continue };
        let at = WalPlace {
            source: source.clone(),
            system_identifier,
            timeline,
            segment_bytes: first.segment_bytes,
        };
        let log = logs(place, reader, &at)?;
        for run in log.runs() {
            let within = |base: &&BaseSummary| run.0 <= base.start_lsn && base.stop_lsn <= run.1;
            let bases: Vec<&BaseSummary> = bases.iter().filter(within).collect();
            if !bases.is_empty() {
                spans.push(span(reader, &at, (&log, run), (&bases, &proofs))?);
            }
        }
    }
    Ok(spans)
}

fn span(
    reader: &Reader,
    at: &WalPlace,
    (log, run): (&Log, (Lsn, Lsn)),
    (bases, proofs): (&[&BaseSummary], &BTreeMap<PointId, ProofStatus>),
) -> Result<PointSpan, RepositoryError> {
    let earliest = bases
        .iter()
        .map(|base| (base.at, base.stop_lsn))
        .min()
        .unwrap_or_default();
    let latest = bases.iter().map(|base| base.at).max().unwrap_or_default();
    let pieces: Vec<&Piece> = log
        .pieces
        .iter()
        .filter(|piece| run.0 <= piece.start && piece.end <= run.1)
        .collect();
    let logged = pieces.iter().map(|piece| piece.stored.0);
    let stored = bases.iter().map(|base| base.stored.0);
    let proof = bases.iter().rev().find_map(|base| proofs.get(&base.point));
    // Bounded: a few segments from the end.
    let newest = Survey::of(reader, at, log, run).newest_commit()?;
    Ok(PointSpan {
        source: at.source.clone(),
        timeline: at.timeline,
        from: earliest.0,
        // Without a commit in what was read, the newest base is what is known to come back.
        to: newest.map_or(latest, |newest| newest.max(earliest.0)),
        from_lsn: earliest.1,
        to_lsn: run.1,
        points: bases.iter().map(|base| base.point.clone()).collect(),
        bytes: ByteCount(logged.chain(stored).fold(0, u64::saturating_add)),
        lag_s: 0.0,
        proof: proof.cloned().unwrap_or_default(),
    })
}

/// Returns the newest proof of each base that verifies.
fn proofs(
    reader: &Reader,
    source: &SourceName,
) -> Result<BTreeMap<PointId, ProofStatus>, RepositoryError> {
    let mut found = BTreeMap::new();
    for signed in reader.proofs(source)? {
        let Ok(proof) = Proof::verify(&signed, reader.key()) else {
            continue;
        };
        let report = proof.report();
        let status = ProofStatus {
            state: ProofState::Verified,
            at: Some(report.drilled_at),
            rto_s: Some(report.rto.as_secs_f64()),
        };
        found.insert(report.point.clone(), status);
    }
    Ok(found)
}
