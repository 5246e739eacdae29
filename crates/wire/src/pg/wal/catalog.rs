//! Rows that come and go, for following a few catalogs through the log.

use super::WalError;
use super::field::Fields;
use super::record::{BlockRef, Record, Relation, Rmgr};

const OPERATION: u8 = 0x70;
const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const HOT_UPDATE: u8 = 0x40;
const IN_PLACE: u8 = 0x70;

/// Bytes of a page's header, before its line pointers.
const PAGE_HEADER: usize = 24;
/// Where a row's header says how long it is.
const ROW_HEADER_LENGTH_AT: usize = 22;

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowPlace {
    /// In which relation.
    pub relation: Relation,
    /// In which block.
    pub block: u32,
    /// At which line pointer, from 1.
    pub line: u16,
}

/// What a record does to one row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// It was removed.
    Delete(RowPlace),
    /// Its bytes were changed where it stands, outside any transaction.
    InPlace {
        /// Where it stands.
        place: RowPlace,
        /// The row without its header; `None` when the record has only a compressed page.
        row: Option<Vec<u8>>,
    },
    /// It is new.
    Insert(RowPlace),
    /// It moved with its change.
    Update {
        /// Where it stood.
        from: RowPlace,
        /// Where it stands.
        to: RowPlace,
    },
}

impl Record<'_> {
    /// Tells what the record does to one row, or `None` when it is not about one row of a table.
    ///
    /// Many rows inserted at once are not told: the catalogs that are followed never do that.
    ///
    /// # Errors
    /// [`WalError::Record`] when its contents contradict themselves.
    ///
    /// # Source
    /// `access/heapam_xlog.h`; the same in versions 13 to 18.
    pub fn row_change(&self) -> Result<Option<RowChange>, WalError> {
        if self.rmgr != Rmgr::HEAP {
            return Ok(None);
        }
        let parts = self.parts()?;
        let cut = || self.wrong("a change of a row is cut");
        let mut fields = Fields::new(parts.main);
        let Some(first) = parts.blocks.first() else {
            return Ok(None);
        };
        let change = match self.info & OPERATION {
            INSERT => fields
                .u16()
                .map(|line| RowChange::Insert(place(first, line))),
            DELETE => fields
                .take(4)
                .and_then(|_| fields.u16())
                .map(|line| RowChange::Delete(place(first, line))),
            UPDATE | HOT_UPDATE => {
                // The new page comes first; the old one only when it is another.
                let old = parts.blocks.get(1).unwrap_or(first);
                fields.take(4).and_then(|_| fields.u16()).and_then(|from| {
                    let to = fields.take(6).and_then(|_| fields.u16())?;
                    Some(RowChange::Update {
                        from: place(old, from),
                        to: place(first, to),
                    })
                })
            }
            IN_PLACE => fields.u16().map(|line| RowChange::InPlace {
                place: place(first, line),
                row: row(first, line),
            }),
            _ => return Ok(None),
        };
        change.map(Some).ok_or_else(cut)
    }
}

fn place(block: &BlockRef<'_>, line: u16) -> RowPlace {
    RowPlace {
        relation: block.relation,
        block: block.block,
        line,
    }
}

/// Returns the row at `line`, from the record itself or from the page in it.
fn row(block: &BlockRef<'_>, line: u16) -> Option<Vec<u8>> {
    if !block.data.is_empty() {
        return Some(block.data.to_vec());
    }
    let page = block.image?.page()?;
    let at = PAGE_HEADER.checked_add(usize::from(line).checked_sub(1)?.checked_mul(4)?)?;
    let pointer = Fields::new(page.get(at..)?).u32()?;
    let offset = usize::try_from(pointer & 0x7FFF).ok()?;
    let length = usize::try_from(pointer >> 17).ok()?;
    let whole = page.get(offset..)?.get(..length)?;
    let header = usize::from(*whole.get(ROW_HEADER_LENGTH_AT)?);
    whole.get(header..).map(<[u8]>::to_vec)
}
