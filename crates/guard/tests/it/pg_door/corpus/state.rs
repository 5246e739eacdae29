//! The state of a database, and what is lost between two of them.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

/// Everything that could be lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Rows of each table, counted.
    pub rows: BTreeMap<String, BTreeMap<String, i64>>,
    /// Definitions, rights and settings: kind, name, value.
    pub things: BTreeMap<(String, String), String>,
    /// Where sequences stand.
    pub sequences: BTreeMap<String, i64>,
    /// Files that appeared.
    pub files: BTreeSet<String>,
}

/// Numbers that a sequence may be ahead without being broken.
const SEQUENCE_AHEAD: i64 = 1_000;

impl State {
    /// Reads it all; `other` is a connection to the other database.
    pub async fn read(shop: &Client, other: &Client, folder: &std::path::Path) -> Self {
        let mut state = Self::default();
        for row in shop.query(THINGS, &[]).await.unwrap() {
            let value: Option<String> = row.get(2);
            let key = (row.get(0), row.get(1));
            state.things.insert(key, value.unwrap_or_default());
        }
        for row in shop.query(SEQUENCES, &[]).await.unwrap() {
            state.sequences.insert(row.get(0), row.get(1));
        }
        for row in shop.query(TABLES, &[]).await.unwrap() {
            let table: String = row.get(0);
            state
                .rows
                .insert(table.clone(), counted(shop, &table).await);
        }
        let ledger = "public.ledger";
        let elsewhere = counted(other, ledger).await;
        state.rows.insert(format!("other: {ledger}"), elsewhere);
        let files = std::fs::read_dir(folder).unwrap();
        state.files = files
            .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        state
    }

    /// Says what somebody would miss who had the state before, apart from `budget` rows.
    pub fn lost(&self, after: &Self, budget: i64) -> Vec<String> {
        let mut lost = Vec::new();
        self.lost_rows((after, budget), &mut lost);
        self.lost_things(after, &mut lost);
        for (name, before) in &self.sequences {
            match after.sequences.get(name) {
                Some(now) if now < before => {
                    lost.push(format!("{name} went from {before} to {now}"))
                }
                Some(now) if now - before > SEQUENCE_AHEAD => {
                    lost.push(format!("{name} jumped from {before} to {now}"));
                }
                _ => {}
            }
        }
        for file in after.files.difference(&self.files) {
            lost.push(format!("a file appeared: {file}"));
        }
        lost
    }

    fn lost_rows(&self, (after, budget): (&Self, i64), lost: &mut Vec<String>) {
        let (mut missing, mut new) = (0, 0);
        let none = BTreeMap::new();
        for (table, before) in &self.rows {
            let now = after.rows.get(table).unwrap_or(&none);
            let less: i64 = before
                .iter()
                .map(|(row, count)| (count - now.get(row).unwrap_or(&0)).max(0))
                .sum();
            let more: i64 = now
                .iter()
                .map(|(row, count)| (count - before.get(row).unwrap_or(&0)).max(0))
                .sum();
            missing += less;
            new += more;
            if table.starts_with("other: ") && less + more > 0 {
                lost.push(format!("{table}: {less} rows missing, {more} new"));
            }
        }
        // A changed row is both missing and new.
        if missing > budget || new > budget {
            lost.push(format!("{missing} rows are missing, {new} are new"));
        }
    }

    fn lost_things(&self, after: &Self, lost: &mut Vec<String>) {
        for (key, before) in &self.things {
            match after.things.get(key) {
                None => lost.push(format!("{} {} is gone", key.0, key.1)),
                Some(now) if now != before => {
                    lost.push(format!("{} {}: `{before}` became `{now}`", key.0, key.1));
                }
                Some(_) => {}
            }
        }
        // What is new may lie in wait.
        for ((kind, name), value) in &after.things {
            let is_new = !self.things.contains_key(&(kind.clone(), name.clone()));
            let of_known = name.split_once(' ').is_some_and(|(table, _)| {
                self.things.contains_key(&("relation".into(), table.into()))
            });
            let waits = match kind.as_str() {
                "trigger" | "rule" | "policy" => of_known,
                "function" => value.contains("SECURITY DEFINER"),
                "role" | "member" | "setting" | "event trigger" | "extension" | "server"
                | "cast" | "prepared" | "subscription" => true,
                _ => false,
            };
            if is_new && waits {
                lost.push(format!("{kind} {name} is new: {value}"));
            }
        }
    }
}

async fn counted(client: &Client, table: &str) -> BTreeMap<String, i64> {
    let question = format!("SELECT t::text, count(*) FROM ONLY {table} t GROUP BY 1");
    let rows = client.query(&question, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't'
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";

const SEQUENCES: &str =
    "SELECT format('%I.%I', n.nspname, c.relname), coalesce(pg_sequence_last_value(c.oid), 0)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence <> 't'";

const THINGS: &str = include_str!("things.sql");
