//! Rehearsals by a vault in another process, over its local API.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_core::{Digest, NoRehearsal, Rehearsal, RehearsalRequest, Rehearse};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::{LIMIT_LINE_BYTES, SOCKET};

/// How often it is looked whether the answer is still wanted.
const LOOKS_EVERY: Duration = Duration::from_millis(200);

/// How long a vault may take for one rehearsal, its own limits included.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30 * 60);

/// The answer as it goes over the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It was measured.
    Rehearsal(Box<Rehearsal>),
    /// It was not.
    Not(NoRehearsal),
}

/// Rehearsals that are under way in this vault, so that they can be cancelled.
#[derive(Clone, Default)]
pub struct UnderWay(Arc<Mutex<BTreeMap<Digest, CancellationToken>>>);

impl UnderWay {
    /// Runs one for whoever asked over the local API.
    pub async fn run(&self, stage: Arc<dyn Rehearse>, request: RehearsalRequest) -> Told {
        let (digest, cancel) = (request.digest(), CancellationToken::new());
        self.lock().insert(digest, cancel.clone());
        let running = tokio::task::spawn_blocking(move || {
            stage.rehearse(&request, &|| cancel.is_cancelled())
        });
        let ended = running.await;
        self.lock().remove(&digest);
        match ended {
            Ok(Ok(rehearsal)) => Told::Rehearsal(Box::new(rehearsal)),
            Ok(Err(error)) => Told::Not(error),
            Err(error) => Told::Not(NoRehearsal::Clone {
                why: error.to_string(),
            }),
        }
    }

    /// Ends one early.
    pub fn cancel(&self, digest: &Digest) {
        if let Some(cancel) = self.lock().get(digest) {
            cancel.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vault in another process.
pub struct RemoteStage {
    socket: PathBuf,
}

impl RemoteStage {
    /// Names the vault whose folder is `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            socket: folder.join(SOCKET),
        }
    }

    fn send(&self, op: &str, args: &Value) -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(LOOKS_EVERY))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let request = json!({"op": op, "args": args});
        stream.write_all(format!("{request}\n").as_bytes())?;
        Ok(stream)
    }

    fn ask(
        &self,
        request: &RehearsalRequest,
        cancelled: &dyn Fn() -> bool,
    ) -> std::io::Result<Told> {
        let stream = self.send("rehearsal.run", &json!(request))?;
        let mut reader = BufReader::new(stream.take(LIMIT_LINE_BYTES));
        let (mut line, begun) = (Vec::new(), Instant::now());
        let mut is_told = false;
        loop {
            match reader.read_until(b'\n', &mut line) {
                Ok(_) => break,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            if !is_told && cancelled() {
                is_told = true;
                self.send("rehearsal.cancel", &json!(request.digest()))?;
            }
            if begun.elapsed() > ANSWERS_WITHIN {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        #[derive(Deserialize)]
        struct Answer {
            ok: Told,
        }
        let answer: Answer = serde_json::from_slice(&line)?;
        Ok(answer.ok)
    }
}

impl Rehearse for RemoteStage {
    fn rehearse(
        &self,
        request: &RehearsalRequest,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Rehearsal, NoRehearsal> {
        match self.ask(request, cancelled) {
            Ok(Told::Rehearsal(rehearsal)) => Ok(*rehearsal),
            Ok(Told::Not(error)) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the vault does not rehearse");
                Err(NoRehearsal::Unreachable)
            }
        }
    }
}
