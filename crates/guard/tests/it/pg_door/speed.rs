//! What the door costs: pgbench through it and past it, in the same run.

use std::time::Duration;

use holdfast_testing::postgres;
use tokio::process::Command;

use super::bench::Bench;

/// Runs pgbench and returns transactions a second.
async fn pgbench(url: &str, args: &[&str]) -> f64 {
    let ran = Command::new("pgbench")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .args(["-n", "-T", "2", "-S"])
        .args(args)
        .arg(url)
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(Duration::from_secs(60), ran)
        .await
        .unwrap()
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout).into_owned();
    let err = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{out}{err}");
    let line = out.lines().find(|line| line.starts_with("tps = ")).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// The bar allows for a debug build and a busy machine; the figures are printed.
#[tokio::test(flavor = "multi_thread")]
async fn reading_through_the_door_is_not_many_times_slower() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let direct = bench.server.url_for("shop");
    let made = Command::new("pgbench")
        .args(["-i", "-q", "-s", "1", &direct])
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for mode in ["simple", "extended", "prepared"] {
        for clients in ["1", "8"] {
            let args = ["-M", mode, "-c", clients];
            let past = pgbench(&direct, &args).await;
            let through = pgbench(bench.url.expose(), &args).await;
            let ratio = through / past;
            println!(
                "-S {mode} -c {clients}: direct {past:.0}, door {through:.0} tps, ratio {ratio:.2}"
            );
            assert!(ratio > 0.02, "{mode} {clients}: {through} of {past}");
        }
    }
}
