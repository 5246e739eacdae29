//! What every error of Holdfast offers: a code, a next step and its chain of causes.

use std::error::Error;
use std::fmt;

use crate::Code;

/// An error with a code of ours and a next step.
pub trait Coded: Error {
    /// Returns the code, which has a page in `docs/errors/`.
    fn code(&self) -> Code;

    /// Returns what to do next, where there is something to do.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Prints an error and all its sources, joined by `: `.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
