//! The preflight: everything a source must offer, with the exact command for what it lacks.

use std::fmt;

use holdfast_core::{Coded, ErrorChain, SourceName};
use holdfast_wire::pg::replication::quote_identifier;
use serde::{Deserialize, Serialize};

mod slot;

use super::{Connection, ConnectionUrl, Purpose, Reply, SourceError};
use crate::config::{AckAt, AckMode, SourceConfig};

/// The oldest major version that is understood: the first whose base backups have a manifest.
pub(crate) const MAJOR_MIN: u32 = 13;
/// The newest major version whose WAL is known.
pub(crate) const MAJOR_MAX: u32 = 18;

/// How one requirement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequirementState {
    /// The vault cannot work until this is mended.
    Missing,
    /// As it should be.
    Ok,
    /// It works, and something could be better.
    Warning,
}

/// One thing that a source must or should offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// What it is, such as `wal_level`.
    pub name: String,
    /// How it stands.
    pub state: RequirementState,
    /// What was found.
    pub found: String,
    /// What is wanted.
    pub wanted: String,
    /// The exact command or line that mends it; empty when nothing is to be done.
    pub fix: String,
    /// The code of the error that it would cause, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What the preflight found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Which source.
    pub source: SourceName,
    /// Where it is, without the password.
    pub address: String,
    /// PostgreSQL's major version, once known.
    pub major: Option<u32>,
    /// PostgreSQL's system identifier, once known.
    pub system_identifier: Option<u64>,
    /// Everything that was looked at, in order.
    pub requirements: Vec<Requirement>,
}

impl CheckReport {
    /// Tells whether nothing is missing; warnings are allowed.
    pub fn is_ready(&self) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.state != RequirementState::Missing)
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} at {}", self.source, self.address)?;
        for r in &self.requirements {
            let mark = match r.state {
                RequirementState::Missing => "MISSING",
                RequirementState::Ok => "ok",
                RequirementState::Warning => "warning",
            };
            writeln!(f, "  {mark:<8} {}: {}", r.name, r.found)?;
            if !r.fix.is_empty() {
                writeln!(f, "           wanted: {}", r.wanted)?;
                for line in r.fix.lines() {
                    writeln!(f, "           {line}")?;
                }
            }
        }
        Ok(())
    }
}

/// Looks at a source and says what it lacks; changes nothing.
///
/// It stops at the first requirement without which the next cannot be looked at.
pub async fn check_source(config: &SourceConfig) -> CheckReport {
    let config = config.clone();
    let lost = CheckReport {
        source: config.name.clone(),
        address: config.url.to_string(),
        major: None,
        system_identifier: None,
        requirements: Vec::new(),
    };
    tokio::task::spawn_blocking(move || Check::run(&config))
        .await
        .unwrap_or(lost)
}

/// Looks for the setting behind a refusal, so that the error names the command that mends it.
pub(crate) fn explain(config: &SourceConfig, error: SourceError) -> SourceError {
    // Too many connections (`max_wal_senders = 0`), not in this state (`wal_level`), no right.
    if !matches!(error.sqlstate(), Some("53300" | "55000" | "42501")) {
        return error;
    }
    let report = Check::run(config);
    let missing = |r: &Requirement| r.state == RequirementState::Missing && r.code.is_none();
    match report.requirements.into_iter().find(missing) {
        Some(r) => SourceError::Setting {
            what: format!("{} is {}, and wanted is {}", r.name, r.found, r.wanted),
            fix: r.fix,
        },
        None => error,
    }
}

struct Check<'a> {
    config: &'a SourceConfig,
    report: CheckReport,
}

/// The outcome of looking at one requirement.
struct Finding {
    state: RequirementState,
    found: String,
    wanted: &'static str,
    fix: String,
}

impl Check<'_> {
    fn run(config: &SourceConfig) -> CheckReport {
        let mut check = Check {
            config,
            report: CheckReport {
                source: config.name.clone(),
                address: config.url.to_string(),
                major: None,
                system_identifier: None,
                requirements: Vec::new(),
            },
        };
        if let Some(mut connection) = check.login() {
            check.settings(&mut connection);
            check.replication(&mut connection);
        }
        check.report
    }

    fn add(&mut self, name: &str, finding: Finding) {
        let fix = match finding.state {
            RequirementState::Ok => String::new(),
            RequirementState::Missing | RequirementState::Warning => finding.fix,
        };
        self.report.requirements.push(Requirement {
            name: name.to_owned(),
            state: finding.state,
            found: finding.found,
            wanted: finding.wanted.to_owned(),
            fix,
            code: None,
        });
    }

    fn fail(&mut self, name: &str, wanted: &str, error: &SourceError, fix: String) {
        self.report.requirements.push(Requirement {
            name: name.to_owned(),
            state: RequirementState::Missing,
            found: ErrorChain(error).to_string(),
            wanted: wanted.to_owned(),
            fix,
            code: Some(error.code().to_string()),
        });
    }

    fn ok(&mut self, name: &str, found: impl Into<String>) {
        let found = found.into();
        let state = RequirementState::Ok;
        self.add(
            name,
            Finding {
                state,
                found,
                wanted: "",
                fix: String::new(),
            },
        );
    }

    /// Connects for SQL; a role that may only replicate is tried by the replication step alone.
    fn login(&mut self) -> Option<Connection> {
        let url = &self.config.url;
        let hint = |error: &SourceError| error.hint().unwrap_or_default();
        match Connection::open(url, Purpose::Query) {
            Ok(connection) => {
                self.ok("server reachable", url.address());
                self.ok("password", "accepted");
                let major = connection.major();
                self.report.major = Some(major);
                if !(MAJOR_MIN..=MAJOR_MAX).contains(&major) {
                    let error = SourceError::Version { major };
                    self.fail("version", "PostgreSQL 13 to 18", &error, hint(&error));
                    return None;
                }
                self.ok("version", format!("PostgreSQL {major}"));
                Some(connection)
            }
            Err(error @ (SourceError::Password { .. } | SourceError::Method { .. })) => {
                self.ok("server reachable", url.address());
                let fix = format!(
                    "ALTER ROLE {} PASSWORD '…';  -- or correct the connection string",
                    quote_identifier(&url.user)
                );
                self.fail(
                    "password",
                    "user and password that the server accepts",
                    &error,
                    fix,
                );
                None
            }
            Err(error @ SourceError::Refused { .. }) => {
                self.ok("server reachable", url.address());
                self.fail(
                    "login",
                    "a login to the named database",
                    &error,
                    hint(&error),
                );
                None
            }
            Err(error) => {
                self.fail(
                    "server reachable",
                    "a PostgreSQL server",
                    &error,
                    hint(&error),
                );
                None
            }
        }
    }

    fn settings(&mut self, connection: &mut Connection) {
        let facts = match connection.query(FACTS, "read settings") {
            Ok(facts) => facts,
            Err(error) => {
                self.fail(
                    "settings",
                    "readable settings",
                    &error,
                    error.hint().unwrap_or_default(),
                );
                return;
            }
        };
        let user = quote_identifier(&self.config.url.user);
        let role = fact(&facts, "replication") == "t" || fact(&facts, "superuser") == "t";
        self.add(
            "role",
            Finding {
                state: needed(role),
                found: if role {
                    "has REPLICATION"
                } else {
                    "has no REPLICATION"
                }
                .to_owned(),
                wanted: "the REPLICATION attribute",
                fix: format!("ALTER ROLE {user} REPLICATION;"),
            },
        );
        let level = fact(&facts, "wal_level");
        self.add(
            "wal_level",
            Finding {
                state: needed(level == "replica" || level == "logical"),
                found: level.to_owned(),
                wanted: "replica or logical",
                fix: "ALTER SYSTEM SET wal_level = 'replica';  -- then restart the server"
                    .to_owned(),
            },
        );
        self.capacity(&facts);
        self.safety(&facts);
        self.slot(&facts, connection);
        self.synchronous(&facts);
        self.changed_blocks(connection);
    }

    /// Without these rights a restore point costs as much reading as a base backup.
    fn changed_blocks(&mut self, connection: &mut Connection) {
        let Ok(missing) = super::rights::missing_rights(connection) else {
            return;
        };
        let url = &self.config.url;
        self.add(
            "changed blocks",
            Finding {
                state: wished(missing.is_empty()),
                found: if missing.is_empty() {
                    "can be read".to_owned()
                } else {
                    format!("the role may not execute {}", missing.join(", "))
                },
                wanted: "the right to read them, or every restore point reads the whole source",
                fix: super::rights::grant(&missing, &url.user, &url.database),
            },
        );
    }

    fn safety(&mut self, facts: &Reply) {
        self.add(
            "full_page_writes",
            Finding {
                state: needed(fact(facts, "full_page_writes") == "on"),
                found: fact(facts, "full_page_writes").to_owned(),
                wanted: "on, or a base backup can contain torn pages",
                fix: "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();".to_owned(),
            },
        );
        let checksums = fact(facts, "data_checksums");
        self.add(
            "data checksums",
            Finding {
                state: wished(checksums == "on"),
                found: checksums.to_owned(),
                wanted: "on, so that drills can tell a damaged page from a good one",
                fix: "pg_checksums --enable -D DATA_DIRECTORY  # with the server stopped"
                    .to_owned(),
            },
        );
    }

    fn capacity(&mut self, facts: &Reply) {
        self.room(facts, "max_wal_senders", "senders_used", 2);
        self.room(facts, "max_replication_slots", "slots_used", 1);
    }

    fn room(&mut self, facts: &Reply, setting: &str, used: &str, want: i64) {
        let number = |name| fact(facts, name).parse::<i64>().unwrap_or(0);
        let (limit, used) = (number(setting), number(used));
        self.add(
            setting,
            Finding {
                state: needed(limit.saturating_sub(used) >= want),
                found: format!("{limit}, {used} used"),
                wanted: "room for the vault",
                fix: format!(
                    "ALTER SYSTEM SET {setting} = {};  -- then restart the server",
                    limit.max(used).saturating_add(want)
                ),
            },
        );
    }

    fn synchronous(&mut self, facts: &Reply) {
        let names = fact(facts, "synchronous_standby_names");
        let listed = super::synchronous::lists_vault(names);
        let found = if names.is_empty() { "empty" } else { names }.to_owned();
        match (self.config.mode, listed) {
            (AckMode::Asynchronous, false) => {
                self.ok("synchronous_standby_names", found);
                if self.config.ack == AckAt::Repository {
                    self.add("ack", Finding {
                        state: RequirementState::Warning,
                        found: "repository, and no commit waits".to_owned(),
                        wanted: "synchronous mode with it, or `spool`: without waiting it only makes the source keep its log longer",
                        fix: "`synchronous = true` or `ack = \"spool\"` in the source's block of holdfast.toml".to_owned(),
                    });
                }
            }
            (AckMode::Asynchronous, true) => self.add(
                "synchronous_standby_names",
                Finding {
                    state: RequirementState::Warning,
                    found,
                    wanted: "without the vault, because this source is configured as asynchronous",
                    fix:
                        "configure the source as synchronous, or take `holdfast` out of the setting"
                            .to_owned(),
                },
            ),
            (AckMode::Synchronous, true) => {
                self.ok("synchronous_standby_names", found);
                let commit = fact(facts, "synchronous_commit");
                self.add("synchronous_commit", Finding {
                    state: wished(commit == "on"),
                    found: commit.to_owned(),
                    wanted: "on: `off` and `local` do not wait for the vault, `remote_write` waits less, `remote_apply` would wait for ever",
                    fix: "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf();".to_owned(),
                });
            }
            (AckMode::Synchronous, false) => {
                let fix = super::synchronous::with_vault(names).map_or_else(
                    |error| ErrorChain(&error).to_string(),
                    |value| super::synchronous::alter(&value),
                );
                self.add("synchronous_standby_names", Finding {
                    state: RequirementState::Warning,
                    found,
                    wanted: "the vault in it, once the stream has caught up (set it earlier and commits hang)",
                    fix,
                });
            }
        }
    }

    /// Opens a replication connection, which tells whether `pg_hba.conf` and the role admit it.
    fn replication(&mut self, sql: &mut Connection) {
        let url: &ConnectionUrl = &self.config.url;
        let user = quote_identifier(&url.user);
        let opened = Connection::open(url, Purpose::Replication);
        match opened.and_then(|mut c| c.query("IDENTIFY_SYSTEM", "identify the system")) {
            Ok(reply) => {
                let identifier = reply.value("systemid").unwrap_or_default();
                self.report.system_identifier = identifier.parse().ok();
                self.ok("replication connection", format!("system {identifier}"));
            }
            Err(error @ (SourceError::Password { .. } | SourceError::Replication { .. })) => {
                let no_right = error.sqlstate() == Some("42501");
                if no_right {
                    let fix = format!("ALTER ROLE {user} REPLICATION;");
                    self.fail(
                        "replication connection",
                        "a role with REPLICATION",
                        &error,
                        fix,
                    );
                    return;
                }
                let file = sql
                    .query("SHOW hba_file", "find pg_hba.conf")
                    .ok()
                    .and_then(|reply| reply.single().map(str::to_owned))
                    .unwrap_or_else(|| "pg_hba.conf".to_owned());
                let kind = if url.ssl == super::SslMode::Disable {
                    "host"
                } else {
                    "hostssl"
                };
                let fix = format!(
                    "{kind}  replication  {user}  all  scram-sha-256   # add this line to {file}\n\
                     SELECT pg_reload_conf();"
                );
                self.fail(
                    "replication connection",
                    "a line for replication in pg_hba.conf",
                    &error,
                    fix,
                );
            }
            Err(error) => {
                let fix = error.hint().unwrap_or_default();
                self.fail(
                    "replication connection",
                    "a replication connection",
                    &error,
                    fix,
                );
            }
        }
    }
}

const FACTS: &str = "SELECT r.rolreplication AS replication, r.rolsuper AS superuser, \
    current_setting('wal_level') AS wal_level, \
    current_setting('max_wal_senders') AS max_wal_senders, \
    (SELECT count(*) FROM pg_stat_replication) AS senders_used, \
    current_setting('max_replication_slots') AS max_replication_slots, \
    (SELECT count(*) FROM pg_replication_slots WHERE slot_name NOT LIKE 'holdfast\\_%') AS slots_used, \
    (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS max_slot_wal_keep_size, \
    (SELECT setting FROM pg_settings WHERE name = 'wal_keep_size') AS wal_keep_size, \
    (SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout') AS wal_sender_timeout, \
    (SELECT setting FROM pg_settings WHERE name = 'idle_replication_slot_timeout') AS idle_timeout, \
    current_setting('full_page_writes') AS full_page_writes, \
    current_setting('data_checksums') AS data_checksums, \
    current_setting('synchronous_standby_names') AS synchronous_standby_names, \
    current_setting('synchronous_commit') AS synchronous_commit \
    FROM pg_roles r WHERE r.rolname = current_user";

fn fact<'a>(facts: &'a Reply, name: &str) -> &'a str {
    facts.value(name).unwrap_or_default()
}

fn needed(satisfied: bool) -> RequirementState {
    if satisfied {
        RequirementState::Ok
    } else {
        RequirementState::Missing
    }
}

fn wished(satisfied: bool) -> RequirementState {
    if satisfied {
        RequirementState::Ok
    } else {
        RequirementState::Warning
    }
}
