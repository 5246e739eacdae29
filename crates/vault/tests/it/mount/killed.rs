//! The process that serves a mount is killed with kill -9.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_vault::mount::sweep;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::scene::Scene;

const FILES: [&str; 4] = ["base/1/10", "base/5/10", "base/5/9", "global/new"];
const BLOCK: usize = 8192;

fn serve(scene: &Scene) -> Child {
    let state = scene.dir.path().join("state");
    crate::keys::keep(&state.join("keys"));
    let own = std::env::current_exe().unwrap();
    let target = own.parent().and_then(Path::parent).unwrap();
    let mut child = Command::new(target.join("examples/mount_one"))
        .args([&state, &scene.dir.path().join("repository")])
        .arg("prod")
        .args([scene.overlay(), scene.mountpoint()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 8];
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"mounted\n");
    child
}

/// Writes blocks and syncs them until the mount is gone; returns what was synced and what was written
/// later.
fn write(scene: &Scene, random: &mut StdRng) -> Written {
    let mut written = Written::default();
    loop {
        let file = FILES[random.random_range(0..FILES.len())];
        let options = OpenOptions::new().write(true).create(true).to_owned();
        let Ok(opened) = options.open(scene.mountpoint().join(file)) else {
            return written;
        };
        let mut fresh = BTreeMap::new();
        for _ in 0..random.random_range(1..6) {
            let block = random.random_range(0..60_u64);
            let mut bytes = vec![0; BLOCK];
            random.fill_bytes(&mut bytes);
            fresh.insert(block, bytes.clone());
            // It may be there, whether or not we are told.
            let later = written.later.entry((file, block)).or_default();
            later.push(bytes.clone());
            if opened.write_all_at(&bytes, block * 8192).is_err() {
                return written;
            }
        }
        if random.random_range(0..3) > 0 {
            continue;
        }
        if opened.sync_data().is_err() {
            return written;
        }
        for ((name, block), later) in &mut written.later {
            if *name == file
                && let Some(newest) = later.pop()
            {
                written.synced.insert((file, *block), newest);
                later.clear();
            }
        }
        written.syncs += 1;
    }
}

#[derive(Default)]
struct Written {
    synced: BTreeMap<(&'static str, u64), Vec<u8>>,
    later: BTreeMap<(&'static str, u64), Vec<Vec<u8>>>,
    syncs: usize,
}

#[test]
fn every_synced_block_survives_kill_9_of_the_serving_process() {
    let scene = Scene::new(11);
    let mut random = StdRng::seed_from_u64(11);
    let mut synced: BTreeMap<(&'static str, u64), Vec<u8>> = BTreeMap::new();
    let mut later: BTreeMap<(&'static str, u64), Vec<Vec<u8>>> = BTreeMap::new();
    let mut syncs = 0;
    for round in 0..6 {
        let mut child = serve(&scene);
        let wait = Duration::from_millis(random.random_range(50..400));
        let written = std::thread::scope(|scope| {
            let killer = scope.spawn(move || {
                // The moment is the test: no condition tells it.
                let began = std::time::Instant::now();
                while began.elapsed() < wait {
                    std::hint::spin_loop();
                }
                child.kill().unwrap();
                child.wait().unwrap();
            });
            let written = write(&scene, &mut random);
            killer.join().unwrap();
            written
        });
        assert_eq!(sweep(scene.dir.path()).unwrap(), [scene.mountpoint()]);
        syncs += written.syncs;
        synced.extend(written.synced);
        later.extend(written.later);
        let mount = scene.mount().unwrap();
        for ((file, block), bytes) in &synced {
            let opened = std::fs::File::open(mount.path().join(file)).unwrap();
            let mut found = vec![0; BLOCK];
            opened.read_exact_at(&mut found, block * 8192).unwrap();
            let others = later.get(&(*file, *block));
            let is_later = others.is_some_and(|others| others.contains(&found));
            assert!(
                found == *bytes || is_later,
                "round {round}: block {block} of {file}"
            );
        }
        mount.close().unwrap();
    }
    assert!(syncs > 5, "only {syncs} syncs");
}
