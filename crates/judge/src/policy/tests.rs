#![allow(clippy::unwrap_used)]

use std::time::Instant;

use cedar_policy::{Request, Schema};
use holdfast_core::{
    Action, ActionId, DigestBuilder, DoorKind, Effect, Effects, Impact, Principal, Resource,
    RowCount, SourceName, Timestamp, Verdict,
};

use super::request::{Asked, Words};
use super::{Facts, LIMIT_POLICY_BYTES, Policy, PolicyError};

fn action(principal: Principal) -> Action {
    Action {
        id: ActionId::from_random([7; 12]),
        principal,
        lease: None,
        source: Some("prod".parse::<SourceName>().unwrap()),
        door: DoorKind::Pg,
        summary: "test".into(),
        digest: DigestBuilder::new("test").finish(),
        at: Timestamp(0),
    }
}

fn facts() -> Facts {
    Facts::unmeasured("production", DoorKind::Pg)
}

fn one(effect: Effect) -> Effects {
    Effects::one(Impact::new(effect, "a test says so").on(Resource::new("pg:table", "orders")))
}

fn verdict(principal: Principal, effect: Effect, facts: &Facts) -> Verdict {
    Policy::shipped().verdict(&action(principal), &one(effect), facts)
}

#[test]
fn the_shipped_policy_gives_the_verdicts_of_the_design() {
    // effect, agent, service, human; and who may approve: people needed for an agent, a human
    for (effect, agent, service, human) in [
        (Effect::Read, "allow", "allow", "allow"),
        (Effect::Write, "allow", "allow", "allow"),
        (Effect::Interrupt, "hold", "hold", "allow"),
        (Effect::Redirect, "hold", "hold", "hold"),
        (Effect::Escalate, "hold", "hold", "hold"),
        (Effect::Destroy, "hold", "hold", "hold"),
        (Effect::Disarm, "deny", "hold", "hold"),
        (Effect::Escape, "deny", "hold", "hold"),
        (Effect::Unknown, "hold", "hold", "hold"),
    ] {
        for (principal, expected) in [
            (Principal::agent("cursor"), agent),
            (Principal::service("deploy"), service),
            (Principal::human("olga"), human),
        ] {
            for environment in ["production", "staging", "sandbox", "no such word", ""] {
                let facts = Facts::unmeasured(environment, DoorKind::Http);
                let verdict = verdict(principal.clone(), effect, &facts);
                assert_eq!(
                    verdict.word(),
                    expected,
                    "{principal} {effect} {environment}"
                );
                assert!(!verdict.reasons().is_empty());
            }
        }
    }
}

#[test]
fn one_person_is_enough_for_destruction_and_two_for_disarming() {
    for (principal, effect, people, expected) in [
        (Principal::agent("a"), Effect::Destroy, 1, "allow"),
        (Principal::agent("a"), Effect::Unknown, 1, "allow"),
        (Principal::agent("a"), Effect::Disarm, 2, "deny"),
        (Principal::agent("a"), Effect::Escape, 200, "deny"),
        (Principal::service("s"), Effect::Disarm, 1, "hold"),
        (Principal::service("s"), Effect::Disarm, 2, "allow"),
        (Principal::human("h"), Effect::Escape, 1, "hold"),
        (Principal::human("h"), Effect::Escape, 2, "allow"),
    ] {
        let facts = Facts {
            approved_by_people: people,
            ..facts()
        };
        let verdict = verdict(principal.clone(), effect, &facts);
        assert_eq!(verdict.word(), expected, "{principal} {effect} {people}");
    }
}

#[test]
fn a_hundred_rows_pass_and_a_hundred_and_one_do_not() {
    for (transaction, hour, expected) in [
        (0, 0, "allow"),
        (100, 100, "allow"),
        (101, 101, "hold"),
        (1, 250, "allow"),
        (1, 251, "hold"),
        (u64::MAX, u64::MAX, "hold"),
    ] {
        let facts = Facts {
            rows_transaction: transaction,
            rows_lease_hour: hour,
            ..facts()
        };
        let agent = verdict(Principal::agent("a"), Effect::Write, &facts);
        assert_eq!(agent.word(), expected, "{transaction} {hour}");
        let approved = Facts {
            approved_by_people: 1,
            ..facts
        };
        let agent = verdict(Principal::agent("a"), Effect::Write, &approved);
        assert_eq!(agent.word(), "allow", "{transaction} {hour}");
    }
    let sandbox = Facts {
        rows_transaction: 100_000,
        ..Facts::unmeasured("sandbox", DoorKind::Pg)
    };
    let agent = verdict(Principal::agent("a"), Effect::Write, &sandbox);
    assert_eq!(agent.word(), "allow");
}

#[test]
fn a_proven_way_back_alone_does_not_allow_destruction() {
    let facts = Facts {
        way_back_proven: true,
        ..facts()
    };
    let agent = verdict(Principal::agent("a"), Effect::Destroy, &facts);
    assert_eq!(agent.word(), "hold");
}

#[test]
fn the_worst_impact_decides_and_says_why() {
    let effects: Effects = [
        Impact::new(Effect::Read, "reads `a`"),
        Impact::new(Effect::Destroy, "DROP TABLE removes `b`"),
        Impact::new(Effect::Write, "writes `c`"),
    ]
    .into_iter()
    .collect();
    let verdict = Policy::shipped().verdict(&action(Principal::agent("a")), &effects, &facts());
    let Verdict::Hold(reasons) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(reasons.len(), 1);
    assert_eq!(reasons[0].policy, "agents-ask");
    assert_eq!(
        reasons[0].text,
        "destroy: DROP TABLE removes `b`; a person must approve it"
    );
}

#[test]
fn nothing_to_do_is_allowed() {
    let verdict =
        Policy::shipped().verdict(&action(Principal::agent("a")), &Effects::none(), &facts());
    assert_eq!(verdict.word(), "allow");
}

fn refused(text: &str) -> PolicyError {
    Policy::parse(text).expect_err(text)
}

#[test]
fn a_malformed_policy_is_refused_with_a_reason() {
    let permit = |condition: &str| {
        format!(
            "@id(\"x\") @message(\"m\") permit (principal is Agent, action == Action::\"read\", \
             resource) when {{ {condition} }};"
        )
    };
    assert!(Policy::parse(&permit("context.rowsTransaction < 5")).is_ok());
    assert!(Policy::parse(&permit("context has rows && context.rows < 5")).is_ok());
    assert!(Policy::parse(&permit("resource in Environment::\"staging\"")).is_ok());
    for (text, part) in [
        ("permit (".to_owned(), "not Cedar"),
        ("permit (principal, action, resource);".to_owned(), "@id"),
        (
            "@id(\"x\") permit (principal, action, resource);".to_owned(),
            "@message",
        ),
        (
            "@id(\"holdfast\") @message(\"m\") permit (principal, action, resource);".to_owned(),
            "@id",
        ),
        (
            "@id(\"x\") @message(\"m\") permit (principal == ?principal, action, resource);"
                .to_owned(),
            "template",
        ),
        (permit("context.rowz < 5"), "rowz"),
        (permit("context.rows < 5"), "rows"),
        (permit("context.approved < 5"), "schema"),
        (permit("principal.name == \"x\""), "schema"),
        (permit("resource in Team::\"x\""), "schema"),
        (permit("resource is Agent"), "schema"),
        (
            "@id(\"x\") @message(\"m\") permit (principal, action == Action::\"reed\", resource);"
                .to_owned(),
            "reed",
        ),
        ("x".repeat(LIMIT_POLICY_BYTES + 1), "bytes"),
    ] {
        let error = refused(&text).to_string();
        assert!(error.contains(part), "{error}");
        assert!(error.contains("not loaded"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let twice = permit("true") + &permit("true");
    assert!(refused(&twice).to_string().contains("two policies"));
}

#[test]
fn no_policy_at_all_denies_everything() {
    let none = Policy::parse("").unwrap();
    for effect in Effect::ALL {
        let verdict = none.verdict(&action(Principal::human("h")), &one(effect), &facts());
        assert_eq!(verdict.word(), "deny", "{effect}");
    }
}

#[test]
fn a_policy_that_errs_refuses_even_what_another_permits() {
    let overflow = "@id(\"x\") @message(\"m\") forbid (principal, action, resource) \
                    when { context.rowsTransaction * 9 > 5 };";
    let both = format!("{}{overflow}", Policy::shipped_text());
    let policy = Policy::parse(&both).unwrap();
    let reads = |rows| {
        let facts = Facts {
            rows_transaction: rows,
            ..facts()
        };
        policy.verdict(&action(Principal::agent("a")), &one(Effect::Read), &facts)
    };
    assert_eq!(reads(0).word(), "allow");
    assert_eq!(reads(1).word(), "deny");
    let erring = reads(u64::MAX);
    assert_eq!(erring.word(), "deny");
    assert!(erring.reasons()[0].text.contains("cannot be evaluated"));
}

#[test]
fn a_policy_can_be_edited_per_environment_and_per_thing() {
    let text = format!(
        "{}
        @id(\"sandbox-free\") @message(\"the sandbox may be broken\")
        permit (principal is Agent, action == Action::\"destroy\", resource in Environment::\"sandbox\");
        @id(\"payments\") @message(\"nobody touches payments\")
        forbid (principal, action == Action::\"write\", resource)
        when {{ context.names.contains(\"public.payments\") }};
        @id(\"night-source\") @message(\"not this one\")
        forbid (principal, action == Action::\"read\", resource == Source::\"other\");",
        Policy::shipped_text()
    );
    let policy = Policy::parse(&text).unwrap();
    let agent = action(Principal::agent("a"));
    let sandbox = Facts::unmeasured("sandbox", DoorKind::Pg);
    assert_eq!(
        policy
            .verdict(&agent, &one(Effect::Destroy), &sandbox)
            .word(),
        "allow"
    );
    assert_eq!(
        policy
            .verdict(&agent, &one(Effect::Destroy), &facts())
            .word(),
        "hold"
    );
    let payments = Effects::one(
        Impact::new(Effect::Write, "w")
            .on(Resource::new("pg:table", "public.payments"))
            .rows(RowCount(1)),
    );
    let verdict = policy.verdict(&agent, &payments, &facts());
    assert_eq!(verdict.word(), "deny");
    assert_eq!(verdict.reasons()[0].policy, "payments");
    assert_eq!(
        policy.verdict(&agent, &one(Effect::Read), &facts()).word(),
        "allow"
    );
}

#[test]
fn requests_have_the_shape_of_the_schema() {
    let schema: Schema = Policy::schema_text().parse().unwrap();
    let words = Words::new().unwrap();
    for principal in [
        Principal::agent("a"),
        Principal::human("h"),
        Principal::service("s"),
    ] {
        for rows in [None, Some(RowCount(3))] {
            for effect in Effect::ALL {
                let action = action(principal.clone());
                let facts = facts();
                let asked = Asked::new(&words, &action, &facts).unwrap();
                let impact = Impact {
                    rows,
                    ..Impact::new(effect, "b")
                };
                let request = asked.request(&words, &impact, 1).unwrap();
                Request::new(
                    request.principal().unwrap().clone(),
                    request.action().unwrap().clone(),
                    request.resource().unwrap().clone(),
                    request.context().unwrap().clone(),
                    Some(&schema),
                )
                .unwrap();
            }
        }
    }
}

#[test]
fn a_verdict_costs_little() {
    let policy = Policy::shipped();
    let agent = action(Principal::agent("a"));
    for (what, effects) in [
        ("read", one(Effect::Read)),
        ("write", one(Effect::Write)),
        ("destroy", one(Effect::Destroy)),
        ("escape", one(Effect::Escape)),
    ] {
        let rounds = 2_000_u32;
        let begun = Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(policy.verdict(&agent, &effects, &facts()));
        }
        let each = begun.elapsed() / rounds;
        println!("verdict {what}: {each:?}");
        assert!(each.as_millis() < 5, "{what} took {each:?}");
    }
}

#[test]
fn the_examples_of_the_document_can_be_used() {
    let document = include_str!("../../../../docs/policy.md");
    let code = document
        .lines()
        .filter_map(|line| line.strip_prefix("    "));
    let examples = code.collect::<Vec<_>>().join("\n");
    assert_eq!(examples.matches("@id(").count(), 2);
    Policy::parse(&examples).unwrap();
}
