//! Points that somebody named with `pg_create_restore_point`, found in the log and remembered.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use holdfast_core::{Lsn, SourceName, Timestamp};
use holdfast_wire::pg::wal::{Event, Record};
use serde::{Deserialize, Serialize};

use super::Place;
use super::line::{Cluster, Line};
use super::seek::{Region, regions};
use super::survey::{Note, Survey};
use crate::limits;
use crate::repository::{BaseSummary, Reader, RepositoryError, WalPlace};

/// A position that somebody named on the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPoint {
    /// Which source.
    pub source: SourceName,
    /// The timeline that it is on.
    pub timeline: u32,
    /// The name.
    pub name: String,
    /// Where it is.
    pub lsn: Lsn,
    /// When it was named, by the source's clock.
    pub time: Timestamp,
    /// The source has left this part of its timeline; `--timeline` brings it back.
    pub is_left: bool,
    /// A base and the log after it lead there.
    pub is_reachable: bool,
}

/// A named position in one timeline's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) lsn: Lsn,
    pub(super) time: Timestamp,
}

/// Returns the named points of one source, or of all, oldest first.
///
/// Closed segments are read once and remembered in the vault's state directory, where that can be
/// written.
///
/// # Errors
/// When the repository cannot be read.
pub fn named_points(
    place: &Place,
    source: Option<&SourceName>,
) -> Result<Vec<NamedPoint>, RepositoryError> {
    let reader = Reader::open(&place.repository, place.vault_key, &place.keys)?;
    let sources = match source {
        Some(source) => vec![source.clone()],
        None => reader.sources()?,
    };
    let mut all = Vec::new();
    for source in sources {
        let bases = reader.bases(&source)?;
        let Some(newest) = bases.last() else { continue };
        let cluster = Cluster::of(place, &reader, &source, newest);
        let of_cluster: Vec<&BaseSummary> = bases
            .iter()
            .filter(|base| base.system_identifier == newest.system_identifier)
            .collect();
        let first = of_cluster.iter().map(|base| base.start_lsn).min();
        let lines = cluster.lines(&bases)?;
        let mut found = Vec::new();
        for region in regions(&lines, first.unwrap_or_default()) {
            let line = lines.iter().find(|line| line.timeline == region.line);
            let Some(line) = line else { continue };
            let is_left = lines
                .first()
                .is_some_and(|newest| newest.timeline != line.timeline);
            for named in in_region(&cluster, &region)? {
                found.push(NamedPoint {
                    source: source.clone(),
                    timeline: region.timeline,
                    is_reachable: is_reachable(&cluster, line, &of_cluster, named.lsn)?,
                    name: named.name,
                    lsn: named.lsn,
                    time: named.time,
                    is_left,
                });
            }
        }
        found.sort_by_key(|named| (named.time, named.lsn));
        all.append(&mut found);
    }
    Ok(all)
}

fn is_reachable(
    cluster: &Cluster<'_>,
    line: &Line,
    bases: &[&BaseSummary],
    lsn: Lsn,
) -> Result<bool, RepositoryError> {
    let before = |base: &&&BaseSummary| line.holds(base) && base.stop_lsn <= lsn;
    let Some(base) = bases.iter().rfind(before) else {
        return Ok(false);
    };
    Ok(cluster.walk(line, base, Some(lsn))?.end() > lsn)
}

/// Returns the named points of a part of the log, the newest first.
pub(super) fn in_region(
    cluster: &Cluster<'_>,
    region: &Region,
) -> Result<Vec<Named>, RepositoryError> {
    let at = cluster.on(region.timeline);
    let log = cluster.log(region.timeline)?;
    let mut survey = Survey::of(cluster.reader, &at, &log, (region.from, region.to)).wide();
    let memory = Memory::of(cluster.place, &at);
    let known = memory.read();
    let segment = u64::from(at.segment_bytes);
    // What is not known may end in the segment after it.
    survey.retain(|start| {
        let before = start.0.checked_sub(segment).map(Lsn);
        let is_needed = |start: &Lsn| !known.contains_key(start);
        is_needed(start) || before.is_some_and(|before| before >= region.from && is_needed(&before))
    });
    let note: Note<'_, Vec<Named>> = &|record: &Record<'_>, names| {
        if let Some(Event::RestorePoint { name, time }) = record.event()? {
            names.push(Named {
                name,
                lsn: record.start,
                time,
            });
        }
        Ok(())
    };
    let mut fresh = Vec::new();
    let closed: Vec<Lsn> = survey
        .starts()
        .iter()
        .copied()
        .filter(|s| survey.is_closed(*s))
        .collect();
    let mut found: Vec<Named> = Vec::new();
    survey.backwards(note, &mut |seen| {
        if !known.contains_key(&seen.start) {
            found.extend(seen.noted.iter().cloned());
            if seen.is_whole && closed.binary_search(&seen.start).is_ok() {
                fresh.push((seen.start, seen.noted));
            }
        }
        ControlFlow::Continue(())
    })?;
    memory.add(&fresh);
    found.extend(known.into_values().flatten());
    found.retain(|named| region.from <= named.lsn && named.lsn < region.to);
    found.sort_by_key(|named| std::cmp::Reverse(named.lsn));
    Ok(found)
}

/// What was read of closed segments before. Losing it, or a part of it, costs only time.
struct Memory {
    file: PathBuf,
    may_make: bool,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Remembered {
    start: Lsn,
    names: Vec<Named>,
}

impl Memory {
    fn of(place: &Place, at: &WalPlace) -> Self {
        let folder = place.state.join("names").join(at.source.as_str());
        Self {
            file: folder.join(format!(
                "{:016x}-{:08X}.jsonl",
                at.system_identifier, at.timeline
            )),
            may_make: place.state.is_dir(),
        }
    }

    fn read(&self) -> BTreeMap<Lsn, Vec<Named>> {
        let text = match fs::metadata(&self.file) {
            Ok(metadata) if metadata.len() <= limits::NAMES_MEMORY_BYTES => {
                fs::read_to_string(&self.file).unwrap_or_default()
            }
            _ => String::new(),
        };
        text.lines()
            .filter_map(|line| serde_json::from_str::<Remembered>(line).ok())
            .map(|line| (line.start, line.names))
            .collect()
    }

    /// Adds what is new; where that fails it is read again next time.
    fn add(&self, fresh: &[(Lsn, Vec<Named>)]) {
        if fresh.is_empty() || !self.may_make {
            return;
        }
        // A line that was torn before must not take the next one with it.
        let mut text = String::from("\n");
        for (start, names) in fresh {
            let line = Remembered {
                start: *start,
                names: names.clone(),
            };
            if let Ok(line) = serde_json::to_string(&line) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        if let Some(folder) = self.file.parent() {
            let _ = fs::create_dir_all(folder);
        }
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file);
        let _ = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    }
}
