//! `holdfast ledger verify`: the chain, the signed heads, and the proofs of drills.

use std::path::PathBuf;

use clap::Args;
use data_encoding::HEXLOWER;
use ed25519_dalek::VerifyingKey;
use holdfast_core::ledger::Entry;
use holdfast_core::{Code, Recorded, RecordedError, recorded};
use holdfast_store::ledger::{self, Verified};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Which, halves, read};
use crate::cli::Shared;
use crate::report::{Done, Failure, Output};

/// What is verified.
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    which: Which,
    /// Verify this exported file instead; needs no configuration, only --key.
    #[arg(long, requires = "key")]
    file: Option<PathBuf>,
    /// The public key that signed: 64 hexadecimal digits, or a file that holds them.
    #[arg(long, requires = "file")]
    key: Option<String>,
}

/// What the entries of drills came to.
#[derive(Clone, Debug, Default, Serialize)]
struct Proofs {
    /// Drills that passed, whose signed proof agrees with the entry.
    verified: u64,
    /// Drills that passed with an alarm among them.
    alarms: u64,
    /// Drills that failed, and prove nothing.
    failed: u64,
    /// Drills that passed by a holdfast that kept the proof in the repository alone.
    unsigned: u64,
    #[serde(skip)]
    wrong: Option<RecordedError>,
}

impl Proofs {
    fn take(&mut self, entry: &Entry, key: &VerifyingKey) {
        let count = match recorded(entry, key) {
            Ok(Recorded::Other) => return,
            Ok(Recorded::Failed(_)) => &mut self.failed,
            Ok(Recorded::Unsigned(_)) => &mut self.unsigned,
            Ok(Recorded::Proven(proof)) => {
                if proof.report().alarm().is_some() {
                    self.alarms = self.alarms.saturating_add(1);
                }
                &mut self.verified
            }
            Err(error) => {
                self.wrong.get_or_insert(error);
                return;
            }
        };
        *count = count.saturating_add(1);
    }

    fn settle(self) -> Result<Self, Failure> {
        match &self.wrong {
            Some(error) => Err(error.clone().into()),
            None => Ok(self),
        }
    }
}

impl Verify {
    /// Reads the files; nothing needs to run.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let (mut values, mut lines) = (Vec::new(), Vec::new());
        if let (Some(file), Some(key)) = (&self.file, &self.key) {
            let key = public_key(key)?;
            let mut proofs = Proofs::default();
            let mut begun_by = None;
            let verified = ledger::verify_file(file, |entry| {
                if entry.seq == 0 {
                    begun_by = entry.draft.body.get("key").cloned();
                }
                proofs.take(entry, &key);
            })?;
            if begun_by != Some(json!(HEXLOWER.encode(key.as_bytes()))) {
                return Err(Failure::new(
                    Code::ZU605,
                    format!(
                        "`{}` was begun with another key than the one given",
                        file.display()
                    ),
                    "give the public key of the half that it was exported from, as `vault.pub` or `guard.pub` has it",
                ));
            }
            let name = file.display().to_string();
            tell(
                &name,
                (&verified, &proofs.settle()?),
                (&mut values, &mut lines),
            );
            lines.push(
                "  without the signed heads nobody can tell whether entries are missing at its end"
                    .to_owned(),
            );
        } else {
            let config = shared.config()?;
            for half in halves(&config, &self.which) {
                let key = half.public_key(&config)?;
                let mut proofs = Proofs::default();
                let verified = read(&config, half, |entry| proofs.take(entry, &key))?;
                let told = (&verified, &proofs.settle()?);
                tell(half.word(), told, (&mut values, &mut lines));
            }
        }
        if values.is_empty() {
            return Err(Failure::new(
                Code::ZU606,
                "there is no ledger yet",
                "`holdfast init` begins it; --config may name another configuration",
            ));
        }
        output.result(&values, || lines.join("\n"));
        Ok(())
    }
}

fn tell(
    name: &str,
    (verified, proofs): (&Verified, &Proofs),
    (values, lines): (&mut Vec<Value>, &mut Vec<String>),
) {
    values.push(json!({
        "ledger": name, "entries": verified.size, "root": verified.root,
        "id": verified.id, "heads": verified.heads, "torn_bytes": verified.torn_bytes,
        "proofs": proofs,
    }));
    lines.push(format!(
        "{name}: {} entries verify against {} signed heads, root {}",
        verified.size, verified.heads, verified.root
    ));
    if verified.torn_bytes > 0 {
        lines.push(format!(
            "  and {} bytes of a last line that a crash cut; it was never acknowledged",
            verified.torn_bytes
        ));
    }
    let drills = proofs.verified + proofs.failed + proofs.unsigned;
    if drills > 0 {
        lines.push(format!(
            "  {} proofs verify ({} with an alarm), {} drills failed, {} without a proof in the ledger",
            proofs.verified, proofs.alarms, proofs.failed, proofs.unsigned
        ));
    }
}

/// Reads a public key from hexadecimal digits, or from a file that holds them.
fn public_key(text: &str) -> Result<VerifyingKey, Failure> {
    let held = std::fs::read_to_string(text);
    let digits = held.as_deref().unwrap_or(text).trim();
    let bytes = HEXLOWER.decode(digits.to_lowercase().as_bytes()).ok();
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or_else(|| {
            Failure::new(
                Code::ZU605,
                "`--key` is neither a public key of 64 hexadecimal digits nor a file that holds one",
                "`vault.pub` in the state folder holds it",
            )
        })
}
