//! A node that lends memory keeps few frames for tables of other nodes' pages.
//! When it touches more of the guest's memory than those tables cover, further
//! tables come out of frames for pages; never does one fail to be had.

mod pair;

use addr::{Gfn, NodeId, RUN_PAGES};
use coherence::Limits;
use pair::Pair;

/// Frames of the leader and of the lender.
const FRAMES: [u64; 2] = [64 * RUN_PAGES, 4 * RUN_PAGES];

#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn tables_are_had_wherever_a_lender_touches() {
    let mut pair = Pair::new(FRAMES);
    let layout = pair.nodes[0].0.layout().clone();
    let runs = layout.pages_of(NodeId(0)) / RUN_PAGES;
    // Every run of the leader, until the lender's frames have long run out.
    for place in 0..40 {
        for run in 0..runs {
            pair.write(1, Gfn(run * RUN_PAGES + place));
        }
    }
    let (nested, _) = pair.nodes[1].0.table_frames();
    let kept = Limits::new(FRAMES[1], FRAMES.iter().sum(), false).table_frames;
    assert!(nested > kept, "{nested} tables are no more than were kept back");
    // What the lender is home to needs tables of its directory now.
    let own = layout.pages_of(NodeId(0));
    for run in 0..layout.pages_of(NodeId(1)) / RUN_PAGES {
        for node in [0, 1] {
            pair.write(node, Gfn(own + run * RUN_PAGES + node as u64));
        }
    }
    // Whole runs that the lender was granted come apart.
    for run in 0..runs {
        pair.write(0, Gfn(run * RUN_PAGES + 500));
    }
}
