//! What makes leases weaker is found in a real server, each by itself, and a clean one has none.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test"
)]

use std::collections::BTreeSet;

use holdfast_core::Coded;
use holdfast_guard::door::pg::{PgDoorSource, look_for_weaknesses};
use holdfast_guard::lease::LeaseMode;
use holdfast_guard::lease::weak::{Severity, Weakness, Weaknesses};
use holdfast_guard::limits::WEAKNESS_OBJECTS_NAMED_MAX;
use holdfast_testing::postgres::{self, Installation, Server};

/// What is planted, in which finding it must show as what, and how it is taken away again.
struct Planted {
    sql: &'static str,
    id: &'static str,
    object: &'static str,
    undo: &'static str,
}

const fn planted(
    id: &'static str,
    object: &'static str,
    sql: &'static str,
    undo: &'static str,
) -> Planted {
    Planted {
        sql,
        id,
        object,
        undo,
    }
}

const PLANTED: &[Planted] = &[
    planted(
        "definer-functions-of-superusers",
        "\"Back Office\".\"wipe all\"(integer)",
        "CREATE SCHEMA \"Back Office\"; CREATE FUNCTION \"Back Office\".\"wipe all\"(int) RETURNS int \
         LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
        "DROP SCHEMA \"Back Office\" CASCADE",
    ),
    planted(
        "definer-functions-of-superusers",
        "public.noted()",
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END'; \
         REVOKE EXECUTE ON FUNCTION noted() FROM PUBLIC; \
         CREATE TRIGGER noted BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION noted()",
        "DROP FUNCTION noted() CASCADE",
    ),
    planted(
        "definer-functions",
        "public.as_clerk()",
        "CREATE FUNCTION as_clerk() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; \
         ALTER FUNCTION as_clerk() OWNER TO clerk",
        "DROP FUNCTION as_clerk()",
    ),
    planted(
        "untrusted-functions",
        "public.outside()",
        "CREATE LANGUAGE wild HANDLER plpgsql_call_handler; \
         CREATE FUNCTION outside() RETURNS int LANGUAGE wild AS 'BEGIN RETURN 1; END'",
        "DROP LANGUAGE wild CASCADE",
    ),
    planted(
        "untrusted-languages",
        "\"Wild One\"",
        "CREATE LANGUAGE \"Wild One\" HANDLER plpgsql_call_handler",
        "DROP LANGUAGE \"Wild One\"",
    ),
    planted(
        "native-functions",
        "public.peek(text)",
        "CREATE FUNCTION peek(text) RETURNS text LANGUAGE internal STRICT AS 'pg_read_file_all'",
        "DROP FUNCTION peek(text)",
    ),
    planted(
        "server-functions",
        "pg_read_file(text)",
        "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM PUBLIC",
    ),
    planted(
        "outward-functions",
        "public.call_home(text)",
        "CREATE FUNCTION call_home(text) RETURNS void LANGUAGE plpgsql AS \
         'BEGIN PERFORM dblink_exec(''x'', $1); END'",
        "DROP FUNCTION call_home(text)",
    ),
    planted(
        "outward-triggers",
        "\"Tell\"\"all\" on public.notes",
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM net.http_post(''http://example.com''); RETURN NEW; END'; \
         CREATE TRIGGER \"Tell\"\"all\" AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION tell()",
        "DROP FUNCTION tell() CASCADE",
    ),
    planted(
        "notifying-triggers",
        "wake on public.notes",
        "CREATE FUNCTION wake() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_notify(''jobs'', ''''); RETURN NEW; END'; \
         CREATE TRIGGER wake AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION wake()",
        "DROP FUNCTION wake() CASCADE",
    ),
    planted(
        "event-triggers",
        "watches",
        "CREATE FUNCTION watches() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; \
         CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION watches()",
        "DROP EVENT TRIGGER watches; DROP FUNCTION watches()",
    ),
    planted(
        "rules",
        "never on public.notes",
        "CREATE RULE never AS ON DELETE TO notes DO INSTEAD NOTHING",
        "DROP RULE never ON notes",
    ),
    planted(
        "foreign-servers",
        "\"far away\" (far)",
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER \"far away\" FOREIGN DATA WRAPPER far; \
         CREATE FOREIGN TABLE far_table (n int) SERVER \"far away\"",
        "DROP FOREIGN DATA WRAPPER far CASCADE",
    ),
    planted(
        "user-mappings",
        "PUBLIC at away",
        "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER away FOREIGN DATA WRAPPER far; \
         CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (password 's3cret')",
        "DROP FOREIGN DATA WRAPPER far CASCADE",
    ),
    planted(
        "connecting-extensions",
        "dblink",
        "CREATE EXTENSION dblink",
        "DROP EXTENSION dblink",
    ),
    planted(
        "wrapper-extensions",
        "postgres_fdw",
        "CREATE EXTENSION postgres_fdw",
        "DROP EXTENSION postgres_fdw",
    ),
    planted(
        "file-extensions",
        "file_fdw",
        "CREATE EXTENSION file_fdw",
        "DROP EXTENSION file_fdw",
    ),
    // Not installed where tests run: its row is what is looked for.
    planted(
        "scheduling-extensions",
        "pg_cron",
        "INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) \
         VALUES (4000000000, 'pg_cron', 10, 11, false, '1.6')",
        "DELETE FROM pg_extension WHERE extname = 'pg_cron'",
    ),
    planted(
        "written-by-readers",
        "public.notes",
        "GRANT UPDATE (text) ON notes TO PUBLIC",
        "REVOKE UPDATE (text) ON notes FROM PUBLIC",
    ),
    planted(
        "structure-by-writers",
        "public.notes",
        "GRANT TRIGGER ON notes TO PUBLIC",
        "REVOKE TRIGGER ON notes FROM PUBLIC",
    ),
    planted(
        "public-create",
        "SCHEMA public",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    ),
    planted(
        "public-create",
        "DATABASE shop",
        "GRANT CREATE ON DATABASE shop TO PUBLIC",
        "REVOKE CREATE ON DATABASE shop FROM PUBLIC",
    ),
    planted(
        "default-privileges",
        "tables of app in public: DELETE",
        "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public GRANT DELETE ON TABLES TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public REVOKE DELETE ON TABLES FROM PUBLIC",
    ),
    planted(
        "granted-roles",
        "clerk",
        "GRANT clerk TO pg_read_all_data",
        "REVOKE clerk FROM pg_read_all_data",
    ),
    planted(
        "owner-powers",
        "app BYPASSRLS",
        "ALTER ROLE app BYPASSRLS",
        "ALTER ROLE app NOBYPASSRLS",
    ),
    planted(
        "owner-powers",
        "pg_execute_server_program",
        "GRANT pg_execute_server_program TO app",
        "REVOKE pg_execute_server_program FROM app",
    ),
    planted(
        "unlogged-tables",
        "public.carts",
        "CREATE UNLOGGED TABLE carts (id serial PRIMARY KEY)",
        "DROP TABLE carts",
    ),
];

/// What an ordinary application has: nothing of it makes a lease weaker.
const ORDINARY: &str = "
    CREATE ROLE clerk;
    CREATE TABLE notes (id serial PRIMARY KEY, text text);
    CREATE VIEW short_notes AS SELECT left(text, 10) FROM notes;
    CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.text := trim(NEW.text); RETURN NEW; END';
    CREATE TRIGGER tidy BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION tidy();
    CREATE FUNCTION kept() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    REVOKE EXECUTE ON FUNCTION kept() FROM PUBLIC;
    CREATE FUNCTION apps() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
    ALTER FUNCTION apps() OWNER TO app;
    REVOKE EXECUTE ON FUNCTION apps() FROM PUBLIC;
    GRANT SELECT ON notes TO PUBLIC;
    ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT EXECUTE ON FUNCTIONS TO clerk;
    CREATE EXTENSION pgcrypto;
    ALTER TABLE notes OWNER TO app";

async fn shop(installation: &Installation) -> (Server, PgDoorSource) {
    let server = Server::builder(installation)
        .fast()
        .setting("allow_system_table_mods", "on")
        .start()
        .unwrap();
    let root = server.connect().await.unwrap();
    root.batch_execute("CREATE ROLE app LOGIN PASSWORD 'app'")
        .await
        .unwrap();
    root.batch_execute("CREATE DATABASE shop OWNER app")
        .await
        .unwrap();
    let root = server.connect_to("shop").await.unwrap();
    root.batch_execute(ORDINARY).await.unwrap();
    let source = PgDoorSource {
        name: "prod".parse().unwrap(),
        environment: "production".to_owned(),
        copy_of: None,
        url: server.url_for("shop").parse().unwrap(),
    };
    (server, source)
}

async fn look(source: &PgDoorSource) -> Weaknesses {
    look_for_weaknesses(source, None).await.unwrap()
}

fn find<'a>(all: &'a Weaknesses, id: &str) -> Option<&'a Weakness> {
    all.found.iter().find(|one| one.id == id)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_makes_leases_weaker_is_found_and_a_clean_database_has_none() {
    for installation in postgres::all().unwrap() {
        let (server, source) = shop(&installation).await;
        let root = server.connect_to("shop").await.unwrap();
        let clean = look(&source).await;
        assert!(
            clean.found.is_empty() && clean.unseen.is_empty(),
            "{clean:?}"
        );
        assert_eq!(clean.database, "shop");
        for one in PLANTED {
            let planted = root.batch_execute(one.sql).await;
            planted.unwrap_or_else(|error| panic!("{}: {error:?}", one.id));
            let all = look(&source).await;
            let found = find(&all, one.id).unwrap_or_else(|| panic!("{}: {all:?}", one.id));
            let named = found.objects.iter().any(|name| name == one.object);
            assert!(named, "{}: {found:?}", one.object);
            assert!(!format!("{all:?}").contains("s3cret"));
            root.batch_execute(one.undo).await.unwrap();
            let after = look(&source).await;
            assert!(after.found.is_empty(), "after {}: {after:?}", one.id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_entries_of_the_server_that_make_leases_weaker_are_found() {
    let server = Server::builder(&postgres::newest().unwrap())
        .fast()
        .setting("max_prepared_transactions", "3")
        .setting(
            "shared_preload_libraries",
            "pg_stat_statements, $libdir/pg_prewarm,dblink",
        )
        .hba_line("host all postgres 127.0.0.9/32 trust")
        .hba_line("local replication all trust")
        .start()
        .unwrap();
    let source = PgDoorSource {
        name: "prod".parse().unwrap(),
        environment: "production".to_owned(),
        copy_of: None,
        url: server.url().parse().unwrap(),
    };
    let all = look(&source).await;
    let ids: BTreeSet<&str> = all.found.iter().map(|one| one.id.as_str()).collect();
    let wanted = [
        "prepared-transactions",
        "trust-entries",
        "trusted-superusers",
        "workers",
    ];
    assert_eq!(ids, BTreeSet::from(wanted), "{all:?}");
    let objects = |id| find(&all, id).unwrap().objects.clone();
    assert_eq!(objects("workers"), ["dblink"]);
    assert_eq!(objects("trusted-superusers"), ["postgres"]);
    assert_eq!(
        objects("prepared-transactions"),
        ["max_prepared_transactions = 3"]
    );
    let entries = objects("trust-entries");
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert!(
        entries[0].ends_with("host all postgres 127.0.0.9 255.255.255.255 trust"),
        "{entries:?}"
    );

    // A guard that is no superuser says what it may not look at, and finds the rest.
    let root = server.connect().await.unwrap();
    root.batch_execute("CREATE ROLE keeper LOGIN PASSWORD 'keeper'")
        .await
        .unwrap();
    let port = server.port();
    let source = PgDoorSource {
        url: format!("postgresql://keeper:keeper@127.0.0.1:{port}/postgres")
            .parse()
            .unwrap(),
        ..source
    };
    let all = look(&source).await;
    assert_eq!(
        all.unseen,
        ["workers", "trusted-superusers", "trust-entries"]
    );
    assert_eq!(all.found.len(), 1, "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_is_bounded_quoted_and_asked_of_the_catalogs_alone() {
    let (server, source) = shop(&postgres::newest().unwrap()).await;
    let root = server.connect_to("shop").await.unwrap();
    root.batch_execute(
        "DO $$ BEGIN FOR n IN 1..150 LOOP EXECUTE format(
           'CREATE FUNCTION %I() RETURNS int LANGUAGE sql SECURITY DEFINER AS ''SELECT 1''',
           CASE n WHEN 1 THEN E' \\nhigh `x`\\x1b[31m'';--' ELSE 'f' || n END); END LOOP; END $$;
         CREATE FUNCTION public.quote_ident(name) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
         CREATE FUNCTION public.as_text(oid, oid) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
         ALTER DATABASE shop SET search_path TO public, pg_catalog;
         GRANT UPDATE ON notes TO PUBLIC",
    )
    .await
    .unwrap();
    let all = look(&source).await;
    let definers = find(&all, "definer-functions-of-superusers").unwrap();
    assert_eq!(definers.count, 150);
    assert_eq!(definers.objects.len(), WEAKNESS_OBJECTS_NAMED_MAX);
    let hostile = &definers.objects[0];
    let clean = |c: char| !c.is_control() && c != '`';
    assert!(hostile.chars().all(clean), "{hostile}");
    assert!(hostile.starts_with("public.\" \\u{a}high "), "{hostile}");
    assert_eq!(all.found[0].severity, Severity::High);
    // A lease that only reads is weaker by what PUBLIC may write; what concerns others is not counted.
    root.batch_execute("CREATE UNLOGGED TABLE carts (n int)")
        .await
        .unwrap();
    let all = look(&source).await;
    assert_eq!(all.count(LeaseMode::ReadOnly), 2, "{all:?}");
    assert_eq!(all.count(LeaseMode::Data), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_or_does_not_answer_is_said_to_be_so() {
    let (server, source) = shop(&postgres::newest().unwrap()).await;
    let away = PgDoorSource {
        url: "postgresql://postgres:x@127.0.0.1:1/shop".parse().unwrap(),
        ..source.clone()
    };
    let error = look_for_weaknesses(&away, None).await.unwrap_err();
    assert_eq!(error.code().as_str(), "ZS401");
    let absent = look_for_weaknesses(&source, Some("nowhere")).await;
    assert_eq!(absent.unwrap_err().code().as_str(), "ZS401");
    // A catalog that is locked is waited for as long as the limit says, and no longer.
    let mut root = server.connect_to("shop").await.unwrap();
    let holding = root.transaction().await.unwrap();
    holding
        .batch_execute("LOCK TABLE pg_event_trigger")
        .await
        .unwrap();
    let error = look_for_weaknesses(&source, None).await.unwrap_err();
    assert_eq!(error.code().as_str(), "ZS520", "{error:?}");
}
