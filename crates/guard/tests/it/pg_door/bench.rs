//! A door with a real server behind it, in a folder of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use holdfast_core::{
    Approval, ApprovalStatement, ByteCount, Check, CheckOutcome, DrillReport, Lsn, NoWayBack,
    PointId, Principal, Proof, Secret, SourceName, Timestamp, WayBack, WayBackAnswer,
};
use holdfast_guard::clock;
use holdfast_guard::decide::{Gatekeeper, NoVault, Parts};
use holdfast_guard::door::pg::{
    PgDoor, PgDoorConfig, PgDoorSource, PgDoorTls, PgLeaseRequest, lease_url, prepare_lease,
};
use holdfast_guard::hold::{Approver, Hold};
use holdfast_guard::lease::{Issued, LeaseMode, LeaseRequest, Leases, RowBudget};
use holdfast_guard::limits::PROOF_AGE_MAX;
use holdfast_judge::policy::Policy;
use holdfast_store::ledger::Ledger;
use holdfast_store::record::Records;
use holdfast_testing::postgres::{Installation, Server};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub server: Server,
    pub gatekeeper: Gatekeeper,
    pub ledger: Ledger,
    pub records: Records,
    pub leases: Leases,
    pub source: PgDoorSource,
    pub door: SocketAddr,
    pub lease: Issued,
    pub url: Secret,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a door is tried with.
pub struct Wanted {
    pub mode: LeaseMode,
    pub is_proven: bool,
    pub policy: Policy,
    pub budget: RowBudget,
    pub database: &'static str,
}

/// What a client said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// The public key of the guard that issues leases here.
pub const GUARD: &str = "guard-of-this-test";

struct Proven;

impl WayBack for Proven {
    fn way_back(&self, source: &SourceName, now: Timestamp) -> Result<WayBackAnswer, NoWayBack> {
        let check = Check {
            name: "server starts".to_owned(),
            outcome: CheckOutcome::Passed,
            detail: String::new(),
        };
        let report = DrillReport {
            source: source.clone(),
            system_identifier: 7,
            point: PointId::from_random([1; 10]),
            timeline: 1,
            reached: Lsn(1),
            covers_until: now,
            drilled_at: now,
            rto: Duration::from_secs(1),
            restored: ByteCount(1),
            checks: vec![check],
            details: Default::default(),
        };
        let proof = Proof::attest(report, &SigningKey::from_bytes(&[9; 32])).unwrap();
        Ok(WayBackAnswer {
            proof,
            safe_until: now,
            lag: ByteCount(0),
        })
    }
}

const SHOP: &str = "
CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE, total int);
CREATE TABLE audit (at timestamptz DEFAULT now(), what text);
CREATE TABLE settings (key text PRIMARY KEY, value text);
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 200) n;
INSERT INTO orders SELECT n, 1 + n % 200, n FROM generate_series(1, 1000) n;
INSERT INTO settings SELECT 'key ' || n, 'value' FROM generate_series(1, 10) n;
CREATE SEQUENCE tickets;
CREATE VIEW big_orders AS SELECT * FROM orders WHERE total > 500;
CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM orders; RETURN 1; END $$;
CREATE FUNCTION touch(n int) RETURNS int LANGUAGE sql AS $$ UPDATE orders SET total = total + 1 WHERE id = n RETURNING total $$;
CREATE FUNCTION cut() RETURNS int LANGUAGE plpgsql AS $$ BEGIN TRUNCATE orders; RETURN 1; END $$;
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM orders; RETURN NEW; END $$;
CREATE FUNCTION speak(e text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('client_encoding', e, false); END $$;
CREATE TABLE trapped (n int);
CREATE TRIGGER trap AFTER INSERT ON trapped FOR EACH ROW EXECUTE FUNCTION log_it();
ANALYZE;
";

impl Bench {
    pub async fn new(installation: &Installation) -> Self {
        Self::with(installation, LeaseMode::Schema, true).await
    }

    pub async fn with(installation: &Installation, mode: LeaseMode, proven: bool) -> Self {
        let wanted = Wanted {
            mode,
            is_proven: proven,
            policy: Policy::shipped(),
            budget: RowBudget::default(),
            database: "shop",
        };
        Self::wanted(installation, wanted).await
    }

    pub async fn wanted(installation: &Installation, wanted: Wanted) -> Self {
        let server = Server::builder(installation)
            .fast()
            .setting("max_prepared_transactions", "5")
            .start()
            .unwrap();
        let root = server.connect().await.unwrap();
        root.batch_execute("CREATE ROLE app LOGIN PASSWORD 'app'")
            .await
            .unwrap();
        root.batch_execute("CREATE DATABASE shop OWNER app")
            .await
            .unwrap();
        let shop = server.connect_to("shop").await.unwrap();
        shop.batch_execute(&format!(
            "ALTER SCHEMA public OWNER TO app; SET ROLE app; {SHOP}"
        ))
        .await
        .unwrap();
        Self::before(server, wanted).await
    }

    /// Opens a door before a server that is there already.
    pub async fn around(server: Server, database: &'static str) -> Self {
        let wanted = Wanted {
            mode: LeaseMode::Data,
            is_proven: true,
            policy: Policy::shipped(),
            budget: RowBudget::default(),
            database,
        };
        Self::before(server, wanted).await
    }

    async fn before(server: Server, wanted: Wanted) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[7; 32]);
        let ledger = Ledger::open(&folder.path().join("ledger"), key, clock::now()).unwrap();
        let records = Records::open(&folder.path().join("state.db")).unwrap();
        let leases = Leases::open(records.clone(), ledger.clone()).unwrap();
        let way_back: Arc<dyn WayBack> = if wanted.is_proven {
            Arc::new(Proven)
        } else {
            Arc::new(NoVault)
        };
        let gatekeeper = Gatekeeper::new(Parts {
            ledger: ledger.clone(),
            records: records.clone(),
            policy: wanted.policy,
            way_back,
            proof_age_max: PROOF_AGE_MAX,
        })
        .unwrap();
        let source = PgDoorSource {
            name: "prod".parse().unwrap(),
            environment: "production".to_owned(),
            copy_of: None,
            url: server.url_for(wanted.database).parse().unwrap(),
        };
        let config = PgDoorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            sources: vec![source.clone()],
            tls: local(&folder),
        };
        let door = PgDoor::bind(config, gatekeeper.clone(), leases.clone())
            .await
            .unwrap();
        let address = door.local_addr();
        let stop = CancellationToken::new();
        tokio::spawn(door.run(stop.clone()));
        let terms = (wanted.mode, wanted.budget, Duration::from_secs(600));
        let lease = issue_on(&leases, &source, wanted.database, terms).await;
        let url = lease_url(address, &lease.lease, &lease.token).unwrap();
        Self {
            folder,
            server,
            gatekeeper,
            ledger,
            records,
            leases,
            source,
            door: address,
            lease,
            url,
            stop,
        }
    }

    /// Opens another door to the same source by another connection string, and returns its URL.
    pub async fn another_door(&self, url: &str) -> Secret {
        let config = PgDoorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            sources: vec![PgDoorSource {
                url: url.parse().unwrap(),
                ..self.source.clone()
            }],
            tls: local(&self.folder),
        };
        let door = PgDoor::bind(config, self.gatekeeper.clone(), self.leases.clone());
        let door = door.await.unwrap();
        let url = lease_url(door.local_addr(), &self.lease.lease, &self.lease.token).unwrap();
        tokio::spawn(door.run(self.stop.clone()));
        url
    }

    /// Runs psql through the door; each command is a `-c` of its own.
    pub async fn psql(&self, commands: &[&str]) -> Said {
        self.psql_at(self.url.expose(), commands).await
    }

    pub async fn psql_at(&self, url: &str, commands: &[&str]) -> Said {
        let mut psql = Command::new("psql");
        psql.env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("PGCONNECT_TIMEOUT", "20")
            .args(["-X", "-q", "-A", "-t", "-v", "VERBOSITY=verbose", "-d", url]);
        for command in commands {
            psql.args(["-c", command]);
        }
        let ran = tokio::time::timeout(Duration::from_secs(60), psql.kill_on_drop(true).output());
        let ran = ran.await.expect("psql ends").expect("psql is installed");
        Said {
            ok: ran.status.success(),
            out: String::from_utf8_lossy(&ran.stdout).trim().to_owned(),
            err: String::from_utf8_lossy(&ran.stderr).trim().to_owned(),
        }
    }

    /// The URL of another lease through the door.
    pub fn url_of(&self, lease: &Issued) -> String {
        let url = lease_url(self.door, &lease.lease, &lease.token).unwrap();
        url.expose().to_owned()
    }

    /// Connects another client through the door.
    pub async fn client(&self) -> tokio_postgres::Client {
        self.client_at(self.url.expose()).await
    }

    pub async fn client_at(&self, url: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }

    /// One number from the server itself.
    pub async fn number(&self, question: &str) -> i64 {
        let client = self.server.connect_to("shop").await.unwrap();
        let row = client.query_one(question, &[]).await.unwrap();
        row.get(0)
    }

    pub async fn orders(&self) -> i64 {
        self.number("SELECT count(*) FROM orders").await
    }

    /// The ledger's entries about actions, for the message of a failing test.
    pub fn ledger_text(&self) -> String {
        let mut text = String::new();
        let key = self.ledger.public_key();
        holdfast_store::ledger::verify(self.ledger.folder(), &key, |entry| {
            if entry.draft.kind.starts_with("action.") {
                text += &format!("{} {:?}\n", entry.draft.kind, entry.draft.body);
            }
        })
        .unwrap();
        text
    }

    /// The kinds of the ledger's entries about actions.
    pub fn ledger_kinds(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        let key = self.ledger.public_key();
        holdfast_store::ledger::verify(self.ledger.folder(), &key, |entry| {
            kinds.push(entry.draft.kind.clone());
        })
        .unwrap();
        kinds.retain(|kind| kind.starts_with("action."));
        kinds
    }

    pub fn holds(&self) -> Vec<Hold> {
        self.gatekeeper.holds().list().unwrap()
    }

    /// Approves the newest waiting hold as a human would.
    pub fn approve_newest(&self) -> Hold {
        let now = clock::now();
        let mut holds = self.holds().into_iter();
        let hold = holds
            .find(|hold| hold.word(now) == "waiting")
            .expect("a hold waits");
        let key = SigningKey::from_bytes(&[3; 32]);
        let approver = Approver {
            name: "ann".to_owned(),
            salt: "0".repeat(32),
            key: HEXLOWER.encode(key.verifying_key().as_bytes()),
        };
        // The approver may be there from an earlier approval.
        drop(self.records.insert("ann", &approver));
        let statement = ApprovalStatement {
            hold: hold.id.clone(),
            action: hold.action.digest,
            evidence: hold.evidence.digest(),
            rehearsal: None,
            approver: "ann".to_owned(),
            at: now,
            expires: now.plus(Duration::from_secs(60)),
        };
        let approval = Approval::sign(statement, &key);
        self.gatekeeper
            .holds()
            .approve(approval, clock::now())
            .unwrap();
        hold
    }
}

fn local(folder: &tempfile::TempDir) -> PgDoorTls {
    PgDoorTls::Local {
        ca_folder: folder.path().to_owned(),
    }
}

pub async fn issue(leases: &Leases, source: &PgDoorSource, mode: LeaseMode) -> Issued {
    issue_for(leases, source, mode, Duration::from_secs(600)).await
}

pub async fn issue_for(
    leases: &Leases,
    source: &PgDoorSource,
    mode: LeaseMode,
    lasts: Duration,
) -> Issued {
    issue_on(leases, source, "shop", (mode, RowBudget::default(), lasts)).await
}

pub async fn issue_in(
    leases: &Leases,
    source: &PgDoorSource,
    (mode, lasts): (LeaseMode, Duration),
    database: Option<&str>,
) -> Issued {
    let terms = (mode, RowBudget::default(), lasts);
    issue_on(leases, source, database.unwrap_or("shop"), terms).await
}

async fn issue_on(
    leases: &Leases,
    source: &PgDoorSource,
    database: &str,
    (mode, budget, lasts): (LeaseMode, RowBudget, Duration),
) -> Issued {
    let (id, token) = (Leases::draw_id().unwrap(), Leases::draw_token().unwrap());
    let asked = PgLeaseRequest {
        id: &id,
        token: &token,
        database: Some(database),
        mode,
        expires: clock::now().plus(lasts),
        guard: GUARD,
    };
    let pg = prepare_lease(source, asked).await.unwrap();
    let request = LeaseRequest {
        source: source.name.clone(),
        agent: "cursor".to_owned(),
        purpose: "staging task".to_owned(),
        mode,
        budget,
        lasts,
    };
    leases
        .issue(request, (id, token), Some(pg), Principal::human("ann"))
        .unwrap()
}
