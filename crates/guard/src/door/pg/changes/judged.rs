//! What the difference between the two sights of a row means.

mod added;

use std::collections::{HashMap, HashSet};

use holdfast_core::Effect;

use super::super::evidence::Said;
use super::super::outside::Outside;
use super::{CATALOGS, Entry, written};

/// What both sides see, and what else guard's own connection knows about it.
#[derive(Debug, Default)]
pub(in crate::door::pg) struct Sight {
    /// Rows that the transaction wrote, as it sees them.
    pub inside: Vec<Entry>,
    /// The same rows as others see them, and those that it removed.
    pub outside: Vec<Entry>,
    /// Functions whose calls do nothing but compute.
    pub harmless: HashSet<u32>,
    /// The number of the lease's role, as text.
    pub role: String,
    /// Digests of the names of schemas that somebody's names are looked up in.
    pub paths: HashSet<String>,
    /// Digests of the names of schemas, by number.
    pub schemas: HashMap<u32, String>,
    /// Names that are there already.
    pub taken: Vec<Taken>,
    /// Known tables that join others, whose triggers, rules or checks would act there.
    pub armed: HashSet<u32>,
    /// Functions of the lease's own that stand behind the tables of others.
    pub used: HashSet<u32>,
}

/// A relation, function or operator that is there already.
#[derive(Debug)]
pub(in crate::door::pg) struct Taken {
    pub catalog: u32,
    /// Digest of its name.
    pub name: String,
    pub schema: u32,
    pub owner: String,
    /// How many arguments a function takes; `None` when it may be more or less.
    pub arguments: Option<i32>,
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::door::pg) struct Finding {
    pub effect: Effect,
    pub because: &'static str,
    /// The relation that it is about, where others know it.
    pub relation: Option<u32>,
    pub catalog: &'static str,
}

type Meaning = (Effect, &'static str);

/// Concludes what changes for others.
pub(in crate::door::pg) fn conclude(
    sight: &Sight,
    said: &Said,
    relations: &HashMap<u32, Outside>,
) -> Vec<Finding> {
    let judge = Judge {
        sight,
        said,
        relations,
        before: sight.outside.iter().map(|one| (one.key(), one)).collect(),
        now: sight.inside.iter().map(|one| (one.key(), one)).collect(),
    };
    let mut found: Vec<Finding> = Vec::new();
    let mut push = |entry: &Entry, (effect, because): Meaning| {
        let finding = Finding {
            effect,
            because,
            relation: judge.relation(entry),
            catalog: name(entry.catalog),
        };
        if !found.contains(&finding) {
            found.push(finding);
        }
    };
    for entry in &sight.inside {
        if judge.is_temporary(entry) {
            continue;
        }
        match judge.before.get(&entry.key()) {
            None => {
                if let Some(meaning) = judge.added(entry) {
                    push(entry, meaning);
                }
            }
            Some(before) if *before != entry => {
                for meaning in judge.changed(before, entry) {
                    push(entry, meaning);
                }
            }
            Some(_) => {}
        }
    }
    for entry in &sight.outside {
        let is_removed = !judge.now.contains_key(&entry.key()) && judge.removes(entry.catalog);
        if is_removed
            && !judge.is_temporary(entry)
            && let Some(meaning) = judge.removed(entry)
        {
            push(entry, meaning);
        }
    }
    found.extend(judge.unseen());
    found
}

struct Judge<'a> {
    sight: &'a Sight,
    said: &'a Said,
    relations: &'a HashMap<u32, Outside>,
    before: HashMap<(u32, u32, i32), &'a Entry>,
    now: HashMap<(u32, u32, i32), &'a Entry>,
}

impl Judge<'_> {
    /// The relation that an entry is about, where others know it.
    fn relation(&self, entry: &Entry) -> Option<u32> {
        let candidates = match entry.catalog {
            CLASS | SEQUENCE => [entry.oid, entry.oid],
            INHERITS => [entry.oid, entry.parent],
            _ => [entry.parent, entry.parent],
        };
        candidates
            .into_iter()
            .find(|oid| self.relations.contains_key(oid))
    }

    fn is_temporary(&self, entry: &Entry) -> bool {
        let relation = self
            .relation(entry)
            .and_then(|oid| self.relations.get(&oid));
        let of_class = match entry.catalog {
            CLASS | INHERITS => Some(entry.oid),
            ATTRIBUTE | ATTRDEF | CONSTRAINT | INDEX | POLICY | REWRITE | SEQUENCE | STATISTIC
            | TRIGGER => Some(entry.parent),
            _ => None,
        };
        let class = of_class.and_then(|oid| self.now.get(&(CLASS, oid, 0)));
        relation.is_some_and(|one| one.temporary)
            || class.is_some_and(|class| class.letter(1) == Some('t'))
    }

    /// Others know the relation, type or schema that it belongs to.
    fn is_shared(&self, oid: u32) -> bool {
        self.relations.get(&oid).is_some_and(|one| !one.temporary)
    }

    fn is_gone(&self, oid: u32) -> bool {
        let mut locks = self.said.locks.iter();
        locks.any(|lock| lock.oid == oid && !lock.is_there)
    }

    fn removes(&self, catalog: u32) -> bool {
        let mut rows = self.said.rows.iter();
        rows.any(|(oid, rows)| *oid == catalog && rows.removed > 0)
    }

    /// The lease's role made it itself.
    fn is_own(&self, owner: &str) -> bool {
        !owner.is_empty() && owner == self.sight.role
    }

    fn owns_relation(&self, oid: u32) -> bool {
        let relation = self.relations.get(&oid);
        relation.is_some_and(|one| self.is_own(&one.owner))
    }

    fn acts(&self, entry: &Entry) -> bool {
        let mut calls = entry.calls.iter();
        calls.any(|call| !self.sight.harmless.contains(call))
    }

    /// A new name is found where somebody's names are looked up and one like it is used already.
    fn shadows(&self, entry: &Entry) -> bool {
        let new_schema = self.now.get(&(NAMESPACE, entry.parent, 0));
        let schema = new_schema
            .map(|schema| &schema.name)
            .or_else(|| self.sight.schemas.get(&entry.parent));
        let in_path = |schema: &String| self.sight.paths.contains(schema);
        if !schema.is_some_and(in_path) {
            return false;
        }
        let arguments = match entry.letter(3) {
            Some('f') => Some(entry.sub),
            _ => None,
        };
        let mut taken = self.sight.taken.iter();
        taken.any(|one| {
            let found = self.sight.schemas.get(&one.schema).is_none_or(in_path);
            // A table is a type as well.
            let named = |catalog: u32| matches!(catalog, CLASS | TYPE);
            let is_builtin = one.schema == CATALOG && !named(entry.catalog);
            let other = !named(entry.catalog) || one.schema != entry.parent;
            let alike = match (entry.catalog == PROC, arguments, one.arguments) {
                (true, Some(new), Some(old)) => new == old,
                _ => true,
            };
            (one.catalog == entry.catalog || named(one.catalog) && named(entry.catalog))
                && one.name == entry.name
                && (found || is_builtin)
                && other
                && alike
                && !self.is_own(&one.owner)
        })
    }

    fn changed(&self, before: &Entry, now: &Entry) -> Vec<Meaning> {
        let mut found = Vec::new();
        if before.owner != now.owner {
            found.push((Effect::Escalate, "another role becomes the owner"));
        }
        if before.rights != now.rights {
            found.push((Effect::Escalate, "who may do what with it changes"));
        }
        let moves = before.name != now.name || before.parent != now.parent;
        if moves {
            found.push(match now.catalog {
                CONSTRAINT | INDEX | POLICY | REWRITE | TRIGGER => (Effect::Write, RENAMED),
                CLASS if matches!(now.letter(0), Some('i' | 'I')) => (Effect::Write, RENAMED),
                ATTRIBUTE if now.letter(0) == Some('t') => DROPPED_COLUMN,
                PROC if self.is_own(&before.owner) && !self.shadows(now) => {
                    (Effect::Write, RENAMED)
                }
                PROC if self.is_own(&before.owner) => (
                    Effect::Escalate,
                    "a function of this name would be called in place of one that is used",
                ),
                _ => (
                    Effect::Redirect,
                    "whoever uses the old name no longer finds it",
                ),
            });
        }
        if before.kind != now.kind {
            found.extend(self.kind_changed(before, now));
        }
        if before.body != now.body {
            found.extend(self.body_changed(before, now));
        }
        found
    }

    fn kind_changed(&self, before: &Entry, now: &Entry) -> Option<Meaning> {
        let became = |at: usize, letter: char| {
            before.letter(at) != now.letter(at) && now.letter(at) == Some(letter)
        };
        Some(match now.catalog {
            CLASS if before.letter(0) != now.letter(0) => {
                (Effect::Destroy, "it becomes something else")
            }
            CLASS if before.letter(1) != now.letter(1) => {
                (Effect::Disarm, "whether it is in the WAL changes")
            }
            CLASS if became(2, 'f') || became(3, 'f') => {
                (Effect::Disarm, "row security is switched off")
            }
            CLASS if became(2, 't') || became(3, 't') => {
                let because = "rows are no longer seen where no policy allows them";
                (Effect::Interrupt, because)
            }
            CLASS if became(4, 'n') => {
                let because = "copies kept by replication can no longer follow changes";
                (Effect::Disarm, because)
            }
            CLASS if became(5, 't') => (Effect::Destroy, "the table would go together with a type"),
            ATTRIBUTE if became(0, 't') => DROPPED_COLUMN,
            ATTRIBUTE if became(1, 't') => (Effect::Interrupt, "a column no longer takes NULL"),
            CONSTRAINT if became(1, 'f') => {
                let because = "a constraint that kept the rows right no longer holds";
                (Effect::Destroy, because)
            }
            TRIGGER if became(1, 'D') || became(1, 'R') => {
                (Effect::Disarm, "a trigger no longer acts")
            }
            REWRITE if became(2, 'D') || became(2, 'R') => {
                (Effect::Disarm, "a rule no longer acts")
            }
            TRIGGER if matches!(before.letter(1), Some('D' | 'R')) => {
                (Effect::Escalate, "a trigger acts again")
            }
            REWRITE if matches!(before.letter(2), Some('D' | 'R')) => {
                (Effect::Escalate, "a rule acts again")
            }
            // Its body says so as well.
            PROC => return None,
            _ => (Effect::Write, ALTERED),
        })
    }

    fn body_changed(&self, before: &Entry, now: &Entry) -> Option<Meaning> {
        let replaced = "code that others run is replaced";
        Some(match now.catalog {
            ATTRIBUTE if now.letter(0) == Some('t') => DROPPED_COLUMN,
            ATTRIBUTE => (Effect::Interrupt, "what a column holds changes"),
            CLASS if matches!(now.letter(0), Some('v' | 'm')) && !self.is_own(&before.owner) => (
                Effect::Escalate,
                "with whose rights a view reads, or what it lets through, changes",
            ),
            PROC if self.is_own(&before.owner)
                && now.letter(0) == Some('f')
                && !self.sight.used.contains(&now.oid) =>
            {
                (Effect::Write, ALTERED)
            }
            PROC => (Effect::Escalate, replaced),
            REWRITE if self.owns_relation(now.parent) => (Effect::Write, ALTERED),
            REWRITE => (
                Effect::Escalate,
                "what a view shows, or a rule does, is replaced",
            ),
            TRIGGER | POLICY | OPERATOR | CAST => (Effect::Escalate, replaced),
            ATTRDEF if self.acts(now) => (
                Effect::Escalate,
                "a default calls a function whenever somebody writes to the table",
            ),
            INHERITS => (
                Effect::Redirect,
                "rows are no longer seen in the parent table",
            ),
            SEQUENCE => (Effect::Interrupt, "a sequence counts otherwise"),
            TYPE => (Effect::Interrupt, "what a type takes changes"),
            _ => (Effect::Write, ALTERED),
        })
    }

    fn removed(&self, entry: &Entry) -> Option<Meaning> {
        let bound = !matches!(
            entry.catalog,
            PROC | NAMESPACE | TYPE | ENUM | OPERATOR | CAST
        );
        let of_type = entry.catalog == CONSTRAINT && !self.relations.contains_key(&entry.parent);
        if bound && !of_type && (self.is_gone(entry.parent) || !self.is_shared(entry.parent)) {
            return None;
        }
        let gone = |because| Some((Effect::Destroy, because));
        match entry.catalog {
            CLASS | ATTRIBUTE | INDEX | SEQUENCE => None,
            ATTRDEF => {
                let mut now = self.sight.inside.iter();
                let replaced = now.any(|one| {
                    (one.catalog, one.parent, one.sub) == (ATTRDEF, entry.parent, entry.sub)
                });
                let column = self.now.get(&(ATTRIBUTE, entry.parent, entry.sub));
                let is_needed = column.is_some_and(|column| {
                    column.letter(1) == Some('t') && column.letter(3).is_none()
                });
                match (replaced, is_needed) {
                    (true, _) => None,
                    (false, true) => Some((
                        Effect::Interrupt,
                        "who leaves the column out is refused from now on",
                    )),
                    (false, false) => Some((Effect::Write, "a default is gone")),
                }
            }
            CONSTRAINT if of_type && self.type_is_removed(entry.parent) => None,
            CONSTRAINT if entry.letter(0) == Some('t') => None,
            CONSTRAINT if entry.letter(0) == Some('n') => Some((Effect::Write, ALTERED)),
            CONSTRAINT => gone("a constraint that kept the rows right is gone"),
            INHERITS if self.is_gone(entry.oid) || !self.is_shared(entry.oid) => None,
            INHERITS => Some((
                Effect::Redirect,
                "rows are no longer seen in the parent table",
            )),
            TRIGGER if entry.letter(0) == Some('t') => None,
            TRIGGER => Some((Effect::Disarm, "a trigger no longer acts")),
            REWRITE => Some((Effect::Disarm, "a rule no longer acts")),
            POLICY => Some((Effect::Disarm, "a row security policy is gone")),
            PROC | TYPE | OPERATOR if self.is_own(&entry.owner) => Some((Effect::Write, ALTERED)),
            ENUM if self.type_is_removed(entry.parent) => None,
            PROC => gone("a function is gone"),
            NAMESPACE => gone("a schema is gone"),
            _ => gone("structure is gone"),
        }
    }

    fn type_is_removed(&self, oid: u32) -> bool {
        self.before.contains_key(&(TYPE, oid, 0)) && !self.now.contains_key(&(TYPE, oid, 0))
    }

    /// Catalogs in which something changed that neither side shows.
    fn unseen(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        // Of types only those are looked at that do not come and go with a relation.
        for catalog in written(self.said).filter(|catalog| catalog.oid != TYPE) {
            let mut rows = self.said.rows.iter();
            let changes = rows.any(|(oid, rows)| {
                *oid == catalog.oid && rows.inserted == 0 && rows.changed.max(rows.removed) > 0
            });
            let mut shown = self.sight.inside.iter().chain(&self.sight.outside);
            if changes && !shown.any(|entry| entry.catalog == catalog.oid) {
                found.push(Finding {
                    effect: Effect::Unknown,
                    because: "something changes that cannot be told",
                    relation: None,
                    catalog: catalog.name,
                });
            }
        }
        found
    }
}

fn name(catalog: u32) -> &'static str {
    let mut catalogs = CATALOGS.iter();
    catalogs
        .find(|one| one.oid == catalog)
        .map_or("catalog", |one| one.name)
}

const ADDED: &str = "structure is added";
const ALTERED: &str = "structure changes and keeps what it holds";
const RENAMED: &str = "it gets another name that no query uses";
const DROPPED_COLUMN: Meaning = (Effect::Destroy, "a column and its values are gone");

// SOURCE: src/include/catalog/*.h of PostgreSQL 15 and 18: these numbers never change.
const CLASS: u32 = 1259;
const ATTRIBUTE: u32 = 1249;
/// Functions and procedures.
pub(in crate::door::pg) const PROC: u32 = 1255;
const ATTRDEF: u32 = 2604;
const CONSTRAINT: u32 = 2606;
const INDEX: u32 = 2610;
/// Which table is a part of which.
pub(in crate::door::pg) const INHERITS: u32 = 2611;
const REWRITE: u32 = 2618;
const TRIGGER: u32 = 2620;
const POLICY: u32 = 3256;
const NAMESPACE: u32 = 2615;
const TYPE: u32 = 1247;
const ENUM: u32 = 3501;
const SEQUENCE: u32 = 2224;
const OPERATOR: u32 = 2617;
const CAST: u32 = 2605;
const STATISTIC: u32 = 3381;

/// SOURCE: src/include/catalog/pg_namespace.dat: the schema `pg_catalog`.
const CATALOG: u32 = 11;
