use super::*;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn draft(n: u64) -> Draft {
    Draft::new("test.made", Principal::service("t"), Timestamp(1)).with("n", n)
}

fn filled(folder: &Path, count: u64) -> PathBuf {
    let ledger = Ledger::open(folder, key(), Timestamp(0)).unwrap();
    for n in 0..count {
        ledger.append(draft(n)).unwrap();
    }
    folder.join(FILE)
}

#[test]
fn entries_survive_reopening_and_verify() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 600);
    let ledger = Ledger::open(folder.path(), key(), Timestamp(9)).unwrap();
    assert_eq!(ledger.size(), 601);
    let head = ledger.sign_head(Timestamp(10)).unwrap();
    let mut seen = 0;
    let verified = verify(folder.path(), &key().verifying_key(), |_| seen += 1).unwrap();
    assert_eq!((verified.size, seen, verified.heads), (601, 601, 3));
    assert_eq!(verified.root, head.statement.root);
}

#[test]
fn every_cut_of_the_file_opens_with_the_whole_entries_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 3);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let entries = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
        let ledger = Ledger::open(folder.path(), key(), Timestamp(9)).unwrap();
        let expected = u64::try_from(entries.max(1)).unwrap();
        assert_eq!(ledger.size(), expected, "cut at byte {cut}");
        ledger.append(draft(9)).unwrap();
        drop(ledger);
        let verified = verify(folder.path(), &key().verifying_key(), |_| ()).unwrap();
        assert_eq!((verified.size, verified.torn_bytes), (expected + 1, 0));
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 4);
    Ledger::open(folder.path(), key(), Timestamp(9))
        .unwrap()
        .sign_head(Timestamp(9))
        .unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let verified = verify(folder.path(), &key().verifying_key(), |_| ());
        assert!(verified.is_err(), "byte {at} was changed unnoticed");
    }
}

#[test]
fn a_removed_tail_is_noticed_by_the_signed_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 4);
    Ledger::open(folder.path(), key(), Timestamp(9))
        .unwrap()
        .sign_head(Timestamp(9))
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let shorter: String = text.split_inclusive('\n').take(3).collect();
    std::fs::write(&path, shorter).unwrap();
    let opened = Ledger::open(folder.path(), key(), Timestamp(10)).map(|_| ());
    assert!(
        matches!(opened, Err(LedgerError::Rewritten { size: 5, .. })),
        "{opened:?}"
    );
}

#[test]
fn a_head_that_a_crash_cut_leaves_a_ledger_that_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 2);
    let sign = |folder: &Path| {
        let ledger = Ledger::open(folder, key(), Timestamp(9)).unwrap();
        ledger.append(draft(9)).unwrap();
        ledger.sign_head(Timestamp(9)).unwrap();
    };
    sign(folder.path());
    let heads = folder.path().join(HEADS);
    let whole = std::fs::read(&heads).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&heads, &whole[..cut]).unwrap();
        sign(folder.path());
        sign(folder.path());
        let verified = verify(folder.path(), &key().verifying_key(), |_| ()).unwrap();
        assert_eq!(verified.heads, 2, "cut at byte {cut}");
    }
}

#[test]
fn an_entry_whose_head_cannot_be_signed_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), LEDGER_ENTRIES_PER_HEAD - 2);
    let heads = folder.path().join(HEADS);
    std::fs::create_dir(&heads).unwrap();
    let ledger = Ledger::open(folder.path(), key(), Timestamp(9));
    assert!(ledger.is_err(), "a folder is no file of heads");
    std::fs::remove_dir(&heads).unwrap();
    let ledger = Ledger::open(folder.path(), key(), Timestamp(9)).unwrap();
    std::fs::create_dir(&heads).unwrap();
    let before = ledger.size();
    for _ in 0..3 {
        let refused = ledger.append(draft(1)).unwrap_err();
        assert!(matches!(refused, LedgerError::File { step: "sign", .. }));
        assert!(ledger.is_failing());
        assert_eq!(ledger.size(), before);
    }
    std::fs::remove_dir(&heads).unwrap();
    ledger.append(draft(2)).unwrap();
    assert!(!ledger.is_failing());
    drop(ledger);
    let verified = verify(folder.path(), &key().verifying_key(), |_| ()).unwrap();
    assert_eq!((verified.size, verified.heads), (before + 1, 1));
}

#[test]
fn a_second_writer_and_a_foreign_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Ledger::open(folder.path(), key(), Timestamp(0)).unwrap();
    let second = Ledger::open(folder.path(), key(), Timestamp(0)).map(|_| ());
    assert!(
        matches!(second, Err(LedgerError::InUse { .. })),
        "{second:?}"
    );
    drop(first);
    std::fs::write(folder.path().join(FILE), "{\"some\":\"log\"}\n").unwrap();
    let foreign = Ledger::open(folder.path(), key(), Timestamp(0)).map(|_| ());
    assert!(
        matches!(foreign, Err(LedgerError::Foreign { .. })),
        "{foreign:?}"
    );
    assert_eq!(
        std::fs::read_to_string(folder.path().join(FILE)).unwrap(),
        "{\"some\":\"log\"}\n"
    );
}

#[test]
fn concurrent_writers_in_one_process_leave_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), key(), Timestamp(0)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let ledger = ledger.clone();
            scope.spawn(move || {
                (0..25).for_each(|n| {
                    ledger.append(draft(writer * 100 + n)).unwrap();
                })
            });
        }
    });
    let verified = verify(folder.path(), &key().verifying_key(), |_| ()).unwrap();
    assert_eq!(verified.size, 101);
}

#[test]
fn entries_that_wait_together_are_taken_back_together_and_what_nobody_awaits_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), LEDGER_ENTRIES_PER_HEAD - 3);
    let ledger = Ledger::open(folder.path(), key(), Timestamp(9)).unwrap();
    let before = ledger.size();
    let heads = folder.path().join(HEADS);
    std::fs::create_dir(&heads).unwrap();
    let (_, first) = ledger.write(draft(1)).unwrap();
    ledger.append_soon(draft(2)).unwrap();
    let (_, second) = ledger.write(draft(3)).unwrap();
    for ticket in [second, first] {
        let refused = ledger.settle(ticket).unwrap_err();
        assert!(matches!(refused, LedgerError::File { step: "sign", .. }));
    }
    assert_eq!((ledger.size(), ledger.is_failing()), (before, true));
    std::fs::remove_dir(&heads).unwrap();
    ledger.append(draft(4)).unwrap();
    drop(ledger);
    let mut numbers = Vec::new();
    verify(folder.path(), &key().verifying_key(), |entry| {
        numbers.extend(
            entry
                .draft
                .body
                .get("n")
                .and_then(serde_json::Value::as_u64),
        );
    })
    .unwrap();
    assert_eq!(numbers[numbers.len() - 2..], [2, 4], "{numbers:?}");
}

#[test]
fn an_entry_that_nobody_waits_for_is_in_the_file_at_once_and_durable_before_the_ledger_closes() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path(), key(), Timestamp(0)).unwrap();
    ledger.append_soon(draft(1)).unwrap();
    let verified = verify(folder.path(), &key().verifying_key(), |_| ()).unwrap();
    assert_eq!(verified.size, 2);
    drop(ledger);
    let verified = verify(folder.path(), &key().verifying_key(), |_| ()).unwrap();
    assert_eq!((verified.size, verified.torn_bytes), (2, 0));
}
