//! TLS on both sides of the door, and logins that are bound to it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_guard::door::ca::Ca;
use holdfast_testing::dirs::TestDir;
use holdfast_testing::postgres::{self, ServerUser};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bench::Bench;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

fn with(bench: &Bench, options: &str) -> String {
    let ca = bench.folder.path().join("http-ca.pem");
    format!(
        "{}?{options}&sslrootcert={}",
        bench.url.expose(),
        ca.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_verify_the_door_and_bind_their_login_to_it() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    for options in [
        "sslmode=require",
        "sslmode=verify-ca",
        "sslmode=verify-full",
        "sslmode=verify-full&channel_binding=require",
        "sslmode=require&channel_binding=disable",
        "gssencmode=prefer&sslmode=verify-full",
    ] {
        let said = bench
            .psql_at(&with(&bench, options), &["\\conninfo", "SELECT 1"])
            .await;
        let is_encrypted = said.out.contains("SSL") && said.out.ends_with('1');
        assert!(said.ok && is_encrypted, "{options}: {said:?}");
    }
    // In the clear there is nothing to bind to.
    let said = bench
        .psql_at(
            &with(&bench, "sslmode=disable&channel_binding=require"),
            &["SELECT 1"],
        )
        .await;
    assert!(!said.ok, "{said:?}");
    let said = bench
        .psql_at(&with(&bench, "gssencmode=require"), &["SELECT 1"])
        .await;
    assert!(!said.ok, "{said:?}");
    // Another authority, and a name that the certificate does not have.
    let other = tempfile::tempdir().unwrap();
    Ca::load_or_create(other.path()).unwrap();
    let url = format!(
        "{}?sslmode=verify-full&sslrootcert={}",
        bench.url.expose(),
        other.path().join("http-ca.pem").display()
    );
    let said = bench.psql_at(&url, &["SELECT 1"]).await;
    assert!(said.err.contains("certificate verify failed"), "{said:?}");
    let url = with(&bench, "sslmode=verify-full").replace("127.0.0.1", "127.0.0.2");
    let said = bench.psql_at(&url, &["SELECT 1"]).await;
    assert!(!said.ok, "{said:?}");
}

fn connector(bench: &Bench, protocols: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let ca = bench.folder.path().join("http-ca.pem");
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn tls(
    bench: &Bench,
    first: &[u8],
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(bench.door).await?;
    if !first.is_empty() {
        stream.write_all(first).await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"S");
    }
    let name = ServerName::IpAddress(bench.door.ip().into());
    connector(bench, protocols).connect(name, stream).await
}

/// Asks for a session and returns the first byte of the answer.
async fn answer(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> Option<u8> {
    stream
        .write_all(b"\0\0\0\x15\0\x03\0\0user\0nobody\0\0")
        .await
        .ok()?;
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte));
    matches!(read.await.expect("it answers or closes"), Ok(1)).then_some(byte[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_begins_at_once_only_by_the_name_of_the_protocol() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let direct = tls(&bench, b"", &[b"postgresql"]).await.unwrap();
    assert_eq!(answer(direct).await, Some(b'R'));
    for strange in [&[][..], &[&b"http/1.1"[..]]] {
        let refused = match tls(&bench, b"", strange).await {
            Ok(stream) => answer(stream).await.is_none(),
            Err(_) => true,
        };
        assert!(refused, "{strange:?}");
    }
    // After a request for it, the name may be absent, but not another.
    let asked = tls(&bench, &SSL_REQUEST, &[]).await.unwrap();
    assert_eq!(answer(asked).await, Some(b'R'));
    let asked = tls(&bench, &SSL_REQUEST, &[b"postgresql"]).await.unwrap();
    assert_eq!(answer(asked).await, Some(b'R'));
    let other = match tls(&bench, &SSL_REQUEST, &[b"h2"]).await {
        Ok(stream) => answer(stream).await.is_none(),
        Err(_) => true,
    };
    assert!(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn gssapi_is_declined_and_tls_then_begins_on_the_same_socket() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let mut stream = TcpStream::connect(bench.door).await.unwrap();
    let mut byte = [0];
    stream.write_all(&GSS_REQUEST).await.unwrap();
    stream.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"N");
    stream.write_all(&SSL_REQUEST).await.unwrap();
    stream.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"S");
    let name = ServerName::IpAddress(bench.door.ip().into());
    let mut stream = connector(&bench, &[]).connect(name, stream).await.unwrap();
    // Inside TLS nobody asks for encryption again.
    stream.write_all(&SSL_REQUEST).await.unwrap();
    stream.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"E");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_a_request_for_encryption_are_never_read() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let mut stream = TcpStream::connect(bench.door).await.unwrap();
    let smuggled = [&SSL_REQUEST[..], b"\0\0\0\x15\0\x03\0\0user\0nobody\0\0"].concat();
    stream.write_all(&smuggled).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&b'E'), "{answer:?}");
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.contains("ZU404"), "{text}");
}

/// Lets the bench's server offer TLS, with a certificate of a new authority for `name`.
async fn encrypt(bench: &Bench, name: &str) -> TestDir {
    let folder = TestDir::for_server("tls").unwrap();
    let ca = Ca::load_or_create(folder.path()).unwrap();
    let made = ca.certificate(vec![name.to_owned()]).unwrap();
    let root = bench.server.connect().await.unwrap();
    for (setting, label, der) in [
        ("ssl_cert_file", "CERTIFICATE", &made.chain[0][..]),
        ("ssl_key_file", "PRIVATE KEY", made.key.secret_der()),
    ] {
        let path = folder.path().join(setting);
        let text = data_encoding::BASE64.encode(der);
        let text = format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        ServerUser::current().unwrap().own(&path).unwrap();
        let set = format!("ALTER SYSTEM SET {setting} = '{}'", path.display());
        root.batch_execute(&set).await.unwrap();
    }
    root.batch_execute("ALTER SYSTEM SET ssl = on")
        .await
        .unwrap();
    root.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let client = bench.server.connect().await.unwrap();
        let row = client.query_one("SHOW ssl", &[]).await.unwrap();
        if row.get::<_, String>(0) == "on" {
            return folder;
        }
        assert!(Instant::now() < deadline, "{}", bench.server.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_verified_as_the_connection_string_asks() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::new(&installation).await;
        let folder = encrypt(&bench, "db.example").await;
        let ca = folder.path().join("http-ca.pem").display().to_string();
        let other = tempfile::tempdir().unwrap();
        Ca::load_or_create(other.path()).unwrap();
        let other = other.path().join("http-ca.pem").display().to_string();
        for (options, opens) in [
            ("sslmode=disable".to_owned(), true),
            ("sslmode=prefer".to_owned(), true),
            ("sslmode=require&channel_binding=require".to_owned(), true),
            (format!("sslmode=require&sslrootcert={ca}"), true),
            (format!("sslmode=require&sslrootcert={other}"), false),
            (format!("sslmode=verify-ca&sslrootcert={ca}"), true),
            (format!("sslmode=verify-ca&sslrootcert={other}"), false),
            (format!("sslmode=verify-full&sslrootcert={ca}"), false),
            ("sslmode=disable&channel_binding=require".to_owned(), false),
        ] {
            let url = format!("{}?{options}", bench.server.url_for("shop"));
            let url = bench.another_door(&url).await;
            let ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            let said = bench.psql_at(url.expose(), &[ask]).await;
            assert_eq!(said.ok, opens, "{options}: {said:?}");
            let is_encrypted = !options.contains("disable");
            assert_eq!(
                said.out == "t",
                opens && is_encrypted,
                "{options}: {said:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_names_its_host_is_verified_in_full_and_logins_are_bound() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let folder = encrypt(&bench, "127.0.0.1").await;
    let ca = folder.path().join("http-ca.pem").display().to_string();
    let options = format!("sslmode=verify-full&sslrootcert={ca}&channel_binding=require");
    let url = format!("{}?{options}", bench.server.url_for("shop"));
    let url = bench.another_door(&url).await;
    for _ in 0..2 {
        let said = bench.psql_at(url.expose(), &["SELECT 1"]).await;
        assert_eq!(said.out, "1", "{said:?}");
    }
}
