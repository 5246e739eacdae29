//! What a rehearsal measured, for a person who decides.

use std::time::Duration;

use holdfast_core::{Confinement, Evidence, Rehearsal, RehearsalState, Untrusted};
use holdfast_guard::hold::HoldShown;

/// Lines of one kind that are printed; `--json` has all that are kept.
const LINES_MAX: usize = 40;

/// Says what somebody should know who approves this now.
pub fn warning(shown: &HoldShown) -> Option<String> {
    let again = "what is measured when it runs again must be what is shown, or nothing happens";
    match shown.rehearsal.as_ref()? {
        RehearsalState::Pending { .. } | RehearsalState::Running { .. } => {
            Some(format!("warning: its rehearsal has not ended; {again}"))
        }
        RehearsalState::Impossible { .. } => {
            Some(format!("warning: it could not be rehearsed; {again}"))
        }
        RehearsalState::Done { rehearsal } => rehearsal
            .failed
            .as_ref()
            .map(|_| format!("warning: it failed in its rehearsal; {again}")),
    }
}

/// Describes how a rehearsal stands, and what it measured.
pub fn describe(state: &RehearsalState, evidence: &Evidence) -> String {
    match state {
        RehearsalState::Pending { since } => format!("  rehearsal pending since {since}\n"),
        RehearsalState::Running { since } => format!("  rehearsal running since {since}\n"),
        RehearsalState::Impossible { why, at } => {
            format!("  rehearsal impossible ({at}): {}\n", Untrusted(why))
        }
        RehearsalState::Done { rehearsal } => measured(rehearsal, evidence),
    }
}

fn measured(rehearsal: &Rehearsal, evidence: &Evidence) -> String {
    let mut text = String::new();
    let mut line = |what: &str, said: String| text.push_str(&format!("  {what:<9} {said}\n"));
    let confined = match rehearsal.confinement {
        Confinement::Advisory => "advisory",
        Confinement::Enforced => "enforced",
    };
    let took: Duration = rehearsal.steps.iter().map(|step| step.took).sum();
    line(
        "rehearsal",
        format!(
            "done at {} on a clone ({}, confinement {confined}) at position {}; it took {}",
            rehearsal.at,
            rehearsal.form,
            rehearsal.position,
            seconds(took)
        ),
    );
    if let Some(failed) = &rehearsal.failed {
        let (code, said) = (Untrusted(&failed.code), Untrusted(&failed.message));
        line(
            "failed",
            format!("step {}: {code} {said}; nothing after it ran", failed.step),
        );
    }
    for table in rehearsal.rows.iter().take(LINES_MAX) {
        let (inserted, updated, deleted) = (table.inserted, table.updated, table.deleted);
        let name = Untrusted(&table.table);
        let said = format!("{name}: {inserted} inserted, {updated} updated, {deleted} deleted");
        line("rows", said);
    }
    for object in rehearsal.objects.iter().take(LINES_MAX) {
        let rows = object
            .rows
            .map_or_else(String::new, |rows| format!(" with {rows} rows"));
        let (kind, name) = (&object.kind, Untrusted(&object.name));
        line(object.fate.word(), format!("{kind} {name}{rows}"));
    }
    for lock in rehearsal.locks.iter().take(LINES_MAX) {
        let (relation, held) = (Untrusted(&lock.relation), seconds(lock.held));
        line("lock", format!("{relation}: {} for {held}", lock.mode));
    }
    let beyond = |kept: usize, more: u64| {
        let kept = u64::try_from(kept.saturating_sub(LINES_MAX)).unwrap_or(u64::MAX);
        kept.saturating_add(more)
    };
    for (what, more) in [
        (
            "objects",
            beyond(rehearsal.objects.len(), rehearsal.objects_more),
        ),
        ("locks", beyond(rehearsal.locks.len(), rehearsal.locks_more)),
        ("tables with rows", beyond(rehearsal.rows.len(), 0)),
    ] {
        if more > 0 {
            line("more", format!("{more} further {what}"));
        }
    }
    for differs in rehearsal.differs_from(evidence) {
        line("differs", Untrusted(&differs).to_string());
    }
    for note in &rehearsal.notes {
        line("note", Untrusted(note).to_string());
    }
    text
}

fn seconds(took: Duration) -> String {
    format!("{:.3} s", took.as_secs_f64())
}
