//! Restore points that are mounted as data directories.

mod far;
mod hostile;
mod killed;
mod same;
mod scene;
mod server;
mod speed;
mod stuck;
