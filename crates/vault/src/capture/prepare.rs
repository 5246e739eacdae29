//! What comes before a stream: which cluster it is, and where to begin.

use holdfast_core::Lsn;
use holdfast_wire::pg::replication::{TimelineHistory, timeline_history};

use super::pace::Pace;
use super::{Capture, CaptureError};
use crate::limits;
use crate::source::{Connection, MAJOR_MAX, MAJOR_MIN, Purpose, Reply, SourceError};
use crate::spool::{Cluster, Segment, SegmentBytes};

/// A connection that is ready to stream.
pub(super) struct Prepared {
    pub(super) connection: Connection,
    pub(super) cluster: Cluster,
    pub(super) from: Segment,
    pub(super) pace: Pace,
    /// Where the source's log ended when it was asked.
    pub(super) server_end: Lsn,
}

struct Identity {
    system_identifier: u64,
    timeline: u32,
    end: Lsn,
}

impl Capture {
    /// Connects, makes sure that it is the known cluster, makes the slot and finds where to begin.
    pub(super) fn prepare(&self) -> Result<Prepared, CaptureError> {
        let mut connection = self.connect()?;
        let (identity, cluster) = self.identify(&mut connection)?;
        {
            let mut facts = self.standing.facts();
            facts.system_identifier = Some(cluster.system_identifier);
            facts.server_end = identity.end;
        }
        let reserved = self.slot(&mut connection)?;
        let history = self.history(&mut connection, identity.timeline)?;
        let from = self.begin(&cluster, &identity, &history, reserved)?;
        let pace = Pace::find(self.standing.config.mode, &mut connection)?;
        Ok(Prepared {
            connection,
            cluster,
            from,
            pace,
            server_end: identity.end,
        })
    }

    /// Opens a replication connection to a server of a version that is understood.
    pub(super) fn connect(&self) -> Result<Connection, CaptureError> {
        let url = &self.standing.url();
        let connection = Connection::open_until(url, Purpose::Replication, &self.stop)?;
        let major = connection.major();
        if !(MAJOR_MIN..=MAJOR_MAX).contains(&major) {
            return Err(SourceError::Version { major }.into());
        }
        Ok(connection)
    }

    /// Refuses another cluster than the one that is known under this name.
    fn identify(&self, connection: &mut Connection) -> Result<(Identity, Cluster), CaptureError> {
        const STEP: &str = "identify the system";
        let reply = connection.query("IDENTIFY_SYSTEM", STEP)?;
        let identity = Identity {
            system_identifier: field(&reply, "systemid", STEP)?,
            timeline: field(&reply, "timeline", STEP)?,
            end: field(&reply, "xlogpos", STEP)?,
        };
        if identity.end >= limits::POSITION_MAX || identity.timeline == 0 {
            return Err(SourceError::nonsense(STEP, "a position that no log reaches").into());
        }
        let size = connection.query("SHOW wal_segment_size", STEP)?;
        let found = Cluster {
            system_identifier: identity.system_identifier,
            segment_bytes: size
                .single()
                .and_then(segment_size)
                .ok_or_else(|| SourceError::nonsense(STEP, "no size of WAL segments"))?,
        };
        let known = match self.spool.cluster()? {
            Some(known) => Some(known),
            None => self.repository_cluster(found)?,
        };
        match known {
            Some(known) if known != found => Err(CaptureError::OtherCluster {
                known: known.system_identifier,
                found: found.system_identifier,
            }),
            _ => {
                if self.spool.cluster()?.is_none() {
                    self.spool.bind(&found)?;
                    self.note("source.known", |draft| {
                        draft.with("system_identifier", found.system_identifier.to_string())
                    });
                }
                Ok((identity, found))
            }
        }
    }

    /// Fetches and keeps the history of the source's timeline.
    pub(super) fn history(
        &self,
        connection: &mut Connection,
        timeline: u32,
    ) -> Result<TimelineHistory, CaptureError> {
        const STEP: &str = "read the timeline history";
        if timeline <= 1 {
            return Ok(TimelineHistory::default());
        }
        let reply = connection.query(&timeline_history(timeline), STEP)?;
        let text = reply
            .value("content")
            .ok_or_else(|| SourceError::nonsense(STEP, "no content"))?;
        let history = TimelineHistory::parse(text.as_bytes())
            .map_err(|error| SourceError::nonsense(STEP, error))?;
        self.spool.keep_history(timeline, text.as_bytes())?;
        Ok(history)
    }

    /// Finds the segment to stream from: the spool's newest, else the repository's, else the slot's.
    fn begin(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        history: &TimelineHistory,
        reserved: Option<Lsn>,
    ) -> Result<Segment, CaptureError> {
        let size = cluster.segment_bytes;
        let fresh = reserved.unwrap_or(identity.end).min(identity.end);
        let fresh = Segment::containing(identity.timeline, fresh, size);
        if self.standing.facts().missing {
            return Ok(fresh);
        }
        let mut from = self.known_end(cluster, identity, history)?.unwrap_or(fresh);
        if from.timeline > identity.timeline {
            return Err(CaptureError::OldTimeline {
                known: from.timeline,
                found: identity.timeline,
            });
        }
        // The source may have left our timeline before the point that we have reached.
        while from.timeline < identity.timeline {
            let left = history
                .left_at(from.timeline)
                .ok_or(CaptureError::OldTimeline {
                    known: from.timeline,
                    found: identity.timeline,
                })?;
            let logs = self.standing.facts().logs.clone();
            let reached = logs.get(&from.timeline).is_some_and(|end| *end >= left);
            if size.floor(left) >= from.start && !reached {
                break;
            }
            let next = history
                .switches
                .iter()
                .map(|switch| switch.timeline)
                .find(|timeline| *timeline > from.timeline)
                .unwrap_or(identity.timeline);
            from = Segment::containing(next, left, size);
        }
        Ok(from)
    }

    fn known_end(
        &self,
        cluster: &Cluster,
        identity: &Identity,
        history: &TimelineHistory,
    ) -> Result<Option<Segment>, CaptureError> {
        let size = cluster.segment_bytes;
        let spooled = self.spool.stored(size)?.last().map(|stored| stored.segment);
        let ancestors = history.switches.iter().rev().map(|switch| switch.timeline);
        let newest = spooled.map_or(identity.timeline, |segment| segment.timeline);
        let timelines = std::iter::once(newest).chain(ancestors.filter(|t| *t < newest));
        for timeline in timelines {
            if let Some(end) = self.log_end(cluster, timeline)? {
                let kept = Segment::containing(timeline, end, size);
                return Ok(Some(spooled.map_or(kept, |segment| segment.max(kept))));
            }
        }
        Ok(spooled)
    }
}

fn field<T: std::str::FromStr>(
    reply: &Reply,
    column: &str,
    step: &'static str,
) -> Result<T, SourceError> {
    reply
        .value(column)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| SourceError::nonsense(step, format!("no {column}")))
}

/// Reads `16MB` or `1GB`.
fn segment_size(text: &str) -> Option<SegmentBytes> {
    let (digits, shift) = match (text.strip_suffix("MB"), text.strip_suffix("GB")) {
        (Some(digits), _) => (digits, 20),
        (_, Some(digits)) => (digits, 30),
        _ => return None,
    };
    let bytes = digits.parse::<u32>().ok()?.checked_mul(1 << shift)?;
    SegmentBytes::new(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_segments_are_read_as_the_server_shows_them() {
        let bytes = |text| segment_size(text).map(SegmentBytes::get);
        assert_eq!(bytes("16MB"), Some(16 << 20));
        assert_eq!(bytes("1GB"), Some(1 << 30));
        for bad in ["16", "3MB", "2GB", "-1MB", "9999999999MB", ""] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
