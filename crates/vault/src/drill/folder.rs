//! The drill's own folder: made for one drill, and the only thing that a drill ever removes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_core::SourceName;

use super::DrillError;
use super::server::Server;

/// Every folder that a drill makes or removes begins with this.
pub(super) const PREFIX: &str = "holdfast-drill-";
/// Where drills go when the server's account cannot reach the vault's own state.
const FALLBACK: &str = "/var/tmp";
/// The file that the drill holds locked: whoever can lock it knows that the drill is gone.
const OWNER: &str = ".owner";
/// Where the restored data directory is in a drill's folder.
pub(super) const DATA: &str = "data";
/// The longest path of a folder for sockets; the system allows 107 bytes with the socket's name.
const SOCKET_FOLDER_BYTES: usize = 85;

/// The account that runs a restored server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// Finds the account that servers run as: `None` when we may run them as ourselves.
pub(super) fn account(wished: Option<&str>) -> Option<Account> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let name = wished.unwrap_or("postgres");
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        is_it.then_some(Account { user, group })
    })
}

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    device: u64,
    inode: u64,
    _owner: File,
}

impl Folder {
    /// Makes a new folder below the first of `parents` that `account` can reach.
    pub(super) fn make(
        wished: &Path,
        source: &SourceName,
        account: Option<Account>,
    ) -> Result<Self, DrillError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| DrillError::Folder { step, path, source }
        };
        let mut random = [0_u8; 6];
        getrandom::fill(&mut random)
            .map_err(|error| failed("name a folder in", wished)(io::Error::other(error)))?;
        let name = format!(
            "{PREFIX}{source}-{}",
            data_encoding::HEXLOWER.encode(&random)
        );
        // A wished folder that cannot be made is told only when nobody could use it anyway.
        let made = std::fs::create_dir_all(wished);
        let fits = wished.as_os_str().len() + name.len() < SOCKET_FOLDER_BYTES;
        let parent = if made.is_ok() && fits && reaches(wished, account) {
            wished
        } else {
            Path::new(FALLBACK)
        };
        let path = parent.join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(failed("make", &path))?;
        let facts = std::fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
        let owner = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path.join(OWNER))
            .and_then(|owner| owner.lock().map(|()| owner));
        let folder = Self {
            _owner: owner.map_err(failed("lock", &path))?,
            path,
            device: facts.dev(),
            inode: facts.ino(),
        };
        if let Some(account) = account {
            std::os::unix::fs::lchown(&folder.path, Some(account.user), Some(account.group))
                .map_err(failed("give away", &folder.path))?;
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder if it is still the one that was made here.
    fn remove(&self) -> io::Result<()> {
        let facts = std::fs::symlink_metadata(&self.path)?;
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = name.starts_with(PREFIX)
            && facts.is_dir()
            && (facts.dev(), facts.ino()) == (self.device, self.inode);
        if is_ours {
            std::fs::remove_dir_all(&self.path)
        } else {
            Err(io::Error::other("it is no longer the folder that was made"))
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            let path = self.path.display().to_string();
            tracing::warn!(path, %error, "the drill's folder stays: remove it by hand");
        }
    }
}

/// Stops the servers and removes the folders of drills whose vault was killed; returns how many.
///
/// A folder counts as one only when the file in it that its drill held locked is ours and free.
pub(super) fn sweep(wished: &Path) -> u32 {
    let mut swept = 0_u32;
    for parent in [wished, Path::new(FALLBACK)] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_drill = entry.file_name().to_string_lossy().starts_with(PREFIX);
            let Some(owner) = is_drill.then(|| abandoned(&path)).flatten() else {
                continue;
            };
            let Ok(facts) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            let folder = Folder {
                device: facts.dev(),
                inode: facts.ino(),
                path,
                _owner: owner,
            };
            // Dropped in this order: the server ends before its files go.
            let server = Server::on(&folder.path.join(DATA));
            server.end_strays();
            drop(server);
            if let Err(error) = crate::mount::sweep(&folder.path) {
                tracing::warn!(%error, "a drill's mount cannot be detached");
            }
            drop(folder);
            swept = swept.saturating_add(1);
        }
    }
    swept
}

/// Locks a folder's file when its drill is gone and it is our own.
fn abandoned(path: &Path) -> Option<File> {
    let facts = std::fs::symlink_metadata(path.join(OWNER)).ok()?;
    let is_ours = facts.is_file() && facts.uid() == rustix::process::geteuid().as_raw();
    let owner = is_ours.then(|| File::open(path.join(OWNER)))?.ok()?;
    owner.try_lock().ok()?;
    Some(owner)
}

/// Whether the account may enter every folder on the way, as far as the permission bits say.
fn reaches(path: &Path, account: Option<Account>) -> bool {
    let Some(account) = account else {
        return true;
    };
    path.ancestors()
        .filter(|folder| !folder.as_os_str().is_empty())
        .all(|folder| {
            std::fs::metadata(folder).is_ok_and(|facts| {
                let mode = facts.mode();
                mode & 0o001 != 0
                    || (facts.uid() == account.user && mode & 0o100 != 0)
                    || (facts.gid() == account.group && mode & 0o010 != 0)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_removed_only_while_it_is_the_one_that_was_made() {
        let parent = tempfile::tempdir_in("/tmp").unwrap();
        let source: SourceName = "prod".parse().unwrap();
        let folder = Folder::make(parent.path(), &source, None).unwrap();
        let path = folder.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());

        let folder = Folder::make(parent.path(), &source, None).unwrap();
        let path = folder.path().to_owned();
        std::fs::rename(&path, parent.path().join("moved")).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("precious"), "x").unwrap();
        drop(folder);
        assert!(path.join("precious").exists());

        let folder = Folder::make(parent.path(), &source, None).unwrap();
        let path = folder.path().to_owned();
        std::fs::rename(&path, parent.path().join("moved2")).unwrap();
        std::os::unix::fs::symlink(parent.path(), &path).unwrap();
        drop(folder);
        assert!(parent.path().join("moved2").exists());
    }

    #[test]
    fn the_folder_of_a_drill_that_is_gone_is_swept_and_others_stay() {
        let parent = tempfile::tempdir_in("/tmp").unwrap();
        let source: SourceName = "prod".parse().unwrap();
        let running = Folder::make(parent.path(), &source, None).unwrap();
        let gone = parent.path().join(format!("{PREFIX}prod-0123"));
        std::fs::create_dir(&gone).unwrap();
        std::fs::write(gone.join(OWNER), "").unwrap();
        let foreign = parent.path().join(format!("{PREFIX}prod-4567"));
        std::fs::create_dir(&foreign).unwrap();
        sweep(parent.path());
        assert!(running.path().exists());
        assert!(!gone.exists());
        assert!(foreign.exists());
    }

    #[test]
    fn a_folder_that_the_account_cannot_reach_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir_in("/tmp").unwrap();
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(parent.path(), closed).unwrap();
        let nobody = Account {
            user: 65_533,
            group: 65_533,
        };
        assert!(!reaches(parent.path(), Some(nobody)));
        assert!(reaches(Path::new("/var/tmp"), Some(nobody)));
        assert!(reaches(parent.path(), None));
    }
}
