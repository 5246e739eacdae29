//! Mounts the newest restore point of one source until its standard input ends; tests kill it.
//!
//! `mount_one STATE REPOSITORY SOURCE OVERLAY MOUNTPOINT [CACHE]`, with a folder as repository or a
//! bucket of a storage on this machine, `http://127.0.0.1:PORT/BUCKET/PREFIX`, and its keys in
//! `MOUNT_ONE_KEY_ID` and `MOUNT_ONE_KEY`. For each line `read PATH` it answers how many bytes it read.
//! With `MOUNT_ONE_WATCHED` another process takes the mount away when this one is killed.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_core::{ByteCount, Secret};
use holdfast_store::keyring::Keyring;
use holdfast_store::object::s3::{
    Addressing, BucketPath, CredentialSource, Credentials, Endpoint, PlainHttp, S3Location, Timing,
};
use holdfast_store::object::{BlockCache, Location, Promise};
use holdfast_vault::Reader;
use holdfast_vault::mount::{Mount, MountRequest, Near, watch, watched_by};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let mut next = || arguments.next().ok_or("an argument is missing");
    let (state, repository) = (PathBuf::from(next()?), PathBuf::from(next()?));
    if state == Path::new("watch") {
        return Ok(watch(&repository.to_string_lossy())?);
    }
    if std::env::var_os("MOUNT_ONE_WATCHED").is_some() {
        watched_by(&["watch"]);
    }
    let source = next()?.to_string_lossy().parse()?;
    let (overlay, mountpoint) = (PathBuf::from(next()?), PathBuf::from(next()?));
    let keys = Keyring::open(&state.join("keys"))?.keys();
    let location = location(&repository)?;
    let place = location.place();
    let reader = Reader::open(&location, None, &keys)?;
    let newest = reader.newest_base(&source)?.ok_or("there is no point")?;
    let request = MountRequest {
        point: reader.point(&source, &newest.point)?,
        overlay,
        mountpoint,
        owner: None,
    };
    let mut near = Near::default();
    if let Some(cache) = arguments.next() {
        let cache = BlockCache::open(Path::new(&cache), ByteCount(256 << 20), &place)?;
        near.cache = Some(Arc::new(cache));
    }
    let mount = Mount::open_near(request, near)?;
    let mut said = std::io::stdout();
    said.write_all(b"mounted\n")?;
    said.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if let Some(path) = line.strip_prefix("read ") {
            let bytes = std::fs::read(mount.path().join(path))?;
            said.write_all(format!("{}\n", bytes.len()).as_bytes())?;
            said.flush()?;
        }
    }
    mount.close()?;
    Ok(())
}

fn location(repository: &Path) -> Result<Location, Box<dyn Error>> {
    let text = repository.to_str().unwrap_or_default();
    let Some((host, bucket)) = text
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
    else {
        return Ok(repository.to_owned().into());
    };
    let bucket = BucketPath::parse(&format!("s3://{bucket}")).ok_or("no bucket is named")??;
    let (id, key) = (
        std::env::var("MOUNT_ONE_KEY_ID")?,
        std::env::var("MOUNT_ONE_KEY")?,
    );
    Ok(Location::S3(Box::new(S3Location {
        endpoint: Endpoint::parse(&format!("http://{host}"), PlainHttp::LoopbackOnly)?,
        region: "us-east-1".to_owned(),
        bucket,
        addressing: Addressing::Path,
        credentials: CredentialSource::new(move || {
            Ok(Credentials {
                access_key_id: id.clone(),
                secret_access_key: Secret::new(&key),
                session_token: None,
            })
        }),
        lock: std::time::Duration::from_secs(3600),
        authority_pem: None,
        timing: Timing::default(),
        promise: Promise::Compliance,
        near: None,
    })))
}
