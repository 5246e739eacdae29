//! What the preflight says of slots: how long a vault may be away, and whether it was too long.

use holdfast_core::ByteCount;

use super::{Check, Finding, RequirementState, fact, wished};
use crate::config::AckMode;
use crate::source::settings::{LogRate, SlotFound};
use crate::source::{Connection, Reply, slot_name};

/// A vault that may be away for less than this, in minutes, is mentioned.
const AWAY_MINUTES: u64 = 60;
/// Where the rate of the log is not known: less than this, in bytes, is mentioned.
const KEEP_BYTES: u64 = 1 << 30;

impl Check<'_> {
    pub(super) fn slot(&mut self, facts: &Reply, sql: &mut Connection) {
        self.keep_size(facts, LogRate::ask(sql));
        self.other_limits(facts);
        let Some(found) = SlotFound::ask(sql, &self.config.name) else {
            return;
        };
        let name = found.name.unwrap_or_else(|| slot_name(&self.config.name));
        if let Some(others) = found.others {
            self.add(
                "other slots",
                Finding {
                    state: RequirementState::Warning,
                    found: others,
                    wanted: "one slot of the vault's: what nobody streams from keeps log at the source",
                    fix: "find out who made them; SELECT pg_drop_replication_slot('NAME'); for what nobody needs".to_owned(),
                },
            );
        }
        let behind = ByteCount(found.behind);
        let (state, text) = match found.status.as_deref() {
            None => (
                RequirementState::Ok,
                "not made yet: the vault makes it".to_owned(),
            ),
            Some("lost") => (
                RequirementState::Warning,
                "lost: the source no longer keeps the log that the vault needs".to_owned(),
            ),
            Some(status @ "unreserved") => (
                RequirementState::Warning,
                format!("{status}, {behind} behind: it will be lost at the next checkpoint"),
            ),
            Some(status) => (RequirementState::Ok, format!("{status}, {behind} behind")),
        };
        self.add(
            "slot",
            Finding {
                state,
                found: format!("{name}: {text}"),
                wanted: "a slot that keeps the log until the vault has it",
                fix: "start the vault: it catches up, or makes a new slot and takes a new base by itself; older restore points stay".to_owned(),
            },
        );
    }

    /// `max_slot_wal_keep_size`: without it a vault that is down fills the source's disk; with little
    /// of it the slot is soon lost.
    fn keep_size(&mut self, facts: &Reply, rate: Option<LogRate>) {
        let text = fact(facts, "max_slot_wal_keep_size");
        let Some(bytes) = text.parse::<u64>().ok().map(|mebibytes| mebibytes << 20) else {
            self.add(
                "max_slot_wal_keep_size",
                Finding {
                    state: RequirementState::Warning,
                    found: "unlimited: a vault that is away fills the source's disk".to_owned(),
                    wanted: "a limit below what the disk has free; beyond it the slot is lost, and the vault takes a new base when it is back",
                    fix: "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf();".to_owned(),
                },
            );
            return;
        };
        let minutes = rate.and_then(|rate| rate.minutes(bytes));
        let found = match minutes {
            Some(minutes) if minutes < 2 * AWAY_MINUTES => format!(
                "{}: at this server's average the vault may be away for {minutes} minutes",
                ByteCount(bytes)
            ),
            Some(minutes) => format!(
                "{}: at this server's average the vault may be away for {} hours",
                ByteCount(bytes),
                minutes / 60
            ),
            None => ByteCount(bytes).to_string(),
        };
        let is_enough = minutes.map_or(bytes >= KEEP_BYTES, |minutes| minutes >= AWAY_MINUTES);
        self.add(
            "max_slot_wal_keep_size",
            Finding {
                state: wished(is_enough),
                found,
                wanted: "enough for the time that a vault may be away; when it is longer, the vault takes a new base",
                fix: "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf();".to_owned(),
            },
        );
    }

    fn other_limits(&mut self, facts: &Reply) {
        let keep = fact(facts, "wal_keep_size");
        let found = match keep {
            "0" => "0: only the slot keeps log for the vault".to_owned(),
            _ => format!(
                "{keep} MB beside the slot: what a lost slot can still be healed from without a new base"
            ),
        };
        self.ok("wal_keep_size", found);
        let timeout = fact(facts, "wal_sender_timeout");
        let seconds = timeout.parse::<u64>().unwrap_or(0) / 1000;
        let is_good = match self.config.mode {
            AckMode::Asynchronous => seconds == 0 || seconds >= 5,
            AckMode::Synchronous => (5..=120).contains(&seconds),
        };
        self.add(
            "wal_sender_timeout",
            Finding {
                state: wished(is_good),
                found: format!("{seconds} s"),
                wanted: "a minute or so: with 0 the source never notices a dead stream, and commits that wait for it hang; with very little a slow network breaks it",
                fix: "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();".to_owned(),
            },
        );
        let idle = fact(facts, "idle_timeout");
        if !matches!(idle, "" | "0") {
            self.add(
                "idle_replication_slot_timeout",
                Finding {
                    state: RequirementState::Warning,
                    found: idle.to_owned(),
                    wanted: "0, so that the slot outlives a vault that is away; max_slot_wal_keep_size limits it",
                    fix: "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();".to_owned(),
                },
            );
        }
    }
}
