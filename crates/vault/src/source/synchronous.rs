//! Synchronous mode: telling the source that a commit waits for the vault.

use holdfast_core::Lsn;
use holdfast_wire::pg::replication::{quote_identifier, quote_literal};
use serde::{Deserialize, Serialize};

use super::connection::APPLICATION_NAME;
use super::{Connection, Purpose, SourceError};
use crate::config::SourceConfig;

/// How far behind the stream may be when commits begin to wait for it, in bytes.
const CAUGHT_UP_BYTES: u64 = 1 << 20;

/// What was changed at the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synchronous {
    /// `synchronous_standby_names` before.
    pub before: String,
    /// And after.
    pub after: String,
}

/// Makes commits of the source wait for the vault; needs no restart.
///
/// It is done only while the vault's stream is connected and has caught up, so that no commit hangs.
///
/// # Errors
/// [`SourceError::Setting`] when the stream is not there, lags, or the present setting cannot be
/// extended without changing what it promises; nothing is then changed.
pub async fn enable_synchronous(config: &SourceConfig) -> Result<Synchronous, SourceError> {
    blocking(config, |connection| {
        caught_up(connection)?;
        let before = names(connection)?;
        if lists_vault(&before) {
            return Ok(Synchronous {
                after: before.clone(),
                before,
            });
        }
        let after = with_vault(&before)?;
        set(connection, &after)?;
        Ok(Synchronous { before, after })
    })
    .await
}

/// Lets commits of the source go on without the vault.
///
/// # Errors
/// [`SourceError`]; the setting is then as it was.
pub async fn disable_synchronous(config: &SourceConfig) -> Result<Synchronous, SourceError> {
    blocking(config, |connection| {
        let before = names(connection)?;
        let after = without_vault(&before)?;
        if before != after {
            set(connection, &after)?;
        }
        Ok(Synchronous { before, after })
    })
    .await
}

async fn blocking<F>(config: &SourceConfig, work: F) -> Result<Synchronous, SourceError>
where
    F: FnOnce(&mut Connection) -> Result<Synchronous, SourceError> + Send + 'static,
{
    let url = config.url.clone();
    tokio::task::spawn_blocking(move || work(&mut Connection::open(&url, Purpose::Query)?))
        .await
        .unwrap_or(Err(SourceError::Stopped {
            step: "change settings",
        }))
}

fn caught_up(connection: &mut Connection) -> Result<(), SourceError> {
    let reply = connection.query(
        &format!(
            "SELECT state, flush_lsn, pg_current_wal_flush_lsn() AS here FROM pg_stat_replication \
             WHERE application_name = {} ORDER BY flush_lsn DESC NULLS LAST LIMIT 1",
            quote_literal(APPLICATION_NAME)
        ),
        "look at the vault's stream",
    )?;
    let position = |column| {
        reply
            .value(column)
            .and_then(|text| text.parse::<Lsn>().ok())
    };
    let lag = match (
        reply.value("state"),
        position("flush_lsn"),
        position("here"),
    ) {
        (Some("streaming"), Some(flushed), Some(here)) => here.since(flushed),
        _ => {
            return Err(SourceError::Setting {
                what: "the vault's stream is not connected or has not caught up, so commits would hang".to_owned(),
                fix: "nothing was changed; start `holdfast up` and wait until `holdfast source list` says `streaming`".to_owned(),
            });
        }
    };
    if lag.0 > CAUGHT_UP_BYTES {
        return Err(SourceError::Setting {
            what: format!("the vault's stream is {lag} behind, so commits would wait for it"),
            fix: "nothing was changed; try again in a moment".to_owned(),
        });
    }
    Ok(())
}

fn names(connection: &mut Connection) -> Result<String, SourceError> {
    let reply = connection.query("SHOW synchronous_standby_names", "read settings")?;
    Ok(reply.single().unwrap_or_default().to_owned())
}

fn set(connection: &mut Connection, value: &str) -> Result<(), SourceError> {
    let sql = format!(
        "ALTER SYSTEM SET synchronous_standby_names = {}",
        quote_literal(value)
    );
    let by_hand = |error: SourceError| match error.sqlstate() {
        Some("42501") => SourceError::Setting {
            what: "the role may not change settings of the server".to_owned(),
            fix: format!("as a superuser: {}", alter(value)),
        },
        _ => error,
    };
    connection.query(&sql, "change settings").map_err(by_hand)?;
    connection
        .query("SELECT pg_reload_conf()", "reload settings")
        .map_err(by_hand)?;
    Ok(())
}

/// Returns the exact SQL that sets the names.
pub(super) fn alter(value: &str) -> String {
    format!(
        "ALTER SYSTEM SET synchronous_standby_names = {}; SELECT pg_reload_conf();",
        quote_literal(value)
    )
}

/// `FIRST n (names)` or `ANY n (names)`, taken apart.
struct Names {
    any: bool,
    count: u32,
    names: Vec<String>,
}

impl Names {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some(open) = text.find('(') else {
            let names = split(text);
            return Some(Self {
                any: false,
                count: 1,
                names,
            });
        };
        let (head, tail) = text.split_at_checked(open)?;
        let list = tail.strip_prefix('(')?.strip_suffix(')')?;
        let mut words = head.split_whitespace();
        let (any, count) = match (words.next()?, words.next()) {
            (word, Some(count)) if word.eq_ignore_ascii_case("first") => (false, count),
            (word, Some(count)) if word.eq_ignore_ascii_case("any") => (true, count),
            (count, None) => (false, count),
            _ => return None,
        };
        Some(Self {
            any,
            count: count.parse().ok()?,
            names: split(list),
        })
    }

    fn text(&self) -> String {
        if self.names.is_empty() {
            return String::new();
        }
        format!("FIRST {} ({})", self.count, self.names.join(", "))
    }
}

fn split(list: &str) -> Vec<String> {
    let names = list.split(',').map(|name| name.trim().to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

fn is_vault(name: &str) -> bool {
    name.trim_matches('"')
        .eq_ignore_ascii_case(APPLICATION_NAME)
}

/// Tells whether commits wait for the vault by name.
pub(super) fn lists_vault(text: &str) -> bool {
    Names::parse(text).is_some_and(|names| names.names.iter().any(|name| is_vault(name)))
}

/// Returns the setting with the vault in front and everything that was promised still promised.
pub(super) fn with_vault(text: &str) -> Result<String, SourceError> {
    let refuse = |what: &str| SourceError::Setting {
        what: format!(
            "synchronous_standby_names is `{}`, {what}",
            holdfast_core::Untrusted(text)
        ),
        fix: format!(
            "nothing was changed; write it by hand so that {} is always waited for",
            quote_identifier(APPLICATION_NAME)
        ),
    };
    let mut names = Names::parse(text).ok_or_else(|| refuse("which is not understood"))?;
    if names.any {
        return Err(refuse(
            "and `ANY` cannot promise to wait for one standby in particular",
        ));
    }
    names.count = if names.names.is_empty() {
        1
    } else {
        names.count.saturating_add(1)
    };
    names.names.insert(0, APPLICATION_NAME.to_owned());
    Ok(names.text())
}

fn without_vault(text: &str) -> Result<String, SourceError> {
    let mut names = Names::parse(text).ok_or_else(|| SourceError::Setting {
        what: "synchronous_standby_names is not understood".to_owned(),
        fix: format!("nothing was changed; take {APPLICATION_NAME} out of it by hand"),
    })?;
    let before = names.names.len();
    if !names.names.iter().any(|name| is_vault(name)) {
        return Ok(text.to_owned());
    }
    names.names.retain(|name| !is_vault(name));
    if names.any {
        let list = names.names.join(", ");
        let count = names
            .count
            .min(u32::try_from(names.names.len()).unwrap_or(1));
        return Ok(if list.is_empty() {
            list
        } else {
            format!("ANY {count} ({list})")
        });
    }
    if before > names.names.len() {
        names.count = names.count.saturating_sub(1).max(1);
    }
    Ok(names.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vault_is_added_without_weakening_what_was_promised() {
        let cases = [
            ("", "FIRST 1 (holdfast)", ""),
            ("a", "FIRST 2 (holdfast, a)", "FIRST 1 (a)"),
            (
                "a, \"b c\"",
                "FIRST 2 (holdfast, a, \"b c\")",
                "FIRST 1 (a, \"b c\")",
            ),
            (
                "2 (a, b, c)",
                "FIRST 3 (holdfast, a, b, c)",
                "FIRST 2 (a, b, c)",
            ),
            ("first 1 (*)", "FIRST 2 (holdfast, *)", "FIRST 1 (*)"),
        ];
        for (before, after, back) in cases {
            let with = with_vault(before).unwrap();
            assert_eq!(with, after);
            assert!(lists_vault(&with) && !lists_vault(before));
            assert_eq!(without_vault(&with).unwrap(), back);
        }
    }

    #[test]
    fn a_setting_that_cannot_be_extended_is_left_alone() {
        assert!(with_vault("ANY 1 (a, b)").is_err());
        assert!(with_vault("FIRST x (a)").is_err());
        assert_eq!(without_vault("ANY 1 (a, b)").unwrap(), "ANY 1 (a, b)");
        assert_eq!(without_vault("ANY 2 (a, holdfast)").unwrap(), "ANY 1 (a)");
    }
}
