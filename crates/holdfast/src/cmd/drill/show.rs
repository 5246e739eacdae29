//! A drill as people read it.

use holdfast_core::{CheckOutcome, DrillForm, DrillOf, DrillReport, RowCount, Untrusted};

use crate::report::table;

/// Returns how a drill ended, in a word.
pub(super) fn word(report: &DrillReport) -> &'static str {
    match (report.passed(), report.alarm()) {
        (true, None) => "verified",
        (true, Some(_)) => "verified, ALARM",
        (false, _) => "failed",
    }
}

/// Returns everything that a drill did and found.
pub(super) fn describe(report: &DrillReport) -> String {
    let details = &report.details;
    let mut text = format!(
        "{} {} at {}: {} in {:.1} s, up to {} ({})\n",
        report.source,
        word(report),
        report.drilled_at,
        report.restored,
        report.rto.as_secs_f64(),
        report.reached,
        report.covers_until,
    );
    if details.form == DrillForm::Mounted {
        text.push_str("its blocks were fetched as they were touched (mounted)\n");
    }
    if details.of == DrillOf::Older {
        text.push_str(&format!(
            "of the older point {}, brought to {}; it says nothing of the newest\n",
            report.point, details.target
        ));
    }
    let rows: Vec<Vec<String>> = report
        .checks
        .iter()
        .map(|check| {
            let outcome = match check.outcome {
                CheckOutcome::Alarm => "ALARM",
                CheckOutcome::Failed => "FAILED",
                CheckOutcome::NotRun => "not run",
                CheckOutcome::Passed => "passed",
            };
            vec![outcome.to_owned(), check.name.clone(), check.detail.clone()]
        })
        .collect();
    text.push_str(&table(&["RESULT", "CHECK", "DETAIL"], &rows));
    if !details.changes.is_empty() {
        let rows: Vec<Vec<String>> = details
            .changes
            .iter()
            .map(|change| {
                vec![
                    Untrusted(&change.table).to_string(),
                    RowCount(change.before).to_string(),
                    change
                        .now
                        .map_or_else(|| "gone".to_owned(), |now| RowCount(now).to_string()),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(&["TABLE", "ROWS BEFORE", "NOW"], &rows));
    }
    if let Some(before) = &details.before_loss {
        text.push_str(&format!(
            "\nbefore the loss: {} was proven at {} up to {} ({})\n  holdfast restore {} --at {} --into DIR\n",
            before.point,
            before.drilled_at,
            before.reached,
            before.covers_until,
            report.source,
            before.reached,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_core::{ByteCount, Check, DrillDetails, Lsn, PointId, TableChange, Timestamp};

    use super::*;

    #[test]
    fn a_loss_is_shown_with_the_way_back_from_before_it() {
        let mut report = DrillReport {
            source: "prod".parse().unwrap(),
            system_identifier: 7,
            point: PointId::from_random([1; 10]),
            timeline: 1,
            reached: Lsn(0x0200_0000),
            covers_until: Timestamp(1_000_000),
            drilled_at: Timestamp(2_000_000),
            rto: Duration::from_secs(2),
            restored: ByteCount(1 << 20),
            checks: vec![Check {
                name: "server takes a write".to_owned(),
                outcome: CheckOutcome::Passed,
                detail: String::new(),
            }],
            details: DrillDetails::new(DrillOf::Newest, "latest"),
        };
        assert!(describe(&report).starts_with("prod verified at 1970"));
        let mut before = report.proven();
        before.reached = Lsn(0x0100_0000);
        report.details.before_loss = Some(before);
        report.details.changes = vec![TableChange {
            table: "a.public.orders".to_owned(),
            before: 10_000,
            now: None,
        }];
        report.checks.push(Check {
            name: "rows".to_owned(),
            outcome: CheckOutcome::Alarm,
            detail: "most are gone".to_owned(),
        });
        let text = describe(&report);
        for part in [
            "prod verified, ALARM",
            "ALARM",
            "a.public.orders",
            "10_000",
            "gone",
            "holdfast restore prod --at 0/1000000 --into DIR",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}
