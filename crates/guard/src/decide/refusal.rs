//! What a door is told instead of a permit: one refusal for each reason, in words for an agent.

use holdfast_core::{Action, Code, Coded, Effects, ErrorChain, HoldId, PermitRefused, Reason};

use crate::hold::Hold;

/// Why an action must not be performed, in words for the one who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code; also the SQLSTATE.
    pub code: Code,
    /// What happened and what did not.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The hold that a human can decide.
    pub hold: Option<HoldId>,
}

/// Held: a human can approve `hold`, and `missing` says why there is no way back yet.
///
/// `before` is a hold of the same action that was approved when something else was measured, and what
/// has moved since.
pub(super) fn held(
    hold: &Hold,
    missing: Option<&str>,
    before: Option<&(HoldId, Vec<String>)>,
) -> Refusal {
    let because = because(&hold.effects, &hold.reasons);
    let way_back = match missing {
        None => String::new(),
        Some(why) => format!("; there is no proven way back: {why}"),
    };
    let again = match before {
        None => String::new(),
        Some((before, moved)) => {
            let first = moved
                .first()
                .map_or_else(String::new, |first| format!(" ({first})"));
            format!(
                "; {before} was approved for other evidence, and production has moved since{first}"
            )
        }
    };
    let id = &hold.id;
    Refusal {
        code: Code::ZH001,
        message: format!(
            "held for approval: {}: {because}{way_back}{again}; nothing was executed",
            hold.action.summary
        ),
        hint: format!(
            "do not retry until a human has approved it with `holdfast hold approve {id}`; then ask for exactly the same again"
        ),
        hold: Some(id.clone()),
    }
}

/// Denied: an approval would not change it.
pub(super) fn denied(action: &Action, reasons: &[Reason]) -> Refusal {
    let why = reasons
        .first()
        .map_or("policy does not permit it", |reason| reason.text.as_str());
    Refusal {
        code: Code::ZH002,
        message: format!(
            "denied by policy: {}: {why}; nothing was executed",
            action.summary
        ),
        hint: "an approval does not change this; do something else".to_owned(),
        hold: None,
    }
}

/// Frozen: agents cannot even read.
pub(super) fn frozen() -> Refusal {
    Refusal {
        code: Code::ZH004,
        message: "frozen: a human has stopped all agents; nothing was executed".to_owned(),
        hint: "wait until a human runs `holdfast thaw`".to_owned(),
        hold: None,
    }
}

/// Nothing proves that what would be gone can come back; an approval stays as it is.
pub(super) fn no_way_back(
    action: &Action,
    (missing, hint): (&str, &str),
    hold: Option<HoldId>,
) -> Refusal {
    Refusal {
        code: Code::ZH003,
        message: format!(
            "no proven way back: {}: {missing}; nothing was executed",
            action.summary
        ),
        hint: hint.to_owned(),
        hold,
    }
}

/// The permit's own rules refuse it, though policy or a human did not.
pub(super) fn permit_refused(action: &Action, error: PermitRefused) -> Refusal {
    Refusal {
        code: error.code(),
        message: format!("refused: {}: {error}; nothing was executed", action.summary),
        hint: "a human can look at it with `holdfast hold list`".to_owned(),
        hold: None,
    }
}

/// Turns a fault of ours into a refusal: no verdict, no ledger, no state file, no way.
pub(super) fn fault(error: &(impl Coded + 'static)) -> Refusal {
    Refusal {
        code: error.code(),
        message: format!("refused: {}; nothing was executed", ErrorChain(error)),
        hint: error
            .hint()
            .unwrap_or_else(|| "tell the operator of holdfast".to_owned()),
        hold: None,
    }
}

fn because(effects: &Effects, reasons: &[Reason]) -> String {
    let worst = effects.worst();
    let impact = effects
        .impacts()
        .iter()
        .find(|impact| Some(impact.effect) == worst);
    match (impact, reasons.first()) {
        (Some(impact), _) if !impact.because.is_empty() => impact.because.clone(),
        (_, Some(reason)) => reason.text.clone(),
        _ => "policy asks for a human".to_owned(),
    }
}
