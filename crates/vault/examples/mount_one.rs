//! Mounts the newest restore point of one source until its standard input ends; tests kill it.
//!
//! `mount_one STATE REPOSITORY SOURCE OVERLAY MOUNTPOINT`

use std::error::Error;
use std::io::{Read, Write};
use std::path::PathBuf;

use holdfast_store::keyring::Keyring;
use holdfast_vault::Reader;
use holdfast_vault::mount::{Mount, MountRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next().ok_or("an argument is missing");
    let (state, repository) = (PathBuf::from(next()?), PathBuf::from(next()?));
    let source = next()?.to_string_lossy().parse()?;
    let keys = Keyring::open(&state.join("keys"))?.keys();
    let reader = Reader::open(&repository.into(), None, &keys)?;
    let newest = reader.newest_base(&source)?.ok_or("there is no point")?;
    let mount = Mount::open(MountRequest {
        point: reader.point(&source, &newest.point)?,
        overlay: PathBuf::from(next()?),
        mountpoint: PathBuf::from(next()?),
        owner: None,
    })?;
    std::io::stdout().write_all(b"mounted\n")?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    mount.close()?;
    Ok(())
}
