//! Restore points as text for a person.

use holdfast_core::Untrusted;
use holdfast_vault::{Lag, LagAgainst, PointProof, PointShown, PointSpan, ProofState, SpanKind};

use crate::report::table;

/// How many points of a span are listed unless all are wanted.
pub const NEWEST: usize = 10;

/// Tells of spans, of what is missing, and of the newest points of each.
pub fn text(spans: &[PointSpan], newest: usize) -> String {
    if spans.is_empty() {
        return "nothing can be brought back yet; `holdfast source list` shows why".to_owned();
    }
    let rows: Vec<Vec<String>> = spans.iter().map(span).collect();
    let header = [
        "SOURCE", "TIMELINE", "FROM", "TO", "AGE", "LAG", "STORED", "RESTORED", "PROOF",
    ];
    let mut text = table(&header, &rows);
    for note in spans.iter().flat_map(notes) {
        text.push_str(&format!("{note}\n"));
    }
    let mut rows = Vec::new();
    let mut hidden = 0_usize;
    for span in spans {
        let skipped = span.points.len().saturating_sub(newest);
        hidden = hidden.saturating_add(skipped);
        let points = span.points.iter().skip(skipped);
        rows.extend(points.map(|one| point(span, one)));
    }
    let header = [
        "SOURCE", "POINT", "AT", "POSITION", "AGE", "STORED", "RESTORED", "PROOF",
    ];
    text.push('\n');
    text.push_str(&table(&header, &rows));
    if hidden > 0 {
        text.push_str(&format!(
            "{hidden} older points are not shown; --all shows them\n"
        ));
    }
    text
}

fn span(span: &PointSpan) -> Vec<String> {
    let timeline = match &span.log {
        Some(log) => log.timeline.to_string(),
        None => "directory".to_owned(),
    };
    vec![
        span.source.to_string(),
        timeline,
        span.from.to_string(),
        span.to.to_string(),
        age(span.age_s),
        span.lag.as_ref().map_or("ended".to_owned(), lag),
        span.bytes.to_string(),
        span.restored.to_string(),
        word(&span.proof).to_owned(),
    ]
}

fn lag(lag: &Lag) -> String {
    let known = match (lag.bytes, lag.seconds) {
        (Some(bytes), Some(seconds)) => format!("{bytes}, {seconds:.1} s"),
        _ => return "unknown".to_owned(),
    };
    match lag.against {
        LagAgainst::Source => known,
        LagAgainst::LastHeard => format!("at least {known}"),
        LagAgainst::Unknown => "unknown".to_owned(),
    }
}

/// Says what the row of a span cannot.
fn notes(span: &PointSpan) -> Vec<String> {
    let source = &span.source;
    let mut notes = Vec::new();
    if let Some(why) = span.lag.as_ref().and_then(|lag| lag.why.as_ref()) {
        let why = Untrusted(why);
        notes.push(match span.kind {
            SpanKind::Log => format!("{source}: lag: {why}"),
            SpanKind::Moments => {
                format!("{source}: only the times of its points come back; {why}")
            }
        });
    }
    for (point, kept) in span
        .points
        .iter()
        .filter_map(|one| Some((&one.point, one.kept.as_ref()?)))
    {
        let until = kept
            .until
            .map_or("released".to_owned(), |until| until.to_string());
        let (by, because) = (&kept.by, Untrusted(&kept.because));
        notes.push(format!(
            "{source}: {point} is kept until {until} by {by}: {because}"
        ));
    }
    let Some(log) = &span.log else { return notes };
    if log.spooled.0 > 0 {
        let spooled = log.spooled;
        notes.push(format!(
            "{source}: the last {spooled} before {} are in this machine's spool alone, not in the repository yet",
            log.to_lsn
        ));
    }
    if log.is_left {
        notes.push(format!(
            "{source}: the source has left timeline {}; --timeline {0} brings this span back",
            log.timeline
        ));
    }
    if let Some(hole) = &log.hole {
        notes.push(format!(
            "{source}: {} of log are missing on timeline {}, from {} to {}; no position between comes back",
            hole.bytes, log.timeline, hole.from_lsn, hole.to_lsn
        ));
    }
    if let Some(why) = &span.proof.why {
        notes.push(format!("{source}: proof: {}", Untrusted(why)));
    }
    notes
}

fn point(span: &PointSpan, point: &PointShown) -> Vec<String> {
    let stored = match point.is_whole {
        true => point.stored.to_string(),
        false => format!("+{}", point.stored),
    };
    vec![
        span.source.to_string(),
        point.point.to_string(),
        point.at.to_string(),
        point.lsn.map_or("-".to_owned(), |lsn| lsn.to_string()),
        age(point.age_s),
        stored,
        point.bytes.to_string(),
        proof(&point.proof),
    ]
}

fn word(proof: &PointProof) -> &'static str {
    match proof.state {
        ProofState::Failed => "FAILED",
        ProofState::None => "never",
        ProofState::Verified => "verified",
    }
}

/// Says when a point was proven and how long that took, or what was wrong.
fn proof(proof: &PointProof) -> String {
    let mut text = word(proof).to_owned();
    if let Some(at) = proof.at {
        text.push_str(&format!(" by the drill of {at}"));
    }
    match (&proof.why, proof.rto_s) {
        (Some(why), _) => text.push_str(&format!(": {}", Untrusted(why))),
        (None, Some(rto)) => text.push_str(&format!(", {rto:.1} s")),
        (None, None) => {}
    }
    if let Some(alarm) = &proof.alarm {
        text.push_str(&format!("; ALARM: {}", Untrusted(alarm)));
    }
    text
}

/// Returns an age in the largest unit that makes it at least two.
fn age(seconds: f64) -> String {
    const UNITS: [(&str, f64); 3] = [("d", 86_400.0), ("h", 3600.0), ("min", 60.0)];
    let unit = UNITS.iter().find(|(_, unit)| seconds >= 2.0 * unit);
    match unit {
        Some((name, unit)) => format!("{:.0} {name}", seconds / unit),
        None => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::{ByteCount, Lsn, Timestamp};
    use holdfast_vault::{LogHole, LogRange};

    use super::*;

    fn shown(state: ProofState, why: Option<&str>) -> PointShown {
        PointShown {
            point: "point-0123456789".parse().unwrap(),
            at: Timestamp(1_000_000),
            lsn: Some(Lsn(7)),
            age_s: 7200.0,
            bytes: ByteCount(4096),
            stored: ByteCount(512),
            is_whole: true,
            proof: PointProof {
                state,
                at: (state != ProofState::None).then_some(Timestamp(2_000_000)),
                rto_s: Some(1.5),
                reached: None,
                drills: 1,
                why: why.map(str::to_owned),
                alarm: None,
            },
            kept: None,
        }
    }

    fn spans() -> Vec<PointSpan> {
        let points = vec![
            shown(ProofState::Verified, None),
            shown(ProofState::None, None),
            shown(ProofState::Failed, Some("pages: 3 wrong")),
        ];
        vec![PointSpan {
            source: "prod".parse().unwrap(),
            kind: SpanKind::Log,
            log: Some(LogRange {
                timeline: 3,
                from_lsn: Lsn(7),
                to_lsn: Lsn(0x50),
                spooled: ByteCount(16),
                is_left: true,
                hole: Some(LogHole {
                    from_lsn: Lsn(0x50),
                    to_lsn: Lsn(0x60),
                    bytes: ByteCount(16),
                }),
            }),
            from: Timestamp(1_000_000),
            to: Timestamp(3_000_000),
            age_s: 200_000.0,
            bytes: ByteCount(1024),
            restored: ByteCount(4096),
            lag: Some(Lag {
                against: LagAgainst::LastHeard,
                bytes: Some(ByteCount(16)),
                seconds: Some(2.25),
                why: Some("ZS301 away".to_owned()),
            }),
            lag_s: Some(2.25),
            proof: points[2].proof.clone(),
            points,
        }]
    }

    #[test]
    fn holes_lag_and_every_proof_are_told() {
        let text = text(&spans(), NEWEST);
        for said in [
            "at least 16 B, 2.2 s",
            "ZS301 away",
            "spool alone",
            "--timeline 3",
            "missing on timeline 3, from 0/50 to 0/60",
            "verified by the drill of 1970-01-01T00:00:02",
            "never",
            "FAILED by the drill of 1970-01-01T00:00:02.000000Z: pages: 3 wrong",
            "2 d",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn older_points_are_left_out_and_counted() {
        let some = text(&spans(), 1);
        assert!(some.contains("2 older points"), "{some}");
        assert_eq!(some.matches("point-").count(), 1, "{some}");
        assert!(!text(&spans(), usize::MAX).contains("older points"));
    }
}
