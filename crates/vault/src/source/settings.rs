//! What a source must be told before it can be captured: planned first, shown, and performed only then.

use holdfast_core::{Lsn, Secret, SourceName};
use holdfast_wire::pg::replication::{quote_identifier, quote_literal};
use serde::{Deserialize, Serialize};

use super::{Connection, ConnectionUrl, MAJOR_MAX, MAJOR_MIN, Purpose, Reply, SourceError};
use crate::config::{AckMode, SourceConfig};

const STEP: &str = "plan settings";

/// One statement of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// What is run; a password is left out of it.
    pub sql: String,
    /// Why.
    pub why: String,
    /// It has effect only after a restart of the server.
    pub restart: bool,
}

/// What would be changed at a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsPlan {
    /// What SQL can do, in order.
    pub statements: Vec<Statement>,
    /// What only a person can do, with the exact line or command.
    pub by_hand: Vec<String>,
}

impl SettingsPlan {
    /// Tells whether the source is as it should be.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty() && self.by_hand.is_empty()
    }

    /// Tells whether the server must be restarted afterwards.
    pub fn needs_restart(&self) -> bool {
        self.statements.iter().any(|statement| statement.restart)
    }

    /// Returns the plan as a script for `psql`.
    pub fn script(&self) -> String {
        let mut text = String::new();
        for statement in &self.statements {
            text.push_str(&format!("-- {}\n{};\n", statement.why, statement.sql));
        }
        if self.needs_restart() {
            text.push_str("-- then restart the server\n");
        }
        for line in &self.by_hand {
            text.push_str(&format!("-- by hand: {line}\n"));
        }
        text
    }
}

/// Looks at a source over `admin` and says what it must be told; changes nothing.
///
/// # Errors
/// [`SourceError`] when it cannot be asked, or has a version that is not supported.
pub async fn plan_settings(
    config: &SourceConfig,
    admin: &ConnectionUrl,
) -> Result<SettingsPlan, SourceError> {
    let (config, admin) = (config.clone(), admin.clone());
    let work = move || {
        let mut connection = Connection::open(&admin, Purpose::Query)?;
        plan(&config, &mut connection)
    };
    blocking(work).await
}

/// Performs a plan's statements over `admin`, in order; returns how many were performed.
///
/// The password of the vault's role, where the plan makes that, is taken from `config`.
///
/// # Errors
/// [`SourceError`] of the first statement that is refused, with what is left to do as its hint; those
/// before it stay performed, each is harmless by itself.
pub async fn apply_settings(
    config: &SourceConfig,
    admin: &ConnectionUrl,
    plan: &SettingsPlan,
) -> Result<usize, SourceError> {
    let (config, admin, plan) = (config.clone(), admin.clone(), plan.clone());
    let work = move || {
        let mut connection = Connection::open(&admin, Purpose::Query)?;
        for (done, statement) in plan.statements.iter().enumerate() {
            let sql = with_password(&statement.sql, config.url.password.as_ref());
            connection.query(&sql, "change settings").map_err(|error| {
                let left: Vec<&str> = plan
                    .statements
                    .iter()
                    .skip(done)
                    .map(|s| s.sql.as_str())
                    .collect();
                SourceError::Setting {
                    what: format!(
                        "`{}` is refused after {done} of {} were done: {}",
                        statement.sql,
                        plan.statements.len(),
                        holdfast_core::ErrorChain(&error)
                    ),
                    fix: format!("as a superuser: {};", left.join("; ")),
                }
            })?;
        }
        Ok(plan.statements.len())
    };
    blocking(work).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let stopped = Err(SourceError::Stopped { step: STEP });
    tokio::task::spawn_blocking(work).await.unwrap_or(stopped)
}

/// What stands for the password in a plan that is shown.
const PASSWORD: &str = "'…'";

fn with_password(sql: &str, password: Option<&Secret>) -> String {
    let password = password.map_or(String::new(), |secret| quote_literal(secret.expose()));
    sql.replace(PASSWORD, &password)
}

fn plan(config: &SourceConfig, sql: &mut Connection) -> Result<SettingsPlan, SourceError> {
    let major = sql.major();
    if !(MAJOR_MIN..=MAJOR_MAX).contains(&major) {
        return Err(SourceError::Version { major });
    }
    let slot = super::slot_name(&config.name);
    let slots = super::slot_names(&config.name);
    let facts = sql.query(&facts_of(&config.url.user, &slots), STEP)?;
    let fact = |name: &str| facts.value(name).unwrap_or_default().to_owned();
    let mut plan = SettingsPlan::default();
    role(config, &facts, &mut plan);
    let mut set = |name: &str, value: &str, why: &str, restart: bool| {
        plan.statements.push(Statement {
            sql: format!("ALTER SYSTEM SET {name} = {}", quote_literal(value)),
            why: why.to_owned(),
            restart,
        });
    };
    if !matches!(fact("wal_level").as_str(), "replica" | "logical") {
        set(
            "wal_level",
            "replica",
            "the log must be complete enough to be replayed",
            true,
        );
    }
    for (name, used, want) in [
        ("max_wal_senders", "senders_used", 2),
        ("max_replication_slots", "slots_used", 1),
    ] {
        let number = |name: &str| fact(name).parse::<i64>().unwrap_or(0);
        let (limit, used) = (number(name), number(used));
        if limit.saturating_sub(used) < want {
            let value = limit.max(used).saturating_add(want).to_string();
            set(
                name,
                &value,
                "the vault needs room: a stream and a base backup, and a slot",
                true,
            );
        }
    }
    if fact("full_page_writes") != "on" {
        set(
            "full_page_writes",
            "on",
            "without it a base backup can contain torn pages",
            false,
        );
    }
    if fact("max_slot_wal_keep_size") == "-1" {
        let why = "a vault that is away must not fill the server's disk";
        set("max_slot_wal_keep_size", "10GB", why, false);
    }
    if !matches!(fact("idle_timeout").as_str(), "" | "0") {
        let why = "the slot must outlive a vault that is away; its size is limited already";
        set("idle_replication_slot_timeout", "0", why, false);
    }
    if config.mode == AckMode::Synchronous && fact("wal_sender_timeout") == "0" {
        let why = "commits wait for a stream that is dead until the server notices";
        set("wal_sender_timeout", "60s", why, false);
    }
    finish(config, &facts, &slot, &mut plan);
    Ok(plan)
}

/// Adds what makes the settings effective, and what comes when they are.
fn finish(config: &SourceConfig, facts: &Reply, slot: &str, plan: &mut SettingsPlan) {
    let is_set = |statement: &Statement| statement.sql.starts_with("ALTER SYSTEM");
    if plan.statements.iter().any(is_set) {
        plan.statements.push(Statement {
            sql: "SELECT pg_reload_conf()".to_owned(),
            why: "what needs no restart has effect at once".to_owned(),
            restart: false,
        });
    }
    // Before a restart the server may have no room for it; the vault makes it by itself then.
    if facts.value("slot") == Some("f") && !plan.needs_restart() {
        plan.statements.push(Statement {
            sql: format!(
                "SELECT pg_create_physical_replication_slot({}, true)",
                quote_literal(slot)
            ),
            why:
                "from here on the server keeps its log until the vault has it; start the vault soon"
                    .to_owned(),
            restart: false,
        });
    }
    let url = &config.url;
    let admitted = Connection::open(url, Purpose::Replication);
    if let Err(SourceError::Replication { source, .. }) = admitted
        && source.sqlstate == "28000"
    {
        let kind = if url.ssl == super::SslMode::Disable {
            "host"
        } else {
            "hostssl"
        };
        let file = facts.value("hba_file").unwrap_or("pg_hba.conf");
        plan.by_hand.push(format!(
            "add the line `{kind}  replication  {}  all  scram-sha-256` to {file}, then SELECT pg_reload_conf()",
            quote_identifier(&url.user)
        ));
    }
    if facts.value("data_checksums") == Some("off") {
        plan.by_hand.push("without data checksums drills cannot tell a rotten page from a good one; `pg_checksums --enable` needs a stopped server".to_owned());
    }
}

fn role(config: &SourceConfig, facts: &Reply, plan: &mut SettingsPlan) {
    let user = quote_identifier(&config.url.user);
    let (sql, why) = match facts.value("replication") {
        Some("t") => return,
        Some(_) => (
            format!("ALTER ROLE {user} REPLICATION"),
            "the vault's role must be allowed to stream",
        ),
        None => (
            format!("CREATE ROLE {user} LOGIN REPLICATION PASSWORD {PASSWORD}"),
            "the vault's role, which can stream and nothing else",
        ),
    };
    plan.statements.push(Statement {
        sql,
        why: why.to_owned(),
        restart: false,
    });
}

fn facts_of(user: &str, slots: &str) -> String {
    let user = quote_literal(user);
    format!(
        "SELECT (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = {user}) AS replication, \
         EXISTS (SELECT FROM pg_replication_slots WHERE slot_name ~ {slots}) AS slot, \
         current_setting('wal_level') AS wal_level, \
         current_setting('max_wal_senders') AS max_wal_senders, \
         (SELECT count(*) FROM pg_stat_replication WHERE application_name IS DISTINCT FROM 'holdfast') AS senders_used, \
         current_setting('max_replication_slots') AS max_replication_slots, \
         (SELECT count(*) FROM pg_replication_slots WHERE slot_name !~ {slots}) AS slots_used, \
         current_setting('full_page_writes') AS full_page_writes, \
         current_setting('max_slot_wal_keep_size') AS max_slot_wal_keep_size, \
         (SELECT setting FROM pg_settings WHERE name = 'idle_replication_slot_timeout') AS idle_timeout, \
         (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout') AS wal_sender_timeout, \
         (SELECT setting FROM pg_settings WHERE name = 'hba_file') AS hba_file, \
         current_setting('data_checksums') AS data_checksums"
    )
}

/// What the log of a source has to do with how long a vault may be away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogRate {
    /// Bytes of log a second, on the average since the server began to count.
    pub(super) bytes: u64,
}

impl LogRate {
    /// Asks a server of version 14 or later; older ones do not count.
    pub(super) fn ask(sql: &mut Connection) -> Option<Self> {
        const RATE: &str = "SELECT (wal_bytes / greatest(extract(epoch FROM now() - stats_reset), 60))::bigint FROM pg_stat_wal";
        if sql.major() < 14 {
            return None;
        }
        let reply = sql.query(RATE, STEP).ok()?;
        let bytes = reply.single()?.parse().ok()?;
        Some(Self { bytes })
    }

    /// Returns how many minutes of log fit into so many bytes.
    pub(super) fn minutes(self, bytes: u64) -> Option<u64> {
        bytes.checked_div(self.bytes).map(|seconds| seconds / 60)
    }
}

/// What is known of the vault's slot.
pub(super) struct SlotFound {
    /// Its name; `None` when there is no slot.
    pub(super) name: Option<String>,
    /// Slots of the vault's names beside it.
    pub(super) others: Option<String>,
    /// `reserved`, `extended`, `unreserved` or `lost`; `None` when there is no slot.
    pub(super) status: Option<String>,
    /// How far the source's log is ahead of it.
    pub(super) behind: u64,
}

impl SlotFound {
    /// Asks for a source's slot: the one that the vault streams from, else the one of the highest number,
    /// because those before it were left to others.
    pub(super) fn ask(sql: &mut Connection, source: &SourceName) -> Option<Self> {
        let (first, names) = (
            quote_literal(&super::slot_name(source)),
            super::slot_names(source),
        );
        let question = format!(
            "WITH ours AS (SELECT s.*, coalesce(r.application_name = 'holdfast', false) AS is_used \
             FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid \
             WHERE s.slot_name ~ {names}), \
             best AS (SELECT * FROM ours ORDER BY is_used AND slot_name = {first} DESC, is_used DESC, \
             length(slot_name) DESC, slot_name DESC LIMIT 1) \
             SELECT best.slot_name, best.wal_status, best.restart_lsn::text AS restart, \
             (SELECT string_agg(slot_name, ', ' ORDER BY slot_name) FROM ours WHERE slot_name <> best.slot_name) AS others, \
             (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END)::text AS here \
             FROM (SELECT 1) one LEFT JOIN best ON true"
        );
        let reply = sql.query(&question, STEP).ok()?;
        let position = |name| reply.value(name).and_then(|text| text.parse::<Lsn>().ok());
        let behind = position("here").zip(position("restart"));
        Some(Self {
            name: reply.value("slot_name").map(str::to_owned),
            others: reply.value("others").map(str::to_owned),
            status: reply.value("wal_status").map(str::to_owned),
            behind: behind.map_or(0, |(here, restart)| here.since(restart).0),
        })
    }
}
