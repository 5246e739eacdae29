//! Connections to a source: TCP, encrypted as the connection string asks.

use std::io;
use std::sync::Arc;

use holdfast_wire::pg::scram::Binding;
use holdfast_wire::pg::scram::binding::server_end_point;
use holdfast_wire::pg::url::{ChannelBinding, ConnectionUrl, SslMode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;
use tokio_postgres::tls::{self, TlsConnect};

use super::stream::Stream;
use super::verify::client_config;
use crate::limits::PG_CONNECT_WAITS_MAX;

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
        .channel_binding(match url.binding {
            ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
            ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
            ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
        });
    // What was encrypted already is handed over as it is, with what it can be bound to.
    match &stream {
        Stream::Plain(_) => config.ssl_mode(tokio_postgres::config::SslMode::Disable),
        Stream::Tls(_) => config
            .ssl_mode(tokio_postgres::config::SslMode::Require)
            .ssl_negotiation(tokio_postgres::config::SslNegotiation::Direct),
    };
    if let Some(password) = &url.password {
        config.password(password.expose());
    }
    let login = config.connect_raw(stream, Already);
    let login = tokio::time::timeout(PG_CONNECT_WAITS_MAX, login).await;
    let (client, connection) = login
        .map_err(|_| "it does not answer".to_owned())?
        .map_err(|error| holdfast_core::ErrorChain(&error).to_string())?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told the same error.
        let _ = connection.await;
    });
    // Whoever may create in a schema could put a function or operator of his in our way. Compiling a
    // question costs many times what it takes.
    client
        .batch_execute(
            "SET search_path TO pg_catalog, pg_temp; SET lock_timeout TO '10s'; SET jit TO off",
        )
        .await
        .map_err(|error| holdfast_core::ErrorChain(&error).to_string())?;
    Ok(client)
}

/// Tells what a login over this connection is bound to.
///
/// # Errors
/// When the connection string demands a binding and there is nothing to bind to.
pub(super) fn binding(stream: &Stream, url: &ConnectionUrl) -> Result<Binding, String> {
    let found = match url.binding {
        ChannelBinding::Disable => None,
        ChannelBinding::Prefer | ChannelBinding::Require => end_point(stream),
    };
    match found {
        Some(hash) => Ok(Binding::EndPoint(hash)),
        None if url.binding == ChannelBinding::Require => {
            Err("`channel_binding=require`, and the connection offers none".to_owned())
        }
        None => Ok(Binding::Absent),
    }
}

fn end_point(stream: &Stream) -> Option<Vec<u8>> {
    match stream {
        Stream::Plain(_) => None,
        Stream::Tls(stream) => {
            let (_, connection) = stream.get_ref();
            let certificate = connection.peer_certificates()?.first()?;
            server_end_point(certificate)
        }
    }
}

/// For another implementation of the protocol: the connection is encrypted already.
struct Already;

impl TlsConnect<Stream> for Already {
    type Stream = Stream;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Stream>>;

    fn connect(self, stream: Stream) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}

impl tls::TlsStream for Stream {
    fn channel_binding(&self) -> tls::ChannelBinding {
        match end_point(self) {
            Some(hash) => tls::ChannelBinding::tls_server_end_point(hash),
            None => tls::ChannelBinding::none(),
        }
    }
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
            Ok(Stream::Tls(Box::new(stream.into())))
        }
        ([b'N'], SslMode::Prefer) => Ok(Stream::Plain(tcp)),
        _ => Err("it does not offer encryption".to_owned()),
    }
}
