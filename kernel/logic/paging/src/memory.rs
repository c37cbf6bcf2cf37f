//! What the logic may do to a node's page frames.

use addr::{Frame, PageBytes};

/// Access to the page frames that the node gave to Pangaea. `hw/platform`
/// implements it over physical memory, tests over a vector.
///
/// A frame handed to any method must be one that the node's frame allocator
/// owns; an implementation asserts that it is RAM.
pub trait HostMemory {
    /// Reads entry `index` (0 to 511) of a table frame.
    fn read_entry(&self, table: Frame, index: usize) -> u64;
    /// Writes entry `index` of a table frame with one aligned 64-bit store.
    fn write_entry(&mut self, table: Frame, index: usize, value: u64);
    /// Fills a frame with zeroes.
    fn zero(&mut self, frame: Frame);
    /// Whether a frame holds only zeroes.
    fn is_zero(&self, frame: Frame) -> bool;
    /// Copies bytes into a frame from `offset` on; `offset + from.len()` is at most 4096.
    fn write(&mut self, frame: Frame, offset: usize, from: &[u8]);
    /// Copies bytes out of a frame from `offset` on; `offset + to.len()` is at most 4096.
    fn read(&self, frame: Frame, offset: usize, to: &mut [u8]);
    /// Copies a whole page into a frame.
    fn copy_in(&mut self, frame: Frame, from: &PageBytes) {
        self.write(frame, 0, from);
    }
}
