//! What the door costs. Prints ratios; fails only when it is far from what was measured once.

use std::time::{Duration, Instant};

use super::bench::{Bench, REAL, URL};

/// Runs curl over one connection for many requests, or one connection each; returns the time of each.
async fn timed(bench: &Bench, args: &[String]) -> Vec<f64> {
    let ran = tokio::process::Command::new("curl")
        .env_clear()
        .args(args)
        .arg("--cacert")
        .arg(bench.folder.path().join("both.pem"))
        .output()
        .await
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    out.lines()
        .filter_map(|line| line.strip_prefix("time ")?.parse().ok())
        .collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    assert!(!times.is_empty(), "curl measured nothing");
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_adds_little_to_a_connection_and_to_a_request() {
    const REQUESTS: usize = 60;
    let bench = Bench::new().await;
    let both = std::fs::read_to_string(&bench.ca_file).unwrap()
        + &std::fs::read_to_string(&bench.provider.ca_file).unwrap();
    std::fs::write(bench.folder.path().join("both.pem"), both).unwrap();
    let direct = vec![
        "--connect-to".to_owned(),
        format!("backboard.railway.app:443:{}", bench.provider.address),
    ];
    let through = vec![
        "--proxy".to_owned(),
        format!("http://lease:{}@{}", bench.token(), bench.door),
    ];
    let body = format!(
        "{{\"query\":\"{{ me {{ id }} }} # {}\"}}",
        "x".repeat(4_000)
    );
    let request = |way: &[String]| {
        let mut args = vec!["-sS".to_owned(), "-o".to_owned(), "/dev/null".to_owned()];
        args.extend(way.iter().cloned());
        for (flag, value) in [
            ("-w", "time %{time_total}\n"),
            ("-H", "Content-Type: application/json"),
            ("-H", &format!("Authorization: Bearer {REAL}")),
            ("-d", body.as_str()),
        ] {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
        args
    };
    let mut report = String::new();
    let mut medians = Vec::new();
    for (name, way) in [("direct", &direct), ("door", &through)] {
        let mut fresh = Vec::new();
        for _ in 0..20 {
            let mut args = request(way);
            args.push(URL.to_owned());
            fresh.extend(timed(&bench, &args).await);
        }
        let mut args = request(way);
        for _ in 0..REQUESTS {
            args.extend(["-o".to_owned(), "/dev/null".to_owned(), URL.to_owned()]);
        }
        let began = Instant::now();
        let kept = timed(&bench, &args).await;
        let rate = kept.len() as f64 / began.elapsed().as_secs_f64();
        let (fresh, kept) = (median(fresh) * 1e3, median(kept) * 1e3);
        report += &format!(
            "{name}: new connection {fresh:.2} ms, kept alive {kept:.2} ms, {rate:.0} requests/s by one curl\n"
        );
        medians.push((fresh, kept));
    }
    println!("{report}");
    let (door, direct) = (medians[1], medians[0]);
    let budget = Duration::from_millis(60).as_secs_f64() * 1e3;
    assert!(
        door.0 - direct.0 < budget,
        "a new connection costs too much: {report}"
    );
    assert!(
        door.1 - direct.1 < budget,
        "a request costs too much: {report}"
    );
}
