//! From what the file says of an object storage to a location that can be opened.

use std::path::{Path, PathBuf};

use holdfast_core::{ByteCount, ErrorChain};
use holdfast_store::object::s3::{
    Addressing, BucketPath, CredentialSource, Credentials, Endpoint, PlainHttp, S3Location, Timing,
};
use holdfast_store::object::{Location, NearBlocks, Promise};

use holdfast_vault::retention::Span;

use super::{ObjectStorageConfig, SecretRef, VaultConfig};

/// Returns where the repository is: a bucket, or a directory below `state`.
///
/// # Errors
/// What is wrong with what the file says.
pub(super) fn location(
    vault: &VaultConfig,
    (base, state): (&Path, &Path),
) -> Result<Location, String> {
    let Some(bucket) = BucketPath::parse(&vault.repository) else {
        return Ok(state.join(PathBuf::from(&vault.repository)).into());
    };
    let storage = &vault.object_storage;
    let plain = match storage.plain_http {
        true => PlainHttp::Anywhere,
        false => PlainHttp::LoopbackOnly,
    };
    let endpoint = match &storage.endpoint {
        Some(text) => Endpoint::parse(text, plain),
        None => Endpoint::of_region(&storage.region),
    };
    let told = |error| ErrorChain(&error).to_string();
    let authority_pem = match &storage.ca_file {
        Some(file) => {
            let file = base.join(file);
            let read = std::fs::read(&file);
            Some(read.map_err(|error| format!("`{}`: {error}", file.display()))?)
        }
        None => None,
    };
    if vault.lock_for == Span::ZERO {
        return Err("`lock_for` is 0: what is stored would not be locked".to_owned());
    }
    Ok(Location::S3(Box::new(S3Location {
        endpoint: endpoint.map_err(told)?,
        region: storage.region.clone(),
        bucket: bucket.map_err(told)?,
        addressing: storage.addressing,
        credentials: credentials(storage, base)?,
        lock: vault.lock_for.0,
        authority_pem,
        timing: Timing::default(),
        promise: Promise::Advisory {
            why: "nobody has tried yet whether this bucket refuses to delete".to_owned(),
        },
        near: near(vault, state),
    })))
}

/// Returns where mounts keep what they read from the bucket.
fn near(vault: &VaultConfig, state: &Path) -> Option<NearBlocks> {
    let bytes_max = ByteCount(vault.clones.cache_max_mib.saturating_mul(1 << 20));
    (bytes_max.0 > 0).then(|| NearBlocks {
        dir: state.join("block-cache"),
        bytes_max,
    })
}

fn credentials(storage: &ObjectStorageConfig, base: &Path) -> Result<CredentialSource, String> {
    let id = needed(storage.access_key_id.as_ref(), "access_key_id")?;
    let secret = needed(storage.secret_access_key.as_ref(), "secret_access_key")?;
    Ok(source((id, secret), storage.session_token.clone(), base))
}

/// Returns the key that the probe may try beside the vault's own, if one is named.
///
/// # Errors
/// When only a part of it is named.
pub(super) fn probe(
    storage: &ObjectStorageConfig,
    base: &Path,
) -> Result<Option<CredentialSource>, String> {
    let pair = (
        storage.probe_access_key_id.as_ref(),
        storage.probe_secret_access_key.as_ref(),
    );
    let names = ("probe_access_key_id", "probe_secret_access_key");
    pair_of(pair, names, base)
}

/// Returns the key that expiry uses instead of the vault's own, if one is named.
///
/// # Errors
/// When only a part of it is named.
pub(super) fn expire(
    storage: &ObjectStorageConfig,
    base: &Path,
) -> Result<Option<CredentialSource>, String> {
    let pair = (
        storage.expire_access_key_id.as_ref(),
        storage.expire_secret_access_key.as_ref(),
    );
    let names = ("expire_access_key_id", "expire_secret_access_key");
    pair_of(pair, names, base)
}

fn pair_of(
    (id, secret): (Option<&SecretRef>, Option<&SecretRef>),
    names: (&str, &str),
    base: &Path,
) -> Result<Option<CredentialSource>, String> {
    if id.is_none() && secret.is_none() {
        return Ok(None);
    }
    let pair = (needed(id, names.0)?, needed(secret, names.1)?);
    Ok(Some(source(pair, None, base)))
}

fn needed(reference: Option<&SecretRef>, key: &str) -> Result<SecretRef, String> {
    let missing = || format!("`vault.object_storage.{key}` is missing");
    reference.cloned().ok_or_else(missing)
}

/// The references are kept, so that what was renewed behind them is found.
fn source(
    (id, secret): (SecretRef, SecretRef),
    token: Option<SecretRef>,
    base: &Path,
) -> CredentialSource {
    let base = base.to_owned();
    CredentialSource::new(move || {
        let read = |reference: &SecretRef, what: &str| {
            let read = reference.read(what, &base);
            read.map_err(|error| error.to_string())
        };
        Ok(Credentials {
            access_key_id: read(&id, "access_key_id")?.expose().to_owned(),
            secret_access_key: read(&secret, "secret_access_key")?,
            session_token: match &token {
                Some(token) => Some(read(token, "session_token")?),
                None => None,
            },
        })
    })
}

/// The defaults of the table.
impl Default for ObjectStorageConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            probe_access_key_id: None,
            probe_secret_access_key: None,
            expire_access_key_id: None,
            expire_secret_access_key: None,
            addressing: Addressing::Path,
            plain_http: false,
            ca_file: None,
        }
    }
}
