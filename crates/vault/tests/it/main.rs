//! The vault against real servers.

#[cfg(test)]
mod bucket;
#[cfg(test)]
mod capture;
#[cfg(test)]
mod clone;
#[cfg(test)]
mod directory;
#[cfg(test)]
mod drill;
#[cfg(test)]
mod export;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_v2;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod mount;
#[cfg(test)]
mod points;
#[cfg(test)]
mod repository;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod stock;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod wal;
#[cfg(test)]
mod watch;
