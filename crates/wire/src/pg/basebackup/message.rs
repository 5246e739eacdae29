//! The messages inside the copy stream of `BASE_BACKUP`, as versions 15 and later send them.

use bytes::Bytes;
use holdfast_core::ByteCount;

/// One message inside the copy stream of a base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseMessage {
    /// A new archive begins: the whole cluster (`location` is empty) or one tablespace.
    Archive {
        /// `base.tar` or `<oid>.tar`.
        name: String,
        /// Where the tablespace lies on the server.
        location: String,
    },
    /// Bytes of the archive or of the manifest, whichever began last.
    Data(Bytes),
    /// The manifest begins.
    Manifest,
    /// How much of the present archives has been sent.
    Progress(ByteCount),
}

/// Why bytes are not a message of a base backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseMessageError {
    /// Shorter or longer than its fields, or not text.
    #[error("a message of the base backup is not readable")]
    Malformed,
    /// An unknown kind.
    #[error("the base backup contains a message of unknown kind {0}")]
    Unknown(u8),
}

impl BaseMessage {
    /// Reads one message from the body of a `CopyData`.
    ///
    /// # Shape
    /// `n`: archive name and location, each ended by NUL. `m`: nothing. `d`: bytes. `p`: progress u64.
    ///
    /// # Errors
    /// [`BaseMessageError`].
    ///
    /// # Source
    /// <https://www.postgresql.org/docs/18/protocol-replication.html>, `BASE_BACKUP`
    pub fn parse(body: &Bytes) -> Result<Self, BaseMessageError> {
        let (kind, rest) = body.split_first().ok_or(BaseMessageError::Malformed)?;
        match kind {
            b'n' => {
                let mut parts = rest.split(|byte| *byte == 0);
                let mut text = || {
                    let part = parts.next().ok_or(BaseMessageError::Malformed)?;
                    let text =
                        std::str::from_utf8(part).map_err(|_| BaseMessageError::Malformed)?;
                    Ok(text.to_owned())
                };
                let (name, location, end) = (text()?, text()?, text()?);
                if name.is_empty() || !end.is_empty() || parts.next().is_some() {
                    return Err(BaseMessageError::Malformed);
                }
                Ok(Self::Archive { name, location })
            }
            b'd' => Ok(Self::Data(body.slice(1..))),
            b'm' if rest.is_empty() => Ok(Self::Manifest),
            b'p' => {
                let bytes = <[u8; 8]>::try_from(rest).map_err(|_| BaseMessageError::Malformed)?;
                Ok(Self::Progress(ByteCount(u64::from_be_bytes(bytes))))
            }
            b'm' => Err(BaseMessageError::Malformed),
            other => Err(BaseMessageError::Unknown(*other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &'static [u8]) -> Result<BaseMessage, BaseMessageError> {
        BaseMessage::parse(&Bytes::from_static(bytes))
    }

    #[test]
    fn each_kind_is_read_and_its_neighbours_refused() {
        let archive = |name: &str, location: &str| BaseMessage::Archive {
            name: name.to_owned(),
            location: location.to_owned(),
        };
        assert_eq!(parse(b"nbase.tar\0\0"), Ok(archive("base.tar", "")));
        assert_eq!(
            parse(b"n16385.tar\0/srv/ts\0"),
            Ok(archive("16385.tar", "/srv/ts"))
        );
        assert_eq!(parse(b"m"), Ok(BaseMessage::Manifest));
        assert_eq!(
            parse(b"p\0\0\0\0\0\0\x01\0"),
            Ok(BaseMessage::Progress(ByteCount(256)))
        );
        assert_eq!(
            parse(b"dabc"),
            Ok(BaseMessage::Data(Bytes::from_static(b"abc")))
        );
        for bad in [
            &b""[..],
            b"n",
            b"nbase.tar",
            b"nbase.tar\0",
            b"n\0\0",
            b"na\0b\0c\0",
            b"mx",
            b"p123",
        ] {
            assert_eq!(parse(bad), Err(BaseMessageError::Malformed), "{bad:?}");
        }
        assert_eq!(parse(b"z"), Err(BaseMessageError::Unknown(b'z')));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = BaseMessage::parse(&Bytes::from(bytes));
        }
    }
}
