//! The directory: who has what, for the pages this node is home to.
//!
//! Two levels. A chunk (512 pages by index, so 2 MiB of guest memory) is
//! dormant as a whole, exclusive to one node as a whole, or has a table of 512
//! entries in a page frame of the pool. So untouched memory costs 8 bytes for
//! 2 MiB, and touched memory at most 8 bytes a page.
//!
//! | bits of an entry | meaning |
//! |---|---|
//! | 0..2 | 0 dormant, 1 exclusive, 2 shared |
//! | 2 | busy: a transaction is open |
//! | 4..16 | owner |
//! | 16..64 | sharers: bit n for node n, and n + 48, n + 96, ... in larger clusters |

use addr::{Frame, Gfn, NodeId, RUN_PAGES};
use alloc::vec::Vec;
use paging::{FramePool, HostMemory, OutOfFrames};

/// Nodes that a sharer set tells apart.
pub const SHARER_BITS: u16 = 48;

/// Nodes that may have a read-only replica: a superset of those that do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sharers(u64);

impl Sharers {
    /// Adds a node.
    pub fn insert(&mut self, node: NodeId) {
        self.0 |= 1 << (node.0 % SHARER_BITS);
    }
    /// Takes a node out, where it stands alone for its bit.
    pub fn remove(&mut self, node: NodeId, nodes: u16) {
        if nodes <= SHARER_BITS {
            self.0 &= !(1 << (node.0 % SHARER_BITS));
        }
    }
    /// Whether the node may have a replica.
    #[must_use]
    pub fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << (node.0 % SHARER_BITS)) != 0
    }
    /// The set as it stands in an entry.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }
    /// Whether no node has a replica.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// All nodes of a cluster of `nodes` that may have a replica.
    pub fn iter(self, nodes: u16) -> impl Iterator<Item = NodeId> {
        let bits = self.0;
        let groups = nodes.div_ceil(SHARER_BITS);
        (0..SHARER_BITS)
            .filter(move |b| bits & (1 << b) != 0)
            .flat_map(move |b| (0..groups).map(move |g| NodeId(g * SHARER_BITS + b)))
            .filter(move |n| n.0 < nodes)
    }
}

/// Who has a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Holding {
    /// Nobody: it was never written and reads as zero.
    Dormant,
    /// One node, which may write it.
    Exclusive(NodeId),
    /// A master that is read-only, and replicas.
    Shared(NodeId, Sharers),
}

/// A directory entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DirectoryEntry {
    /// Who has the page.
    pub holding: Holding,
    /// A transaction is open.
    pub busy: bool,
}

impl DirectoryEntry {
    const DORMANT: DirectoryEntry = DirectoryEntry { holding: Holding::Dormant, busy: false };

    fn encode(self) -> u64 {
        let busy = u64::from(self.busy) << 2;
        busy | match self.holding {
            Holding::Dormant => 0,
            Holding::Exclusive(owner) => 1 | u64::from(owner.0) << 4,
            Holding::Shared(owner, sharers) => 2 | u64::from(owner.0) << 4 | sharers.0 << 16,
        }
    }

    fn decode(bits: u64) -> DirectoryEntry {
        let owner = NodeId((bits >> 4) as u16 & 0xfff);
        let holding = match bits & 3 {
            0 => Holding::Dormant,
            1 => Holding::Exclusive(owner),
            _ => Holding::Shared(owner, Sharers(bits >> 16)),
        };
        DirectoryEntry { holding, busy: bits & 4 != 0 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Chunk {
    Dormant,
    Exclusive(NodeId),
    Table(Frame),
}

/// The entries of all pages that one node is home to, by their index at home.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Directory {
    chunks: Vec<Chunk>,
    tables: u64,
}

const fn place(index: u64) -> (usize, usize) {
    ((index / RUN_PAGES) as usize, (index % RUN_PAGES) as usize)
}

impl Directory {
    /// A directory of `pages` dormant pages.
    #[must_use]
    pub fn new(pages: u64) -> Directory {
        let chunks = pages.div_ceil(RUN_PAGES) as usize;
        Directory { chunks: alloc::vec![Chunk::Dormant; chunks], tables: 0 }
    }

    /// Frames used for tables.
    #[must_use]
    pub fn tables(&self) -> u64 {
        self.tables
    }

    /// The entry of the page at `index`.
    #[must_use]
    pub fn get(&self, memory: &impl HostMemory, index: u64) -> DirectoryEntry {
        let (chunk, entry) = place(index);
        match self.chunks[chunk] {
            Chunk::Dormant => DirectoryEntry::DORMANT,
            Chunk::Exclusive(owner) => {
                DirectoryEntry { holding: Holding::Exclusive(owner), busy: false }
            }
            Chunk::Table(table) => DirectoryEntry::decode(memory.read_entry(table, entry)),
        }
    }

    /// Sets the entry of the page at `index`.
    ///
    /// # Errors
    /// [`OutOfFrames`] if a table was needed and no frame was left.
    pub fn set(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        index: u64,
        value: DirectoryEntry,
    ) -> Result<(), OutOfFrames> {
        let (chunk, entry) = place(index);
        let fill = match self.chunks[chunk] {
            Chunk::Table(table) => {
                memory.write_entry(table, entry, value.encode());
                return Ok(());
            }
            Chunk::Dormant => DirectoryEntry::DORMANT,
            Chunk::Exclusive(owner) => {
                DirectoryEntry { holding: Holding::Exclusive(owner), busy: false }
            }
        };
        let table = pool.allocate().ok_or(OutOfFrames)?;
        self.tables += 1;
        for i in 0..RUN_PAGES as usize {
            memory.write_entry(table, i, fill.encode());
        }
        memory.write_entry(table, entry, value.encode());
        self.chunks[chunk] = Chunk::Table(table);
        Ok(())
    }

    /// Gives dormant pages around `index` to `owner`: the whole chunk if it is
    /// dormant and `whole` allows it (it may reach past the end of RAM, or the
    /// gfns may not be aligned alike), else the dormant pages from `index` on.
    /// Returns the index of the first page and the number of pages.
    ///
    /// # Errors
    /// [`OutOfFrames`] as [`Directory::set`].
    pub fn grant_run(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut FramePool,
        index: u64,
        owner: NodeId,
        most: u64,
        whole: bool,
    ) -> Result<(u64, u64), OutOfFrames> {
        let (chunk, entry) = place(index);
        if whole && self.chunks[chunk] == Chunk::Dormant {
            self.chunks[chunk] = Chunk::Exclusive(owner);
            return Ok((chunk as u64 * RUN_PAGES, RUN_PAGES));
        }
        let given = DirectoryEntry { holding: Holding::Exclusive(owner), busy: false };
        self.set(memory, pool, index, given)?;
        let Chunk::Table(table) = self.chunks[chunk] else { unreachable!("set makes a table") };
        let mut count = 1;
        while count < most && entry + (count as usize) < RUN_PAGES as usize {
            let at = entry + count as usize;
            if DirectoryEntry::decode(memory.read_entry(table, at)) != DirectoryEntry::DORMANT {
                break;
            }
            memory.write_entry(table, at, given.encode());
            count += 1;
        }
        Ok((index, count))
    }

    /// Pages for which `owner` keeps the master, by this directory.
    #[must_use]
    pub fn mastered_by(&self, memory: &impl HostMemory, owner: NodeId) -> u64 {
        let has = |e: DirectoryEntry| match e.holding {
            Holding::Dormant => false,
            Holding::Exclusive(o) | Holding::Shared(o, _) => o == owner,
        };
        self.chunks
            .iter()
            .map(|chunk| match chunk {
                Chunk::Dormant => 0,
                Chunk::Exclusive(o) => u64::from(*o == owner) * RUN_PAGES,
                Chunk::Table(t) => (0..RUN_PAGES as usize)
                    .filter(|&i| has(DirectoryEntry::decode(memory.read_entry(*t, i))))
                    .count() as u64,
            })
            .sum()
    }
}

/// Whether the 512 pages from `gfn`'s aligned run have one home and lie in one
/// chunk of its directory.
#[must_use]
pub fn run_is_chunk(layout: &layout::Layout, gfn: Gfn) -> bool {
    let first = gfn.run_start();
    match (layout.home(first), layout.home(first.offset_by(RUN_PAGES - 1))) {
        (Some((a, i)), Some((b, j))) => a == b && i % RUN_PAGES == 0 && j == i + RUN_PAGES - 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paging::memory::fake::VecMemory;

    fn entry(holding: Holding) -> DirectoryEntry {
        DirectoryEntry { holding, busy: false }
    }

    #[test]
    fn entries_round_trip() {
        let mut s = Sharers::default();
        s.insert(NodeId(0));
        s.insert(NodeId(47));
        for holding in
            [Holding::Dormant, Holding::Exclusive(NodeId(4095)), Holding::Shared(NodeId(3), s)]
        {
            for busy in [false, true] {
                let e = DirectoryEntry { holding, busy };
                assert_eq!(DirectoryEntry::decode(e.encode()), e);
            }
        }
    }

    #[test]
    fn sharers_of_a_large_cluster_are_a_superset() {
        let mut s = Sharers::default();
        s.insert(NodeId(50));
        let all: Vec<_> = s.iter(100).collect();
        assert_eq!(all, [NodeId(2), NodeId(50), NodeId(98)]);
        s.remove(NodeId(50), 100);
        assert!(s.contains(NodeId(2)));
        s.remove(NodeId(2), 48);
        assert!(s.is_empty());
    }

    #[test]
    fn a_chunk_is_granted_whole_and_broken_up_on_demand() {
        let mut memory = VecMemory::new(64);
        let mut pool = FramePool::new();
        pool.add(Frame(1), Frame(64));
        let mut d = Directory::new(1024);
        let free = pool.free_frames();
        let run = d.grant_run(&mut memory, &mut pool, 700, NodeId(2), 512, true);
        assert_eq!(run, Ok((512, 512)));
        assert_eq!(pool.free_frames(), free);
        assert_eq!(d.mastered_by(&memory, NodeId(2)), 512);
        d.set(&mut memory, &mut pool, 600, entry(Holding::Exclusive(NodeId(1)))).unwrap();
        assert_eq!(d.get(&memory, 600).holding, Holding::Exclusive(NodeId(1)));
        assert_eq!(d.get(&memory, 601).holding, Holding::Exclusive(NodeId(2)));
        assert_eq!(d.mastered_by(&memory, NodeId(2)), 511);
        assert_eq!(d.get(&memory, 0).holding, Holding::Dormant);
    }

    #[test]
    fn a_partial_grant_stops_at_the_first_page_that_is_not_dormant() {
        let mut memory = VecMemory::new(64);
        let mut pool = FramePool::new();
        pool.add(Frame(1), Frame(64));
        let mut d = Directory::new(512);
        d.set(&mut memory, &mut pool, 10, entry(Holding::Exclusive(NodeId(1)))).unwrap();
        let run = d.grant_run(&mut memory, &mut pool, 4, NodeId(0), 512, true);
        assert_eq!(run, Ok((4, 6)));
        assert_eq!(d.get(&memory, 3).holding, Holding::Dormant);
        assert_eq!(d.get(&memory, 9).holding, Holding::Exclusive(NodeId(0)));
    }
}
