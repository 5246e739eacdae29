//! The binary as its users meet it: typed commands, real servers, real processes.

mod cli;
mod desk;
