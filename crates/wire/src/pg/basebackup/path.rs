//! Paths inside a base backup: relative, downwards, short.

use holdfast_core::Untrusted;

/// The longest path that is accepted, in bytes.
pub const LIMIT_PATH_BYTES: usize = 1024;

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It would leave the directory it belongs to, or names nothing.
    #[error("the path `{}` leaves its directory", Untrusted(.0))]
    Escapes(String),
    /// Longer than [`LIMIT_PATH_BYTES`].
    #[error("a path has {0} bytes")]
    Long(usize),
    /// Not UTF-8, or with control characters.
    #[error("the path `{}` is not plain text", Untrusted(.0))]
    NotText(String),
}

/// Checks a path that somebody else named and returns it without `./` and slashes at its ends.
///
/// Only normal parts remain: no `..`, no root, no empty part, no NUL and no other control character.
/// The empty text stands for the directory itself.
///
/// # Errors
/// [`PathError`].
pub fn relative_path(bytes: &[u8]) -> Result<String, PathError> {
    if bytes.len() > LIMIT_PATH_BYTES {
        return Err(PathError::Long(bytes.len()));
    }
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let text = std::str::from_utf8(bytes).map_err(|_| PathError::NotText(shown()))?;
    if text.chars().any(char::is_control) {
        return Err(PathError::NotText(shown()));
    }
    if text.starts_with('/') || text.contains('\\') {
        return Err(PathError::Escapes(shown()));
    }
    let text = text.strip_prefix("./").unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.is_empty() || text == "." {
        return Ok(String::new());
    }
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(PathError::Escapes(shown()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// Fixed, so that a failure comes again.
    const SEED: u64 = 312;

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(SEED), ..ProptestConfig::default() })]

        #[test]
        fn no_path_that_is_accepted_leads_out(bytes in prop_oneof![
            any::<Vec<u8>>(),
            "[./a\\\\ ]{0,12}".prop_map(String::into_bytes),
        ]) {
            if let Ok(path) = relative_path(&bytes) {
                let normal = |part: Component<'_>| matches!(part, Component::Normal(_));
                prop_assert!(Path::new(&path).components().all(normal), "{path:?}");
                prop_assert!(!path.contains('\0') && path.len() <= LIMIT_PATH_BYTES);
            }
        }
    }

    #[test]
    fn paths_that_leave_their_directory_are_refused() {
        for good in ["base/1/1259", "./global/pg_control", "pg_wal/", "a..b"] {
            assert!(relative_path(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "a/./b",
            ".//x",
            "//x",
            "a\\..\\b",
        ] {
            let refused = relative_path(bad.as_bytes());
            assert!(matches!(refused, Err(PathError::Escapes(_))), "{bad}");
        }
        for bad in [&b"a\0b"[..], b"a\nb", b"\xff"] {
            assert!(matches!(relative_path(bad), Err(PathError::NotText(_))));
        }
        assert_eq!(relative_path(&[b'a'; 1025]), Err(PathError::Long(1025)));
        assert_eq!(relative_path(b"./"), Ok(String::new()));
    }
}
