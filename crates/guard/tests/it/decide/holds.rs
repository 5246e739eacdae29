//! Hold, approve, spend: once, for exactly what was approved, in time.

use std::sync::Barrier;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use holdfast_core::{Approval, ApprovalError, Code, Coded, Effect, HoldId};
use holdfast_guard::clock;
use holdfast_guard::decide::{Asked, Decision};
use holdfast_guard::hold::{HoldError, HoldRequest};
use holdfast_guard::limits::{HOLD_WAITS_MAX, HOLDS_PER_LEASE_MAX};

use super::bench::{Bench, Temporary, ann, asked, human, moved, under};

fn drop_table() -> Asked {
    asked(Effect::Destroy, "DROP TABLE orders")
}

#[test]
fn an_approval_is_spent_exactly_once() {
    let bench = Temporary::new();
    let id = bench.held(&drop_table());
    bench.approve(&id);
    let permit = bench.permitted(&drop_table());
    assert!(permit.way_back().is_some());
    assert_eq!(bench.word(&id), "spent");
    let again = bench.held(&drop_table());
    assert_ne!(again, id);
    let expected = ["action.held", "action.permitted", "action.held"];
    assert_eq!(bench.kinds("action"), expected);
}

#[test]
fn the_ledger_says_who_approved_what_was_permitted() {
    let bench = Temporary::new();
    let id = bench.held(&drop_table());
    bench.approve(&id);
    bench.permitted(&drop_table());
    let mut found = None;
    let key = bench.ledger.public_key();
    holdfast_store::ledger::verify(bench.ledger.folder(), &key, |entry| {
        if entry.draft.kind == "action.permitted" {
            found = Some(entry.draft.body.clone());
        }
    })
    .unwrap();
    let body = found.unwrap();
    assert_eq!(body["hold"], id.to_string());
    assert_eq!(body["approver"], "ann");
}

#[test]
fn of_many_who_spend_one_approval_at_once_exactly_one_gets_a_permit() {
    const THREADS: usize = 16;
    for _ in 0..5 {
        let bench = Temporary::new();
        let id = bench.held(&drop_table());
        bench.approve(&id);
        let start = Barrier::new(THREADS);
        let permits: usize = std::thread::scope(|scope| {
            let ask = || {
                start.wait();
                match bench.gatekeeper.decide(drop_table()) {
                    Decision::Forward(_) => 1,
                    Decision::Refused(_) => 0,
                }
            };
            let asking: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|a| a.join().unwrap()).sum()
        });
        assert_eq!(permits, 1);
        let kinds = bench.kinds("action");
        let permitted = kinds.iter().filter(|kind| *kind == "action.permitted");
        assert_eq!(permitted.count(), 1, "{kinds:?}");
        // Those who came too late share one new hold.
        let waiting = bench.gatekeeper.holds().list().unwrap();
        let waiting = waiting.iter().filter(|h| h.word(clock::now()) == "waiting");
        assert!(waiting.count() <= 1);
    }
}

#[test]
fn an_approval_fits_neither_another_action_nor_evidence_nor_lease() {
    let bench = Temporary::new();
    let [mine, other] = [(); 2].map(|()| bench.issue(Duration::from_secs(60)).lease.id);
    let approved = under(drop_table(), &mine);
    let id = bench.held(&approved);
    bench.approve(&id);
    for (what, neighbour) in [
        (
            "another action",
            under(asked(Effect::Destroy, "DROP TABLE customers"), &mine),
        ),
        ("another lease", under(drop_table(), &other)),
        ("no lease", drop_table()),
        ("other evidence", under(moved(drop_table()), &mine)),
    ] {
        let hold = bench.held(&neighbour);
        assert_ne!(hold, id, "{what}");
        assert_eq!(bench.word(&id), "approved", "{what}");
    }
    bench.permitted(&approved);
}

#[test]
fn when_production_has_moved_since_the_approval_it_is_held_again_and_says_so() {
    let bench = Temporary::new();
    let id = bench.held(&drop_table());
    bench.approve(&id);
    let refusal = bench.refused(&moved(drop_table()));
    assert_eq!(refusal.code, Code::ZH001);
    assert!(
        refusal.message.contains(&id.to_string()) && refusal.message.contains("has moved since"),
        "{refusal:?}"
    );
    let again = refusal.hold.unwrap();
    bench.approve(&again);
    bench.permitted(&moved(drop_table()));
    assert_eq!((bench.word(&id), bench.word(&again)), ("approved", "spent"));
}

#[test]
fn an_approval_that_has_lapsed_permits_nothing() {
    let bench = Temporary::new();
    bench.enrol("ann", &ann());
    let id = bench.held(&drop_table());
    // Given a minute ago for half a minute.
    let mut statement = bench.statement(&id, Duration::ZERO);
    let now = clock::now();
    statement.at = now.minus(Duration::from_secs(60));
    statement.expires = now.minus(Duration::from_secs(30));
    let then = now.minus(Duration::from_secs(45));
    let approval = Approval::sign(statement, &ann());
    bench.gatekeeper.holds().approve(approval, then).unwrap();
    assert_eq!(bench.word(&id), "expired");
    let again = bench.held(&drop_table());
    assert_ne!(again, id);
    // It cannot be spent past the gatekeeper either.
    let action = drop_table().action;
    let evidence = drop_table().evidence.digest();
    let spent = bench.gatekeeper.holds().spend(&id, &action, evidence, now);
    assert!(
        matches!(
            spent,
            Err(HoldError::Approval {
                source: ApprovalError::Expired { .. },
                ..
            })
        ),
        "{spent:?}"
    );
}

#[test]
fn only_a_known_humans_own_signature_over_this_hold_approves() {
    let bench = Temporary::new();
    bench.enrol("ann", &ann());
    let id = bench.held(&drop_table());
    let other = bench.held(&asked(Effect::Destroy, "DROP TABLE customers"));
    let agent = SigningKey::from_bytes(&[6; 32]);
    let good = || bench.statement(&id, Duration::from_secs(60));
    let of_other = bench.statement(&other, Duration::from_secs(60));
    let renamed = |name: &str| {
        let mut statement = good();
        statement.approver = name.to_owned();
        statement
    };
    let mut swapped = good();
    swapped.action = of_other.action;
    let mut blind = good();
    blind.evidence = holdfast_core::Digest::of(b"nothing seen");
    let mut later = good();
    later.at = clock::now().plus(Duration::from_secs(600));
    let mut garbled = Approval::sign(good(), &ann());
    garbled.signature.replace_range(0..2, "zz");
    for (what, approval, code) in [
        (
            "an agent's key",
            Approval::sign(good(), &agent),
            Code::ZH005,
        ),
        (
            "nobody",
            Approval::sign(renamed("bob"), &ann()),
            Code::ZU402,
        ),
        (
            "another name",
            Approval::sign(renamed(""), &ann()),
            Code::ZU402,
        ),
        (
            "another action",
            Approval::sign(swapped, &ann()),
            Code::ZH005,
        ),
        ("other evidence", Approval::sign(blind, &ann()), Code::ZH005),
        (
            "from the future",
            Approval::sign(later, &ann()),
            Code::ZH005,
        ),
        ("no signature", garbled, Code::ZH005),
    ] {
        let error = bench.try_approve(approval).unwrap_err();
        assert_eq!(error.code(), code, "{what}: {error}");
        assert_eq!(bench.word(&id), "waiting", "{what}");
    }
    assert!(bench.kinds("hold").is_empty());
    bench.approve(&id);
    bench.permitted(&drop_table());
}

#[test]
fn an_approver_who_is_struck_off_takes_the_unspent_approvals_along() {
    let bench = Temporary::new();
    let id = bench.held(&drop_table());
    bench.approve(&id);
    let (mut approver, version) = bench
        .records
        .find::<holdfast_guard::hold::Approver>("ann")
        .unwrap()
        .unwrap();
    approver.key = "0".repeat(63);
    bench.records.replace("ann", version, &approver).unwrap();
    let refusal = bench.refused(&drop_table());
    assert_eq!(refusal.code, Code::ZU402, "{refusal:?}");
    assert_eq!(bench.word(&id), "approved");
}

#[test]
fn what_was_decided_cannot_be_decided_again() {
    let bench = Temporary::new();
    bench.enrol("ann", &ann());
    let holds = bench.gatekeeper.holds();
    let try_both = |id: &HoldId, state: &str| {
        let approval = Approval::sign(bench.statement(id, Duration::from_secs(60)), &ann());
        let yes = bench.try_approve(approval).unwrap_err().to_string();
        let no = holds.deny(id, human(), clock::now()).unwrap_err();
        for said in [yes, no.to_string()] {
            assert!(said.contains(&format!("is {state}")), "{state}: {said}");
        }
    };
    let denied = bench.held(&drop_table());
    holds.deny(&denied, human(), clock::now()).unwrap();
    try_both(&denied, "denied");
    let spent = bench.held(&drop_table());
    assert_ne!(spent, denied);
    bench.approve(&spent);
    try_both(&spent, "approved");
    bench.permitted(&drop_table());
    try_both(&spent, "spent");
    let unknown: HoldId = HoldId::from_random([9; 8]);
    let error = holds.deny(&unknown, human(), clock::now()).unwrap_err();
    assert_eq!(error.code(), Code::ZU402);
}

#[test]
fn a_hold_that_nobody_decides_lapses_after_a_day() {
    let bench = Temporary::new();
    let id = bench.held(&drop_table());
    let tomorrow = clock::now().plus(HOLD_WAITS_MAX + Duration::from_secs(1));
    assert_eq!(bench.hold(&id).word(tomorrow), "expired");
    let holds = bench.gatekeeper.holds();
    let error = holds.deny(&id, human(), tomorrow).unwrap_err();
    assert!(error.to_string().contains("is expired"), "{error}");
    assert_ne!(holds.hold(request(&drop_table()), tomorrow).unwrap().id, id);
}

fn request(asked: &Asked) -> HoldRequest {
    HoldRequest {
        action: asked.action.clone(),
        effects: asked.effects.clone(),
        evidence: asked.evidence.clone(),
        reasons: Vec::new(),
    }
}

#[test]
fn asking_again_makes_no_second_hold_also_at_once() {
    let bench = Temporary::new();
    let first = bench.held(&drop_table());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(bench.held(&drop_table()), first));
        }
    });
    let bench = Temporary::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| bench.held(&drop_table()));
        }
    });
    assert_eq!(bench.gatekeeper.holds().list().unwrap().len(), 1);
}

fn fill(bench: &Bench, lease: &holdfast_core::LeaseId) {
    for number in 0..HOLDS_PER_LEASE_MAX {
        let text = format!("DROP TABLE t{number}");
        bench.held(&under(asked(Effect::Destroy, &text), lease));
    }
}

#[test]
fn a_lease_with_too_many_holds_gets_no_more_and_the_others_are_not_touched() {
    let bench = Temporary::new();
    let [busy, other] = [(); 2].map(|()| bench.issue(Duration::from_secs(60)).lease.id);
    fill(&bench, &busy);
    let refusal = bench.refused(&under(drop_table(), &busy));
    assert_eq!(refusal.code, Code::ZH401, "{refusal:?}");
    assert!(refusal.hold.is_none());
    // What waits already is still found; another lease and reading are not touched.
    bench.held(&under(asked(Effect::Destroy, "DROP TABLE t7"), &busy));
    bench.permitted(&under(asked(Effect::Read, "SELECT 1"), &busy));
    bench.held(&under(drop_table(), &other));
    let holds = bench.gatekeeper.holds();
    assert_eq!(holds.list().unwrap().len(), HOLDS_PER_LEASE_MAX + 1);
    // A decision makes room for one.
    let waiting = holds.list().unwrap();
    let one = waiting
        .iter()
        .find(|h| h.action.lease.as_ref() == Some(&busy));
    holds.deny(&one.unwrap().id, human(), clock::now()).unwrap();
    bench.held(&under(drop_table(), &busy));
    let more = under(asked(Effect::Destroy, "DROP TABLE more"), &busy);
    assert_eq!(bench.refused(&more).code, Code::ZH401);
}
