//! A restore goes nowhere near what is kept.

use std::path::{Path, PathBuf};

use super::{Place, RestoreError};

/// Refuses a directory inside the repository or the spool, also by way of a link.
pub(super) fn check(into: &Path, place: &Place) -> Result<(), RestoreError> {
    let spool = place.state.join("spool");
    let repository = place.repository.directory();
    let repository = repository.map(|directory| (directory, "the repository"));
    for (kept, what) in repository
        .into_iter()
        .chain([(spool.as_path(), "the spool")])
    {
        if resolve(into).starts_with(resolve(kept)) {
            return Err(RestoreError::Directory {
                path: into.to_owned(),
                why: format!("it lies inside {what}"),
            });
        }
    }
    Ok(())
}

/// The path without links, as far as it exists.
pub(super) fn resolve(path: &Path) -> PathBuf {
    let existing = path
        .ancestors()
        .find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match existing {
        Some((ancestor, real)) => real.join(path.strip_prefix(ancestor).unwrap_or(Path::new(""))),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use holdfast_core::Coded;

    use super::super::files::{Owner, make_directory};
    use super::*;
    use crate::config::PostgresConfig;

    fn place(folder: &Path) -> Place {
        for kept in ["repository/base", "state/spool/prod"] {
            fs::create_dir_all(folder.join(kept)).unwrap();
        }
        Place {
            state: folder.join("state"),
            repository: folder.join("repository").into(),
            keys: holdfast_store::object::Keys::default(),
            vault_key: None,
            postgres: PostgresConfig::default(),
        }
    }

    /// What a restore does with its directory before it writes anything.
    fn prepare(into: &Path, place: &Place) -> Result<(), RestoreError> {
        check(into, place)?;
        make_directory(into, Owner(None))
    }

    #[test]
    fn a_restore_goes_to_a_new_place_and_never_over_anything() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let repository = folder.path().join("repository");
        let full = folder.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("PG_VERSION"), "15\n").unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("repository"), &link).unwrap();
        let to_full = folder.path().join("to-full");
        std::os::unix::fs::symlink(&full, &to_full).unwrap();
        for (into, why) in [
            (full.clone(), "not empty"),
            (to_full, "not a directory"),
            (folder.path().join("file"), "not a directory"),
            (PathBuf::from("relative"), "not an absolute path"),
            (repository.join("new"), "inside the repository"),
            (link.join("base/new"), "inside the repository"),
            (place.state.join("spool/prod/new"), "inside the spool"),
        ] {
            let error = prepare(&into, &place).unwrap_err();
            assert_eq!(error.code().as_str(), "ZU305", "{into:?}");
            assert!(error.to_string().contains(why), "{into:?}: {error}");
        }
        assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
        assert!(!repository.join("new").exists());
        for into in ["new", "state/drill", "deep/er/new"] {
            prepare(&folder.path().join(into), &place).unwrap();
        }
    }
}
