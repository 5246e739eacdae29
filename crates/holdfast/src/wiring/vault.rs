//! The vault half: its configuration, its local API, reading without it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_core::{Code, PointId, SourceName, WayBack};
use holdfast_store::keyring::Keyring;
use holdfast_store::ledger::Ledger;
use holdfast_store::object::Keys;
use holdfast_vault::retention::{KeepRules, MarkRequest};
use holdfast_vault::{
    AckMode, Assertion, CaptureState, ConnectionUrl, DirectoryConfig, DrillConfig, MirrorConfig,
    Place, PointsConfig, PostgresConfig, Reader, RecoverRequest, Recovered, RestoreTarget,
    RetentionConfig, SourceConfig, SourceStatus, Vault, VaultConfig, enable_synchronous,
    system_clock,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Request};
use crate::cmd::recover;
use crate::config::{self, Config};
use crate::report::Failure;
use crate::wiring::clones;
use crate::wiring::keys::{self, NewKeys};
use crate::wiring::rehearsal::UnderWay;
use crate::wiring::way_back::Told;
use crate::wiring::{Half, failure, now, operator};

/// How often a source that is not yet synchronous is looked at.
const SYNCHRONOUS_TRY_EVERY: Duration = Duration::from_millis(250);

/// Returns where the vault's things are, for reading beside it or without it.
///
/// # Errors
/// When there is no public key of the vault.
pub fn place(config: &Config) -> Result<Place, Failure> {
    Ok(Place {
        vault_key: Some(Half::Vault.public_key(config)?),
        ..place_without_key(config)?
    })
}

/// Returns the same without the vault's public key.
///
/// # Errors
/// When a key of the repository's objects cannot be read.
pub fn place_without_key(config: &Config) -> Result<Place, Failure> {
    Ok(Place {
        state: config.vault_dir(),
        repository: config.repository(),
        keys: keys::open(config)?.keys(),
        vault_key: None,
        postgres: postgres(config),
    })
}

fn postgres(config: &Config) -> PostgresConfig {
    let dirs = config.vault.postgres_bin_dirs.iter();
    PostgresConfig {
        dirs: dirs.map(|dir| config.base.join(dir)).collect(),
        run_as: Some(config.vault.run_as.clone()),
    }
}

/// Returns what the vault is told about one source.
///
/// # Errors
/// When it has no `vault_url`, or the secret leads nowhere or is no connection string.
pub fn source(config: &Config, source: &config::SourceConfig) -> Result<SourceConfig, Failure> {
    let Some(reference) = &source.vault_url else {
        return Err(Failure::new(
            Code::ZU603,
            format!("the source `{}` has no vault_url", source.name),
            "add `vault_url` to its block in holdfast.toml, as `env:NAME` or `file:PATH`",
        ));
    };
    let text = reference.read(&format!("vault_url of `{}`", source.name), &config.base)?;
    let url: ConnectionUrl = text.expose().parse().map_err(|error| failure(&error))?;
    let assertions = source.assertions.iter().enumerate();
    let assertions = assertions
        .map(|(index, sql)| Assertion {
            name: format!("assertion {}", index.saturating_add(1)),
            database: url.database.clone(),
            sql: sql.clone(),
        })
        .collect();
    Ok(SourceConfig {
        name: source.name.clone(),
        url,
        mode: if source.synchronous {
            AckMode::Synchronous
        } else {
            AckMode::Asynchronous
        },
        ack: source.ack,
        assertions,
    })
}

/// Returns everything the vault is told.
///
/// # Errors
/// When a secret leads nowhere.
pub fn vault_config(config: &Config) -> Result<VaultConfig, Failure> {
    let with_url = config.sources.iter().filter(|s| s.vault_url.is_some());
    let sources: Result<Vec<_>, Failure> = with_url.map(|s| source(config, s)).collect();
    Ok(VaultConfig {
        state: config.vault_dir(),
        repository: config.repository(),
        keys: keys::required(config)?,
        sources: sources?,
        directories: directories(config),
        postgres: postgres(config),
        drill: drills(config),
        points: PointsConfig {
            every: Duration::from_secs(config.vault.point_every_s),
            full_every: Duration::from_secs(config.vault.full_every_s),
            log_bytes: config.vault.point_every_mib.saturating_mul(1 << 20),
            mirrors: MirrorConfig {
                sources: mirrored(config),
                dir: None,
                hold: Duration::from_secs(config.vault.mirror_hold_s),
                reserve: holdfast_vault::limits::MIRROR_RESERVE,
            },
        },
        retention: RetentionConfig {
            lock_for: config.vault.lock_for,
            immutable: config.vault.immutable,
            heartbeat: Duration::from_secs(config.vault.heartbeat_s.max(1)),
            rules: rules(config),
        },
    })
}

/// Returns when and how hard drills are run.
fn drills(config: &Config) -> DrillConfig {
    let vault = &config.vault;
    // Also what does not change is proven anew before guard takes its proof for stale.
    let unchanged = (config.guard.proof_age_max_s / 3).min(vault.drill_older_every_s);
    DrillConfig {
        every: Duration::from_secs(vault.drill_every_s),
        unchanged_every: Duration::from_secs(unchanged),
        older_every: Duration::from_secs(vault.drill_older_every_s),
        share: vault.drill_share,
        nice: vault.drill_nice,
        bytes_per_s: vault.drill_mib_s.map(|mib| mib.saturating_mul(1 << 20)),
        dir: vault.drill_dir.as_ref().map(|dir| config.base.join(dir)),
        budget: Duration::from_secs(vault.drill_budget_s),
        form: vault.clones.form,
    }
}

/// Returns the sources that have a mirror.
fn mirrored(config: &Config) -> BTreeSet<SourceName> {
    let sources = config.sources.iter();
    let with = sources.filter(|source| source.mirror.unwrap_or(config.vault.mirror));
    with.map(|source| source.name.clone()).collect()
}

/// Returns the rules of every source.
pub fn rules(config: &Config) -> BTreeMap<SourceName, KeepRules> {
    let sources = config.sources.iter();
    sources
        .map(|source| (source.name.clone(), source.keep))
        .collect()
}

/// Opens the repository for reading, as expiry reaches it.
///
/// # Errors
/// When there is none, or no public key of the vault.
pub fn expiring_reader(config: &Config) -> Result<Reader, Failure> {
    let place = place(config)?;
    let location = config.expiring();
    Ok(Reader::open(&location, place.vault_key, &place.keys)?)
}

/// Returns what the vault is told about directories.
fn directories(config: &Config) -> Vec<DirectoryConfig> {
    let named = config.sources.iter();
    named
        .filter_map(|source| {
            Some(DirectoryConfig {
                name: source.name.clone(),
                directory: config.base.join(source.directory.as_ref()?),
                every: Duration::from_secs(source.every_s.max(1)),
            })
        })
        .collect()
}

/// Which point is to be drilled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DrillRequest {
    /// Of which source.
    pub source: SourceName,
    /// The newest if absent.
    pub point: Option<PointId>,
}

/// How a source stands, and whether its commits really wait.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// What the vault says.
    #[serde(flatten)]
    pub status: SourceStatus,
    /// Commits wait for the vault: the source was told so, after the stream had caught up.
    pub synchronous: bool,
}

/// The sources whose commits wait for the vault.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<BTreeSet<SourceName>>>);

impl Waiting {
    fn add(&self, source: SourceName) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(source);
    }

    fn remove(&self, source: &SourceName) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(source);
    }

    fn stand(&self, statuses: Vec<SourceStatus>) -> Vec<Standing> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stand = |status: SourceStatus| Standing {
            synchronous: names.contains(&status.source),
            status,
        };
        statuses.into_iter().map(stand).collect()
    }
}

/// What the running vault needs to take up new keys.
#[derive(Clone)]
struct Ring {
    folder: PathBuf,
    keys: Keys,
    ledger: Ledger,
}

impl Ring {
    /// Keeps new keys and seals to them from now on.
    fn add(&self, new: &NewKeys) -> Result<Value, Failure> {
        let listed = keys::add(&self.folder, &self.ledger, new)?;
        self.keys.exchange(&Keyring::open(&self.folder)?.keys());
        serde_json::to_value(listed).map_err(|error| {
            Failure::new(
                Code::ZS602,
                format!("the answer cannot be written: {error}"),
                "`holdfast vault key list` shows the keys",
            )
        })
    }
}

/// A vault that runs.
pub struct Running {
    /// The vault, for questions in process.
    pub vault: Vault,
    capture: JoinHandle<Result<(), Failure>>,
    others: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until everything has ended and all is flushed; the token given to [`start`] ends it.
    ///
    /// # Errors
    /// Why capture ended, if it was not asked to.
    pub async fn ended(self) -> Result<(), Failure> {
        let capture = self.capture.await;
        for task in self.others {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the vault ended by a defect");
            }
        }
        capture.map_err(|error| {
            Failure::new(
                Code::ZS602,
                format!("capture ended by a defect: {error}"),
                "start it again; what was acknowledged is on disk",
            )
        })?
    }
}

/// Opens the vault and its local API, and begins to capture.
///
/// # Errors
/// When the repository, the spool or a key cannot be used; nothing then runs.
pub async fn start(config: &Config, stop: CancellationToken) -> Result<Running, Failure> {
    // A vault that was killed may be held by its own mount, and hold the locks that this one needs.
    holdfast_vault::mount::free();
    let key = Half::Vault.key(config)?;
    let told = vault_config(config)?;
    let sources = told.sources.clone();
    let ledger = Ledger::open(&Half::Vault.ledger(config), key.clone(), now())?;
    let ring = Ring {
        folder: keys::folder(config),
        keys: told.keys.clone(),
        ledger: ledger.clone(),
    };
    let listener = api::listen(&config.vault_dir())?;
    let vault = tokio::task::spawn_blocking(move || Vault::open(told, ledger, key, system_clock()))
        .await
        .map_err(|error| {
            Failure::new(
                Code::ZS602,
                format!("the vault did not open: {error}"),
                "start it again; nothing was changed",
            )
        })??;
    vault.limit_rehearsals(Duration::from_secs(config.vault.rehearsal_s));
    let (running, answering) = (vault.clone(), vault.clone());
    let waiting = Waiting::default();
    let (told, rehearsals) = (waiting.clone(), UnderWay::default());
    let capture_stop = stop.clone();
    let capture = tokio::spawn(async move {
        let ended = running.run(capture_stop.clone()).await;
        // Whatever else runs in this process must not go on without capture.
        capture_stop.cancel();
        ended.map_err(|error| failure(&error))
    });
    let mut others = vec![tokio::spawn(api::serve(
        listener,
        stop.clone(),
        move |request| {
            let (vault, waiting, ring) = (answering.clone(), told.clone(), ring.clone());
            let rehearsals = rehearsals.clone();
            async move {
                match request.op.as_str() {
                    "rehearsal.run" => {
                        let told = rehearsals.run(Arc::new(vault), api::args(request)?).await;
                        written(serde_json::to_value(told))
                    }
                    "rehearsal.cancel" => {
                        rehearsals.cancel(&api::args(request)?);
                        Ok(Value::Null)
                    }
                    "vault.key.add" => ring.add(&api::args(request)?),
                    _ => answer(&vault, &waiting, request).await,
                }
            }
        },
    ))];
    let looking = clones::keep_looking(config.clone(), stop.clone());
    others.push(tokio::spawn(looking));
    for source in sources {
        if source.mode == AckMode::Synchronous {
            let (vault, waiting, stop) = (vault.clone(), waiting.clone(), stop.clone());
            others.push(tokio::spawn(synchronize(vault, source, waiting, stop)));
        }
    }
    Ok(Running {
        vault,
        capture,
        others,
    })
}

/// Makes commits wait for the vault as soon as its stream has caught up, so that none hangs.
async fn synchronize(
    vault: Vault,
    source: SourceConfig,
    waiting: Waiting,
    stop: CancellationToken,
) {
    let mut told = String::new();
    // Which server was told so: after a recovery it is another one.
    let mut done_at: Option<String> = None;
    loop {
        let now = vault.source_now(&source.name).unwrap_or(source.clone());
        let address = now.url.address();
        let is_done = done_at.as_ref() == Some(&address);
        let streams = !is_done
            && vault.status().iter().any(|status| {
                status.source == source.name && status.state == CaptureState::Streaming
            });
        if !is_done {
            waiting.remove(&source.name);
        }
        if streams {
            match enable_synchronous(&now).await {
                Ok(done) => {
                    tracing::info!(source = %source.name, before = done.before, after = done.after,
                        "commits wait for the vault");
                    waiting.add(source.name.clone());
                    done_at = Some(address);
                }
                Err(error) => {
                    let text = holdfast_core::ErrorChain(&error).to_string();
                    if text != told {
                        tracing::info!(source = %source.name, "not yet synchronous: {text}");
                        told = text;
                    }
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SYNCHRONOUS_TRY_EVERY) => {}
        }
    }
}

/// What a recovery is asked for over the local API.
#[derive(Deserialize)]
struct Recovery {
    source: SourceName,
    at: String,
    timeline: Option<u32>,
}

impl Recovery {
    fn run(self, vault: &Vault) -> Result<Recovered, Failure> {
        let request = RecoverRequest {
            source: self.source,
            at: self.at.parse::<RestoreTarget>()?,
            timeline: self.timeline,
        };
        Ok(vault.recover(&request)?)
    }
}

/// A step of a cut-over that is to be recorded.
#[derive(Deserialize)]
struct Noted {
    kind: String,
    by: holdfast_core::Principal,
    body: Value,
}

async fn answer(vault: &Vault, waiting: &Waiting, request: Request) -> Result<Value, Failure> {
    let value = match request.op.as_str() {
        "vault.status" => serde_json::to_value(waiting.stand(vault.status())),
        "vault.repository" => serde_json::to_value(vault.repository_status()),
        "vault.directories" => serde_json::to_value(vault.directories()),
        "point.mark" => {
            let request: MarkRequest = api::args(request)?;
            let vault = vault.clone();
            let marked = tokio::task::spawn_blocking(move || vault.mark(request)).await;
            let marked = marked.map_err(|error| {
                Failure::new(
                    Code::ZS602,
                    format!("the mark ended by a defect: {error}"),
                    "`holdfast point list` shows whether it was set",
                )
            })?;
            serde_json::to_value(marked?)
        }
        "recovery.run" => {
            let asked: Recovery = api::args(request)?;
            let vault = vault.clone();
            let recovered = tokio::task::spawn_blocking(move || asked.run(&vault)).await;
            let recovered = recovered.map_err(|error| {
                Failure::new(
                    Code::ZS602,
                    format!("the recovery ended by a defect: {error}"),
                    "`holdfast source list` shows whether the mirror follows",
                )
            })?;
            serde_json::to_value(recovered?)
        }
        "recovery.taken_up" => {
            let source: SourceName = api::args(request)?;
            serde_json::to_value(vault.take_up_move(&source))
        }
        "recovery.note" => {
            let noted: Noted = api::args(request)?;
            vault.note(recover::draft(&noted.kind, noted.by, &noted.body))?;
            serde_json::to_value(true)
        }
        "way_back" => {
            let source: SourceName = api::args(request)?;
            serde_json::to_value(Told::of(vault.way_back(&source, now())))
        }
        "drill.run" => {
            let request: DrillRequest = api::args(request)?;
            let drilled = vault.drill_point(&request.source, request.point).await;
            serde_json::to_value(drilled?)
        }
        "drill.accept" => {
            let source: SourceName = api::args(request)?;
            serde_json::to_value(vault.accept_loss(&source, operator())?)
        }
        other => {
            return Err(Failure::new(
                Code::ZU605,
                format!("the vault knows no operation `{other}`"),
                "use the same version of holdfast for both",
            ));
        }
    };
    written(value)
}

fn written(value: serde_json::Result<Value>) -> Result<Value, Failure> {
    value.map_err(|error| {
        Failure::new(
            Code::ZS602,
            format!("the answer cannot be written: {error}"),
            "tell the makers of holdfast",
        )
    })
}
