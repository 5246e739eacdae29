//! The commands, one file each.

pub mod clone;
pub mod drill;
pub mod expire;
pub mod export;
pub mod freeze;
pub mod hold;
pub mod init;
pub mod judge;
pub mod key;
pub mod lease;
pub mod ledger;
pub mod mount;
pub mod point;
pub mod recover;
pub mod replay;
pub mod restore;
pub mod scan;
pub mod source;
pub mod takeover;
pub mod target;
pub mod up;

use std::future::Future;

use crate::report::Failure;

/// Runs one future to its end on a small runtime of its own.
///
/// # Errors
/// What the future returns, or why no runtime could be made.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| crate::wiring::system("start", &error))?
        .block_on(future)
}

/// Reads an answer of the local API.
///
/// # Errors
/// When it is not of this version.
pub fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(
            holdfast_core::Code::ZS602,
            format!("the answer is not of this version: {error}"),
            "use the same version of holdfast everywhere",
        )
    })
}
