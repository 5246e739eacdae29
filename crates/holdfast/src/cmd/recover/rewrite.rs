//! `holdfast recover rewrite`: the new server's address in a file with connection strings.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_core::{Code, Digest};
use serde_json::json;

use super::record;
use crate::cli::Shared;
use crate::report::{Done, Failure, Output};
use crate::wiring::now;

/// The largest file that is rewritten, in bytes.
const LIMIT_FILE_BYTES: u64 = 4 << 20;

/// Which file, and which address takes the place of which.
#[derive(Debug, Args)]
pub struct Rewrite {
    /// The file: `postgresql://` strings in it that name the old server are changed.
    file: PathBuf,
    /// The old server.
    #[arg(long, value_name = "HOST:PORT")]
    from: String,
    /// The new server.
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Write the file; without it only the difference is shown.
    #[arg(long)]
    apply: bool,
}

/// A line that changes; without passwords.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Change {
    line: usize,
    before: String,
    after: String,
}

impl Rewrite {
    /// Shows what would change, and changes it when told to: a copy is kept, and it is recorded.
    pub fn run(self, shared: &Shared, output: Output) -> Done {
        let config = shared.config()?;
        let (from, to) = (address(&self.from)?, address(&self.to)?);
        let text = read(&self.file)?;
        let (after, changes) = rewritten(&text, &from, &to);
        if changes.is_empty() {
            return Err(unusable(
                &self.file,
                &format!("no connection string in it names {}:{}", from.0, from.1),
            ));
        }
        let mut kept = None;
        if self.apply {
            // Written down first: what is done to the file can be told even if we are killed.
            let body = json!({
                "file": self.file.display().to_string(),
                "from": format!("{}:{}", from.0, from.1),
                "to": format!("{}:{}", to.0, to.1),
                "lines": changes.iter().map(|change| change.line).collect::<Vec<_>>(),
                "before": Digest::of(text.as_bytes()).to_string(),
                "after": Digest::of(after.as_bytes()).to_string(),
            });
            record(&config, "recovery.rewritten", &body)?;
            kept = Some(replace(&self.file, &text, &after)?);
        }
        let value =
            json!({"file": self.file, "changes": changes, "written": self.apply, "copy": kept});
        output.result(&value, || {
            let lines = changes.iter().map(|change| {
                format!(
                    "{}: - {}\n{0}: + {}\n",
                    change.line, change.before, change.after
                )
            });
            let mut text: String = lines.collect();
            text.push_str(&match &kept {
                Some(copy) => format!("written; what was there is in {}", copy.display()),
                None => "nothing was written; do it with --apply".to_owned(),
            });
            text
        });
        Ok(())
    }
}

fn unusable(file: &Path, why: &str) -> Failure {
    Failure::new(
        Code::ZU380,
        format!("cannot rewrite `{}`: {why}", file.display()),
        "the file is as it was; look at it, and at --from",
    )
}

fn address(text: &str) -> Result<(String, u16), Failure> {
    let split = text.rsplit_once(':');
    let read = split.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    read.filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
        Failure::new(
            Code::ZU380,
            format!("`{text}` is no address"),
            "nothing was changed; write it as HOST:PORT",
        )
    })
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| unusable(file, &error.to_string());
    let facts = fs::symlink_metadata(file).map_err(failed)?;
    if !facts.is_file() || facts.len() > LIMIT_FILE_BYTES {
        return Err(unusable(file, "it is not a file of at most 4 MiB"));
    }
    fs::read_to_string(file).map_err(failed)
}

/// Returns the text with the new address, and the lines that change.
fn rewritten(text: &str, from: &(String, u16), to: &(String, u16)) -> (String, Vec<Change>) {
    let mut after = String::with_capacity(text.len());
    let mut changes = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let new = line_with(line, from, to);
        if new != line {
            changes.push(Change {
                line: index.saturating_add(1),
                before: shown(line),
                after: shown(&new),
            });
        }
        after.push_str(&new);
    }
    (after, changes)
}

/// Exchanges the address in every connection string of a line that names the old one.
fn line_with(line: &str, from: &(String, u16), to: &(String, u16)) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = ["postgresql://", "postgres://"]
        .iter()
        .filter_map(|scheme| rest.find(scheme).map(|at| at + scheme.len()))
        .min()
    {
        let (head, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(head);
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '"' | '\'' | '`');
        let end = tail.find(ends).unwrap_or(tail.len());
        let (authority, later) = tail.split_at_checked(end).unwrap_or((tail, ""));
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(0)),
            None => (place, 5432),
        };
        if let Some(login) = login {
            out.push_str(login);
            out.push('@');
        }
        if (host, port) == (from.0.as_str(), from.1) {
            out.push_str(&format!("{}:{}", to.0, to.1));
        } else {
            out.push_str(place);
        }
        rest = later;
    }
    out.push_str(rest);
    out
}

/// Returns a line without passwords: what stands between `://USER:` and `@`.
fn shown(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.trim_end();
    while let Some((head, tail)) = rest.split_once("://") {
        out.push_str(head);
        out.push_str("://");
        let end = tail
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '`'))
            .unwrap_or(tail.len());
        let (authority, later) = tail.split_at_checked(end).unwrap_or((tail, ""));
        match authority.rsplit_once('@') {
            Some((login, place)) => {
                let user = login.split(':').next().unwrap_or_default();
                out.push_str(&format!("{user}:***@{place}"));
            }
            None => out.push_str(authority),
        }
        rest = later;
    }
    out.push_str(rest);
    out
}

/// Keeps a copy beside the file, and exchanges it for the new text in one step.
fn replace(file: &Path, before: &str, after: &str) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| unusable(file, &error.to_string());
    let stamp: String = now()
        .to_string()
        .chars()
        .filter(char::is_ascii_digit)
        .take(14)
        .collect();
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let copy = file.with_file_name(format!("{name}.before-{stamp}"));
    let fresh = file.with_file_name(format!(".{name}.holdfast"));
    let facts = fs::metadata(file).map_err(failed)?;
    put(&copy, before, &facts).map_err(failed)?;
    let _ = fs::remove_file(&fresh);
    put(&fresh, after, &facts).map_err(failed)?;
    fs::rename(&fresh, file).map_err(failed)?;
    Ok(copy)
}

/// Writes a new file with the permissions and the owner of the old one.
fn put(path: &Path, text: &str, like: &fs::Metadata) -> std::io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .open(path)?;
    let mode = fs::Permissions::from_mode(like.permissions().mode() & 0o7777);
    file.set_permissions(mode)?;
    if std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid())).is_err() {
        // Only root may give a file away; whoever may write it beside may read it.
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let (from, to) = (("db.old".to_owned(), 5432), ("127.0.0.1".to_owned(), 6001));
        let (after, changes) = rewritten(line, &from, &to);
        assert_eq!(after, expected);
        assert_eq!(changes.is_empty(), line == expected, "{line}");
        for change in changes {
            assert!(!format!("{change:?}").contains("s3cret"), "{change:?}");
        }
    }

    #[test]
    fn only_the_address_of_the_old_server_is_exchanged() {
        for (line, expected) in [
            (
                "DATABASE_URL=postgresql://app:s3cret@db.old:5432/shop?x=1\n",
                "DATABASE_URL=postgresql://app:s3cret@127.0.0.1:6001/shop?x=1\n",
            ),
            (
                "url = \"postgres://app:s3cret@db.old/shop\"\r\n",
                "url = \"postgres://app:s3cret@127.0.0.1:6001/shop\"\r\n",
            ),
            ("postgresql://db.old", "postgresql://127.0.0.1:6001"),
            (
                "a postgresql://x@db.old:5432 b postgresql://y@db.old:5433",
                "a postgresql://x@127.0.0.1:6001 b postgresql://y@db.old:5433",
            ),
            (
                "postgresql://u:s3cret@db.older:5432/x\n",
                "postgresql://u:s3cret@db.older:5432/x\n",
            ),
            (
                "host=db.old\nhttp://db.old:5432/\n",
                "host=db.old\nhttp://db.old:5432/\n",
            ),
        ] {
            check(line, expected);
        }
    }

    #[test]
    fn a_copy_is_kept_and_permissions_stay() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".env");
        fs::write(&file, "a\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let copy = replace(&file, "a\n", "b\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "b\n");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "a\n");
        for path in [&file, &copy] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o640);
        }
    }
}
