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
//! | 3 | the sharers are a vector |
//! | 4..16 | owner |
//! | 16..64 | sharers: four pointers of 12 bits (the owner's where fewer are needed), or bit n for the nodes n, n + 48, n + 96, ... |

use addr::{Frame, Gfn, NodeId, RUN_PAGES};
use alloc::vec::Vec;
use paging::{FramePool, HostMemory, OutOfFrames};

/// Bits of a sharer set that has outgrown its pointers.
const VECTOR_BITS: u16 = 48;
/// Sharers that are told apart in a cluster of any size.
pub const POINTERS: usize = 4;
const POINTER_BITS: usize = 12;

/// Nodes that may have a read-only replica: a superset of those that do.
///
/// Up to [`POINTERS`] nodes are named one by one (a limited-pointer directory,
/// Agarwal and others, ISCA 1988); more become a coarse vector (Gupta, Weber,
/// Mowry, ICPP 1990): bit b for the nodes b, b + 48, b + 96, ..., so that in
/// clusters of up to 48 nodes it is exact as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sharers {
    /// The vector, or the pointers in ascending order from bit 0 on.
    bits: u64,
    /// Pointers in use.
    len: u8,
    vector: bool,
}

impl Sharers {
    fn pointer(self, i: usize) -> NodeId {
        NodeId((self.bits >> (POINTER_BITS * i)) as u16 & 0xfff)
    }

    fn pointers(self) -> impl Iterator<Item = NodeId> {
        (0..usize::from(self.len)).map(move |i| self.pointer(i))
    }

    fn of(nodes: impl Iterator<Item = NodeId>) -> Sharers {
        let mut set = Sharers::default();
        for node in nodes {
            set.bits |= u64::from(node.0) << (POINTER_BITS * usize::from(set.len));
            set.len += 1;
        }
        set
    }

    /// Adds a node.
    pub fn insert(&mut self, node: NodeId) {
        if self.contains(node) {
            return;
        }
        if !self.vector && usize::from(self.len) < POINTERS {
            let old = *self;
            let before = old.pointers().take_while(|&n| n < node);
            let after = old.pointers().skip_while(|&n| n < node);
            *self = Sharers::of(before.chain([node]).chain(after));
            return;
        }
        if !self.vector {
            let bit = |n: NodeId| 1 << (n.0 % VECTOR_BITS);
            let bits = self.pointers().fold(0, |bits, n| bits | bit(n));
            *self = Sharers { bits, len: 0, vector: true };
        }
        self.bits |= 1 << (node.0 % VECTOR_BITS);
    }

    /// Takes a node out, where it can be told from others.
    pub fn remove(&mut self, node: NodeId, nodes: u16) {
        if !self.vector {
            let old = *self;
            *self = Sharers::of(old.pointers().filter(|&n| n != node));
        } else if self.is_exact(nodes) {
            self.bits &= !(1 << (node.0 % VECTOR_BITS));
        }
    }

    /// Whether the node may have a replica.
    #[must_use]
    pub fn contains(self, node: NodeId) -> bool {
        if self.vector {
            self.bits & (1 << (node.0 % VECTOR_BITS)) != 0
        } else {
            self.pointers().any(|n| n == node)
        }
    }

    /// Whether it names no node in whose place another was added.
    #[must_use]
    pub fn is_exact(self, nodes: u16) -> bool {
        !self.vector || nodes <= VECTOR_BITS
    }

    /// The set in one number, for digests.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.bits | u64::from(self.len) << 48 | u64::from(self.vector) << 56
    }

    /// Whether no node has a replica.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0 && (!self.vector || self.bits == 0)
    }

    /// All nodes of a cluster of `nodes` that may have a replica, in ascending
    /// order.
    pub fn iter(self, nodes: u16) -> impl Iterator<Item = NodeId> {
        let groups = if self.vector { nodes.div_ceil(VECTOR_BITS) } else { 0 };
        let bits = self.bits;
        let coarse = (0..groups)
            .flat_map(|g| (0..VECTOR_BITS).map(move |b| (b, NodeId(g * VECTOR_BITS + b))))
            .filter(move |&(b, n)| bits & (1 << b) != 0 && n.0 < nodes)
            .map(|(_, n)| n);
        self.pointers().chain(coarse)
    }

    /// As it stands in an entry beside its owner, which is never a sharer:
    /// pointers without use name the owner.
    fn encode(self, owner: NodeId) -> u64 {
        if self.vector {
            return VECTOR | self.bits << SHARERS_SHIFT;
        }
        let mut named = self.pointers().filter(|&n| n != owner);
        let bits = (0..POINTERS).fold(0, |bits, i| {
            bits | u64::from(named.next().unwrap_or(owner).0) << (POINTER_BITS * i)
        });
        bits << SHARERS_SHIFT
    }

    fn decode(entry: u64, owner: NodeId) -> Sharers {
        let bits = entry >> SHARERS_SHIFT;
        if entry & VECTOR != 0 {
            return Sharers { bits, len: 0, vector: true };
        }
        let all = Sharers { bits, len: POINTERS as u8, vector: false };
        Sharers::of(all.pointers().filter(|&n| n != owner))
    }
}

/// Bit of an entry whose sharers are a vector.
const VECTOR: u64 = 1 << 3;
const SHARERS_SHIFT: u32 = 16;
/// Bit of an entry on which a transaction is open.
const BUSY: u64 = 1 << 2;

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
        let busy = if self.busy { BUSY } else { 0 };
        busy | match self.holding {
            Holding::Dormant => 0,
            Holding::Exclusive(owner) => 1 | u64::from(owner.0) << 4,
            Holding::Shared(owner, sharers) => 2 | u64::from(owner.0) << 4 | sharers.encode(owner),
        }
    }

    fn decode(bits: u64) -> DirectoryEntry {
        let owner = Self::owner(bits);
        let holding = match bits & 3 {
            0 => Holding::Dormant,
            1 => Holding::Exclusive(owner),
            _ => Holding::Shared(owner, Sharers::decode(bits, owner)),
        };
        DirectoryEntry { holding, busy: bits & BUSY != 0 }
    }

    fn owner(bits: u64) -> NodeId {
        NodeId((bits >> 4) as u16 & 0xfff)
    }

    #[inline(always)]
    fn quiet_owner(bits: u64) -> Option<(NodeId, bool)> {
        let quiet = bits & BUSY == 0 && bits & 3 != 0;
        quiet.then(|| (Self::owner(bits), bits & 3 != 1))
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

    /// Who has the page at `index`, and whether as a master that others may have
    /// replicas of, where somebody has it and no transaction is open.
    #[inline(always)]
    #[must_use]
    pub fn quiet_owner(&self, memory: &impl HostMemory, index: u64) -> Option<(NodeId, bool)> {
        let (chunk, entry) = place(index);
        match self.chunks[chunk] {
            Chunk::Dormant => None,
            Chunk::Exclusive(owner) => Some((owner, false)),
            Chunk::Table(table) => DirectoryEntry::quiet_owner(memory.read_entry(table, entry)),
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

    fn set(nodes: &[u16]) -> Sharers {
        let mut s = Sharers::default();
        nodes.iter().for_each(|&n| s.insert(NodeId(n)));
        s
    }

    fn members(s: Sharers, nodes: u16) -> Vec<u16> {
        s.iter(nodes).map(|n| n.0).collect()
    }

    #[test]
    fn a_few_sharers_are_exact_in_the_largest_cluster() {
        let mut s = set(&[4095, 7, 7, 2000, 0]);
        assert_eq!(members(s, 4096), [0, 7, 2000, 4095]);
        assert_eq!(s, set(&[0, 7, 2000, 4095]));
        for owner in [1, 4094] {
            let e = entry(Holding::Shared(NodeId(owner), s));
            assert_eq!(DirectoryEntry::decode(e.encode()), e);
        }
        s.remove(NodeId(7), 4096);
        assert!(s.is_exact(4096) && !s.contains(NodeId(7)));
        [0, 2000, 4095].iter().for_each(|&n| s.remove(NodeId(n), 4096));
        assert!(s.is_empty());
        let e = entry(Holding::Shared(NodeId(0), s));
        assert_eq!(DirectoryEntry::decode(e.encode()), e);
    }

    /// In ascending order: the home walks the set by it and takes no node
    /// that it has passed.
    #[test]
    fn many_sharers_of_a_large_cluster_are_a_superset_in_order() {
        let mut s = set(&[50, 3, 99, 4, 5]);
        assert_eq!(members(s, 100), [2, 3, 4, 5, 50, 51, 52, 53, 98, 99]);
        assert!(!s.is_exact(100));
        s.remove(NodeId(50), 100);
        assert!(s.contains(NodeId(2)));
        let e = entry(Holding::Shared(NodeId(9), s));
        assert_eq!(DirectoryEntry::decode(e.encode()), e);
    }

    #[test]
    fn sharers_of_a_small_cluster_are_exact() {
        let all: Vec<u16> = (0..48).collect();
        let mut s = set(&all);
        assert!(s.is_exact(48));
        assert_eq!(members(s, 48), all);
        for &n in &all {
            assert!(!s.is_empty());
            s.remove(NodeId(n), 48);
            assert_eq!(members(s, 48), all[usize::from(n) + 1..]);
        }
        assert!(s.is_empty());
    }

    #[test]
    fn a_run_is_a_chunk_where_one_home_has_all_of_it() {
        // The third node's part crosses the window below 4 GiB, which splits no
        // chunk; where the memory ends, a run does as well.
        let layout = layout::Layout::new(&[512, 1024, 1 << 20]).unwrap();
        let end = layout.end();
        for gfn in [Gfn(0), Gfn(511), Gfn(512), Gfn(1600), layout::HOLE_END, Gfn(end.0 - 1)] {
            assert!(run_is_chunk(&layout, gfn), "{gfn:?}");
        }
        for gfn in [end, layout::HOLE_START, Gfn(layout::HOLE_END.0 - 1)] {
            assert!(!run_is_chunk(&layout, gfn), "{gfn:?}");
        }
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
        // And where its table ends, or no more is wanted.
        let run = d.grant_run(&mut memory, &mut pool, 500, NodeId(0), 512, true);
        assert_eq!(run, Ok((500, 12)));
        let run = d.grant_run(&mut memory, &mut pool, 20, NodeId(0), 3, true);
        assert_eq!((run, d.tables()), (Ok((20, 3)), 1));
        assert_eq!(d.get(&memory, 23).holding, Holding::Dormant);
    }
}
