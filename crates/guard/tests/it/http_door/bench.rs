//! A door with everything behind it, in a folder of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use holdfast_core::{
    Approval, ApprovalStatement, ByteCount, Check, CheckOutcome, DrillReport, HoldId, Lsn,
    NoWayBack, PointId, Principal, Proof, Resource, Secret, SourceName, Timestamp, WayBack,
    WayBackAnswer,
};
use holdfast_guard::clock;
use holdfast_guard::custody::{Custody, TakeRequest};
use holdfast_guard::decide::{Gatekeeper, Parts};
use holdfast_guard::door::http::{HttpDoor, HttpDoorConfig, UpstreamOverride};
use holdfast_guard::hold::Approver;
use holdfast_guard::lease::{Issued, LeaseMode, LeaseRequest, Leases, RowBudget};
use holdfast_guard::limits::PROOF_AGE_MAX;
use holdfast_judge::packs::Packs;
use holdfast_judge::policy::Policy;
use holdfast_store::ledger::Ledger;
use holdfast_store::record::Records;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::upstream::{Provider, VOLUME};

pub const HOST: &str = "backboard.railway.app";
pub const URL: &str = "https://backboard.railway.app/graphql/v2";
/// The provider's credential, as it lay in the repository.
pub const REAL: &str = "5f1c9c30-0d0e-4b5a-8a60-27d1f1a0c0de";

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub provider: Provider,
    pub gatekeeper: Gatekeeper,
    pub ledger: Ledger,
    pub records: Records,
    pub leases: Leases,
    pub custody: Custody,
    pub door: SocketAddr,
    pub ca_file: PathBuf,
    pub lease: Issued,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What curl said.
#[derive(Debug)]
pub struct Said {
    pub status: String,
    pub body: String,
    pub stderr: String,
}

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

/// What differs from one bench to the next.
pub struct Setup {
    pub certificate_for: &'static str,
    pub trusted: bool,
    pub proven: bool,
    pub hold_wait: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            certificate_for: HOST,
            trusted: true,
            proven: true,
            hold_wait: Duration::ZERO,
        }
    }
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let provider = Provider::start(folder.path(), setup.certificate_for).await;
        let key = SigningKey::from_bytes(&[7; 32]);
        let ledger = Ledger::open(&folder.path().join("ledger"), key, clock::now()).unwrap();
        let records = Records::open(&folder.path().join("state.db")).unwrap();
        let leases = Leases::open(records.clone(), ledger.clone()).unwrap();
        let custody = Custody::new(records.clone(), ledger.clone());
        let way_back: Arc<dyn WayBack> = if setup.proven {
            Arc::new(Proven)
        } else {
            Arc::new(holdfast_guard::decide::NoVault)
        };
        let gatekeeper = Gatekeeper::new(Parts {
            ledger: ledger.clone(),
            records: records.clone(),
            policy: Policy::shipped(),
            way_back,
            proof_age_max: PROOF_AGE_MAX,
        })
        .unwrap();
        let config = HttpDoorConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            ca_folder: folder.path().to_owned(),
            packs: Packs::shipped(),
            upstreams: vec![UpstreamOverride {
                host: HOST.to_owned(),
                connect: provider.address,
                ca_file: setup.trusted.then(|| provider.ca_file.clone()),
            }],
            resources: vec![Resource::new("railway:volume", VOLUME).of("prod".parse().unwrap())],
            environments: BTreeMap::new(),
            hold_wait: setup.hold_wait,
        };
        let (g, l, c) = (gatekeeper.clone(), leases.clone(), custody.clone());
        let door = HttpDoor::bind(config, g, l, c).await.unwrap();
        let (address, ca_file) = (door.local_addr(), door.ca_file().to_owned());
        let stop = CancellationToken::new();
        tokio::spawn(door.run(stop.clone()));
        let lease = issue(&leases, Duration::from_secs(600));
        Self {
            folder,
            provider,
            gatekeeper,
            ledger,
            records,
            leases,
            custody,
            door: address,
            ca_file,
            lease,
            stop,
        }
    }

    pub fn token(&self) -> &str {
        self.lease.token.expose()
    }

    /// Puts the provider's credential in custody; the lease token stands for it.
    pub fn take(&self) {
        let file = self.folder.path().join("ops.env");
        std::fs::write(&file, format!("RAILWAY_API_TOKEN={REAL}\n")).unwrap();
        let request = TakeRequest {
            file: &file,
            credential: &Secret::new(REAL),
            provider: "railway",
            hosts: &[HOST.to_owned()],
            issued: &self.lease,
            replacement: &self.lease.token,
        };
        self.custody
            .take(&request, Principal::human("ann"))
            .unwrap();
    }

    /// Runs curl through the door, with the lease in the proxy's address.
    pub async fn curl(&self, args: &[&str]) -> Said {
        let proxy = format!("http://lease:{}@{}", self.token(), self.door);
        self.curl_by(&proxy, args).await
    }

    pub async fn curl_by(&self, proxy: &str, args: &[&str]) -> Said {
        let ran = Command::new("curl")
            .env_clear()
            .args([
                "-sS",
                "--max-time",
                "30",
                "-w",
                "\n%{http_code}",
                "--proxy",
                proxy,
                "--cacert",
            ])
            .arg(&self.ca_file)
            .args(args)
            .output()
            .await
            .expect("curl is installed");
        let out = String::from_utf8_lossy(&ran.stdout).into_owned();
        let (body, status) = out.rsplit_once('\n').unwrap_or_default();
        Said {
            status: status.to_owned(),
            body: body.to_owned(),
            stderr: String::from_utf8_lossy(&ran.stderr).into_owned(),
        }
    }

    /// Sends a document by POST with a bearer credential.
    pub async fn post(&self, bearer: &str, document: &str) -> Said {
        let body = serde_json::json!({ "query": document }).to_string();
        let auth = format!("Authorization: Bearer {bearer}");
        let kind = "Content-Type: application/json";
        self.curl(&["-X", "POST", URL, "-H", &auth, "-H", kind, "-d", &body])
            .await
    }

    /// Sends bytes to the door as they are and returns everything it answers until it closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.door).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .unwrap()
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The kinds of the ledger's entries, without the first.
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

    /// All bytes that guard has written to disk, but for the state file in which custody lies.
    pub fn written(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.folder.path().join("ledger")).unwrap() {
            text += &String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap());
        }
        text
    }

    /// Approves a hold as a human would.
    pub fn approve(&self, id: &str) {
        let key = SigningKey::from_bytes(&[3; 32]);
        let approver = Approver {
            name: "ann".to_owned(),
            salt: "0".repeat(32),
            key: HEXLOWER.encode(key.verifying_key().as_bytes()),
        };
        // The approver may be there from an earlier approval.
        drop(self.records.insert("ann", &approver));
        let id: HoldId = id.parse().unwrap();
        let hold = self.gatekeeper.holds().find(&id).unwrap();
        let now = clock::now();
        let statement = ApprovalStatement {
            hold: id,
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
    }
}

pub fn issue(leases: &Leases, lasts: Duration) -> Issued {
    let request = LeaseRequest {
        source: "prod".parse().unwrap(),
        agent: "cursor".to_owned(),
        purpose: "staging task".to_owned(),
        mode: LeaseMode::Data,
        budget: RowBudget::default(),
        lasts,
    };
    let drawn = (Leases::draw_id().unwrap(), Leases::draw_token().unwrap());
    leases
        .issue(request, drawn, None, Principal::human("ann"))
        .unwrap()
}

/// The hold's id in an answer in the provider's dialect.
pub fn hold_of(said: &Said) -> String {
    let body: serde_json::Value = serde_json::from_str(&said.body).unwrap();
    let hold = &body["errors"][0]["extensions"]["hold"];
    hold.as_str()
        .unwrap_or_else(|| panic!("no hold: {said:?}"))
        .to_owned()
}

pub fn delete(id: &str) -> String {
    format!("mutation {{ volumeDelete(volumeId: \"{id}\") }}")
}
