//! A gatekeeper with everything behind it, in a folder of its own.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use holdfast_core::{
    Action, ActionId, Approval, ApprovalStatement, ByteCount, Check, CheckOutcome, Code, Digest,
    DoorKind, DrillReport, Effect, Effects, Evidence, HoldId, Impact, LeaseId, Lsn, NoWayBack,
    Permit, PointId, Principal, Proof, Resource, RowCount, SourceName, Timestamp, WayBack,
    WayBackAnswer,
};
use holdfast_guard::clock;
use holdfast_guard::decide::{Asked, Decision, Gatekeeper, Parts, Refusal, rows_of_entry};
use holdfast_guard::hold::{Approver, Hold, HoldError};
use holdfast_guard::lease::{Issued, LeaseMode, LeaseRequest, Leases, RowBudget};
use holdfast_guard::limits::PROOF_AGE_MAX;
use holdfast_judge::policy::{Facts, Policy};
use holdfast_store::ledger::Ledger;
use holdfast_store::record::Records;

/// What the vault answers; a test changes it at will.
#[derive(Clone, Debug)]
pub enum Knows {
    /// A proof of this source, made so long ago.
    Proof(&'static str, Duration),
    /// A proof that says it was made in the future.
    ProofOfTomorrow,
    /// Nothing, for this reason.
    Nothing(NoWayBack),
}

pub struct Vault(pub Mutex<Knows>);

impl WayBack for Vault {
    fn way_back(&self, _source: &SourceName, now: Timestamp) -> Result<WayBackAnswer, NoWayBack> {
        let (source, drilled_at) = match self.0.lock().unwrap().clone() {
            Knows::Proof(source, age) => (source, now.minus(age)),
            Knows::ProofOfTomorrow => ("prod", now.plus(Duration::from_secs(86_400))),
            Knows::Nothing(why) => return Err(why),
        };
        let check = Check {
            name: "server starts".to_owned(),
            outcome: CheckOutcome::Passed,
            detail: String::new(),
        };
        let report = DrillReport {
            source: source.parse().unwrap(),
            system_identifier: 7,
            point: PointId::from_random([1; 10]),
            timeline: 1,
            reached: Lsn(1),
            covers_until: drilled_at,
            drilled_at,
            rto: Duration::from_secs(1),
            restored: ByteCount(1),
            checks: vec![check],
            details: Default::default(),
        };
        Ok(WayBackAnswer {
            proof: Proof::attest(report, &SigningKey::from_bytes(&[9; 32])).unwrap(),
            safe_until: drilled_at,
            lag: ByteCount(0),
        })
    }
}

pub struct Bench {
    pub ledger: Ledger,
    pub records: Records,
    pub leases: Leases,
    pub gatekeeper: Gatekeeper,
    pub vault: Arc<Vault>,
}

/// A bench in a temporary folder that goes with it.
pub struct Temporary {
    pub bench: Bench,
    pub folder: tempfile::TempDir,
}

impl std::ops::Deref for Temporary {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

impl Temporary {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            bench: Bench::open(folder.path()),
            folder,
        }
    }

    /// Ends this guard and begins another on the same folder.
    pub fn restart(self) -> Self {
        let Self { bench, folder } = self;
        drop(bench);
        let bench = Bench::open(folder.path());
        Self { bench, folder }
    }
}

impl Bench {
    /// Opens everything as the binary does at its start, with the budgets told by the ledger.
    pub fn open(folder: &Path) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let ledger = Ledger::open(&folder.join("ledger"), key, clock::now()).unwrap();
        let records = Records::open(&folder.join("state.db")).unwrap();
        let leases = Leases::open(records.clone(), ledger.clone()).unwrap();
        holdfast_store::ledger::verify(ledger.folder(), &ledger.public_key(), |entry| {
            if let Some((lease, rows, at)) = rows_of_entry(entry) {
                leases.use_rows(&lease, rows, at);
            }
        })
        .unwrap();
        let vault = Arc::new(Vault(Mutex::new(Knows::Proof("prod", Duration::ZERO))));
        let gatekeeper = Gatekeeper::new(Parts {
            ledger: ledger.clone(),
            records: records.clone(),
            policy: Policy::shipped(),
            way_back: vault.clone(),
            proof_age_max: PROOF_AGE_MAX,
        })
        .unwrap();
        Self {
            ledger,
            records,
            leases,
            gatekeeper,
            vault,
        }
    }

    pub fn knows(&self, knows: Knows) {
        *self.vault.0.lock().unwrap() = knows;
    }

    pub fn permitted(&self, asked: &Asked) -> Permit {
        match self.gatekeeper.decide(asked.clone()) {
            Decision::Forward(permit) => *permit,
            Decision::Refused(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    pub fn refused(&self, asked: &Asked) -> Refusal {
        match self.gatekeeper.decide(asked.clone()) {
            Decision::Forward(permit) => panic!("permitted: {permit:?}"),
            Decision::Refused(refusal) => refusal,
        }
    }

    /// Asks for what has to be held and returns the hold's id.
    pub fn held(&self, asked: &Asked) -> HoldId {
        let refusal = self.refused(asked);
        assert_eq!(refusal.code, Code::ZH001, "{refusal:?}");
        refusal.hold.unwrap()
    }

    pub fn hold(&self, id: &HoldId) -> Hold {
        self.gatekeeper.holds().find(id).unwrap()
    }

    pub fn word(&self, id: &HoldId) -> &'static str {
        self.hold(id).word(clock::now())
    }

    /// Says yes as a human would, for a minute from now.
    pub fn approve(&self, id: &HoldId) {
        self.enrol("ann", &ann());
        let statement = self.statement(id, Duration::from_secs(60));
        let approval = Approval::sign(statement, &ann());
        let holds = self.gatekeeper.holds();
        holds.approve(approval, clock::now()).unwrap();
    }

    pub fn try_approve(&self, approval: Approval) -> Result<Hold, HoldError> {
        self.gatekeeper.holds().approve(approval, clock::now())
    }

    /// Makes somebody an approver, if nobody of that name is one.
    pub fn enrol(&self, name: &str, key: &SigningKey) {
        let approver = Approver {
            name: name.to_owned(),
            salt: "0".repeat(32),
            key: HEXLOWER.encode(key.verifying_key().as_bytes()),
        };
        if self.records.find::<Approver>(name).unwrap().is_none() {
            self.records.insert(name, &approver).unwrap();
        }
    }

    pub fn statement(&self, id: &HoldId, lasts: Duration) -> ApprovalStatement {
        let hold = self.hold(id);
        let now = clock::now();
        ApprovalStatement {
            hold: id.clone(),
            action: hold.action.digest,
            evidence: hold.evidence.digest(),
            rehearsal: None,
            approver: "ann".to_owned(),
            at: now,
            expires: now.plus(lasts),
        }
    }

    /// The kinds of the ledger's entries that begin with `family.`.
    pub fn kinds(&self, family: &str) -> Vec<String> {
        let mut kinds = Vec::new();
        let key = self.ledger.public_key();
        holdfast_store::ledger::verify(self.ledger.folder(), &key, |entry| {
            kinds.push(entry.draft.kind.clone());
        })
        .unwrap();
        kinds.retain(|kind| kind.split('.').next() == Some(family));
        kinds
    }

    /// Makes every further write to the ledger fail until [`Bench::mend_ledger`].
    pub fn break_ledger(&self) {
        // A signed head is due after some entries; a folder where its file belongs makes that fail.
        std::fs::create_dir(self.heads()).unwrap();
        let full = (0..1_000).any(|_| {
            let now = clock::now();
            let filler = holdfast_core::ledger::Draft::new("test.filler", human(), now);
            self.ledger.append(filler).is_err()
        });
        assert!(full, "appending goes on");
    }

    pub fn mend_ledger(&self) {
        std::fs::remove_dir(self.heads()).unwrap();
    }

    fn heads(&self) -> std::path::PathBuf {
        self.ledger.folder().join(holdfast_store::ledger::HEADS)
    }

    pub fn issue(&self, lasts: Duration) -> Issued {
        let drawn = (Leases::draw_id().unwrap(), Leases::draw_token().unwrap());
        self.leases
            .issue(request(lasts), drawn, None, human())
            .unwrap()
    }
}

pub fn request(lasts: Duration) -> LeaseRequest {
    LeaseRequest {
        source: prod(),
        agent: "cursor".to_owned(),
        purpose: "staging task".to_owned(),
        mode: LeaseMode::Data,
        budget: RowBudget::default(),
        lasts,
    }
}

/// An action of an agent with one effect on the table `orders` of `prod`.
pub fn asked(effect: Effect, text: &str) -> Asked {
    let table = Resource::new("pg:table", "public.orders").of(prod());
    let mut evidence = Evidence::default();
    evidence.push("rows in public.orders", "12");
    Asked {
        action: Action {
            id: ActionId::from_random(clock::random().unwrap()),
            principal: Principal::agent("cursor"),
            lease: None,
            source: Some(prod()),
            door: DoorKind::Pg,
            summary: text.to_owned(),
            digest: Digest::of(text.as_bytes()),
            at: clock::now(),
        },
        effects: Effects::one(Impact::new(effect, "a test says so").on(table)),
        evidence,
        facts: Facts::unmeasured("production", DoorKind::Pg),
    }
}

/// The same under a lease.
pub fn under(mut asked: Asked, lease: &LeaseId) -> Asked {
    asked.action.lease = Some(lease.clone());
    asked
}

/// The same with so many rows measured.
pub fn rows(mut asked: Asked, count: u64) -> Asked {
    let mut impact = asked.effects.impacts()[0].clone();
    impact.rows = Some(RowCount(count));
    asked.effects = Effects::one(impact);
    asked.facts.rows_transaction = count;
    asked.facts.rows_lease_hour = count;
    asked
}

/// The same, though something else was measured.
pub fn moved(mut asked: Asked) -> Asked {
    asked.evidence = Evidence::default();
    asked.evidence.push("rows in public.orders", "13");
    asked
}

pub fn prod() -> SourceName {
    "prod".parse().unwrap()
}

pub fn human() -> Principal {
    Principal::human("ann")
}

pub fn ann() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}
