//! A certificate authority of our own, and a certificate with the provider's names.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Makes both anew, writes the authority's certificate to `ca_file`, and keeps the keys in memory.
///
/// # Errors
/// When the file cannot be written.
pub fn make(ca_file: &Path) -> Result<ServerConfig> {
    let mut authority = CertificateParams::new(Vec::new()).context("describe the authority")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority
        .distinguished_name
        .push(DnType::CommonName, "railway-stand-in (test tooling)");
    let authority_key = KeyPair::generate().context("make a key")?;
    let pem = authority
        .self_signed(&authority_key)
        .context("sign the authority")?
        .pem();
    std::fs::write(ca_file, pem).with_context(|| format!("write {}", ca_file.display()))?;
    let issuer = Issuer::new(authority, authority_key);
    let names = NAMES.iter().map(|name| (*name).to_owned());
    let leaf = CertificateParams::new(names.collect::<Vec<_>>()).context("describe the server")?;
    let key = KeyPair::generate().context("make a key")?;
    let leaf = leaf
        .signed_by(&key, &issuer)
        .context("sign the server's certificate")?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choose the versions of TLS")?;
    let chain = vec![CertificateDer::from(leaf.der().to_vec())];
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("use the certificate")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

const NAMES: [&str; 4] = [
    "backboard.railway.com",
    "backboard.railway.app",
    "localhost",
    "127.0.0.1",
];
