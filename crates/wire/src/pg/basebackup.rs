//! Base backups: the messages of `BASE_BACKUP`, the archives inside them and the backup manifest.

mod manifest;
mod message;
mod path;
mod tar;

pub use manifest::{BackupManifest, ManifestError, ManifestFile, Sum, WalRange};
pub use message::{BaseMessage, BaseMessageError};
pub use path::{LIMIT_PATH_BYTES, PathError, relative_path};
pub use tar::{TarEntry, TarError, TarEvent, TarKind, TarReader};
