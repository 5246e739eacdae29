//! What a row that is new means for others.

use holdfast_core::Effect;

use super::super::Entry;
use super::{
    ADDED, ATTRDEF, ATTRIBUTE, CAST, CLASS, CONSTRAINT, INDEX, INHERITS, Judge, Meaning, OPERATOR,
    POLICY, PROC, REWRITE, STATISTIC, TRIGGER, TYPE,
};

impl Judge<'_> {
    pub(super) fn added(&self, entry: &Entry) -> Option<Meaning> {
        let shared = self.is_shared(entry.parent);
        let call = |because| match self.acts(entry) && shared {
            true => Some((Effect::Escalate, because)),
            false => Some((Effect::Write, ADDED)),
        };
        match entry.catalog {
            CLASS if matches!(entry.letter(0), Some('i' | 'I' | 't')) => None,
            CLASS | TYPE if self.shadows(entry) => Some((
                Effect::Redirect,
                "a relation or type of this name would be found in place of one that is used",
            )),
            ATTRIBUTE if self.acts(entry) && self.keeps_rows(entry) => Some((
                Effect::Escalate,
                "the type of a column calls a function whenever somebody writes to the table",
            )),
            ATTRDEF if entry.letter(0).is_some() && self.replaces_default(entry) => {
                Some((Effect::Interrupt, "what a column holds changes"))
            }
            ATTRDEF => call("a default calls a function whenever somebody writes to the table"),
            // The server itself calls it as well, with the rights of the table's owner.
            INDEX if self.acts(entry) && !self.is_adopted(entry.oid) => Some((
                Effect::Escalate,
                "an index calls a function whenever somebody writes to the table or looks after it",
            )),
            STATISTIC if self.acts(entry) => Some((
                Effect::Escalate,
                "statistics call a function whenever the server looks after the table",
            )),
            CONSTRAINT if shared && self.takes_along(entry) => Some((
                Effect::Escalate,
                "rows of the table would go or change whenever somebody removes rows of another",
            )),
            INHERITS if shared => Some(self.joins(entry)),
            CONSTRAINT if self.acts(entry) && (shared || self.is_old_type(entry.parent)) => Some((
                Effect::Escalate,
                "a constraint calls a function whenever somebody writes to the table",
            )),
            REWRITE if shared => {
                let because = "a rule acts whenever somebody uses the table";
                Some((Effect::Escalate, because))
            }
            TRIGGER if shared && entry.letter(0) == Some('f') => {
                let because = "a trigger acts whenever somebody writes to the table";
                Some((Effect::Escalate, because))
            }
            POLICY if shared => Some((Effect::Escalate, "who sees or changes which rows changes")),
            PROC if entry.letter(0) == Some('t') => {
                let because = "SECURITY DEFINER: whoever calls it acts as its owner";
                Some((Effect::Escalate, because))
            }
            PROC if entry.letter(1) == Some('t') => {
                let because = "LEAKPROOF: it sees rows before row security does";
                Some((Effect::Escalate, because))
            }
            PROC | OPERATOR if self.shadows(entry) => Some((
                Effect::Escalate,
                "a function or operator of this name would be called in place of one that is used",
            )),
            CAST => Some((Effect::Escalate, "a cast changes how values are understood")),
            _ => Some((Effect::Write, ADDED)),
        }
    }

    /// It is a column of a table, and not only one of a type or a view, and the table's own.
    fn keeps_rows(&self, column: &Entry) -> bool {
        let new = self.now.get(&(CLASS, column.parent, 0));
        let known = self.relations.get(&column.parent);
        let is_table = new.is_some_and(|class| matches!(class.letter(0), Some('r' | 'p' | 'm')))
            || known.is_some_and(|one| matches!(one.kind, b'r' | b'p' | b'm'));
        is_table && column.letter(2) == Some('t')
    }

    /// It is new, and a part of something that others know.
    fn is_adopted(&self, oid: u32) -> bool {
        let mut inside = self.sight.inside.iter();
        let joins =
            |one: &Entry| one.catalog == INHERITS && one.oid == oid && self.is_shared(one.parent);
        !self.relations.contains_key(&oid) && inside.any(joins)
    }

    pub(super) fn replaces_default(&self, entry: &Entry) -> bool {
        let mut outside = self.sight.outside.iter();
        outside.any(|one| (one.catalog, one.parent, one.sub) == (ATTRDEF, entry.parent, entry.sub))
    }

    /// A foreign key by which rows that are there go along with those that they point to.
    fn takes_along(&self, entry: &Entry) -> bool {
        let acts = matches!(entry.letter(2), Some('c' | 'd' | 'n'));
        if entry.letter(0) != Some('f') || !acts || entry.letter(3) != Some('t') {
            return false;
        }
        let keys = entry.kind.get(4..).unwrap_or_default();
        let mut keys = keys
            .trim_matches(['{', '}'])
            .split(',')
            .map(|key| key.parse().unwrap_or(0));
        // A column that is new and empty points nowhere.
        let is_empty = |key: i32| {
            let column = (ATTRIBUTE, entry.parent, key);
            let mut inside = self.sight.inside.iter();
            let filled =
                |one: &Entry| (one.catalog, one.parent, one.sub) == (ATTRDEF, entry.parent, key);
            self.now.contains_key(&column)
                && !self.before.contains_key(&column)
                && !inside.any(filled)
        };
        !keys.all(is_empty)
    }

    /// A table becomes a part of one that others use.
    fn joins(&self, entry: &Entry) -> Meaning {
        let mut inside = self.sight.inside.iter();
        let acts = |one: &Entry| match one.catalog {
            TRIGGER => one.letter(0) == Some('f') && one.letter(2) == Some('f'),
            CONSTRAINT => one.letter(3) == Some('t') && self.acts(one),
            ATTRDEF => one.letter(0).is_some() && self.acts(one),
            POLICY | REWRITE => true,
            _ => false,
        };
        let is_armed = self.sight.armed.contains(&entry.oid)
            || inside.any(|one| one.parent == entry.oid && acts(one));
        let parent = self.relations.get(&entry.parent);
        if is_armed {
            let because = "what a new part of a table calls acts whenever somebody uses the table";
            (Effect::Escalate, because)
        } else if self.is_shared(entry.oid) && parent.is_some_and(|one| one.kind == b'r') {
            let because =
                "rows of another table are seen, changed and removed with those of this one";
            (Effect::Redirect, because)
        } else {
            (Effect::Write, ADDED)
        }
    }

    /// A domain that others know already.
    fn is_old_type(&self, oid: u32) -> bool {
        let is_new =
            self.now.contains_key(&(TYPE, oid, 0)) && !self.before.contains_key(&(TYPE, oid, 0));
        !is_new && !self.relations.contains_key(&oid) && oid != 0 && !self.is_new_relation(oid)
    }

    fn is_new_relation(&self, oid: u32) -> bool {
        self.now.contains_key(&(CLASS, oid, 0)) && !self.before.contains_key(&(CLASS, oid, 0))
    }
}
