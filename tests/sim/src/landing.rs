//! The page frames that a NIC fills.
//!
//! A NIC that splits frames has page frames of the node in its ring; a page
//! stays where it landed, and the ring gets another frame for it. Each frame
//! of the ring is filled with a pattern when the NIC gets it: whoever writes
//! to it before the NIC does, has written to memory that is not his.

use crate::failure::{Class, Failure};
use addr::{Frame, PAGE_SIZE};
use paging::HostMemory;
use paging::memory::fake::VecMemory;

/// Frames in the ring.
pub const RING: u64 = 4;
const PATTERN: [u8; PAGE_SIZE] = [0xC3; PAGE_SIZE];

/// A ring of page frames.
#[derive(Debug)]
pub struct Landing {
    ring: Vec<Frame>,
    next: usize,
}

impl Landing {
    /// A ring with the [`RING`] frames from `start` on.
    #[must_use]
    pub fn new(start: Frame, memory: &mut VecMemory) -> Landing {
        let ring: Vec<_> = (0..RING).map(|i| start.offset_by(i)).collect();
        ring.iter().for_each(|&frame| memory.copy_in(frame, &PATTERN));
        Landing { ring, next: 0 }
    }

    /// Where the header of a frame ends that carries a whole page.
    #[must_use]
    pub fn header_len(frame: &[u8]) -> Option<usize> {
        let packet = wire::Packet::parse(frame).ok()?;
        let wire::Body::Data(data) = packet.body else { return None };
        (data.payload.len() == PAGE_SIZE).then(|| frame.len() - PAGE_SIZE)
    }

    /// Puts a page into the next frame of the ring.
    ///
    /// # Errors
    /// If somebody else has written to that frame.
    pub fn fill(&mut self, memory: &mut VecMemory, page: &[u8]) -> Result<Frame, Failure> {
        let frame = self.ring[self.next];
        let mut held = [0; PAGE_SIZE];
        memory.read(frame, 0, &mut held);
        if held != PATTERN {
            let what = format!("{frame:?} is the NIC's and was written to");
            return Err(Failure::new(Class::Crash, what));
        }
        memory.write(frame, 0, page);
        Ok(frame)
    }

    /// The ring has `frame` from now on in place of the one filled last.
    pub fn refill(&mut self, memory: &mut VecMemory, frame: Frame) {
        memory.copy_in(frame, &PATTERN);
        self.ring[self.next] = frame;
        self.next = (self.next + 1) % self.ring.len();
    }
}
