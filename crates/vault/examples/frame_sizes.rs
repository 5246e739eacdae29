//! Measures what frames of different sizes cost: ratio, compression, reading one page.
//!
//! `frame_sizes DIRECTORY...` reads every file of at least 1 MiB below the directories (data directories
//! of stopped servers) and prints a table for decision 12. Build it with `--release`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use holdfast_store::envelope::CHUNK_BYTES;
use zstd::zstd_safe::CParameter;

const PAGE: usize = 8192;
/// Bytes that are compressed of each directory at most.
const BYTES_MAX: usize = 1 << 30;
/// Pages that are read at random.
const READS: usize = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "| data | frame | level | ratio | compress MB/s | read of a page, us | bytes fetched for a page |"
    );
    println!("|---|---|---|---|---|---|---|");
    for argument in std::env::args_os().skip(1) {
        let folder = PathBuf::from(argument);
        let mut names = Vec::new();
        walk(&folder, &mut names)?;
        names.sort();
        let mut files = Vec::new();
        let mut total = 0;
        for name in names {
            let content = fs::read(&name)?;
            total += content.len();
            files.push(content);
            if total >= BYTES_MAX {
                break;
            }
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        for level in [1, 3] {
            for frame in [PAGE, 2 * PAGE, 4 * PAGE, 8 * PAGE, 16 * PAGE] {
                measure(
                    &name,
                    &files,
                    Shape {
                        frame,
                        level,
                        has_dictionary: false,
                        tables: None,
                    },
                )?;
            }
            measure(
                &name,
                &files,
                Shape {
                    frame: PAGE,
                    level,
                    has_dictionary: true,
                    tables: None,
                },
            )?;
        }
        for tables in [(13, 13), (13, 12), (12, 12), (12, 11)] {
            for frame in [8 * PAGE, 16 * PAGE, 32 * PAGE] {
                measure(
                    &name,
                    &files,
                    Shape {
                        frame,
                        level: 3,
                        has_dictionary: false,
                        tables: Some(tables),
                    },
                )?;
            }
        }
    }
    Ok(())
}

struct Shape {
    frame: usize,
    level: i32,
    has_dictionary: bool,
    /// Binary logarithms of the entries of the tables for long and for short matches, if not zstd's own.
    tables: Option<(u32, u32)>,
}

impl Shape {
    fn level(&self) -> String {
        match self.tables {
            Some((long, short)) => format!("{}, tables 2^{long} and 2^{short}", self.level),
            None => self.level.to_string(),
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() && entry.file_name() != "pg_wal" {
            walk(&entry.path(), found)?;
        } else if metadata.len() >= 1 << 20 && metadata.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// What one file became: its frames, and the dictionary that they need.
struct Packed {
    frames: Vec<Vec<u8>>,
    dictionary: Vec<u8>,
}

fn measure(name: &str, files: &[Vec<u8>], shape: Shape) -> Result<(), Box<dyn Error>> {
    let mut packed = Vec::new();
    let mut seconds = 0.0;
    for content in files {
        let dictionary = if shape.has_dictionary {
            train(content)?
        } else {
            Vec::new()
        };
        let mut compressor = zstd::bulk::Compressor::with_dictionary(shape.level, &dictionary)?;
        compressor.include_checksum(true)?;
        if let Some((long, short)) = shape.tables {
            compressor.set_parameter(CParameter::HashLog(long))?;
            compressor.set_parameter(CParameter::ChainLog(short))?;
        }
        let began = Instant::now();
        let frames = content
            .chunks(shape.frame)
            .map(|raw| compressor.compress(raw));
        let frames = frames.collect::<Result<Vec<_>, _>>()?;
        seconds += began.elapsed().as_secs_f64();
        packed.push(Packed { frames, dictionary });
    }
    let raw: usize = files.iter().map(Vec::len).sum();
    let stored = packed
        .iter()
        .flat_map(|file| file.frames.iter().map(|frame| frame.len() + 44));
    let stored = stored.sum::<usize>()
        + packed
            .iter()
            .map(|file| file.dictionary.len())
            .sum::<usize>();
    let (micros, fetched) = read(&packed, shape.frame)?;
    println!(
        "| {name} | {} KiB{} | {} | {:.2} | {:.0} | {micros:.1} | {fetched} |",
        shape.frame / 1024,
        if shape.has_dictionary {
            ", dictionary"
        } else {
            ""
        },
        shape.level(),
        float(raw) / float(stored),
        float(raw) / seconds / 1e6,
    );
    Ok(())
}

/// Reads pages at random: the mean time to decompress one, and the mean bytes fetched for it when
/// frames lie behind each other in chunks that are encrypted together.
fn read(packed: &[Packed], frame: usize) -> Result<(f64, u64), Box<dyn Error>> {
    let mut decompressors = Vec::new();
    let mut places = Vec::new();
    for (file, packed) in packed.iter().enumerate() {
        decompressors.push(zstd::bulk::Decompressor::with_dictionary(
            &packed.dictionary,
        )?);
        let mut at = 0_u64;
        for frame in &packed.frames {
            let end = at + u64::try_from(frame.len())?;
            places.push((file, frame, at, end));
            at = end;
        }
    }
    let mut state = 88_172_645_463_325_252_u64;
    let mut raw = Vec::with_capacity(frame);
    let (mut seconds, mut fetched) = (0.0, 0);
    for _ in 0..READS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = usize::try_from(state % u64::try_from(places.len())?)?;
        let (file, stored, begin, end) = places.get(at).ok_or("no frame")?;
        let decompressor = decompressors.get_mut(*file).ok_or("no file")?;
        let began = Instant::now();
        raw.clear();
        decompressor.decompress_to_buffer(stored.as_slice(), &mut raw)?;
        seconds += began.elapsed().as_secs_f64();
        fetched += (end.div_ceil(CHUNK_BYTES) - begin / CHUNK_BYTES) * (CHUNK_BYTES + 16);
    }
    Ok((
        seconds / float(READS) * 1e6,
        fetched / u64::try_from(READS)?,
    ))
}

/// Trains a dictionary on pages of a file, as the command `zstd --train` does.
fn train(content: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("frame-sizes-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let pages = content.len() / PAGE;
    let step = (pages / 1500).max(1);
    for (number, page) in content.chunks_exact(PAGE).step_by(step).enumerate() {
        fs::write(folder.join(format!("page-{number:06}")), page)?;
    }
    let dictionary = folder.join("dictionary");
    let trained = std::process::Command::new("zstd")
        .args(["-q", "--train", "-r", "--maxdict=112640", "-o"])
        .arg(&dictionary)
        .arg(&folder)
        .status()?;
    // A file whose pages have nothing in common trains none.
    let bytes = if trained.success() {
        fs::read(&dictionary)?
    } else {
        Vec::new()
    };
    fs::remove_dir_all(&folder)?;
    Ok(bytes)
}

/// Returns a number of bytes, or of anything that is many, as a float.
fn float(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}
