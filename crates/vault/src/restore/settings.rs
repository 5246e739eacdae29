//! Settings of a restored server: recovery, and nothing that reaches back to the source.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use holdfast_core::Timestamp;

use super::RestoreError;
use super::files::{create_in, failed};
use super::ground::Ground;
use super::plan::Stop;

/// The file with PostgreSQL's main settings.
const MAIN: &str = "postgresql.conf";
/// The file whose settings win over the main one; PostgreSQL and `ALTER SYSTEM` read and write it.
const AUTO: &str = "postgresql.auto.conf";
/// Who may log in to the restored server.
const HBA: &str = "holdfast_hba.conf";
/// An empty map of names.
const IDENT: &str = "holdfast_ident.conf";
/// The same where no setting names it.
const OWN_HBA: &str = "pg_hba.conf";
const OWN_IDENT: &str = "pg_ident.conf";
/// What the source had as [`OWN_HBA`].
const SOURCE_HBA: &str = "pg_hba.conf.source";

/// What the settings depend on.
pub(super) struct Wanted<'a> {
    pub(super) home: Home<'a>,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) timeline: u32,
    pub(super) stop: Stop,
    /// Folders with the libraries of the PostgreSQL that will run it, when it is known.
    pub(super) libraries: &'a [std::path::PathBuf],
}

/// Where the server will run.
#[derive(Clone, Copy)]
pub(super) enum Home<'a> {
    /// Wherever the directory is taken to.
    Anywhere,
    /// Here.
    Here {
        directory: &'a Path,
        port: u16,
        /// The private folder of the local socket.
        sockets: &'a Path,
    },
}

/// What a source has of the files that are written anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    pub(super) main: String,
    pub(super) auto: String,
    pub(super) hba: String,
}

impl Before {
    /// Reads them; what is not there is empty.
    pub(super) fn read<E>(mut read: impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        Ok(Self {
            main: read(MAIN)?,
            auto: read(AUTO)?,
            hba: read(OWN_HBA)?,
        })
    }
}

/// Writes everything that makes the data directory recover to its target and stay by itself.
pub(super) fn write(ground: &Ground<'_>, wanted: &Wanted<'_>) -> Result<(), RestoreError> {
    let before = Before::read(|name| read(&ground.directory.join(name)))?;
    for (name, text) in texts(wanted, &before) {
        replace(ground, name, &text)?;
    }
    Ok(())
}

/// Tells whether a file of the source is written anew wherever a directory is taken.
pub(super) fn is_written(path: &str) -> bool {
    [AUTO, MAIN, OWN_HBA, OWN_IDENT, SOURCE_HBA].contains(&path)
}

/// Returns the files that make a data directory recover to its target and stay by itself.
pub(super) fn texts(wanted: &Wanted<'_>, before: &Before) -> Vec<(&'static str, String)> {
    let preload = preload(&before.main, &before.auto, wanted.libraries);
    let mut auto = disarm_lines(&before.auto);
    auto.push_str("# What follows was written by holdfast when it restored this directory.\n");
    for (name, value) in settings(wanted, &preload) {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        auto.push_str(&format!("{name} = '{value}'\n"));
    }
    let main = if before.main.is_empty() {
        MINIMAL.to_owned()
    } else {
        disarm_lines(&before.main)
    };
    let mut texts = vec![(AUTO, auto), (MAIN, main)];
    match wanted.home {
        // The files that a server takes by itself, wherever it is started.
        Home::Anywhere => {
            if !before.hba.is_empty() && before.hba != ADMITTED {
                texts.push((SOURCE_HBA, before.hba.clone()));
            }
            texts.extend([(OWN_HBA, ADMITTED.to_owned()), (OWN_IDENT, String::new())]);
        }
        Home::Here { .. } => {
            texts.extend([(HBA, ADMITTED.to_owned()), (IDENT, String::new())]);
        }
    }
    // It goes last: a server that is started before recovers to nowhere.
    texts.push(("recovery.signal", String::new()));
    texts
}

/// Every source may keep its settings outside of the data directory, as Debian does.
const MINIMAL: &str = "# The source kept its settings elsewhere.\n\
    max_connections = 100\nmax_prepared_transactions = 256\n";

/// The local socket lies in a folder that only the server's account can enter.
pub(super) const ADMITTED: &str = "# Written by holdfast: the roles and passwords are those of the source.\n\
    local all all trust\n\
    host all all 127.0.0.1/32 md5\n\
    host replication all 127.0.0.1/32 md5\n";

/// Returns the settings that win over those of the source.
fn settings(wanted: &Wanted<'_>, preload: &str) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = QUIET
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    match wanted.home {
        // Relative to the data directory, which only the server's account can enter.
        Home::Anywhere => all.push(("unix_socket_directories", ".".to_owned())),
        Home::Here {
            directory,
            port,
            sockets,
        } => {
            let within = |name: &str| directory.join(name).display().to_string();
            all.extend([
                ("hba_file", within(HBA)),
                ("ident_file", within(IDENT)),
                ("port", port.to_string()),
                ("unix_socket_directories", sockets.display().to_string()),
            ]);
        }
    }
    all.extend([
        ("shared_preload_libraries", preload.to_owned()),
        ("recovery_target_timeline", wanted.timeline.to_string()),
    ]);
    if wanted.major >= 15 {
        all.push(("archive_library", String::new()));
    }
    // Tablespaces are folders in `pg_tblspc`, not links; recovery panics at them otherwise. Older
    // minor versions know neither the panic nor the setting.
    if matches!(
        (wanted.major, wanted.minor),
        (15.., _) | (14, 5..) | (13, 8..)
    ) {
        all.push(("allow_in_place_tablespaces", "on".to_owned()));
    }
    if wanted.major <= 14 {
        // Debian keeps it outside of the data directory, where a server of the source may use it.
        all.push(("stats_temp_directory", "pg_stat_tmp".to_owned()));
    }
    if wanted.major >= 18 {
        all.push(("io_method", "worker".to_owned()));
    }
    // PostgreSQL takes even an empty target for a second one when it comes after the one that is set.
    let (lsn, time) = ("recovery_target_lsn", "recovery_target_time");
    let (unset, set, value) = match wanted.stop {
        Stop::Before(at) | Stop::Lsn(at) => (time, lsn, at.to_string()),
        Stop::End => (time, lsn, String::new()),
        Stop::Time(at) => (lsn, time, postgres_time(at)),
    };
    let inclusive = match wanted.stop {
        Stop::Before(_) => "off",
        Stop::End | Stop::Lsn(_) | Stop::Time(_) => "on",
    };
    all.extend([
        (unset, String::new()),
        (set, value),
        ("recovery_target_inclusive", inclusive.to_owned()),
    ]);
    all
}

/// What keeps a restored server by itself, whatever the source was configured to do.
const QUIET: [(&str, &str); 26] = [
    ("archive_command", ""),
    ("archive_mode", "off"),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    // The log lies in pg_wal already; recovery insists on a command, and this one always says no.
    ("restore_command", "false"),
    ("recovery_target", ""),
    ("recovery_target_name", ""),
    ("recovery_target_xid", ""),
    ("recovery_target_action", "promote"),
    // A source that is a delayed standby would make recovery wait as long.
    ("recovery_min_apply_delay", "0"),
    // Nobody reads before it is promoted, and the source may be a larger machine.
    ("hot_standby", "off"),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    // Commits would wait for ever for a standby that is not there.
    ("synchronous_standby_names", ""),
    // Subscriptions would take from the publisher what the source still needs.
    ("max_logical_replication_workers", "0"),
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_permissions", "0700"),
    ("unix_socket_group", ""),
    ("ssl", "off"),
    ("external_pid_file", ""),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("lc_messages", "C"),
    ("huge_pages", "try"),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
];

/// Returns the time as PostgreSQL reads it whatever `TimeZone` says.
fn postgres_time(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}+00", text.trim_end_matches('Z').replace('T', " "))
}

/// Turns lines off that would lead out of the directory: other files, other places.
fn disarm_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let name: String = line
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '.')
            .collect::<String>()
            .to_ascii_lowercase();
        if ELSEWHERE.contains(&name.as_str()) {
            out.push_str("# turned off by holdfast: ");
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

const ELSEWHERE: [&str; 9] = [
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "include",
    "include_dir",
    "include_if_exists",
    "promote_trigger_file",
];

/// Returns the libraries that the source loads at start, without jobs and what is not installed.
fn preload(main: &str, auto: &str, libraries: &[std::path::PathBuf]) -> String {
    let value = setting(auto, "shared_preload_libraries")
        .or_else(|| setting(main, "shared_preload_libraries"))
        .unwrap_or_default();
    let kept: Vec<&str> = value
        .split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty() && !is_job(name) && is_installed(name, libraries))
        .collect();
    kept.join(",")
}

/// Returns the libraries that a source has named anywhere to be loaded at start.
pub(crate) fn preloaded(directory: &Path) -> Result<Vec<String>, RestoreError> {
    let mut names: Vec<String> = Vec::new();
    for file in [MAIN, AUTO] {
        let text = read(&directory.join(file))?;
        for line in text.lines() {
            let value = setting(line, "shared_preload_libraries").unwrap_or_default();
            let each = value.split(',').map(|name| name.trim().trim_matches('"'));
            for name in each.filter(|name| !name.is_empty()) {
                if !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
    }
    Ok(names)
}

/// Tells whether a library runs jobs of its own accord.
fn is_job(library: &str) -> bool {
    let name = library.rsplit('/').next().unwrap_or(library);
    matches!(
        name.trim_end_matches(".so"),
        "pg_cron" | "pg_partman_bgw" | "pg_timetable"
    )
}

pub(super) fn is_installed(library: &str, libraries: &[std::path::PathBuf]) -> bool {
    let name = library
        .trim_start_matches("$libdir/")
        .trim_end_matches(".so");
    if name.starts_with('/') {
        return Path::new(library).is_file();
    }
    ["so", "dylib"].iter().any(|end| {
        libraries
            .iter()
            .any(|dir| dir.join(format!("{name}.{end}")).is_file())
    })
}

/// Returns the last value of a setting in a file, unquoted.
fn setting(text: &str, wanted: &str) -> Option<String> {
    let mut found = None;
    for line in text.lines() {
        let line = line.trim_start();
        let Some((name, rest)) = line.split_once(|c: char| c == '=' || c.is_whitespace()) else {
            continue;
        };
        if !name.eq_ignore_ascii_case(wanted) {
            continue;
        }
        let rest = rest.trim_start_matches(|c: char| c == '=' || c.is_whitespace());
        let value = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split('\'').next().unwrap_or_default(),
            None => rest.split('#').next().unwrap_or_default().trim(),
        };
        found = Some(value.to_owned());
    }
    found
}

fn read(path: &Path) -> Result<String, RestoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(failed("read", path, source)),
    }
}

/// Writes a file anew beside the old one and gives it the old one's name.
fn replace(ground: &Ground<'_>, name: &str, text: &str) -> Result<(), RestoreError> {
    let directory = ground.directory;
    let fresh = directory.join(format!("{name}.holdfast"));
    let path = directory.join(name);
    let file = create_in(ground, &fresh)?;
    file.write_all_at(text.as_bytes(), 0)
        .and_then(|()| fs::rename(&fresh, &path))
        .map_err(|source| failed("write", &path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_lead_elsewhere_are_turned_off_and_others_stay() {
        let text = "data_directory = '/var/lib/postgresql'\nwork_mem = 4MB\n  INCLUDE_DIR 'conf.d'\n#include 'x'\n";
        assert_eq!(
            disarm_lines(text),
            "# turned off by holdfast: data_directory = '/var/lib/postgresql'\nwork_mem = 4MB\n\
             # turned off by holdfast:   INCLUDE_DIR 'conf.d'\n#include 'x'\n"
        );
    }

    #[test]
    fn the_last_value_of_a_setting_counts() {
        let text = "a = 'x' # 'y'\n#a = 'z'\nA 'w'\nab = 1\n";
        assert_eq!(setting(text, "a").as_deref(), Some("w"));
        assert_eq!(setting("a=b # c", "a").as_deref(), Some("b"));
        assert_eq!(setting(text, "b"), None);
    }

    #[test]
    fn libraries_that_run_jobs_or_are_missing_are_not_loaded() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pg_cron.so", "pg_stat_statements.so"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let main = "shared_preload_libraries = 'pg_cron, pg_stat_statements,gone'";
        let dirs = [folder.path().to_owned()];
        assert_eq!(preload(main, "", &dirs), "pg_stat_statements");
        assert_eq!(preload(main, "shared_preload_libraries = ''", &dirs), "");
    }

    #[test]
    fn each_version_gets_the_settings_that_it_knows() {
        let directory = Path::new("/restored");
        let here = Home::Here {
            directory,
            port: 5432,
            sockets: directory,
        };
        for (major, home) in (13..=18).flat_map(|major| [(major, here), (major, Home::Anywhere)]) {
            let wanted = Wanted {
                home,
                major,
                minor: 0,
                timeline: 1,
                stop: Stop::End,
                libraries: &[],
            };
            let all = settings(&wanted, "");
            let has = |name: &str| all.iter().filter(|(known, _)| *known == name).count() == 1;
            assert!(
                has("recovery_min_apply_delay") && has("hot_standby"),
                "{major}"
            );
            assert_eq!(has("stats_temp_directory"), major <= 14, "{major}");
            assert_eq!(has("archive_library"), major >= 15, "{major}");
            assert_eq!(has("io_method"), major >= 18, "{major}");
            assert!(!has("promote_trigger_file"), "{major}");
        }
    }

    #[test]
    fn what_is_taken_elsewhere_names_no_place_of_this_machine() {
        let wanted = Wanted {
            home: Home::Anywhere,
            major: 18,
            minor: 0,
            timeline: 1,
            stop: Stop::End,
            libraries: &[],
        };
        let before = Before {
            main: "hba_file = '/etc/source/pg_hba.conf'\nwork_mem = 4MB\n".to_owned(),
            auto: String::new(),
            hba: "host all all 0.0.0.0/0 trust\n".to_owned(),
        };
        let texts = texts(&wanted, &before);
        assert!(texts.iter().all(|(_, text)| {
            let set = text.lines().filter(|line| !line.starts_with('#'));
            set.filter(|line| line.contains("'/")).count() == 0
        }));
        let text = |wanted: &str| {
            texts
                .iter()
                .find(|(name, _)| *name == wanted)
                .map(|(_, t)| t)
        };
        assert_eq!(text("pg_hba.conf").map(String::as_str), Some(ADMITTED));
        assert_eq!(text("pg_hba.conf.source"), Some(&before.hba));
        assert!(text("holdfast_hba.conf").is_none() && text("recovery.signal").is_some());
    }

    #[test]
    fn a_time_is_written_with_its_zone() {
        let at: Timestamp = "2026-04-24T15:04:05.000009Z".parse().unwrap();
        assert_eq!(postgres_time(at), "2026-04-24 15:04:05.000009+00");
    }
}
