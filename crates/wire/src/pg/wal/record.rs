//! One record: its header, the blocks it touches and its main data.

use holdfast_core::Lsn;

use super::WalError;
use super::event::Event;
use super::field::Fields;
use super::page::WalVersion;

/// Bytes of a record's header.
pub(super) const RECORD_HEADER: usize = 24;

const BLOCK_ID_MAX: u8 = 32;
const ID_TOP_TRANSACTION: u8 = 252;
const ID_ORIGIN: u8 = 253;
const ID_DATA_LONG: u8 = 254;
const ID_DATA_SHORT: u8 = 255;

const BLOCK_FORK: u8 = 0x0F;
const BLOCK_HAS_IMAGE: u8 = 0x10;
const BLOCK_HAS_DATA: u8 = 0x20;
const BLOCK_WILL_INIT: u8 = 0x40;
const BLOCK_SAME_RELATION: u8 = 0x80;

const IMAGE_HAS_HOLE: u8 = 0x01;
const PAGE: usize = 8192;

/// A relation's files: tablespace, database and file number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// The tablespace's object id; 1663 is the default one, 1664 holds what databases share.
    pub tablespace: u32,
    /// The database's object id; 0 for what databases share.
    pub database: u32,
    /// The number in the file's name.
    pub file: u32,
}

impl Relation {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            tablespace: fields.u32()?,
            database: fields.u32()?,
            file: fields.u32()?,
        })
    }
}

/// Which of a relation's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The free space map.
    FreeSpace,
    /// The empty form of an unlogged relation.
    Init,
    /// The contents.
    Main,
    /// The visibility map.
    Visibility,
}

impl Fork {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Main),
            1 => Some(Self::FreeSpace),
            2 => Some(Self::Visibility),
            3 => Some(Self::Init),
            _ => None,
        }
    }
}

/// Which part of PostgreSQL wrote a record.
///
/// # Source
/// `access/rmgrlist.h`; the numbers are the same in versions 13 to 18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rmgr(pub u8);

impl Rmgr {
    /// Checkpoints, switches, restore points, page images.
    pub const XLOG: Self = Self(0);
    /// Ends of transactions.
    pub const XACT: Self = Self(1);
    /// Files of relations.
    pub const SMGR: Self = Self(2);
    /// Databases.
    pub const DATABASE: Self = Self(4);
    /// The map of the files of basic catalogs.
    pub const RELATION_MAP: Self = Self(7);
    /// Locks and running transactions, for hot standby.
    pub const STANDBY: Self = Self(8);
    /// More about rows of tables.
    pub const HEAP2: Self = Self(9);
    /// Rows of tables.
    pub const HEAP: Self = Self(10);
}

/// A page image inside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockImage<'a> {
    /// The stored bytes; without the hole, and compressed when `compressed`.
    pub bytes: &'a [u8],
    /// Where the hole of zeros begins in the page.
    pub hole_offset: u16,
    /// Whether the bytes are compressed.
    pub compressed: bool,
}

impl BlockImage<'_> {
    /// Returns the whole page, or `None` when it is compressed or contradicts itself.
    pub fn page(&self) -> Option<Vec<u8>> {
        if self.compressed {
            return None;
        }
        let hole = PAGE.checked_sub(self.bytes.len())?;
        let (before, after) = self.bytes.split_at_checked(usize::from(self.hole_offset))?;
        let mut page = Vec::with_capacity(PAGE);
        page.extend_from_slice(before);
        page.resize(before.len().saturating_add(hole), 0);
        page.extend_from_slice(after);
        Some(page)
    }
}

/// One block that a record touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef<'a> {
    /// Its number within the record.
    pub id: u8,
    /// Whose block.
    pub relation: Relation,
    /// In which of its files.
    pub fork: Fork,
    /// Which block, in blocks of 8 KiB.
    pub block: u32,
    /// Replay begins with an empty page.
    pub will_init: bool,
    /// The page as a whole, if it is there.
    pub image: Option<BlockImage<'a>>,
    /// What the record says about this block.
    pub data: &'a [u8],
}

/// One whole record whose checksum was right.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it begins.
    pub start: Lsn,
    /// Where the next may begin.
    pub end: Lsn,
    /// The timeline of the page it begins on.
    pub timeline: u32,
    /// Which version wrote it.
    pub version: WalVersion,
    /// Where the record before it begins.
    pub previous: Lsn,
    /// The transaction that wrote it; 0 for none.
    pub xid: u32,
    /// Which part wrote it.
    pub rmgr: Rmgr,
    /// What it is, in the terms of that part; the lower four bits are not.
    pub info: u8,
    /// Its length with the header, in bytes.
    pub length: u32,
    /// What follows the header. Of a record above [`crate::limits::WAL_RECORD_BYTES_KEPT`] only the front.
    pub body: &'a [u8],
}

/// What [`Record::parts`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) blocks: Vec<BlockRef<'a>>,
    pub(super) main: &'a [u8],
}

struct Header {
    id: u8,
    relation: Relation,
    fork: Fork,
    block: u32,
    will_init: bool,
    data: usize,
    image: Option<(usize, u16, bool)>,
}

impl<'a> Record<'a> {
    /// Returns the blocks that it touches, in order.
    ///
    /// # Errors
    /// [`WalError::Record`] when its headers contradict its length.
    pub fn blocks(&self) -> Result<Vec<BlockRef<'a>>, WalError> {
        self.parts().map(|parts| parts.blocks)
    }

    /// Returns its main data; of a record above the limit only what was kept.
    ///
    /// # Errors
    /// [`WalError::Record`] when its headers contradict its length.
    pub fn main_data(&self) -> Result<&'a [u8], WalError> {
        self.parts().map(|parts| parts.main)
    }

    /// Tells what it means, or `None` when it is nothing that is recognised.
    ///
    /// # Errors
    /// [`WalError::Record`] when its contents contradict themselves.
    pub fn event(&self) -> Result<Option<Event>, WalError> {
        Event::read(self)
    }

    /// Returns the relation of the first block it touches, without reading the rest.
    pub fn first_relation(&self) -> Option<Relation> {
        let mut fields = Fields::new(self.body);
        read_header(&mut fields, self.version, None)
            .ok()
            .flatten()
            .map(|header| header.relation)
    }

    pub(super) fn wrong(&self, what: &'static str) -> WalError {
        WalError::Record {
            at: self.start,
            what,
        }
    }

    pub(super) fn parts(&self) -> Result<Parts<'a>, WalError> {
        let cut = || self.wrong("its block headers are cut");
        let total = usize::try_from(self.length)
            .ok()
            .and_then(|length| length.checked_sub(RECORD_HEADER))
            .ok_or_else(cut)?;
        let whole = self.body.len() == total;
        let mut fields = Fields::new(self.body);
        let mut headers: Vec<Header> = Vec::new();
        let mut payload = 0_usize;
        let mut main = 0_usize;
        // INVARIANT: `rest` and `payload` are bounded by the record, and each turn takes a byte.
        while total.saturating_sub(self.body.len().saturating_sub(fields.rest().len())) > payload {
            let Some(id) = fields.rest().first().copied() else {
                return if whole {
                    Err(cut())
                } else {
                    Ok(Parts::default())
                };
            };
            match id {
                ID_DATA_SHORT | ID_DATA_LONG => {
                    fields.byte();
                    main = if id == ID_DATA_SHORT {
                        fields.byte().map(usize::from)
                    } else {
                        fields.u32().and_then(|length| usize::try_from(length).ok())
                    }
                    .ok_or_else(cut)?;
                    payload = payload.saturating_add(main);
                    break;
                }
                ID_ORIGIN => fields.take(3).map(|_| ()).ok_or_else(cut)?,
                ID_TOP_TRANSACTION => fields.take(5).map(|_| ()).ok_or_else(cut)?,
                _ => {
                    let before = headers.last();
                    let header = read_header(&mut fields, self.version, before)
                        .map_err(|what| self.wrong(what))?
                        .ok_or_else(|| self.wrong("it has a block header of an unknown kind"))?;
                    let image = header.image.map_or(0, |(length, _, _)| length);
                    payload = payload.saturating_add(header.data).saturating_add(image);
                    headers.push(header);
                }
            }
        }
        let read = self.body.len().saturating_sub(fields.rest().len());
        if total.checked_sub(read) != Some(payload) {
            return Err(self.wrong("its parts are longer or shorter than the whole"));
        }
        Ok(assemble(headers, fields, main))
    }
}

/// Puts headers and payload together; what was not kept of a long record is left empty.
fn assemble<'a>(headers: Vec<Header>, mut fields: Fields<'a>, main: usize) -> Parts<'a> {
    let mut blocks = Vec::with_capacity(headers.len());
    for header in headers {
        let image = header.image.and_then(|(length, hole_offset, compressed)| {
            fields.take(length).map(|bytes| BlockImage {
                bytes,
                hole_offset,
                compressed,
            })
        });
        blocks.push(BlockRef {
            id: header.id,
            relation: header.relation,
            fork: header.fork,
            block: header.block,
            will_init: header.will_init,
            image,
            data: fields.take(header.data).unwrap_or_default(),
        });
    }
    let rest = fields.rest();
    let main = rest.get(..main).unwrap_or(rest);
    Parts { blocks, main }
}

/// Reads one block header; `None` when what comes is not one.
fn read_header(
    fields: &mut Fields<'_>,
    version: WalVersion,
    before: Option<&Header>,
) -> Result<Option<Header>, &'static str> {
    const CUT: &str = "a block header is cut";
    let Some(id) = fields
        .rest()
        .first()
        .copied()
        .filter(|id| *id <= BLOCK_ID_MAX)
    else {
        return Ok(None);
    };
    if before.is_some_and(|before| before.id >= id) {
        return Err("its block headers are out of order");
    }
    fields.byte();
    let flags = fields.byte().ok_or(CUT)?;
    let data = usize::from(fields.u16().ok_or(CUT)?);
    if (flags & BLOCK_HAS_DATA != 0) != (data > 0) {
        return Err("a block header states data and has none, or the other way round");
    }
    let fork = Fork::from_number(u32::from(flags & BLOCK_FORK)).ok_or("an unknown fork")?;
    let mut image = None;
    if flags & BLOCK_HAS_IMAGE != 0 {
        let length = usize::from(fields.u16().ok_or(CUT)?);
        let hole_offset = fields.u16().ok_or(CUT)?;
        let kind = fields.byte().ok_or(CUT)?;
        let compressed = kind & compression(version) != 0;
        if compressed && kind & IMAGE_HAS_HOLE != 0 {
            fields.u16().ok_or(CUT)?;
        }
        if length > PAGE || usize::from(hole_offset) > PAGE {
            return Err("a page image is larger than a page");
        }
        image = Some((length, hole_offset, compressed));
    }
    let relation = if flags & BLOCK_SAME_RELATION == 0 {
        Relation::read(fields).ok_or(CUT)?
    } else {
        before
            .map(|before| before.relation)
            .ok_or("its first block is of the same relation as none")?
    };
    let block = fields.u32().ok_or(CUT)?;
    Ok(Some(Header {
        id,
        relation,
        fork,
        block,
        will_init: flags & BLOCK_WILL_INIT != 0,
        data,
        image,
    }))
}

/// Returns the flags of an image that say that it is compressed.
fn compression(version: WalVersion) -> u8 {
    match version {
        WalVersion::V13 | WalVersion::V14 => 0x02,
        WalVersion::V15 | WalVersion::V16 | WalVersion::V17 | WalVersion::V18 => 0x1C,
    }
}
