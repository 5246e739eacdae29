//! Restore points that are mounted as data directories.

mod hostile;
mod killed;
mod same;
mod scene;
mod server;
