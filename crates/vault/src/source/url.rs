//! Connection strings; their reading is a format and lives with the formats.

pub use holdfast_wire::pg::url::{ConnectionUrl, SslMode, UrlError};
