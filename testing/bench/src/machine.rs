//! What the machine is, and what it can do at best with the bytes of the source.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::ground::files;
use crate::limits;

/// The machine, as it is printed above every table.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of it.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The kernel.
    pub kernel: String,
    /// The filesystem that is measured on.
    pub filesystem: String,
}

/// Bytes a second of one core, measured on bytes of the source.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rates {
    /// Reading files of the source that the system has cached.
    pub read: f64,
    /// SHA-256.
    pub sha256: f64,
    /// zstd, pieces of 64 KiB.
    pub zstd: f64,
    /// How many times smaller that makes them.
    pub ratio: f64,
    /// zstd the other way, in bytes that come out.
    pub unzstd: f64,
    /// Writing new files, without waiting for the disk.
    pub write: f64,
    /// Writing new files and waiting for the disk.
    pub write_durably: f64,
}

impl Rates {
    /// The seconds that reading, hashing and compressing take on all cores, when nothing else is done.
    pub fn backup_limit_s(&self, bytes: f64, cores: usize) -> f64 {
        bytes * (1.0 / self.read + 1.0 / self.sha256 + 1.0 / self.zstd) / as_f64(cores)
    }

    /// The seconds that decompressing, hashing and writing take on all cores, or the disk if it is slower.
    pub fn restore_limit_s(&self, bytes: f64, cores: usize) -> f64 {
        let work = 1.0 / self.unzstd + 1.0 / self.sha256 + 1.0 / self.write;
        bytes * work / as_f64(cores)
    }
}

impl Machine {
    /// Looks at this machine; `folder` is where is measured.
    pub fn look(folder: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (text("/proc/cpuinfo"), text("/proc/meminfo"));
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let total = field(&memory, "MemTotal");
        let kibibytes = total.split(' ').next().and_then(|n| n.parse::<u64>().ok());
        Self {
            processor: field(&cpu, "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes.unwrap_or(0) * 1024,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(folder, &text("/proc/mounts")),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gigabytes = as_f64(self.memory_bytes) / 1e9;
        write!(
            f,
            "{} x {}, {gigabytes:.0} GB memory, Linux {}",
            self.cores, self.processor, self.kernel
        )
    }
}

/// Touches memory for the caches of what follows: a virtual machine often gets it on first touch only,
/// and whoever is measured first would pay for it.
pub fn touch_memory(source_bytes: u64) {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemFree:"));
    let free = free.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let bytes = (free.unwrap_or(0) * 1024 / 4 * 3).min(source_bytes.saturating_mul(4));
    std::hint::black_box(vec![1_u8; usize::try_from(bytes).unwrap_or(0)]);
}

/// Measures the rates of one core on a sample of the source's files; files are written in `scratch`.
pub fn rates(source: &Path, scratch: &Path) -> Result<Rates> {
    let sample = sample(source)?;
    let pieces: Vec<&[u8]> = sample.chunks(limits::PIECE_BYTES).collect();
    let bytes = as_f64(sample.len());
    let sha256 = rate(bytes, || {
        for piece in &pieces {
            std::hint::black_box(Sha256::digest(piece));
        }
        Ok(())
    })?;
    let mut packer = zstd::bulk::Compressor::new(limits::ZSTD_LEVEL)?;
    let mut packed = Vec::with_capacity(pieces.len());
    let zstd = rate(bytes, || {
        packed.clear();
        for piece in &pieces {
            packed.push(packer.compress(piece)?);
        }
        Ok(())
    })?;
    let stored: usize = packed.iter().map(Vec::len).sum();
    let mut unpacker = zstd::bulk::Decompressor::new()?;
    let unzstd = rate(bytes, || {
        for piece in &packed {
            std::hint::black_box(unpacker.decompress(piece, limits::PIECE_BYTES)?);
        }
        Ok(())
    })?;
    let path = scratch.join("sample");
    let write = rate(bytes, || {
        let _ = fs::remove_file(&path);
        fs::write(&path, &sample).context("write")
    })?;
    let write_durably = rate(bytes, || {
        let _ = fs::remove_file(&path);
        fs::write(&path, &sample).context("write")?;
        File::open(&path)?.sync_all().context("make durable")
    })?;
    let mut buffer = vec![1; 1 << 20];
    let read = rate(bytes, || {
        let mut file = File::open(&path)?;
        while file.read(&mut buffer)? > 0 {}
        Ok(())
    })?;
    fs::remove_file(&path).context("remove the sample")?;
    Ok(Rates {
        read,
        sha256,
        zstd,
        ratio: bytes / as_f64(stored),
        unzstd,
        write,
        write_durably,
    })
}

/// Takes bytes from all over the source, in proportion to the sizes of its files.
fn sample(source: &Path) -> Result<Vec<u8>> {
    let files = files(&source.join("base"))?;
    let sizes: Vec<u64> = files
        .iter()
        .map(|file| fs::metadata(file).map_or(0, |metadata| metadata.len()))
        .collect();
    let total: u64 = sizes.iter().sum();
    let mut sample = Vec::with_capacity(limits::SAMPLE_BYTES);
    for (path, size) in files.iter().zip(sizes) {
        let wanted =
            u128::from(size) * u128::try_from(limits::SAMPLE_BYTES)? / u128::from(total.max(1));
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        file.take(u64::try_from(wanted)?).read_to_end(&mut sample)?;
    }
    Ok(sample)
}

/// The better of two runs: the first one pays for memory that was never touched.
fn rate(bytes: f64, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::MAX;
    for _ in 0..2 {
        let began = Instant::now();
        work()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(bytes / best)
}

/// The kind of filesystem that a folder is on: that of the longest mount point above it.
fn filesystem(folder: &Path, mounts: &str) -> String {
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let above = fields.filter_map(|fields| match fields.as_slice() {
        [device, point, kind, ..] if folder.starts_with(point) => {
            Some((point.len(), format!("{kind} on {device}")))
        }
        _ => None,
    });
    above.max().map_or_else(String::new, |(_, text)| text)
}

/// A count as a number to divide by; exact up to 2^53.
#[expect(clippy::as_conversions, reason = "a measured count is far below 2^53")]
pub fn as_f64(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}
