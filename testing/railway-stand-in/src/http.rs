//! The HTTPS server.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::desk::{Credential, Desk, Reply};
use crate::limits;
use crate::world::Header;

/// Serves until `ends`, then lets requests that run come to their end.
pub async fn serve(
    listener: TcpListener,
    config: ServerConfig,
    desk: Arc<Desk>,
    ends: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = ends.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (acceptor, desk, ends) = (acceptor.clone(), Arc::clone(&desk), ends.clone());
                connections.spawn(connection(stream, acceptor, desk, ends));
            }
            Err(error) => {
                tracing::warn!("accept a connection: {error}");
                tokio::time::sleep(limits::POLL).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(limits::DRAIN, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("requests still run after {:?}", limits::DRAIN);
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    desk: Arc<Desk>,
    ends: CancellationToken,
) {
    let Ok(Ok(stream)) = tokio::time::timeout(limits::HEAD, acceptor.accept(stream)).await else {
        return;
    };
    let service = service_fn(move |request| answer(request, Arc::clone(&desk)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ends.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection broke: {error}");
    }
}

async fn answer(
    request: Request<Incoming>,
    desk: Arc<Desk>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let refused = match (path, &head.method) {
        (PATH, &Method::POST) => None,
        (PATH, _) => Some((StatusCode::METHOD_NOT_ALLOWED, "Only POST is supported")),
        _ => Some((StatusCode::NOT_FOUND, "Not Found")),
    };
    if let Some((status, message)) = refused {
        desk.note_other(head.method.as_str(), path, status.as_u16());
        return Ok(reply(status, &error(message)));
    }
    let sent = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let sent = sent
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !sent.trim().eq_ignore_ascii_case("application/json") {
        let refused = desk.refuse("POST body missing or of another type than application/json");
        return Ok(reply(StatusCode::BAD_REQUEST, &refused.body));
    }
    let read = Limited::new(body, limits::BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(limits::BODY, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(cut)) if cut.is::<LengthLimitError>() => {
            desk.note_other("POST", PATH, StatusCode::PAYLOAD_TOO_LARGE.as_u16());
            return Ok(reply(
                StatusCode::PAYLOAD_TOO_LARGE,
                &error("request entity too large"),
            ));
        }
        Ok(Err(_)) | Err(_) => {
            return Ok(reply(
                StatusCode::BAD_REQUEST,
                &error("the body did not arrive"),
            ));
        }
    };
    let credential = credential(&head.headers);
    // Volumes are copied and servers are killed: not on the threads that serve connections.
    let answered = tokio::task::spawn_blocking(move || desk.answer(&credential, &body)).await;
    Ok(match answered {
        Ok(Reply { status, body }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            reply(status, &body)
        }
        Err(_) => reply(
            StatusCode::INTERNAL_SERVER_ERROR,
            &error("Problem processing request"),
        ),
    })
}

/// The token of a request; the project's header wins, as it is the narrower one.
fn credential(headers: &hyper::HeaderMap<HeaderValue>) -> Credential {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    if let Some(token) = headers.get("project-access-token").and_then(text) {
        return Some((Header::ProjectAccessToken, token));
    }
    let value = headers.get(AUTHORIZATION).and_then(text)?;
    let (scheme, token) = value.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    bearer.then(|| (Header::Authorization, token.trim().to_owned()))
}

fn error(message: &str) -> Value {
    json!({ "errors": [{ "message": message }] })
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

const PATH: &str = "/graphql/v2";
