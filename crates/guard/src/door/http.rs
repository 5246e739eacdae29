//! The HTTP door: a forward proxy that ends TLS, judges each request by its effect, and puts the real
//! credential in only after the verdict.
//!
//! Agents come with `CONNECT`, with an absolute URL, or in the reverse form `/-/HOST/PATH`. HTTP/1.1
//! only. What is judged is exactly what is sent: the request is read whole, stripped, judged, and
//! forwarded with a permit. Nothing of a refused request reaches the provider, except questions of the
//! pack's that read.

mod ask;
mod connection;
mod env;
mod exchange;
mod headers;
mod refusal;
mod relay;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{Code, Coded, Resource, SourceName};
use holdfast_judge::packs::Packs;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::custody::Custody;
use crate::decide::Gatekeeper;
use crate::lease::Leases;
use crate::limits::{HTTP_CLOSE_WAITS_MAX, HTTP_CONNECTIONS_MAX, HTTP_HOLD_WAITS_MAX};
use exchange::Door;
use upstream::Upstreams;

pub use super::ca::{Ca, CaError};
pub use ask::Asker;
pub use env::lease_env;
pub use upstream::UpstreamOverride;

/// How the door is set up.
#[derive(Clone, Debug)]
pub struct HttpDoorConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The folder of its certificate authority; made on first use.
    pub ca_folder: PathBuf,
    /// What is known about providers.
    pub packs: Packs,
    /// Hosts that are reached somewhere else.
    pub upstreams: Vec<UpstreamOverride>,
    /// What providers call the things that carry sources; each names its source.
    pub resources: Vec<Resource>,
    /// What each source is for, as policies see it; `production` where it is not said.
    pub environments: BTreeMap<SourceName, String>,
    /// How long a held request waits on its connection; zero answers at once.
    pub hold_wait: Duration,
}

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub enum HttpDoorError {
    /// The certificate authority cannot be used.
    #[error("the HTTP door has no certificate authority")]
    Ca(#[source] CaError),
    /// The address cannot be had.
    #[error("the HTTP door cannot listen at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// An upstream or the system's authorities cannot be used.
    #[error("the HTTP door cannot reach providers: {0}")]
    Upstream(String),
}

impl Coded for HttpDoorError {
    fn code(&self) -> Code {
        match self {
            Self::Ca(error) => error.code(),
            Self::Listen { .. } => Code::ZS503,
            Self::Upstream(_) => Code::ZS501,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Ca(error) => error.hint(),
            Self::Listen { .. } => {
                Some("choose another `http_listen`, or stop what uses it".to_owned())
            }
            Self::Upstream(_) => {
                Some("mend `ca_file` of the `[[guard.upstream]]` block".to_owned())
            }
        }
    }
}

/// The open door.
pub struct HttpDoor {
    listener: TcpListener,
    address: SocketAddr,
    door: Arc<Door>,
}

impl HttpDoor {
    /// Opens the door; it serves once [`HttpDoor::run`] is called.
    ///
    /// # Errors
    /// [`HttpDoorError`].
    pub async fn bind(
        config: HttpDoorConfig,
        gatekeeper: Gatekeeper,
        leases: Leases,
        custody: Custody,
    ) -> Result<Self, HttpDoorError> {
        let ca = Ca::load_or_create(&config.ca_folder).map_err(HttpDoorError::Ca)?;
        let upstreams = Upstreams::new(&config.upstreams).map_err(HttpDoorError::Upstream)?;
        let failed = |source| HttpDoorError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            door: Arc::new(Door {
                gatekeeper,
                leases,
                custody,
                packs: config.packs,
                ca,
                upstreams,
                resources: config.resources,
                environments: config.environments,
                hold_wait: config.hold_wait.min(HTTP_HOLD_WAITS_MAX),
            }),
        })
    }

    /// Returns where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the certificate that agents must trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.door.ca.pem()
    }

    /// Returns the file of that certificate.
    pub fn ca_file(&self) -> &Path {
        self.door.ca.path()
    }

    /// Serves until `stop` is cancelled; connections then get a few seconds to end.
    ///
    /// # Cancellation
    /// Dropping this closes the door and leaves its connections running; cancel `stop` instead.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = Arc::clone(&room).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the HTTP door cannot accept a connection");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let (door, stop) = (Arc::clone(&self.door), stop.clone());
            tasks.spawn(async move {
                let serving = connection::serve(door, stream);
                let closing = async {
                    stop.cancelled().await;
                    tokio::time::sleep(HTTP_CLOSE_WAITS_MAX).await;
                };
                tokio::select! {
                    () = serving => {}
                    () = closing => {}
                }
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
    }
}
