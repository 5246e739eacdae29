//! Which base and which log lead to a target, or which targets are nearest to an impossible one.

use holdfast_core::{ActionId, Lsn, Timestamp};
use holdfast_store::ledger;

use super::line::{Cluster, Line, Walk};
use super::plan::Stop;
use super::seek::{self, Sought};
use super::survey::Survey;
use super::{Found, Place, RestoreError, RestoreRequest, RestoreTarget};
use crate::repository::{BaseSummary, Reader, RepositoryError};
use crate::watch::DESTRUCTION_SEEN;

/// What there is to choose from.
pub(super) struct Choice<'a> {
    pub(super) place: &'a Place,
    pub(super) reader: &'a Reader,
    pub(super) request: &'a RestoreRequest,
    /// Oldest first.
    pub(super) bases: &'a [BaseSummary],
}

/// What leads to the target.
pub(super) struct Chosen {
    pub(super) base: BaseSummary,
    pub(super) walk: Walk,
    pub(super) stop: Stop,
    pub(super) found: Option<Found>,
    pub(super) notes: Vec<String>,
}

impl Chosen {
    fn new(base: &BaseSummary, walk: Walk, stop: Stop) -> Self {
        Self {
            base: base.clone(),
            walk,
            stop,
            found: None,
            notes: Vec::new(),
        }
    }
}

impl Choice<'_> {
    /// Chooses, or says what is possible instead.
    pub(super) fn choose(&self, now: Timestamp) -> Result<Chosen, RestoreError> {
        match &self.request.at {
            RestoreTarget::Before(action) => {
                let lsn = look_up(self.place, self.reader, self.request, action)?;
                let mut chosen = self.newest_cluster()?.anywhere(Stop::Before(lsn), lsn)?;
                chosen.found = Some(Found { lsn, time: None });
                Ok(chosen)
            }
            RestoreTarget::BeforeLsn(lsn) => {
                self.newest_cluster()?.anywhere(Stop::Before(*lsn), *lsn)
            }
            RestoreTarget::Lsn(lsn) => self.newest_cluster()?.anywhere(Stop::Lsn(*lsn), *lsn),
            RestoreTarget::Latest => self.newest_cluster()?.latest(),
            RestoreTarget::Name(name) => self.newest_cluster()?.name(name),
            RestoreTarget::Time(time) if *time > now => {
                Err(self.refused("that time has not come yet", ["latest".to_owned()]))
            }
            RestoreTarget::Time(time) => self.time(*time),
            RestoreTarget::Xid(xid) => self.newest_cluster()?.xid(*xid),
        }
    }

    /// Returns histories of timelines after the last one that is gone to.
    pub(super) fn newer_histories(
        &self,
        chosen: &Chosen,
    ) -> Result<Vec<(u32, Vec<u8>)>, RepositoryError> {
        let cluster = Cluster::of(self.place, self.reader, &self.request.source, &chosen.base);
        cluster.newer_histories(chosen.walk.timeline())
    }

    fn refused(&self, why: &str, nearest: impl IntoIterator<Item = String>) -> RestoreError {
        RestoreError::target(self.request.at.to_string(), why, nearest)
    }

    fn newest_cluster(&self) -> Result<OfCluster<'_>, RestoreError> {
        let newest = self.bases.last();
        let newest =
            newest.ok_or_else(|| RepositoryError::NoPoints(self.request.source.clone()))?;
        self.cluster(newest)
    }

    /// Returns the bases and lines of one cluster, those of the timeline that was asked for.
    fn cluster(&self, of: &BaseSummary) -> Result<OfCluster<'_>, RestoreError> {
        let cluster = Cluster::of(self.place, self.reader, &self.request.source, of);
        let mut lines = cluster.lines(self.bases)?;
        if let Some(timeline) = self.request.timeline {
            let known: Vec<String> = lines.iter().map(|line| line.timeline.to_string()).collect();
            lines.retain(|line| line.timeline == timeline);
            if lines.is_empty() {
                let known = known.join(", ");
                let why = format!("timeline {timeline} is not kept, only {known}");
                return Err(self.refused(&why, []));
            }
        }
        Ok(OfCluster {
            choice: self,
            cluster,
            lines,
        })
    }

    /// Chooses what leads to a time; the source may have been another cluster then.
    fn time(&self, time: Timestamp) -> Result<Chosen, RestoreError> {
        let Some(base) = self.bases.iter().rfind(|base| base.at <= time) else {
            let nearest = self.bases.first().map(|base| base.at.to_string());
            return Err(self.refused("nothing that is kept reaches back so far", nearest));
        };
        self.cluster(base)?.time(time)
    }
}

/// One cluster's bases and lines.
struct OfCluster<'a> {
    choice: &'a Choice<'a>,
    cluster: Cluster<'a>,
    /// That of the newest timeline first.
    lines: Vec<Line>,
}

impl OfCluster<'_> {
    /// Returns the bases of this cluster on a line, oldest first.
    fn bases(&self, line: &Line) -> Vec<&BaseSummary> {
        let identifier = self.cluster.at.system_identifier;
        let is_on = |base: &&BaseSummary| base.system_identifier == identifier && line.holds(base);
        self.choice.bases.iter().filter(is_on).collect()
    }

    fn latest(&self) -> Result<Chosen, RestoreError> {
        let mut second = None;
        for line in &self.lines {
            let Some(base) = self.bases(line).pop() else {
                continue;
            };
            let walk = self.cluster.walk(line, base, None)?;
            let is_whole = !walk.is_cut && walk.end() >= base.stop_lsn;
            let chosen = Chosen::new(base, walk, Stop::End);
            if is_whole {
                return Ok(chosen);
            }
            second.get_or_insert(chosen);
        }
        second.ok_or_else(|| {
            self.choice
                .refused("no restore point lies on that timeline", [])
        })
    }

    fn anywhere(&self, stop: Stop, lsn: Lsn) -> Result<Chosen, RestoreError> {
        self.position(&self.lines, stop, lsn)
    }

    /// Chooses what leads to a position on the first of these lines that reaches back so far.
    fn position(&self, lines: &[Line], stop: Stop, lsn: Lsn) -> Result<Chosen, RestoreError> {
        let before = |base: &&BaseSummary| base.stop_lsn <= lsn;
        let mut failed: Option<(&Line, Walk)> = None;
        for line in lines {
            let Some(base) = self.bases(line).into_iter().rfind(before) else {
                continue;
            };
            let walk = self.cluster.walk(line, base, Some(lsn))?;
            let is_reached = walk.end() >= lsn;
            match &failed {
                None if is_reached => {
                    let mut chosen = Chosen::new(base, walk, stop);
                    chosen.notes.extend(self.note_of(line));
                    return Ok(chosen);
                }
                None => failed = Some((line, walk)),
                Some((newer, _)) if is_reached => {
                    let why = format!(
                        "timeline {} does not have it, timeline {} that it left does (`--timeline {}`)",
                        newer.timeline, line.timeline, line.timeline
                    );
                    return Err(self.choice.refused(&why, []));
                }
                Some(_) => {}
            }
        }
        Err(match failed {
            Some((line, walk)) => self.beyond(line, &walk, lsn),
            None => {
                let bases = lines.iter().flat_map(|line| self.bases(line));
                let oldest = bases.map(|base| base.stop_lsn).min();
                let why = "nothing that is kept reaches back so far";
                self.choice.refused(why, oldest.map(|lsn| lsn.to_string()))
            }
        })
    }

    /// Says what lies before and behind a position to which the log does not lead.
    fn beyond(&self, line: &Line, walk: &Walk, lsn: Lsn) -> RestoreError {
        let end = walk.end();
        match self
            .bases(line)
            .into_iter()
            .find(|base| base.stop_lsn > lsn)
        {
            Some(base) => {
                let why = format!("log is missing from {end} to {}", base.start_lsn);
                let nearest = [end.to_string(), base.stop_lsn.to_string()];
                self.choice.refused(&why, nearest)
            }
            None => {
                let why = format!("the log that is kept ends at {end}");
                self.choice.refused(&why, [end.to_string()])
            }
        }
    }

    fn time(&self, time: Timestamp) -> Result<Chosen, RestoreError> {
        for line in &self.lines {
            let bases = self.bases(line);
            let Some(base) = bases.iter().rfind(|base| base.at <= time) else {
                continue;
            };
            let walk = self.cluster.walk(line, base, None)?;
            if walk.is_cut {
                let end = self.newest_commit(&walk)?.unwrap_or(base.at).max(base.at);
                if time > end {
                    let behind = bases.iter().find(|base| base.at > time);
                    let mut nearest = vec![end.to_string()];
                    nearest.extend(behind.map(|base| base.at.to_string()));
                    let why = format!("log is missing from {} on, soon after {end}", walk.end());
                    return Err(self.choice.refused(&why, nearest));
                }
            }
            let mut chosen = Chosen::new(base, walk, Stop::Time(time));
            chosen.notes.extend(self.note_of(line));
            return Ok(chosen);
        }
        let bases = self.lines.iter().flat_map(|line| self.bases(line));
        let nearest = bases.map(|base| base.at).min().map(|at| at.to_string());
        let why = "nothing that is kept of that timeline reaches back so far";
        Err(self.choice.refused(why, nearest))
    }

    fn newest_commit(&self, walk: &Walk) -> Result<Option<Timestamp>, RepositoryError> {
        for stretch in walk.stretches.iter().rev() {
            let part = (stretch.from, stretch.to);
            let survey = Survey::of(self.choice.reader, &stretch.at, &stretch.log, part);
            if let Some(newest) = survey.newest_commit()? {
                return Ok(Some(newest));
            }
        }
        Ok(None)
    }

    fn name(&self, name: &str) -> Result<Chosen, RestoreError> {
        let sought = seek::name(&self.cluster, &self.lines, self.first(), name)?;
        self.sought(sought)
    }

    fn xid(&self, xid: u64) -> Result<Chosen, RestoreError> {
        // The lower half is what the log has; two with the same are four thousand million apart.
        let low = u32::try_from(xid & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let sought = seek::xid(&self.cluster, &self.lines, self.first(), low)?;
        self.sought(sought)
    }

    fn sought(&self, sought: Sought) -> Result<Chosen, RestoreError> {
        let hit = match sought {
            Sought::Found(hit) => hit,
            Sought::Not { why, nearest } => return Err(self.choice.refused(&why, nearest)),
        };
        let line = self.lines.iter().find(|line| line.timeline == hit.line);
        let lines = line.map(std::slice::from_ref).unwrap_or_default();
        let mut chosen = self.position(lines, Stop::Lsn(hit.lsn), hit.lsn)?;
        chosen.found = Some(Found {
            lsn: hit.lsn,
            time: hit.time,
        });
        chosen.notes.extend(hit.notes);
        Ok(chosen)
    }

    /// Returns where the log begins to matter.
    fn first(&self) -> Lsn {
        let identifier = self.cluster.at.system_identifier;
        let bases = self.choice.bases.iter();
        let of_cluster = bases.filter(|base| base.system_identifier == identifier);
        of_cluster
            .map(|base| base.start_lsn)
            .min()
            .unwrap_or_default()
    }

    /// Says when a line is not the one that the source goes on with.
    fn note_of(&self, line: &Line) -> Option<String> {
        let newest = self.lines.first()?;
        (newest.timeline != line.timeline).then(|| left_behind(line.timeline, newest.timeline))
    }
}

fn left_behind(timeline: u32, newest: u32) -> String {
    format!("this is on timeline {timeline}, which the source has left; it is on {newest} now")
}

/// Finds the position before which an action destroyed something, in the vault's ledger.
fn look_up(
    place: &Place,
    reader: &Reader,
    request: &RestoreRequest,
    action: &ActionId,
) -> Result<Lsn, RestoreError> {
    let failed = |source| RestoreError::Ledger {
        action: action.to_string(),
        source,
    };
    let mut found = None;
    ledger::verify(&place.state.join("ledger"), reader.key(), |entry| {
        let draft = &entry.draft;
        let is_it = draft.kind == DESTRUCTION_SEEN
            && draft.action.as_ref() == Some(action)
            && draft
                .source
                .as_ref()
                .is_none_or(|source| *source == request.source);
        if is_it {
            found = draft
                .body
                .get("before_lsn")
                .and_then(|value| value.as_str()?.parse().ok());
        }
    })
    .map_err(|error| failed(Box::new(error)))?;
    found.ok_or_else(|| {
        let why = "the vault has seen no such action destroy anything in this source";
        RestoreError::target(request.at.to_string(), why, [])
    })
}
