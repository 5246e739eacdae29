//! The process that serves a mount: named in the system's table of mounts, and asked there whether it
//! still lives, without touching the mount.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

/// SOURCE: Linux, `include/linux/sched.h`: `PF_EXITING`.
const EXITING: u64 = 0x4;
/// `SIGKILL` in the masks of `/proc/PID/status`.
const KILLED: u64 = 1 << 8;

/// A process, and no other that has its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Where its number counts.
    namespace: u64,
    process: u32,
    /// When it began, in ticks since the machine did.
    began: u64,
}

/// What the system says of a process.
struct Said {
    began: u64,
    is_ending: bool,
}

impl Holder {
    /// This process.
    pub(super) fn own() -> io::Result<Self> {
        let process = std::process::id();
        let said = Said::of(process)?;
        Ok(Self {
            namespace: namespace()?,
            process,
            began: said.began,
        })
    }

    /// Tells whether it is this process.
    pub(super) fn is_own(self) -> bool {
        Self::own().is_ok_and(|own| own == self)
    }

    /// Tells whether it is gone, or was killed and has not ended yet; `None` when that cannot be seen
    /// from here.
    pub(super) fn is_over(self) -> Option<bool> {
        if namespace().ok()? != self.namespace {
            return None;
        }
        match Said::of(self.process) {
            Ok(said) => Some(said.began != self.began || said.is_ending),
            Err(error) => {
                let gone = rustix::io::Errno::SRCH.raw_os_error();
                let is_gone =
                    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(gone);
                is_gone.then_some(true)
            }
        }
    }
}

impl Said {
    /// Neither file waits for the process's memory, which a thread that is stuck may hold.
    fn of(process: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        Self::read(&stat, &status).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// SOURCE: `proc_pid_stat(5)`, `proc_pid_status(5)`. A program's name may have blanks and brackets.
    fn read(stat: &str, status: &str) -> Option<Self> {
        let (_, after) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = after.split(' ').collect();
        let state = *fields.first()?;
        let flags: u64 = fields.get(6)?.parse().ok()?;
        let of = |name: &str| {
            let mut values = status.lines().filter_map(|line| line.strip_prefix(name));
            values.next().map(str::trim)
        };
        let is_killed = ["SigPnd:", "ShdPnd:"].into_iter().any(|name| {
            let mask = of(name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
            mask.is_some_and(|mask| mask & KILLED != 0)
        });
        Some(Self {
            began: fields.get(19)?.parse().ok()?,
            is_ending: matches!(state, "Z" | "X")
                || flags & EXITING != 0
                || is_killed
                || of("CoreDumping:") == Some("1"),
        })
    }
}

fn namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.namespace, self.process, self.began)
    }
}

impl FromStr for Holder {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let read = || {
            let (namespace, rest) = text.split_once(':')?;
            let (process, began) = rest.split_once(':')?;
            Some(Self {
                namespace: namespace.parse().ok()?,
                process: process.parse().ok()?,
                began: began.parse().ok()?,
            })
        };
        read().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_was_killed_or_has_another_beginning_is_over() {
        let own = Holder::own().unwrap();
        assert_eq!(own.is_over(), Some(false));
        assert_eq!(own.to_string().parse::<Holder>().unwrap(), own);
        let later = Holder {
            began: own.began + 1,
            ..own
        };
        assert_eq!(later.is_over(), Some(true));
        let elsewhere = Holder {
            namespace: own.namespace + 1,
            ..own
        };
        assert_eq!(elsewhere.is_over(), None);

        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let of = Holder {
            process: child.id(),
            began: Said::of(child.id()).unwrap().began,
            ..own
        };
        assert_eq!(of.is_over(), Some(false));
        child.kill().unwrap();
        // From here on, before it is reaped and after.
        assert_eq!(of.is_over(), Some(true));
        child.wait().unwrap();
        assert_eq!(of.is_over(), Some(true));
        for text in ["", "1:2", "1:2:x", "1:-2:3", "1:2:3:4"] {
            assert!(text.parse::<Holder>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_system_says_of_a_process_is_read_whatever_its_name() {
        let stat = |state: &str, flags: u64| {
            format!(
                "7 (a) Z 1 (b)) {state} 1 2 3 4 5 {flags} 7 8 9 10 11 12 13 14 15 16 17 18 4711 0"
            )
        };
        let status = |mask: &str| format!("Name:\ta\nSigPnd:\t{mask}\nShdPnd:\t0000000000000000\n");
        let none = status("0000000000000000");
        let is_ending = |stat: &str, status: &str| {
            let said = Said::read(stat, status).unwrap();
            assert_eq!(said.began, 4711);
            said.is_ending
        };
        assert!(!is_ending(&stat("D", 0x40), &none));
        assert!(is_ending(&stat("Z", 0x40), &none));
        assert!(is_ending(&stat("D", 0x44), &none));
        assert!(is_ending(&stat("D", 0x40), &status("0000000000000100")));
        assert!(!is_ending(&stat("D", 0x40), &status("0000000000000200")));
        assert!(Said::read("7 (a) S 1", &none).is_none());
    }
}
