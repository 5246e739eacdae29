//! What ran in a transaction, kept as it was sent, so that a hold of it can be rehearsed.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_core::{
    BoundParameters, Digest, Effect, HoldId, Lsn, RehearsalFrame, RehearsalRequest, RehearsalStep,
    SourceName, Verbatim,
};
use holdfast_judge::sql::StatementKind;

use super::super::known::Known;
use super::Session;
use super::plan::Ran;
use crate::limits::{
    REHEARSAL_BYTES_MAX, REHEARSAL_PARAMETERS_BYTES_MAX, REHEARSAL_SETTINGS_MAX,
    REHEARSAL_STEPS_MAX,
};
use crate::rehearsal::Wanted;

/// Parameters as the client bound them.
#[derive(Debug)]
pub(super) struct Parameters {
    types: Bytes,
    /// `None` when they are too long to be kept.
    values: Option<Bytes>,
}

impl Parameters {
    /// Copies them, unless they are too long.
    pub(super) fn new(types: Bytes, values: &[u8]) -> Self {
        let values = (values.len() <= REHEARSAL_PARAMETERS_BYTES_MAX)
            .then(|| Bytes::copy_from_slice(values));
        Self { types, values }
    }
}

/// What ran, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    steps: Vec<RehearsalStep>,
    bytes: usize,
    /// Why it cannot be repeated.
    lost: Option<&'static str>,
    leaves: bool,
}

impl Script {
    /// Adds what is about to run.
    pub(super) fn add(&mut self, ran: &Ran) {
        if self.lost.is_some() {
            return;
        }
        match step(ran) {
            Err(why) => self.lose(why),
            Ok(step) => {
                let bound = step.parameters.as_ref();
                let bound = bound.map_or(0, |bound| bound.values.0.len());
                let bytes = step.text.0.len().saturating_add(bound);
                self.bytes = self.bytes.saturating_add(bytes);
                self.steps.push(step);
                if self.bytes > REHEARSAL_BYTES_MAX || self.steps.len() > REHEARSAL_STEPS_MAX {
                    self.lose("the transaction is too long to be kept for a rehearsal");
                }
            }
        }
        self.leaves |= does(ran, Effect::Escape);
    }

    fn lose(&mut self, why: &'static str) {
        self.lost = Some(why);
        self.steps = Vec::new();
    }
}

/// Settings of the session, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<RehearsalStep>);

impl Settings {
    /// Adds every `SET` and `RESET` of a text.
    pub(super) fn add(&mut self, ran: &Ran) {
        for (at, statement) in ran.statements().iter().enumerate() {
            if statement.kind != StatementKind::Set {
                continue;
            }
            let Some(Ok(step)) = ran.one(at).map(|one| step(&one)) else {
                continue;
            };
            if step.text.0.len() > SETTING_BYTES_MAX {
                continue;
            }
            self.0.retain(|earlier| *earlier != step);
            if self.0.len() >= REHEARSAL_SETTINGS_MAX {
                self.0.remove(0);
            }
            self.0.push(step);
        }
    }
}

/// A longer setting is not kept.
const SETTING_BYTES_MAX: usize = 4 << 10;

fn step(ran: &Ran) -> Result<RehearsalStep, &'static str> {
    if ran.known.is_none() {
        return Err("the text of a prepared statement is not known");
    }
    let parameters = match &ran.parameters {
        None => None,
        Some(bound) => {
            let values = bound.values.as_ref();
            let values = values.ok_or("its parameters are too long to be kept for a rehearsal")?;
            Some(BoundParameters {
                types: Verbatim(bound.types.to_vec()),
                values: Verbatim(values.to_vec()),
            })
        }
    };
    Ok(RehearsalStep {
        text: Verbatim(ran.text().to_vec()),
        parameters,
    })
}

/// A rehearsal but for the hold that it is for.
pub(super) struct Rehearsing {
    script: Script,
    frame: RehearsalFrame,
    source: SourceName,
    database: String,
    role: Option<String>,
    session: Vec<RehearsalStep>,
}

impl Rehearsing {
    /// Returns what is to be rehearsed, or why it cannot be.
    pub(super) fn wanted(self, hold: &HoldId, action: Digest, after: Option<Lsn>) -> Wanted {
        if let Some(why) = self.script.lost {
            return Err(why.to_owned());
        }
        if self.script.steps.is_empty() {
            return Err("nothing of what ran was kept".to_owned());
        }
        Ok(RehearsalRequest {
            hold: hold.clone(),
            action,
            source: self.source,
            database: self.database,
            role: self.role.ok_or("the lease has no role")?,
            leaves: self.script.leaves,
            after,
            frame: self.frame,
            session: self.session,
            steps: self.script.steps,
        })
    }
}

impl Session {
    /// Notes the settings that a text makes on its short way.
    pub(super) fn note_settings(&mut self, known: &Arc<Known>) {
        let mut statements = known.judgement.statements.iter();
        if statements.any(|one| one.kind == StatementKind::Set) {
            self.settings.add(&Ran::whole(known));
        }
    }

    /// Prepares the rehearsal of the transaction that is open.
    pub(super) fn rehearse_open(&self) -> Rehearsing {
        let script = self.transaction.as_ref().map(|open| open.script.clone());
        self.rehearsing(script.unwrap_or_default(), RehearsalFrame::Transaction)
    }

    /// Prepares the rehearsal of a statement that is decided before it starts.
    pub(super) fn rehearse_before(&self, ran: &Ran) -> Rehearsing {
        let open = self.transaction.as_ref().map(|open| open.script.clone());
        let frame = match open.is_none() && ran.is_alone() {
            true => RehearsalFrame::Bare,
            false => RehearsalFrame::Transaction,
        };
        let mut script = open.unwrap_or_default();
        script.add(ran);
        // It has not run on production, so nothing is known of what it does beyond its text.
        script.leaves |= does(ran, Effect::Unknown);
        self.rehearsing(script, frame)
    }

    fn rehearsing(&self, script: Script, frame: RehearsalFrame) -> Rehearsing {
        Rehearsing {
            script,
            frame,
            source: self.source.name.clone(),
            database: self.database.clone(),
            role: self.lease.pg.as_ref().map(|pg| pg.role.clone()),
            session: self.settings.0.clone(),
        }
    }
}

fn does(ran: &Ran, effect: Effect) -> bool {
    ran.statements()
        .iter()
        .any(|one| one.effects.contains(effect))
}
