//! The stores against real storage: directories of this machine, and Ceph's gateway with Object Lock.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod s3;
