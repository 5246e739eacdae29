//! What the door costs, measured with one load generator against the same provider, directly and
//! through the door. Prints the figures; fails only when they are far from what was measured once.
//!
//! Figures of an optimised build: `cargo nextest run --release -p holdfast-guard speed --no-capture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bench::{Bench, HOST, REAL};

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_millis(800);

#[derive(Clone)]
struct Way {
    bench: Arc<Bench>,
    tls: TlsConnector,
    request: Arc<Vec<u8>>,
    through_door: bool,
}

impl Way {
    fn new(bench: &Arc<Bench>, through_door: bool) -> Self {
        let mut roots = RootCertStore::empty();
        for file in [&bench.ca_file, &bench.provider.ca_file] {
            roots
                .add(CertificateDer::from_pem_file(file).unwrap())
                .unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let body = format!(
            "{{\"query\":\"{{ me {{ id }} }} # {}\"}}",
            "x".repeat(4_000)
        );
        let request = format!(
            "POST /graphql/v2 HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {REAL}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self {
            bench: Arc::clone(bench),
            tls: TlsConnector::from(Arc::new(config)),
            request: Arc::new(request.into_bytes()),
            through_door,
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let address = if self.through_door {
            self.bench.door
        } else {
            self.bench.provider.address
        };
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        if self.through_door {
            let token = self.bench.token();
            let ask = format!(
                "CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
            );
            stream.write_all(ask.as_bytes()).await.unwrap();
            let mut answer = [0; 39];
            stream.read_exact(&mut answer).await.unwrap();
            assert!(
                answer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
        let name = ServerName::try_from(HOST).unwrap();
        self.tls.connect(name, stream).await.unwrap()
    }

    async fn ask(&self, stream: &mut TlsStream<TcpStream>) {
        stream.write_all(&self.request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(br#"{"data":{"done":true}}"#) {
            assert!(
                stream.read_buf(&mut answer).await.unwrap() > 0,
                "the connection closed"
            );
        }
    }

    /// Requests a second over so many connections.
    async fn rate(&self, connections: usize) -> f64 {
        let began = Instant::now();
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let way = self.clone();
            workers.spawn(async move {
                let mut stream = way.connect().await;
                let mut count = 0_u64;
                while began.elapsed() < MEASURED {
                    way.ask(&mut stream).await;
                    count += 1;
                }
                count
            });
        }
        let count: u64 = workers.join_all().await.into_iter().sum();
        count as f64 / began.elapsed().as_secs_f64()
    }

    /// Median milliseconds of one request on a new connection, and on one that is kept.
    async fn latency(&self) -> (f64, f64) {
        let (mut fresh, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..30 {
            let began = Instant::now();
            let mut stream = self.connect().await;
            self.ask(&mut stream).await;
            fresh.push(began.elapsed().as_secs_f64() * 1e3);
            for _ in 0..5 {
                let began = Instant::now();
                self.ask(&mut stream).await;
                kept.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        (median(fresh), median(kept))
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_adds_little_to_a_connection_and_to_a_request() {
    let bench = Arc::new(Bench::new().await);
    let (direct, door) = (Way::new(&bench, false), Way::new(&bench, true));
    let ((fresh_direct, kept_direct), (fresh, kept)) =
        (direct.latency().await, door.latency().await);
    println!("new connection and request: direct {fresh_direct:.2} ms, door {fresh:.2} ms");
    println!("4 KiB request, kept alive: direct {kept_direct:.3} ms, door {kept:.3} ms");
    for connections in [1, 32] {
        let (of_direct, of_door) = (direct.rate(connections).await, door.rate(connections).await);
        println!(
            "{connections} connections: direct {of_direct:.0}/s, door {of_door:.0}/s, ratio {:.2}",
            of_door / of_direct
        );
    }
    assert!(
        fresh - fresh_direct < 60.0,
        "a new connection costs {fresh} ms"
    );
    assert!(kept - kept_direct < 60.0, "a request costs {kept} ms");
}
