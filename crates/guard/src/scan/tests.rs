use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const TOKEN: &str = "5f1c9c30-0d0e-4b5a-8a60-27d1f1a0c0de";

fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn scanned(folder: &tempfile::TempDir) -> ScanReport {
    scan(&[folder.path().to_owned()], &Packs::shipped()).unwrap()
}

#[test]
fn the_incidents_token_is_found_and_what_it_can_destroy_is_said() {
    let folder = written(&[
        (
            "ops/domains/README.md",
            "Adds and removes customers' domains.\n",
        ),
        (
            "ops/domains/.env",
            &format!("# domains\nRAILWAY_API_TOKEN={TOKEN}\n"),
        ),
        (
            ".env.staging",
            "STAGING_VOLUME_ID=3d2c42fb-f9b1-4f56-8e0b-7a5f0f3a5b11\n",
        ),
    ]);
    let report = scanned(&folder);
    let [finding] = &report.findings[..] else {
        panic!("{:?}", report.findings);
    };
    assert!(finding.file.ends_with("ops/domains/.env"));
    assert_eq!((finding.line, finding.provider.as_str()), (2, "railway"));
    assert_eq!(finding.secret.expose(), TOKEN);
    assert!(finding.can_destroy.iter().any(|one| one == "volumeDelete"));
    assert!(finding.can_destroy.len() > 20);
    let shown = serde_json::to_string(&report).unwrap() + &format!("{report:?}");
    assert!(!shown.contains(TOKEN), "{shown}");
    assert_eq!(report.files, 3);
}

#[test]
fn credentials_are_told_from_other_ids_by_their_neighbourhood() {
    for (name, text, found) in [
        (".env", format!("export RAILWAY_TOKEN='{TOKEN}'"), true),
        (".env", format!("railway_api_token = {TOKEN}"), true),
        (
            "a.sh",
            format!("curl https://backboard.railway.app -H \"Authorization: Bearer {TOKEN}\""),
            true,
        ),
        ("a.sh", format!("# railway\n\n\nTOKEN={TOKEN}"), true),
        ("railway-notes.txt", format!("the token is {TOKEN}"), true),
        (
            ".railway/config.json",
            format!("{{\"user\":{{\"token\":\"{TOKEN}\"}}}}"),
            true,
        ),
        (
            ".railway/config.json",
            format!("{{\"project\":\"{TOKEN}\"}}"),
            false,
        ),
        (
            ".cursor/mcp.json",
            format!("{{\"railway\":{{\"env\":{{\"RAILWAY_API_TOKEN\":\"{TOKEN}\"}}}}}}"),
            true,
        ),
        (
            ".bash_history",
            format!("RAILWAY_TOKEN={TOKEN} railway up"),
            true,
        ),
        ("a.txt", TOKEN.to_owned(), false),
        ("a.txt", format!("token {TOKEN}"), false),
        ("a.txt", format!("# railway\n\n\n\n\nTOKEN={TOKEN}"), false),
        ("a.txt", format!("railway volume {TOKEN}"), false),
        ("a.txt", format!("RAILWAY_TOKEN={TOKEN}0"), false),
        ("a.txt", format!("RAILWAY_TOKEN=x{TOKEN}"), false),
        (
            "a.txt",
            "RAILWAY_TOKEN=hfl_abcdefghijklmnopqrstuvwxyz234567".to_owned(),
            false,
        ),
    ] {
        let folder = written(&[(name, &text)]);
        assert_eq!(
            scanned(&folder).findings.len(),
            usize::from(found),
            "{name}: {text}"
        );
    }
}

#[test]
fn connection_strings_with_passwords_are_found_and_redacted() {
    let folder = written(&[(
        "a.env",
        "A=postgres://app:hunter2@db:5432/rental?x=1\nB=postgresql://u:p%40ss@h/d \"mysql://r:s3cr3t@h\"\n",
    )]);
    let report = scanned(&folder);
    assert_eq!(report.findings.len(), 3);
    assert_eq!(
        report.findings[0].shown,
        "postgres://app:…@db:5432/rental?x=1"
    );
    assert_eq!(
        report.findings[0].secret.expose(),
        "postgres://app:hunter2@db:5432/rental?x=1"
    );
    assert!(!format!("{report:?}").contains("hunter2"));
    for harmless in [
        "postgres://localhost/x",
        "postgres://u@h/d",
        "postgres://u:@h/d",
        "postgres://user:password@h/d",
        "postgres://u:${PASSWORD}@h/d",
        "https://u:secret@h/d",
    ] {
        let folder = written(&[("a", harmless)]);
        assert!(scanned(&folder).findings.is_empty(), "{harmless}");
    }
}

#[test]
fn loops_binaries_pipes_and_large_files_do_not_stop_a_scan() {
    let secret = format!("RAILWAY_TOKEN={TOKEN}\n");
    let folder = written(&[
        ("a/b/.env", &secret),
        ("binary", &format!("\u{0}{secret}")),
        (
            "large",
            &"x".repeat(usize::try_from(SCAN_FILE_BYTES_MAX).unwrap() + 1),
        ),
        ("node_modules/x/.env", &secret),
        ("bad-utf8", "ok"),
    ]);
    let path = folder.path();
    symlink(path, path.join("a/loop")).unwrap();
    symlink(path.join("missing"), path.join("dangling")).unwrap();
    symlink(path.join("a/b/.env"), path.join("same")).unwrap();
    fs::hard_link(path.join("a/b/.env"), path.join("also-the-same")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut bytes = b"\xff\xfe ".to_vec();
    bytes.extend(secret.bytes());
    fs::write(path.join("bad-utf8"), bytes).unwrap();
    let report = scanned(&folder);
    assert_eq!(report.findings.len(), 2, "{:?}", report.findings);
    let skipped: Vec<_> = report
        .skipped
        .iter()
        .map(|one| one.path.file_name().unwrap())
        .collect();
    assert_eq!(skipped, ["binary", "dangling", "large"]);
}

#[test]
fn what_is_not_there_or_not_readable_is_said() {
    let missing = scan(&[PathBuf::from("/no/such/folder")], &Packs::shipped()).unwrap_err();
    assert_eq!(missing.code(), Code::ZU508);
    let folder = written(&[("closed/.env", "x")]);
    let closed = folder.path().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let report = scanned(&folder);
    // The superuser reads everything; everybody else is told what was not looked at.
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(report.skipped.is_empty(), is_root);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}
