//! The storage behind TLS, with a certificate that its own authority alone vouches for.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::fault::{answer, message};

/// Forwards each request to the storage; its name is `localhost`.
#[derive(Debug)]
pub struct S3Tls {
    address: SocketAddr,
    authority_pem: Vec<u8>,
    served: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl S3Tls {
    /// Listens on a port of 127.0.0.1 and forwards to `target`.
    ///
    /// # Errors
    /// When no port or no certificate can be had.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.context("make a certificate")?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let key = key.map_err(|why| anyhow::anyhow!("{why}"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose protocols")?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .context("use the certificate")?;
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a port")?;
        let address = listener.local_addr().context("learn the port")?;
        let (served, closed) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (told, ended) = (Arc::clone(&served), Arc::clone(&closed));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (config, told) = (Arc::clone(&config), Arc::clone(&told));
                if let Ok(client) = client {
                    // What goes wrong shows to the client as a closed connection.
                    std::thread::spawn(move || drop(serve(client, config, target, &told)));
                }
            }
        });
        Ok(Self {
            address,
            authority_pem: made.cert.pem().into_bytes(),
            served,
            closed,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The authority to trust.
    #[must_use]
    pub fn authority_pem(&self) -> &[u8] {
        &self.authority_pem
    }

    /// Tells whether anybody has sent a request through.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for S3Tls {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then sees that this has ended.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    client: TcpStream,
    config: Arc<ServerConfig>,
    target: SocketAddr,
    served: &AtomicBool,
) -> io::Result<()> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(session, client));
    while let Some((line, request)) = message(&mut reader)? {
        served.store(true, Ordering::Relaxed);
        let mut storage = TcpStream::connect(target)?;
        storage.write_all(&request)?;
        let answer = answer(&mut BufReader::new(storage), line.starts_with("HEAD"))?;
        reader.get_mut().write_all(&answer)?;
        reader.get_mut().flush()?;
    }
    Ok(())
}
