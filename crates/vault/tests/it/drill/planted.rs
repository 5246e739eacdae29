//! What is planted must be found, and what is not the point's fault must not be held against it.

use std::process::Command;

use super::*;

/// The data directory of the drill that runs, once its server does.
fn drill_server(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder.join("drills")).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path().join("data"))
        .find(|data| data.join("postmaster.pid").is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_rots_on_the_restored_side_fails_the_drill() {
    let installation = postgres::oldest().unwrap();
    let scene = Scene::start(server(&installation), Vec::new());
    scene.sql(ORDERS).await;
    assert_eq!(scene.first_drill().await, ProofState::Verified);
    scene.sql("CHECKPOINT").await;
    let client = scene.server.connect().await.unwrap();
    let row = client.query_one("SELECT pg_relation_filepath('orders')", &[]);
    let path: String = row.await.unwrap().get(0);
    drop(client);
    // A new point, so that no replay writes the page anew.
    let first = scene.vault.status()[0].point.clone();
    assert!(scene.vault.ask_for_point(&name()));
    scene
        .wait("point", |vault| vault.status()[0].point != first)
        .await;
    let (stop, folder) = (scene.stop.clone(), scene.folder.path().to_owned());
    let rot = std::thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < LIMIT && !stop.is_cancelled() {
            if let Some(data) = drill_server(&folder) {
                let file = OpenOptions::new().write(true).open(data.join(&path));
                return file.unwrap().write_all_at(b"rot", 8192 * 3 + 6000).is_ok();
            }
            std::thread::yield_now();
        }
        false
    });
    scene
        .wait("drill of the new point", |_| scene.kinds().len() >= 2)
        .await;
    assert!(rot.join().unwrap());
    let report = scene.drills().pop().unwrap();
    assert!(!report.passed(), "{report:#?}");
    let (pages, detail) = outcome(&report, "page checksums");
    assert_eq!(pages, CheckOutcome::Failed);
    assert!(detail.contains("page 3 of base/"), "{detail}");
    // The older proof stands, and is not a way back while the newest drill failed.
    assert!(scene.vault.way_back(&name(), report.drilled_at).is_err());
    assert_eq!(scene.vault.status()[0].failed_points, [report.point]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_lacks_entries_is_found_by_amcheck() {
    for installation in postgres::all().unwrap() {
        let source = server(&installation);
        let client = source.connect().await.unwrap();
        client.batch_execute(ORDERS).await.unwrap();
        // Rows that the index is not told of: every page and every checksum is right.
        for statement in [
            "CREATE INDEX orders_note ON orders (note, id)",
            "UPDATE pg_index SET indisready = false, indisvalid = false
             WHERE indexrelid = 'orders_note'::regclass",
            "INSERT INTO orders SELECT n, 'unseen' FROM generate_series(20001, 20050) AS n",
            "UPDATE pg_index SET indisready = true, indisvalid = true
             WHERE indexrelid = 'orders_note'::regclass",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
        let scene = Scene::start(source, Vec::new());
        assert_eq!(scene.first_drill().await, ProofState::Failed);
        let report = scene.drills().pop().unwrap();
        let (found, detail) = outcome(&report, "structure of B-tree indexes");
        assert_eq!(found, CheckOutcome::Failed, "{report:#?}");
        assert!(
            detail.contains("orders_note") && detail.contains("lacks matching index tuple"),
            "{detail}"
        );
        let has_program = installation.program("pg_amcheck").is_file();
        let by = match has_program {
            true => "by pg_amcheck",
            false => "by the extension amcheck",
        };
        assert!(detail.contains(by), "{detail}");
        assert_eq!(outcome(&report, "page checksums").0, CheckOutcome::Passed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_time_does_not_reach_is_said_not_to_have_run() {
    let installation = postgres::oldest().unwrap();
    let source = server(&installation);
    let client = source.connect().await.unwrap();
    client.batch_execute(ORDERS).await.unwrap();
    let folder = TestDir::for_server("late").unwrap();
    let config = DrillConfig {
        every: Duration::from_secs(24 * 3600),
        dir: Some(folder.path().join("drills")),
        budget: Duration::from_millis(700),
        ..DrillConfig::default()
    };
    let slow = assertion("slow", "SELECT pg_sleep(60) IS NOT NULL");
    let vault = open_with(&source, folder.path(), (vec![slow], config));
    let scene = Scene::run(source, folder, vault);
    assert_eq!(scene.first_drill().await, ProofState::Verified);
    let report = scene.drills().pop().unwrap();
    let (run, detail) = outcome(&report, "assertion `slow`");
    assert_eq!(run, CheckOutcome::NotRun);
    assert!(detail.contains("did not end within"), "{detail}");
    for name in [
        "tables can be read",
        "catalogs agree",
        "structure of B-tree indexes",
        "structure of tables",
        "page checksums",
    ] {
        let (run, detail) = outcome(&report, name);
        assert_eq!(run, CheckOutcome::NotRun, "{name}: {detail}");
        assert!(detail.contains("time"), "{name}: {detail}");
    }
    // It was restored and took a write: that much is proven, and no more is said.
    assert_eq!(
        outcome(&report, "server takes a write").0,
        CheckOutcome::Passed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_a_drill_says_nothing_about_the_point() {
    let installation = postgres::oldest().unwrap();
    let source = server(&installation);
    let client = source.connect().await.unwrap();
    client.batch_execute(ORDERS).await.unwrap();
    let folder = TestDir::for_server("full").unwrap();
    let small = folder.path().join("drills");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs"])
        .arg(&small)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("not run: only root can mount a small disk");
        return;
    }
    // The assertion fills the disk by sorting more than fits; then nothing works any more.
    let fill = "SELECT count(*) > 0 FROM (SELECT repeat(n::text, 200) AS t
        FROM generate_series(1, 2000000) AS n ORDER BY 1 OFFSET 10) AS sorted";
    let vault = open(&source, folder.path(), vec![assertion("fill", fill)]);
    let scene = Scene::run(source, folder, vault);
    scene
        .wait("point", |vault| vault.status()[0].point.is_some())
        .await;
    let ended = scene.vault.drill(&name()).await;
    let proof = scene.vault.status()[0].proof.clone();
    let (kinds, kept) = (scene.kinds(), scene.drills());
    let (_source, folder) = scene.end().await;
    let unmounted = Command::new("umount").arg("-l").arg(&small).status();
    assert!(unmounted.unwrap().success());
    drop(folder);
    match ended {
        // What was missing is said, and nothing is held against the point.
        Ok(report) => {
            let (run, detail) = outcome(&report, "assertion `fill`");
            assert_eq!(run, CheckOutcome::NotRun, "{report:#?}");
            assert!(detail.contains("too little"), "{detail}");
            assert!(report.passed(), "{report:#?}");
        }
        Err(error) => assert_eq!(holdfast_core::Coded::code(&error).as_str(), "ZS331"),
    }
    assert_ne!(proof.state, ProofState::Failed);
    assert!(!kinds.contains(&"drill.failed".to_owned()), "{kept:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_point_is_drilled_to_a_position_of_its_own_and_says_nothing_of_the_newest() {
    let installation = postgres::oldest().unwrap();
    let scene = Scene::start(server(&installation), Vec::new());
    scene.sql(ORDERS).await;
    assert_eq!(scene.first_drill().await, ProofState::Verified);
    let old = scene.vault.status()[0].point.clone().unwrap();
    scene
        .sql("INSERT INTO orders SELECT n FROM generate_series(20000, 29999) AS n")
        .await;
    assert!(scene.vault.ask_for_point(&name()));
    scene
        .wait("point", |vault| {
            vault.status()[0].point.as_ref() != Some(&old)
        })
        .await;
    scene
        .wait("drill of the new point", |_| scene.kinds().len() >= 2)
        .await;
    let newest = scene.drills().pop().unwrap();
    let report = scene
        .vault
        .drill_point(&name(), Some(old.clone()))
        .await
        .unwrap();
    assert!(report.passed(), "{report:#?}");
    assert_eq!((&report.point, report.details.of), (&old, DrillOf::Older));
    // The way without a mount stays proven.
    assert_eq!(report.details.form, holdfast_core::DrillForm::Restored);
    assert!(report.details.target.parse::<holdfast_core::Lsn>().is_ok());
    assert!(report.reached < newest.reached, "{report:#?}");
    // Fewer rows than in the newest are no loss.
    assert!(
        report
            .checks
            .iter()
            .all(|check| check.outcome != CheckOutcome::Alarm)
    );
    let answer = scene.vault.way_back(&name(), report.drilled_at).unwrap();
    assert_eq!(answer.proof.report(), &newest);
    assert_eq!(answer.rto(), newest.rto);
    let kept = place(scene.folder.path(), &installation);
    let span = points(&kept, &Running::default(), report.drilled_at)
        .unwrap()
        .remove(0);
    assert_eq!(span.proof.at, Some(newest.drilled_at));
    let older = span.points.iter().find(|one| one.point == old).unwrap();
    assert_eq!(older.proof.at, Some(report.drilled_at));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_answered_from_memory_in_microseconds() {
    let installation = postgres::oldest().unwrap();
    let scene = Scene::start(server(&installation), Vec::new());
    assert_eq!(scene.first_drill().await, ProofState::Verified);
    let now = system_clock()();
    let rounds = 20_000_u32;
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    for _ in 0..rounds {
        let one = Instant::now();
        let answer = scene.vault.way_back(&name(), now).unwrap();
        assert!(answer.rto() > Duration::ZERO && answer.age(now) < LIMIT);
        slowest = slowest.max(one.elapsed());
    }
    let each = begun.elapsed() / rounds;
    println!("way back: {each:?} each, the slowest of {rounds} {slowest:?}");
    assert!(each < Duration::from_micros(100), "{each:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drill_left_running_is_ended_before_anything_else_by_the_next_vault() {
    let installation = postgres::oldest().unwrap();
    let source = server(&installation);
    let folder = TestDir::for_server("left").unwrap();
    // As on a system that cannot tie a server to us: its vault is gone, its lock is free.
    let left = folder
        .path()
        .join("drills/holdfast-drill-prod-0123456789ab");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join(".owner"), "").unwrap();
    let stray = Server::builder(&installation)
        .data_dir(&left.join("data"))
        .start()
        .unwrap();
    let pid = stray.pid().unwrap();
    std::mem::forget(stray);
    // One that was begun and has not yet said so in its data directory is found as well.
    std::fs::remove_file(left.join("data/postmaster.pid")).unwrap();
    assert!(signals::is_running(pid));
    let vault = open(&source, folder.path(), Vec::new());
    let ended = signals::wait_until(LIMIT, || !is_alive(pid));
    assert!(ended.is_ok(), "the server runs on");
    assert!(!left.exists());
    drop(vault);
}

/// Tells whether a process does anything; one that nobody has waited for does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}
