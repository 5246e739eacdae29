//! A permit whose fields are filled in by hand.

use holdfast_core::{Action, Leave, Permit};

fn forge(action: Action) -> Permit {
    Permit { action, leave: Leave::Policy, way_back: None }
}

fn main() {}
