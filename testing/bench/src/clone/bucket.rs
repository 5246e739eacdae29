//! A stock's repository in an object storage that answers late.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use holdfast_testing::s3::{Ask, Fault, ObjectStorage, S3Proxy};

use super::Scene;
use super::stock::Stock;
use crate::ground::files;
use crate::limits;

/// The storage, and which stocks were brought there.
pub struct Buckets {
    storage: ObjectStorage,
    late: S3Proxy,
    known: Mutex<BTreeMap<PathBuf, String>>,
}

impl Scene<'_> {
    /// Lines of a configuration that read a stock's repository from a bucket; it is brought there first.
    pub fn bucket(&self, stock: &Stock) -> Result<String> {
        let buckets = match self.buckets.get() {
            Some(buckets) => buckets,
            None => {
                self.say("starting the object storage");
                let made = Buckets::start(self.options.latency_ms)?;
                self.buckets.get_or_init(|| made)
            }
        };
        let bucket = buckets.bring(stock)?;
        let address = buckets.late.address();
        Ok(format!(
            "repository = \"s3://{bucket}/vault\"\n[vault.object_storage]\nendpoint = \"http://{address}\"\n\
             access_key_id = \"file:key-id\"\nsecret_access_key = \"file:key\"\n"
        ))
    }
}

impl Buckets {
    fn start(latency_ms: u64) -> Result<Self> {
        let storage = ObjectStorage::shared()?;
        let late = S3Proxy::start(storage.address())?;
        let latency = Duration::from_millis(latency_ms);
        late.on("HTTP/", Fault::Late(latency), u32::MAX);
        Ok(Self {
            storage,
            late,
            known: Mutex::default(),
        })
    }

    fn bring(&self, stock: &Stock) -> Result<String> {
        let from = stock.ground.path("repository");
        let mut known = self
            .known
            .lock()
            .map_err(|_| anyhow!("a thread has ended"))?;
        if let Some(bucket) = known.get(&from) {
            return Ok(bucket.clone());
        }
        let bucket = self.storage.plain_bucket()?;
        let waiting = Mutex::new(files(&from)?);
        let work = || -> Result<()> {
            loop {
                let next = waiting
                    .lock()
                    .map_err(|_| anyhow!("a thread has ended"))?
                    .pop();
                let Some(path) = next else { return Ok(()) };
                let name = path
                    .strip_prefix(&from)?
                    .to_str()
                    .context("a strange name")?;
                let body = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                let put = self.storage.ask(&Ask {
                    body: &body,
                    ..Ask::owner("PUT", &format!("/{bucket}/vault/{name}"))
                })?;
                ensure!(put.status == 200, "bring `{name}`: {}", put.head);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..limits::UPLOADS).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a thread has ended"))??;
            }
            anyhow::Ok(())
        })?;
        known.insert(from, bucket.clone());
        Ok(bucket)
    }
}
