//! Asking a person for a passphrase, where no model's channel is.

use std::io::{BufRead, IsTerminal};

use ed25519_dalek::{Signature, Signer, SigningKey};
use holdfast_core::{Code, Secret};
use holdfast_guard::hold::Approver;
use holdfast_store::key;
use serde::{Deserialize, Serialize};

use crate::report::Failure;

/// How a passphrase comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Typed at the terminal; a new one is asked for twice.
    Terminal,
    /// The first line of stdin, for a secret store that pipes it in.
    Stdin,
}

/// Asks for the passphrase of `name`.
///
/// # Errors
/// When there is no terminal, or two typings differ.
pub fn passphrase(name: &str, asking: Asking, twice: Twice) -> Result<Secret, Failure> {
    let refused = |why: &str| {
        Failure::new(
            Code::ZU607,
            format!("no passphrase: {why}; nothing was changed"),
            "run it at a terminal, or give the passphrase with --passphrase-stdin",
        )
    };
    match asking {
        Asking::Stdin => {
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .map_err(|error| refused(&error.to_string()))?;
            let text = line.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                return Err(refused("stdin is empty"));
            }
            Ok(Secret::new(text))
        }
        Asking::Terminal => {
            if !std::io::stdin().is_terminal() {
                return Err(refused("stdin is not a terminal"));
            }
            let ask = |prompt: String| {
                rpassword::prompt_password(prompt).map_err(|error| refused(&error.to_string()))
            };
            let first = ask(format!("passphrase of approver {name}: "))?;
            if twice == Twice::Yes && ask("the same again: ".to_owned())? != first {
                return Err(refused("the two typings differ"));
            }
            Ok(Secret::new(first))
        }
    }
}

/// Whether a passphrase is new and therefore typed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twice {
    /// It is known already.
    No,
    /// It is new.
    Yes,
}

/// Makes an approver from a passphrase and a fresh salt.
///
/// # Errors
/// When the passphrase is too short.
pub fn new_approver(name: &str, passphrase: &Secret, salt: [u8; 16]) -> Result<Approver, Failure> {
    let key = key::derive(passphrase, &salt)?;
    Ok(Approver {
        name: name.to_owned(),
        salt: data_encoding::HEXLOWER.encode(&salt),
        key: data_encoding::HEXLOWER.encode(key.verifying_key().as_bytes()),
    })
}

/// Derives an approver's key again, and checks that it is the one that is known.
///
/// # Errors
/// When the passphrase is not this approver's.
pub fn approver_key(approver: &Approver, passphrase: &Secret) -> Result<SigningKey, Failure> {
    let damaged = || {
        Failure::new(
            Code::ZI601,
            format!("the record of approver `{}` is damaged", approver.name),
            "put guard's state back from a copy, or make another approver with `holdfast hold approver`",
        )
    };
    let salt = data_encoding::HEXLOWER
        .decode(approver.salt.as_bytes())
        .ok()
        .and_then(|salt| <[u8; 16]>::try_from(salt).ok())
        .ok_or_else(damaged)?;
    let key = key::derive(passphrase, &salt)?;
    if Some(key.verifying_key()) != approver.verifying_key() {
        return Err(Failure::new(
            Code::ZL601,
            format!(
                "this is not the passphrase of approver `{}`; nothing was decided",
                approver.name
            ),
            "type it again; --as names another approver",
        ));
    }
    Ok(key)
}

/// A new approver, with the word of one who may approve already; the first one needs none.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewApprover {
    /// The new one.
    pub approver: Approver,
    /// Who vouches for this person.
    pub endorsement: Option<Endorsement>,
}

/// The signed word of an approver for another.
#[derive(Debug, Serialize, Deserialize)]
pub struct Endorsement {
    /// Who vouches.
    pub by: String,
    /// Ed25519 over `holdfast approver 1` and the new approver's name, salt and key, one a line.
    pub signature: String,
}

impl NewApprover {
    /// Signs for a new approver with the key of `by`.
    pub fn endorsed(approver: Approver, by: &Approver, key: &SigningKey) -> Self {
        let signature = key.sign(&endorsed_bytes(&approver)).to_bytes();
        let endorsement = Endorsement {
            by: by.name.clone(),
            signature: data_encoding::HEXLOWER.encode(&signature),
        };
        Self {
            approver,
            endorsement: Some(endorsement),
        }
    }

    /// Tells whether this person may be let in beside those who are known.
    pub fn is_vouched_for(&self, known: &[Approver]) -> bool {
        if known.is_empty() {
            return true;
        }
        let Some(endorsement) = &self.endorsement else {
            return false;
        };
        let signature = data_encoding::HEXLOWER
            .decode(endorsement.signature.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let by = known.iter().find(|one| one.name == endorsement.by);
        match (signature, by.and_then(Approver::verifying_key)) {
            (Some(signature), Some(key)) => key
                .verify_strict(
                    &endorsed_bytes(&self.approver),
                    &Signature::from_bytes(&signature),
                )
                .is_ok(),
            _ => false,
        }
    }
}

fn endorsed_bytes(approver: &Approver) -> Vec<u8> {
    let Approver { name, salt, key } = approver;
    format!("holdfast approver 1\n{name}\n{salt}\n{key}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_approver_lets_another_one_in() {
        let person = |name: &str, salt: u8| {
            let passphrase = Secret::new(format!("{name}'s passphrase"));
            let approver = new_approver(name, &passphrase, [salt; 16]).unwrap();
            let key = approver_key(&approver, &passphrase).unwrap();
            (approver, key)
        };
        let ((ann, ann_key), (eve, eve_key)) = (person("ann", 1), person("eve", 2));
        let alone = |approver: &Approver| NewApprover {
            approver: approver.clone(),
            endorsement: None,
        };
        assert!(alone(&ann).is_vouched_for(&[]));
        let known = [ann.clone()];
        assert!(!alone(&eve).is_vouched_for(&known));
        assert!(!NewApprover::endorsed(eve.clone(), &eve, &eve_key).is_vouched_for(&known));
        assert!(!NewApprover::endorsed(eve.clone(), &ann, &eve_key).is_vouched_for(&known));
        let mut good = NewApprover::endorsed(eve, &ann, &ann_key);
        assert!(good.is_vouched_for(&known));
        good.approver.key = good.approver.key.replace('a', "b");
        assert!(!good.is_vouched_for(&known));
        let wrong = approver_key(&ann, &Secret::new("not the passphrase"));
        assert_eq!(wrong.unwrap_err().code, Code::ZL601);
    }
}
