//! A provider of our own: HTTPS with a private authority, which notes what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request that reached the provider.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A question of the door's own, not the agent's request.
    fn is_question(&self) -> bool {
        self.body.contains("projects { edges") || self.body.contains("volumeInstance(id: $id)")
    }
}

pub struct Provider {
    pub address: SocketAddr,
    pub ca_file: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
}

pub const VOLUME: &str = "3d2c42fb-f9b1-4f56-8e0b-7a5f0f3a5b11";

impl Provider {
    /// Starts it with a certificate for `name`.
    pub async fn start(folder: &Path, name: &str) -> Self {
        let (config, ca) = tls(name);
        let ca_file = folder.join("provider-ca.pem");
        std::fs::write(&ca_file, ca).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| answer(request, Arc::clone(&noted)));
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self {
            address,
            ca_file,
            seen,
        }
    }

    /// Returns the agent's requests that arrived, without the door's own questions.
    pub fn asked(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| !seen.is_question())
            .cloned()
            .collect()
    }

    /// Returns the door's own questions.
    pub fn questions(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.is_question())
            .cloned()
            .collect()
    }
}

/// Breaks the connection when the body asks for it, as a provider that dies would.
async fn answer(
    request: hyper::Request<Incoming>,
    noted: Arc<Mutex<Vec<Seen>>>,
) -> Result<hyper::Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: parts.headers.iter().map(header).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let text = if seen.is_question() {
        projects()
    } else if seen.body.contains("refuse-me") {
        r#"{"data":null,"errors":[{"message":"no such thing"}]}"#.to_owned()
    } else {
        r#"{"data":{"done":true}}"#.to_owned()
    };
    let dies = seen.body.contains("die-after-reading");
    let streams = seen.body.contains("stream-me");
    let status = match &seen.body {
        body if body.contains("status-500") => 500,
        body if body.contains("status-204") => 204,
        _ => 200,
    };
    let mut noted = noted.lock().unwrap();
    // Measuring sends far more than anybody looks at.
    if noted.len() < 100 {
        noted.push(seen);
    }
    drop(noted);
    assert!(!dies, "the provider dies on purpose");
    let response = hyper::Response::builder()
        .status(status)
        .header("x-provider", "yes");
    let body = if streams {
        // Without a length, in many pieces.
        let pieces = (0..200).map(|n| Ok(Frame::data(Bytes::from(format!("{n:01000}")))));
        StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
    } else if status == 204 {
        Full::new(Bytes::new()).boxed_unsync()
    } else {
        Full::new(Bytes::from(text)).boxed_unsync()
    };
    Ok(response.body(body).unwrap())
}

fn projects() -> String {
    serde_json::json!({ "data": { "projects": { "edges": [{ "node": {
        "id": "p1", "name": "rental", "volumes": { "edges": [{ "node": {
            "id": VOLUME, "name": "postgres-volume",
            "volumeInstances": { "edges": [{ "node": { "environment": { "name": "production" } } }] },
        } }] },
    } }] } } })
    .to_string()
}

fn tls(name: &str) -> (rustls::ServerConfig, String) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(leaf.der().to_vec())], key)
        .unwrap();
    (config, ca_pem)
}
