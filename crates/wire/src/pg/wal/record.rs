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

/// What replay does with a block first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redo {
    /// It is read and changed.
    Reads,
    /// It is written as a whole.
    Writes,
}

/// What [`Record::parts`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) blocks: Vec<BlockRef<'a>>,
    pub(super) main: &'a [u8],
}

#[derive(Clone, Copy)]
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

    /// Shows every block that it touches, without looking at what it says about them.
    ///
    /// # Errors
    /// [`WalError::Record`] when its headers contradict its length.
    pub(super) fn each_block(
        &self,
        mut each: impl FnMut(Relation, Fork, u32),
    ) -> Result<(), WalError> {
        let mut headers = Headers::of(self);
        while let Some(header) = headers.next().map_err(|what| self.wrong(what))? {
            each(header.relation, header.fork, header.block);
        }
        Ok(())
    }

    /// Shows every block that it touches, and whether replay reads it first.
    ///
    /// # Errors
    /// [`WalError::Record`] when its headers contradict its length.
    pub(super) fn each_redo(
        &self,
        mut each: impl FnMut((Relation, Fork, u32), Redo),
    ) -> Result<(), WalError> {
        let mut headers = Headers::of(self);
        while let Some(header) = headers.next().map_err(|what| self.wrong(what))? {
            let redo = match header.will_init || header.image.is_some() {
                true => Redo::Writes,
                false => Redo::Reads,
            };
            each((header.relation, header.fork, header.block), redo);
        }
        Ok(())
    }

    pub(super) fn parts(&self) -> Result<Parts<'a>, WalError> {
        let mut headers = Headers::of(self);
        let mut found = Vec::new();
        while let Some(header) = headers.next().map_err(|what| self.wrong(what))? {
            found.push(header);
        }
        if headers.is_cut {
            return Ok(Parts::default());
        }
        Ok(assemble(found, headers.fields, headers.main))
    }
}

/// Walks over the block headers of a record, in order.
struct Headers<'a> {
    version: WalVersion,
    fields: Fields<'a>,
    /// Bytes that stand in the log after the record's own header.
    total: usize,
    /// Bytes of them that were kept.
    kept: usize,
    /// Bytes that the headers so far announce.
    payload: usize,
    /// Bytes of main data.
    main: usize,
    before: Option<Header>,
    /// What was kept ends inside the headers.
    is_cut: bool,
}

impl<'a> Headers<'a> {
    fn of(record: &Record<'a>) -> Self {
        let length = usize::try_from(record.length).unwrap_or(usize::MAX);
        Self {
            version: record.version,
            fields: Fields::new(record.body),
            total: length.saturating_sub(RECORD_HEADER),
            kept: record.body.len(),
            payload: 0,
            main: 0,
            before: None,
            is_cut: false,
        }
    }

    /// Bytes after the headers that were read.
    fn left(&self) -> usize {
        let read = self.kept.saturating_sub(self.fields.rest().len());
        self.total.saturating_sub(read)
    }

    /// Returns the next block header; the main data's length is known after the last.
    fn next(&mut self) -> Result<Option<Header>, &'static str> {
        const CUT: &str = "its block headers are cut";
        // INVARIANT: `left` and `payload` are bounded by the record, and each turn takes a byte.
        while self.left() > self.payload {
            let Some(id) = self.fields.rest().first().copied() else {
                self.is_cut = self.kept < self.total;
                return if self.is_cut { Ok(None) } else { Err(CUT) };
            };
            match id {
                ID_DATA_SHORT | ID_DATA_LONG => {
                    self.fields.byte();
                    self.main = if id == ID_DATA_SHORT {
                        self.fields.byte().map(usize::from)
                    } else {
                        let length = self.fields.u32();
                        length.and_then(|length| usize::try_from(length).ok())
                    }
                    .ok_or(CUT)?;
                    self.payload = self.payload.saturating_add(self.main);
                    break;
                }
                ID_ORIGIN => self.fields.take(3).map(|_| ()).ok_or(CUT)?,
                ID_TOP_TRANSACTION => self.fields.take(5).map(|_| ()).ok_or(CUT)?,
                _ => {
                    let header = read_header(&mut self.fields, self.version, self.before.as_ref())?
                        .ok_or("it has a block header of an unknown kind")?;
                    let image = header.image.map_or(0, |(length, _, _)| length);
                    self.payload = self
                        .payload
                        .saturating_add(header.data)
                        .saturating_add(image);
                    self.before = Some(header);
                    return Ok(Some(header));
                }
            }
        }
        if self.left() == self.payload {
            Ok(None)
        } else {
            Err("its parts are longer or shorter than the whole")
        }
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
