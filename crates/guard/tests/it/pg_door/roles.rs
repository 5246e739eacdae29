//! The role of a lease: what it may do, and that nothing of it stays behind.

use std::time::{Duration, Instant};

use holdfast_core::Principal;
use holdfast_guard::clock;
use holdfast_guard::door::pg::{PgDoorSource, end_lease, sweep_roles};
use holdfast_guard::lease::{LeaseMode, Leases, PgLease};
use holdfast_testing::postgres;
use holdfast_testing::postgres::Installation;

use super::bench::{Bench, GUARD, issue, issue_for};

/// The longest that a revocation may take, sessions and role together.
const REVOCATION_MAX: Duration = Duration::from_secs(1);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// A door whose guard is no superuser, as at a provider.
async fn kept(installation: &Installation) -> (Bench, PgDoorSource) {
    let bench = Bench::with(installation, LeaseMode::ReadOnly, true).await;
    let root = bench.server.connect_to("shop").await.unwrap();
    root.batch_execute(
        "CREATE ROLE keeper LOGIN CREATEROLE PASSWORD 'keeper';
         GRANT pg_read_all_data, pg_write_all_data, app TO keeper WITH ADMIN OPTION",
    )
    .await
    .unwrap();
    let url = format!(
        "postgresql://keeper:keeper@127.0.0.1:{}/shop",
        bench.server.port()
    );
    let source = PgDoorSource {
        url: url.parse().unwrap(),
        ..bench.source.clone()
    };
    (bench, source)
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(POLL).await;
    }
}

async fn is_there(bench: &Bench, role: &str) -> bool {
    let question = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'");
    bench.number(&question).await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_schema_lease_makes_is_the_owners_to_use_at_once_and_to_keep_at_the_end() {
    for installation in postgres::all().unwrap() {
        let (bench, source) = kept(&installation).await;
        let lease = issue(&bench.leases, &source, LeaseMode::Schema).await;
        let url = bench.url_of(&lease);
        let made = "CREATE TABLE notes (id serial PRIMARY KEY, text text); \
                    CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
                    INSERT INTO notes (text) VALUES ('mine')";
        let said = bench.psql_at(&url, &[made]).await;
        assert!(said.ok, "{said:?}");
        let app = format!(
            "postgresql://app:app@127.0.0.1:{}/shop",
            bench.server.port()
        );
        let used = "INSERT INTO notes (text) SELECT 'the app''s' FROM one()";
        let said = bench.psql_at(&app, &[used]).await;
        assert!(said.ok, "{said:?}");
        bench
            .leases
            .revoke(&lease.lease.id, Principal::human("ann"))
            .unwrap();
        let pg = lease.lease.pg.unwrap();
        end_lease(&source, &pg).await.unwrap();
        assert!(!is_there(&bench, &pg.role).await);
        let kept = "SELECT count(*) FROM notes, pg_class c JOIN pg_roles r ON r.oid = c.relowner \
                    WHERE c.relname = 'notes' AND r.rolname = 'app'";
        assert_eq!(bench.number(kept).await, 2);
        let left = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member \
                    WHERE r.rolname = 'keeper' AND m.roleid = (SELECT oid FROM pg_roles WHERE rolname = 'app') \
                    AND NOT m.admin_option";
        assert_eq!(
            bench.number(left).await,
            0,
            "guard kept a right it gave itself"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_is_also_guard_can_end_a_lease_with_his_rights() {
    let installation = postgres::all()
        .unwrap()
        .into_iter()
        .find(|one| one.major == 15);
    let (bench, mut source) = kept(&installation.unwrap()).await;
    let root = bench.server.connect_to("shop").await.unwrap();
    root.batch_execute("ALTER ROLE app CREATEROLE; REVOKE app FROM keeper")
        .await
        .unwrap();
    let url = format!(
        "postgresql://app:app@127.0.0.1:{}/shop",
        bench.server.port()
    );
    source.url = url.parse().unwrap();
    let lease = issue(&bench.leases, &source, LeaseMode::Schema).await;
    let said = bench
        .psql_at(&bench.url_of(&lease), &["CREATE TABLE notes (id int)"])
        .await;
    assert!(said.ok, "{said:?}");
    let pg = lease.lease.pg.unwrap();
    end_lease(&source, &pg).await.unwrap();
    assert!(!is_there(&bench, &pg.role).await);
    let kept = "SELECT count(*) FROM pg_tables WHERE tablename = 'notes' AND tableowner = 'app'";
    assert_eq!(bench.number(kept).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_sessions_and_role_within_a_second() {
    for installation in postgres::all().unwrap() {
        let (bench, source) = kept(&installation).await;
        let lease = issue(&bench.leases, &source, LeaseMode::Data).await;
        let url = bench.url_of(&lease);
        let (open, busy) = (bench.client_at(&url).await, bench.client_at(&url).await);
        let changed = "BEGIN; UPDATE settings SET value = 'x' WHERE key = 'key 1'";
        open.batch_execute(changed).await.unwrap();
        let sleeping = tokio::spawn(async move {
            let ended = busy.batch_execute("SELECT pg_sleep(60)").await;
            (busy, ended)
        });
        let pg = lease.lease.pg.clone().unwrap();
        let sessions = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND state <> 'idle'",
            pg.role
        );
        until("both work", async || bench.number(&sessions).await == 2).await;
        let begun = Instant::now();
        bench
            .leases
            .revoke(&lease.lease.id, Principal::human("ann"))
            .unwrap();
        end_lease(&source, &pg).await.unwrap();
        let (busy, ended) = sleeping.await.unwrap();
        until("the sessions end", async || {
            open.is_closed() && busy.is_closed()
        })
        .await;
        let took = begun.elapsed();
        assert!(ended.is_err() && took < REVOCATION_MAX, "{took:?}");
        assert!(!is_there(&bench, &pg.role).await);
        let changed = "SELECT count(*) FROM settings WHERE value = 'x'";
        assert_eq!(bench.number(changed).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_expires_ends_its_session_and_its_role_is_swept() {
    let (bench, source) = kept(&postgres::newest().unwrap()).await;
    let lasts = Duration::from_secs(2);
    let lease = issue_for(&bench.leases, &source, LeaseMode::Data, lasts).await;
    let role = lease.lease.pg.as_ref().unwrap().role.clone();
    let client = bench.client_at(&bench.url_of(&lease)).await;
    client
        .batch_execute("BEGIN; DELETE FROM settings WHERE key = 'key 1'")
        .await
        .unwrap();
    until("the session ends", async || client.is_closed()).await;
    assert!(clock::now() >= lease.lease.expires);
    let swept = sweep_roles(&source, &bench.leases, GUARD, clock::now())
        .await
        .unwrap();
    let gone: Vec<&str> = swept
        .iter()
        .filter(|one| one.removed.is_ok())
        .map(|one| one.role.as_str())
        .collect();
    assert_eq!(gone, [role.as_str()], "{swept:?}");
    assert!(!is_there(&bench, &role).await);
    assert_eq!(bench.number("SELECT count(*) FROM settings").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_lease_that_nobody_kept_is_swept_and_others_stay() {
    for installation in postgres::all().unwrap() {
        let (bench, source) = kept(&installation).await;
        // A crash after the role was made and before the lease was kept; once with a table of its own.
        let lost = lost(&source, GUARD).await;
        let root = bench.server.connect_to("shop").await.unwrap();
        let made = format!(
            "GRANT CREATE ON SCHEMA public TO {0}; SET ROLE {0}; CREATE TABLE half_done (n int)",
            lost.role
        );
        root.batch_execute(&made).await.unwrap();
        let others = self::lost(&source, "another guard").await;
        let stranger = "CREATE ROLE holdfast_of_somebody LOGIN; CREATE ROLE holdfast_report; COMMENT ON ROLE holdfast_report IS 'not a lease'";
        bench
            .server
            .connect_to("shop")
            .await
            .unwrap()
            .batch_execute(stranger)
            .await
            .unwrap();
        let open = issue(&bench.leases, &source, LeaseMode::Data)
            .await
            .lease
            .pg
            .unwrap();
        let swept = sweep_roles(&source, &bench.leases, GUARD, clock::now())
            .await
            .unwrap();
        let names: Vec<&str> = swept.iter().map(|one| one.role.as_str()).collect();
        assert_eq!(names, [lost.role.as_str()], "{swept:?}");
        assert!(swept.iter().all(|one| one.removed.is_ok()), "{swept:?}");
        for role in [
            others.role.as_str(),
            open.role.as_str(),
            "holdfast_of_somebody",
            "holdfast_report",
        ] {
            assert!(is_there(&bench, role).await, "{role}");
        }
        let kept =
            "SELECT count(*) FROM pg_tables WHERE tablename = 'half_done' AND tableowner = 'app'";
        assert_eq!(bench.number(kept).await, 1);
        let again = sweep_roles(&source, &bench.leases, GUARD, clock::now())
            .await
            .unwrap();
        assert!(again.is_empty(), "{again:?}");
    }
}

/// Makes the role of a lease that is then not kept.
async fn lost(source: &PgDoorSource, guard: &str) -> PgLease {
    let (id, token) = (Leases::draw_id().unwrap(), Leases::draw_token().unwrap());
    let asked = holdfast_guard::door::pg::PgLeaseRequest {
        id: &id,
        token: &token,
        database: None,
        mode: LeaseMode::Data,
        expires: clock::now().plus(Duration::from_secs(600)),
        guard,
    };
    holdfast_guard::door::pg::prepare_lease(source, asked)
        .await
        .unwrap()
}
