//! The counter pages and `GET /health`, as one HTTP server.
//!
//! Architecture invariant: a page never waits longer for the database than `LIMIT_PAGE`; while the
//! database is away every page says so with 503, and the next request tries again.

mod counters;
mod forms;
mod reservations;
mod trouble;
mod views;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::database::UrlSource;
use crate::desk::{Health, Pool};
use crate::limits::{
    LIMIT_FORM_BYTES, LIMIT_HEALTH_CONNECTIONS, LIMIT_PAGE, LIMIT_PAGE_CONNECTIONS, LIMIT_SHUTDOWN,
};
use trouble::Trouble;

/// Where to listen, and whom to tell.
#[derive(Debug, Clone)]
pub struct ServePlan {
    /// Address; port 0 lets the operating system choose.
    pub listen: SocketAddr,
    /// File that gets `{"url","pid"}` when the pages can be asked for; removed at the end.
    pub ready_file: Option<PathBuf>,
}

/// Why the pages are not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address could not be taken.
    #[error("cannot listen on {address}; choose another with --listen, port 0 for any free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The ready file could not be written.
    #[error("cannot write the ready file {path}; check that its folder exists")]
    Ready {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server ended.
    #[error("the page server ended")]
    Serve(#[source] io::Error),
}

/// What the handlers share.
struct Office {
    pages: Pool,
    health: Pool,
}

type Shared = State<Arc<Office>>;

#[derive(Debug, Serialize)]
struct Ready {
    url: String,
    pid: u32,
}

/// Serves the pages until `stop` becomes true; `listening` is told the address once.
///
/// # Errors
/// `ServeError`; a database that is away is no error.
pub async fn serve(
    source: UrlSource,
    plan: ServePlan,
    stop: watch::Receiver<bool>,
    listening: impl FnOnce(&str),
) -> Result<(), ServeError> {
    let listen = |source| ServeError::Listen {
        address: plan.listen,
        source,
    };
    let listener = TcpListener::bind(plan.listen).await.map_err(listen)?;
    let url = format!("http://{}", listener.local_addr().map_err(listen)?);
    let office = Office {
        pages: Pool::new(source.clone(), LIMIT_PAGE_CONNECTIONS, LIMIT_PAGE),
        health: Pool::new(source, LIMIT_HEALTH_CONNECTIONS, LIMIT_PAGE),
    };
    if let Some(path) = &plan.ready_file {
        let ready = |source| ServeError::Ready {
            path: path.clone(),
            source,
        };
        write_ready(
            path,
            &Ready {
                url: url.clone(),
                pid: std::process::id(),
            },
        )
        .map_err(ready)?;
    }
    listening(&url);
    let server = axum::serve(listener, router(Arc::new(office)))
        .with_graceful_shutdown(stopped(stop.clone()))
        .into_future();
    // A browser may keep its connection open: after the stop it has a moment, then the server ends.
    let cut = async {
        stopped(stop).await;
        tokio::time::sleep(LIMIT_SHUTDOWN).await;
    };
    let outcome = tokio::select! {
        outcome = server => outcome.map_err(ServeError::Serve),
        () = cut => Ok(()),
    };
    if let Some(path) = &plan.ready_file {
        let _already_gone = std::fs::remove_file(path);
    }
    outcome
}

fn router(office: Arc<Office>) -> Router {
    Router::new()
        .route("/", get(counters::companies))
        .route("/counter/{location}", get(counters::counter))
        .route("/fleet/{location}", get(counters::fleet))
        .route(
            "/book/{location}",
            get(reservations::form).post(reservations::book),
        )
        .route("/reservations/{id}", get(reservations::show))
        .route("/reservations/{id}/pay", post(reservations::pay))
        .route("/reservations/{id}/{change}", post(reservations::change))
        .route("/health", get(health))
        .route(
            "/style.css",
            get(|| fixed("text/css; charset=utf-8", STYLE)),
        )
        .route("/icon.svg", get(|| fixed("image/svg+xml", ICON)))
        .fallback(|| async { Trouble::no_page() })
        .layer(DefaultBodyLimit::max(LIMIT_FORM_BYTES))
        .layer(middleware::from_fn(guard_headers))
        .with_state(office)
}

async fn health(State(office): Shared) -> Response {
    let health = Health::check(&office.health).await;
    let status = if health.is_well() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(health)).into_response()
}

fn fixed(kind: &'static str, text: &'static str) -> impl Future<Output = Response> {
    std::future::ready(([(CONTENT_TYPE, kind)], text).into_response())
}

/// Refuses forms that another site sends, and tells browsers to run nothing and keep nothing.
async fn guard_headers(request: Request, next: Next) -> Response {
    let mut response = if *request.method() == Method::POST && is_foreign(request.headers()) {
        Trouble::foreign_form().into_response()
    } else {
        in_words(next.run(request).await)
    };
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                  base-uri 'none'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page instead of the bare line or the nothing with which the framework refuses a request.
fn in_words(response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE);
    let is_bare = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !response.status().is_client_error() || !is_bare {
        return response;
    }
    let mut page = Trouble::not_understood(response.status()).into_response();
    if let Some(allowed) = response.headers().get(ALLOW) {
        page.headers_mut().insert(ALLOW, allowed.clone());
    }
    page
}

/// Whether the browser says that the form comes from elsewhere.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    match (text(ORIGIN), text(HOST)) {
        (Some(origin), Some(host)) => origin
            .split_once("://")
            .is_none_or(|(_, from)| from != host),
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// Writes the file under another name first, so that a reader sees all of it or nothing.
fn write_ready(path: &Path, ready: &Ready) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    std::fs::write(&new, serde_json::to_vec(ready)?)?;
    std::fs::rename(&new, path)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

const STYLE: &str = include_str!("../templates/style.css");
const ICON: &str = include_str!("../templates/icon.svg");

#[cfg(test)]
mod tests {
    use axum::http::header::{HOST, ORIGIN};
    use axum::http::{HeaderMap, HeaderValue};

    use super::{Ready, is_foreign, write_ready};

    #[test]
    fn a_form_of_another_site_is_foreign() {
        let cases = [
            (None, Some("127.0.0.1:80"), false),
            (Some("http://127.0.0.1:80"), Some("127.0.0.1:80"), false),
            (Some("http://127.0.0.1:81"), Some("127.0.0.1:80"), true),
            (Some("null"), Some("127.0.0.1:80"), true),
            (Some("http://evil.example"), Some("127.0.0.1:80"), true),
            (Some("http://127.0.0.1:80"), None, true),
        ];
        for (origin, host, foreign) in cases {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            if let Some(host) = host {
                headers.insert(HOST, HeaderValue::from_static(host));
            }
            assert_eq!(is_foreign(&headers), foreign, "{origin:?} {host:?}");
        }
    }

    #[test]
    fn the_ready_file_is_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        write_ready(
            &path,
            &Ready {
                url: "http://127.0.0.1:1".to_owned(),
                pid: 7,
            },
        )
        .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, r#"{"url":"http://127.0.0.1:1","pid":7}"#);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
