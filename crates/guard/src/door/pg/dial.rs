//! Connections to a source: TCP, encrypted as the connection string asks.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use holdfast_wire::pg::url::{ConnectionUrl, SslMode};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};
use tokio_rustls::client::TlsStream;

use crate::limits::PG_CONNECT_WAITS_MAX;

/// A connection to a source that nobody has logged in to yet.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// `SSLRequest`, as PostgreSQL's documentation gives it: length 8, code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Connects to the server of `url`.
pub(super) async fn dial(url: &ConnectionUrl) -> Result<Stream, String> {
    let dialling = async {
        let tcp = TcpStream::connect((url.host.as_str(), url.port))
            .await
            .map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        encrypt(tcp, url).await
    };
    tokio::time::timeout(PG_CONNECT_WAITS_MAX, dialling)
        .await
        .unwrap_or_else(|_| Err("it does not answer".to_owned()))
}

/// Logs in with the rights of `url` itself, for questions and roles of ours.
pub(super) async fn control(url: &ConnectionUrl, database: &str) -> Result<Client, String> {
    let stream = dial(url).await?;
    let mut config = tokio_postgres::Config::new();
    config
        .user(&url.user)
        .dbname(database)
        .application_name("holdfast")
        .ssl_mode(tokio_postgres::config::SslMode::Disable);
    if let Some(password) = &url.password {
        config.password(password.expose());
    }
    let login = tokio::time::timeout(PG_CONNECT_WAITS_MAX, config.connect_raw(stream, NoTls)).await;
    let (client, connection) = login
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|error| holdfast_core::ErrorChain(&error).to_string())?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told the same error.
        let _ = connection.await;
    });
    Ok(client)
}

async fn encrypt(mut tcp: TcpStream, url: &ConnectionUrl) -> Result<Stream, String> {
    if url.ssl == SslMode::Disable {
        return Ok(Stream::Plain(tcp));
    }
    // One byte exactly: whatever came behind it unencrypted would be somebody else's.
    let mut answer = [0_u8; 1];
    let asking = async {
        tcp.write_all(&SSL_REQUEST).await?;
        tcp.read_exact(&mut answer).await
    };
    asking.await.map_err(|error| error.to_string())?;
    match (answer, url.ssl) {
        ([b'S'], _) => {
            let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(url)?));
            let stream = connector
                .connect(name, tcp)
                .await
                .map_err(|error| error.to_string())?;
            Ok(Stream::Tls(Box::new(stream)))
        }
        ([b'N'], SslMode::Prefer) => Ok(Stream::Plain(tcp)),
        _ => Err("it does not offer encryption".to_owned()),
    }
}

fn client_config(url: &ConnectionUrl) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(match url.ssl {
        SslMode::Disable | SslMode::Prefer | SslMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        SslMode::VerifyFull => builder
            .with_root_certificates(roots(url)?)
            .with_no_client_auth(),
    })
}

fn roots(url: &ConnectionUrl) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match &url.root_certificate {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| error.to_string())?;
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    if roots.is_empty() {
        return Err("no certificate authority is known".to_owned());
    }
    Ok(roots)
}

/// Accepts any certificate: what `sslmode=require` means. The handshake's signature is still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(ctx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(ctx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(ctx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(ctx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(ctx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(ctx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(ctx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(ctx),
        }
    }
}
