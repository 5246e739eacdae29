//! The table of error codes. A code is never reused; each has a page in `docs/errors/`.

use std::fmt;

use serde::{Serialize, Serializer};

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A broken invariant of ours; the connection ends.
    Bug,
    /// Whoever wrote the input or the configuration.
    Usage,
    /// A checksum, the ledger or a proof is wrong: a human, now; the part stops.
    Integrity,
    /// Identity or lease: the operator.
    Access,
    /// A verdict: the agent or the approver.
    Refused,
    /// A database, provider or store that we depend on.
    Upstream,
}

/// An error code: five characters, a valid private SQLSTATE, the same in every protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

impl Code {
    /// Returns the five characters.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Returns who must act, told by the second letter.
    pub fn class(self) -> Class {
        match self.0.as_bytes().get(1) {
            Some(b'H') => Class::Refused,
            Some(b'I') => Class::Integrity,
            Some(b'L') => Class::Access,
            Some(b'S') => Class::Upstream,
            Some(b'U') => Class::Usage,
            _ => Class::Bug,
        }
    }

    /// Returns the exit status of a command that ends with it: 3 held, 4 denied, 2 usage, 1 failed.
    pub fn exit_status(self) -> u8 {
        match self.class() {
            Class::Refused if self == Self::ZH001 || self == Self::ZH003 => 3,
            Class::Refused => 4,
            Class::Usage => 2,
            Class::Bug | Class::Integrity | Class::Access | Class::Upstream => 1,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

macro_rules! codes {
    ($($code:ident $title:literal,)*) => {
        impl Code {
            $(#[doc = concat!(stringify!($code), ": ", $title, ".")]
            pub const $code: Self = Self(stringify!($code));)*

            /// Every code with its title, in the order of the table.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$code, $title),)*];
        }
    };
}

// The digit after the class letter tells the room: 0 core, 1 wire and judge, 2 store, 3 vault,
// 4 guard's PostgreSQL door, 5 guard's HTTP door and custody, 6 the binary, 7 replays and tools.
codes! {
    ZH001 "held for approval",
    ZH002 "denied by policy",
    ZH003 "no proven way back",
    ZH004 "frozen",
    ZH005 "approval refused",

    ZI001 "the ledger does not verify",
    ZI002 "a proof does not verify",

    // judge
    ZU101 "the policy cannot be used",

    // store
    ZI201 "the state file holds an unreadable document",
    ZS201 "the ledger cannot be written",
    ZS202 "the state file cannot be used",
    ZU201 "a key cannot be used",
    ZU202 "the file is in use, or is something else",
    ZU203 "the document exists, or was changed meanwhile",

    // store: objects
    ZI251 "an object of the repository is missing or damaged",
    ZI252 "an object would have been overwritten",
    ZS251 "the repository cannot be read or written",
    ZS252 "the repository's disk is full",
    ZU251 "the directory is not this repository",
    ZU252 "the repository has a newer format",
    ZU254 "the repository is in use by another vault",

    // store: object storage
    ZI260 "an object was stored without its lock",
    ZI261 "the place of the repository permits what it must refuse",
    ZL260 "the object storage refused the credentials",
    ZL261 "the object storage does not permit it",
    ZS260 "the object storage cannot be reached or does not answer",
    ZS261 "the object storage answered with an error",
    ZS262 "the object storage's answer was cut or is another than asked for",
    ZS263 "it is not known whether an object was stored",
    ZU260 "the location of the object storage is not usable",
    ZU281 "the repository has a format that is no longer written",
    ZU282 "the restore point has no such file",

    // store: envelopes
    ZI270 "an object of the repository is not a whole envelope",
    ZL270 "no key at hand opens the object",
    ZL271 "the keys at hand do not open every restore point",
    ZS270 "an object cannot be sealed",
    ZU270 "the text is not a key of an envelope",
    ZU271 "nobody keeps the recovery key",
    ZU272 "the vault has no recovery key",

    // vault
    ZB301 "the vault used its repository wrongly",
    ZI301 "the source is another cluster than before",
    ZI302 "write-ahead log is missing between two positions",
    ZI303 "write-ahead log is damaged",
    ZI304 "the base backup does not match its manifest",
    ZI305 "a restore point does not verify",
    ZI306 "a drill failed",
    ZI310 "the base backup does not end",
    ZI320 "a block was changed past the log",
    ZI321 "what changed since the newest restore point cannot be read",
    ZI390 "a table lost most of its rows",
    ZI391 "a drill's entry in the ledger and its proof do not agree",
    ZI371 "the record of a clone cannot be believed",
    ZI331 "the disk does not have what was restored to it",
    ZL301 "the source refused the password",
    ZL302 "the source does not admit replication",
    ZS301 "the source cannot be reached",
    ZS302 "the source answered with an error",
    ZS303 "the spool's disk is full",
    ZS304 "the spool cannot be read or written",
    ZS305 "the restored server did not come into service",
    ZS311 "the vault's replication slot is in use",
    ZS312 "the repository's disk is kept for the log",
    ZS331 "the disk has no room for the restore",
    ZS371 "a clone's server refuses what makes it one",
    ZS372 "the folder of clones cannot be used",
    ZS373 "a clone does not answer",
    ZS374 "a clone's server does not come into service",
    ZS340 "the directory cannot be read",
    ZS320 "a restore point cannot be built on the newest one",
    ZU301 "a setting of the source is missing",
    ZU302 "the source's version is not supported",
    ZU303 "the connection string is not usable",
    ZU304 "the restore target cannot be reached",
    ZU305 "the restore directory cannot be used",
    ZU306 "no PostgreSQL of the needed version was found",
    ZU307 "there is no restore point",
    ZU331 "another restore was begun in the directory",
    ZU332 "the older copy cannot be used",
    ZU390 "there is no loss of rows to accept",
    ZU371 "there would be more of clones than there may be",
    ZU372 "there is no such clone",
    ZU373 "the clone is not in a state in which that can be done",
    ZU470 "a clone cannot be mounted here",
    ZU340 "the directory holds what the vault keeps",

    // vault: mounts
    ZI360 "an overlay is damaged",
    ZS360 "an overlay cannot be read or written",
    ZU360 "the overlay is of another restore point",
    ZU361 "the overlay is in use",
    ZU362 "nothing can be mounted here",

    // vault: retention and the one writer
    ZI351 "the plan of what expires does not fit any more",
    ZI352 "another vault has taken over the repository",
    ZS351 "the clocks do not agree",
    ZS352 "the writer cannot be told alive from gone",
    ZU351 "the lock window cannot shrink",
    ZU352 "the plan of what expires cannot be used",
    ZU353 "the repository belongs to another vault",
    ZU354 "the mark on a restore point cannot be set",
    ZU355 "files of the repository cannot be made immutable",
    ZU356 "expiry has no key of its own",

    // vault: the mirror and recovery
    ZI380 "the log does not replay",
    ZI381 "the mirror went another way than the source",
    ZS380 "the mirror's server does not run",
    ZS381 "the mirror's folder cannot be used",
    ZS382 "the mirror cannot take over",
    ZI490 "the mirror's files are not whole",
    ZS490 "the mirror's disk has too little room",
    ZS491 "another vault has the mirror's folder",
    ZU380 "the connection file cannot be rewritten",
    ZU381 "the forwarder cannot be used",

    // guard: leases, holds and the PostgreSQL door
    ZH401 "too many holds are waiting",
    ZH430 "the rehearsal does not let this be approved",
    ZL401 "the lease opens nothing",
    ZL402 "the role of a lease cannot be made",
    ZL441 "the PostgreSQL door wants encryption",
    ZS401 "the source of the PostgreSQL door cannot be reached",
    ZS402 "the PostgreSQL door cannot listen",
    ZS403 "what a transaction did cannot be measured",
    ZS520 "a source cannot be looked through for what makes leases weaker",
    ZU401 "the lease request is not complete",
    ZU402 "the hold cannot be decided",
    ZS510 "a prepared transaction cannot be recorded or told",
    ZU403 "the PostgreSQL door does not pass this",
    ZU404 "the PostgreSQL message cannot be understood",
    ZU520 "a clone cannot have a door",
    ZU510 "two-phase commit does not pass in this form",
    ZU511 "this lease had no such transaction prepared",

    // guard: the HTTP door, custody, packs, scan
    ZL501 "the HTTP door asks for a lease",
    ZL502 "the lease token is for another host",
    ZS501 "the provider cannot be reached",
    ZS502 "the provider's answer was lost",
    ZS503 "the HTTP door cannot listen",
    ZU501 "the HTTP request cannot be understood",
    ZU502 "the HTTP request is too large",
    ZU503 "the HTTP request names two hosts",
    ZU505 "the certificate authority of the doors cannot be used",
    ZU506 "the credential cannot be taken into custody",
    ZU507 "a pack cannot be used",
    ZU508 "the path cannot be scanned",

    // the binary
    ZI601 "a key or a record of ours does not fit",
    ZL601 "the passphrase is not the approver's",
    ZS601 "the other half is not running",
    ZS602 "the other half did not answer",
    ZS603 "the system refused",
    ZU601 "the configuration is not valid",
    ZU602 "a secret cannot be had",
    ZU603 "the source is not known",
    ZU604 "the local API cannot listen",
    ZU605 "the request is not understood",
    ZU606 "there is no public key",
    ZU607 "there is no passphrase",
    ZU608 "the configuration cannot be changed",

    // replays
    ZS701 "a part of the replay's stack failed",
    ZS702 "the replay was stopped",
    ZS703 "the replay did not end as promised",
    ZS704 "the replay's folder or processes cannot be used",
    ZU701 "there is no such replay",
    ZU702 "a program of the replay is absent",
    ZU703 "the replay's file is not valid",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_private_sqlstates() {
        let mut seen = std::collections::BTreeSet::new();
        for (code, title) in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} is listed twice");
            assert_eq!(code.as_str().len(), 5, "{code}");
            assert!(
                code.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            );
            assert!(
                code.as_str().starts_with('Z'),
                "{code}: PostgreSQL never uses class Z"
            );
            assert!(!title.is_empty() && !title.ends_with('.'));
        }
    }

    #[test]
    fn held_and_denied_have_their_own_exit_status() {
        assert_eq!(Code::ZH001.exit_status(), 3);
        assert_eq!(Code::ZH002.exit_status(), 4);
        assert_eq!(Code::ZI001.exit_status(), 1);
    }
}
