//! Folders that are still there after a power cut.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a folder and those above it that are missing, each for its owner alone and durable when this
/// returns: the names as well, which a sync of the folder itself does not keep.
///
/// # Errors
/// What the system says. A folder that is there stays as it is.
pub fn make_folder(path: &Path) -> io::Result<()> {
    make_folder_with(path, 0o700)
}

/// As [`make_folder`], with other permission bits.
///
/// # Errors
/// What the system says.
pub fn make_folder_with(path: &Path, mode: u32) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    if path.is_dir() {
        // Whoever made it may have died before it was durable; above a folder that is not ours there
        // may be others that we cannot open.
        let _ = sync_folder(parent);
        return Ok(());
    }
    make_folder_with(parent, mode)?;
    match fs::DirBuilder::new().mode(mode).create(path) {
        // Somebody else may have made it meanwhile, and not have synced it yet.
        Err(error) if !path.is_dir() => Err(error),
        _ => sync_folder(parent),
    }
}

/// Makes the names in a folder durable; an empty path is the working directory.
///
/// # Errors
/// What the system says.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let here = Path::new(".");
    let path = if path.as_os_str().is_empty() {
        here
    } else {
        path
    };
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn missing_folders_are_made_for_their_owner_and_others_stay() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b/c");
        make_folder(&path).unwrap();
        make_folder(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(path.join("file"), "x").unwrap();
        assert!(make_folder(&path.join("file")).is_err());
        assert!(make_folder(&path.join("file/below")).is_err());
    }
}
