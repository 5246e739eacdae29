//! An irreversible action, and nothing that proves a way back.

use holdfast_core::{Irreversible, JudgedAction, Leave, Permit};

fn forward(judged: JudgedAction<Irreversible>) {
    let _ = Permit::new(judged, Leave::Policy, ());
}

fn main() {}
