//! The binary as its users meet it: typed commands, real servers, real processes.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod desk;
#[cfg(test)]
mod replay;
