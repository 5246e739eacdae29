//! Rows per table, against those of the drill before: quiet destruction shows here and nowhere else.

use std::collections::BTreeMap;

use holdfast_core::{Check, CheckOutcome, RowCount, TableChange, Untrusted};

use super::tally::check;
use crate::limits;

/// Rows per table, named `database.schema.table`.
pub(super) type Rows = BTreeMap<String, u64>;

/// The check that compares.
pub(super) const COMPARED: &str = "rows compared with the drill before";

/// What became of the tables since the drill before.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) check: Check,
    /// Those that changed most, largest first.
    pub(super) changes: Vec<TableChange>,
    /// Those that lost most of their rows.
    pub(super) losses: Vec<TableChange>,
}

/// Which tables were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// All: one that was not counted is gone.
    Complete,
    /// Some: nothing is known of the others.
    Partial,
}

/// Tells whether a table of so many rows lost most of them, and had enough to be looked at.
pub(super) fn is_lost(before: u64, now: u64) -> bool {
    before >= limits::DRILL_ROWS_MIN && now < before / 2
}

/// Compares the rows of each table with those of the drill before.
///
/// A table that lost more than half of at least [`limits::DRILL_ROWS_MIN`] rows raises an alarm, whatever
/// the reason. The point comes back all the same, so that it is no failure.
pub(super) fn compare(before: Option<&Rows>, now: &Rows, count: Count) -> Compared {
    let Some(before) = before else {
        let detail = "there is no drill before";
        return Compared {
            check: check(COMPARED, CheckOutcome::NotRun, detail),
            changes: Vec::new(),
            losses: Vec::new(),
        };
    };
    let (mut compared, mut left) = (0_u64, 0_u64);
    let (mut changes, mut losses) = (Vec::new(), Vec::new());
    for (table, &before) in before {
        let now = match (now.get(table), count) {
            (Some(now), _) => Some(*now),
            (None, Count::Complete) => None,
            (None, Count::Partial) => {
                left = left.saturating_add(1);
                continue;
            }
        };
        compared = compared.saturating_add(1);
        let change = TableChange {
            table: table.clone(),
            before,
            now,
        };
        if is_lost(before, now.unwrap_or(0)) {
            losses.push(change.clone());
        }
        if now != Some(before) {
            changes.push(change);
        }
    }
    let largest =
        |change: &TableChange| std::cmp::Reverse(change.now.unwrap_or(0).abs_diff(change.before));
    changes.sort_by_key(largest);
    losses.sort_by_key(largest);
    let check = told((compared, left), &changes, &losses);
    Compared {
        check,
        changes: changes.into_iter().take(limits::DRILL_CHANGES).collect(),
        losses: losses.into_iter().take(limits::DRILL_CHANGES).collect(),
    }
}

fn told((compared, left): (u64, u64), changes: &[TableChange], losses: &[TableChange]) -> Check {
    let mut numbers = format!("{compared} compared, {} changed", changes.len());
    if left > 0 {
        numbers = format!("{numbers}, {left} not counted this time");
    }
    if losses.is_empty() {
        let outcome = match compared {
            0 => CheckOutcome::NotRun,
            _ => CheckOutcome::Passed,
        };
        return check(COMPARED, outcome, numbers);
    }
    let named = losses.iter().take(limits::DRILL_FINDINGS);
    let mut text: Vec<String> = named.map(lost).collect();
    let more = losses.len().saturating_sub(text.len());
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    check(
        COMPARED,
        CheckOutcome::Alarm,
        format!("{} ({numbers})", text.join("; ")),
    )
}

fn lost(change: &TableChange) -> String {
    let (table, before) = (Untrusted(&change.table), RowCount(change.before));
    match change.now {
        Some(now) => format!("{table}: {before} rows before, {} now", RowCount(now)),
        None => format!("{table}: {before} rows before, the table is gone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[(&str, u64)]) -> Rows {
        list.iter()
            .map(|(name, rows)| ((*name).to_owned(), *rows))
            .collect()
    }

    #[test]
    fn a_table_that_lost_most_of_its_rows_is_named_with_numbers() {
        let before = rows(&[
            ("a.public.orders", 1_000),
            ("a.public.small", 9),
            ("a.public.gone", 200),
            ("a.public.less", 200),
        ]);
        let now = rows(&[
            ("a.public.orders", 499),
            ("a.public.small", 0),
            ("a.public.new", 0),
            ("a.public.less", 100),
        ]);
        let found = compare(Some(&before), &now, Count::Complete);
        assert_eq!(found.check.outcome, CheckOutcome::Alarm);
        let detail = &found.check.detail;
        for part in [
            "a.public.orders: 1_000 rows before, 499 now",
            "a.public.gone: 200 rows before, the table is gone",
            "4 compared, 4 changed",
        ] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        assert!(
            !detail.contains("small") && !detail.contains("less"),
            "{detail}"
        );
        let lost: Vec<&str> = found.losses.iter().map(|one| one.table.as_str()).collect();
        assert_eq!(lost, ["a.public.orders", "a.public.gone"]);
        assert_eq!(found.changes.len(), 4);
        // What was not counted says nothing about what was lost.
        let now = rows(&[("a.public.orders", 500)]);
        let found = compare(Some(&before), &now, Count::Partial);
        assert_eq!(found.check.outcome, CheckOutcome::Passed, "{found:?}");
        assert!(found.check.detail.contains("3 not counted"), "{found:?}");
        let found = compare(None, &now, Count::Complete);
        assert_eq!(found.check.outcome, CheckOutcome::NotRun);
    }
}
