//! One line of `holdfast judge sql`: a text in, a verdict out, nothing executed.

use serde::Serialize;

use holdfast_core::{
    Action, ActionId, DigestBuilder, DoorKind, Effect, Principal, Timestamp, Untrusted,
};

use crate::policy::{Facts, Policy};
use crate::sql::{SqlContext, judge};

/// The answer to one line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgeLine {
    /// The id of the question, unchanged.
    pub id: serde_json::Value,
    /// `allow`, `hold` or `deny`.
    pub verdict: &'static str,
    /// The distinct effects, from harmless to worst.
    pub effects: Vec<Effect>,
    /// Why.
    pub because: Vec<String>,
    /// Only execution can tell what it does, so the gate measures it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub static_only: bool,
}

/// Judges a text as an agent's on production would be judged before it runs, without a database.
///
/// No proof of a way back is at hand, and no row has been counted.
pub fn verdict_line(id: serde_json::Value, sql: &str, policy: &Policy) -> JudgeLine {
    let judgement = judge(sql.as_bytes(), &SqlContext::default());
    let effects = judgement.effects();
    let action = Action {
        id: ActionId::from_random([0; 12]),
        principal: Principal::agent("judge"),
        lease: None,
        source: None,
        door: DoorKind::Pg,
        summary: Untrusted(sql).to_string(),
        digest: DigestBuilder::new("holdfast sql 1")
            .field(sql.as_bytes())
            .finish(),
        at: Timestamp(0),
    };
    let mut facts = Facts::unmeasured("production", DoorKind::Pg);
    let mut doing = judgement
        .statements
        .iter()
        .filter(|statement| statement.effects.worst() > Some(Effect::Read))
        .peekable();
    facts.additive = doing.peek().is_some() && doing.all(|statement| statement.additive);
    let verdict = policy.verdict(&action, &effects, &facts);
    let because = effects.impacts().iter();
    let because = because.map(|impact| match impact.resources.first() {
        Some(resource) if impact.effect > Effect::Read && !resource.name.is_empty() => {
            let name = Untrusted(&resource.name);
            format!("{}: {} (`{name}`)", impact.effect, impact.because)
        }
        _ => format!("{}: {}", impact.effect, impact.because),
    });
    JudgeLine {
        id,
        verdict: verdict.word(),
        effects: effects.kinds(),
        because: because.collect(),
        static_only: judgement.statements.iter().any(|x| x.static_only),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_an_agent_on_production_would_be_told() {
        let policy = Policy::shipped();
        let rows = [
            ("SELECT 1", "allow", r#"["read"]"#, false),
            ("BEGIN", "allow", "[]", false),
            ("INSERT INTO t VALUES (1)", "allow", r#"["write"]"#, true),
            ("CREATE TABLE t (id int)", "allow", r#"["write"]"#, true),
            ("DROP TABLE t", "hold", r#"["destroy"]"#, false),
            (
                "COMMIT; DROP SCHEMA public CASCADE",
                "hold",
                r#"["destroy"]"#,
                false,
            ),
            (
                "COPY t TO PROGRAM 'sh'",
                "deny",
                r#"["read","escape"]"#,
                false,
            ),
            ("this is no SQL", "hold", r#"["unknown"]"#, true),
        ];
        for (sql, verdict, effects, static_only) in rows {
            let line = verdict_line(serde_json::json!(7), sql, &policy);
            assert_eq!(line.verdict, verdict, "{sql}");
            assert_eq!(
                serde_json::to_string(&line.effects).unwrap(),
                effects,
                "{sql}"
            );
            assert_eq!(line.static_only, static_only, "{sql}");
            assert_eq!(line.id, 7);
        }
    }

    #[test]
    fn a_line_names_the_thing_and_is_silent_about_static_only_otherwise() {
        let line = verdict_line(serde_json::json!("a"), "DROP TABLE s.t", &Policy::shipped());
        let json = serde_json::to_string(&line).unwrap();
        let expected = r#"{"id":"a","verdict":"hold","effects":["destroy"],"because":["destroy: a table and its rows are gone (`s.t`)"]}"#;
        assert_eq!(json, expected);
    }
}
