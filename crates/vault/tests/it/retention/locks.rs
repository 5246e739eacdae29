//! Locks that grow with need, and what that costs in requests.

use std::collections::BTreeMap;

use holdfast_vault::retention::LockKeeper;

use super::*;

fn requests(scene: &Scene) -> (u64, u64) {
    let heads = scene.store.heads.swap(0, Ordering::Relaxed);
    (heads, scene.store.locks.swap(0, Ordering::Relaxed))
}

#[test]
fn a_lock_costs_two_requests_a_window_however_many_points_need_it() {
    let mut scene = Scene::new();
    for _ in 0..10 {
        scene.point();
        scene.pass(HOUR);
    }
    let window = Span::days(4);
    let rules = BTreeMap::from([(scene.source(), rules())]);
    let mut keeper = LockKeeper::new(scene.reader(), rules, window);
    requests(&scene);
    let first = keeper.look(scene.store.as_ref()).unwrap();
    // And the marker of the repository.
    let objects = u64::try_from(scene.objects().len()).unwrap() + 1;
    assert_eq!(
        (first.objects, first.asked, first.lengthened),
        (objects, objects, objects)
    );
    let (_, locks) = requests(&scene);
    assert_eq!(locks, objects);
    // Nothing more is asked or set until half of the window has passed.
    for _ in 0..40 {
        scene.pass(HOUR);
        let look = keeper.look(scene.store.as_ref()).unwrap();
        assert_eq!((look.asked, look.lengthened), (0, 0));
    }
    assert_eq!(requests(&scene).1, 0);
    scene.pass(9 * HOUR);
    let second = keeper.look(scene.store.as_ref()).unwrap();
    assert_eq!((second.asked, second.lengthened), (0, objects));
    assert_eq!(second.requests_per_month, objects * 2 * 15);
    // A process that begins anew asks once for each, and lengthens nothing.
    let rules = BTreeMap::from([(scene.source(), super::rules())]);
    let mut other = LockKeeper::new(scene.reader(), rules, window);
    let look = other.look(scene.store.as_ref()).unwrap();
    assert_eq!(look.asked, objects);
}

#[test]
fn what_unexpired_points_need_never_loses_its_lock_and_the_rest_runs_out() {
    let mut scene = Scene::new();
    let window = Span::days(4);
    let rules = BTreeMap::from([(scene.source(), rules())]);
    let mut keeper = LockKeeper::new(scene.reader(), rules, window);
    let mut first = Vec::new();
    for number in 0..160 {
        scene.point();
        if number == 1 {
            first = scene.objects();
        }
        keeper.look(scene.store.as_ref()).unwrap();
        scene.pass(6 * HOUR);
        let now = scene.store.now().unwrap();
        let plan = {
            let mut expiry = scene.expiry(super::rules());
            expiry.lock_for = Span::ZERO;
            scene.pass(Duration::ZERO);
            expiry.reader.points(&scene.source()).unwrap()
        };
        // The newest point's objects are locked for at least half a window, always.
        let newest = &plan.last().unwrap().point;
        let reader = scene.reader();
        for key in reader
            .point(&scene.source(), newest)
            .unwrap()
            .needs()
            .unwrap()
        {
            let until = scene.store.head(&key).unwrap().unwrap().locked_until;
            let is_past = now.plus(24 * HOUR) < Timestamp::from(std::time::SystemTime::now());
            assert!(
                is_past || until.is_some_and(|until| until > now.plus(window.0 / 4)),
                "{key}"
            );
        }
    }
    // The second point of the first day expired long ago; what nobody needs is not locked any more.
    let running_out = first.iter().filter(|key| {
        let head = scene.store.head(key).unwrap().unwrap();
        head.locked_until.is_none()
    });
    assert!(running_out.count() > 0);
}
