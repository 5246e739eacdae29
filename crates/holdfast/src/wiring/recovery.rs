//! The recovery key: given to a person once, kept nowhere here.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use holdfast_core::{Code, Secret};
use holdfast_store::envelope::{Identity, Recipient};
use holdfast_store::keyring;
use serde::Serialize;

use crate::config::Config;
use crate::report::{Failure, Output};
use crate::wiring::{Half, now};

/// How many times the end of the key may be mistyped.
const TRIES: usize = 3;
/// How many of its last characters are typed back.
const TYPED: usize = 6;

/// How a new recovery key gets to the person who keeps it.
#[derive(Clone, Debug, Default, Args)]
pub struct NewRecovery {
    /// Write the new recovery key to this new file; take the file off this machine afterwards.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recovery_recipient", "recovery_key_in_json"])]
    recovery_key_out: Option<PathBuf>,
    /// Take the recipient (`age1…`) of a key that you have already; nothing is shown then.
    #[arg(
        long,
        value_name = "RECIPIENT",
        conflicts_with = "recovery_key_in_json"
    )]
    recovery_recipient: Option<Recipient>,
    /// Put the new recovery key into the output of --json: whoever reads that can read the repository.
    #[arg(long)]
    recovery_key_in_json: bool,
}

/// A recovery key that somebody has.
#[derive(Debug, Serialize)]
pub struct Given {
    /// What objects are sealed to.
    pub recipient: Recipient,
    /// The secret, when it was asked for in JSON.
    #[serde(
        rename = "secret",
        serialize_with = "exposed",
        skip_serializing_if = "Option::is_none"
    )]
    pub in_json: Option<Secret>,
    /// The file it was written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl NewRecovery {
    /// Tells whether any way was named.
    pub fn is_asked(&self) -> bool {
        self.recovery_key_out.is_some()
            || self.recovery_recipient.is_some()
            || self.recovery_key_in_json
    }

    /// Gives a new key to a person, or takes the recipient of one they have.
    ///
    /// # Errors
    /// When nobody takes it: no terminal, mistyped, a file that cannot be made. Nothing is then used.
    pub fn give(&self, config: &Config, output: Output) -> Result<Given, Failure> {
        let given = |recipient| Given {
            recipient,
            in_json: None,
            file: None,
        };
        if let Some(recipient) = self.recovery_recipient {
            return Ok(given(recipient));
        }
        let key = Identity::generate()?;
        let recipient = key.recipient();
        if let Some(file) = &self.recovery_key_out {
            let text = sheet(config, &key)?;
            keyring::write_new(file, text.expose())?;
            let file = std::path::absolute(file)
                .map_err(|error| super::system("find the file", &error))?;
            return Ok(Given {
                file: Some(file),
                ..given(recipient)
            });
        }
        if self.recovery_key_in_json {
            if !output.is_json() {
                return Err(unkept("--recovery-key-in-json needs --json"));
            }
            return Ok(Given {
                in_json: Some(key.to_text()),
                ..given(recipient)
            });
        }
        let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
        if !stdin.is_terminal() || !stderr.is_terminal() {
            return Err(unkept("there is no terminal to show it on"));
        }
        let text = key.to_text();
        let vault_key = vault_key(config)?;
        output.say(&shown(&text, &vault_key));
        confirm(&text, |prompt| {
            output.say(prompt);
            let mut line = String::new();
            stdin.lock().read_line(&mut line).map(|_| line)
        })?;
        Ok(given(recipient))
    }
}

fn exposed<S: serde::Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.as_ref().map_or("", Secret::expose))
}

/// Lets the end of the key be typed back, so that it is surely kept.
fn confirm(
    key: &Secret,
    mut ask: impl FnMut(&str) -> std::io::Result<String>,
) -> Result<(), Failure> {
    let length = key.expose().len();
    let end = key.expose().get(length.saturating_sub(TYPED)..);
    for _ in 0..TRIES {
        let typed = ask("To confirm that you keep it, type its last 6 characters:");
        let typed = typed.map_err(|error| unkept(&error.to_string()))?;
        if Some(typed.trim().to_ascii_uppercase().as_str()) == end {
            return Ok(());
        }
    }
    Err(unkept("its last 6 characters were not typed back"))
}

fn unkept(why: &str) -> Failure {
    Failure::new(
        Code::ZU271,
        format!(
            "nobody keeps the recovery key: {why}; it was thrown away and nothing is sealed to it"
        ),
        "run it at a terminal, or with --recovery-key-out FILE, --recovery-recipient age1… or, for a guard alone, --no-recovery-key",
    )
}

fn vault_key(config: &Config) -> Result<String, Failure> {
    let key = Half::Vault.public_key(config)?;
    Ok(data_encoding::HEXLOWER.encode(key.as_bytes()))
}

/// What is shown once.
fn shown(key: &Secret, vault_key: &str) -> String {
    format!(
        "\nThe recovery key of this vault. It is shown once and kept nowhere:\n\
         \n    {}\n\n\
         Write it down or put it into a password safe, away from this machine.\n\
         It opens every restore point from now on, also when this machine and all that is on it is gone.\n\
         Whoever has it and can read the repository can read the whole database.\n\
         When it is lost and this machine's own keys are lost, nobody can open the repository.\n\
         \nKeep beside it the vault's public key, which is no secret and proves what the vault wrote:\n\
         \n    {vault_key}\n",
        key.expose()
    )
}

/// The mark of the vault's public key in a file with a recovery key.
const VAULT_KEY: &str = "# vault key: ";

/// What is written to a file: `age -d -i` takes it as it is.
fn sheet(config: &Config, key: &Identity) -> Result<Secret, Failure> {
    let what = format!(
        "the recovery key of a Holdfast vault; keep it away from the vault's machine\n{VAULT_KEY}{}",
        vault_key(config)?
    );
    Ok(keyring::identity_file(key, now(), &what))
}

/// A recovery key as a person gives it back.
#[derive(Debug)]
pub struct Kept {
    /// The key, or several.
    pub identities: Vec<Identity>,
    /// The vault's public key, when the file says it.
    pub vault_key: Option<String>,
}

/// Reads a recovery key from a file that only its owner can read, or from stdin (`-`).
///
/// # Errors
/// When it cannot be read or is none; it is never shown.
pub fn read(from: &std::path::Path) -> Result<Kept, Failure> {
    let text = if from.as_os_str() == "-" {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            let typed = rpassword::prompt_password("recovery key: ");
            Secret::new(typed.map_err(|error| super::system("read the key", &error))?)
        } else {
            keyring::read_from(stdin.lock())
                .map_err(|error| super::system("read the key from stdin", &error))?
                .ok_or(holdfast_store::envelope::KeyTextError::NotAnIdentity)?
        }
    } else {
        keyring::read(from)?
    };
    let stated = text
        .expose()
        .lines()
        .find_map(|line| line.strip_prefix(VAULT_KEY));
    Ok(Kept {
        identities: Identity::read_all(text.expose())?,
        vault_key: stated.map(|stated| stated.trim().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_taken_as_kept_only_when_its_end_is_typed_back() {
        let key = Secret::new("AGE-SECRET-KEY-1QQQQQABCDEF");
        for (typed, kept) in [
            (&["ABCDEF\n"][..], true),
            (&["wrong\n", "abcdef \n"], true),
            (&["wrong\n", "", "bcdef\n"], false),
            (
                &["AGE-SECRET-KEY-1QQQQQABCDEF\n", "x", "y", "ABCDEF"],
                false,
            ),
        ] {
            let mut lines = typed.iter();
            let ended = confirm(&key, |prompt| {
                assert!(!prompt.contains("ABCDEF"));
                Ok(lines
                    .next()
                    .map_or_else(String::new, |line| (*line).to_owned()))
            });
            assert_eq!(ended.is_ok(), kept, "{typed:?}");
            if let Err(failure) = ended {
                assert_eq!(failure.code, Code::ZU271);
                assert!(!failure.message.contains("ABCDEF"));
            }
        }
    }
}
