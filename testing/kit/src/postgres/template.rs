//! New clusters in a fraction of a second: `initdb` runs once, then its result is copied.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Installation, ServerUser, cache_dir};

/// Makes a new cluster in `data_dir` and returns the superuser's password.
///
/// Each cluster gets its own system identifier, as if `initdb` had made it.
///
/// # Errors
/// When `initdb` refuses its arguments or the folder cannot be written.
pub(super) fn create(
    installation: &Installation,
    initdb_args: &[String],
    data_dir: &Path,
) -> Result<String> {
    let user = ServerUser::current()?;
    let template = prepared(installation, initdb_args, user)?;
    fs::create_dir_all(data_dir).context("make the data directory")?;
    user.own(data_dir)?;
    let mut copy = user.command(Path::new("cp"));
    copy.arg("-a");
    if cfg!(target_os = "linux") {
        copy.arg("--reflink=auto");
    }
    copy.arg(template.join("data/.")).arg(data_dir);
    run(copy, "copy the prepared cluster")?;
    give_new_identity(data_dir)?;
    fs::read_to_string(template.join("password")).context("read the password of the template")
}

/// A name for a file made of letters, digits and a few signs.
pub(super) fn slug(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().map(plain).collect();
    let cut = name.len().saturating_sub(SLUG_BYTES_MAX);
    name.get(cut..).unwrap_or_default().to_owned()
}

fn prepared(
    installation: &Installation,
    initdb_args: &[String],
    user: ServerUser,
) -> Result<PathBuf> {
    let dir = cache_dir()?.join("templates");
    fs::create_dir_all(&dir).context("make the folder of templates")?;
    let key = format!(
        "{}{} {}",
        installation.bin_dir.display(),
        installation.version(),
        initdb_args.join(" ")
    );
    let template = dir.join(slug(&key));
    let lock = File::create(template.with_added_extension("lock")).context("write a lock")?;
    lock.lock().context("lock the template")?;
    if !template.exists() {
        let unfinished = template.with_added_extension("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        initdb(installation, initdb_args, user, &unfinished)?;
        fs::rename(&unfinished, &template).context("finish the template")?;
    }
    Ok(template)
}

fn initdb(
    installation: &Installation,
    initdb_args: &[String],
    user: ServerUser,
    dir: &Path,
) -> Result<()> {
    fs::create_dir_all(dir).context("make the folder of a template")?;
    user.own(dir)?;
    let password = dir.join("password");
    fs::write(&password, format!("{:032x}", rand::random::<u128>())).context("write a password")?;
    user.own(&password)?;
    let mut command = user.command(&installation.program("initdb"));
    command
        .args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ])
        .arg("--no-sync")
        .arg(format!("--pwfile={}", password.display()))
        .arg(format!("--pgdata={}", dir.join("data").display()))
        .args(initdb_args);
    run(command, "initdb")
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let done = command.output().with_context(|| format!("start: {what}"))?;
    ensure!(
        done.status.success(),
        "{what}: {}\n{}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// Writes a random system identifier into the control file and the headers of the WAL segments.
///
/// SOURCE: src/include/catalog/pg_control.h (the identifier is the first field, the CRC-32C over
/// everything before it the last), src/include/access/xlog_internal.h (XLogLongPageHeaderData has
/// the identifier at offset 24; it is present when bit 1 of the flags at offset 2 is set).
fn give_new_identity(data_dir: &Path) -> Result<()> {
    let identity = (rand::random::<u64>() >> 1).to_le_bytes();
    let control = data_dir.join("global/pg_control");
    let mut bytes = fs::read(&control).context("read pg_control")?;
    let length = (64..1024)
        .step_by(4)
        .find(|&length| crc_matches(&bytes, length));
    let length = length.context("no checksum was found in pg_control")?;
    bytes
        .get_mut(..8)
        .context("pg_control is too short")?
        .copy_from_slice(&identity);
    let sum = crc32c(bytes.get(..length).unwrap_or_default()).to_le_bytes();
    bytes
        .get_mut(length..length + 4)
        .context("pg_control is too short")?
        .copy_from_slice(&sum);
    // Opened, not replaced: the file keeps its owner.
    overwrite(&control, 0, &bytes)?;
    for entry in fs::read_dir(data_dir.join("pg_wal"))
        .context("list the WAL")?
        .flatten()
    {
        if entry.file_name().len() == WAL_NAME_LENGTH && has_long_header(&entry.path())? {
            overwrite(&entry.path(), 24, &identity)?;
        }
    }
    Ok(())
}

fn crc_matches(bytes: &[u8], length: usize) -> bool {
    match (bytes.get(..length), bytes.get(length..length + 4)) {
        (Some(covered), Some(sum)) => crc32c(covered).to_le_bytes() == sum,
        _ => false,
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0x82F6_3B78
            } else {
                crc >> 1
            }
        })
    })
}

fn has_long_header(segment: &Path) -> Result<bool> {
    let mut header = [0; 4];
    let mut file = File::open(segment).context("open a WAL segment")?;
    file.read_exact(&mut header).context("read a WAL segment")?;
    Ok(u16::from_le_bytes([header[2], header[3]]) & 2 != 0)
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let context = || format!("write {}", path.display());
    let mut file = File::options()
        .write(true)
        .open(path)
        .with_context(context)?;
    file.seek(SeekFrom::Start(offset)).with_context(context)?;
    file.write_all(bytes).with_context(context)
}

const WAL_NAME_LENGTH: usize = 24;
const SLUG_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    #[test]
    fn crc32c_gives_the_value_of_the_standard() {
        // SOURCE: RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(super::crc32c(&[0; 32]), 0x8A91_36AA);
    }
}
