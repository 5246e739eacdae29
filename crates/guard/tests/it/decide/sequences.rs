//! Any order of asking, approving, denying, freezing, restarting and losing the way back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::{Code, Effect, HoldId, LeaseId, NoWayBack};
use holdfast_guard::clock;
use holdfast_guard::decide::{Asked, Decision};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Knows, Temporary, asked, human, moved, prod, under};

/// What is asked: which action, whether production has moved, under which lease.
type Wanted = (usize, bool, usize);

const EFFECTS: [Effect; 5] = [
    Effect::Read,
    Effect::Write,
    Effect::Interrupt,
    Effect::Destroy,
    Effect::Disarm,
];

/// What ought to be, kept beside the real gatekeeper.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<Wanted, HoldId>,
    approved: BTreeMap<Wanted, HoldId>,
    ended: BTreeSet<HoldId>,
    frozen: bool,
    proven: bool,
    permits: usize,
    approvals: usize,
}

fn wanted(rng: &mut SmallRng) -> Wanted {
    (
        rng.random_range(0..EFFECTS.len()),
        rng.random_bool(0.3),
        rng.random_range(0..2),
    )
}

fn build(wanted: Wanted, leases: &[LeaseId]) -> Asked {
    let (effect, has_moved, lease) = wanted;
    let asked = asked(EFFECTS[effect], &format!("do {}", EFFECTS[effect]));
    let asked = if has_moved { moved(asked) } else { asked };
    under(asked, &leases[lease])
}

impl Model {
    /// What asking must give now: `None` for a permit, or the code of the refusal.
    fn expects(&self, wanted: Wanted) -> Option<Code> {
        let effect = EFFECTS[wanted.0];
        if self.frozen {
            return Some(Code::ZH004);
        }
        match effect {
            Effect::Read | Effect::Write => None,
            Effect::Disarm => Some(Code::ZH002),
            _ if !self.approved.contains_key(&wanted) => Some(Code::ZH001),
            _ if effect.is_irreversible() && !self.proven => Some(Code::ZH003),
            _ => None,
        }
    }

    fn ask(&mut self, bench: &Temporary, wanted: Wanted, leases: &[LeaseId]) {
        let expected = self.expects(wanted);
        match (bench.gatekeeper.decide(build(wanted, leases)), expected) {
            (Decision::Forward(permit), None) => {
                let effect = EFFECTS[wanted.0];
                assert_eq!(permit.way_back().is_some(), effect.is_irreversible());
                if let Some(id) = self.approved.remove(&wanted) {
                    self.permits += 1;
                    self.ended.insert(id);
                }
            }
            (Decision::Refused(refusal), Some(code)) => {
                assert_eq!(refusal.code, code, "{wanted:?}: {refusal:?}");
                if code == Code::ZH001 {
                    let id = refusal.hold.unwrap();
                    assert!(!self.ended.contains(&id), "an ended hold came back");
                    let known = self.waiting.entry(wanted).or_insert_with(|| id.clone());
                    assert_eq!(*known, id);
                }
            }
            (decision, expected) => panic!("{wanted:?}: {decision:?}, expected {expected:?}"),
        }
    }

    fn decide(&mut self, bench: &Temporary, yes: bool) {
        let Some((wanted, id)) = self.waiting.pop_first() else {
            return;
        };
        if yes && !self.approved.contains_key(&wanted) {
            bench.approve(&id);
            self.approvals += 1;
            self.approved.insert(wanted, id);
        } else {
            let holds = bench.gatekeeper.holds();
            holds.deny(&id, human(), clock::now()).unwrap();
            self.ended.insert(id);
        }
    }
}

#[test]
fn in_any_order_a_permit_needs_its_own_unspent_approval_and_a_way_back() {
    let mut permits = 0;
    for seed in 0..5 {
        println!("seed {seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bench = Temporary::new();
        let leases = [(); 2].map(|()| bench.issue(Duration::from_secs(600)).lease.id);
        let mut model = Model {
            proven: true,
            ..Model::default()
        };
        for _ in 0..200 {
            match rng.random_range(0..100) {
                0..70 => model.ask(&bench, wanted(&mut rng), &leases),
                70..84 => model.decide(&bench, true),
                84..88 => model.decide(&bench, false),
                88..93 => {
                    model.frozen = !model.frozen && rng.random_bool(0.5);
                    bench.gatekeeper.set_frozen(model.frozen, human()).unwrap();
                }
                93..98 => {
                    model.proven = rng.random_bool(0.6);
                    let gone = Knows::Nothing(NoWayBack::NeverProven(prod()));
                    let knows = Knows::Proof("prod", Duration::ZERO);
                    bench.knows(if model.proven { knows } else { gone });
                }
                _ => {
                    bench = bench.restart();
                    model.proven = true;
                }
            }
        }
        assert!(model.permits <= model.approvals);
        permits += model.permits;
    }
    assert!(permits > 15, "too little happened: {permits}");
}
