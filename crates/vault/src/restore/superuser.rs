//! The name of the role that `initdb` made, read from the restored files.
//!
//! Nobody tells us a role's name, and a server can only be asked by somebody with one.

use std::fs;
use std::path::Path;

/// Object id of the table of roles. SOURCE: PostgreSQL 18, `catalog/pg_authid.h`
const ROLES: u32 = 1260;
/// Object id of the role that `initdb` makes. SOURCE: the same file, `BOOTSTRAP_SUPERUSERID`
const FIRST_ROLE: u32 = 10;
/// Begins the map of catalog files. SOURCE: `utils/cache/relmapper.c`, `RELMAPPER_FILEMAGIC`
const MAP_MAGIC: u32 = 0x0059_2717;
/// Bytes of a name. SOURCE: `pg_config_manual.h`, `NAMEDATALEN`
const NAME_BYTES: usize = 64;
/// Bytes of a page.
const PAGE_BYTES: usize = 8192;

/// Returns the names that the first role has or had; the live one is among them.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let global = directory.join("global");
    let map = fs::read(global.join("pg_filenode.map")).unwrap_or_default();
    let Some(file) = mapped(&map, ROLES) else {
        return Vec::new();
    };
    let table = fs::read(global.join(file.to_string())).unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for page in table.chunks_exact(PAGE_BYTES) {
        for name in names_in(page) {
            if !found.contains(&name) {
                found.push(name);
            }
        }
    }
    // A renamed role leaves its old row before the new one.
    found.reverse();
    found
}

/// Returns the file of a mapped catalog.
fn mapped(map: &[u8], wanted: u32) -> Option<u32> {
    if number(map, 0)? != MAP_MAGIC {
        return None;
    }
    let count = usize::try_from(number(map, 4)?).ok()?.min(64);
    (0..count)
        .map(|index| 8 + index * 8)
        .find(|at| number(map, *at) == Some(wanted))
        .and_then(|at| number(map, at + 4))
}

/// Returns the names of the first role's rows on a page.
///
/// # Source
/// PostgreSQL 18, `storage/bufpage.h` (line pointers from byte 24 to `pd_lower`),
/// `storage/itemid.h`, `access/htup_details.h` (`t_hoff` at byte 22)
fn names_in(page: &[u8]) -> Vec<String> {
    let lower = short(page, 12).unwrap_or(0).min(PAGE_BYTES);
    let mut found = Vec::new();
    for at in (24..lower).step_by(4) {
        let Some(pointer) = number(page, at) else {
            break;
        };
        let (offset, flags) = (pointer & 0x7FFF, (pointer >> 15) & 3);
        let Ok(offset) = usize::try_from(offset) else {
            continue;
        };
        let header = page.get(offset + 22).copied().map(usize::from);
        let Some(row) = header.filter(|_| flags == 1).map(|header| offset + header) else {
            continue;
        };
        if number(page, row) != Some(FIRST_ROLE) {
            continue;
        }
        let name = page.get(row + 4..row + 4 + NAME_BYTES).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if let Ok(name) = std::str::from_utf8(name)
            && !name.is_empty()
        {
            found.push(name.to_owned());
        }
    }
    found
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u32::from_le_bytes(*field))
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*field)))
}
