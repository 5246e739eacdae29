//! Drilling whatever is kept, again and again, and letting status and guard know how it ended.

use std::sync::Arc;

use holdfast_core::ledger::Draft;
use holdfast_core::{
    DrillOf, DrillReport, ErrorChain, LOSS_ACCEPTED, Lsn, PointId, Principal, SourceName,
    TableChange, Timestamp,
};
use tokio_util::sync::CancellationToken;

use super::Vault;
use crate::drill::{self, DrillError, Drilled, Due, Haste, Job, Need, View};
use crate::engine::directory::DirectoryStanding;
use crate::limits;
use crate::standing::Standing;

/// Something that is drilled.
#[derive(Clone)]
pub(super) enum Kept {
    /// A PostgreSQL cluster.
    Cluster(Arc<Standing>),
    /// A directory.
    Directory(Arc<DirectoryStanding>),
}

impl Kept {
    fn source(&self) -> &SourceName {
        match self {
            Self::Cluster(standing) => &standing.config.name,
            Self::Directory(standing) => &standing.config.name,
        }
    }

    /// Returns the newest point and how far the log is kept.
    fn newest(&self) -> (Option<PointId>, Lsn) {
        match self {
            Self::Cluster(standing) => {
                let facts = standing.facts();
                (facts.point.clone(), facts.shipped)
            }
            Self::Directory(standing) => {
                let facts = standing.facts();
                let newest = facts.newest.as_ref().map(|newest| newest.point.clone());
                (newest, Lsn::ZERO)
            }
        }
    }

    /// Tells whether nothing of it can be permitted until a drill has passed.
    fn need(&self) -> Need {
        let is_proven = match self {
            Self::Cluster(standing) => standing.facts().proof.is_some(),
            Self::Directory(standing) => standing.facts().proof.is_some(),
        };
        match is_proven {
            true => Need::Ordinary,
            false => Need::Unproven,
        }
    }

    /// Waits until something may be due.
    async fn wait(&self, every: std::time::Duration) {
        let wait = every.clamp(limits::POLL, limits::DRILL_LOOK);
        match self {
            Self::Cluster(standing) => tokio::select! {
                () = standing.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            },
            Self::Directory(_) => {
                tokio::time::sleep(wait.min(limits::DRILL_LOOK_DIRECTORY)).await;
            }
        }
    }
}

/// What a task remembers between two drills of a source; a restart may forget it.
#[derive(Default)]
struct Tried {
    broken_off: Option<Timestamp>,
    looked_for_older: Option<Timestamp>,
}

impl Vault {
    /// Restores the newest point for real and checks it; the proof is signed and kept.
    ///
    /// # Errors
    /// [`DrillError`] when there was nothing to restore or the drill could not be run.
    pub async fn drill(&self, source: &SourceName) -> Result<DrillReport, DrillError> {
        self.drill_point(source, None).await
    }

    /// As [`drill`](Self::drill), of a point that need not be the newest.
    ///
    /// # Errors
    /// As [`drill`](Self::drill), and when there is no such point.
    pub async fn drill_point(
        &self,
        source: &SourceName,
        point: Option<PointId>,
    ) -> Result<DrillReport, DrillError> {
        let kept = self.kept(source)?;
        let (newest, _) = kept.newest();
        let point = point.filter(|point| newest.as_ref() != Some(point));
        let of = match point {
            None => DrillOf::Newest,
            Some(_) => DrillOf::Older,
        };
        self.prove(&kept, (of, point), Haste::Waited).await
    }

    /// Accepts that rows are gone: the next drills compare with what is there now.
    ///
    /// # Errors
    /// [`DrillError::NoLoss`] when no drill says so.
    pub fn accept_loss(
        &self,
        source: &SourceName,
        by: Principal,
    ) -> Result<Vec<TableChange>, DrillError> {
        let kept = self.kept(source)?;
        let ctx = self.drill_context();
        let losses = ctx
            .history()
            .of(source)
            .map(|known| known.losses().to_vec());
        let losses = losses.filter(|losses| !losses.is_empty());
        let losses = losses.ok_or_else(|| DrillError::NoLoss(source.clone()))?;
        let tables: Vec<&str> = losses.iter().map(|loss| loss.table.as_str()).collect();
        let draft = Draft::new(LOSS_ACCEPTED, by, (ctx.clock)())
            .source(source.clone())
            .with(
                "summary",
                format!("the loss of rows of {} is accepted", tables.join(", ")),
            )
            .with("losses", serde_json::to_value(&losses).unwrap_or_default());
        let entry = ctx.ledger.append(draft).map_err(DrillError::Ledger)?;
        ctx.history().take(&entry);
        if let Kept::Cluster(standing) = kept {
            standing.facts().proof_status.alarm = None;
        }
        Ok(losses)
    }

    fn kept(&self, source: &SourceName) -> Result<Kept, DrillError> {
        let directory = self.shared.directories.get(source).cloned();
        let cluster = self.shared.standings.get(source).cloned();
        directory
            .map(Kept::Directory)
            .or(cluster.map(Kept::Cluster))
            .ok_or_else(|| DrillError::Unknown(source.clone()))
    }

    /// Runs one drill and lets status and guard know how it ended.
    async fn prove(
        &self,
        kept: &Kept,
        (of, point): (DrillOf, Option<PointId>),
        haste: Haste,
    ) -> Result<DrillReport, DrillError> {
        // Each is a whole restore: also those that a person asks for run one at a time.
        let _alone = self.shared.drilling.lock().await;
        let ctx = self.drill_context();
        let job = |tell| Job {
            of,
            point,
            haste,
            tell,
        };
        match kept {
            Kept::Cluster(standing) => {
                let _busy = standing.busy("drill");
                let shows = standing.clone();
                let job = job(Arc::new(move |text| {
                    if let Some(busy) = shows.facts().busy.get_mut("drill") {
                        *busy = text;
                    }
                }));
                let Drilled { report, proof } = drill::drill(&ctx, &standing.config, &job).await?;
                let failed = failed_points(&ctx, &report.source);
                let mut facts = standing.facts();
                facts.failed_points = failed;
                // A hole that came meanwhile makes it say nothing of what is restored from now on.
                if of == DrillOf::Newest && report.reached >= facts.log_from {
                    facts.proof_status = drill::status(&report);
                    if proof.is_some() {
                        facts.proof = proof;
                    }
                }
                Ok(report)
            }
            Kept::Directory(standing) => {
                standing.facts().busy = Some("drill");
                let source = &standing.config.name;
                let job = job(Arc::new(|_| {}));
                let drilled = drill::drill_directory(&ctx, source, standing.status(), &job).await;
                let mut facts = standing.facts();
                facts.busy = None;
                let Drilled { report, proof } = drilled?;
                if of == DrillOf::Newest {
                    facts.proof_status = drill::status(&report);
                    if proof.is_some() {
                        facts.proof = proof;
                    }
                }
                Ok(report)
            }
        }
    }

    /// Drills a source as soon as it has a point that no drill has restored, and then again and again.
    pub(super) async fn keep_proving(self, kept: Kept, stop: CancellationToken) {
        let every = self.shared.config.drill.every;
        let mut tried = Tried::default();
        while !stop.is_cancelled() {
            if self.due(&kept, &mut tried).await.is_some() {
                let turns = &self.shared.turns;
                let turn = tokio::select! {
                    () = stop.cancelled() => return,
                    turn = turns.take(kept.source(), kept.need()) => turn,
                };
                // Somebody may have asked for one meanwhile, and there may be a newer point.
                tried.looked_for_older = None;
                if let Some(due) = self.due(&kept, &mut tried).await {
                    self.run_due(&kept, due, &mut tried).await;
                }
                drop(turn);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = kept.wait(every) => {}
            }
        }
    }

    /// Returns the drill that is due.
    async fn due(&self, kept: &Kept, tried: &mut Tried) -> Option<Due> {
        let config = &self.shared.config.drill;
        let ctx = self.drill_context();
        let now = (self.shared.clock)();
        let (newest, end) = kept.newest();
        let newest_due = {
            let history = ctx.history();
            let view = View {
                known: history.of(kept.source()),
                newest: newest.as_ref(),
                end,
                broken_off: tried.broken_off,
                now,
            };
            view.newest_due(config)
        };
        if newest_due.is_some() {
            return newest_due;
        }
        let looked = tried.looked_for_older;
        let is_looked =
            looked.is_some_and(|at| at <= now && now.since(at) < limits::DRILL_OLDER_LOOK);
        if is_looked || newest.is_none() {
            return None;
        }
        tried.looked_for_older = Some(now);
        let points = self.points_of(kept.source()).await?;
        let history = ctx.history();
        let view = View {
            known: history.of(kept.source()),
            newest: newest.as_ref(),
            end,
            broken_off: tried.broken_off,
            now,
        };
        view.older_due(config, &points, drill::random())
    }

    /// Lists the points of a source, oldest first.
    async fn points_of(&self, source: &SourceName) -> Option<Vec<(PointId, Timestamp)>> {
        let (repository, source) = (self.shared.repository.clone(), source.clone());
        let listed = tokio::task::spawn_blocking(move || {
            let points = repository.reader().points(&source)?;
            let pairs = points.into_iter().map(|point| (point.point, point.at));
            Ok::<_, crate::repository::RepositoryError>(pairs.collect())
        });
        match listed.await {
            Ok(Ok(points)) => Some(points),
            Ok(Err(error)) => {
                tracing::warn!(what = %ErrorChain(&error), "the points to drill cannot be listed");
                None
            }
            Err(_) => None,
        }
    }

    async fn run_due(&self, kept: &Kept, due: Due, tried: &mut Tried) {
        let source = kept.source();
        let point = (due.of == DrillOf::Older).then_some(due.point);
        match self.prove(kept, (due.of, point), Haste::Background).await {
            Ok(report) => {
                tried.broken_off = None;
                let point = &report.point;
                let rto_s = report.rto.as_secs_f64();
                match (report.failure(), report.alarm()) {
                    (Some(what), _) => tracing::error!(%source, %point, what, "drill failed"),
                    (None, Some(what)) => {
                        tracing::error!(%source, %point, what, "rows are gone");
                    }
                    (None, None) => tracing::info!(%source, %point, rto_s, "drill passed"),
                }
            }
            Err(error) => {
                let what = ErrorChain(&error);
                tracing::warn!(%source, %what, "the drill could not be run");
                // It says nothing about the point, so it is tried again soon.
                tried.broken_off = Some((self.shared.clock)());
            }
        }
    }
}

/// Returns the points whose newest drill failed.
fn failed_points(ctx: &drill::DrillContext, source: &SourceName) -> Vec<PointId> {
    let history = ctx.history();
    let known = history.of(source);
    known.map(drill::Known::failed).unwrap_or_default()
}
