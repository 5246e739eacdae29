//! The vault as a whole: opens what it keeps, runs capture, ships and drills, and answers questions.

mod directories;
mod mirrors;
mod proving;
mod writing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use holdfast_core::{
    Code, Coded, DrillReport, NoRehearsal, NoWayBack, Principal, Proof, Rehearsal,
    RehearsalRequest, Rehearse, SignedProof, SourceName, Timestamp, WayBack, WayBackAnswer,
    ledger::Draft,
};
use holdfast_store::ledger::{Ledger, LedgerError};
use holdfast_store::object::{Location, ObjectError, Promise};
use tokio_util::sync::CancellationToken;

use crate::capture::{Budget, Capture, ChangeLog};
use crate::config::{Clock, VaultConfig};
use crate::drill::{self, DrillContext, History, Turns};
use crate::engine::directory::{DirectoryError, DirectoryStanding};
use crate::limits::REHEARSAL_WARM;
use crate::rehearsal::{self, RehearsalContext, Stages};
use crate::repository::{Reader, Repository, RepositoryError, Writer};
use crate::restore::Place;
use crate::retention::LockReport;
use crate::spool::{Spool, SpoolError};
use crate::standing::{Facts, Standing, Standings};
use crate::status::SourceStatus;
use crate::target::{self, TargetError};
use proving::Kept;

pub use writing::RepositoryStatus;

/// The running vault; clones share it.
#[derive(Clone)]
pub struct Vault {
    shared: Arc<Shared>,
}

struct Shared {
    config: VaultConfig,
    ledger: Ledger,
    key: SigningKey,
    clock: Clock,
    repository: Repository,
    promise: Promise,
    standings: Standings,
    directories: BTreeMap<SourceName, Arc<DirectoryStanding>>,
    budget: Budget,
    /// One drill at a time in a process: each is a whole restore.
    drilling: tokio::sync::Mutex<()>,
    /// Whose turn it is of those that nobody waits for.
    turns: Turns,
    /// What drills have left.
    history: Arc<Mutex<History>>,
    /// The clones that held actions are rehearsed on.
    stages: Stages,
    /// What the newest look at the locks found.
    locks: Mutex<LockReport>,
    /// A point was kept or released: locks may have to be lengthened sooner.
    look_at_locks: tokio::sync::Notify,
}

/// Why the vault cannot be opened or go on as a whole; a source's own trouble is in its status.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// What is kept of a source cannot be read back.
    #[error("cannot take up `{name}` again")]
    Recall {
        /// Which source.
        name: SourceName,
        /// Its code.
        code: Code,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another vault took over.
    #[error("this vault stopped: it is not the writer of its repository any more")]
    Replaced(#[source] ObjectError),
    /// The repository cannot be used.
    #[error("cannot open the repository")]
    Repository(#[from] RepositoryError),
    /// The ledger cannot be written.
    #[error("cannot record what the repository's place promises")]
    Ledger(#[from] LedgerError),
    /// The spool cannot be used.
    #[error("cannot open the spool")]
    Spool(#[from] SpoolError),
    /// The state directory cannot be made.
    #[error("cannot make the state directory `{}`", path.display())]
    State {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing can be said of the place of the repository.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Coded for VaultError {
    fn code(&self) -> Code {
        match self {
            Self::Recall { code, .. } => *code,
            Self::Replaced(error) => error.code(),
            Self::Repository(error) => error.code(),
            Self::Ledger(error) => error.code(),
            Self::Spool(error) => error.code(),
            Self::State { .. } => Code::ZS304,
            Self::Target(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Recall { .. } => {
                Some("nothing was changed; check the state directory and the repository".to_owned())
            }
            Self::Replaced(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            Self::Ledger(error) => error.hint(),
            Self::Spool(error) => error.hint(),
            Self::Target(error) => error.hint(),
            Self::State { .. } => Some("check who owns it; nothing was captured".to_owned()),
        }
    }
}

impl Vault {
    /// Opens repository (as the one writer), spool and keys; blocks, and connects to nothing yet.
    ///
    /// # Errors
    /// [`VaultError`] when the repository or the state directory cannot be used.
    pub fn open(
        mut config: VaultConfig,
        ledger: Ledger,
        key: SigningKey,
        clock: Clock,
    ) -> Result<Self, VaultError> {
        holdfast_store::durable::make_folder(&config.state).map_err(|source| {
            VaultError::State {
                path: config.state.clone(),
                source,
            }
        })?;
        // First of all: what an earlier vault left running must not wait for a repository to answer.
        drill::sweep(&config.drill, &config.state);
        let promise = target::settle(&mut config.repository, &config.state, clock())?;
        record_promise(&ledger, &config.repository, &promise, clock())?;
        let writer = Writer {
            state: config.state.clone(),
            retention: config.retention.clone(),
        };
        let (location, signing) = (&config.repository, (key.clone(), &config.keys));
        let repository = Repository::open_as(location, signing, clock.clone(), Some(&writer))?;
        let standings = config
            .sources
            .iter()
            .map(|source| (source.name.clone(), Arc::new(Standing::new(source.clone()))))
            .collect();
        let directories = config
            .directories
            .iter()
            .map(|one| {
                let standing = DirectoryStanding::new(one.clone());
                (one.name.clone(), Arc::new(standing))
            })
            .collect();
        let turns = Turns::new(config.drill.share);
        let form = config.drill.form;
        let history = History::read(&ledger)?;
        let vault = Self {
            shared: Arc::new(Shared {
                config,
                ledger,
                key,
                clock,
                repository,
                promise,
                standings,
                directories,
                budget: Budget::new(),
                drilling: tokio::sync::Mutex::new(()),
                turns,
                history: Arc::new(Mutex::new(history)),
                stages: Stages::opening(form),
                locks: Mutex::default(),
                look_at_locks: tokio::sync::Notify::new(),
            }),
        };
        vault.remember_moves();
        for standing in vault.shared.standings.values() {
            let capture = vault.capture(standing, &CancellationToken::new())?;
            capture.recall().map_err(|error| VaultError::Recall {
                name: standing.config.name.clone(),
                code: error.code(),
                source: Box::new(error),
            })?;
            vault.remember(standing)?;
        }
        for standing in vault.shared.directories.values() {
            vault.remember_directory(standing)?;
        }
        Ok(vault)
    }

    fn place(&self) -> Place {
        let shared = &self.shared;
        Place {
            state: shared.config.state.clone(),
            repository: shared.config.repository.clone(),
            keys: shared.config.keys.clone(),
            vault_key: Some(shared.key.verifying_key()),
            postgres: shared.config.postgres.clone(),
        }
    }

    fn drill_context(&self) -> DrillContext {
        let shared = &self.shared;
        DrillContext {
            place: self.place(),
            config: shared.config.drill.clone(),
            repository: shared.repository.clone(),
            ledger: shared.ledger.clone(),
            key: shared.key.clone(),
            clock: shared.clock.clone(),
            history: shared.history.clone(),
        }
    }

    /// Returns what the ledger says of a source's newest drill, and the newest proof in it.
    fn newest_drill(&self, source: &SourceName) -> (Option<DrillReport>, Option<SignedProof>) {
        let history = self.shared.history.lock();
        let history = history.unwrap_or_else(PoisonError::into_inner);
        let known = history.of(source);
        let newest = known.and_then(|known| known.newest()).cloned();
        (newest, known.and_then(|known| known.proof()).cloned())
    }

    /// Takes up what is kept of a directory, and what drills of it have proven.
    fn remember_directory(&self, standing: &DirectoryStanding) -> Result<(), VaultError> {
        let shared = &self.shared;
        let name = &standing.config.name;
        let recalled = |code, source| VaultError::Recall {
            name: name.clone(),
            code,
            source,
        };
        let repository = shared.config.repository.directory();
        for own in repository
            .into_iter()
            .chain([shared.config.state.as_path()])
        {
            let path = &standing.config.directory;
            if own.starts_with(path) || path.starts_with(own) {
                let error = DirectoryError::OwnPlace { path: path.clone() };
                return Err(recalled(error.code(), Box::new(error)));
            }
        }
        let reader = shared.repository.reader();
        let newest = reader.points(name)?.pop();
        let newest_drill = self.newest_drill(name);
        let key = shared.key.verifying_key();
        let remembered = drill::recall(reader, newest_drill, name, &key)
            .map_err(|error| recalled(error.code(), Box::new(error)))?;
        let mut facts = standing.facts();
        facts.newest = newest;
        facts.proof = remembered.proof;
        facts.proof_status = remembered.status;
        Ok(())
    }

    /// Takes up what drills of a source have proven before.
    fn remember(&self, standing: &Standing) -> Result<(), VaultError> {
        let shared = &self.shared;
        let key = shared.key.verifying_key();
        let name = &standing.config.name;
        let reader = Reader::open(&shared.config.repository, Some(key), &shared.config.keys)?;
        let remembered =
            drill::recall(&reader, self.newest_drill(name), name, &key).map_err(|error| {
                VaultError::Recall {
                    name: name.clone(),
                    code: error.code(),
                    source: Box::new(error),
                }
            })?;
        let mut facts = standing.facts();
        // What was proven before a hole of the log says nothing about what is restored today.
        let log_from = facts.log_from;
        let is_unbroken = |proof: &Proof| proof.report().reached >= log_from;
        if remembered.proof.as_ref().is_none_or(is_unbroken) {
            facts.proof = remembered.proof;
            facts.proof_status = remembered.status;
        }
        let history = shared.history.lock();
        let history = history.unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = history.of(name) {
            facts.failed_points = known.failed();
            if known.losses().is_empty() {
                facts.proof_status.alarm = None;
            }
        }
        Ok(())
    }

    /// Captures, ships and drills until `stop`; returns after everything is flushed.
    ///
    /// # Errors
    /// [`VaultError`] when a part of the vault itself fails; trouble with one source does not end it.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), VaultError> {
        // A vault that was replaced stops by itself, and whatever else runs beside it goes on.
        let stop = stop.child_token();
        let captures = self.shared.standings.values();
        let captures: Vec<Capture> = captures
            .map(|standing| self.capture(standing, &stop))
            .collect::<Result<_, _>>()?;
        let mut parts = tokio::task::JoinSet::new();
        for capture in captures {
            parts.spawn(capture.run());
        }
        for standing in self.shared.standings.values() {
            let kept = Kept::Cluster(standing.clone());
            parts.spawn(self.clone().keep_proving(kept, stop.clone()));
        }
        for mirror in self.mirrors(&stop)? {
            parts.spawn(mirrors::keep(mirror));
        }
        for standing in self.shared.directories.values() {
            parts.spawn(self.clone().keep_directory(standing.clone(), stop.clone()));
            let kept = Kept::Directory(standing.clone());
            parts.spawn(self.clone().keep_proving(kept, stop.clone()));
        }
        parts.spawn(self.clone().keep_locked(stop.clone()));
        parts.spawn(self.clone().keep_stages(stop.clone()));
        let writing = tokio::spawn(self.clone().keep_writing(stop.clone()));
        while parts.join_next().await.is_some() {}
        match writing.await {
            Ok(Some(replaced)) => Err(VaultError::Replaced(replaced)),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    fn capture(
        &self,
        standing: &Arc<Standing>,
        stop: &CancellationToken,
    ) -> Result<Capture, SpoolError> {
        let shared = &self.shared;
        let spool = Spool::open(&shared.config.state, &standing.config.name)?;
        Ok(Capture {
            standing: standing.clone(),
            links: Capture::links(&spool)?,
            spool,
            repository: shared.repository.clone(),
            ledger: shared.ledger.clone(),
            clock: shared.clock.clone(),
            budget: shared.budget.clone(),
            folder: shared.config.repository.directory().map(Path::to_owned),
            points: shared.config.points.clone(),
            changes: ChangeLog::default(),
            stop: stop.clone(),
        })
    }

    /// Tells what may be said of what is kept, as it was when the vault was opened.
    pub fn promise(&self) -> &Promise {
        &self.shared.promise
    }

    /// Sets how long a rehearsal may run on its clone.
    pub fn limit_rehearsals(&self, limit: Duration) {
        self.shared.stages.limit(limit);
    }

    /// Tells how every source stands, from memory.
    pub fn status(&self) -> Vec<SourceStatus> {
        self.shared
            .standings
            .values()
            .map(|standing| standing.status())
            .collect()
    }

    /// Asks for a restore point as soon as the stream runs; tells whether the source is known.
    ///
    /// It is there when `status` shows another one than before.
    pub fn ask_for_point(&self, source: &SourceName) -> bool {
        let standing = self.shared.standings.get(source);
        if let Some(standing) = standing {
            standing.facts().point_wanted = true;
        }
        standing.is_some()
    }

    /// Ends clones that no rehearsal has needed for a while.
    async fn keep_stages(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(REHEARSAL_WARM / 4) => {}
            }
            let vault = self.clone();
            let cooled = tokio::task::spawn_blocking(move || vault.shared.stages.cool());
            // Whatever is left is ended when this process ends.
            let _ = cooled.await;
        }
        let cleared = tokio::task::spawn_blocking(move || self.shared.stages.clear());
        let _ = cleared.await;
    }
}

/// Writes down what was promised, so that it can be told later what was relied on.
fn record_promise(
    ledger: &Ledger,
    location: &Location,
    promise: &Promise,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let draft = Draft::new("repository.promised", Principal::service("vault"), now)
        .with("place", location.place());
    let draft = match promise {
        Promise::Advisory { why } => {
            match location {
                Location::Directory(_) => tracing::info!(why, "the repository is advisory"),
                Location::S3(_) => tracing::warn!(why, "the repository is advisory"),
            }
            draft.with("promise", "advisory").with("why", why.as_str())
        }
        Promise::Compliance => {
            tracing::info!(repository = %location, "the repository is immutable");
            draft.with("promise", "compliance")
        }
    };
    ledger.append(draft)?;
    Ok(())
}

impl Rehearse for Vault {
    fn rehearse(
        &self,
        request: &RehearsalRequest,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Rehearsal, NoRehearsal> {
        let standing = self.shared.standings.get(&request.source);
        let standing = standing.ok_or(NoRehearsal::UnknownSource)?;
        let after = request.after;
        standing.wait_until(|facts| after <= Some(facts.flushed), cancelled);
        // A clone that is open serves only when it is known that nothing was committed since.
        let is_shipped = |facts: &Facts| after <= Some(facts.shipped);
        let knows_commits = after.is_some()
            && self.shared.stages.has(&request.source)
            && standing.wait_until(is_shipped, cancelled);
        let newest_commit = standing.facts().newest_commit.filter(|_| knows_commits);
        let _busy = standing.busy("rehearsal");
        let ctx = RehearsalContext {
            place: &self.place(),
            stages: &self.shared.stages,
            newest_commit,
            clock: &*self.shared.clock,
            cancelled,
        };
        rehearsal::rehearse(&ctx, request)
    }
}

impl WayBack for Vault {
    fn way_back(&self, source: &SourceName, now: Timestamp) -> Result<WayBackAnswer, NoWayBack> {
        if let Some(standing) = self.shared.directories.get(source) {
            return standing.way_back(now);
        }
        match self.shared.standings.get(source) {
            None => Err(NoWayBack::UnknownSource(source.clone())),
            Some(standing) => standing.way_back(),
        }
    }
}
