//! Settings whose values guard something, and what setting them does.

use holdfast_core::{Effect, Resource};
use pg_raw_parse::nodes::VariableSetStmt;
use pg_raw_parse::raw::VariableSetKind;
use pg_raw_parse::{ConstValue, Node};

use super::found::Found;
use super::{StatementKind, name};

/// Judges `SET`, `SET LOCAL`, `RESET`, `SET TRANSACTION` and `SET SESSION CHARACTERISTICS`.
pub(super) fn set<'a>(stmt: &'a VariableSetStmt, found: &mut Found<'a>) {
    let setting = stmt.name().unwrap_or_default();
    match stmt.kind {
        VariableSetKind::VAR_SET_VALUE => {
            let value = value(stmt);
            assign(setting, value.as_deref(), found);
        }
        VariableSetKind::VAR_SET_DEFAULT | VariableSetKind::VAR_RESET => {
            if is_identity(setting) {
                assign(setting, None, found);
            }
        }
        VariableSetKind::VAR_SET_MULTI => modes(stmt, found),
        VariableSetKind::VAR_SET_CURRENT | VariableSetKind::VAR_RESET_ALL => {}
        _ => found.does_unnamed(Effect::Unknown, "it sets something in an unknown way"),
    }
}

/// Judges one setting that is given a value; `None` when the value cannot be told.
pub(super) fn assign(setting: &str, value: Option<&str>, found: &mut Found<'_>) {
    let setting = setting.to_ascii_lowercase();
    let Some((effect, because)) = meaning(&setting, value) else {
        return;
    };
    let resource = Resource::new("pg:setting", setting);
    found.does_for_good(effect, Some(resource), because);
}

/// Tells whether changing the setting has an effect of its own, with any value.
pub(super) fn is_guarded(setting: &str) -> bool {
    meaning(&setting.to_ascii_lowercase(), None).is_some()
}

fn is_identity(setting: &str) -> bool {
    setting.eq_ignore_ascii_case("role") || setting.eq_ignore_ascii_case("session_authorization")
}

/// Says what it means to give a setting a value.
fn meaning(setting: &str, value: Option<&str>) -> Option<(Effect, &'static str)> {
    let lower = value.map(str::to_ascii_lowercase);
    let one_of = |words: &[&str]| {
        lower
            .as_deref()
            .is_some_and(|value| words.contains(&value.trim()))
    };
    if is_identity(setting) {
        return Some((Effect::Escalate, "it acts as another role"));
    }
    if setting == "client_encoding" {
        let escape = (
            Effect::Escape,
            "the server would read the text in an encoding that can hide quotes",
        );
        let plain: String = lower
            .as_deref()
            .unwrap_or_default()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        return (!SAFE_ENCODINGS.contains(&plain.as_str())).then_some(escape);
    }
    if let Some((_, _, harmless, effect, because)) = GUARDED
        .iter()
        .find(|(word, rest, ..)| setting == *word || (*rest && setting.starts_with(word)))
    {
        return (!one_of(harmless)).then_some((*effect, *because));
    }
    None
}

/// The value that `SET` gives, when it is one constant or a list of them.
fn value(stmt: &VariableSetStmt) -> Option<String> {
    let values: Option<Vec<String>> = stmt.args().iter().map(name::constant).collect();
    Some(values?.join(","))
}

/// Judges the modes of `SET TRANSACTION` and `SET SESSION CHARACTERISTICS`.
fn modes<'a>(stmt: &'a VariableSetStmt, found: &mut Found<'a>) {
    if found.kind == StatementKind::Set {
        found.beyond_read_only = true;
    }
    if says_read_write(stmt.args()) {
        let resource = Resource::new("pg:setting", "transaction_read_only");
        let because = "it lifts the READ ONLY that keeps hidden writes out";
        found.does_for_good(Effect::Disarm, Some(resource), because);
    }
}

fn says_read_write(modes: &pg_raw_parse::list::NodeList) -> bool {
    modes.iter().any(|mode| mode_read_only(mode) == Some(false))
}

/// Returns what a transaction mode says about READ ONLY, if it is that mode.
pub(super) fn mode_read_only(mode: Node<'_>) -> Option<bool> {
    let Node::DefElem(mode) = mode else {
        return None;
    };
    if mode.defname() != Some("transaction_read_only") {
        return None;
    }
    match mode.arg() {
        Node::A_Const(constant) => match constant.val() {
            Some(ConstValue::Integer(number)) => Some(number != 0),
            Some(ConstValue::Boolean(value)) => Some(value),
            _ => Some(false),
        },
        _ => Some(false),
    }
}

const ON: &[&str] = &["on", "true", "yes", "1", "t", "y"];
const OFF: &[&str] = &["off", "false", "no", "0", "f", "n"];
const NEVER: &[&str] = &[];

/// Setting, whether it is only the beginning of a name, harmless values, effect, reason.
const GUARDED: &[(&str, bool, &[&str], Effect, &str)] = &[
    (
        "session_replication_role",
        false,
        &["origin", "default"],
        Effect::Disarm,
        "triggers and foreign keys no longer act",
    ),
    (
        "row_security",
        false,
        ON,
        Effect::Disarm,
        "row security is switched off",
    ),
    (
        "default_transaction_read_only",
        false,
        ON,
        Effect::Disarm,
        "it lifts the READ ONLY of later transactions",
    ),
    (
        "transaction_read_only",
        false,
        ON,
        Effect::Disarm,
        "it lifts the READ ONLY that keeps hidden writes out",
    ),
    (
        "synchronous_commit",
        false,
        &["on", "remote_apply", "true", "yes", "1"],
        Effect::Disarm,
        "a commit would be acknowledged before it is safe",
    ),
    (
        "standard_conforming_strings",
        false,
        ON,
        Effect::Escape,
        "the server would read text otherwise than the door",
    ),
    (
        "backslash_quote",
        false,
        &["safe_encoding", "off", "false", "no", "0"],
        Effect::Escape,
        "the server would read text otherwise than the door",
    ),
    (
        "track_counts",
        false,
        ON,
        Effect::Disarm,
        "changed rows would no longer be counted",
    ),
    (
        "track_activities",
        false,
        ON,
        Effect::Disarm,
        "what the session does would no longer be seen",
    ),
    (
        "log_",
        true,
        NEVER,
        Effect::Disarm,
        "what the server writes down is changed",
    ),
    (
        "pgaudit.",
        true,
        NEVER,
        Effect::Disarm,
        "what the audit writes down is changed",
    ),
    (
        "allow_system_table_mods",
        false,
        OFF,
        Effect::Disarm,
        "the catalog could be changed by hand",
    ),
    (
        "ignore_",
        true,
        OFF,
        Effect::Disarm,
        "damage would be passed over",
    ),
    (
        "zero_damaged_pages",
        false,
        OFF,
        Effect::Destroy,
        "damaged pages would be emptied",
    ),
    (
        "wal_",
        true,
        NEVER,
        Effect::Disarm,
        "what the WAL keeps is changed",
    ),
    (
        "archive_",
        true,
        NEVER,
        Effect::Disarm,
        "archiving is changed",
    ),
    (
        "fsync",
        false,
        ON,
        Effect::Disarm,
        "writes would no longer be made durable",
    ),
    (
        "full_page_writes",
        false,
        ON,
        Effect::Disarm,
        "a crash could tear pages",
    ),
    (
        "local_preload_libraries",
        false,
        &[""],
        Effect::Escape,
        "it loads a library into the server",
    ),
    (
        "session_preload_libraries",
        false,
        &[""],
        Effect::Escape,
        "it loads a library into the server",
    ),
    (
        "dynamic_library_path",
        false,
        NEVER,
        Effect::Escape,
        "libraries would be taken from elsewhere",
    ),
    (
        "jit_provider",
        false,
        NEVER,
        Effect::Escape,
        "it loads a library into the server",
    ),
    (
        "lo_compat_privileges",
        false,
        OFF,
        Effect::Escalate,
        "large objects would be open to everybody",
    ),
    (
        "max_slot_wal_keep_size",
        false,
        NEVER,
        Effect::Disarm,
        "slots could lose their WAL",
    ),
];

/// Encodings in which no character contains a byte of ASCII, without punctuation.
///
/// # Source
/// <https://www.postgresql.org/docs/18/multibyte.html>: all server encodings have this property.
const SAFE_ENCODINGS: &[&str] = &[
    "utf8",
    "unicode",
    "sqlascii",
    "latin1",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "latin10",
    "iso88591",
    "iso885915",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1255",
    "win1256",
    "win1257",
    "win1258",
    "win866",
    "win874",
    "koi8r",
    "koi8u",
    "eucjp",
    "euckr",
    "euccn",
    "euctw",
    "eucjis2004",
    "default",
];
