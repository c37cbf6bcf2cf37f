//! One ring of frames: one node writes it, one other node reads it.
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 8191 | at 0: frames the reader is done with |
//! | 8192 x (1 + n) | entry n: the number of its frame plus 1, its length in bytes, and from 64 on the frame |
//!
//! Frames are numbered from 0; frame i lies in entry i modulo [`ENTRIES`]. The
//! number in an entry is written last, so whoever sees it sees the frame.

use super::region::SharedRegion;

/// Bytes of an entry, and of the part that is not an entry.
const STRIDE: usize = 8192;
/// Bytes of a ring.
pub(super) const RING_BYTES: usize = 512 << 10;
/// Frames in flight at most.
pub(super) const ENTRIES: u64 = (RING_BYTES / STRIDE - 1) as u64;
/// Where a frame starts in its entry.
const FRAME: usize = 64;
/// Longest frame.
pub(super) const FRAME_MAX: usize = STRIDE - FRAME;

const CONSUMED: usize = 0;
const NUMBER: usize = 0;
const LENGTH: usize = 8;

fn entry(base: usize, number: u64) -> usize {
    base + STRIDE * (1 + (number % ENTRIES) as usize)
}

/// The writing end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    base: usize,
    next: u64,
    /// Frames the reader was done with when last looked at.
    consumed: u64,
}

impl Writer {
    pub(super) fn new(base: usize) -> Writer {
        Writer { base, next: 0, consumed: 0 }
    }

    /// Entries free for sure; the reader is asked only when they run short.
    pub(super) fn room(&mut self, region: &SharedRegion) -> u64 {
        let used = self.next - self.consumed;
        if used <= ENTRIES / 2 {
            return ENTRIES - used;
        }
        let consumed = region.read(self.base + CONSUMED);
        // The other node's word: taken only where it can be true.
        if (self.consumed..=self.next).contains(&consumed) {
            self.consumed = consumed;
        }
        ENTRIES - (self.next - self.consumed)
    }

    /// Where the next frame goes, if there is room.
    pub(super) fn place(&mut self, region: &SharedRegion) -> Option<usize> {
        (self.room(region) > 0).then(|| entry(self.base, self.next) + FRAME)
    }

    /// Hands the frame of `len` bytes, which was put in its place, to the reader.
    pub(super) fn publish(&mut self, region: &mut SharedRegion, len: usize) {
        let at = entry(self.base, self.next);
        region.write(at + LENGTH, len as u64);
        self.next += 1;
        region.write(at + NUMBER, self.next);
    }
}

/// The reading end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    base: usize,
    next: u64,
}

impl Reader {
    pub(super) fn new(base: usize) -> Reader {
        Reader { base, next: 0 }
    }

    /// Whether a frame waits.
    pub(super) fn ready(&self, region: &SharedRegion) -> bool {
        region.read(entry(self.base, self.next) + NUMBER) == self.next + 1
    }

    /// Place and length of the frame that waits; the length is checked.
    /// [`Reader::advance`] gives the entry back.
    pub(super) fn frame(&self, region: &SharedRegion) -> (usize, Option<usize>) {
        let at = entry(self.base, self.next);
        let len = usize::try_from(region.read(at + LENGTH)).ok();
        let good = crate::ETHERNET_HEADER_LEN..=FRAME_MAX;
        (at + FRAME, len.filter(|len| good.contains(len)))
    }

    /// Gives the entry back to the writer.
    pub(super) fn advance(&mut self, region: &mut SharedRegion) {
        self.next += 1;
        region.write(self.base + CONSUMED, self.next);
    }
}
