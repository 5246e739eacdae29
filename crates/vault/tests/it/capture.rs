//! Capture: base backups and the log, from real servers into spool and repository.

pub mod churn;
mod damaged;
mod full;
mod hostile;
pub mod killed;
mod majors;
mod points;
mod refusals;
mod repository;
pub mod scene;
mod settings;
mod slot;
mod streaming;
mod timeline;
