//! The node's free page frames.
//!
//! Frames are kept by aligned 2 MiB chunk: a bitmap and a count each, and two
//! lists, of chunks that are wholly free and of chunks that are partly free.
//! A single frame comes from a partly free chunk first, so whole chunks stay
//! whole for large mappings. Everything is O(1) but the search of one 512-bit
//! map. Cost: 80 bytes for 2 MiB of memory (0.004 %).

use addr::{Frame, RUN_PAGES};
use alloc::vec::Vec;

const NONE: u32 = u32::MAX;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Chunk {
    base: Frame,
    /// Bit set: free.
    free: [u64; 8],
    count: u16,
    list: List,
    prev: u32,
    next: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum List {
    Used = 0,
    Partial = 1,
    Whole = 2,
}

/// Free frames of one node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct FramePool {
    chunks: Vec<Chunk>,
    heads: [u32; 3],
    free: u64,
    total: u64,
}

impl FramePool {
    /// An empty pool.
    #[must_use]
    pub fn new() -> FramePool {
        FramePool::with_room_for(0)
    }

    /// An empty pool that takes about `frames` frames without growing.
    #[must_use]
    pub fn with_room_for(frames: u64) -> FramePool {
        let chunks = Vec::with_capacity(frames.div_ceil(RUN_PAGES) as usize + 16);
        FramePool { chunks, heads: [NONE; 3], free: 0, total: 0 }
    }

    /// Adds the frames `start..end` as free. Ranges may be given in any order
    /// but must not overlap what the pool has.
    ///
    /// # Panics
    /// If a frame is given twice.
    pub fn add(&mut self, start: Frame, end: Frame) {
        let mut at = start.0;
        while at < end.0 {
            let base = Frame(at).run_start();
            let stop = end.0.min(base.0 + RUN_PAGES);
            let index = self.chunk_at(base);
            for frame in at..stop {
                self.set_free(index, Frame(frame));
                self.total += 1;
            }
            at = stop;
        }
    }

    /// Makes the frames `start..end` known, which somebody else has now and
    /// may exchange for frames of the pool.
    pub fn know(&mut self, start: Frame, end: Frame) {
        let mut at = start.0;
        while at < end.0 {
            let base = Frame(at).run_start();
            self.chunk_at(base);
            at = base.0 + RUN_PAGES;
        }
    }

    fn chunk_at(&mut self, base: Frame) -> u32 {
        match self.chunks.binary_search_by_key(&base, |c| c.base) {
            Ok(i) => i as u32,
            Err(i) => {
                let fresh = Chunk {
                    base,
                    free: [0; 8],
                    count: 0,
                    list: List::Used,
                    prev: NONE,
                    next: NONE,
                };
                self.chunks.insert(i, fresh);
                if i + 1 != self.chunks.len() {
                    self.relink();
                } else {
                    self.link(i as u32, List::Used);
                }
                i as u32
            }
        }
    }

    /// Makes the lists anew after indices have moved.
    fn relink(&mut self) {
        self.heads = [NONE; 3];
        for i in 0..self.chunks.len() as u32 {
            let list = self.chunks[i as usize].list;
            self.link(i, list);
        }
    }

    fn link(&mut self, index: u32, list: List) {
        let head = self.heads[list as usize];
        let chunk = &mut self.chunks[index as usize];
        (chunk.list, chunk.prev, chunk.next) = (list, NONE, head);
        if head != NONE {
            self.chunks[head as usize].prev = index;
        }
        self.heads[list as usize] = index;
    }

    fn unlink(&mut self, index: u32) {
        let (list, prev, next) = {
            let c = &self.chunks[index as usize];
            (c.list, c.prev, c.next)
        };
        if prev == NONE {
            self.heads[list as usize] = next;
        } else {
            self.chunks[prev as usize].next = next;
        }
        if next != NONE {
            self.chunks[next as usize].prev = prev;
        }
    }

    fn settle(&mut self, index: u32) {
        let chunk = &self.chunks[index as usize];
        let list = match u64::from(chunk.count) {
            0 => List::Used,
            RUN_PAGES => List::Whole,
            _ => List::Partial,
        };
        if list != chunk.list {
            self.unlink(index);
            self.link(index, list);
        }
    }

    fn set_free(&mut self, index: u32, frame: Frame) {
        let chunk = &mut self.chunks[index as usize];
        let (word, bit) = (frame.run_index() / 64, frame.run_index() % 64);
        assert!(chunk.free[word] & (1 << bit) == 0, "frame freed twice");
        chunk.free[word] |= 1 << bit;
        chunk.count += 1;
        self.free += 1;
        self.settle(index);
    }

    /// Frames that are free.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.free
    }

    /// Frames that the pool was given.
    #[must_use]
    pub fn total_frames(&self) -> u64 {
        self.total
    }

    /// Takes one frame.
    pub fn allocate(&mut self) -> Option<Frame> {
        let mut index = self.heads[List::Partial as usize];
        if index == NONE {
            index = self.heads[List::Whole as usize];
        }
        if index == NONE {
            return None;
        }
        let chunk = &mut self.chunks[index as usize];
        let word = chunk.free.iter().position(|&w| w != 0).expect("a listed chunk has a frame");
        let bit = chunk.free[word].trailing_zeros();
        chunk.free[word] &= !(1 << bit);
        chunk.count -= 1;
        let frame = Frame(chunk.base.0 + word as u64 * 64 + u64::from(bit));
        self.free -= 1;
        self.settle(index);
        Some(frame)
    }

    /// Takes an aligned run of 512 frames.
    pub fn allocate_run(&mut self) -> Option<Frame> {
        let index = self.heads[List::Whole as usize];
        if index == NONE {
            return None;
        }
        let chunk = &mut self.chunks[index as usize];
        chunk.free = [0; 8];
        chunk.count = 0;
        let base = chunk.base;
        self.free -= RUN_PAGES;
        self.settle(index);
        Some(base)
    }

    /// Gives a frame back.
    ///
    /// # Panics
    /// If the frame is free already or was never the pool's.
    pub fn release(&mut self, frame: Frame) {
        let index = self
            .chunks
            .binary_search_by_key(&frame.run_start(), |c| c.base)
            .expect("a frame of the pool") as u32;
        self.set_free(index, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn hands_out_every_frame_once() {
        let mut pool = FramePool::new();
        pool.add(Frame(700), Frame(2100));
        pool.add(Frame(100), Frame(200));
        let mut seen = BTreeSet::new();
        while let Some(f) = pool.allocate() {
            assert!(seen.insert(f));
        }
        assert_eq!(seen.len(), 1500);
        assert_eq!(pool.free_frames(), 0);
        for f in seen {
            pool.release(f);
        }
        assert_eq!(pool.free_frames(), pool.total_frames());
        assert_eq!(pool.allocate_run(), Some(Frame(1536)));
        assert_eq!(pool.allocate_run(), Some(Frame(1024)));
        assert_eq!(pool.allocate_run(), None);
    }

    #[test]
    fn frames_of_others_can_be_exchanged() {
        let mut pool = FramePool::new();
        pool.add(Frame(0), Frame(8));
        pool.know(Frame(500), Frame(1600));
        let mine = pool.allocate().unwrap();
        assert!(mine.0 < 8);
        pool.release(Frame(1599));
        assert_eq!((pool.free_frames(), pool.total_frames()), (8, 8));
        pool.add(Frame(1600), Frame(1610));
        assert_eq!(pool.total_frames(), 18);
    }

    #[test]
    fn single_frames_leave_whole_runs_whole() {
        let mut pool = FramePool::new();
        pool.add(Frame(0), Frame(512 * 4));
        let a = pool.allocate().unwrap();
        let b = pool.allocate().unwrap();
        assert_eq!(a.run_start(), b.run_start());
        let mut runs = 0;
        while pool.allocate_run().is_some() {
            runs += 1;
            assert_eq!(pool.free_frames(), 510 + (3 - runs) * RUN_PAGES);
        }
        assert_eq!(runs, 3);
    }

    #[test]
    #[should_panic(expected = "a frame of the pool")]
    fn only_what_is_known_can_be_exchanged() {
        let mut pool = FramePool::new();
        pool.know(Frame(0), Frame(512));
        pool.release(Frame(512));
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_double_free_is_found() {
        let mut pool = FramePool::new();
        pool.add(Frame(0), Frame(10));
        let f = pool.allocate().unwrap();
        pool.release(f);
        pool.release(f);
    }
}
