//! The ledger of the vault, verified offline from an exported copy and the public key alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use holdfast_core::ledger::{Chain, Draft};
use holdfast_core::{
    ByteCount, Check, CheckOutcome, DRILL_PASSED, DrillDetails, DrillOf, DrillReport, Lsn, PointId,
    Principal, Proof, Timestamp, rows_digest,
};

use crate::desk::Desk;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn public(key: &SigningKey) -> String {
    data_encoding::HEXLOWER.encode(key.verifying_key().as_bytes())
}

/// Writes what a vault would have, with a drill that `signer` signed and `change` changed afterwards.
fn exported(path: &Path, signer: &SigningKey, change: impl FnOnce(&mut Draft)) -> PathBuf {
    let rows = BTreeMap::from([("a.public.orders".to_owned(), 10_000)]);
    let report = DrillReport {
        source: "prod".parse().unwrap(),
        system_identifier: 7,
        point: PointId::from_random([1; 10]),
        timeline: 1,
        reached: Lsn(0x0100_0000),
        covers_until: Timestamp(1_000_000),
        drilled_at: Timestamp(2_000_000),
        rto: Duration::from_secs(1),
        restored: ByteCount(1),
        checks: vec![Check {
            name: "server takes a write".to_owned(),
            outcome: CheckOutcome::Passed,
            detail: String::new(),
        }],
        details: DrillDetails {
            rows_digest: Some(rows_digest(&rows)),
            ..DrillDetails::new(DrillOf::Newest, "latest")
        },
    };
    let proof = Proof::attest(report.clone(), signer).unwrap();
    let vault = || Principal::service("vault");
    let begun = Draft::new("ledger.begun", vault(), Timestamp(1_000_000))
        .with("format", "holdfast-ledger")
        .with("version", 1)
        .with("key", public(&key()));
    let mut drilled = Draft::new(DRILL_PASSED, vault(), report.drilled_at)
        .source(report.source.clone())
        .with("report", serde_json::to_value(&report).unwrap())
        .with("rows", serde_json::to_value(&rows).unwrap())
        .with("proof", serde_json::to_value(proof.signed()).unwrap());
    change(&mut drilled);
    // Whoever forges an entry can also make the chain over it fit.
    let mut chain = Chain::default();
    let lines = [begun, drilled].map(|draft| chain.append(draft).unwrap().1 + "\n");
    std::fs::write(path, lines.concat()).unwrap();
    path.to_owned()
}

#[test]
fn an_exported_ledger_is_verified_offline_with_its_proofs() {
    let desk = Desk::empty("ledger-offline");
    let verify = |file: &Path, key: &str| {
        let file = file.to_str().unwrap().to_owned();
        desk.run(&["ledger", "verify", "--file", &file, "--key", key])
    };
    let digits = public(&key());
    let whole = exported(&desk.join("whole.jsonl"), &key(), |_| ());
    let path = whole.to_str().unwrap();
    let args = [
        "ledger", "verify", "--json", "--file", path, "--key", &digits,
    ];
    let told = desk.run(&args).done().json();
    assert_eq!(told[0]["entries"], 2);
    assert_eq!(told[0]["proofs"]["verified"], 1, "{told}");
    std::fs::write(desk.join("vault.pub"), format!("{digits}\n")).unwrap();
    let file = desk.join("vault.pub");
    verify(&whole, file.to_str().unwrap()).done();

    let forger = SigningKey::from_bytes(&[8; 32]);
    let forged = exported(&desk.join("forged.jsonl"), &forger, |_| ());
    verify(&forged, &digits).refused(1, &["ZI391"]);
    let fewer = exported(&desk.join("fewer.jsonl"), &key(), |draft| {
        draft.body["rows"]["a.public.orders"] = 10.into();
    });
    verify(&fewer, &digits).refused(1, &["ZI391", "the rows"]);
    let faster = exported(&desk.join("faster.jsonl"), &key(), |draft| {
        draft.body["report"]["rto"]["secs"] = 0.into();
    });
    verify(&faster, &digits).refused(1, &["ZI391", "the report"]);
    let bare = exported(&desk.join("bare.jsonl"), &key(), |draft| {
        draft.body.remove("proof");
    });
    verify(&bare, &digits).refused(1, &["ZI391", "the proof"]);

    verify(&whole, &public(&forger)).refused(2, &["ZU605", "another key"]);
    verify(&whole, "nonsense").refused(2, &["ZU605"]);
    let text = std::fs::read_to_string(&whole).unwrap();
    let changed = desk.join("changed.jsonl");
    std::fs::write(&changed, text.replacen("1970", "1971", 1)).unwrap();
    verify(&changed, &digits).refused(1, &["ZI001"]);
    let alone = desk.run(&["ledger", "verify", "--file", "x"]);
    assert_eq!(alone.status, 2, "{alone:?}");
}
