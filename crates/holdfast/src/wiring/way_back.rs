//! The question of guard to a vault in another process, over its local API.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use holdfast_core::{
    ByteCount, NoWayBack, Proof, SignedProof, SourceName, Timestamp, WayBack, WayBackAnswer,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{LIMIT_LINE_BYTES, SOCKET};

/// How long the vault may take to answer from memory.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The answer as it goes over the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "way_back")]
pub enum Told {
    /// Capture stopped so many seconds ago.
    CaptureStopped {
        /// Seconds.
        for_s: u64,
    },
    /// Nothing was ever proven.
    NeverProven,
    /// The newest drill failed.
    ProofFailed,
    /// There is one.
    Proven {
        /// The newest proof.
        proof: SignedProof,
        /// The newest commit that is safe.
        safe_until: Timestamp,
        /// What is not safe yet.
        lag: ByteCount,
    },
    /// The vault does not know this source.
    UnknownSource,
}

impl Told {
    /// Puts an answer into the form of the socket.
    pub fn of(answer: Result<WayBackAnswer, NoWayBack>) -> Option<Self> {
        Some(match answer {
            Ok(answer) => Self::Proven {
                proof: answer.proof.signed().clone(),
                safe_until: answer.safe_until,
                lag: answer.lag,
            },
            Err(NoWayBack::NeverProven(_)) => Self::NeverProven,
            Err(NoWayBack::ProofFailed(_)) => Self::ProofFailed,
            Err(NoWayBack::UnknownSource(_)) => Self::UnknownSource,
            Err(NoWayBack::CaptureStopped(_, since)) => Self::CaptureStopped {
                for_s: since.as_secs(),
            },
            Err(NoWayBack::Unreachable) => return None,
        })
    }
}

/// A vault in another process. Its proofs count only with its signature.
pub struct RemoteVault {
    socket: PathBuf,
    key: VerifyingKey,
}

impl RemoteVault {
    /// Names the vault whose folder is `folder` and whose public key is `key`.
    pub fn new(folder: &std::path::Path, key: VerifyingKey) -> Self {
        Self {
            socket: folder.join(SOCKET),
            key,
        }
    }

    fn ask(&self, source: &SourceName) -> std::io::Result<Told> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
        let request = json!({"op": "way_back", "args": source});
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut line = Vec::new();
        BufReader::new(stream.take(LIMIT_LINE_BYTES)).read_until(b'\n', &mut line)?;
        #[derive(Deserialize)]
        struct Answer {
            ok: Told,
        }
        let answer: Answer = serde_json::from_slice(&line)?;
        Ok(answer.ok)
    }
}

impl WayBack for RemoteVault {
    fn way_back(&self, source: &SourceName, _now: Timestamp) -> Result<WayBackAnswer, NoWayBack> {
        let told = self.ask(source).map_err(|error| {
            tracing::warn!(%error, "the vault does not answer");
            NoWayBack::Unreachable
        })?;
        match told {
            Told::Proven {
                proof,
                safe_until,
                lag,
            } => {
                let proof = Proof::verify(&proof, &self.key)
                    .map_err(|_| NoWayBack::ProofFailed(source.clone()))?;
                Ok(WayBackAnswer {
                    proof,
                    safe_until,
                    lag,
                })
            }
            Told::CaptureStopped { for_s } => Err(NoWayBack::CaptureStopped(
                source.clone(),
                Duration::from_secs(for_s),
            )),
            Told::NeverProven => Err(NoWayBack::NeverProven(source.clone())),
            Told::ProofFailed => Err(NoWayBack::ProofFailed(source.clone())),
            Told::UnknownSource => Err(NoWayBack::UnknownSource(source.clone())),
        }
    }
}
