//! Keeping a server in: its own network without any interface, its own files, its own processes.
//!
//! A thread takes itself away from the rest of the machine and then starts the server, which inherits
//! all of it. The rest of the process stays where it is, and when the server's last process ends the
//! kernel takes the namespaces and their mounts back.

use std::path::PathBuf;

/// What a confined server may see.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// An empty folder, over which its files are laid.
    pub(super) root: PathBuf,
    /// What it may read and write.
    pub(super) writable: Vec<PathBuf>,
    /// What it may read beside the system's programs and libraries.
    pub(super) readable: Vec<PathBuf>,
    /// What its shared memory may take, in bytes.
    pub(super) memory_max: u64,
}

#[cfg(target_os = "linux")]
pub(super) use linux::enter;

#[cfg(not(target_os = "linux"))]
pub(super) fn enter(_room: &Room) -> Result<Vec<String>, String> {
    Err("only Linux keeps a server in".to_owned())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};

    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
        RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
    };
    use nix::sched::{CloneFlags, unshare};
    use rustix::mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, mount_remount, unmount,
    };
    use rustix::process::{chdir, pivot_root};

    use super::Room;

    /// What a server's programs and libraries need of the system.
    const SYSTEM: [&str; 8] = [
        "/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr",
    ];
    /// Devices that lead nowhere.
    const DEVICES: [&str; 4] = ["null", "random", "urandom", "zero"];

    /// Takes the calling thread, and whatever it starts, away from the machine, and says by what.
    ///
    /// # Errors
    /// What is not possible here. The thread must then start nothing.
    pub(in super::super) fn enter(room: &Room) -> Result<Vec<String>, String> {
        let kinds = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC;
        unshare(kinds).map_err(|errno| format!("no namespaces of its own ({errno})"))?;
        lay_files(room).map_err(|(step, error)| format!("cannot {step} ({error})"))?;
        let mut by = ["network namespace", "mount namespace", "process namespace"].to_vec();
        // The namespaces keep it in; the rules are a second wall where the kernel has them.
        by.extend(lock(room)?);
        Ok(by.into_iter().map(str::to_owned).collect())
    }

    type Step<T> = Result<T, (String, io::Error)>;

    fn step<T, E: Into<io::Error>>(done: Result<T, E>, what: &str, path: &Path) -> Step<T> {
        done.map_err(|error| (format!("{what} `{}`", path.display()), error.into()))
    }

    /// Lays an own tree of files and makes it all that there is.
    fn lay_files(room: &Room) -> Step<()> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        step(mount_change("/", private), "part", Path::new("/"))?;
        let root = room.root.as_path();
        tmpfs(root, "mode=0755,size=16m")?;
        for path in SYSTEM.map(Path::new) {
            lay_system(root, path)?;
        }
        // Before what may lie in it.
        let scratch = root.join("tmp");
        step(fs::create_dir(&scratch), "make", &scratch)?;
        tmpfs(&scratch, "mode=1777,size=64m")?;
        for path in &room.readable {
            read_only(path, &inside(root, path))?;
        }
        lay_devices(root, room.memory_max)?;
        for path in &room.writable {
            let target = inside(root, path);
            step(fs::create_dir_all(&target), "make", &target)?;
            step(mount_bind_recursive(path, &target), "bind", path)?;
        }
        step(chdir(root), "enter", root)?;
        // The old tree comes to lie over the new one, and is taken away.
        step(pivot_root(".", "."), "change to", root)?;
        step(unmount(".", UnmountFlags::DETACH), "leave", Path::new("/"))?;
        step(chdir("/"), "enter", Path::new("/"))
    }

    fn inside(root: &Path, path: &Path) -> PathBuf {
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn tmpfs(path: &Path, options: &str) -> Step<()> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let options = std::ffi::CString::new(options).unwrap_or_default();
        let made = mount("tmpfs", path, "tmpfs", flags, options.as_c_str());
        step(made, "make a file system at", path)
    }

    fn lay_system(root: &Path, path: &Path) -> Step<()> {
        let target = inside(root, path);
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => {
                let to = step(fs::read_link(path), "read", path)?;
                step(std::os::unix::fs::symlink(to, &target), "link", &target)
            }
            Ok(found) if found.is_dir() => read_only(path, &target),
            _ => Ok(()),
        }
    }

    fn read_only(path: &Path, target: &Path) -> Step<()> {
        if target.exists()
            && target.symlink_metadata().is_ok_and(|found| found.is_dir())
            && fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some())
        {
            // It lies in what is there already.
            return Ok(());
        }
        step(fs::create_dir_all(target), "make", target)?;
        step(mount_bind(path, target), "bind", path)?;
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        step(mount_remount(target, flags, ""), "protect", target)
    }

    fn lay_devices(root: &Path, memory_max: u64) -> Step<()> {
        let folder = root.join("dev");
        step(fs::create_dir(&folder), "make", &folder)?;
        for name in DEVICES {
            let (from, to) = (Path::new("/dev").join(name), folder.join(name));
            step(fs::write(&to, ""), "make", &to)?;
            step(mount_bind(&from, &to), "bind", &from)?;
        }
        let shared = folder.join("shm");
        step(fs::create_dir(&shared), "make", &shared)?;
        tmpfs(&shared, &format!("mode=1777,size={memory_max}"))
    }

    /// Forbids by rules as well what the tree of files does not show.
    fn lock(room: &Room) -> Result<Option<&'static str>, String> {
        let abi = ABI::V6;
        let mut writable: Vec<PathBuf> = room.writable.clone();
        writable.extend(["/dev", "/tmp"].map(PathBuf::from));
        let ruled = || -> Result<_, landlock::RulesetError> {
            Ruleset::default()
                .set_compatibility(CompatLevel::BestEffort)
                .handle_access(AccessFs::from_all(abi))?
                .handle_access(AccessNet::from_all(abi))?
                .scope(Scope::from_all(abi))?
                .create()?
                .add_rules(path_beneath_rules(["/"], AccessFs::from_read(abi)))?
                .add_rules(path_beneath_rules(&writable, AccessFs::from_all(abi)))?
                .restrict_self()
        };
        match ruled() {
            Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Ok(Some("landlock")),
            Ok(_) => Ok(None),
            Err(error) => Err(format!("Landlock refuses ({error})")),
        }
    }
}
