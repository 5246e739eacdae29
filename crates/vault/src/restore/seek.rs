//! Finding a transaction's end or a named point in the log.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use holdfast_core::{Lsn, Timestamp, Untrusted};
use holdfast_wire::pg::wal::{Event, Record, WalError};

use super::line::{Cluster, Line};
use super::names::{self, Named};
use super::survey::Survey;
use crate::limits;
use crate::repository::RepositoryError;

/// What the search has found.
pub(super) enum Sought {
    /// It is there.
    Found(Hit),
    /// It is not.
    Not {
        /// Why not.
        why: String,
        /// The nearest targets that are there.
        nearest: Vec<String>,
    },
}

/// Where something was found.
pub(super) struct Hit {
    /// The last timeline of its line.
    pub(super) line: u32,
    /// Where its record begins.
    pub(super) lsn: Lsn,
    pub(super) time: Option<Timestamp>,
    /// What whoever asked should know.
    pub(super) notes: Vec<String>,
}

/// A part of one timeline's log.
pub(super) struct Region {
    /// The last timeline of the line that it is on.
    pub(super) line: u32,
    pub(super) timeline: u32,
    pub(super) from: Lsn,
    pub(super) to: Lsn,
}

/// Returns the log of all lines from `first` on, the newest part first, and no part twice.
pub(super) fn regions(lines: &[Line], first: Lsn) -> Vec<Region> {
    let mut covered: BTreeMap<u32, Lsn> = BTreeMap::new();
    let mut regions = Vec::new();
    for line in lines {
        for (timeline, left) in line.portions.iter().rev() {
            let to = left.unwrap_or(Lsn(u64::MAX));
            let from = covered.get(timeline).copied().unwrap_or(first);
            if from < to {
                regions.push(Region {
                    line: line.timeline,
                    timeline: *timeline,
                    from,
                    to,
                });
                covered.insert(*timeline, to);
            }
        }
    }
    regions
}

/// Finds the newest point of a name.
pub(super) fn name(
    cluster: &Cluster<'_>,
    lines: &[Line],
    first: Lsn,
    wanted: &str,
) -> Result<Sought, RepositoryError> {
    let mut same: Vec<(u32, Named)> = Vec::new();
    let mut others = Vec::new();
    for region in regions(lines, first) {
        for named in names::in_region(cluster, &region)? {
            if named.name == wanted {
                same.push((region.line, named));
            } else {
                others.push(named);
            }
        }
    }
    let older: Vec<String> = same
        .iter()
        .skip(1)
        .take(limits::NEAREST_NAMES)
        .map(|(_, named)| format!("{} ({})", named.lsn, named.time))
        .collect();
    let count = same.len();
    let Some((line, newest)) = same.into_iter().next() else {
        return Ok(unnamed(wanted, &others));
    };
    let mut notes = Vec::new();
    if count > 1 {
        notes.push(format!(
            "{count} points have that name; this is the newest, at {} ({}), before it: {}",
            newest.lsn,
            newest.time,
            older.join(", ")
        ));
    }
    Ok(Sought::Found(Hit {
        line,
        lsn: newest.lsn,
        time: Some(newest.time),
        notes,
    }))
}

fn unnamed(wanted: &str, others: &[Named]) -> Sought {
    if others.is_empty() {
        return Sought::Not {
            why: "nobody has named a point in the log that is kept".to_owned(),
            nearest: Vec::new(),
        };
    }
    let lower = wanted.to_lowercase();
    let is_alike = |name: &str| {
        let name = name.to_lowercase();
        name.contains(&lower) || lower.contains(&name)
    };
    let (alike, rest): (Vec<&Named>, Vec<&Named>) =
        others.iter().partition(|named| is_alike(&named.name));
    let mut nearest: Vec<String> = Vec::new();
    for named in alike.into_iter().chain(rest) {
        let text = format!("name:{}", Untrusted(&named.name));
        if !nearest.contains(&text) && nearest.len() < limits::NEAREST_NAMES {
            nearest.push(text);
        }
    }
    Sought::Not {
        why: "nobody has named a point so in the log that is kept".to_owned(),
        nearest,
    }
}

/// How a transaction ended.
struct Ending {
    lsn: Lsn,
    time: Timestamp,
    notes: Vec<String>,
}

/// What one segment says about a transaction.
#[derive(Default)]
struct Trace {
    ending: Option<Ending>,
    /// The nearest numbers of transactions that ended, below and above.
    below: Option<u32>,
    above: Option<u32>,
    /// It has written something here.
    wrote: Option<Lsn>,
    /// It had not begun here.
    is_before: bool,
}

/// Finds the end of a transaction.
pub(super) fn xid(
    cluster: &Cluster<'_>,
    lines: &[Line],
    first: Lsn,
    wanted: u32,
) -> Result<Sought, RepositoryError> {
    let mut all = Trace::default();
    for region in regions(lines, first) {
        let at = cluster.on(region.timeline);
        let log = cluster.log(region.timeline)?;
        let part = (region.from, region.to);
        let survey = Survey::of(cluster.reader, &at, &log, part).wide();
        let note = |record: &Record<'_>, trace: &mut Trace| {
            if region.from <= record.start && record.start < region.to {
                trace.note(record, wanted)
            } else {
                Ok(())
            }
        };
        survey.backwards(&note, &mut |seen| {
            let is_before = seen.noted.is_before;
            all.add(seen.noted, wanted);
            if all.ending.is_some() || is_before {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if let Some(ending) = all.ending.take() {
            return Ok(Sought::Found(Hit {
                line: region.line,
                lsn: ending.lsn,
                time: Some(ending.time),
                notes: ending.notes,
            }));
        }
    }
    let nearest = [all.below, all.above].into_iter().flatten();
    Ok(Sought::Not {
        why: match all.wrote {
            Some(lsn) => {
                format!("that transaction wrote at {lsn} and has no end in the log that is kept")
            }
            None => "no transaction of that number ends in the log that is kept".to_owned(),
        },
        nearest: nearest.map(|xid| format!("xid:{xid}")).collect(),
    })
}

impl Trace {
    fn note(&mut self, record: &Record<'_>, wanted: u32) -> Result<(), WalError> {
        if record.xid == wanted {
            self.wrote.get_or_insert(record.start);
        }
        match record.event()? {
            Some(Event::Commit(commit)) => {
                let is_part = commit.subtransactions.contains(&wanted);
                if commit.xid == wanted || is_part {
                    self.ended(record, commit.time);
                }
                self.near(commit.xid, wanted);
                let ending = self.ending.as_mut().filter(|_| is_part);
                if let Some(ending) = ending {
                    let whole = commit.xid;
                    let text = format!(
                        "{wanted} is a part of transaction {whole}, which comes back whole"
                    );
                    ending.notes.push(text);
                }
            }
            Some(Event::Abort(abort)) => {
                let is_whole = abort.xid == wanted;
                if is_whole || abort.subtransactions.contains(&wanted) {
                    self.ended(record, abort.time);
                }
                self.near(abort.xid, wanted);
                if let Some(ending) = self.ending.as_mut().filter(|end| end.lsn == record.start) {
                    let text = format!(
                        "transaction {wanted} was rolled back; what was there when it ended comes back"
                    );
                    ending.notes.push(text);
                }
            }
            // Numbers are given in order: this one is still to come.
            Some(Event::Running { next, .. }) if !is_above(next, wanted) => {
                self.is_before = self.ending.is_none();
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, record: &Record<'_>, time: Timestamp) {
        self.ending = Some(Ending {
            lsn: record.start,
            time,
            notes: Vec::new(),
        });
    }

    fn near(&mut self, xid: u32, wanted: u32) {
        if xid == wanted {
        } else if is_above(xid, wanted) {
            let is_nearer = self.above.is_none_or(|above| is_above(above, xid));
            self.above = if is_nearer { Some(xid) } else { self.above };
        } else {
            let is_nearer = self.below.is_none_or(|below| is_above(xid, below));
            self.below = if is_nearer { Some(xid) } else { self.below };
        }
    }

    fn add(&mut self, older: Self, wanted: u32) {
        for xid in [older.below, older.above].into_iter().flatten() {
            self.near(xid, wanted);
        }
        self.wrote = older.wrote.or(self.wrote);
        self.ending = older.ending;
    }
}

/// Tells whether a transaction's number was given later than another's.
///
/// SOURCE: PostgreSQL 18, `access/transam/transam.c`, `TransactionIdFollows`
fn is_above(xid: u32, other: u32) -> bool {
    let ahead = xid.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_transactions_run_in_a_circle() {
        for (xid, other, is) in [
            (8, 7, true),
            (7, 8, false),
            (7, 7, false),
            (5, u32::MAX, true),
        ] {
            assert_eq!(is_above(xid, other), is, "{xid} {other}");
        }
        let mut trace = Trace::default();
        for xid in [3, 90, 60, 50, 40] {
            trace.near(xid, 55);
        }
        assert_eq!((trace.below, trace.above), (Some(50), Some(60)));
    }

    #[test]
    fn no_part_of_the_log_is_looked_through_twice() {
        let line = |timeline, portions| Line::new(timeline, portions, None);
        let lines = [
            line(3, vec![(1, Some(Lsn(50))), (3, None)]),
            line(2, vec![(1, Some(Lsn(70))), (2, None)]),
            line(1, vec![(1, None)]),
        ];
        let found = regions(&lines, Lsn(10));
        let found: Vec<_> = found
            .iter()
            .map(|r| (r.line, r.timeline, r.from.0, r.to.0))
            .collect();
        let end = u64::MAX;
        assert_eq!(
            found,
            [
                (3, 3, 10, end),
                (3, 1, 10, 50),
                (2, 2, 10, end),
                (2, 1, 50, 70),
                (1, 1, 70, end)
            ]
        );
    }
}
