//! What an agent's process needs in its environment to go through the door.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use holdfast_core::Secret;

/// Variables by which programs are told where certificate authorities are, one file each.
///
/// SOURCE: curl, OpenSSL, Node.js, Requests, Git, AWS CLI, Cargo, pip, Deno; gathered October 2026.
const CA_FILES: [&str; 9] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "DENO_CERT",
];

/// Variables by which programs are told of a proxy.
const PROXIES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Returns the environment of an agent's process: the proxy's address with the lease token, and the
/// door's certificate authority for every program that has a way of being told.
///
/// `NO_PROXY` names this machine only, so that nothing else goes past the door; whatever the agent's
/// process had in it before must be replaced. All traffic goes through the door, which makes all
/// certificates, so the one authority is enough.
pub fn lease_env(door: SocketAddr, token: &Secret, ca_file: &Path) -> BTreeMap<String, String> {
    let proxy = format!("http://lease:{}@{door}", token.expose());
    let ca = ca_file.display().to_string();
    let mut env = BTreeMap::new();
    for name in PROXIES {
        env.insert(name.to_owned(), proxy.clone());
    }
    for name in CA_FILES {
        env.insert(name.to_owned(), ca.clone());
    }
    let folder = ca_file.parent().unwrap_or(ca_file).display().to_string();
    env.insert("SSL_CERT_DIR".to_owned(), folder);
    for name in ["NO_PROXY", "no_proxy"] {
        env.insert(name.to_owned(), "localhost,127.0.0.1,::1".to_owned());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_told_of_the_door_and_nothing_goes_past_it() {
        let door = "127.0.0.1:6480".parse().unwrap();
        let env = lease_env(door, &Secret::new("hfl_x"), Path::new("/state/http-ca.pem"));
        assert_eq!(env["https_proxy"], "http://lease:hfl_x@127.0.0.1:6480");
        assert_eq!(env["SSL_CERT_FILE"], "/state/http-ca.pem");
        assert_eq!(env["SSL_CERT_DIR"], "/state");
        assert_eq!(env["NO_PROXY"], "localhost,127.0.0.1,::1");
    }
}
