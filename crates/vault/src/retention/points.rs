//! Which points stay, and why. Pure: facts and an agreed time in, fates out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::{Lsn, PointId, Timestamp};
use serde::{Deserialize, Serialize};

use super::clock::AgreedTime;
use super::rules::{KeepRules, LogKeep, Rule};
use crate::limits;

/// What is known of a point without reading its map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointFacts {
    /// Its id.
    pub point: PointId,
    /// When it was begun, by the vault's clock.
    pub began: Timestamp,
    /// When it was finished.
    pub ended: Timestamp,
    /// Its log, if it has one; a directory has none.
    pub log: Option<PointLog>,
    /// A drill has restored it and all checks passed.
    pub proven: Option<Timestamp>,
    /// Until when a person said that it is kept, whatever the rules say.
    pub marked: Option<Timestamp>,
    /// The storage itself keeps its manifest until then.
    pub locked_until: Option<Timestamp>,
}

/// Which part of which log a point begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointLog {
    /// PostgreSQL's system identifier.
    pub system_identifier: u64,
    /// The timeline that it was taken on.
    pub timeline: u32,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// Where replay begins.
    pub start: Lsn,
    /// Where it is consistent.
    pub stop: Lsn,
}

/// Why a point stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// No rule keeps it: it may go.
    Goes,
    /// It is younger than the lock window, or the storage still keeps its manifest.
    Locked,
    /// The continuous log of the last `all_for` begins with it.
    LogBase,
    /// A person marked it.
    Marked,
    /// It is the newest.
    Newest,
    /// It is the newest that a drill has restored.
    NewestProven,
    /// Its source has no rules: it is not in the configuration.
    NoRules,
    /// A point that is being made may build on it.
    Parent,
    /// A rule keeps it.
    Rule(Rule),
}

/// A point and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointFate {
    /// The point.
    pub facts: PointFacts,
    /// What becomes of it.
    pub fate: Fate,
    /// All of the log from its start on is kept, not only what makes it consistent.
    pub log: bool,
}

impl PointFate {
    /// Tells whether it stays.
    pub fn stays(&self) -> bool {
        self.fate != Fate::Goes
    }
}

/// Judges all points of a source; the answer is in order of age, oldest first.
///
/// `unfinished` are the times at which points were begun that have no manifest yet: what was the
/// newest point then, or became it since, may be what they build on.
#[must_use]
pub fn judge(
    mut points: Vec<PointFacts>,
    unfinished: &[Timestamp],
    rules: &KeepRules,
    lock_for: Duration,
    now: AgreedTime,
) -> Vec<PointFate> {
    points.sort_by(|a, b| (a.ended, &a.point).cmp(&(b.ended, &b.point)));
    let now = now.at();
    let firsts = firsts(&points);
    let newest = points.last().map(|point| point.point.clone());
    let proven = points
        .iter()
        .filter(|point| point.proven.is_some())
        .map(|point| point.point.clone())
        .next_back();
    let old = points
        .iter()
        .filter(|point| is_older(point.ended, rules.all_for.0, now));
    let base = old.map(|point| point.point.clone()).next_back();
    let succeeded: Vec<Option<Timestamp>> = points
        .iter()
        .skip(1)
        .map(|next| Some(next.ended))
        .chain([None])
        .collect();
    let mut is_continuous = rules.log == LogKeep::Continuous || base.is_none();
    let mut fates = Vec::with_capacity(points.len());
    for (facts, succeeded) in points.into_iter().zip(succeeded) {
        let is = |other: &Option<PointId>| other.as_ref() == Some(&facts.point);
        let begins_log = rules.log == LogKeep::Points && is(&base);
        is_continuous |= begins_log;
        let fate = if facts.marked > Some(now) {
            Fate::Marked
        } else if is(&newest) {
            Fate::Newest
        } else if is(&proven) {
            Fate::NewestProven
        } else if begins_log {
            Fate::LogBase
        } else if let Some(rule) = kept_by(&facts, &firsts, rules, now) {
            Fate::Rule(rule)
        } else if !is_older(facts.ended, lock_for, now) || facts.locked_until > Some(now) {
            Fate::Locked
        } else if may_be_parent(succeeded, unfinished, now) {
            Fate::Parent
        } else {
            Fate::Goes
        };
        fates.push(PointFate {
            facts,
            fate,
            log: is_continuous,
        });
    }
    fates
}

/// Tells whether `at` is at least `age` before `now`.
pub(super) fn is_older(at: Timestamp, age: Duration, now: Timestamp) -> bool {
    at <= now.minus(age)
}

/// Returns the first point of every hour, day and week; `points` are in order of age.
fn firsts(points: &[PointFacts]) -> BTreeSet<(Rule, PointId)> {
    let mut firsts: BTreeMap<(Rule, i64), &PointId> = BTreeMap::new();
    for point in points {
        for rule in Rule::THINNING {
            firsts
                .entry((rule, rule.bucket(point.ended)))
                .or_insert(&point.point);
        }
    }
    firsts
        .into_iter()
        .map(|((rule, _), point)| (rule, point.clone()))
        .collect()
}

/// Returns the densest rule that keeps a point.
///
/// A stretch expires as a whole, so no point takes the place of the one that was kept of it.
fn kept_by(
    point: &PointFacts,
    firsts: &BTreeSet<(Rule, PointId)>,
    rules: &KeepRules,
    now: Timestamp,
) -> Option<Rule> {
    if !is_older(point.ended, rules.all_for.0, now) {
        return Some(Rule::All);
    }
    Rule::THINNING.into_iter().find(|rule| {
        // A rule of no time keeps nothing, also in the stretch that has not ended yet.
        !rule.span(rules).is_zero()
            && firsts.contains(&(*rule, point.point.clone()))
            && !is_older(rule.bucket_end(point.ended), rule.span(rules), now)
    })
}

/// Tells whether a point that is being made may have begun from this one, which was the newest until
/// `succeeded`.
fn may_be_parent(succeeded: Option<Timestamp>, unfinished: &[Timestamp], now: Timestamp) -> bool {
    let Some(succeeded) = succeeded else {
        return true;
    };
    let built_on = unfinished
        .iter()
        .any(|began| *began <= succeeded && !is_older(*began, limits::UNFINISHED_AGE, now));
    built_on || !is_older(succeeded, limits::PARENT_AGE, now)
}
