//! Reads segments of a write-ahead log and tells which blocks they changed, and how fast that went.
//!
//!     cargo run --release -p holdfast-wire --example changed_blocks -- pg_wal/0000000100000001000000*

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Instant;

use holdfast_core::Lsn;
use holdfast_wire::pg::wal::{Changes, WalError, WalReader, WalShape};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut changes = Changes::default();
    let mut reader: Option<WalReader> = None;
    let (mut records, mut bytes, mut seconds) = (0_u64, 0_u64, 0.0);
    for path in std::env::args().skip(1) {
        let segment = std::fs::read(&path)?;
        // The first page says where it stands and how long segments are.
        let word = |at: usize| {
            segment
                .get(at..at + 4)
                .and_then(|word| word.try_into().ok())
        };
        let number = |at| word(at).map(u32::from_le_bytes).ok_or("not a segment");
        let start = Lsn(u64::from(number(8)?) | u64::from(number(12)?) << 32);
        let shape = WalShape {
            segment_bytes: number(32)?,
            system_identifier: None,
        };
        let reader = reader.get_or_insert_with(|| WalReader::new(shape));
        let began = Instant::now();
        let read = reader.feed(start, &segment, &mut |record| {
            records += 1;
            changes.apply(record)
        });
        seconds += began.elapsed().as_secs_f64();
        bytes += u64::try_from(segment.len())?;
        match read {
            Ok(()) => {}
            Err(WalError::End { .. } | WalError::Page { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let blocks = |of: &holdfast_wire::pg::wal::Blocks| {
        let below = 0..of.limit().unwrap_or(u32::MAX);
        of.ranges(below)
            .iter()
            .map(ExactSizeIterator::len)
            .sum::<usize>()
    };
    let changed: usize = changes.forks().map(|(_, _, of)| blocks(of)).sum();
    println!(
        "{bytes} bytes, {records} records, {} forks, {changed} blocks: {:.0} MB/s",
        changes.forks().count(),
        f64::from(u32::try_from(bytes >> 10)?) / 1024.0 / seconds,
    );
    Ok(())
}
