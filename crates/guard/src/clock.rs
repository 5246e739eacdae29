//! The clock and the randomness of this shell, in one place.

use holdfast_core::Timestamp;

/// Returns the time now.
pub fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

/// Draws random bytes from the operating system.
///
/// # Errors
/// When the system has no randomness to give; the caller refuses.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct RandomError;
