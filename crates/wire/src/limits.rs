//! Named limits of this room.

/// The longest GraphQL request body, in bytes.
pub const GRAPHQL_BODY_BYTES_MAX: usize = 4 << 20;

/// The longest GraphQL document, in bytes.
pub const GRAPHQL_DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Tokens of one GraphQL document.
pub const GRAPHQL_TOKENS_MAX: usize = 100_000;

/// Nesting of selections and of argument values in one GraphQL document.
pub const GRAPHQL_DEPTH_MAX: usize = 64;

/// Fields of one request after its fragments were put in place.
pub const GRAPHQL_FIELDS_MAX: usize = 20_000;

/// Requests in one batch.
pub const GRAPHQL_BATCH_MAX: usize = 100;

/// Nesting of JSON that is looked at.
pub const JSON_DEPTH_MAX: usize = 100;

/// The longest head of a request or response of HTTP/1.1, in bytes.
pub const HTTP_HEAD_BYTES_MAX: usize = 64 << 10;

/// Header lines of one request.
pub const HTTP_HEADERS_MAX: usize = 128;

/// The longest line that announces a chunk, and all trailer lines together, in bytes.
pub const HTTP_CHUNK_LINE_BYTES_MAX: usize = 4 << 10;

/// Bytes of one record of the write-ahead log that are kept; of a longer one the rest is only checked.
pub const WAL_RECORD_BYTES_KEPT: usize = 16 << 20;

/// Forks of relations whose changed blocks are told apart; beyond, everything counts as changed.
pub const CHANGED_FORKS: usize = 400_000;

/// Memory for the numbers of changed blocks, in bytes: a bit for each block of 4 TiB. Beyond, the
/// relations with the most changes count as changed whole.
pub const CHANGED_BITMAP_BYTES: usize = 64 << 20;
