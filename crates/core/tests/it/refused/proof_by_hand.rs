//! A proof, and a covering, that no drill has made.

use holdfast_core::{Covering, DrillReport, PointId, Proof, SignedProof, SourceName};

fn forge(report: DrillReport, signed: SignedProof) -> Proof {
    Proof { report, signed }
}

fn cover(source: SourceName, point: PointId) -> Covering {
    Covering { source, point }
}

fn main() {}
