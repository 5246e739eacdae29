//! The doors, one file (and folder) a protocol.
