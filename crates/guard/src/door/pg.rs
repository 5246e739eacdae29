//! The PostgreSQL door: sessions one to one, bytes as they are, judged by what they really did.
//!
//! An agent logs in with its lease; the door logs in to the source as the role of the lease. What
//! openly reads runs read only, so that the server itself refuses a hidden write. What may write runs
//! in a transaction that the door controls: before its `COMMIT` the server is asked, inside the
//! transaction, what was changed; the answer is judged, and what is not permitted is rolled back.

mod changes;
mod copies;
mod dial;
mod evidence;
mod flying;
mod known;
mod login;
mod measured;
mod outside;
mod own;
mod prepared;
mod session;
mod shape;
mod source;
mod stream;
mod sweep;
mod threads;
mod tls;
mod verify;
mod weak;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use holdfast_core::{Code, Coded, LeaseId, Secret, SourceName, Timestamp};
use holdfast_store::record::RecordError;
use holdfast_wire::pg::backend::{ErrorFields, write_error};
use holdfast_wire::pg::startup::write_cancel;
use holdfast_wire::pg::url::ConnectionUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::decide::Gatekeeper;
use crate::door::ca::CaError;
use crate::lease::role::{self, LeaseRole, RoleError};
use crate::lease::{Lease, LeaseMode, Leases, PgLease};
use crate::limits::{
    PG_CONNECT_WAITS_MAX, PG_LEASE_LOOKS_EVERY, PG_LOGIN_WAITS_MAX, PG_SESSIONS_MAX,
};
use crate::rehearsal::Rehearsals;
pub use copies::Copies;
use evidence::Questions;
use flying::Flying;
use known::Verdicts;
use prepared::Prepared;
use source::Source;
pub use sweep::{Swept, sweep_roles};
use threads::{Accepted, Threads};
use tls::Tls;

pub use tls::PgDoorTls;
pub use weak::look_for_weaknesses;

/// A source that the door leads to.
#[derive(Clone, Debug)]
pub struct PgDoorSource {
    /// Its name.
    pub name: SourceName,
    /// What it is for, as policies see it: `production`, `staging`, …
    pub environment: String,
    /// How guard itself connects to it, with the right to make roles.
    pub url: ConnectionUrl,
    /// Of which source it is a copy that cannot be left: what is gone in it is still whole there.
    pub copy_of: Option<SourceName>,
}

/// How the door is set up.
#[derive(Clone, Debug)]
pub struct PgDoorConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it leads.
    pub sources: Vec<PgDoorSource>,
    /// Whose certificate it shows.
    pub tls: PgDoorTls,
}

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub enum PgDoorError {
    /// The address cannot be had.
    #[error("the PostgreSQL door cannot listen at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate cannot be used.
    #[error("the PostgreSQL door cannot encrypt")]
    Tls(#[source] CaError),
    /// What was prepared before cannot be read.
    #[error("the PostgreSQL door cannot read what was prepared")]
    Prepared(#[source] RecordError),
}

impl Coded for PgDoorError {
    fn code(&self) -> Code {
        match self {
            Self::Tls(error) => error.code(),
            Self::Prepared(error) => error.code(),
            Self::Listen { .. } => Code::ZS402,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Tls(error) => error.hint(),
            Self::Prepared(error) => error.hint(),
            Self::Listen { .. } => {
                Some("choose another `pg_listen`, or stop what uses it".to_owned())
            }
        }
    }
}

/// The open door.
pub struct PgDoor {
    listener: TcpListener,
    address: SocketAddr,
    door: Arc<Door>,
}

/// Everything the sessions share.
struct Door {
    gatekeeper: Gatekeeper,
    leases: Leases,
    sources: Vec<Arc<Source>>,
    copies: copies::Known,
    verdicts: Verdicts,
    /// What an open transaction is asked.
    questions: Questions,
    /// Transactions that were let through when they were prepared.
    prepared: Prepared,
    /// Where what is held is rehearsed.
    rehearsals: OnceLock<Rehearsals>,
    /// Under which key a session can be cancelled, and the server's own key for it.
    keys: Mutex<HashMap<Key, Cancel>>,
    tls: Tls,
}

/// The server's process that a session has, and the door's own secret for it.
type Key = (u32, Box<[u8]>);

/// How a running statement is ended.
#[derive(Clone)]
struct Cancel {
    source: Arc<Source>,
    process: u32,
    secret: Vec<u8>,
    lease: LeaseId,
    /// Ends the session.
    ended: CancellationToken,
    flying: Arc<Flying>,
}

impl PgDoor {
    /// Opens the door; it serves once [`PgDoor::run`] is called.
    ///
    /// # Errors
    /// [`PgDoorError`].
    pub async fn bind(
        config: PgDoorConfig,
        gatekeeper: Gatekeeper,
        leases: Leases,
    ) -> Result<Self, PgDoorError> {
        let tls = Tls::new(config.tls, config.listen.ip()).map_err(PgDoorError::Tls)?;
        let prepared = Prepared::read(gatekeeper.records().clone());
        let prepared = prepared.map_err(PgDoorError::Prepared)?;
        let failed = |source| PgDoorError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let door = Door {
            gatekeeper,
            leases,
            sources: config
                .sources
                .into_iter()
                .map(Source::new)
                .map(Arc::new)
                .collect(),
            copies: copies::Known::default(),
            verdicts: Verdicts::default(),
            questions: Questions::new(),
            prepared,
            rehearsals: OnceLock::new(),
            keys: Mutex::default(),
            tls,
        };
        Ok(Self {
            listener,
            address,
            door: Arc::new(door),
        })
    }

    /// Has what is held rehearsed.
    #[must_use]
    pub fn rehearsing(self, rehearsals: Rehearsals) -> Self {
        // Set once, before it runs; a second queue would change nothing.
        let _ = self.door.rehearsals.set(rehearsals);
        self
    }

    /// Leads to copies of sources as well.
    #[must_use]
    pub fn leading_to(self, copies: Arc<dyn Copies>) -> Self {
        self.door.copies.ask(copies);
        self
    }

    /// Returns where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled; sessions then get a few seconds to end.
    ///
    /// # Cancellation
    /// Dropping this closes the door and leaves its sessions running; cancel `stop` instead.
    pub async fn run(self, stop: CancellationToken) {
        let (door, stopping) = (Arc::clone(&self.door), stop.clone());
        let serve = move |stream, peer| {
            let (door, stop) = (Arc::clone(&door), stopping.clone());
            async move { door.serve(stream, peer, stop).await }
        };
        let mut threads = match Threads::start(serve) {
            Ok(threads) => threads,
            Err(error) => {
                tracing::error!(%error, "the PostgreSQL door has no threads");
                return;
            }
        };
        let room = Arc::new(Semaphore::new(PG_SESSIONS_MAX));
        let looking = tokio::spawn(Arc::clone(&self.door).look_at_leases(stop.clone()));
        let tidying = tokio::spawn(Arc::clone(&self.door).look_at_prepared(stop.clone()));
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = Arc::clone(&room).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
            match (accepted, place) {
                (Ok((stream, peer)), Ok(place)) => {
                    let accepted = Accepted {
                        stream,
                        peer,
                        place,
                    };
                    threads.give(accepted).await;
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "the PostgreSQL door cannot accept a connection");
                    tokio::task::yield_now().await;
                }
                (_, Err(_)) => break,
            }
        }
        // Sessions end by themselves when `stop` is cancelled.
        let _ = tokio::task::spawn_blocking(move || threads.end()).await;
        let _ = tokio::join!(looking, tidying);
    }
}

impl Door {
    /// Serves one connection to its end.
    async fn serve(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        // On the heap, and gone with the login: a session keeps little.
        let logging_in = Box::pin(login::log_in(self, stream, peer));
        let logging_in = tokio::time::timeout(PG_LOGIN_WAITS_MAX, logging_in);
        let logged_in = tokio::select! {
            () = stop.cancelled() => return,
            logged_in = logging_in => logged_in,
        };
        let Ok(Ok(session)) = logged_in else { return };
        let key = session.key.clone();
        let (process, secret) = session.server_key.clone();
        let (ended, flying) = (stop.child_token(), Arc::new(Flying::default()));
        let cancel = Cancel {
            source: Arc::clone(&session.source),
            process,
            secret,
            lease: session.lease.id.clone(),
            ended: ended.clone(),
            flying: Arc::clone(&flying),
        };
        self.keys().insert(key.clone(), cancel);
        session::serve(Arc::clone(self), session, flying, ended).await;
        self.keys().remove(&key);
    }

    /// Ends the sessions of leases that have ended.
    async fn look_at_leases(self: Arc<Self>, stop: CancellationToken) {
        let mut looks = tokio::time::interval(PG_LEASE_LOOKS_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let mut sessions: BTreeMap<LeaseId, Vec<CancellationToken>> = BTreeMap::new();
            for session in self.keys().values() {
                let of_lease = sessions.entry(session.lease.clone()).or_default();
                of_lease.push(session.ended.clone());
            }
            let now = clock::now();
            for (lease, sessions) in sessions {
                let lease = self.leases.find(&lease);
                if lease.is_ok_and(|lease| lease.ended(now).is_none()) {
                    continue;
                }
                for session in sessions {
                    session.cancel();
                }
            }
        }
    }

    /// Returns where a lease leads: to a source, or to the copy of one.
    fn source(&self, lease: &Lease) -> Option<Arc<Source>> {
        let name = &lease.source;
        if lease.pg.as_ref().is_some_and(|pg| pg.copy_of.is_some()) {
            return self.copies.source(name);
        }
        let found = self.sources.iter().find(|source| source.name == *name);
        found.cloned()
    }

    /// Ends what a session is doing, if the secret is its own; says nothing either way.
    async fn cancel(&self, process: u32, secret: &[u8]) {
        let found = self.keys().get(&(process, secret.into())).cloned();
        let Some(cancel) = found else { return };
        cancel.flying.depart();
        cancel.send().await;
        cancel.flying.arrive();
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Cancel>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cancel {
    async fn send(&self) {
        let Ok(mut stream) = dial::dial(&self.source.url).await else {
            return;
        };
        let mut out = Vec::new();
        write_cancel(self.process, &self.secret, &mut out);
        if stream.write_all(&out).await.is_ok() {
            // The server closes once it has done so; until then both the client and its session wait,
            // so that a late cancel cannot hit the next statement.
            let mut nothing = [0_u8; 16];
            let closing = async {
                while matches!(stream.read(&mut nothing).await, Ok(count) if count > 0) {}
            };
            let _ = tokio::time::timeout(PG_CONNECT_WAITS_MAX, closing).await;
        }
    }
}

/// Writes an error of the door's own.
fn refuse(out: &mut Vec<u8>, is_fatal: bool, (code, message, hint): (Code, &str, &str)) {
    let fields = ErrorFields {
        is_fatal,
        code: code.as_str(),
        message,
        hint,
    };
    write_error(fields, out);
}

/// Returns the connection URL that an agent is given, or `None` when the lease leads to no database.
pub fn lease_url(door: SocketAddr, lease: &Lease, token: &Secret) -> Option<Secret> {
    let pg = lease.pg.as_ref()?;
    let url = format!(
        "postgresql://{}:{}@{door}/{}",
        percent(&pg.role),
        percent(token.expose()),
        percent(&pg.database)
    );
    Some(Secret::new(url))
}

/// What a lease needs in its source.
#[derive(Clone, Debug)]
pub struct PgLeaseRequest<'a> {
    /// The lease to be issued.
    pub id: &'a LeaseId,
    /// Its token.
    pub token: &'a Secret,
    /// The database; that of the source's own connection string where it is not said.
    pub database: Option<&'a str>,
    /// What it may do.
    pub mode: LeaseMode,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// The guard that issues it, by its public key; written beside the role.
    pub guard: &'a str,
}

/// Makes the role of a lease in its source and returns what the lease keeps of it.
///
/// # Errors
/// [`RoleError`]; no role was made.
pub async fn prepare_lease(
    source: &PgDoorSource,
    request: PgLeaseRequest<'_>,
) -> Result<PgLease, RoleError> {
    let database = request.database.unwrap_or(&source.url.database);
    let letters = request.id.as_str().trim_start_matches("lease-");
    let role = LeaseRole {
        name: format!("holdfast_{letters}"),
        database: database.to_owned(),
        guard: request.guard.to_owned(),
        mode: request.mode,
        expires: request.expires,
    };
    let mut client = dial::control(&source.url, database)
        .await
        .map_err(RoleError::Connect)?;
    role::create_role(&mut client, &role).await?;
    if source.copy_of.is_some() {
        role::admit_to_copy(&client, &role.name, &source.url.user).await?;
    }
    let scram = postgres_protocol::password::scram_sha_256(request.token.expose().as_bytes());
    Ok(PgLease {
        role: role.name,
        database: role.database,
        scram,
        copy_of: source.copy_of.clone(),
    })
}

/// Ends the sessions of a lease in its source and removes its role.
///
/// # Errors
/// [`RoleError`]; the lease opens nothing at the door all the same once it is revoked.
pub async fn end_lease(source: &PgDoorSource, lease: &PgLease) -> Result<(), RoleError> {
    let mut client = dial::control(&source.url, &lease.database)
        .await
        .map_err(RoleError::Connect)?;
    role::drop_role(&mut client, &lease.role, &lease.database).await
}

/// Writes a part of a URL so that it can be nothing else.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
