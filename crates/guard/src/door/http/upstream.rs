//! Connections to providers: verified TLS, kept alive, one request at a time on each.
//!
//! A connection is driven by the task that uses it, not by one of its own: handing each request and
//! each piece of an answer from one task to another costs more than everything else here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::limits::{
    HTTP_ANSWER_WAITS_MAX, HTTP_CONNECT_WAITS_MAX, HTTP_HANDSHAKE_WAITS_MAX, HTTP_POOL_PER_HOST_MAX,
};

/// Where a host really is, for private endpoints.
#[derive(Clone, Debug)]
pub struct UpstreamOverride {
    /// The host name that agents ask for.
    pub host: String,
    /// The address that is connected to instead.
    pub connect: SocketAddr,
    /// A certificate authority to trust for this host besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Destination {
    pub https: bool,
    pub host: String,
    pub port: u16,
}

/// How far a request came that has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It was sent, at least in part.
    Lost(String),
    /// Nothing was sent.
    NotSent(String),
}

/// All connections to providers.
pub(super) struct Upstreams {
    overrides: BTreeMap<String, (SocketAddr, Option<Arc<ClientConfig>>)>,
    tls: Arc<ClientConfig>,
    idle: Mutex<BTreeMap<Destination, Vec<Line>>>,
}

/// One connection to a provider. It moves only while [`Line::drive`] runs.
pub(super) struct Line {
    sender: SendRequest<Full<Bytes>>,
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

impl Line {
    /// Waits for `future`, which waits for this connection, while moving the connection's bytes.
    pub(super) async fn drive<F: Future>(&mut self, future: F) -> F::Output {
        drive(&mut self.connection, future).await
    }

    async fn send(
        &mut self,
        request: hyper::Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, (Option<hyper::Request<Full<Bytes>>>, String)> {
        // A connection that was idle says only when it is moved that it is ready, or gone.
        if drive(&mut self.connection, self.sender.ready())
            .await
            .is_err()
        {
            return Err((Some(request), "the connection was closed".to_owned()));
        }
        let sending = drive(&mut self.connection, self.sender.try_send_request(request));
        match timeout(HTTP_ANSWER_WAITS_MAX, sending).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(mut error)) => Err((error.take_message(), error.error().to_string())),
            Err(_) => Err((None, "the answer did not come in time".to_owned())),
        }
    }
}

async fn drive<F: Future>(
    connection: &mut Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    future: F,
) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        if let Some(moving) = connection
            && moving.as_mut().poll(context).is_ready()
        {
            // Its end, good or bad, reaches whoever waits for the answer.
            *connection = None;
        }
        future.as_mut().poll(context)
    })
    .await
}

impl Upstreams {
    pub(super) fn new(overrides: &[UpstreamOverride]) -> Result<Self, String> {
        let mut known = BTreeMap::new();
        for one in overrides {
            let tls = match &one.ca_file {
                Some(path) => {
                    let shown = path.display();
                    let found = CertificateDer::pem_file_iter(path)
                        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                        .map_err(|error| format!("cannot read `{shown}`: {error}"))?;
                    Some(client_config(&found)?)
                }
                None => None,
            };
            known.insert(one.host.to_lowercase(), (one.connect, tls));
        }
        Ok(Self {
            overrides: known,
            tls: client_config(&[])?,
            idle: Mutex::new(BTreeMap::new()),
        })
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &self,
        to: &Destination,
        request: hyper::Request<Full<Bytes>>,
    ) -> Result<(hyper::Response<Incoming>, Line), NoAnswer> {
        let mut request = request;
        while let Some(mut line) = self.take_idle(to) {
            match line.send(request).await {
                Ok(answer) => return Ok((answer, line)),
                // The connection had been closed while it was idle; nothing of the request left.
                Err((Some(unsent), _)) => request = unsent,
                Err((None, why)) => return Err(NoAnswer::Lost(why)),
            }
        }
        let mut line = self.connect(to).await.map_err(NoAnswer::NotSent)?;
        match line.send(request).await {
            Ok(answer) => Ok((answer, line)),
            Err((Some(_), why)) => Err(NoAnswer::NotSent(why)),
            Err((None, why)) => Err(NoAnswer::Lost(why)),
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn give_back(&self, to: &Destination, line: Line) {
        if line.connection.is_none() || line.sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_host) = idle.get_mut(to) {
            if of_host.len() < HTTP_POOL_PER_HOST_MAX {
                of_host.push(line);
            }
        } else {
            idle.insert(to.clone(), vec![line]);
        }
    }

    fn take_idle(&self, to: &Destination) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(to)?.pop()
    }

    async fn connect(&self, to: &Destination) -> Result<Line, String> {
        let special = self.overrides.get(&to.host);
        let stream = match timeout(HTTP_CONNECT_WAITS_MAX, self.open(to)).await {
            Ok(opened) => opened?,
            Err(_) => return Err("connecting took too long".to_owned()),
        };
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        if !to.https {
            return shake(TokioIo::new(stream)).await;
        }
        let config = special
            .and_then(|(_, tls)| tls.as_ref())
            .unwrap_or(&self.tls);
        let name = to
            .host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(name).map_err(|_| "it is no server name".to_owned())?;
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        match timeout(HTTP_HANDSHAKE_WAITS_MAX, connecting).await {
            Ok(Ok(stream)) => shake(TokioIo::new(stream)).await,
            Ok(Err(error)) => Err(format!("TLS: {error}")),
            Err(_) => Err("the TLS handshake took too long".to_owned()),
        }
    }

    /// Connects; an address of the link, where clouds give out credentials, is never connected to.
    async fn open(&self, to: &Destination) -> Result<TcpStream, String> {
        if let Some((address, _)) = self.overrides.get(&to.host) {
            return TcpStream::connect(address)
                .await
                .map_err(|error| error.to_string());
        }
        let host = to.host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((host, to.port)).await;
        let found = found.map_err(|error| error.to_string())?;
        let mut last = "the name has no address".to_owned();
        for address in found {
            if is_of_the_link(address) {
                last = "it is an address of the link, where credentials are given out".to_owned();
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }
}

fn is_of_the_link(address: SocketAddr) -> bool {
    match address.ip() {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some_and(|v4| v4.is_link_local());
            v6.is_unicast_link_local() || mapped
        }
    }
}

async fn shake<T>(io: TokioIo<T>) -> Result<Line, String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await.map_err(|error| error.to_string())?;
    Ok(Line {
        sender,
        connection: Some(Box::pin(connection)),
    })
}

fn client_config(extra: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for certificate in extra {
        roots
            .add(certificate.clone())
            .map_err(|error| format!("a certificate authority cannot be used: {error}"))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
