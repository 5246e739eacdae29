//! What passes, what is held, and what the provider sees of it.

use std::time::Duration;

use super::bench::{Bench, HOST, REAL, Setup, URL, delete, hold_of};
use super::upstream::VOLUME;

/// How often a condition is looked at; the test's own deadline is curl's.
const POLL: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_incidents_very_call_is_held_and_nothing_is_forwarded() {
    let bench = Bench::new().await;
    let said = bench.post(REAL, &delete(VOLUME)).await;
    assert_eq!(said.status, "200", "{said:?}");
    let body: serde_json::Value = serde_json::from_str(&said.body).unwrap();
    let error = &body["errors"][0];
    let message = error["message"].as_str().unwrap();
    for part in [
        "ZH001",
        "held for approval",
        "volumeDelete",
        "nothing was executed",
        "do not retry",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(error["extensions"]["retry"], false);
    assert!(bench.provider.asked().is_empty());
    assert_eq!(bench.ledger_kinds(), ["action.held"]);
    // What the thing is was asked of the provider itself, and an approver sees it.
    assert_eq!(bench.provider.questions().len(), 1);
    let hold = bench.gatekeeper.holds().list().unwrap().remove(0);
    let evidence = serde_json::to_string(&hold.evidence).unwrap();
    assert!(
        evidence.contains("postgres-volume") && evidence.contains("production"),
        "{evidence}"
    );
    assert!(!bench.written().contains(REAL));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_of_writing_the_call_passes() {
    let bench = Bench::new().await;
    let auth = format!("Authorization: Bearer {REAL}");
    let bodies = [
        r#"{"query":"mutation { a: volumeDelete(volumeId: \"x\") }"}"#,
        r#"{"query":"mutation { ...F } fragment F on Mutation { volumeDelete(volumeId: \"x\") }"}"#,
        r#"{"query":"mutation($v: String!) { volumeDelete(volumeId: $v) }","variables":{"v":"x"}}"#,
        r#"{"query":"mutation { \u0076olumeDelete(volumeId: \"x\") }"}"#,
        r#"{"query":"{ me { id } }","query":"mutation { volumeDelete(volumeId: \"x\") }"}"#,
        r#"[{"query":"{ me { id } }"},{"query":"mutation { volumeDelete(volumeId: \"x\") }"}]"#,
        r#"{"query":"mutation { volumeRename(volumeId: \"x\") }"}"#,
        r#"{"extensions":{"persistedQuery":{"sha256Hash":"x"}}}"#,
        "nonsense",
    ];
    for body in bodies {
        for kind in [
            "application/json",
            "text/plain",
            "application/x-www-form-urlencoded",
        ] {
            let kind = format!("Content-Type: {kind}");
            let said = bench
                .curl(&["-X", "POST", URL, "-H", &auth, "-H", &kind, "-d", body])
                .await;
            assert!(said.body.contains("ZH001"), "{body}: {said:?}");
        }
    }
    assert!(
        bench.provider.asked().is_empty(),
        "{:?}",
        bench.provider.asked()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_method_header_or_path_passes() {
    let bench = Bench::new().await;
    let auth = format!("Authorization: Bearer {REAL}");
    let query = "query=mutation%7BvolumeDelete(volumeId:%22x%22)%7D";
    let get = format!("{URL}?{query}");
    for args in [
        vec![get.as_str(), "-H", &auth],
        vec!["-X", "DELETE", URL, "-H", &auth],
        vec![URL, "-H", &auth, "-H", "Content-Encoding: gzip", "-d", "x"],
        vec![URL, "-H", &auth, "-F", "operations={}"],
        vec![
            URL,
            "-H",
            &auth,
            "-H",
            "Content-Type: application/graphql",
            "-d",
            "mutation{volumeDelete(volumeId:1)}",
        ],
        vec![
            URL,
            "-H",
            &auth,
            "-H",
            "X-HTTP-Method-Override: DELETE",
            "-d",
            r#"{"query":"{me{id}}"}"#,
        ],
        vec![
            URL,
            "-H",
            &auth,
            "-H",
            "Upgrade: websocket",
            "-H",
            "Connection: upgrade",
        ],
        vec![
            "https://backboard.railway.app/graphql/v2/",
            "-H",
            &auth,
            "-d",
            r#"{"query":"{me{id}}"}"#,
        ],
    ] {
        let said = bench.curl(&args).await;
        assert!(said.body.contains("ZH001"), "{args:?}: {said:?}");
    }
    assert!(
        bench.provider.asked().is_empty(),
        "{:?}",
        bench.provider.asked()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_and_domain_work_pass_and_writes_are_in_the_ledger_first() {
    let bench = Bench::new().await;
    let said = bench.post(REAL, "{ me { id } }").await;
    assert_eq!(
        (said.status.as_str(), said.body.as_str()),
        ("200", r#"{"data":{"done":true}}"#)
    );
    assert!(bench.ledger_kinds().is_empty(), "reads are not recorded");
    let said = bench
        .post(
            REAL,
            "mutation { customDomainCreate(input: { domain: \"x.example\" }) { id } }",
        )
        .await;
    assert!(said.body.contains("done"), "{said:?}");
    assert_eq!(bench.ledger_kinds(), ["action.permitted", "action.done"]);
    let said = bench
        .post(
            REAL,
            "mutation { customDomainCreate(input: { domain: \"refuse-me\" }) { id } }",
        )
        .await;
    assert!(said.body.contains("no such thing"), "{said:?}");
    assert_eq!(
        bench.ledger_kinds()[2..],
        ["action.permitted", "action.not_done"]
    );
    let seen = bench.provider.asked();
    assert_eq!(seen.len(), 3);
    assert_eq!(
        (seen[1].method.as_str(), seen[1].path.as_str()),
        ("POST", "/graphql/v2")
    );
    assert_eq!(seen[1].header("host"), Some(HOST));
    assert_eq!(seen[1].header("proxy-authorization"), None);
    assert_eq!(
        seen[1].header("authorization"),
        Some(format!("Bearer {REAL}").as_str())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_request_passes_exactly_once() {
    let bench = Bench::new().await;
    let held = bench.post(REAL, &delete(VOLUME)).await;
    bench.approve(&hold_of(&held));
    // Another target under the same approval is not what was approved.
    let other = bench.post(REAL, &delete("another")).await;
    assert!(other.body.contains("ZH001"), "{other:?}");
    assert!(bench.provider.asked().is_empty());
    let passed = bench.post(REAL, &delete(VOLUME)).await;
    assert!(passed.body.contains("done"), "{passed:?}");
    let again = bench.post(REAL, &delete(VOLUME)).await;
    assert!(again.body.contains("ZH001"), "{again:?}");
    assert_eq!(bench.provider.asked().len(), 1);
    let kinds = bench.ledger_kinds();
    assert_eq!(
        kinds
            .iter()
            .filter(|kind| *kind == "action.permitted")
            .count(),
        1,
        "{kinds:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proven_way_back_an_approval_is_not_enough() {
    let bench = Bench::with(Setup {
        proven: false,
        ..Setup::default()
    })
    .await;
    let held = bench.post(REAL, &delete(VOLUME)).await;
    bench.approve(&hold_of(&held));
    let refused = bench.post(REAL, &delete(VOLUME)).await;
    assert!(refused.body.contains("ZH003"), "{refused:?}");
    // A volume that belongs to no known source has no way back either.
    let bench = Bench::new().await;
    let held = bench.post(REAL, &delete("unmapped")).await;
    bench.approve(&hold_of(&held));
    let refused = bench.post(REAL, &delete("unmapped")).await;
    assert!(refused.body.contains("ZH003"), "{refused:?}");
    assert!(bench.provider.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_request_may_wait_for_its_approval() {
    let wait = Duration::from_secs(20);
    let bench = Bench::with(Setup {
        hold_wait: wait,
        ..Setup::default()
    })
    .await;
    let document = delete(VOLUME);
    let asking = bench.post(REAL, &document);
    let approving = async {
        loop {
            if let Some(hold) = bench.gatekeeper.holds().list().unwrap().first() {
                return bench.approve(hold.id.as_str());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let (said, ()) = tokio::join!(asking, approving);
    assert!(said.body.contains("done"), "{said:?}");
    assert_eq!(bench.provider.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_way_back_is_denied() {
    let bench = Bench::new().await;
    let said = bench
        .post(
            REAL,
            "mutation { volumeInstanceBackupScheduleUpdate(volumeInstanceId: \"i\", kinds: []) }",
        )
        .await;
    assert!(said.body.contains("ZH002"), "{said:?}");
    assert!(bench.provider.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_without_a_pack_are_refused_in_plain_json() {
    let bench = Bench::new().await;
    let said = bench
        .curl(&["-X", "DELETE", "https://api.example/databases/1"])
        .await;
    assert_eq!(said.status, "403", "{said:?}");
    let body: serde_json::Value = serde_json::from_str(&said.body).unwrap();
    assert_eq!(body["error"]["code"], "ZH001");
    let said = bench
        .curl(&["-X", "POST", "http://api.example/databases", "-d", "x"])
        .await;
    assert_eq!(said.status, "403", "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_agents_read_nothing() {
    let bench = Bench::new().await;
    let by = holdfast_core::Principal::human("ann");
    bench.gatekeeper.set_frozen(true, by).unwrap();
    let said = bench.post(REAL, "{ me { id } }").await;
    assert!(said.body.contains("ZH004"), "{said:?}");
    assert!(bench.provider.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_relayed_as_they_are() {
    let bench = Bench::new().await;
    let expected: String = (0..200).map(|n| format!("{n:01000}")).collect();
    for document in [
        "{ streamed(a: \"stream-me\") }",
        "mutation { projectCreate(input: { name: \"stream-me\" }) { id } }",
    ] {
        let said = bench.post(REAL, document).await;
        assert_eq!(
            (said.status.as_str(), said.body == expected),
            ("200", true),
            "{document}"
        );
    }
    let said = bench.post(REAL, "{ empty(a: \"status-204\") }").await;
    assert_eq!(
        (said.status.as_str(), said.body.as_str()),
        ("204", ""),
        "{said:?}"
    );
    let said = bench
        .post(
            REAL,
            "mutation { projectCreate(input: { name: \"status-500\" }) { id } }",
        )
        .await;
    assert_eq!(said.status, "500", "{said:?}");
    assert_eq!(bench.ledger_kinds().last().unwrap(), "action.unknown");
    // Two requests on one connection, the old protocol, and the headers of the answer.
    let get = format!("{URL}?query=%7Bme%7Bid%7D%7D");
    let auth = format!("Authorization: Bearer {REAL}");
    let said = bench.curl(&["-D", "-", "-H", &auth, &get, &get]).await;
    assert_eq!(
        said.body.matches(r#"{"data":{"done":true}}"#).count(),
        2,
        "{said:?}"
    );
    assert_eq!(said.body.matches("x-provider: yes").count(), 2, "{said:?}");
    let said = bench.curl(&["--http1.0", "-H", &auth, &get]).await;
    assert!(said.body.ends_with(r#"{"data":{"done":true}}"#), "{said:?}");
    let said = bench.curl(&["-I", "-H", &auth, &get]).await;
    assert_eq!(said.status, "200", "{said:?}");
}
