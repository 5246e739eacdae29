//! Settings of a clone's server. They stand on its command line, where nothing in the data directory
//! and no `ALTER SYSTEM` can change them.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_core::ByteCount;

use super::CloneError;
use super::folder::failed;
use super::record::Role;

/// The folder with what only we may write.
pub(super) const CONF: &str = "conf";
const HBA: &str = "hba.conf";
const IDENT: &str = "ident.conf";
/// The number in the name of the socket; nothing listens on such a port.
pub(super) const SOCKET_PORT: u16 = 5432;

/// What the settings depend on.
pub(super) struct Wanted<'a> {
    pub(super) id: &'a str,
    pub(super) folder: &'a Path,
    pub(super) sockets: &'a Path,
    pub(super) major: u32,
    pub(super) memory_max: ByteCount,
    /// The libraries that the source loads at start and that this machine has.
    pub(super) libraries: &'a [String],
}

/// Returns the settings that win over everything else.
pub(super) fn settings(wanted: &Wanted<'_>) -> Vec<(&'static str, String)> {
    let within = |name: &str| wanted.folder.join(CONF).join(name).display().to_string();
    let mut all: Vec<(&'static str, String)> = ALONE
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    let loaded = wanted.libraries.iter().filter(|name| is_harmless(name));
    let loaded: Vec<&str> = loaded.map(String::as_str).collect();
    if loaded.iter().any(|name| base(name) == "timescaledb") {
        all.push(("timescaledb.max_background_workers", "0".to_owned()));
    }
    all.extend([
        ("hba_file", within(HBA)),
        ("ident_file", within(IDENT)),
        ("port", SOCKET_PORT.to_string()),
        (
            "unix_socket_directories",
            wanted.sockets.display().to_string(),
        ),
        ("cluster_name", format!("clone {}", wanted.id)),
        ("shared_preload_libraries", loaded.join(",")),
        (
            "shared_buffers",
            format!("{}kB", buffers(wanted.memory_max) / 1024),
        ),
    ]);
    if cfg!(target_os = "linux") && wanted.major >= 14 {
        // One call instead of one for each file.
        all.push(("recovery_init_sync_method", "syncfs".to_owned()));
    }
    if wanted.major >= 15 {
        all.push(("archive_library", String::new()));
    }
    if wanted.major >= 17 {
        all.push(("sync_replication_slots", "off".to_owned()));
        all.push(("summarize_wal", "off".to_owned()));
    }
    all
}

/// A quarter of what it may take, and no more than a small server has.
fn buffers(memory_max: ByteCount) -> u64 {
    (memory_max.0 / 4).clamp(16 << 20, 256 << 20)
}

/// What keeps it by itself, whatever the source was configured to do.
const ALONE: [(&str, &str); 25] = [
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("unix_socket_group", ""),
    ("ssl", "off"),
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("restore_command", "false"),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("hot_standby", "off"),
    ("synchronous_standby_names", ""),
    ("max_logical_replication_workers", "0"),
    ("max_wal_senders", "0"),
    ("max_replication_slots", "0"),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("external_pid_file", ""),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("lc_messages", "C"),
    ("huge_pages", "off"),
    ("max_connections", "60"),
    ("superuser_reserved_connections", "5"),
];

/// The settings of a source that could lead outside, for telling which of them were set.
pub(super) const OUTWARD: [&str; 12] = [
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "local_preload_libraries",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_end_command",
    "restore_command",
    "session_preload_libraries",
    "ssl_passphrase_command",
    "synchronous_standby_names",
    "shared_preload_libraries",
];

/// Tells whether a library runs no jobs of its own and reaches nothing outside.
///
/// Known by name: of a library that nobody has looked at the opposite is assumed.
pub(super) fn is_harmless(library: &str) -> bool {
    HARMLESS.contains(&base(library))
}

fn base(library: &str) -> &str {
    let name = library.rsplit('/').next().unwrap_or(library);
    name.trim_end_matches(".so").trim_end_matches(".dylib")
}

const HARMLESS: [&str; 14] = [
    "age",
    "auto_explain",
    "pg_hint_plan",
    "pg_prewarm",
    "pg_qualstats",
    "pg_similarity",
    "pg_stat_kcache",
    "pg_stat_monitor",
    "pg_stat_statements",
    "pg_tle",
    "pgaudit",
    "plan_filter",
    "plpgsql_check",
    "timescaledb",
];

/// Who may come in before there are roles of ours: whoever reaches the socket, which is we alone.
pub(super) const NOBODY_YET: &str = "local all all trust\n";

/// What the name of the role ends with whose members come in as well: leases at a door.
pub(super) const LEASES: &str = "_leases";

/// Returns who may come in from then on.
pub(super) fn admitted(roles: [&Role; 2]) -> String {
    let lines = roles.map(|role| format!("local all \"{}\" scram-sha-256\n", role.name));
    let [_, role] = roles;
    // A name in quotes would not be one whose members are meant.
    let leases = format!("local all +{}{LEASES} scram-sha-256\n", role.name);
    format!(
        "# Written by holdfast: no role of the source is admitted.\n{}{leases}local all all reject\n",
        lines.concat()
    )
}

/// Writes who may come in; the server reads it and cannot write it.
pub(super) fn write_hba(folder: &Path, text: &str) -> Result<(), CloneError> {
    let conf = folder.join(CONF);
    let made = fs::create_dir(&conf);
    if let Err(error) = made.or_else(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    }) {
        return Err(failed("make", &conf, error));
    }
    let write = |name: &str, text: &str| {
        let (path, fresh) = (conf.join(name), conf.join(format!("{name}.new")));
        fs::write(&fresh, text)
            .and_then(|()| open_up(&fresh, 0o644))
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|error| failed("write", &path, error))
    };
    open_up(&conf, 0o755).map_err(|error| failed("open up", &conf, error))?;
    write(IDENT, "")?;
    write(HBA, text)
}

/// Lets the server's account read, whatever the umask says.
fn open_up(path: &PathBuf, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_nobody_has_looked_at_are_not_loaded() {
        for name in ["pg_stat_statements", "$libdir/pgaudit", "/x/timescaledb.so"] {
            assert!(is_harmless(name), "{name}");
        }
        for name in [
            "pg_cron",
            "pg_net",
            "pg_partman_bgw",
            "pgaudit2",
            "",
            "evil/pg_net.so",
        ] {
            assert!(!is_harmless(name), "{name}");
        }
    }

    #[test]
    fn each_version_gets_the_settings_that_it_knows_and_each_once() {
        let libraries = ["pg_cron".to_owned(), "timescaledb".to_owned()];
        for major in 13..=18 {
            let all = settings(&Wanted {
                id: "prod-000001",
                folder: Path::new("/c"),
                sockets: Path::new("/c/s"),
                major,
                memory_max: ByteCount(1 << 30),
                libraries: &libraries,
            });
            let names: std::collections::BTreeSet<&str> = all.iter().map(|one| one.0).collect();
            assert_eq!(names.len(), all.len(), "{major}");
            assert_eq!(names.contains("archive_library"), major >= 15, "{major}");
            assert_eq!(names.contains("summarize_wal"), major >= 17, "{major}");
            let preload = all.iter().find(|one| one.0 == "shared_preload_libraries");
            assert_eq!(preload.unwrap().1, "timescaledb");
        }
    }

    #[test]
    fn nobody_but_the_two_roles_is_admitted() {
        let role = |name: &str| Role {
            name: name.to_owned(),
            password: String::new(),
        };
        let text = admitted([&role("keeper_1"), &role("clone_1")]);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[2], "local all +clone_1_leases scram-sha-256");
        assert_eq!(lines[3], "local all all reject");
        assert!(!text.contains("trust"));
    }
}
