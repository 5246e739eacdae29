//! Keeping the mirror of one source alive: laid, started, fed, asked, handed over, made anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::ledger::Draft;
use holdfast_core::{Coded, ErrorChain, Lsn, Principal};
use holdfast_store::ledger::Ledger;
use tokio_util::sync::CancellationToken;

use super::feed::{Feeder, Step};
use super::folder::{Folder, Note};
use super::log::KeptLog;
use super::server::{self, Server};
use super::take::take_over;
use super::{Ask, MirrorError, Promoted};
use crate::config::Clock;
use crate::limits;
use crate::repository::Reader;
use crate::restore::{Place, Standby, lay};
use crate::spool::{Cluster, Spool};
use crate::standing::Standing;
use crate::status::MirrorState;

/// Everything that the mirror of one source needs.
pub(crate) struct Mirror {
    pub(crate) place: Place,
    /// The folder of all mirrors.
    pub(crate) root: PathBuf,
    pub(crate) standing: Arc<Standing>,
    pub(crate) spool: Spool,
    pub(crate) reader: Reader,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
}

/// How a life of the mirror ended without an error.
enum Ended {
    /// It must be started again, which is no failure.
    Again,
    /// It was promoted and is somebody else's now.
    Handed,
}

/// A mirror that runs.
struct Life<'a> {
    mirror: &'a Mirror,
    server: Server,
    feeder: Feeder,
    replayed: Lsn,
    asked: Option<Instant>,
    /// When it last had everything replayed, or replayed more.
    moved: Instant,
    /// When log last came.
    came: Instant,
}

impl Mirror {
    /// Keeps the mirror until told to stop; blocks.
    pub(crate) fn run(self) {
        self.standing.mirror.want();
        let (mut wait, mut failures) = (limits::MIRROR_AGAIN, 0_u32);
        let mut not_before = Lsn::ZERO;
        let folder = loop {
            if self.stop.is_cancelled() {
                return;
            }
            match Folder::open(&self.root, &self.standing.config.name) {
                Ok(folder) => break folder,
                Err(error) => {
                    self.failed(&error);
                    self.rest(limits::MIRROR_AGAIN_MAX);
                }
            }
        };
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            let error = match self.live(&folder, not_before) {
                Ok(Ended::Again | Ended::Handed) => {
                    self.at_rest(MirrorState::Starting);
                    continue;
                }
                Err(MirrorError::Stopped) => break,
                Err(error) => error,
            };
            if began.elapsed() > limits::MIRROR_AGAIN_MAX {
                (wait, failures) = (limits::MIRROR_AGAIN, 0);
            }
            failures = failures.saturating_add(1);
            if let MirrorError::Tablespace { at } = &error {
                not_before = *at;
                self.standing.facts().point_wanted = true;
            }
            self.failed(&error);
            let is_hopeless = failures.is_multiple_of(limits::MIRROR_FAILURES);
            if (error.is_final() || is_hopeless)
                && let Err(error) = folder.discard()
            {
                self.failed(&error);
            }
            self.rest(wait);
            wait = wait.saturating_mul(2).min(limits::MIRROR_AGAIN_MAX);
        }
        self.at_rest(MirrorState::Starting);
        let known = self.spool.cluster().ok().flatten();
        let known = known.map(|cluster| cluster.system_identifier);
        if let Some((_, data)) = known.and_then(|known| folder.current(known)) {
            server::stop(&data);
        }
    }

    fn failed(&self, error: &MirrorError) {
        let trouble = crate::status::Trouble {
            code: error.code().to_string(),
            what: ErrorChain(error).to_string(),
            hint: error.hint(),
        };
        let source = self.standing.config.name.as_str();
        let is_news = {
            let mut facts = self.standing.mirror.lock();
            let before = facts.trouble.replace(trouble.clone());
            facts.state = MirrorState::Failed;
            facts.local = None;
            before.is_none_or(|before| before.code != trouble.code)
        };
        if !is_news {
            return;
        }
        match error {
            MirrorError::Log { .. } | MirrorError::Replay { .. } => {
                tracing::error!(source, code = trouble.code, "{}", trouble.what);
                self.note("mirror.does_not_replay", |draft| {
                    draft
                        .with("code", trouble.code.as_str())
                        .with("what", trouble.what.as_str())
                });
            }
            _ => tracing::warn!(source, code = trouble.code, "{}", trouble.what),
        }
    }

    fn at_rest(&self, state: MirrorState) {
        let mut facts = self.standing.mirror.lock();
        facts.state = state;
        facts.local = None;
        facts.brink = None;
        facts.checkpoint = None;
    }

    fn note(&self, kind: &str, fill: impl FnOnce(Draft) -> Draft) {
        let draft = Draft::new(kind, Principal::service("vault"), (self.clock)())
            .source(self.standing.config.name.clone());
        if let Err(error) = self.ledger.append(fill(draft)) {
            let code = error.code();
            tracing::error!(%code, kind, "the ledger cannot be written: {error}");
        }
    }

    fn rest(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        while !self.stop.is_cancelled() && Instant::now() < deadline {
            std::thread::sleep(limits::POLL.min(wait));
        }
    }

    /// Waits until there is something to lay it from.
    fn await_point(&self, not_before: Lsn) -> Result<Cluster, MirrorError> {
        loop {
            if self.stop.is_cancelled() {
                return Err(MirrorError::Stopped);
            }
            let (point, log_from) = {
                let facts = self.standing.facts();
                (facts.base.clone(), facts.log_from)
            };
            let is_continued = point.is_some_and(|(_, start)| start >= log_from.max(not_before));
            if let Some(cluster) = self.spool.cluster()?.filter(|_| is_continued) {
                return Ok(cluster);
            }
            std::thread::sleep(limits::POLL);
        }
    }

    /// One life: from laying or taking up the files to an error or the end.
    fn live(&self, folder: &Folder, not_before: Lsn) -> Result<Ended, MirrorError> {
        let cluster = self.await_point(not_before)?;
        let known = folder.current(cluster.system_identifier);
        let (note, data) = match known {
            Some(known) => known,
            None => self.lay(folder)?,
        };
        let standby = Standby::find(&self.place, &data, note.major)?;
        let log = KeptLog::new(
            self.standing.config.name.clone(),
            (self.spool.clone(), self.reader.clone()),
            cluster,
            Some(Arc::clone(&self.standing)),
        );
        let mut feeder = begin(&standby, &note, log)?;
        let mut meanwhile = || {
            if self.stop.is_cancelled() {
                return Err(MirrorError::Stopped);
            }
            while feeder.step()? == Step::Fed {}
            Ok(())
        };
        let server = Server::up(&standby, &mut meanwhile)?;
        let mut life = Life {
            mirror: self,
            server,
            feeder,
            replayed: Lsn::ZERO,
            asked: None,
            moved: Instant::now(),
            came: Instant::now(),
        };
        let source = self.standing.config.name.as_str();
        tracing::info!(source, port = life.server.local.port, "the mirror follows");
        let ended = life.follow(folder);
        match ended {
            Err(MirrorError::Ask(_)) if !life.server.runs() => Err(life.server.ended()),
            ended => ended,
        }
    }

    fn lay(&self, folder: &Folder) -> Result<(Note, PathBuf), MirrorError> {
        folder.discard()?;
        let data = folder.fresh()?;
        let busy = self.standing.busy("mirror");
        let done = std::sync::atomic::AtomicU64::new(0);
        let each = |bytes: u64| {
            let done = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            let done = holdfast_core::ByteCount(done.saturating_add(bytes));
            busy.says(format!("laying the mirror: {done}"));
        };
        let base = lay(&self.place, &self.standing.config.name, &data, &each)?;
        let note = folder.keep(&data, &base)?;
        self.note("mirror.laid", |draft| {
            draft
                .with("point", base.point.as_str())
                .with("start", base.start_lsn.to_string())
        });
        Ok((note, data))
    }
}

/// Finds from where on a mirror needs the log.
pub(super) fn begin(standby: &Standby, note: &Note, log: KeptLog) -> Result<Feeder, MirrorError> {
    let is_fresh = standby.data.join("backup_label").exists();
    let control = standby.control()?;
    let (timeline, redo) = match is_fresh {
        true => (note.timeline, note.start),
        false => (control.timeline, control.redo),
    };
    let minimum = if is_fresh { note.stop } else { control.minimum };
    for (newer, text, _) in log.histories(0)? {
        if newer <= timeline {
            standby.put_history(newer, &text)?;
        }
    }
    Ok(Feeder::begin(
        log,
        standby.clone(),
        (timeline, redo),
        redo.max(minimum),
    ))
}

impl Life<'_> {
    fn follow(&mut self, folder: &Folder) -> Result<Ended, MirrorError> {
        loop {
            if self.mirror.stop.is_cancelled() {
                return Err(MirrorError::Stopped);
            }
            let ask = self.mirror.standing.mirror.lock().ask.take();
            if let Some(ask) = ask {
                match self.hand_over(folder, ask)? {
                    Some(ended) => return Ok(ended),
                    None => continue,
                }
            }
            let step = self.feeder.step()?;
            if step == Step::Fed {
                self.came = Instant::now();
            }
            let is_due = self
                .asked
                .is_none_or(|asked| asked.elapsed() >= limits::MIRROR_ASK);
            if is_due && let Some(ended) = self.look(step)? {
                return Ok(ended);
            }
            match step {
                Step::Fed => {}
                Step::Brink(_) => std::thread::sleep(limits::MIRROR_POLL),
                Step::Cut | Step::Idle => std::thread::sleep(match self.came.elapsed() {
                    quiet if quiet > limits::MIRROR_QUIET => limits::MIRROR_IDLE_POLL,
                    _ => limits::MIRROR_POLL,
                }),
            }
        }
    }

    /// Asks the server how far it is, and tells everybody.
    fn look(&mut self, step: Step) -> Result<Option<Ended>, MirrorError> {
        self.asked = Some(Instant::now());
        if !self.server.runs() {
            return Err(self.server.ended());
        }
        let replayed = self.server.replayed()?;
        let behind = self.feeder.behind();
        if replayed > self.replayed || replayed >= behind {
            self.moved = Instant::now();
        }
        self.replayed = replayed;
        if replayed < behind && self.moved.elapsed() >= limits::MIRROR_ASK.saturating_mul(5) {
            // The source was given larger settings, which take effect at a start.
            if self.server.is_paused()? {
                tracing::info!("the mirror starts again with larger settings");
                server::stop(&self.server.standby.data);
                return Ok(Some(Ended::Again));
            }
        }
        if self.moved.elapsed() >= limits::MIRROR_STUCK {
            server::stop(&self.server.standby.data);
            return Err(MirrorError::Replay {
                why: format!("nothing was replayed behind {replayed} for a minute"),
                said: self.server.said(),
            });
        }
        self.tell(step);
        Ok(None)
    }

    fn tell(&mut self, step: Step) {
        let standing = &self.mirror.standing;
        let flushed = standing.facts().flushed;
        let mut facts = standing.mirror.lock();
        facts.brink = match step {
            Step::Brink(brink) => Some(brink),
            Step::Cut | Step::Fed | Step::Idle => None,
        };
        if std::mem::take(&mut facts.may_pass) && facts.brink.is_some() {
            self.feeder.release();
            facts.brink = None;
        }
        facts.state = match facts.brink {
            Some(_) => MirrorState::Holding,
            None => MirrorState::Following,
        };
        facts.trouble = None;
        facts.replayed = self.replayed;
        // A record that has not come whole cannot be replayed by anybody.
        let has_all = step == Step::Idle && self.replayed >= self.feeder.behind();
        if has_all || self.replayed >= flushed {
            facts.behind_since = None;
        } else {
            facts.behind_since.get_or_insert_with(Instant::now);
        }
        facts.newest_commit = self.feeder.newest_commit();
        facts.checkpoint = self.feeder.checkpoint(self.replayed);
        facts.local = Some(self.server.local.clone());
    }

    /// Replays what was asked for and promotes; `None` when that cannot be and nothing has changed.
    fn hand_over(&mut self, folder: &Folder, ask: Ask) -> Result<Option<Ended>, MirrorError> {
        let is_left = ask.timeline < self.feeder.timeline();
        if is_left || !self.feeder.aim(ask.cut) {
            let _ = ask.answer.send(Err(MirrorError::Passed));
            return Ok(None);
        }
        match self.take_over(folder, &ask) {
            Ok(promoted) => {
                let directory = promoted.directory.display().to_string();
                self.mirror.note("mirror.promoted", |draft| {
                    draft
                        .with("directory", directory)
                        .with("timeline", promoted.timeline)
                        .with("reached", promoted.reached.to_string())
                });
                let _ = ask.answer.send(Ok(promoted));
                Ok(Some(Ended::Handed))
            }
            Err(error @ MirrorError::None { .. }) => {
                let _ = ask.answer.send(Err(error));
                Ok(Some(Ended::Again))
            }
            Err(error) => {
                let why = ErrorChain(&error).to_string();
                let _ = ask.answer.send(Err(MirrorError::None { why }));
                Err(error)
            }
        }
    }

    fn take_over(&mut self, folder: &Folder, ask: &Ask) -> Result<Promoted, MirrorError> {
        take_over(
            &mut self.server,
            &mut self.feeder,
            (ask.cut, &ask.slot),
            || folder.hand_over(),
        )
    }
}

/// Returns the folder of all mirrors.
pub(crate) fn root(state: &Path, wished: Option<&Path>) -> PathBuf {
    wished.map_or_else(|| state.with_extension("mirror"), Path::to_owned)
}
