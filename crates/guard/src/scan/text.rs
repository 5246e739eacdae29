//! Credentials in a text, told by their shape and by the words around them.

use std::path::Path;

use holdfast_core::Secret;
use holdfast_judge::packs::{Packs, ProviderCredentials};

use super::{Finding, FindingKind};
use crate::limits::SCAN_CONTEXT_LINES;

/// Schemes of connection strings.
const DATABASES: [&str; 6] = [
    "postgres",
    "postgresql",
    "mysql",
    "mongodb",
    "mongodb+srv",
    "redis",
];

/// Words that name a credential, where the provider's name is near.
const CREDENTIAL_WORDS: [&str; 5] = ["token", "bearer", "api_key", "apikey", "secret"];

/// Names that are placeholders, not passwords.
const PLACEHOLDERS: [&str; 7] = [
    "password",
    "pass",
    "xxx",
    "xxxx",
    "changeme",
    "example",
    "your-password",
];

const UUID_CHARS: usize = 36;
/// The shortest that follows a literal beginning.
const PREFIXED_CHARS_MIN: usize = 12;

pub(super) struct Finder {
    providers: Vec<ProviderCredentials>,
}

impl Finder {
    pub(super) fn new(packs: &Packs) -> Self {
        Self {
            providers: packs.credentials(),
        }
    }

    pub(super) fn find(&self, path: &Path, text: &str) -> Vec<Finding> {
        let lines: Vec<&str> = text.lines().collect();
        let mut findings = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let number = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
            let place = (path, number);
            for provider in &self.providers {
                let near = near(&lines, index);
                findings.extend(tokens(provider, place, line, &near));
            }
            findings.extend(database_urls(place, line));
        }
        findings
    }
}

/// The lines around one, in lower case.
fn near(lines: &[&str], index: usize) -> String {
    let begin = index.saturating_sub(SCAN_CONTEXT_LINES);
    let end = index
        .saturating_add(SCAN_CONTEXT_LINES)
        .saturating_add(1)
        .min(lines.len());
    lines
        .get(begin..end)
        .unwrap_or_default()
        .join("\n")
        .to_lowercase()
}

fn tokens(
    provider: &ProviderCredentials,
    (path, line_number): (&Path, u64),
    line: &str,
    near: &str,
) -> Vec<Finding> {
    let shaped = if provider.shape == "uuid" {
        uuids(line)
    } else {
        let prefix = provider.shape.strip_prefix("prefix:").unwrap_or_default();
        prefixed(line, prefix)
    };
    let mut findings: Vec<Finding> = Vec::new();
    for (at, token) in shaped {
        let before = line.get(..at).unwrap_or_default();
        let Some(because) = reason(provider, path, (before, near)) else {
            continue;
        };
        if findings
            .iter()
            .any(|finding| finding.secret.expose() == token)
        {
            continue;
        }
        let count = provider.destroys.len();
        let mut can_destroy = vec![format!(
            "everything that its account reaches at {}, by {count} operations of the API",
            provider
                .hosts
                .first()
                .map_or("the provider", String::as_str)
        )];
        can_destroy.extend(provider.destroys.iter().cloned());
        findings.push(Finding {
            file: path.to_owned(),
            line: line_number,
            kind: FindingKind::ProviderToken,
            provider: provider.provider.clone(),
            shown: shown(token),
            because,
            hosts: provider.hosts.clone(),
            can_destroy,
            secret: Secret::new(token),
        });
    }
    findings
}

/// Why a text of this shape is taken for a credential of the provider, or `None` when it is not.
fn reason(
    provider: &ProviderCredentials,
    path: &Path,
    (before, near): (&str, &str),
) -> Option<String> {
    let upper = before.to_uppercase();
    let variable = provider
        .variables
        .iter()
        .find(|name| upper.contains(name.as_str()));
    if let Some(name) = variable {
        return Some(format!("it stands after {name}"));
    }
    let lower = before.to_lowercase();
    let named = CREDENTIAL_WORDS.iter().find(|word| lower.contains(*word))?;
    let shown = path.to_string_lossy().to_lowercase();
    if let Some(file) = provider.files.iter().find(|file| path.ends_with(file)) {
        return Some(format!("`{named}` in {file}"));
    }
    let word = provider
        .words
        .iter()
        .find(|word| near.contains(*word) || shown.contains(*word))?;
    Some(format!("`{named}` near `{word}`"))
}

/// Finds texts of the shape 8-4-4-4-12 that stand alone.
fn uuids(line: &str) -> Vec<(usize, &str)> {
    let bytes = line.as_bytes();
    let mut found = Vec::new();
    let mut at = 0_usize;
    while let Some(window) = bytes.get(at..at.saturating_add(UUID_CHARS)) {
        let fits = window.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        let joins =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'-');
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let end = at.saturating_add(UUID_CHARS);
        if fits && !joins(before) && !joins(bytes.get(end)) {
            if let Some(token) = line.get(at..end) {
                found.push((at, token));
            }
            at = end;
        } else {
            at = at.saturating_add(1);
        }
    }
    found
}

fn prefixed<'a>(line: &'a str, prefix: &str) -> Vec<(usize, &'a str)> {
    if prefix.is_empty() {
        return Vec::new();
    }
    let starts = line.match_indices(prefix);
    let token = |(at, _): (usize, &str)| {
        let rest = line.get(at..)?;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let token = rest.get(..rest.find(|c| !known(c)).unwrap_or(rest.len()))?;
        (token.len() >= prefix.len().saturating_add(PREFIXED_CHARS_MIN)).then_some((at, token))
    };
    starts.filter_map(token).collect()
}

fn database_urls((path, line_number): (&Path, u64), line: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, _) in line.match_indices("://") {
        let before = line.get(..at).unwrap_or_default();
        let scheme = before
            .rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '+'))
            .next();
        let Some(scheme) = scheme.filter(|scheme| DATABASES.contains(scheme)) else {
            continue;
        };
        let begin = at.saturating_sub(scheme.len());
        let rest = line.get(begin..).unwrap_or_default();
        let ends =
            |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | ',' | ';');
        let url = rest
            .get(..rest.find(ends).unwrap_or(rest.len()))
            .unwrap_or_default();
        let Some(password) = password(url) else {
            continue;
        };
        if PLACEHOLDERS.contains(&password.to_lowercase().as_str())
            || password.starts_with(['$', '{', '<'])
        {
            continue;
        }
        let redacted = url.replacen(&format!(":{password}@"), ":…@", 1);
        findings.push(Finding {
            file: path.to_owned(),
            line: line_number,
            kind: FindingKind::DatabaseUrl,
            provider: scheme.to_owned(),
            shown: redacted.chars().take(120).collect(),
            because: "a connection string with a password".to_owned(),
            hosts: Vec::new(),
            can_destroy: vec![
                "whatever its role may: DROP, TRUNCATE and DELETE on everything the role owns"
                    .to_owned(),
            ],
            secret: Secret::new(url),
        });
    }
    findings
}

/// Returns the password of a connection string.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    (!password.is_empty()).then_some(password)
}

/// The beginning of a secret and its length.
fn shown(secret: &str) -> String {
    let begin: String = secret.chars().take(4).collect();
    format!("{begin}… ({} characters)", secret.chars().count())
}
