//! What `before:ACTION` means: looked up in the ledgers of both halves.

use std::time::Duration;

use holdfast_core::ledger::Entry;
use holdfast_core::{ActionId, Lsn, SourceName, Timestamp};
use holdfast_store::ledger;
use holdfast_vault::RestoreTarget;

use crate::config::Config;
use crate::report::Failure;
use crate::wiring::Half;

/// How long after guard's permission the destruction may stand in the log.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(300);
/// How far two clocks may be apart.
const CLOCKS_DIFFER: Duration = Duration::from_secs(5);

/// What the ledgers say about one action.
#[derive(Debug, Default)]
struct Found {
    /// When guard permitted it.
    permitted: Option<Timestamp>,
    /// Destructions seen in the log of the source: when, and the position before.
    seen: Vec<(Timestamp, Lsn)>,
    /// The position before it, when the vault itself named the action.
    before: Option<Lsn>,
}

/// Reads a target; an action that guard permitted becomes the position before it in the log, or the
/// time at which it was permitted when the log shows nothing.
///
/// # Errors
/// When the text is no target, or a ledger does not verify.
pub fn resolve(config: &Config, source: &SourceName, text: &str) -> Result<RestoreTarget, Failure> {
    let target: RestoreTarget = text.parse::<RestoreTarget>()?;
    let RestoreTarget::Before(action) = &target else {
        return Ok(target);
    };
    let mut found = Found::default();
    for half in Half::ALL {
        let folder = half.ledger(config);
        if folder.join(ledger::FILE).exists() {
            ledger::verify(&folder, &half.public_key(config)?, |entry| {
                note(&mut found, entry, action, source);
            })?;
        }
    }
    Ok(choose(&found).unwrap_or(target))
}

fn note(found: &mut Found, entry: &Entry, action: &ActionId, source: &SourceName) {
    let draft = &entry.draft;
    if draft.kind == "source.destruction_seen" && draft.source.as_ref() == Some(source) {
        let text = |key: &str| draft.body.get(key).and_then(|value| value.as_str());
        let before: Option<Lsn> = text("before_lsn").and_then(|lsn| lsn.parse().ok());
        let at = text("commit_time").and_then(|time| time.parse().ok());
        if let Some(before) = before {
            if draft.action.as_ref() == Some(action) {
                found.before = Some(before);
            }
            found.seen.push((at.unwrap_or(draft.at), before));
        }
    }
    if draft.kind == "action.permitted" && draft.action.as_ref() == Some(action) {
        found.permitted = Some(draft.at);
    }
}

fn choose(found: &Found) -> Option<RestoreTarget> {
    if let Some(before) = found.before {
        return Some(RestoreTarget::BeforeLsn(before));
    }
    let permitted = found.permitted?;
    let (from, to) = (
        permitted.minus(CLOCKS_DIFFER),
        permitted.plus(FOLLOWS_WITHIN),
    );
    let after = |(at, _): &&(Timestamp, Lsn)| *at >= from && *at <= to;
    let first = found.seen.iter().filter(after).min_by_key(|(at, _)| *at);
    Some(match first {
        Some((_, before)) => RestoreTarget::BeforeLsn(*before),
        None => RestoreTarget::Time(permitted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_asked_before_the_clock() {
        let at = |seconds: i64| Timestamp(seconds * 1_000_000);
        let seen = vec![(at(50), Lsn(5)), (at(101), Lsn(7)), (at(102), Lsn(8))];
        let both = Found {
            permitted: Some(at(100)),
            seen: seen.clone(),
            before: None,
        };
        assert_eq!(choose(&both), Some(RestoreTarget::BeforeLsn(Lsn(7))));
        let clock = Found {
            permitted: Some(at(2000)),
            seen: seen.clone(),
            before: None,
        };
        assert_eq!(choose(&clock), Some(RestoreTarget::Time(at(2000))));
        let named = Found {
            permitted: None,
            seen,
            before: Some(Lsn(8)),
        };
        assert_eq!(choose(&named), Some(RestoreTarget::BeforeLsn(Lsn(8))));
        assert_eq!(choose(&Found::default()), None);
    }
}
