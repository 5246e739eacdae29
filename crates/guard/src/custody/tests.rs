use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;

use ed25519_dalek::SigningKey;

use super::*;
use crate::lease::{LeaseMode, LeaseRequest, Leases, RowBudget};

const SECRET: &str = "5f1c9c30-0d0e-4b5a-8a60-27d1f1a0c0de";

struct Bench {
    folder: tempfile::TempDir,
    custody: Custody,
    issued: Issued,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::from_bytes(&[7; 32]);
    let ledger = Ledger::open(&folder.path().join("ledger"), key, clock::now()).unwrap();
    let records = Records::open(&folder.path().join("state.db")).unwrap();
    let leases = Leases::open(records.clone(), ledger.clone()).unwrap();
    let request = LeaseRequest {
        source: "prod".parse().unwrap(),
        agent: "cursor".to_owned(),
        purpose: "domains".to_owned(),
        mode: LeaseMode::Data,
        budget: RowBudget::default(),
        lasts: std::time::Duration::from_secs(60),
    };
    let drawn = (Leases::draw_id().unwrap(), Leases::draw_token().unwrap());
    let issued = leases
        .issue(request, drawn, None, Principal::human("ann"))
        .unwrap();
    Bench {
        custody: Custody::new(records, ledger),
        folder,
        issued,
    }
}

impl Bench {
    fn file(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join(".env");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        path
    }

    fn take(&self, file: &Path) -> Result<CustodyItem, CustodyError> {
        let request = TakeRequest {
            file,
            credential: &Secret::new(SECRET),
            provider: "railway",
            hosts: &["backboard.railway.app".to_owned()],
            issued: &self.issued,
            replacement: &self.issued.token,
        };
        self.custody.take(&request, Principal::human("ann"))
    }
}

#[test]
fn a_credential_is_taken_and_put_back_byte_for_byte() {
    let bench = bench();
    let text = format!("# a\r\nRAILWAY_API_TOKEN={SECRET}\nOTHER=\"{SECRET}\"\n\u{0}end");
    let file = bench.file(&text);
    let item = bench.take(&file).unwrap();
    let left = std::fs::read_to_string(&file).unwrap();
    let token = bench.issued.token.expose();
    assert_eq!(left, text.replace(SECRET, token));
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    let credential = |host: &str| bench.custody.credential(token, host).unwrap();
    assert_eq!(
        credential("backboard.railway.app").unwrap().expose(),
        SECRET
    );
    assert!(credential("evil.example").is_none());
    assert!(bench.custody.is_bound("backboard.railway.app"));
    assert_eq!(bench.custody.list().unwrap(), std::slice::from_ref(&item));

    bench
        .custody
        .restore(&item.id, Principal::human("ann"))
        .unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    assert!(credential("backboard.railway.app").is_none());
}

#[test]
fn the_credential_is_in_no_ledger_listing_or_debug_form() {
    let bench = bench();
    let file = bench.file(SECRET);
    let item = bench.take(&file).unwrap();
    let ledger = bench.folder.path().join("ledger");
    for entry in std::fs::read_dir(ledger).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET));
    }
    let shown = serde_json::to_string(&item).unwrap() + &format!("{item:?}");
    assert!(!shown.contains(SECRET));
    let state = bench.folder.path().join("state.db");
    assert_eq!(std::fs::metadata(state).unwrap().mode() & 0o077, 0);
}

#[test]
fn what_cannot_be_taken_or_put_back_is_left_alone() {
    let bench = bench();
    let absent = bench.file("nothing here");
    assert!(matches!(bench.take(&absent), Err(CustodyError::Absent(_))));
    assert!(matches!(
        bench.take(bench.folder.path()),
        Err(CustodyError::Unfit(_))
    ));
    let missing = bench.folder.path().join("missing");
    assert!(matches!(
        bench.take(&missing),
        Err(CustodyError::File { .. })
    ));
    let by = || Principal::human("ann");
    assert!(matches!(
        bench.custody.restore("custody-x", by()),
        Err(CustodyError::Unknown(_))
    ));

    let file = bench.file(SECRET);
    let item = bench.take(&file).unwrap();
    std::fs::write(&file, "edited since").unwrap();
    let refused = bench.custody.restore(&item.id, by());
    assert!(matches!(refused, Err(CustodyError::Changed(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "edited since");
}

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let bench = bench();
    let file = bench.file(SECRET);
    let link = bench.folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    bench.take(&link).unwrap();
    assert!(link.is_symlink());
    assert!(!std::fs::read_to_string(&file).unwrap().contains(SECRET));
}
