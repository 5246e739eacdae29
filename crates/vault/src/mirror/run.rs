//! Keeping the mirror of one source alive: laid, started, fed, asked, handed over, made anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::ledger::Draft;
use holdfast_core::{ByteCount, Coded, ErrorChain, Lsn, Principal};
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
use crate::watch::Brink;

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
    /// How long it waits before what destroys, so that it can take over there.
    pub(crate) hold: Duration,
    /// What its disk keeps free for capture.
    pub(crate) reserve: ByteCount,
}

/// What earlier lives have learnt about where the next one may begin.
#[derive(Clone, Copy, Default)]
struct Learnt {
    /// Only a restore point that begins here or later can be laid.
    not_before: Lsn,
    /// The log cannot be read here: files from before are of no use once there is a point behind it.
    broken: Lsn,
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
    /// Before what it waits, and since when.
    holding: Option<(Lsn, Instant)>,
    /// When it was last looked whether the disk has room.
    measured: Instant,
}

impl Mirror {
    /// Keeps the mirror until told to stop; blocks.
    pub(crate) fn run(self) {
        self.standing.mirror.want();
        let (mut wait, mut failures) = (limits::MIRROR_AGAIN, 0_u32);
        let mut learnt = Learnt::default();
        let folder = loop {
            if self.stop.is_cancelled() {
                return;
            }
            match Folder::open(&self.root, &self.standing.config.name) {
                Ok(folder) => break folder,
                Err(error) => {
                    self.failed(&error);
                    self.rest(wait);
                    wait = wait.saturating_mul(2).min(limits::MIRROR_AGAIN_MAX);
                }
            }
        };
        wait = limits::MIRROR_AGAIN;
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            let error = match self.live(&folder, learnt) {
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
            let error = match error.is_of_full_disk() {
                true => folder.full(self.reserve),
                false => error,
            };
            match &error {
                MirrorError::Tablespace { at } => {
                    learnt.not_before = *at;
                    self.standing.facts().point_wanted = true;
                }
                MirrorError::Log { at, .. } => learnt.broken = *at,
                _ => {}
            }
            self.failed(&error);
            // Other files do not make the log whole; what there is can take over at its end.
            let is_of_log = matches!(error, MirrorError::Log { .. });
            let is_hopeless = !is_of_log && failures.is_multiple_of(limits::MIRROR_FAILURES);
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
    fn await_point(&self, not_before: Lsn) -> Result<(Cluster, Lsn), MirrorError> {
        loop {
            if self.stop.is_cancelled() {
                return Err(MirrorError::Stopped);
            }
            let (point, log_from) = {
                let facts = self.standing.facts();
                (facts.base.clone(), facts.log_from)
            };
            let start = point.map(|(_, start)| start);
            let start = start.filter(|start| *start >= log_from.max(not_before));
            if let (Some(start), Some(cluster)) = (start, self.spool.cluster()?) {
                return Ok((cluster, start));
            }
            std::thread::sleep(limits::POLL);
        }
    }

    /// One life: from laying or taking up the files to an error or the end.
    fn live(&self, folder: &Folder, learnt: Learnt) -> Result<Ended, MirrorError> {
        let (cluster, point) = self.await_point(learnt.not_before)?;
        let known = folder.current(cluster.system_identifier);
        let known = known.filter(|(note, _)| {
            note.start >= learnt.not_before
                && (note.start >= learnt.broken || point < learnt.broken)
        });
        let (note, data) = match known {
            Some(known) => known,
            None => self.lay(folder)?,
        };
        // A reserve that is not there for long would throw away and lay again and again.
        folder.has_room(ByteCount(self.reserve.0 / 2))?;
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
            holding: None,
            measured: Instant::now(),
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
            let done = ByteCount(done.saturating_add(bytes));
            busy.says(format!("laying the mirror: {done}"));
        };
        let name = &self.standing.config.name;
        let base = lay(&self.place, (name, self.reserve), &data, &each)?;
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
    let control = standby.control().map_err(MirrorError::Half)?;
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
        (redo.max(minimum), control.checkpoint.plus(ITS_SECOND)),
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
            if self.measured.elapsed() >= limits::MIRROR_ROOM_LOOK {
                self.measured = Instant::now();
                folder.has_room(ByteCount(self.mirror.reserve.0 / 2))?;
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
        let brink = match step {
            Step::Brink(brink) => Some(brink),
            Step::Cut | Step::Fed | Step::Idle => None,
        };
        let is_over = brink.is_some_and(|brink| self.has_held(&brink, flushed));
        let mut facts = standing.mirror.lock();
        facts.brink = brink;
        // A permission is for one position: the next one needs a point of its own.
        if is_over && facts.may_pass == brink.map(|brink| brink.before) {
            facts.may_pass = None;
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

    /// Tells whether it has waited long enough before what destroys. Who wants the moment before it back
    /// is served in seconds meanwhile; what comes behind it is replayed later, so that there is a limit.
    fn has_held(&mut self, brink: &Brink, flushed: Lsn) -> bool {
        let began = match self.holding {
            Some((before, began)) if before == brink.before => began,
            _ => {
                let began = Instant::now();
                self.holding = Some((brink.before, began));
                began
            }
        };
        let (hold, now) = (self.mirror.hold, (self.mirror.clock)());
        // By its own time, so that many in a row do not add up.
        let is_old = brink
            .at
            .is_some_and(|at| at <= now && now.since(at) >= hold);
        is_old
            || began.elapsed() >= hold
            || flushed.since(brink.before).0 >= limits::MIRROR_HOLD_LOG
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

/// The control file has the time of a checkpoint in whole seconds.
const ITS_SECOND: Duration = Duration::from_secs(1);

/// Returns the folder of all mirrors.
pub(crate) fn root(state: &Path, wished: Option<&Path>) -> PathBuf {
    wished.map_or_else(|| state.with_extension("mirror"), Path::to_owned)
}
