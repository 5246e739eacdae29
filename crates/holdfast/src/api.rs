//! The local API: one JSON object a line over a unix socket that only its owner can open.
//!
//! A request is `{"op": "noun.verb", "args": …}`; the answer is `{"ok": …}` or
//! `{"error": {"code", "message", "hint"}}`. One request a connection.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::{Code, Coded};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::report::Failure;

/// The longest request or answer, in bytes.
pub const LIMIT_LINE_BYTES: u64 = 64 * 1024 * 1024;
/// How long the server waits for a whole request.
const REQUEST_ARRIVES_WITHIN: Duration = Duration::from_secs(5);

/// The name of the socket in a half's folder.
pub const SOCKET: &str = "api.sock";

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// `noun.verb`.
    pub op: String,
    /// What the operation needs.
    #[serde(default)]
    pub args: Value,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Value),
    Error(WireFailure),
}

#[derive(Debug, Serialize, Deserialize)]
struct WireFailure {
    code: String,
    message: String,
    hint: Option<String>,
}

/// Why the local API cannot be served or asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nothing listens.
    #[error("{half} is not running (nothing answers at `{}`)", path.display())]
    NotRunning {
        /// `guard` or `the vault`.
        half: &'static str,
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("{half} did not answer")]
    Broken {
        /// `guard` or `the vault`.
        half: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The answer is not one of this version.
    #[error("{half} gave an answer that this version does not know")]
    Malformed {
        /// `guard` or `the vault`.
        half: &'static str,
    },
    /// The socket cannot be made.
    #[error("cannot listen at `{}`", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process serves it.
    #[error("another process serves `{}`", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
}

impl Coded for ApiError {
    fn code(&self) -> Code {
        match self {
            Self::NotRunning { .. } => Code::ZS601,
            Self::Broken { .. } | Self::Malformed { .. } => Code::ZS602,
            Self::Listen { .. } | Self::InUse { .. } => Code::ZU604,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotRunning { .. } => "start it with `holdfast up`, or name its configuration with --config".to_owned(),
            Self::Broken { .. } => "look at its log; ask again".to_owned(),
            Self::Malformed { .. } => "use the same version of holdfast for both".to_owned(),
            Self::Listen { .. } => "the path of the state folder may be too long (a socket's path has at most 107 bytes), or not yours".to_owned(),
            Self::InUse { .. } => "stop the other `holdfast` first".to_owned(),
        })
    }
}

/// A listening socket; its file is removed when it is dropped.
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A leftover file is harmless: the next start finds that nobody answers and replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens at `folder/api.sock`, readable and writable by the owner alone.
///
/// # Errors
/// [`ApiError::InUse`] when another process answers there.
pub fn listen(folder: &Path) -> Result<Listener, ApiError> {
    let path = folder.join(SOCKET);
    let failed = |source| ApiError::Listen {
        path: path.clone(),
        source,
    };
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(ApiError::InUse { path });
    }
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Listener { listener, path })
}

/// Answers requests until `stop`.
pub async fn serve<F, Fut>(listener: Listener, stop: CancellationToken, answer: F)
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, Failure>> + Send,
{
    let answer = Arc::new(answer);
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "local API: cannot accept");
                    continue;
                }
            },
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            if let Err(error) = serve_one(stream, &*answer).await {
                tracing::debug!(%error, "local API: connection ended");
            }
        });
    }
}

async fn serve_one<F, Fut>(stream: UnixStream, answer: &F) -> std::io::Result<()>
where
    F: Fn(Request) -> Fut,
    Fut: Future<Output = Result<Value, Failure>>,
{
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(LIMIT_LINE_BYTES));
    tokio::time::timeout(REQUEST_ARRIVES_WITHIN, reader.read_until(b'\n', &mut line)).await??;
    let result = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => answer(request).await,
        Err(error) => Err(Failure::new(
            Code::ZU605,
            format!("the request is not readable: {error}"),
            "use the same version of holdfast for both",
        )),
    };
    let answer = match result {
        Ok(value) => Answer::Ok(value),
        Err(failure) => Answer::Error(WireFailure {
            code: failure.code.to_string(),
            message: failure.message,
            hint: failure.hint,
        }),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Reads the arguments of a request.
///
/// # Errors
/// A usage failure that names what is wrong.
pub fn args<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    serde_json::from_value(request.args).map_err(|error| {
        Failure::new(
            Code::ZU605,
            format!("`{}` does not take these arguments: {error}", request.op),
            "use the same version of holdfast for both",
        )
    })
}

/// One half that can be asked.
#[derive(Clone, Debug)]
pub struct Client {
    half: &'static str,
    path: PathBuf,
}

impl Client {
    /// Names the half whose folder is `folder`.
    pub fn new(half: &'static str, folder: &Path) -> Self {
        Self {
            half,
            path: folder.join(SOCKET),
        }
    }

    /// Asks and waits for the answer, however long the operation takes.
    ///
    /// # Errors
    /// The other side's failure, or why it could not be asked.
    pub async fn ask<T: DeserializeOwned>(&self, op: &str, args: Value) -> Result<T, Failure> {
        let half = self.half;
        let not_running = |_| ApiError::NotRunning {
            half,
            path: self.path.clone(),
        };
        let stream = UnixStream::connect(&self.path).await.map_err(not_running)?;
        let broken = |source| ApiError::Broken { half, source };
        let (read, mut write) = stream.into_split();
        let request = Request {
            op: op.to_owned(),
            args,
        };
        let mut text = serde_json::to_vec(&request).map_err(|_| ApiError::Malformed { half })?;
        text.push(b'\n');
        write.write_all(&text).await.map_err(broken)?;
        let mut line = Vec::new();
        let mut reader = BufReader::new(read.take(LIMIT_LINE_BYTES));
        reader.read_until(b'\n', &mut line).await.map_err(broken)?;
        if line.is_empty() {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()).into());
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Ok(value)) => {
                Ok(serde_json::from_value(value).map_err(|_| ApiError::Malformed { half })?)
            }
            Ok(Answer::Error(failure)) => Err(known(failure)),
            Err(_) => Err(ApiError::Malformed { half }.into()),
        }
    }
}

/// Turns the text of a code back into one of ours; an unknown code is a version mismatch.
fn known(failure: WireFailure) -> Failure {
    let code = Code::ALL
        .iter()
        .map(|(code, _)| *code)
        .find(|code| code.as_str() == failure.code);
    Failure {
        code: code.unwrap_or(Code::ZS602),
        message: failure.message,
        hint: failure.hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(request: Request) -> impl Future<Output = Result<Value, Failure>> {
        std::future::ready(match request.op.as_str() {
            "echo" => Ok(request.args),
            _ => Err(Failure::new(Code::ZU605, "no such operation", "look")),
        })
    }

    #[tokio::test]
    async fn a_request_is_answered_and_a_second_server_refused() {
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new("guard", folder.path());
        let none = client.ask::<Value>("echo", Value::Null).await.unwrap_err();
        assert_eq!(none.code, Code::ZS601);
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listen(folder.path()).unwrap(), stop.clone(), echo));
        let back: Value = client
            .ask("echo", serde_json::json!({"a": 1}))
            .await
            .unwrap();
        assert_eq!(back, serde_json::json!({"a": 1}));
        assert_eq!(
            client
                .ask::<Value>("nope", Value::Null)
                .await
                .unwrap_err()
                .code,
            Code::ZU605
        );
        assert!(matches!(
            listen(folder.path()).map(|_| ()),
            Err(ApiError::InUse { .. })
        ));
        let mode = std::fs::metadata(folder.path().join(SOCKET))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_leftover_socket_is_replaced_and_garbage_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET)).unwrap());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listen(folder.path()).unwrap(), stop.clone(), echo));
        let mut stream = UnixStream::connect(folder.path().join(SOCKET))
            .await
            .unwrap();
        stream.write_all(b"not json\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("ZU605"), "{answer}");
        stop.cancel();
        server.await.unwrap();
    }
}
