//! The keys of every repository that these tests make. They are known to all and protect nothing.

use std::path::Path;

use holdfast_core::Timestamp;
use holdfast_store::envelope::Identity;
use holdfast_store::keyring::Keyring;
use holdfast_store::object::Keys;

const MACHINE: &str = "AGE-SECRET-KEY-183M5N7ULCQ48QK8JVAMXDVDWG4RQ97ZAPCNK8NQVTYHFMGD4CPMSFJN867";
const RECOVERY: &str = "AGE-SECRET-KEY-1AXWDQ43V9ZG8ZM5RNS0JWSAM9FEDG50456KGQVPY5N8C9PLP5Q8Q6EUTN7";

/// The identity of the vault's machine.
pub fn machine() -> Identity {
    MACHINE.parse().unwrap()
}

/// The recovery key.
pub fn recovery() -> Identity {
    RECOVERY.parse().unwrap()
}

/// What a vault writes and reads with.
pub fn keys() -> Keys {
    let recipients = vec![machine().recipient(), recovery().recipient()];
    Keys::new(recipients, vec![machine()])
}

/// Puts the keys where a vault in a process of its own looks for them.
pub fn keep(folder: &Path) {
    let mut ring = Keyring::open(folder).unwrap();
    if ring.machine.is_empty() {
        ring.add_machine(machine(), Timestamp(0)).unwrap();
        ring.add_recovery(recovery().recipient(), Timestamp(0))
            .unwrap();
    }
}
