//! The door's own end of TLS: its certificate, and what a login is bound to.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use holdfast_wire::pg::scram::Binding;
use holdfast_wire::pg::scram::binding::server_end_point;
use rustls::ServerConfig;

use crate::door::ca::{Ca, CaError, Certified};
use crate::limits::PG_CERTIFICATE_RENEWED_EVERY;

/// Whose certificate the door shows to agents.
#[derive(Clone, Debug)]
pub enum PgDoorTls {
    /// One that somebody else has made.
    Files {
        /// PEM: the certificate, and what leads from it to an authority.
        certificate: PathBuf,
        /// PEM: its key.
        key: PathBuf,
    },
    /// One of our own authority, whose certificate lies in the folder.
    Local {
        /// The folder of the authority; it is made on first use.
        ca_folder: PathBuf,
    },
}

/// Makes the door's certificate, and makes it again before it ends.
pub(super) struct Tls {
    from: From,
    kept: Mutex<Option<(Instant, Ending)>>,
}

enum From {
    Files { certificate: PathBuf, key: PathBuf },
    Local { ca: Box<Ca>, names: Vec<String> },
}

/// How one connection's TLS is ended.
#[derive(Clone)]
pub(super) struct Ending {
    pub config: Arc<ServerConfig>,
    pub binding: Binding,
}

impl Tls {
    /// Reads what is needed, and tells what is wrong with it at once.
    pub(super) fn new(config: PgDoorTls, listen: IpAddr) -> Result<Self, CaError> {
        let from = match config {
            PgDoorTls::Files { certificate, key } => From::Files { certificate, key },
            PgDoorTls::Local { ca_folder } => {
                let mut names = ["localhost", "127.0.0.1", "::1"]
                    .map(str::to_owned)
                    .to_vec();
                if !listen.is_loopback() && !listen.is_unspecified() {
                    names.push(listen.to_string());
                }
                let ca = Box::new(Ca::load_or_create(&ca_folder)?);
                From::Local { ca, names }
            }
        };
        let tls = Self {
            from,
            kept: Mutex::default(),
        };
        tls.ending()?;
        Ok(tls)
    }

    /// Returns how the next connection's TLS is ended.
    pub(super) fn ending(&self) -> Result<Ending, CaError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.as_ref() {
            Some((made, ending)) if made.elapsed() < PG_CERTIFICATE_RENEWED_EVERY => {
                Ok(ending.clone())
            }
            old => match self.make() {
                Ok(ending) => {
                    *kept = Some((Instant::now(), ending.clone()));
                    Ok(ending)
                }
                // Files that are just being replaced: the old certificate is good for a while.
                Err(error) => old.map(|(_, ending)| ending.clone()).ok_or(error),
            },
        }
    }

    fn make(&self) -> Result<Ending, CaError> {
        let certified = match &self.from {
            From::Files { certificate, key } => Certified::read(certificate, key)?,
            From::Local { ca, names } => ca.certificate(names.clone())?,
        };
        let end_point = certified
            .chain
            .first()
            .and_then(|certificate| server_end_point(certificate));
        Ok(Ending {
            binding: end_point.map_or(Binding::Absent, Binding::EndPoint),
            config: Arc::new(certified.server_config(&[b"postgresql"])?),
        })
    }
}
