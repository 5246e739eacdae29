//! A server that follows the log: its files are laid from a restore point, its log is brought bit by bit.
//!
//! Its settings are those of a restored server. What makes it follow instead is given on its command
//! line and in one file of its own, so that what is promoted is a restored server like any other.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use holdfast_core::{ByteCount, SourceName};
use holdfast_wire::pg::control::ControlFile;
use holdfast_wire::pg::replication::quote_literal;

use super::files::{self, Owner, create_or_empty, failed, own};
use super::ground::Ground;
use super::plan::{Plan, Stop};
use super::programs::{self, Programs, command};
use super::settings::{self, Home, Wanted};
use super::{Place, RestoreError, RestoreRequest, RestoreTarget, Start, Ways, room, server};
use super::{outside, superuser};
use crate::config::system_clock;
use crate::limits;
use crate::repository::BaseSummary;
use crate::watch::CutAt;

/// Who may log in while the server follows; it is written anew when the server is handed over.
pub(crate) const MIRROR_HBA: &str = "holdfast_mirror_hba.conf";
/// The same after a restart of a server that was handed over.
const HBA: &str = "holdfast_hba.conf";
/// Nobody but whoever can enter the private folder of the local socket.
const CLOSED: &str = "# Written by holdfast: this server follows the log and serves nobody.\n\
    local all all trust\n";

/// A data directory that follows, and what runs it.
#[derive(Clone, Debug)]
pub(crate) struct Standby {
    pub(crate) data: PathBuf,
    major: u32,
    programs: Programs,
}

/// Writes the files of the newest restore point that the log continues, without any log; `reserve` stays
/// free on the disk.
///
/// # Errors
/// As a restore. What was written stays.
pub(crate) fn lay(
    place: &Place,
    (source, reserve): (&SourceName, ByteCount),
    into: &Path,
    each: &(dyn Fn(u64) + Sync),
) -> Result<BaseSummary, RestoreError> {
    outside::check(into, place)?;
    let start = Start::Yes { port: None };
    let request = RestoreRequest::new(
        source.clone(),
        RestoreTarget::Latest,
        into.to_owned(),
        start,
    );
    let plan = Plan::make(place, &request, system_clock()(), None)?;
    let needed = plan.base.bytes.0.saturating_add(plan.log_bytes());
    room::check(into, needed.saturating_add(reserve.0))?;
    let standby = Standby::find(place, into, plan.base.major)?;
    let ways = Ways::default();
    let ground = Ground::new(into, standby.owner(), &ways);
    files::make_directory(into, ground.owner)?;
    files::write_all(&plan.point, &ground, each)?;
    let sockets = server::socket_folder(into, &standby.programs)?;
    let wanted = Wanted {
        home: Home::Here {
            directory: into,
            port: server::choose_port(None, into)?,
            sockets: &sockets,
        },
        major: plan.base.major,
        minor: standby.programs.minor,
        timeline: plan.base.timeline,
        stop: Stop::End,
        libraries: &standby.programs.libraries(),
    };
    settings::write(&ground, &wanted)?;
    let (recovery, follow) = (into.join("recovery.signal"), into.join("standby.signal"));
    fs::rename(&recovery, &follow).map_err(|source| failed("rename", &recovery, source))?;
    standby.replace(MIRROR_HBA, CLOSED)?;
    Ok(plan.base)
}

/// Finds where a server that follows must stop so that a request is met, and on which timeline.
///
/// # Errors
/// As a restore; nothing is written.
pub(crate) fn aim(place: &Place, request: &RestoreRequest) -> Result<(CutAt, u32), RestoreError> {
    let plan = Plan::make(place, request, system_clock()(), None)?;
    let cut = match plan.stop {
        Stop::Before(lsn) => CutAt::Before(lsn),
        Stop::End => CutAt::Never,
        Stop::Lsn(lsn) => CutAt::After(lsn),
        Stop::Time(time) => CutAt::Time(time),
    };
    Ok((cut, plan.timeline()))
}

impl Standby {
    /// Finds what runs a data directory of a major version.
    pub(crate) fn find(place: &Place, data: &Path, major: u32) -> Result<Self, RestoreError> {
        let account = programs::account(&place.postgres, data)?;
        if let Some(account) = &account {
            programs::check_reach(account, data)?;
        }
        Ok(Self {
            data: data.to_owned(),
            major,
            programs: programs::find(&place.postgres, major, account)?,
        })
    }

    fn owner(&self) -> Owner {
        programs::owner(self.programs.account.as_ref())
    }

    /// Reads the control file, and again while it is being written.
    pub(crate) fn control(&self) -> Result<ControlFile, RestoreError> {
        let path = self.data.join("global/pg_control");
        let mut last = String::new();
        for _ in 0..limits::CONTROL_TRIES {
            let bytes = fs::read(&path).map_err(|source| failed("read", &path, source))?;
            match ControlFile::parse(&bytes) {
                Ok(control) => return Ok(control),
                Err(error) => last = error.to_string(),
            }
        }
        Err(failed("read", &path, io::Error::other(last)))
    }

    /// Starts the server in a session of its own: it follows what is put into its log.
    pub(crate) fn start(&self) -> Result<Child, RestoreError> {
        let control = self.control()?;
        let port = server::choose_port(None, &self.data)?;
        let sockets = server::socket_folder(&self.data, &self.programs)?;
        let log = self.data.join(server::LOG);
        let out = create_or_empty(&log, self.owner())?;
        let err = out
            .try_clone()
            .map_err(|source| failed("share", &log, source))?;
        let postgres = self.programs.bin.join("postgres");
        let account = self.programs.account.as_ref();
        let setsid = ["/usr/bin/setsid", "/bin/setsid"];
        let setsid = setsid.into_iter().find(|path| Path::new(path).is_file());
        let mut starting = match setsid {
            Some(setsid) => {
                let mut starting = command(OsStr::new(setsid), account);
                starting.arg(&postgres);
                starting
            }
            None => command(postgres.as_os_str(), account),
        };
        starting.arg("-D").arg(&self.data);
        for (name, value) in self.overrides(&control, port, &sockets) {
            starting.arg("-c").arg(format!("{name}={value}"));
        }
        starting
            .stdout(Stdio::from(out))
            .stderr(Stdio::from(err))
            .spawn()
            .map_err(|source| failed("start", &postgres, source))
    }

    /// Returns what makes a restored server follow the log instead.
    fn overrides(&self, control: &ControlFile, port: u16, sockets: &Path) -> Vec<(String, String)> {
        let fixed = [
            ("hot_standby", "on"),
            ("restore_command", ""),
            ("recovery_target_timeline", "latest"),
            // How often it looks for more log.
            ("wal_retrieve_retry_interval", "10ms"),
            // A file that is there holds what was put there and nothing older.
            ("wal_recycle", "off"),
            // A seal reads while the log goes on; replay waits for one of its questions at most.
            ("max_standby_archive_delay", "-1"),
            ("max_standby_streaming_delay", "-1"),
        ];
        let mut all: Vec<(String, String)> = fixed
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        if cfg!(target_os = "linux") && self.major >= 14 {
            all.push(("recovery_init_sync_method".to_owned(), "syncfs".to_owned()));
        }
        let needs = control.needs.settings().into_iter();
        all.extend(needs.map(|(name, value)| (name.to_owned(), value.to_string())));
        all.extend([
            ("port".to_owned(), port.to_string()),
            (
                "unix_socket_directories".to_owned(),
                sockets.display().to_string(),
            ),
            (
                "hba_file".to_owned(),
                self.data.join(MIRROR_HBA).display().to_string(),
            ),
        ]);
        all
    }

    /// Puts a part of the log where the server looks for it; a file has its whole length at once.
    pub(crate) fn put_log(
        &self,
        name: &str,
        (offset, bytes): (u64, &[u8]),
        length: u64,
    ) -> Result<(), RestoreError> {
        let path = self.data.join("pg_wal").join(name);
        let file = self.open_log(&path, length)?;
        file.write_all_at(bytes, offset)
            .map_err(|source| failed("write", &path, source))
    }

    fn open_log(&self, path: &Path, length: u64) -> Result<File, RestoreError> {
        let open = || OpenOptions::new().write(true).open(path);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let fresh = path.with_extension("holdfast");
                let file = create_or_empty(&fresh, self.owner())?;
                files::fit(&file, path, length)?;
                fs::rename(&fresh, path).map_err(|source| failed("make", path, source))?;
                Ok(file)
            }
            opened => opened.map_err(|source| failed("open", path, source)),
        }
    }

    /// Puts the history of a timeline where the server looks for it.
    pub(crate) fn put_history(&self, timeline: u32, text: &[u8]) -> Result<(), RestoreError> {
        self.put_whole(&format!("pg_wal/{timeline:08X}.history"), text)
    }

    fn replace(&self, name: &str, text: &str) -> Result<(), RestoreError> {
        self.put_whole(name, text.as_bytes())
    }

    fn put_whole(&self, name: &str, text: &[u8]) -> Result<(), RestoreError> {
        let (path, fresh) = (
            self.data.join(name),
            self.data.join(format!("{name}.holdfast")),
        );
        let mut file = create_or_empty(&fresh, self.owner())?;
        file.write_all(text)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| failed("write", &path, source))
    }

    /// Tells who may log in from now on, and makes what was given on the command line last.
    pub(crate) fn hand_over(&self, port: u16, sockets: &Path) -> Result<(), RestoreError> {
        for name in [MIRROR_HBA, HBA] {
            self.replace(name, settings::ADMITTED)?;
        }
        let path = self.data.join("postgresql.auto.conf");
        let needs = self.control()?.needs.settings().into_iter();
        let mut text = String::from("# Written by holdfast when this server was handed over.\n");
        for (name, value) in [
            ("port", port.to_string()),
            ("unix_socket_directories", sockets.display().to_string()),
        ]
        .into_iter()
        .chain(needs.map(|(name, value)| (name, value.to_string())))
        {
            text.push_str(&format!("{name} = {}\n", quote_literal(&value)));
        }
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .map_err(|source| failed("write", &path, source))?;
        own(&path, self.owner())
    }

    /// Returns the names that the first superuser has or had.
    pub(crate) fn superusers(&self) -> Vec<String> {
        superuser::names(&self.data)
    }
}
