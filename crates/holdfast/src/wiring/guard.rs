//! The guard half: its state, its doors, its local API.

mod copies;
mod ops;
mod state;
mod sweep;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{Rehearse, SourceName, Tolerance, WayBack};
use holdfast_guard::custody::Custody;
use holdfast_guard::decide::{Gatekeeper, Parts};
use holdfast_guard::door::http::{HttpDoor, HttpDoorConfig, UpstreamOverride};
use holdfast_guard::door::pg::{PgDoor, PgDoorConfig, PgDoorSource, PgDoorTls};
use holdfast_guard::limits::HTTP_HOLD_WAITS_MAX;
use holdfast_guard::rehearsal::Rehearsals;
use holdfast_judge::packs::Packs;
use holdfast_judge::policy::Policy;
use holdfast_wire::pg::url::UrlError;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::Config;
use crate::report::Failure;
use crate::wiring::{failure, system};

pub use ops::{Desk, TakeAsked, Ticket, TicketRequest, ask_or_open};
pub use state::GuardState;

/// Where the doors of a running guard are.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Addresses {
    /// The PostgreSQL door.
    pub pg: SocketAddr,
    /// The HTTP door.
    pub http: SocketAddr,
}

/// A guard that runs.
pub struct Running {
    /// Where its doors are.
    pub addresses: Addresses,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until everything has ended; the token given to [`start`] ends it.
    pub async fn ended(self) {
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of guard ended by a defect");
            }
        }
    }
}

/// Opens the doors and the local API.
///
/// # Errors
/// When the state, the policy or an address cannot be used; nothing then listens.
pub async fn start(
    config: &Config,
    way_back: Arc<dyn WayBack>,
    stage: Arc<dyn Rehearse>,
    stop: CancellationToken,
) -> Result<Running, Failure> {
    let policy = policy(config)?;
    let state = GuardState::open(config)?;
    let gatekeeper = Gatekeeper::new(Parts {
        ledger: state.ledger.clone(),
        records: state.records.clone(),
        policy,
        way_back,
        proof_age_max: Duration::from_secs(config.guard.proof_age_max_s),
    })?;
    gatekeeper.tolerate(Tolerance(config.guard.approval_tolerance_percent.0));
    let rehearsals = Rehearsals::new(state.records.clone(), state.ledger.clone(), stage)?;
    let listener = api::listen(&config.guard_dir())?;
    let http = HttpDoor::bind(
        http_config(config),
        gatekeeper.clone(),
        state.leases.clone(),
        Custody::new(state.records.clone(), state.ledger.clone()),
    )
    .await?;
    let pg_config = PgDoorConfig {
        listen: config.guard.pg_listen,
        sources: pg_sources(config)?,
        tls: pg_tls(config)?,
    };
    let swept = pg_config.sources.clone();
    let pg = PgDoor::bind(pg_config, gatekeeper.clone(), state.leases.clone()).await?;
    let pg = pg
        .rehearsing(rehearsals.clone())
        .leading_to(Arc::new(copies::Clones(config.clone())));
    let addresses = Addresses {
        pg: pg.local_addr(),
        http: http.local_addr(),
    };
    let sweeping = sweep::serve((config.clone(), swept), state.clone(), stop.clone());
    let desk = Desk::new(config.clone(), state, Some((gatekeeper, addresses)));
    let answer = move |request| {
        let desk = desk.clone();
        async move { desk.answer(request).await }
    };
    let tasks = vec![
        tokio::spawn(http.run(stop.clone())),
        tokio::spawn(pg.run(stop.clone())),
        tokio::spawn(sweeping),
        tokio::spawn(rehearsals.run(stop.clone())),
        tokio::spawn(api::serve(listener, stop, answer)),
    ];
    Ok(Running { addresses, tasks })
}

/// Reads the policy that decides.
///
/// # Errors
/// When the file cannot be read or is not valid against the schema.
pub fn policy(config: &Config) -> Result<Policy, Failure> {
    match &config.guard.policy_file {
        None => Ok(Policy::shipped()),
        Some(file) => {
            let file = config.base.join(file);
            let text = std::fs::read_to_string(&file).map_err(|error| {
                system(&format!("read the policy `{}`", file.display()), &error)
            })?;
            Policy::parse(&text).map_err(|error| failure(&error))
        }
    }
}

/// Returns the upstream overrides of the configuration.
pub fn upstreams(config: &Config) -> Vec<UpstreamOverride> {
    let upstreams = config.guard.upstream.iter();
    upstreams
        .map(|upstream| UpstreamOverride {
            host: upstream.host.clone(),
            connect: upstream.connect,
            ca_file: upstream.ca_file.as_ref().map(|file| config.base.join(file)),
        })
        .collect()
}

fn http_config(config: &Config) -> HttpDoorConfig {
    let environments: BTreeMap<SourceName, String> = config
        .sources
        .iter()
        .map(|source| (source.name.clone(), source.environment.clone()))
        .collect();
    HttpDoorConfig {
        listen: config.guard.http_listen,
        ca_folder: config.state_dir.clone(),
        packs: Packs::shipped(),
        upstreams: upstreams(config),
        resources: config.sources.iter().flat_map(|s| s.resources()).collect(),
        environments,
        hold_wait: HTTP_HOLD_WAITS_MAX,
    }
}

fn pg_tls(config: &Config) -> Result<PgDoorTls, Failure> {
    let guard = &config.guard;
    match (&guard.pg_certificate_file, &guard.pg_key_file) {
        (Some(certificate), Some(key)) => Ok(PgDoorTls::Files {
            certificate: config.base.join(certificate),
            key: config.base.join(key),
        }),
        (None, None) => Ok(PgDoorTls::Local {
            ca_folder: config.state_dir.clone(),
        }),
        _ => Err(Failure::new(
            holdfast_core::Code::ZU601,
            "`pg_certificate_file` and `pg_key_file` belong together",
            "name both in `[guard]`, or neither",
        )),
    }
}

/// Returns the sources that have a connection for guard.
///
/// # Errors
/// When a secret leads nowhere.
pub fn pg_sources(config: &Config) -> Result<Vec<PgDoorSource>, Failure> {
    let mut sources = Vec::new();
    for source in &config.sources {
        if let Some(reference) = &source.guard_url {
            let text = reference.read(&format!("guard_url of `{}`", source.name), &config.base)?;
            let url = text.expose().parse().map_err(|error: UrlError| Failure {
                message: format!("guard_url of `{}`: {error}", source.name),
                ..failure(&error)
            })?;
            sources.push(PgDoorSource {
                name: source.name.clone(),
                environment: source.environment.clone(),
                url,
                copy_of: None,
            });
        }
    }
    Ok(sources)
}
