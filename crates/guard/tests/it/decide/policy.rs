//! What policy allows, holds and denies, and what the way back adds to that.

use std::time::Duration;

use holdfast_core::{Code, Effect, Effects, Impact, NoWayBack, Principal, Resource};
use holdfast_guard::limits::PROOF_AGE_MAX;

use super::bench::{Knows, Temporary, asked, prod, rows};

#[test]
fn each_effect_of_an_agent_is_permitted_held_or_denied_as_the_policy_says() {
    for (effect, code, entry) in [
        (Effect::Read, None, None),
        (Effect::Write, None, Some("action.permitted")),
        (Effect::Interrupt, Some(Code::ZH001), Some("action.held")),
        (Effect::Redirect, Some(Code::ZH001), Some("action.held")),
        (Effect::Escalate, Some(Code::ZH001), Some("action.held")),
        (Effect::Destroy, Some(Code::ZH001), Some("action.held")),
        (Effect::Disarm, Some(Code::ZH002), Some("action.denied")),
        (Effect::Escape, Some(Code::ZH002), Some("action.denied")),
        (Effect::Unknown, Some(Code::ZH001), Some("action.held")),
    ] {
        let bench = Temporary::new();
        let asked = asked(effect, "something");
        match code {
            None => assert_eq!(bench.permitted(&asked).digest(), asked.action.digest),
            Some(code) => {
                let refusal = bench.refused(&asked);
                assert_eq!(refusal.code, code, "{effect}");
                assert!(
                    refusal.message.contains("nothing was executed"),
                    "{refusal:?}"
                );
                assert_eq!(refusal.hold.is_some(), code == Code::ZH001, "{effect}");
            }
        }
        let expected: Vec<&str> = entry.into_iter().collect();
        assert_eq!(bench.kinds("action"), expected, "{effect}");
    }
}

#[test]
fn nothing_irreversible_passes_without_a_hold_even_for_people_and_services() {
    for principal in [Principal::human("olga"), Principal::service("deploy")] {
        for effect in Effect::ALL.into_iter().filter(|e| e.is_irreversible()) {
            let bench = Temporary::new();
            let mut asked = asked(effect, "something");
            asked.action.principal = principal.clone();
            assert_eq!(bench.refused(&asked).code, Code::ZH001, "{effect}");
        }
    }
}

#[test]
fn rows_beyond_the_budget_are_held_and_within_it_are_not() {
    for (count, permitted) in [(0, true), (100, true), (101, false), (u64::MAX, false)] {
        let bench = Temporary::new();
        let asked = rows(asked(Effect::Write, "UPDATE orders"), count);
        if permitted {
            bench.permitted(&asked);
        } else {
            bench.held(&asked);
        }
    }
}

/// What the vault knows, what is touched, and a part of the reason.
fn uncovered() -> Vec<(Knows, Vec<Impact>, &'static str)> {
    let ago = |age| Knows::Proof("prod", age);
    let drop = |resource| Impact::new(Effect::Destroy, "DROP TABLE").on(resource);
    let table = || Resource::new("pg:table", "public.orders");
    let ours = || vec![drop(table().of(prod()))];
    let staging = || drop(table().of("staging".parse().unwrap()));
    vec![
        (
            ago(PROOF_AGE_MAX + Duration::from_secs(1)),
            ours(),
            "the newest proof is from",
        ),
        (Knows::ProofOfTomorrow, ours(), "the newest proof is from"),
        (
            Knows::Nothing(NoWayBack::NeverProven(prod())),
            ours(),
            "no restore point",
        ),
        (
            Knows::Nothing(NoWayBack::ProofFailed(prod())),
            ours(),
            "failed",
        ),
        (
            Knows::Nothing(NoWayBack::UnknownSource(prod())),
            ours(),
            "not protected",
        ),
        (
            Knows::Nothing(NoWayBack::Unreachable),
            ours(),
            "does not answer",
        ),
        (
            Knows::Nothing(NoWayBack::CaptureStopped(prod(), Duration::from_secs(9))),
            ours(),
            "stopped",
        ),
        // The proof is of another source than the one that is touched.
        (Knows::Proof("staging", Duration::ZERO), ours(), "orders"),
        // It cannot be told which source would have to come back.
        (ago(Duration::ZERO), vec![drop(table())], "which one source"),
        (
            ago(Duration::ZERO),
            vec![Impact::new(Effect::Unknown, "?")],
            "which one source",
        ),
        (
            ago(Duration::ZERO),
            vec![drop(table().of(prod())), staging()],
            "which one source",
        ),
        // One of two things is ours; the other is nobody's.
        (
            ago(Duration::ZERO),
            vec![drop(table().of(prod())).on(Resource::new("pg:table", "other"))],
            "other",
        ),
    ]
}

#[test]
fn each_missing_way_back_is_refused_with_its_own_next_step() {
    for (missing, step) in [
        (NoWayBack::NeverProven(prod()), "holdfast drill run prod"),
        (NoWayBack::ProofFailed(prod()), "holdfast drill show prod"),
        (NoWayBack::UnknownSource(prod()), "holdfast source add"),
        (NoWayBack::Unreachable, "holdfast up"),
        (
            NoWayBack::CaptureStopped(prod(), Duration::from_secs(9)),
            "holdfast source list",
        ),
    ] {
        let bench = Temporary::new();
        bench.knows(Knows::Nothing(missing));
        let asked = asked(Effect::Destroy, "DROP TABLE orders");
        bench.approve(&bench.held(&asked));
        let refusal = bench.refused(&asked);
        assert_eq!(refusal.code, Code::ZH003, "{refusal:?}");
        assert!(refusal.hint.contains(step), "{step}: {refusal:?}");
    }
    let bench = Temporary::new();
    bench.knows(Knows::Proof("prod", PROOF_AGE_MAX + Duration::from_secs(1)));
    let asked = asked(Effect::Destroy, "DROP TABLE orders");
    bench.approve(&bench.held(&asked));
    let refusal = bench.refused(&asked);
    assert!(refusal.hint.contains("fresh proof"), "{refusal:?}");
}

#[test]
fn an_approval_without_a_way_back_permits_nothing_and_is_not_used_up() {
    for (number, (knows, impacts, part)) in uncovered().into_iter().enumerate() {
        let bench = Temporary::new();
        bench.knows(knows.clone());
        let mut asked = asked(Effect::Destroy, "DROP TABLE orders");
        asked.effects = impacts.into_iter().collect::<Effects>();
        let held = bench.refused(&asked);
        assert!(
            held.message.contains("no proven way back") && held.message.contains(part),
            "{number}: {held:?}"
        );
        let id = held.hold.unwrap();
        bench.approve(&id);
        for _ in 0..2 {
            let refusal = bench.refused(&asked);
            assert_eq!(refusal.code, Code::ZH003, "{number}: {refusal:?}");
            assert!(refusal.message.contains(part), "{number}: {refusal:?}");
            assert_eq!(refusal.hold.as_ref(), Some(&id));
            assert_eq!(bench.word(&id), "approved", "{number}");
        }
        let kinds = bench.kinds("action");
        assert!(!kinds.contains(&"action.permitted".to_owned()), "{kinds:?}");
    }
}

#[test]
fn the_same_approval_passes_once_the_way_back_is_proven() {
    let bench = Temporary::new();
    bench.knows(Knows::Nothing(NoWayBack::NeverProven(prod())));
    let asked = asked(Effect::Destroy, "DROP TABLE orders");
    let id = bench.held(&asked);
    bench.approve(&id);
    assert_eq!(bench.refused(&asked).code, Code::ZH003);
    bench.knows(Knows::Proof("prod", PROOF_AGE_MAX - Duration::from_secs(5)));
    let permit = bench.permitted(&asked);
    assert_eq!(permit.way_back().unwrap().source(), &prod());
    assert_eq!(bench.word(&id), "spent");
}

#[test]
fn what_can_be_undone_needs_no_vault() {
    let bench = Temporary::new();
    bench.knows(Knows::Nothing(NoWayBack::Unreachable));
    assert!(
        bench
            .permitted(&asked(Effect::Read, "SELECT 1"))
            .way_back()
            .is_none()
    );
    bench.permitted(&asked(Effect::Write, "INSERT"));
    let restart = asked(Effect::Interrupt, "restart");
    bench.approve(&bench.held(&restart));
    bench.permitted(&restart);
}
