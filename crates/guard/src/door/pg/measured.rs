//! From what a transaction said and what others see: effects, evidence and rows.

use std::collections::{BTreeMap, HashMap};

use holdfast_core::{Effect, Effects, Evidence, Impact, Resource, RowCount, SourceName};
use holdfast_judge::sql::{Statement, StatementKind};

use super::changes::{self, Sight};
use super::evidence::{Change, FIRST_USER_OID, Locked, Rows, Said, catalog};
use super::outside::Outside;
use crate::limits::{PG_OBJECTS_NAMED_MAX, PG_SMALL_TABLE_BYTES_MAX};

/// What the statements of a transaction openly say.
#[derive(Clone, Debug, Default)]
pub(super) struct Open {
    /// Effects that measuring does not replace.
    pub effects: Effects,
    /// Effects on structure and rights, of which only the measurement tells whether they are there.
    pub said: Vec<Impact>,
    /// It says that it changes or removes all rows.
    pub masses: Vec<Impact>,
    /// Something else than reading was in it.
    pub writes: bool,
    /// Something that writes does more than add.
    pub beyond_adding: bool,
    /// A statement that changes structure is among them.
    pub changes_structure: bool,
    /// The worst that ran of what can do more than its text says.
    pub hidden: Hidden,
}

/// How much of what a transaction did its texts may hide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hidden {
    /// Nothing ran but what it says.
    #[default]
    Nothing,
    /// Rows were read or written: a default, a trigger, a view or an index may run a function.
    Behind,
    /// A function that nobody knows was called.
    Called,
    /// Code was run.
    Code,
}

impl Open {
    /// Adds a statement that is about to run.
    pub(super) fn add(&mut self, statement: &Statement) {
        let rows_tell = counted(statement.kind);
        for impact in statement.effects.impacts() {
            match impact.effect {
                Effect::Read => {}
                Effect::Write if rows_tell || statement.additive => {}
                Effect::Destroy if rows_tell => self.masses.push(impact.clone()),
                effect if measures(statement.kind, effect) => self.said.push(impact.clone()),
                _ => self.effects.push(impact.clone()),
            }
        }
        self.hidden = self.hidden.max(hidden(statement));
        if statement.openly_reads || statement.control.is_some() {
            return;
        }
        self.writes = true;
        self.beyond_adding |= !statement.additive && !rows_tell;
        self.changes_structure |= !rows_tell;
    }

    /// Adds a statement whose text the door does not know.
    pub(super) fn add_unknown(&mut self) {
        self.writes = true;
        self.hidden = Hidden::Code;
    }
}

/// Tells how much a statement can do that its text does not say.
pub(super) fn hidden(statement: &Statement) -> Hidden {
    let reads = statement.effects.contains(Effect::Read);
    match statement.kind {
        StatementKind::Call | StatementKind::Do => Hidden::Code,
        StatementKind::Execute => Hidden::Called,
        _ if statement.openly_reads && statement.static_only => Hidden::Called,
        StatementKind::Index | StatementKind::Maintenance => Hidden::Behind,
        kind if counted(kind) => Hidden::Behind,
        // A new table of what a query returns.
        _ if reads => Hidden::Called,
        _ => Hidden::Nothing,
    }
}

/// The counters of rows tell what such a statement did.
fn counted(kind: StatementKind) -> bool {
    matches!(
        kind,
        StatementKind::Call
            | StatementKind::Copy
            | StatementKind::Cursor
            | StatementKind::Delete
            | StatementKind::Do
            | StatementKind::Execute
            | StatementKind::Explain
            | StatementKind::Insert
            | StatementKind::Merge
            | StatementKind::Prepare
            | StatementKind::Select
            | StatementKind::Update
    )
}

/// What is measured tells whether a statement of such a kind really had such an effect.
fn measures(kind: StatementKind, effect: Effect) -> bool {
    use StatementKind as Kind;
    match effect {
        Effect::Write | Effect::Interrupt => matches!(
            kind,
            Kind::Alter
                | Kind::AlterTable
                | Kind::Comment
                | Kind::Create
                | Kind::Drop
                | Kind::Index
                | Kind::Role
                | Kind::Routine
                | Kind::Trigger
                | Kind::Truncate
        ),
        Effect::Redirect | Effect::Escalate | Effect::Destroy | Effect::Disarm => matches!(
            kind,
            Kind::Alter
                | Kind::AlterTable
                | Kind::Drop
                | Kind::Role
                | Kind::Routine
                | Kind::Trigger
                | Kind::Truncate
        ),
        Effect::Read | Effect::Escape | Effect::Unknown => false,
    }
}

/// What a transaction did.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub effects: Effects,
    pub evidence: Evidence,
    /// Rows inserted, changed and removed.
    pub rows: u64,
    /// Rows changed and removed.
    pub lost: u64,
    pub additive: bool,
}

/// The relations that have to be looked up outside.
pub(super) fn wanted(said: &Said, inside: &[changes::Entry]) -> Vec<u32> {
    let parts = inside.iter().flat_map(|entry| [entry.oid, entry.parent]);
    let mut oids: Vec<u32> = said
        .locks
        .iter()
        .map(|lock| lock.oid)
        .chain(parts)
        .filter(|oid| *oid >= FIRST_USER_OID)
        .collect();
    oids.sort_unstable();
    oids.dedup();
    oids
}

/// Concludes what was done.
pub(super) fn conclude(
    (said, sight): (&Said, Option<&Sight>),
    outside: &HashMap<u32, Outside>,
    open: &Open,
    source: &SourceName,
) -> Measured {
    let mut conclusion = Conclusion {
        said,
        outside,
        source,
        measured: Measured::default(),
        destroyed: 0,
        trusts_words: false,
    };
    conclusion.relations();
    if let Some(sight) = sight {
        conclusion.structure(sight);
    }
    conclusion.catalogs(open, sight.is_some());
    conclusion.words(open);
    conclusion.rows(&sight.map(adopted).unwrap_or_default());
    let mut measured = conclusion.measured;
    if measured.lost > 0 {
        for impact in &open.masses {
            measured.effects.push(sourced(impact, source));
        }
    }
    for impact in open.effects.impacts() {
        measured.effects.push(sourced(impact, source));
    }
    if !said.counts {
        let because = "the counters of rows are off, so it cannot be measured";
        measured.effects.push(Impact::new(Effect::Unknown, because));
    }
    measured.additive = open.writes && !open.beyond_adding && measured.lost == 0;
    bound(&mut measured.evidence);
    measured
}

/// Says of every thing in an impact whose it is.
pub(super) fn sourced(impact: &Impact, source: &SourceName) -> Impact {
    let mut impact = impact.clone();
    for resource in &mut impact.resources {
        resource.source.get_or_insert_with(|| source.clone());
    }
    if impact.resources.is_empty() {
        let whole = Resource::new("pg:source", source.as_str()).of(source.clone());
        impact.resources.push(whole);
    }
    impact
}

struct Conclusion<'a> {
    said: &'a Said,
    outside: &'a HashMap<u32, Outside>,
    source: &'a SourceName,
    measured: Measured,
    destroyed: usize,
    /// What statements openly say was taken for what they did.
    trusts_words: bool,
}

impl Conclusion<'_> {
    /// What is gone, got another file or leads elsewhere.
    fn relations(&mut self) {
        let mut by_oid: BTreeMap<u32, Vec<&Locked>> = BTreeMap::new();
        for lock in &self.said.locks {
            by_oid.entry(lock.oid).or_default().push(lock);
        }
        for (oid, locks) in by_oid {
            let Some(outside) = self.outside.get(&oid).filter(|one| !one.temporary) else {
                continue;
            };
            let Some(lock) = locks.first() else { continue };
            let kept_table = outside.table.is_none_or(|table| {
                !self
                    .said
                    .locks
                    .iter()
                    .any(|l| l.oid == table && !l.is_there)
            });
            match (lock.is_there, outside.kind) {
                (_, b't') => {}
                (false, b'i' | b'I') if !kept_table => {}
                (false, _) => self.destroys(outside, "is dropped", "dropped"),
                (true, b'f') => {
                    let because = format!(
                        "what happens behind the foreign table {} cannot be measured",
                        outside.name
                    );
                    self.push(Effect::Unknown, because, outside, None);
                    self.measured
                        .evidence
                        .push(format!("foreign table {}", outside.name), "written to");
                }
                (true, b'r' | b'p') if lock.file != outside.file => {
                    self.destroys(
                        outside,
                        "gets new contents (TRUNCATE or a rewrite)",
                        "contents replaced",
                    );
                }
                (true, b'm') if lock.file != outside.file => {
                    let because = format!("the materialized view {} is filled again", outside.name);
                    self.push(Effect::Interrupt, because, outside, None);
                }
                (true, b'S') if lock.file != outside.file => {
                    let because = format!("the sequence {} is restarted", outside.name);
                    self.push(Effect::Interrupt, because, outside, None);
                }
                (true, _) => {}
            }
        }
    }

    fn destroys(&mut self, outside: &Outside, what: &str, fact: &str) {
        self.destroyed = self.destroyed.saturating_add(1);
        let rows = outside.rows.filter(|rows| *rows > 0);
        let about = rows.map_or_else(String::new, |rows| format!(", with about {rows} rows"));
        let because = format!("{} {} {what}{about}", kind_word(outside.kind), outside.name);
        self.push(Effect::Destroy, because, outside, rows);
        self.measured.evidence.push(
            format!("{} {}", kind_word(outside.kind), outside.name),
            fact,
        );
    }

    fn push(&mut self, effect: Effect, because: String, outside: &Outside, rows: Option<u64>) {
        let kind = format!("pg:{}", kind_word(outside.kind).replace(' ', "-"));
        let resource = Resource::new(kind, outside.name.clone()).of(self.source.clone());
        let mut impact = Impact::new(effect, because).on(resource);
        impact.rows = rows.map(RowCount);
        self.measured.effects.push(impact);
    }

    /// Rows of tables that others see; a new table or a temporary one loses nobody anything, unless
    /// it is a part of one that is `adopted`.
    fn rows(&mut self, adopted: &HashMap<u32, u32>) {
        let mut rows: Vec<(u32, Rows)> = self.said.rows.clone();
        rows.sort_unstable_by_key(|(oid, _)| *oid);
        for (oid, rows) in rows {
            let whole = adopted
                .get(&oid)
                .filter(|_| !self.outside.contains_key(&oid));
            let outside = self.outside.get(whole.unwrap_or(&oid));
            let Some(outside) = outside.filter(|one| !one.temporary) else {
                continue;
            };
            if !matches!(outside.kind, b'r' | b'p' | b'm') {
                continue;
            }
            let lost = rows.changed.saturating_add(rows.removed);
            let all = rows.inserted.saturating_add(lost);
            self.measured.rows = self.measured.rows.saturating_add(all);
            self.measured.lost = self.measured.lost.saturating_add(lost);
            let because = format!(
                "{} of {}: {} inserted, {} changed, {} removed",
                count(all),
                outside.name,
                rows.inserted,
                rows.changed,
                rows.removed
            );
            self.push(Effect::Write, because, outside, Some(all));
            if is_of_jobs(&outside.name) {
                let because = format!("{} tells the server what to run later", outside.name);
                self.push(Effect::Escalate, because, outside, None);
            }
            let facts = [
                ("inserted in", rows.inserted),
                ("changed in", rows.changed),
                ("removed from", rows.removed),
            ];
            for (what, number) in facts.into_iter().filter(|(_, number)| *number > 0) {
                let fact = format!("rows {what} {}", outside.name);
                self.measured.evidence.push(fact, number.to_string());
            }
        }
    }

    /// What changed row by row, whoever did it.
    fn structure(&mut self, sight: &Sight) {
        for found in changes::conclude(sight, self.said, self.outside) {
            let about = found.relation.and_then(|oid| self.outside.get(&oid));
            let resource = match about {
                Some(about) => {
                    let kind = format!("pg:{}", kind_word(about.kind).replace(' ', "-"));
                    Resource::new(kind, about.name.clone())
                }
                None => Resource::new("pg:catalog", found.catalog),
            };
            let because = match about {
                Some(about) => format!("{} ({} of {})", found.because, found.catalog, about.name),
                None => format!("{} ({})", found.because, found.catalog),
            };
            if found.effect > Effect::Write {
                let fact = about.map_or(found.catalog, |about| about.name.as_str());
                self.measured.evidence.push(found.because, fact);
            }
            let impact = Impact::new(found.effect, because).on(resource.of(self.source.clone()));
            self.measured.effects.push(impact);
        }
    }

    /// What statements openly say, as far as the measurement does not say otherwise.
    fn words(&mut self, open: &Open) {
        let worst = self.measured.effects.worst();
        let is_beyond = self.trusts_words || worst > Some(Effect::Write);
        let interrupts = self.interrupts();
        for impact in &open.said {
            let holds = match impact.effect {
                Effect::Interrupt => interrupts || is_beyond,
                _ => is_beyond,
            };
            if holds {
                self.measured.effects.push(sourced(impact, self.source));
            } else if worst.is_none() && self.said.transaction.is_some() {
                let write = Impact::new(Effect::Write, impact.because.clone());
                self.measured.effects.push(sourced(&write, self.source));
            }
        }
    }

    /// Others cannot write to a table that is not small until the transaction ends.
    fn interrupts(&self) -> bool {
        let mut locks = self.said.locks.iter();
        locks.any(|lock| {
            let known = self.outside.get(&lock.oid).filter(|one| !one.temporary);
            let is_table = known.is_some_and(|one| matches!(one.kind, b'r' | b'm' | b'f'));
            // How much stands behind a foreign table nobody tells.
            let is_here = known.is_some_and(|one| one.kind != b'f');
            let is_small = lock
                .bytes
                .is_some_and(|bytes| bytes <= PG_SMALL_TABLE_BYTES_MAX);
            lock.keeps_writers_out() && is_table && !(is_here && is_small)
        })
    }

    /// A change of a catalog that is not looked at row by row may be the doing of something that no
    /// text says: code was run, or something that was there already changed beside rows and functions.
    fn is_hidden(open: &Open, rows: Rows) -> bool {
        match open.hidden {
            Hidden::Nothing => false,
            Hidden::Behind | Hidden::Called => rows.changed > 0 || rows.removed > 0,
            Hidden::Code => true,
        }
    }

    /// What changed in the catalogs; what the statements do not openly say is unknown.
    fn catalogs(&mut self, open: &Open, has_sight: bool) {
        let mut changed: Vec<(&'static str, Change, Rows)> = self
            .said
            .rows
            .iter()
            .filter_map(|(oid, rows)| catalog(*oid).map(|(name, change)| (name, change, *rows)))
            .collect();
        changed.sort_unstable_by_key(|(name, ..)| *name);
        for (name, _, rows) in &changed {
            let value = format!("{}/{}/{}", rows.inserted, rows.changed, rows.removed);
            self.measured
                .evidence
                .push(format!("rows inserted/changed/removed in {name}"), value);
        }
        let adds = open.changes_structure && !open.beyond_adding;
        for (name, change, rows) in changed {
            if has_sight && changes::CATALOGS.iter().any(|one| one.name == name) {
                continue;
            }
            // Beside what hides something, an open statement explains new things only: the rest may
            // be the doing of what is hidden.
            let is_hidden = Self::is_hidden(open, rows);
            let only_new = rows.removed == 0 && (rows.changed == 0 || !is_hidden);
            let says = !open.effects.impacts().is_empty() || !open.said.is_empty();
            let explained = !is_hidden && (says || self.destroyed > 0);
            let (effect, because) = match change {
                Change::LargeObjects if rows.changed == 0 && rows.removed == 0 => {
                    (Effect::Write, "large objects are added")
                }
                Change::LargeObjects => (Effect::Destroy, "large objects change or are gone"),
                Change::Outside => (Effect::Escape, "a way to another server is made or changed"),
                Change::Power => (
                    Effect::Escalate,
                    "an extension, language or event trigger changes",
                ),
                Change::Rights => (Effect::Escalate, "roles, rights or settings change"),
                Change::Code if name == "pg_aggregate" && rows.changed > 0 => {
                    (Effect::Escalate, "code that others run is replaced")
                }
                Change::Guard if name.starts_with("pg_publication") && rows.inserted > 0 => (
                    Effect::Interrupt,
                    "rows of a published table without a key can no longer be changed",
                ),
                Change::Structure if adds && only_new => (Effect::Write, "structure is added"),
                Change::Guard if adds && only_new && rows.changed == 0 => {
                    (Effect::Write, "structure is added")
                }
                Change::Code if adds && only_new && rows.changed == 0 => {
                    (Effect::Write, "structure is added")
                }
                Change::Structure | Change::Code | Change::Guard if explained => {
                    self.trusts_words = true;
                    continue;
                }
                Change::Guard => (
                    Effect::Unknown,
                    "a trigger, rule, policy or publication changes, and no statement says so for sure",
                ),
                Change::Code => (
                    Effect::Unknown,
                    "code in the database changes, and no statement says so for sure",
                ),
                Change::Structure => (
                    Effect::Unknown,
                    "structure changes, and no statement says so for sure",
                ),
            };
            let resource = Resource::new("pg:catalog", name).of(self.source.clone());
            let impact = Impact::new(effect, format!("{because} ({name})")).on(resource);
            self.measured.effects.push(impact);
        }
    }
}

/// New tables that are parts of others, which whoever uses those sees as well.
fn adopted(sight: &Sight) -> HashMap<u32, u32> {
    let inside = sight.inside.iter();
    inside
        .filter(|entry| entry.catalog == changes::INHERITS)
        .map(|entry| (entry.oid, entry.parent))
        .collect()
}

/// Tables of extensions that run what their rows say.
fn is_of_jobs(table: &str) -> bool {
    let schemas = ["cron.", "pgagent.", "partman.", "timetable."];
    schemas.iter().any(|schema| table.starts_with(schema))
}

fn kind_word(kind: u8) -> &'static str {
    match kind {
        b'r' | b'p' => "table",
        b'i' | b'I' => "index",
        b'S' => "sequence",
        b'v' => "view",
        b'm' => "materialized view",
        b'f' => "foreign table",
        b'c' => "type",
        _ => "relation",
    }
}

fn count(rows: u64) -> String {
    match rows {
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    }
}

/// A schema may have thousands of tables; what an approver reads and the ledger keeps is bounded.
fn bound(evidence: &mut Evidence) {
    let more = evidence.items.len().saturating_sub(PG_OBJECTS_NAMED_MAX);
    if more > 0 {
        // What is left out still binds the approval.
        let whole = evidence.digest().to_string();
        evidence.items.truncate(PG_OBJECTS_NAMED_MAX);
        evidence.push("further facts", format!("{more}, digest of all {whole}"));
    }
}
