//! A third kind of reversibility that would need no way back.

use holdfast_core::Reversibility;

struct Harmless;

impl Reversibility for Harmless {
    type WayBack = ();
}

fn main() {}
