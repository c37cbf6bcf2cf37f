//! Frames that the fabric still refers to.
//!
//! A page leaves from its frame without a copy, and may have to be sent again.
//! So a frame goes back to the pool only when the fabric has let go of it.

use super::slots::Slots;
use addr::Frame;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sending {
    times: u32,
    free_after: bool,
}

/// Counts, for each frame on its way, how often and what comes after.
#[derive(Clone, Debug)]
pub(crate) struct Transit {
    frames: Slots<Sending>,
    freeing: u64,
}

impl Transit {
    pub(crate) fn new(expected: usize) -> Transit {
        Transit { frames: Slots::with_room_for(expected * 8), freeing: 0 }
    }

    /// The frame is given to the fabric.
    pub(crate) fn leave(&mut self, frame: Frame) {
        match self.frames.get_mut(&frame.0) {
            Some(sending) => sending.times += 1,
            None => {
                self.frames.insert(frame.0, Sending { times: 1, free_after: false });
            }
        }
    }

    /// Marks the frame to be freed when it has arrived; `false` if it is not
    /// on its way and may be freed now.
    pub(crate) fn free_later(&mut self, frame: Frame) -> bool {
        match self.frames.get_mut(&frame.0) {
            Some(sending) => {
                assert!(!sending.free_after, "a frame freed twice");
                sending.free_after = true;
                self.freeing += 1;
                true
            }
            None => false,
        }
    }

    /// The fabric has let go once; `true` if the frame is to be freed now.
    pub(crate) fn arrived(&mut self, frame: Frame) -> bool {
        let sending = self.frames.get_mut(&frame.0).expect("a frame that was given to the fabric");
        sending.times -= 1;
        if sending.times > 0 {
            return false;
        }
        let free = sending.free_after;
        self.frames.remove(&frame.0);
        self.freeing -= u64::from(free);
        free
    }

    /// Every frame on its way, how often, and whether it is freed after; in no
    /// order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Frame, u32, bool)> + '_ {
        self.frames.iter().map(|(&frame, s)| (Frame(frame), s.times, s.free_after))
    }

    /// Frames that will come free when they have arrived.
    pub(crate) fn freeing(&self) -> u64 {
        self.freeing
    }
}
