use super::*;

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

fn file(model: &mut Model, path: &str) -> u64 {
    let node = Node {
        content: Content::File(FileNode::default()),
        mode: 0o600,
        owner: (0, 0),
    };
    model.create(ROOT, name(path), node).unwrap()
}

#[test]
fn only_what_was_synced_survives_a_power_cut() {
    let mut model = Model::default();
    let kept = file(&mut model, "kept");
    model.write(kept, 0, b"synced").unwrap();
    model.sync(kept).unwrap();
    model.write(kept, 0, b"SYNCED and more").unwrap();
    model.sync_folder(ROOT).unwrap();
    let nameless = file(&mut model, "nameless");
    model.write(nameless, 0, b"x").unwrap();
    model.sync(nameless).unwrap();
    model.power_cut(Survives::None, 1);
    assert_eq!(model.file(kept).unwrap().live, b"synced");
    assert_eq!(model.find(ROOT, name("nameless")), Err(Refused::Missing));
}

#[test]
fn a_rename_survives_as_a_whole_or_not_at_all() {
    for seed in 0..64 {
        let mut model = Model::default();
        let number = file(&mut model, "before");
        model.sync_folder(ROOT).unwrap();
        model
            .rename((ROOT, name("before")), (ROOT, name("after")))
            .unwrap();
        model.power_cut(Survives::Random, seed);
        let found = [name("before"), name("after")].map(|name| model.find(ROOT, name).ok());
        assert!(found == [Some(number), None] || found == [None, Some(number)]);
    }
}

#[test]
fn unsynced_writes_are_torn_at_sectors() {
    let mut seen = BTreeSet::new();
    for seed in 0..64 {
        let mut model = Model::default();
        let number = file(&mut model, "f");
        model.sync_folder(ROOT).unwrap();
        model.write(number, 0, &[1; 2 * SECTOR]).unwrap();
        model.power_cut(Survives::Random, seed);
        let live = &model.file(number).unwrap().live;
        seen.insert((live.len(), live.first().copied().unwrap_or(0)));
    }
    let all = [(0, 0), (SECTOR, 1), (2 * SECTOR, 0), (2 * SECTOR, 1)];
    assert_eq!(seen, BTreeSet::from(all));
}

#[test]
fn a_failed_sync_loses_what_it_should_keep() {
    let mut model = Model::default();
    let number = file(&mut model, "f");
    model.sync_folder(ROOT).unwrap();
    model.write(number, 0, b"lost").unwrap();
    model.arm(Fault::Error { after: 0 }, Some(Step::Sync));
    assert_eq!(model.sync(number), Err(Refused::Failed));
    assert_eq!(model.tripped(), Some((Step::Sync, String::new())));
    model.write(number, 4, b"more").unwrap();
    model.power_cut(Survives::All, 0);
    assert_eq!(model.file(number).unwrap().live, b"\0\0\0\0more");
}

#[test]
fn a_full_disk_refuses_what_needs_room_until_it_is_mended() {
    let mut model = Model::default();
    let number = file(&mut model, "f");
    model.arm(Fault::Full { after: 1 }, None);
    model.write(number, 0, b"1").unwrap();
    model.sync(number).unwrap();
    assert_eq!(model.tripped(), None);
    assert_eq!(model.write(number, 1, b"2"), Err(Refused::Full));
    assert_eq!(model.write(number, 1, b"2"), Err(Refused::Full));
    model.unlink(ROOT, name("f")).unwrap();
    model.heal();
    file(&mut model, "f");
}
