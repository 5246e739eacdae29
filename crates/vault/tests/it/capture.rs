//! Capture: base backups and the log, from real servers into spool and repository.

mod full;
mod hostile;
mod killed;
mod majors;
mod refusals;
mod repository;
pub mod scene;
mod slot;
mod streaming;
mod timeline;
