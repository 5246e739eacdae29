//! Leases: who gets one, when it ends, what it may use.

use std::time::Duration;

use holdfast_core::{Code, Coded, LeaseId, RowCount};
use holdfast_guard::clock;
use holdfast_guard::lease::{LeaseError, LeaseRequest, Leases, PgLease};
use holdfast_guard::limits::{LEASE_LASTS_MAX, LEASE_ROWS_WINDOW};

use super::bench::{Temporary, human, request};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_lease_needs_an_agent_a_purpose_and_an_end_within_a_week() {
    let bench = Temporary::new();
    let with = |change: fn(&mut LeaseRequest)| {
        let mut request = request(MINUTE);
        change(&mut request);
        let drawn = (Leases::draw_id().unwrap(), Leases::draw_token().unwrap());
        bench.leases.issue(request, drawn, None, human())
    };
    let refused: [fn(&mut LeaseRequest); 5] = [
        |r| r.agent.clear(),
        |r| r.purpose.clear(),
        |r| r.agent = "a".repeat(201),
        |r| r.purpose = "ä".repeat(201),
        |r| r.lasts = LEASE_LASTS_MAX + Duration::from_secs(1),
    ];
    for change in refused {
        assert_eq!(with(change).unwrap_err().code(), Code::ZU401);
    }
    assert!(bench.leases.list().is_empty());
    assert!(bench.kinds("lease").is_empty());
    let issued = with(|r| r.purpose = "ä".repeat(200)).unwrap();
    assert!(bench.leases.authenticate(issued.token.expose()).is_ok());
}

#[test]
fn a_token_opens_its_lease_until_that_ends() {
    let bench = Temporary::new();
    let issued = bench.issue(MINUTE);
    let opened = bench.leases.authenticate(issued.token.expose()).unwrap();
    assert_eq!(opened.id, issued.lease.id);
    for wrong in [
        "",
        "hfl_",
        "hfl_aaaa",
        &issued.token.expose().to_uppercase(),
    ] {
        let error = bench.leases.authenticate(wrong).unwrap_err();
        assert_eq!(error.code(), Code::ZL401, "{wrong}");
    }
    assert!(issued.lease.ended(issued.lease.expires).is_some());
    let over = bench.issue(Duration::ZERO);
    let error = bench.leases.authenticate(over.token.expose()).unwrap_err();
    assert!(matches!(error, LeaseError::Expired { .. }), "{error}");
    assert_eq!(error.code(), Code::ZL401);
}

#[test]
fn a_revoked_lease_opens_nothing_even_when_that_cannot_be_recorded() {
    let bench = Temporary::new();
    let [one, two, other] = [(); 3].map(|()| bench.issue(MINUTE));
    bench.leases.revoke(&one.lease.id, human()).unwrap();
    let error = bench.leases.authenticate(one.token.expose()).unwrap_err();
    assert!(matches!(error, LeaseError::Revoked { .. }), "{error}");
    let again = bench.leases.revoke(&one.lease.id, human()).unwrap_err();
    assert!(matches!(again, LeaseError::Revoked { .. }), "{again}");
    bench.break_ledger();
    let error = bench.leases.revoke(&two.lease.id, human()).unwrap_err();
    assert_eq!(error.code(), Code::ZS201);
    assert!(bench.leases.authenticate(two.token.expose()).is_err());
    bench.mend_ledger();
    let bench = bench.restart();
    assert!(bench.leases.authenticate(two.token.expose()).is_err());
    assert!(bench.leases.authenticate(other.token.expose()).is_ok());
    let unknown = LeaseId::from_random([9; 8]);
    let error = bench.leases.revoke(&unknown, human()).unwrap_err();
    assert!(matches!(error, LeaseError::Unknown(_)), "{error}");
}

#[test]
fn no_lease_is_issued_that_the_ledger_does_not_have() {
    let bench = Temporary::new();
    bench.break_ledger();
    let drawn = (Leases::draw_id().unwrap(), Leases::draw_token().unwrap());
    let token = drawn.1.expose().to_owned();
    let error = bench.leases.issue(request(MINUTE), drawn, None, human());
    assert_eq!(error.unwrap_err().code(), Code::ZS201);
    assert!(bench.leases.authenticate(&token).is_err());
    bench.mend_ledger();
    assert!(bench.restart().leases.list().is_empty());
}

#[test]
fn the_token_is_kept_nowhere() {
    let bench = Temporary::new();
    let issued = bench.issue(MINUTE);
    let debug = format!("{issued:?}");
    assert!(!debug.contains(issued.token.expose()), "{debug}");
    let mut searched = 0;
    let mut folders = vec![bench.folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(issued.token.expose()), "{}", path.display());
            searched += bytes.len();
        }
    }
    assert!(searched > 1_000, "{searched} bytes");
}

#[test]
fn rows_are_counted_per_lease_within_a_sliding_hour() {
    let bench = Temporary::new();
    let [one, two] = [(); 2].map(|()| bench.issue(MINUTE).lease.id);
    let begin = clock::now();
    for (after, rows) in [(0, 100), (1_800, 7), (3_000, u64::MAX)] {
        let at = begin.plus(Duration::from_secs(after));
        bench.leases.use_rows(&one, RowCount(rows), at);
    }
    bench.leases.use_rows(&two, RowCount(3), begin);
    bench.leases.use_rows(&two, RowCount(0), begin);
    for (lease, after, expected) in [
        (&two, 0, 3),
        (&two, 3_600, 3),
        (&two, 3_601, 0),
        // Sums stop at the largest number instead of beginning again from zero.
        (&one, 3_000, u64::MAX),
        (&one, 3_601, u64::MAX),
        (&one, 6_601, 0),
    ] {
        let at = begin.plus(Duration::from_secs(after));
        let rows = bench.leases.rows_this_hour(lease, at);
        assert_eq!(rows, RowCount(expected), "{after} s");
    }
    assert_eq!(LEASE_ROWS_WINDOW.as_secs(), 3_600);
    let nobody = LeaseId::from_random([9; 8]);
    assert_eq!(bench.leases.rows_this_hour(&nobody, begin), RowCount(0));
}

#[test]
fn a_lease_is_found_by_its_role_and_its_id_after_a_restart_too() {
    let bench = Temporary::new();
    let pg = PgLease {
        copy_of: None,
        role: "hf_lease_1".to_owned(),
        database: "rental".to_owned(),
        scram: "SCRAM-SHA-256$4096:c2FsdA==$a:b".to_owned(),
    };
    let drawn = (Leases::draw_id().unwrap(), Leases::draw_token().unwrap());
    let id = drawn.0.clone();
    let issued = bench
        .leases
        .issue(request(MINUTE), drawn, Some(pg.clone()), human())
        .unwrap();
    bench.issue(MINUTE);
    let bench = bench.restart();
    let found = bench.leases.find_role("hf_lease_1").unwrap();
    assert_eq!(
        (found.id.clone(), found.pg.as_ref()),
        (id.clone(), Some(&pg))
    );
    assert_eq!(bench.leases.find(&id).unwrap(), issued.lease);
    assert_eq!(bench.leases.list().len(), 2);
    let error = bench.leases.find_role("postgres").unwrap_err();
    assert_eq!(error.code(), Code::ZL401);
}
