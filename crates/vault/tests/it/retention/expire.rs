//! Plans that are shown, recorded, refused, interrupted and performed.

use std::sync::Mutex;

use holdfast_core::{Coded, Principal};
use holdfast_store::object::expire::Expired;
use holdfast_vault::retention::{Fate, MarkKind, MarkRequest, mark};

use super::*;

/// Removes as the real one, and does something of the test's before one of the removals.
struct Disturbed<F> {
    inner: Box<dyn Expire>,
    left: AtomicU64,
    then: Mutex<Option<F>>,
}

impl<F: FnOnce() -> Result<(), ObjectError> + Send> Disturbed<F> {
    fn after(removals: u64, inner: Box<dyn Expire>, then: F) -> Self {
        Self {
            inner,
            left: AtomicU64::new(removals),
            then: Mutex::new(Some(then)),
        }
    }
}

impl<F: FnOnce() -> Result<(), ObjectError> + Send> Expire for Disturbed<F> {
    fn expire(&self, key: &ObjectKey) -> Result<Expired, ObjectError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0
            && let Some(then) = self.then.lock().unwrap().take()
        {
            then()?;
        }
        self.inner.expire(key)
    }

    fn fold(&self, folder: &str) -> Result<(), ObjectError> {
        self.inner.fold(folder)
    }
}

fn broken() -> Result<(), ObjectError> {
    Err(ObjectError::Io {
        step: "remove",
        what: "an object".to_owned(),
        source: std::io::Error::other("the test pulled the plug"),
    })
}

#[test]
fn after_expiry_every_kept_point_comes_back_byte_for_byte_and_space_is_free() {
    let mut scene = sixty_days();
    let before = bytes(&scene.root());
    let expiry = scene.expiry(rules());
    let plan = expiry.plan().unwrap();
    assert_eq!(scene.check().len(), 121, "a plan removes nothing");
    let report = expiry.apply(&plan, scene.remover().as_ref()).unwrap();
    assert_eq!(report.removed.objects, plan.goes().objects);
    let kept = scene.check();
    let stays = plan.sources[0]
        .points
        .iter()
        .filter(|point| point.fate != Fate::Goes);
    assert_eq!(
        kept,
        stays.map(|point| point.point.clone()).collect::<Vec<_>>()
    );
    assert!((20..40).contains(&kept.len()), "{}", kept.len());
    assert!(bytes(&scene.root()) < before);
    // The next point builds on what is left, and the next plan has nothing to do.
    scene.point();
    assert_eq!(scene.check().len(), kept.len() + 1);
    let again = expiry.plan().unwrap();
    assert_eq!(again.goes().objects, 0, "{again:?}");
    let folders = std::fs::read_dir(scene.root().join("files/point"))
        .unwrap()
        .count();
    let needed_only = again.sources[0].points.len();
    assert!(folders < 121 && folders >= needed_only, "{folders}");
}

#[test]
fn an_interrupted_run_leaves_whole_points_and_goes_on_where_it_stopped() {
    let scene = sixty_days();
    let expiry = scene.expiry(rules());
    let plan = expiry.plan().unwrap();
    let all = plan.goes().objects;
    for (number, removals) in [0, 1, 40, all / 2].into_iter().enumerate() {
        let disturbed = Disturbed::after(removals, scene.remover(), broken);
        expiry.apply(&plan, &disturbed).unwrap_err();
        // Every point that is left is whole, also one that was to go.
        scene.check();
        // A run that was begun may be continued also when the plan is old by now; records go on.
        if number == 2 {
            scene.pass(Duration::from_secs(40 * 60));
        }
    }
    let report = expiry.apply(&plan, scene.remover().as_ref()).unwrap();
    assert!(report.absent > 0 && report.removed.objects > 0);
    let stays = plan.sources[0]
        .points
        .iter()
        .filter(|point| point.fate != Fate::Goes);
    assert_eq!(scene.check().len(), stays.count());
}

#[test]
fn a_point_that_is_made_while_others_expire_is_whole() {
    let scene = Mutex::new(sixty_days());
    let (expiry, remover) = {
        let scene = scene.lock().unwrap();
        (scene.expiry(rules()), scene.remover())
    };
    let plan = expiry.plan().unwrap();
    let disturbed = Disturbed::after(50, remover, || {
        scene.lock().unwrap().point();
        Ok(())
    });
    expiry.apply(&plan, &disturbed).unwrap();
    let scene = scene.lock().unwrap();
    let (newest, _) = scene.files.points.last().unwrap();
    assert_eq!(scene.check().last(), Some(newest));
}

#[test]
fn a_plan_that_does_not_fit_any_more_removes_nothing() {
    let scene = sixty_days();
    let expiry = scene.expiry(rules());
    let plan = expiry.plan().unwrap();
    let before = scene.objects();
    let refused = |plan, code: &str| {
        let error = expiry.apply(plan, scene.remover().as_ref()).unwrap_err();
        assert_eq!(error.code().as_str(), code, "{error}");
        assert_eq!(scene.objects(), before);
    };
    // Somebody wrote another object into the file.
    let mut forged = plan.clone();
    let newest = before
        .iter()
        .rfind(|key| key.name().starts_with("manifest"))
        .unwrap();
    forged.sources[0].goes[0].key = newest.clone();
    refused(&forged, "ZU352");
    let mut other = plan.clone();
    other.repository = "0b".repeat(16);
    refused(&other, "ZI351");
    // It was made too long ago.
    scene.pass(Duration::from_secs(31 * 60));
    refused(&plan, "ZU352");
}

#[test]
fn a_marked_point_stays_until_it_is_released() {
    let scene = sixty_days();
    let expiry = scene.expiry(rules());
    let plan = expiry.plan().unwrap();
    let point = plan.points().next().unwrap().1.point.clone();
    let set = |kind, until: Option<Duration>| {
        let request = MarkRequest {
            source: scene.source(),
            point: point.clone(),
            kind,
            because: "the auditors asked for it".to_owned(),
            by: Principal::human("ada"),
            until: until.map(|until| Timestamp(scene.now.load(Ordering::Relaxed)).plus(until)),
        };
        let now = Timestamp(scene.now.load(Ordering::Relaxed));
        mark(
            scene.store.as_ref(),
            &scene.reader(),
            request,
            (&key(), now),
            |_| Ok(()),
        )
    };
    let refused = |kind, until| {
        let error = set(kind, until).unwrap_err();
        assert_eq!(error.code().as_str(), "ZU354", "{error}");
    };
    refused(MarkKind::Release, None);
    refused(MarkKind::Keep, Some(Duration::ZERO));
    // What is kept for an hour can be kept for longer, not for less.
    set(MarkKind::Keep, Some(HOUR)).unwrap();
    refused(MarkKind::Keep, Some(HOUR / 2));
    set(MarkKind::Keep, None).unwrap();
    refused(MarkKind::Keep, None);
    let refused = expiry.apply(&plan, scene.remover().as_ref()).unwrap_err();
    assert_eq!(refused.code().as_str(), "ZI351", "{refused}");
    assert_eq!(scene.check().len(), 121);
    let plan = expiry.plan().unwrap();
    expiry.apply(&plan, scene.remover().as_ref()).unwrap();
    assert!(scene.check().contains(&point));
    set(MarkKind::Release, None).unwrap();
    // A mark ends by itself, too: from then on it is as if it were released.
    set(MarkKind::Keep, Some(HOUR / 2)).unwrap();
    assert!(
        expiry
            .plan()
            .unwrap()
            .points()
            .all(|(_, one)| one.point != point)
    );
    scene.pass(HOUR / 2);
    let plan = expiry.plan().unwrap();
    assert!(plan.points().any(|(_, one)| one.point == point));
    expiry.apply(&plan, scene.remover().as_ref()).unwrap();
    assert!(!scene.check().contains(&point));
}

#[test]
fn a_clock_that_jumps_by_years_removes_nothing() {
    let scene = sixty_days();
    let plan = scene.expiry(rules()).plan().unwrap();
    let before = scene.objects();
    let year = i64::try_from(Duration::from_secs(365 * 86_400).as_micros()).unwrap();
    let now = scene.now.load(Ordering::Relaxed);
    for (local, storage) in [
        (now + 2 * year, now),
        (now - 2 * year, now),
        (now, now + 2 * year),
        (now, now - 2 * year),
        (now + 2 * year, now + 2 * year),
        (now - 2 * year, now - 2 * year),
    ] {
        scene.now.store(storage, Ordering::Relaxed);
        let mut expiry = scene.expiry(rules());
        let local = Arc::new(AtomicI64::new(local));
        expiry.clock = clock(&local);
        for refused in [
            expiry.plan().map(|_| ()),
            expiry.apply(&plan, scene.remover().as_ref()).map(|_| ()),
        ] {
            assert_eq!(refused.unwrap_err().code().as_str(), "ZS351");
        }
        assert_eq!(scene.objects(), before);
        drop(expiry);
    }
}

#[test]
fn what_the_storage_keeps_and_what_cannot_be_read_stays() {
    let scene = sixty_days();
    let expiry = scene.expiry(rules());
    let plan = expiry.plan().unwrap();
    // One manifest of a point that was to go is locked by the storage: the point stays whole.
    let (_, going) = plan.points().next().unwrap();
    let objects = scene.objects();
    let is_its = |key: &&ObjectKey| {
        key.as_str().contains(going.point.as_str()) && key.name().starts_with("manifest")
    };
    let manifest = objects.iter().find(is_its).unwrap();
    let until = Timestamp::from(std::time::SystemTime::now()).plus(24 * HOUR);
    scene.store.lock_until(manifest, until).unwrap();
    let refused = expiry.apply(&plan, scene.remover().as_ref()).unwrap_err();
    assert_eq!(refused.code().as_str(), "ZI351", "{refused}");
    let plan = expiry.plan().unwrap();
    let locked = plan.sources[0]
        .points
        .iter()
        .find(|point| point.point == going.point);
    assert_eq!(locked.unwrap().fate, Fate::Locked);
    expiry.apply(&plan, scene.remover().as_ref()).unwrap();
    assert!(scene.check().contains(&going.point));
    // A manifest that cannot be read: nobody knows what it needs, so nothing goes.
    let path = scene.root().join(
        scene
            .objects()
            .iter()
            .find(|key| key.name().starts_with("manifest"))
            .unwrap()
            .as_str(),
    );
    let content = std::fs::read(&path).unwrap();
    let mut wrong = content.clone();
    *wrong.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, wrong).unwrap();
    drop(expiry);
    let mut expiry = scene.expiry(KeepRules {
        daily_for: Span::ZERO,
        ..rules()
    });
    expiry.reader = scene.reader();
    assert!(expiry.plan().is_err());
}
