//! What is found while a statement is gone through.

use std::collections::BTreeSet;

use holdfast_core::{Effect, Effects, Impact, Resource};
use pg_raw_parse::Node;

use super::gathered::Gathered;
use super::{Control, StatementKind};

/// Collects the effects of one statement and the nodes that are still to be looked at.
///
/// The tree is gone through with a list of work instead of by recursion, so that no depth of
/// nesting can exhaust the stack.
pub(super) struct Found<'a> {
    /// The family of the outermost statement.
    pub kind: StatementKind,
    /// What it asks of the transaction.
    pub control: Option<Control>,
    /// The name of the prepared transaction that it makes or ends.
    pub prepared: Option<String>,
    /// The server refuses it inside a transaction block.
    pub needs_no_block: bool,
    /// The server refuses it in a READ ONLY transaction, or READ ONLY does not keep it from acting.
    pub beyond_read_only: bool,
    /// Only execution can tell all that it does.
    pub hidden: bool,
    /// It cannot be taken back by ROLLBACK, or leaves sight.
    pub stop_before: bool,
    /// How many texts lie around this one, such as the body of `DO`.
    pub depth: usize,
    /// How many bytes of inner texts may still be parsed.
    pub allowance: usize,
    work: Vec<Node<'a>>,
    new_tables: Option<&'a BTreeSet<String>>,
    made: Vec<String>,
    gathered: Gathered,
    reads: BTreeSet<String>,
    is_read: bool,
    adds: bool,
    more: bool,
}

impl<'a> Found<'a> {
    /// Begins with nothing found; `new_tables` were made by earlier statements of the same text.
    pub(super) fn new(
        kind: StatementKind,
        new_tables: Option<&'a BTreeSet<String>>,
        depth: usize,
    ) -> Self {
        Self {
            kind,
            control: None,
            prepared: None,
            needs_no_block: false,
            beyond_read_only: false,
            hidden: false,
            stop_before: false,
            depth,
            allowance: 0,
            work: Vec::new(),
            new_tables,
            made: Vec::new(),
            gathered: Gathered::default(),
            reads: BTreeSet::new(),
            is_read: false,
            adds: false,
            more: false,
        }
    }

    /// Puts a node on the list of work.
    pub(super) fn visit(&mut self, node: Node<'a>) {
        if !matches!(node, Node::None) {
            self.work.push(node);
        }
    }

    /// Puts nodes on the list of work.
    pub(super) fn visit_all(&mut self, nodes: impl IntoIterator<Item = Node<'a>>) {
        for node in nodes {
            self.visit(node);
        }
    }

    /// Takes the next node to look at.
    pub(super) fn next(&mut self) -> Option<Node<'a>> {
        self.work.pop()
    }

    /// It reads, perhaps nothing that has a name.
    pub(super) fn reads(&mut self, table: Option<Resource>) {
        self.is_read = true;
        self.reads.extend(table.map(|table| table.name));
    }

    /// It only adds something new.
    pub(super) fn adds(&mut self, resource: Resource, because: &str) {
        self.adds = true;
        self.beyond_read_only = true;
        self.hidden = true;
        self.gathered
            .add(Impact::new(Effect::Write, because).on(resource));
    }

    /// It has an effect on one thing.
    pub(super) fn does(&mut self, effect: Effect, resource: Resource, because: &str) {
        self.push(Impact::new(effect, because).on(resource));
    }

    /// It has an effect on what cannot be named.
    pub(super) fn does_unnamed(&mut self, effect: Effect, because: &str) {
        self.push(Impact::new(effect, because));
    }

    /// It has an effect that no ROLLBACK takes back, or that leaves sight.
    pub(super) fn does_for_good(
        &mut self,
        effect: Effect,
        resource: Option<Resource>,
        because: &str,
    ) {
        self.stop_before = true;
        match resource {
            Some(resource) => self.does(effect, resource, because),
            None => self.does_unnamed(effect, because),
        }
    }

    /// It blocks others who use a table; one that an earlier statement of the text made has no others.
    pub(super) fn blocks(&mut self, table: Resource, because: &str) {
        let is_new = self
            .new_tables
            .is_some_and(|made| made.contains(&table.name));
        match (is_new, self.adds) {
            (true, true) => {}
            (true, false) => self.does(Effect::Write, table, because),
            (false, _) => self.does(Effect::Interrupt, table, because),
        }
    }

    /// Notes that the statement makes this table.
    pub(super) fn makes(&mut self, table: &str) {
        self.made.push(table.to_owned());
    }

    /// Takes over what an inner text does, such as the body of `DO`.
    pub(super) fn takes_over(&mut self, inner: &super::Statement) {
        for impact in inner.effects.impacts() {
            match impact.effect {
                Effect::Read => self.is_read = true,
                _ => self.push(impact.clone()),
            }
        }
        self.stop_before |= inner.stop_before;
        self.beyond_read_only |= !inner.openly_reads;
        self.hidden |= inner.static_only;
    }

    fn push(&mut self, impact: Impact) {
        self.more = true;
        self.beyond_read_only = true;
        self.hidden |= impact.effect == Effect::Write;
        self.gathered.add(impact);
    }

    /// Ends with what was found and the tables that were made.
    pub(super) fn finish(self) -> (Outcome, Vec<String>) {
        let mut effects = Effects::none();
        if self.is_read {
            let tables = self.reads.into_iter();
            let tables = tables.map(|table| Resource::new("pg:table", table));
            effects.push(Impact {
                effect: Effect::Read,
                resources: tables.collect(),
                rows: None,
                because: "it reads".to_owned(),
            });
        }
        effects.extend(self.gathered.finish());
        let outcome = Outcome {
            effects,
            openly_reads: !self.beyond_read_only && self.control.is_none(),
            static_only: self.hidden,
            stop_before: self.stop_before,
            additive: self.adds && !self.more,
        };
        (outcome, self.made)
    }
}

/// What came out for one statement.
pub(super) struct Outcome {
    pub effects: Effects,
    pub openly_reads: bool,
    pub static_only: bool,
    pub stop_before: bool,
    pub additive: bool,
}
