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
    /// Copies a whole frame.
    fn copy_frame(&mut self, to: Frame, from: Frame) {
        let mut page = [0; addr::PAGE_SIZE];
        self.read(from, 0, &mut page);
        self.copy_in(to, &page);
    }
}

/// Memory of a vector, for tests and simulators.
#[cfg(any(test, feature = "fake"))]
pub mod fake {
    use super::HostMemory;
    use addr::{Frame, PAGE_SIZE};
    use alloc::vec::Vec;

    /// Frames 0 to n - 1, filled with a pattern that is not zero.
    #[derive(Clone, PartialEq, Eq, Hash, Debug)]
    pub struct VecMemory(Vec<Vec<u8>>);

    impl VecMemory {
        /// Memory of `frames` frames.
        #[must_use]
        pub fn new(frames: usize) -> VecMemory {
            VecMemory(alloc::vec![Vec::new(); frames])
        }

        /// Whether there is such a frame.
        #[must_use]
        pub fn has(&self, frame: Frame) -> bool {
            frame.0 < self.0.len() as u64
        }

        fn page(&mut self, frame: Frame) -> &mut Vec<u8> {
            let page = &mut self.0[frame.0 as usize];
            if page.is_empty() {
                page.resize(PAGE_SIZE, 0xa5);
            }
            page
        }
    }

    impl HostMemory for VecMemory {
        fn read_entry(&self, table: Frame, index: usize) -> u64 {
            let mut bytes = [0; 8];
            self.read(table, index * 8, &mut bytes);
            u64::from_le_bytes(bytes)
        }
        fn write_entry(&mut self, table: Frame, index: usize, value: u64) {
            self.write(table, index * 8, &value.to_le_bytes());
        }
        fn zero(&mut self, frame: Frame) {
            self.page(frame).fill(0);
        }
        fn is_zero(&self, frame: Frame) -> bool {
            let page = &self.0[frame.0 as usize];
            !page.is_empty() && page.iter().all(|&b| b == 0)
        }
        fn write(&mut self, frame: Frame, offset: usize, from: &[u8]) {
            self.page(frame)[offset..offset + from.len()].copy_from_slice(from);
        }
        fn read(&self, frame: Frame, offset: usize, to: &mut [u8]) {
            let page = &self.0[frame.0 as usize];
            if page.is_empty() {
                to.fill(0xa5);
            } else {
                to.copy_from_slice(&page[offset..offset + to.len()]);
            }
        }
    }
}
