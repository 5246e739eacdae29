//! A permit that is kept for a second use.

use holdfast_core::Permit;

fn twice(permit: Permit) -> (Permit, Permit) {
    (permit.clone(), permit)
}

fn main() {}
