//! Malformed requests, wrong certificates, a ledger that cannot be written, a provider that dies.

use holdfast_core::Principal;
use holdfast_core::ledger::Draft;
use holdfast_guard::clock;
use holdfast_guard::limits::HTTP_BODY_BYTES_MAX;

use super::bench::{Bench, HOST, REAL, Setup, URL};

const DOMAIN: &str = "mutation { customDomainCreate(input: { domain: \"x\" }) { id } }";

/// A request in the reverse form, with headers and a body of one's own.
fn reverse(bench: &Bench, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /-/{HOST}/graphql/v2 HTTP/1.1\r\nHost: door\r\nProxy-Authorization: Bearer {}\r\nConnection: close\r\n{headers}\r\n{body}",
        bench.token()
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reverse_form_reaches_the_provider() {
    let bench = Bench::new().await;
    let body = r#"{"query":"{ me { id } }"}"#;
    let headers = format!("Content-Length: {}\r\n", body.len());
    let said = bench.raw(&reverse(&bench, &headers, body)).await;
    assert!(
        said.starts_with("HTTP/1.1 200") && said.contains("done"),
        "{said}"
    );
    let chunked = "5\r\n{\"que\r\n14\r\nry\":\"{ me { id } }\"}\r\n0\r\n\r\n";
    let said = bench
        .raw(&reverse(&bench, "Transfer-Encoding: chunked\r\n", chunked))
        .await;
    assert!(said.contains("done"), "{said}");
    assert_eq!(bench.provider.asked()[1].body, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_end_can_be_read_in_two_ways_is_refused() {
    let bench = Bench::new().await;
    let smuggled = "0\r\n\r\nPOST /graphql/v2 HTTP/1.1\r\nHost: x\r\n\r\n";
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 4\r\n X: folded\r\n",
    ] {
        let said = bench.raw(&reverse(&bench, headers, smuggled)).await;
        assert!(
            said.starts_with("HTTP/1.1 400") && said.contains("ZU501"),
            "{headers:?}: {said}"
        );
        assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
    }
    assert!(bench.provider.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_is_read() {
    let bench = Bench::new().await;
    let headers = format!("Content-Length: {}\r\n", HTTP_BODY_BYTES_MAX + 1);
    let said = bench.raw(&reverse(&bench, &headers, "")).await;
    assert!(
        said.starts_with("HTTP/1.1 413") && said.contains("ZU502"),
        "{said}"
    );
    let many = format!("X: {}\r\n", "y".repeat(70_000));
    let said = bench.raw(&reverse(&bench, &many, "")).await;
    assert!(said.starts_with("HTTP/1.1 400"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_another_host_than_its_tunnel_is_refused() {
    let bench = Bench::new().await;
    let read = r#"{"query":"{ me { id } }"}"#;
    let said = bench
        .curl(&[URL, "-H", "Host: other.example", "-d", read])
        .await;
    assert!(
        said.status == "421" && said.body.contains("ZU503"),
        "{said:?}"
    );
    // TLS asks for another name than the tunnel leads to.
    let to = format!("other.example:443:{HOST}:443");
    let said = bench
        .curl(&["https://other.example/", "--connect-to", &to, "-k"])
        .await;
    assert!(
        said.status == "421" && said.body.contains("ZU503"),
        "{said:?}"
    );
    let absolute = format!(
        "GET http://{HOST}/ HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: Bearer {}\r\n\r\n",
        bench.token()
    );
    let said = bench.raw(absolute.as_bytes()).await;
    assert!(said.contains("ZU503"), "{said}");
    assert!(bench.provider.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_certificate_does_not_verify_gets_nothing() {
    for setup in [
        Setup {
            certificate_for: "other.example",
            ..Setup::default()
        },
        Setup {
            trusted: false,
            ..Setup::default()
        },
    ] {
        let bench = Bench::with(setup).await;
        let said = bench.post(REAL, DOMAIN).await;
        assert!(
            said.body.contains("ZS501") && said.body.contains("nothing was sent"),
            "{said:?}"
        );
        assert!(bench.provider.asked().is_empty());
        assert_eq!(
            bench.ledger_kinds(),
            ["action.permitted", "action.not_done"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_unknown_and_not_to_be_repeated() {
    let bench = Bench::new().await;
    let document = DOMAIN.replace("\"x\"", "\"die-after-reading\"");
    let said = bench.post(REAL, &document).await;
    assert!(
        said.body.contains("ZS502") && said.body.contains("do not repeat"),
        "{said:?}"
    );
    assert_eq!(bench.ledger_kinds(), ["action.permitted", "action.unknown"]);
    assert_eq!(bench.provider.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_ledger_cannot_be_written_nothing_is_forwarded() {
    let bench = Bench::new().await;
    // A signed head is due after some entries; a folder where its file belongs makes appending fail.
    std::fs::create_dir(bench.ledger.folder().join("heads.jsonl")).unwrap();
    let full = (0..1_000).any(|_| {
        let entry = Draft::new("test.filler", Principal::service("test"), clock::now());
        bench.ledger.append(entry).is_err()
    });
    assert!(full, "appending goes on");
    let said = bench.post(REAL, DOMAIN).await;
    assert!(
        said.body.contains("ZS201") && said.body.contains("nothing was executed"),
        "{said:?}"
    );
    assert!(bench.provider.asked().is_empty());
}
