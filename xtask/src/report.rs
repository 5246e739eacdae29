//! How chores print durations.

use std::time::Duration;

/// Writes a duration the way the summary shows it: `0.4 s`, `71 s`, `4 min 02 s`.
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{whole} s"),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_for_people() {
        let rows = [(440, "0.4 s"), (71_900, "71 s"), (242_000, "4 min 02 s")];
        for (milliseconds, text) in rows {
            assert_eq!(seconds(Duration::from_millis(milliseconds)), text);
        }
    }
}
