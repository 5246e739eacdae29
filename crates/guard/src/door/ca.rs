//! The certificate authority of the doors, and the certificates it makes for the hosts agents ask for.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_core::{Code, Coded};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::clock;
use crate::limits::HTTP_LEAVES_MAX;

/// The private key, mode 0600.
const KEY_FILE: &str = "http-ca.key";
/// The certificate that clients trust.
const CERTIFICATE_FILE: &str = "http-ca.pem";

/// The authority lasts ten years, a host's certificate about thirteen months: some clients refuse more.
const CA_LASTS: Duration = Duration::from_secs(3650 * 24 * 3600);
const LEAF_LASTS: Duration = Duration::from_secs(390 * 24 * 3600);
const BACKDATED: Duration = Duration::from_secs(2 * 24 * 3600);

/// Why the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Others could read the key.
    #[error("the key `{}` can be read by others", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is damaged, or no certificate can be made.
    #[error("the certificate authority is damaged: {0}")]
    Damaged(String),
}

impl Coded for CaError {
    fn code(&self) -> Code {
        Code::ZU505
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exposed { path } => format!("run `chmod 600 {}`", path.display()),
            Self::File { .. } => "let holdfast read and write its state folder".to_owned(),
            Self::Damaged(_) => format!(
                "restore {KEY_FILE} and {CERTIFICATE_FILE}, or remove both so that new ones are made"
            ),
        })
    }
}

/// The authority with its certificates. It signs only for this door's TLS endings.
pub struct Ca {
    pem: String,
    path: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    leaves: Mutex<BTreeMap<String, Arc<ServerConfig>>>,
}

impl Ca {
    /// Reads the authority from a folder, or makes one there.
    ///
    /// # Errors
    /// [`CaError`]; a half that is missing is not made up, because clients trust the other half.
    pub fn load_or_create(folder: &Path) -> Result<Self, CaError> {
        let (key_path, path) = (folder.join(KEY_FILE), folder.join(CERTIFICATE_FILE));
        if !key_path.exists() && !path.exists() {
            create(folder)?;
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| CaError::File {
                path: path.to_owned(),
                source,
            })
        };
        let (key, pem) = (read(&key_path)?, read(&path)?);
        let mode = fs::metadata(&key_path).map(|found| found.mode());
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            return Err(CaError::Exposed { path: key_path });
        }
        let key = KeyPair::from_pem(&key).map_err(damaged)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(damaged)?;
        let public = key.public_key_raw();
        if !certificate
            .windows(public.len())
            .any(|window| window == public)
        {
            return Err(CaError::Damaged(
                "key and certificate do not belong together".to_owned(),
            ));
        }
        let issuer = Issuer::new(ca_params()?, key);
        Ok(Self {
            pem,
            path,
            issuer,
            leaf_key: KeyPair::generate().map_err(damaged)?,
            leaves: Mutex::new(BTreeMap::new()),
        })
    }

    /// Returns the certificate that clients must trust, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the file of that certificate.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how the door ends TLS for a host; HTTP/1 only.
    ///
    /// # Errors
    /// [`CaError::Damaged`] when no certificate can be made for such a name.
    pub fn server_config(&self, host: &str) -> Result<Arc<ServerConfig>, CaError> {
        if let Some(known) = self.lock().get(host) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(self.make(host)?);
        let mut leaves = self.lock();
        if leaves.len() >= HTTP_LEAVES_MAX {
            leaves.clear();
        }
        leaves.insert(host.to_owned(), Arc::clone(&made));
        Ok(made)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<ServerConfig>>> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, CaError> {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let made = self.certificate(vec![name.to_owned()])?;
        made.server_config(&[b"http/1.1", b"http/1.0"])
    }

    /// Makes a certificate for a server with these names and addresses.
    ///
    /// # Errors
    /// [`CaError::Damaged`] when no certificate can be made for such names.
    pub fn certificate(&self, names: Vec<String>) -> Result<Certified, CaError> {
        let mut params = CertificateParams::new(names).map_err(damaged)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "holdfast door");
        params.use_authority_key_identifier_extension = true;
        params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
        last(&mut params, LEAF_LASTS)?;
        let leaf = params
            .signed_by(&self.leaf_key, &self.issuer)
            .map_err(damaged)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        Ok(Certified {
            chain: vec![CertificateDer::from(leaf.der().to_vec())],
            key,
        })
    }
}

/// A certificate with its key.
pub struct Certified {
    /// The certificate itself, and what leads from it to an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl Certified {
    /// Reads both from PEM files.
    ///
    /// # Errors
    /// [`CaError`]; a key that others can read is refused.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CaError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| CaError::File {
                path: path.to_owned(),
                source,
            })
        };
        let mode = fs::metadata(key).map(|found| found.mode());
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            return Err(CaError::Exposed {
                path: key.to_owned(),
            });
        }
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&read(certificate)?).collect();
        Ok(Self {
            chain: chain.map_err(damaged)?,
            key: PrivateKeyDer::from_pem_slice(&read(key)?).map_err(damaged)?,
        })
    }

    /// Returns how TLS is ended with it; a client that names protocols must name one of these.
    ///
    /// # Errors
    /// [`CaError::Damaged`] when key and certificate do not belong together.
    pub fn server_config(self, protocols: &[&[u8]]) -> Result<ServerConfig, CaError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(damaged)?
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .map_err(damaged)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

/// What the certificate of the authority says, but for its dates.
fn ca_params() -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(damaged)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = "Holdfast HTTP door of this machine";
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    params.key_usages.push(KeyUsagePurpose::CrlSign);
    Ok(params)
}

fn create(folder: &Path) -> Result<(), CaError> {
    fs::create_dir_all(folder).map_err(|source| CaError::File {
        path: folder.to_owned(),
        source,
    })?;
    let key = KeyPair::generate().map_err(damaged)?;
    let mut params = ca_params()?;
    last(&mut params, CA_LASTS)?;
    let certificate = params.self_signed(&key).map_err(damaged)?;
    write_new(
        &folder.join(KEY_FILE),
        key.serialize_pem().as_bytes(),
        0o600,
    )?;
    write_new(
        &folder.join(CERTIFICATE_FILE),
        certificate.pem().as_bytes(),
        0o644,
    )
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CaError> {
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| CaError::File {
        path: path.to_owned(),
        source,
    })
}

/// Sets from when and how long a certificate is valid, and a serial number of its own.
fn last(params: &mut CertificateParams, lasts: Duration) -> Result<(), CaError> {
    let now = std::time::SystemTime::now();
    let day = |at: Option<std::time::SystemTime>| {
        let at = at.and_then(|at| jiff::Timestamp::try_from(at).ok());
        let at = at.ok_or_else(|| CaError::Damaged("the clock is out of range".to_owned()))?;
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let part = |part: i8| u8::try_from(part).unwrap_or(1);
        Ok(rcgen::date_time_ymd(
            date.year().into(),
            part(date.month()),
            part(date.day()),
        ))
    };
    params.not_before = day(now.checked_sub(BACKDATED))?;
    params.not_after = day(now.checked_add(lasts))?;
    let serial: [u8; 16] = clock::random().map_err(damaged)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

fn damaged(error: impl std::fmt::Display) -> CaError {
    CaError::Damaged(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_authority_is_made_once_and_its_key_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let first = Ca::load_or_create(folder.path()).unwrap();
        let again = Ca::load_or_create(folder.path()).unwrap();
        assert_eq!(first.pem(), again.pem());
        let key = folder.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Ca::load_or_create(folder.path()),
            Err(CaError::Exposed { .. })
        ));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, "nonsense").unwrap();
        assert!(matches!(
            Ca::load_or_create(folder.path()),
            Err(CaError::Damaged(_))
        ));
        fs::remove_file(&key).unwrap();
        assert!(matches!(
            Ca::load_or_create(folder.path()),
            Err(CaError::File { .. })
        ));
    }

    #[test]
    fn certificates_are_made_for_names_and_addresses_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::load_or_create(folder.path()).unwrap();
        for host in ["api.example", "127.0.0.1", "[::1]"] {
            let made = ca.server_config(host).unwrap();
            assert!(
                Arc::ptr_eq(&made, &ca.server_config(host).unwrap()),
                "{host}"
            );
        }
    }
}
