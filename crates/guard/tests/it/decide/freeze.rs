//! Frozen: everything denied to agents until a human thaws it.

use holdfast_core::{Code, Coded, Effect};

use super::bench::{Temporary, asked, human};

#[test]
fn when_frozen_every_effect_is_refused_and_no_approval_is_used_up() {
    let bench = Temporary::new();
    let drop = asked(Effect::Destroy, "DROP TABLE orders");
    let id = bench.held(&drop);
    bench.approve(&id);
    bench.gatekeeper.set_frozen(true, human()).unwrap();
    for effect in Effect::ALL {
        let refusal = bench.refused(&asked(effect, "something"));
        assert_eq!(refusal.code, Code::ZH004, "{effect}");
        assert!(refusal.hold.is_none());
    }
    assert_eq!(bench.refused(&drop).code, Code::ZH004);
    assert_eq!(bench.word(&id), "approved");
    bench.gatekeeper.set_frozen(false, human()).unwrap();
    bench.permitted(&drop);
    assert_eq!(bench.kinds("agents"), ["agents.frozen", "agents.thawed"]);
}

#[test]
fn a_freeze_outlives_the_process_and_a_thaw_does_too() {
    let bench = Temporary::new();
    bench.gatekeeper.set_frozen(true, human()).unwrap();
    let bench = bench.restart();
    assert!(bench.gatekeeper.is_frozen());
    assert_eq!(
        bench.refused(&asked(Effect::Read, "SELECT 1")).code,
        Code::ZH004
    );
    bench.gatekeeper.set_frozen(false, human()).unwrap();
    let bench = bench.restart();
    bench.permitted(&asked(Effect::Read, "SELECT 1"));
}

#[test]
fn a_freeze_that_cannot_be_recorded_is_in_force_also_after_a_restart() {
    let bench = Temporary::new();
    bench.break_ledger();
    let error = bench.gatekeeper.set_frozen(true, human()).unwrap_err();
    assert_eq!(error.code(), Code::ZS201);
    assert!(bench.gatekeeper.is_frozen());
    bench.mend_ledger();
    let bench = bench.restart();
    assert!(bench.gatekeeper.is_frozen());
    // A thaw that cannot be recorded ends nothing.
    bench.break_ledger();
    assert!(bench.gatekeeper.set_frozen(false, human()).is_err());
    assert!(bench.gatekeeper.is_frozen());
    bench.mend_ledger();
    let bench = bench.restart();
    assert!(bench.gatekeeper.is_frozen());
    bench.gatekeeper.set_frozen(false, human()).unwrap();
    assert!(!bench.gatekeeper.is_frozen());
}

#[test]
fn freezing_while_agents_ask_ends_with_everything_refused() {
    let bench = Temporary::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let bench = &bench;
            scope.spawn(move || {
                for _ in 0..20 {
                    let frozen_before = bench.gatekeeper.is_frozen();
                    let text = format!("INSERT {thread}");
                    let decided = bench.gatekeeper.decide(asked(Effect::Write, &text));
                    let permitted = matches!(decided, holdfast_guard::decide::Decision::Forward(_));
                    assert!(!(frozen_before && permitted), "permitted while frozen");
                }
            });
        }
        scope.spawn(|| bench.gatekeeper.set_frozen(true, human()).unwrap());
    });
    assert_eq!(
        bench.refused(&asked(Effect::Write, "INSERT")).code,
        Code::ZH004
    );
}
