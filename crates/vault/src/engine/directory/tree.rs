//! Going through a directory: in the order of a restore point's paths, following no link.
//!
//! Everything is opened beside the folder it was found in, never by a path from the top, so that a
//! folder that somebody swaps for a link meanwhile leads nowhere.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, open, openat, statat};
use rustix::io::Errno;

use super::names::encode;

/// How folders are opened.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Something that lies in the directory.
pub(super) struct Found {
    /// Its path as it is kept.
    pub(super) path: String,
    /// The folder it lies in.
    pub(super) folder: Arc<OwnedFd>,
    /// Its name there.
    pub(super) name: OsString,
    pub(super) stat: Stat,
}

/// What came next.
pub(super) enum Next {
    Found(Found),
    /// It is there and cannot be read.
    Unreadable {
        path: String,
        why: String,
    },
}

/// The walk: a stack of folders, each with what is left of it.
pub(super) struct Tree {
    device: u64,
    stack: Vec<Level>,
}

struct Level {
    folder: Arc<OwnedFd>,
    /// The path of the folder with a slash at its end; empty at the top.
    prefix: String,
    /// In reverse order.
    items: Vec<Item>,
}

enum Item {
    /// The thing itself.
    Thing {
        name: OsString,
        kept: String,
        stat: Stat,
    },
    /// What lies in a folder, in its place among the paths.
    Within { name: OsString, kept: String },
    /// It cannot even be looked at.
    Unreadable { kept: String, why: Errno },
}

impl Tree {
    /// Opens the directory.
    pub(super) fn open(directory: &Path) -> Result<Self, Errno> {
        // The directory itself may be named by a link: a person wrote it down.
        let top = open(
            directory,
            FOLDER.difference(OFlags::NOFOLLOW),
            Mode::empty(),
        )?;
        let device = fstat(&top)?.st_dev;
        let level = Level::read(Arc::new(top), String::new())?;
        Ok(Self {
            device,
            stack: vec![level],
        })
    }

    /// Returns what comes next in the order of paths; what vanishes meanwhile is passed over.
    pub(super) fn next(&mut self) -> Option<Next> {
        loop {
            let level = self.stack.last_mut()?;
            let Some(item) = level.items.pop() else {
                self.stack.pop();
                continue;
            };
            match item {
                Item::Thing { name, kept, stat } => {
                    return Some(Next::Found(Found {
                        path: format!("{}{kept}", level.prefix),
                        folder: Arc::clone(&level.folder),
                        name,
                        stat,
                    }));
                }
                Item::Within { name, kept } => {
                    let prefix = format!("{}{kept}/", level.prefix);
                    let folder = Arc::clone(&level.folder);
                    if let Some(why) = self.enter(&folder, &name, prefix.clone()) {
                        let path = prefix.trim_end_matches('/').to_owned();
                        return Some(Next::Unreadable { path, why });
                    }
                }
                Item::Unreadable { kept, why } => {
                    return Some(Next::Unreadable {
                        path: format!("{}{kept}", level.prefix),
                        why: why.to_string(),
                    });
                }
            }
        }
    }

    /// Goes into a folder; returns why not when it is there and cannot be entered.
    fn enter(&mut self, folder: &OwnedFd, name: &OsStr, prefix: String) -> Option<String> {
        let opened = openat(folder, name, FOLDER, Mode::empty());
        let entered = opened.and_then(|folder| {
            if fstat(&folder)?.st_dev == self.device {
                Level::read(Arc::new(folder), prefix).map(Some)
            } else {
                Ok(None)
            }
        });
        match entered {
            Ok(Some(level)) => {
                self.stack.push(level);
                None
            }
            Ok(None) => Some("another file system is mounted there".to_owned()),
            // It was removed, or swapped for something else, since its folder was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
            Err(errno) => Some(errno.to_string()),
        }
    }
}

impl Level {
    fn read(folder: Arc<OwnedFd>, prefix: String) -> Result<Self, Errno> {
        let mut items: Vec<(String, Item)> = Vec::new();
        for entry in Dir::read_from(folder.as_fd())? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if matches!(bytes, b"." | b"..") {
                continue;
            }
            let name = OsStr::from_bytes(bytes).to_owned();
            let kept = encode(&name);
            match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        let within = Item::Within {
                            name: name.clone(),
                            kept: kept.clone(),
                        };
                        items.push((format!("{kept}/"), within));
                    }
                    items.push((kept.clone(), Item::Thing { name, kept, stat }));
                }
                Err(Errno::NOENT) => {}
                Err(why) => items.push((kept.clone(), Item::Unreadable { kept, why })),
            }
        }
        // `a.txt` comes between `a` and `a/b`: that is the order of the paths' bytes.
        items.sort_by(|(a, _), (b, _)| b.as_bytes().cmp(a.as_bytes()));
        Ok(Self {
            folder,
            prefix,
            items: items.into_iter().map(|(_, item)| item).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn paths_come_in_the_order_of_their_bytes_and_links_lead_nowhere() {
        let top = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        for folder in ["a", "a/b", "z"] {
            fs::create_dir(top.path().join(folder)).unwrap();
        }
        for file in ["a.txt", "a/b/c", "a/b.c", "a-b", "z/1"] {
            fs::write(top.path().join(file), file).unwrap();
        }
        std::os::unix::fs::symlink(outside.path(), top.path().join("m")).unwrap();
        let mut tree = Tree::open(top.path()).unwrap();
        let mut paths = Vec::new();
        while let Some(next) = tree.next() {
            let Next::Found(found) = next else { panic!() };
            paths.push(found.path);
        }
        let mut sorted = paths.clone();
        sorted.sort();
        assert_eq!(paths, sorted);
        assert_eq!(
            paths,
            [
                "a", "a-b", "a.txt", "a/b", "a/b.c", "a/b/c", "m", "z", "z/1"
            ]
        );
    }
}
