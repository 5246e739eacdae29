//! Writing a restore point as a tar archive, from front to end and without a place of its own.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use data_encoding::HEXLOWER;
use holdfast_core::{ByteCount, Timestamp};
use holdfast_wire::tar::{self, Entry, EntryKind};

use super::super::content::{Content, Out};
use super::super::files::{NEEDED_FOLDERS, is_left_out};
use super::super::ground::Counts;
use super::super::log::{self, LogSink};
use super::super::plan::Plan;
use super::super::run::{choose_programs, ends_before, settled_stop};
use super::super::settings::{self, Before, Home, Wanted};
use super::super::{Place, Progress, ProgressFn, RestoreError, RestorePhase, directory, room};
use super::{ExportRequest, Exported, asked};
use crate::config::system_clock;
use crate::engine::directory::decode;
use crate::limits;
use crate::repository::{FileMeta, FileRecord, Point, Reader, RecordKind};

/// Who owns the files of a cluster by name, where there is such an account.
const OWNER: &str = "postgres";

/// Writes an archive; `disk` is where it will lie, when that is known.
pub(super) fn write(
    (place, request): (&Place, &ExportRequest),
    (writer, name): (&mut dyn Write, &Path),
    disk: Option<&Path>,
    progress: &ProgressFn,
) -> Result<Exported, RestoreError> {
    let failure = |source| RestoreError::Archive {
        path: name.to_owned(),
        source,
    };
    let work = Work {
        place,
        request,
        disk,
        progress,
        began: Instant::now(),
    };
    match directory::is_directory(place, &request.source)? {
        true => work.directory((writer, &failure)),
        false => work.cluster((writer, &failure)),
    }
}

type Writer<'a> = (
    &'a mut dyn Write,
    &'a dyn Fn(std::io::Error) -> RestoreError,
);

/// What is to be archived.
struct Work<'a> {
    place: &'a Place,
    request: &'a ExportRequest,
    disk: Option<&'a Path>,
    progress: &'a ProgressFn,
    began: Instant,
}

impl Work<'_> {
    /// Refuses an archive that its disk has no room for; headers and paddings come on top of `bytes`.
    fn check_room(&self, bytes: u64, files: u64) -> Result<(), RestoreError> {
        let each = u64::try_from(tar::BLOCK).unwrap_or(512).saturating_mul(2);
        let needed = bytes.saturating_add(files.saturating_mul(each));
        match self.disk {
            Some(disk) => room::check(disk, needed),
            None => Ok(()),
        }
    }

    fn tell(&self, done: &std::cell::Cell<u64>, bytes: u64, total: u64) {
        let sum = done.get().saturating_add(bytes);
        // A megabyte at a time: archives are made of many small pieces.
        if sum >> 20 != done.get() >> 20 {
            (self.progress)(Progress {
                phase: RestorePhase::Files,
                done: ByteCount(sum),
                total: ByteCount(total.max(sum)),
                elapsed: self.began.elapsed(),
            });
        }
        done.set(sum);
    }

    fn directory(&self, (writer, failure): Writer<'_>) -> Result<Exported, RestoreError> {
        let reader = Reader::open(
            &self.place.repository,
            self.place.vault_key,
            &self.place.keys,
        )?;
        let points = reader.points(&self.request.source)?;
        let chosen = directory::choose(&points, (&self.request.source, &self.request.at))?;
        let point = reader.point(&self.request.source, &chosen.point)?;
        let summary = point.summary();
        self.check_room(summary.bytes.0, summary.files)?;
        let done = std::cell::Cell::new(0);
        let each = |bytes| self.tell(&done, bytes, summary.bytes.0);
        let mut out = Out::new(writer, failure, &each);
        let mut archive = Archive {
            out: &mut out,
            at: summary.began,
        };
        archive.contents(&point, &mut |path, record| {
            (record.kind != RecordKind::Hardlink).then(|| of_directory(path, record))
        })?;
        // A link to a file can only be made when the file is there.
        for named in point.files() {
            let (path, record) = named?;
            if record.kind == RecordKind::Hardlink {
                archive.begin(&of_directory(&path, &record))?;
            }
        }
        archive.out.put(&tar::END)?;
        archive.out.end()?;
        Ok(Exported {
            source: self.request.source.clone(),
            point: summary.point.clone(),
            at: self.request.at.to_string(),
            timeline: None,
            wal_end: None,
            newest: Some(summary.began),
            notes: Vec::new(),
            bytes: ByteCount(out.written),
            verified: None,
            to: None,
        })
    }

    fn cluster(&self, (writer, failure): Writer<'_>) -> Result<Exported, RestoreError> {
        // Programs tell minor version and libraries; where they lie does not matter.
        let asked = asked(self.request, self.disk.unwrap_or(Path::new("/")));
        let plan = Plan::make(self.place, &asked, system_clock()(), None)?;
        let programs = choose_programs(self.place, &asked, plan.base.major)?;
        let total = plan.base.bytes.0.saturating_add(plan.log_bytes());
        self.check_room(total, plan.point.summary().files)?;
        let done = std::cell::Cell::new(0);
        let each = |bytes| self.tell(&done, bytes, total);
        let mut out = Out::new(writer, failure, &each);
        let mut archive = Archive {
            out: &mut out,
            at: plan.base.at,
        };
        archive.begin(&of_cluster(".", EntryKind::Directory))?;
        for folder in NEEDED_FOLDERS {
            archive.begin(&of_cluster(folder, EntryKind::Directory))?;
        }
        archive.contents(&plan.point, &mut |path, record| match record.kind {
            RecordKind::Hardlink | RecordKind::Symlink => None,
            RecordKind::Directory if NEEDED_FOLDERS.contains(&path) => None,
            RecordKind::File if is_left_out(path) || settings::is_written(path) => None,
            RecordKind::Directory => Some(of_cluster(path, EntryKind::Directory)),
            RecordKind::File => Some(of_cluster(path, EntryKind::File { size: record.size })),
        })?;
        let brought = log::bring(&plan, &mut archive, &Counts::default(), &|_| {})?;
        let stop = settled_stop(&plan, &brought, &asked)?;
        let wanted = Wanted {
            home: Home::Anywhere,
            major: plan.base.major,
            minor: programs.minor,
            timeline: plan.timeline(),
            stop,
            libraries: &programs.libraries(),
        };
        let before = Before::read(|name| text(&plan.point, name))?;
        for (name, text) in settings::texts(&wanted, &before) {
            archive.whole(name, text.as_bytes(), text.len())?;
        }
        archive.out.put(&tar::END)?;
        archive.out.end()?;
        let mut notes = plan.notes.clone();
        notes.extend(ends_before(&plan, stop, &brought));
        Ok(Exported {
            source: self.request.source.clone(),
            point: plan.base.point.clone(),
            at: self.request.at.to_string(),
            timeline: Some(plan.timeline()),
            wal_end: Some(brought.end),
            newest: brought.newest_commit,
            notes,
            bytes: ByteCount(out.written),
            verified: None,
            to: None,
        })
    }
}

/// Returns a small text file of a point; what is not there is empty.
fn text(point: &Point, name: &str) -> Result<String, RestoreError> {
    let record = point.file(name)?;
    let Some(record) = record.filter(|record| record.kind == RecordKind::File) else {
        return Ok(String::new());
    };
    let size = usize::try_from(record.size).unwrap_or(usize::MAX);
    let bytes = point.read_at(name, 0, size.min(limits::SETTINGS_BYTES))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An entry with everything that it needs.
struct Owned<'a> {
    path: Vec<u8>,
    kind: RecordKind,
    size: u64,
    target: Vec<u8>,
    mode: u32,
    owner: &'a str,
    meta: FileMeta,
}

fn of_cluster(path: &str, kind: EntryKind<'_>) -> Owned<'static> {
    let (kind, size, mode) = match kind {
        EntryKind::File { size } => (RecordKind::File, size, 0o600),
        _ => (RecordKind::Directory, 0, 0o700),
    };
    Owned {
        path: path.as_bytes().to_vec(),
        kind,
        size,
        target: Vec::new(),
        mode,
        owner: OWNER,
        meta: FileMeta::default(),
    }
}

fn of_directory(path: &str, record: &FileRecord) -> Owned<'static> {
    let bytes = |text: &str| decode(text).into_os_string().into_encoded_bytes();
    Owned {
        path: bytes(path),
        kind: record.kind,
        size: record.size,
        target: bytes(record.target.as_deref().unwrap_or_default()),
        mode: record.mode,
        owner: "",
        meta: record.meta.clone(),
    }
}

/// An archive that is being written.
struct Archive<'a, 'b> {
    out: &'a mut Out<'b>,
    /// The time of everything that has none of its own.
    at: Timestamp,
}

impl Archive<'_, '_> {
    /// Writes everything that `wanted` makes an entry of, with its content.
    fn contents(
        &mut self,
        point: &Point,
        wanted: &mut dyn FnMut(&str, &FileRecord) -> Option<Owned<'static>>,
    ) -> Result<(), RestoreError> {
        let mut content = Content::new(point)?;
        let mut is_open = false;
        for part in point.walk() {
            let part = part?;
            if !part.is_more {
                self.close(&mut content)?;
                let entry = wanted(&part.path, &part.record);
                is_open = entry.is_some() && part.record.kind == RecordKind::File;
                if let Some(entry) = &entry {
                    self.begin(entry)?;
                }
                if is_open {
                    content.begin(part.record.size);
                }
            }
            if is_open {
                content.part(&part, self.out)?;
            }
        }
        self.close(&mut content)
    }

    fn close(&mut self, content: &mut Content<'_>) -> Result<(), RestoreError> {
        match content.end(self.out)? {
            Some(size) => self.pad(size),
            None => Ok(()),
        }
    }

    fn begin(&mut self, entry: &Owned<'_>) -> Result<(), RestoreError> {
        let xattrs = entry.meta.xattrs.iter().map(|(name, value)| {
            let name = decode(name).into_os_string().into_encoded_bytes();
            let value = HEXLOWER.decode(value.as_bytes()).unwrap_or_default();
            (name, value)
        });
        let target = entry.target.as_slice();
        let at = self.at.0.saturating_mul(1000);
        self.out.put(&tar::header(&Entry {
            path: &entry.path,
            kind: match entry.kind {
                RecordKind::Directory => EntryKind::Directory,
                RecordKind::File => EntryKind::File { size: entry.size },
                RecordKind::Hardlink => EntryKind::Hardlink { target },
                RecordKind::Symlink => EntryKind::Symlink { target },
            },
            mode: entry.mode,
            uid: entry.meta.uid.unwrap_or(0),
            gid: entry.meta.gid.unwrap_or(0),
            owner: entry.owner,
            mtime_ns: entry.meta.mtime_ns.unwrap_or(at),
            xattrs: xattrs.collect(),
        }))
    }

    /// Writes a file that is at hand; behind `content` it reads as zeros.
    fn whole(&mut self, path: &str, content: &[u8], length: usize) -> Result<(), RestoreError> {
        let size = u64::try_from(length.max(content.len())).unwrap_or(u64::MAX);
        self.begin(&of_cluster(path, EntryKind::File { size }))?;
        self.out.put(content)?;
        let there = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.out.zeros(size.saturating_sub(there))?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), RestoreError> {
        let padding = u64::try_from(tar::padding(size)).unwrap_or(0);
        self.out.zeros(padding)
    }
}

impl LogSink for Archive<'_, '_> {
    fn kept(&self, _: &str, _: u32) -> Option<Vec<u8>> {
        None
    }

    fn put(&mut self, name: &str, content: &[u8], length: u64) -> Result<(), RestoreError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.whole(&format!("pg_wal/{name}"), content, length)
    }
}
