//! Frames that the fabric still refers to.
//!
//! A page leaves from its frame without a copy, and may have to be sent again.
//! So a frame goes back to the pool only when the fabric has let go of it.

use addr::Frame;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sending {
    times: u32,
    free_after: bool,
}

/// Counts, for each frame on its way, how often and what comes after.
#[derive(Clone, Debug)]
pub(crate) struct Transit {
    frames: HashMap<Frame, Sending, FxBuildHasher>,
}

impl Transit {
    pub(crate) fn new(expected: usize) -> Transit {
        Transit { frames: HashMap::with_capacity_and_hasher(expected * 8, FxBuildHasher) }
    }

    /// The frame is given to the fabric.
    pub(crate) fn leave(&mut self, frame: Frame) {
        self.frames.entry(frame).or_default().times += 1;
    }

    /// Marks the frame to be freed when it has arrived; `false` if it is not
    /// on its way and may be freed now.
    pub(crate) fn free_later(&mut self, frame: Frame) -> bool {
        match self.frames.get_mut(&frame) {
            Some(sending) => {
                assert!(!sending.free_after, "a frame freed twice");
                sending.free_after = true;
                true
            }
            None => false,
        }
    }

    /// The fabric has let go once; `true` if the frame is to be freed now.
    pub(crate) fn arrived(&mut self, frame: Frame) -> bool {
        let sending = self.frames.get_mut(&frame).expect("a frame that was given to the fabric");
        sending.times -= 1;
        if sending.times > 0 {
            return false;
        }
        let free = sending.free_after;
        self.frames.remove(&frame);
        free
    }

    /// Every frame on its way, how often, and whether it is freed after; in no
    /// order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Frame, u32, bool)> + '_ {
        self.frames.iter().map(|(&frame, s)| (frame, s.times, s.free_after))
    }

    /// Frames that will come free when they have arrived.
    pub(crate) fn freeing(&self) -> u64 {
        self.frames.values().filter(|s| s.free_after).count() as u64
    }
}
