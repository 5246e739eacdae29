//! What the files of a data directory are, told by their paths: which are copied, and how.
//!
//! # Source
//! PostgreSQL 13 to 18, `src/backend/backup/basebackup.c` (`excludeDirContents`, `excludeFiles`,
//! `sendDir`), `src/common/relpath.c`, `src/backend/storage/file/reinit.c`.

use holdfast_wire::pg::wal::Relation;

/// The tablespace of what all databases share.
const GLOBAL: u32 = 1664;
/// The default tablespace.
const DEFAULT: u32 = 1663;

/// Folders whose contents mean nothing to another server.
const EMPTIED: [&str; 7] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
];

/// Files that mean nothing to another server, or that the end of a backup makes anew.
const LEFT_OUT: [&str; 7] = [
    "backup_label",
    "backup_manifest",
    "current_logfiles.tmp",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "tablespace_map",
];

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A part of a relation's contents: the log names every block of it that changes.
    Contents(Part),
    /// Its contents are not copied.
    LeftOut,
    /// Copied whole: a map, an init fork, anything that is not a relation.
    Whole,
}

/// One file of a relation's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) relation: Relation,
    /// Which of the relation's files, from zero.
    pub(super) segment: u32,
}

/// A file's name inside the folder of a database.
struct Name {
    relation: Relation,
    fork: Fork,
    segment: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fork {
    Init,
    Main,
    Map,
}

/// Tells whether what is inside this folder is left out; the folder itself is kept.
pub(super) fn is_emptied(folder: &str) -> bool {
    let name = folder.rsplit('/').next().unwrap_or(folder);
    folder == "pg_wal" || EMPTIED.contains(&name)
}

/// Tells whether a path lies below a folder that [`is_emptied`].
pub(super) fn lies_in_emptied(path: &str) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| at);
    ends.filter_map(|end| path.get(..end)).any(is_emptied)
}

/// Returns the folder and the number of a relation that is unlogged, when `path` is its init fork.
pub(super) fn unlogged(path: &str) -> Option<Relation> {
    read_name(path)
        .filter(|name| name.fork == Fork::Init)
        .map(|name| name.relation)
}

/// Tells whether every restore point brings its own file at this path.
pub(super) fn is_made_anew(path: &str) -> bool {
    matches!(path, "backup_label" | "backup_manifest" | "tablespace_map")
}

/// Tells whether a mirror has this file as its own: its settings are not those of the source.
pub(super) fn is_of_mirror(path: &str) -> bool {
    let is_setting = matches!(
        path,
        "postgresql.conf" | "postgresql.auto.conf" | "pg_hba.conf" | "pg_ident.conf"
    );
    let is_ours = path.starts_with("holdfast") || path.starts_with(".sockets");
    is_setting
        || is_ours
        || matches!(
            path,
            "standby.signal" | "recovery.signal" | "backup_label.old"
        )
}

/// Tells what a file is. `is_unlogged` knows what [`unlogged`] found.
pub(super) fn kind(path: &str, is_unlogged: impl Fn(Relation) -> bool) -> Kind {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let is_left_out = LEFT_OUT.contains(&file)
        || file.starts_with("pg_internal.init")
        || path.split('/').any(|part| part.starts_with("pgsql_tmp"))
        || is_socket(file)
        || lies_in_emptied(path);
    if is_left_out || (database(folder).is_some() && is_temporary(file)) {
        return Kind::LeftOut;
    }
    match read_name(path) {
        None => Kind::Whole,
        Some(name) if name.fork == Fork::Init => Kind::Whole,
        Some(name) if is_unlogged(name.relation) => Kind::LeftOut,
        Some(name) if name.fork == Fork::Map => Kind::Whole,
        Some(name) => Kind::Contents(Part {
            relation: name.relation,
            segment: name.segment,
        }),
    }
}

fn is_socket(file: &str) -> bool {
    file.starts_with(".s.PGSQL.") && !file.ends_with(".lock")
}

fn read_name(path: &str) -> Option<Name> {
    let (folder, file) = path.rsplit_once('/')?;
    let (tablespace, database) = database(folder)?;
    let (stem, segment) = match file.split_once('.') {
        Some((stem, segment)) => (stem, number(segment).filter(|segment| *segment > 0)?),
        None => (file, 0),
    };
    let (digits, fork) = match stem.split_once('_') {
        None => (stem, Fork::Main),
        Some((digits, "fsm" | "vm")) => (digits, Fork::Map),
        Some((digits, "init")) => (digits, Fork::Init),
        Some(_) => return None,
    };
    Some(Name {
        relation: Relation {
            tablespace,
            database,
            file: number(digits).filter(|file| *file > 0)?,
        },
        fork,
        segment,
    })
}

/// Reads the folder of a database: its tablespace and its own number.
fn database(folder: &str) -> Option<(u32, u32)> {
    let mut parts = folder.split('/');
    let found = match (parts.next()?, parts.next()) {
        ("global", None) => return Some((GLOBAL, 0)),
        ("base", Some(database)) => (DEFAULT, number(database)?),
        ("pg_tblspc", Some(tablespace)) => {
            parts.next().filter(|version| version.starts_with("PG_"))?;
            (number(tablespace)?, number(parts.next()?)?)
        }
        _ => return None,
    };
    parts.next().is_none().then_some(found)
}

/// Tells whether a file belongs to a session's own tables: `t3_16384`, with fork and segment.
fn is_temporary(file: &str) -> bool {
    let Some((backend, rest)) = file.strip_prefix('t').and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    let stem = rest.split(['.', '_']).next().unwrap_or_default();
    number(backend).is_some() && number(stem).is_some()
}

/// Reads a number that is written as PostgreSQL writes it.
fn number(digits: &str) -> Option<u32> {
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros = digits.len() > 1 && digits.starts_with('0');
    (is_plain && !has_zeros)
        .then(|| digits.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Kind {
        kind(path, |relation| relation.file == 666)
    }

    fn part(tablespace: u32, database: u32, file: u32, segment: u32) -> Kind {
        let relation = Relation {
            tablespace,
            database,
            file,
        };
        Kind::Contents(Part { relation, segment })
    }

    #[test]
    fn contents_of_relations_are_told_by_their_paths() {
        assert_eq!(of("base/5/16384"), part(1663, 5, 16384, 0));
        assert_eq!(of("base/5/16384.12"), part(1663, 5, 16384, 12));
        assert_eq!(of("global/1262"), part(1664, 0, 1262, 0));
        let tablespace = "pg_tblspc/16390/PG_15_202209061/16391/2619.1";
        assert_eq!(of(tablespace), part(16390, 16391, 2619, 1));
        for whole in [
            "base/5/16384_fsm",
            "base/5/16384_vm.1",
            "base/5/666_init",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/5/0123",
            "base/5/16384.0",
            "base/5/16384.",
            "base/5/16384_other",
            "base/5/99999999999",
            "base/5/16384x",
            "base/5/6/16384",
            "base/x/16384",
            "global/pg_control",
            "pg_tblspc/16390/16391/2619",
            "pg_tblspc/16390/PG_15_1/16391/sub/2619",
            "pg_xact/0000",
            "16384",
            "postgresql.conf",
            "pg_wal_of_mine/x",
            "base/5/t_1",
            "t3_16384",
        ] {
            assert_eq!(of(whole), Kind::Whole, "{whole}");
        }
    }

    #[test]
    fn what_postgresql_leaves_out_of_a_base_backup_is_left_out() {
        for left in [
            "backup_label",
            "base/5/t3_16384",
            "base/5/t3_16384_fsm.1",
            "global/t3_16384",
            "base/5/666",
            "base/5/666.1",
            "base/5/666_fsm",
            "base/5/pg_internal.init",
            "global/pg_internal.init.77",
            "base/pgsql_tmp/pgsql_tmp1.0",
            "base/pgsql_tmp",
            "pg_replslot/holdfast_prod/state",
            "pg_subtrans/0000",
            "pg_stat_tmp/global.stat",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/x",
            "postmaster.pid",
            "postmaster.opts",
            "tablespace_map",
            ".s.PGSQL.5432",
        ] {
            assert_eq!(of(left), Kind::LeftOut, "{left}");
        }
        assert_eq!(of(".s.PGSQL.5432.lock"), Kind::Whole);
        assert!(is_emptied("pg_wal") && !is_emptied("base/pg_wal") && !is_emptied("base"));
        assert!(!lies_in_emptied("pg_notify") && lies_in_emptied("pg_notify/0000"));
        let relation = unlogged("base/5/666_init").unwrap();
        assert_eq!((relation.database, relation.file), (5, 666));
        assert_eq!(unlogged("base/5/666"), None);
    }
}
