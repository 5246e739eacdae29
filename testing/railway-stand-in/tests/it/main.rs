//! The stand-in as its users meet it: over HTTPS, with curl, and by what is left on the disk.

mod incident;
mod support;
