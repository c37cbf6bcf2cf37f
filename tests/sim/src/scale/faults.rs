//! What one fault costs in clusters of any size: only the nodes that take
//! part exist, everything about them is the production crate's.

use crate::rng::Rng;
use addr::{Access, Frame, Gfn, NodeId, PageBytes};
use coherence::{Coherence, Env, Kind, Limits, Message, Output};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool, HostMemory};
use std::collections::{BTreeMap, VecDeque};

/// Frames of a node that takes part.
const FRAMES: u64 = 4096;

/// What one access or eviction took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Messages between nodes, acknowledgements of the transport aside.
    pub messages: u64,
    /// Messages one after the other until the requester could go on; two are
    /// a round trip.
    pub hops: u64,
    /// Invalidations among them.
    pub invalidations: u64,
    /// Acknowledgements of invalidations among them.
    pub acks: u64,
}

struct Sent<'a> {
    messages: &'a mut Vec<(NodeId, Message, Option<Frame>)>,
    roomy: NodeId,
}

impl Output for Sent<'_> {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        self.messages.push((to, message, page));
    }
    fn free_frames(&self, node: NodeId) -> u64 {
        if node == self.roomy { 1000 } else { 0 }
    }
    fn roomiest(&self, _: u16, not: &[NodeId]) -> Option<NodeId> {
        (!not.contains(&self.roomy)).then_some(self.roomy)
    }
    fn flush(&mut self) {}
}

struct Flight {
    from: NodeId,
    to: NodeId,
    message: Message,
    page: Option<Box<PageBytes>>,
    depth: u64,
}

/// A cluster of which only those nodes exist that have been spoken to.
pub struct Sparse {
    layout: Layout,
    nodes: BTreeMap<u16, (Coherence, VecMemory)>,
    flying: VecDeque<Flight>,
    cost: Cost,
    roomy: NodeId,
    /// Chooses the message that arrives next; else it is the one sent first.
    order: Option<Rng>,
    /// What the last write left in its page.
    stamp: u8,
}

impl Sparse {
    /// A cluster of `nodes` with `pages` pages of guest memory each.
    #[must_use]
    pub fn new(nodes: u16, pages: u64) -> Sparse {
        let layout = Layout::new(&vec![pages; usize::from(nodes)]).expect("a sound layout");
        Sparse {
            layout,
            nodes: BTreeMap::new(),
            flying: VecDeque::new(),
            cost: Cost::default(),
            roomy: NodeId(nodes - 1),
            order: None,
            stamp: 0,
        }
    }

    /// From now on messages arrive in any order.
    pub fn reorder(&mut self, seed: u64) {
        self.order = Some(Rng::new(seed));
    }

    /// A page with this home.
    #[must_use]
    pub fn page_of(&self, home: NodeId, index: u64) -> Gfn {
        self.layout.gfn_at(home, index)
    }

    /// Lets one node do something and delivers what it sent.
    fn at<R>(
        &mut self,
        node: NodeId,
        depth: u64,
        act: impl FnOnce(&mut Coherence, &mut Env<'_, VecMemory, Sent<'_>>) -> R,
    ) -> R {
        let layout = &self.layout;
        let (coherence, memory) = self.nodes.entry(node.0).or_insert_with(|| {
            // A frame for every table that its directory may need is out of
            // the reach of pages.
            let frames = FRAMES + layout.pages_of(node).div_ceil(addr::RUN_PAGES);
            let mut memory = VecMemory::new(frames as usize + 1);
            let mut pool = FramePool::new();
            pool.add(Frame(1), Frame(frames + 1));
            let limits = Limits {
                table_frames: 128,
                unpromised: 128,
                reserve: 192,
                ..Limits::new(frames, frames, true)
            };
            let layout = layout.clone();
            let new = Coherence::new(node, layout, limits, Format::NPT, pool, &mut memory);
            (new, memory)
        });
        let mut messages = Vec::new();
        let mut out = Sent { messages: &mut messages, roomy: self.roomy };
        let result = act(coherence, &mut Env { memory, out: &mut out });
        for (to, message, page) in messages {
            let page = page.map(|frame| {
                let mut bytes = Box::new([0; addr::PAGE_SIZE]);
                memory.read(frame, 0, &mut bytes[..]);
                coherence.released(frame);
                bytes
            });
            self.cost.messages += 1;
            self.cost.invalidations += u64::from(message.kind == Kind::Invalidate);
            self.cost.acks += u64::from(message.kind == Kind::InvalidateAck);
            self.flying.push_back(Flight { from: node, to, message, page, depth: depth + 1 });
        }
        result
    }

    fn deliver(&mut self, mut seen: impl FnMut(&Sparse, u64)) {
        while !self.flying.is_empty() {
            let count = self.flying.len() as u64;
            let at = self.order.as_mut().map_or(0, |rng| rng.below(count) as usize);
            let flight = self.flying.swap_remove_front(at).expect("one of those there are");
            let Flight { from, to, message, page, depth } = flight;
            self.at(to, depth, |c, env| c.handle(env, from, message, page.as_deref()))
                .expect("the protocol allows it");
            seen(self, depth);
        }
    }

    /// Accesses a page at a node, writing to it where it may.
    pub fn access(&mut self, node: NodeId, gfn: Gfn, access: Access) -> Cost {
        self.cost = Cost::default();
        self.at(node, 0, |c, env| c.access(env, gfn, access, 0)).expect("the protocol allows it");
        let mut hops = None;
        let ready = |s: &Sparse| {
            let (coherence, memory) = &s.nodes[&node.0];
            coherence.look(memory, gfn, access).is_some_and(|f| f.is_some())
        };
        self.deliver(|s, depth| {
            if hops.is_none() && ready(s) {
                hops = Some(depth);
            }
        });
        assert!(ready(self), "{node} cannot {access:?} page {:#x}", gfn.0);
        self.at(node, 0, |c, env| c.release_held(env)).expect("the protocol allows it");
        self.deliver(|_, _| {});
        if access == Access::Write {
            // A page of zeroes would not travel.
            let (coherence, memory) = self.nodes.get_mut(&node.0).expect("it is there");
            let frame = coherence.look(memory, gfn, access).flatten().expect("looked at above");
            self.stamp = self.stamp % u8::MAX + 1;
            memory.write(frame, 0, &[self.stamp]);
        }
        Cost { hops: hops.unwrap_or(0), ..self.cost }
    }

    /// What a node reads in a page without asking anyone; `None` where it has
    /// no copy.
    #[must_use]
    pub fn reads(&self, node: NodeId, gfn: Gfn) -> Option<u8> {
        let (coherence, memory) = self.nodes.get(&node.0)?;
        let frame = coherence.look(memory, gfn, Access::Read)?;
        let mut byte = [0];
        frame.into_iter().for_each(|frame| memory.read(frame, 0, &mut byte));
        Some(byte[0])
    }

    /// What the last write left in its page.
    #[must_use]
    pub fn last_written(&self) -> u8 {
        self.stamp
    }

    /// Drops a node's replica of a page, and tells nobody.
    pub fn drop_replica(&mut self, node: NodeId, gfn: Gfn) {
        let goes = self.at(node, 0, |c, env| c.evict(env, gfn, true)).expect("it is allowed");
        assert!(goes && self.flying.is_empty(), "{node} has no replica of {:#x}", gfn.0);
    }

    /// Evicts a page from the node that has its master.
    pub fn evict(&mut self, node: NodeId, gfn: Gfn) -> Cost {
        self.cost = Cost::default();
        let goes = self.at(node, 0, |c, env| c.evict(env, gfn, true)).expect("it is allowed");
        assert!(goes, "page {:#x} is not to be evicted", gfn.0);
        let mut last = 0;
        self.deliver(|_, depth| last = last.max(depth));
        Cost { hops: last, ..self.cost }
    }
}

/// The costs of all kinds of fault in a cluster of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Nodes.
    pub nodes: u16,
    /// First touch of a dormant run with a remote home.
    pub first: Cost,
    /// Read of a page whose home and owner are others.
    pub read: Cost,
    /// The same to write.
    pub write: Cost,
    /// A page of one's own that another node has a replica of.
    pub upgrade: Cost,
    /// Moving a master to another node, its home being full.
    pub evict: Cost,
    /// Write to a page with so many replicas.
    pub shared: Vec<(usize, Option<Cost>)>,
    /// Moving a master that had so many replicas, which are all gone.
    pub evict_shared: Vec<Option<Cost>>,
}

/// Replicas that a written page has.
pub const REPLICAS: [usize; 6] = [1, 2, 4, 5, 16, 48];

/// Measures all of them.
#[must_use]
pub fn measure(nodes: u16, pages: u64) -> Faults {
    let mut cluster = Sparse::new(nodes, pages);
    // Far from each other, as far as there are so many.
    let home = NodeId(nodes / 2);
    let owner = NodeId(if nodes > 2 { nodes - 2 } else { home.0 });
    let requester = NodeId(0);
    let mut page = |index: u64| cluster.layout.gfn_at(home, 512 * index);
    let [a, b, c, d] = [0, 1, 2, 3].map(&mut page);
    let first = cluster.access(requester, a, Access::Write);
    cluster.access(owner, b, Access::Write);
    let read = cluster.access(requester, b, Access::Read);
    cluster.access(owner, c, Access::Write);
    let write = cluster.access(requester, c, Access::Write);
    cluster.access(requester, d, Access::Write);
    cluster.access(owner, d, Access::Read);
    let upgrade = cluster.access(requester, d, Access::Write);
    let evict = cluster.evict(requester, a);
    let others: Vec<NodeId> = (1..nodes).map(NodeId).filter(|&n| n != home && n != owner).collect();
    let (mut shared, mut evict_shared) = (Vec::new(), Vec::new());
    for (i, &replicas) in REPLICAS.iter().enumerate() {
        if others.len() < replicas {
            shared.push((replicas, None));
            evict_shared.push(None);
            continue;
        }
        let step = others.len() / replicas;
        let sharers: Vec<NodeId> = others.iter().copied().step_by(step).take(replicas).collect();
        let mut share = |at: u64| {
            let gfn = cluster.layout.gfn_at(home, 512 * at);
            cluster.access(owner, gfn, Access::Write);
            sharers.iter().for_each(|&n| {
                cluster.access(n, gfn, Access::Read);
            });
            gfn
        };
        let [written, evicted] = [8, 8 + REPLICAS.len()].map(|at| share((at + i) as u64));
        shared.push((replicas, Some(cluster.access(requester, written, Access::Write))));
        sharers.iter().for_each(|&n| cluster.drop_replica(n, evicted));
        evict_shared.push(Some(cluster.evict(owner, evicted)));
    }
    Faults { nodes, first, read, write, upgrade, evict, shared, evict_shared }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many have dropped their replicas, no more than four are asked.
    #[test]
    fn an_eviction_does_not_seek_an_heir_for_long() {
        let large = measure(4096, 1 << 14);
        let all: Vec<Cost> = large.evict_shared.into_iter().flatten().collect();
        assert_eq!(all.len(), REPLICAS.len());
        assert!(all.iter().all(|cost| cost.messages <= 12 && cost.hops <= 12), "{all:?}");
    }

    /// A fault costs the same in the largest cluster as in a small one.
    #[test]
    fn costs_do_not_grow_with_the_cluster() {
        let (small, large) = (measure(16, 1 << 14), measure(4096, 1 << 14));
        for (a, b) in [
            (small.first, large.first),
            (small.read, large.read),
            (small.write, large.write),
            (small.upgrade, large.upgrade),
            (small.evict, large.evict),
        ] {
            assert_eq!(a, b);
        }
        assert_eq!((small.read.messages, small.read.hops), (4, 3));
        for replicas in [1, 2, 4] {
            let of = |f: &Faults| f.shared.iter().find(|s| s.0 == replicas).unwrap().1.unwrap();
            assert_eq!(of(&small), of(&large));
            assert_eq!(of(&large).invalidations, replicas as u64);
        }
    }

    /// A page that many nodes of a large cluster have read: the directory no
    /// longer knows which. A write of any node, with a replica or without,
    /// leaves no replica anywhere and waits for as many acknowledgements as
    /// there were invalidations, in whatever order all of it arrives.
    #[test]
    fn a_superset_of_the_readers_is_invalidated_and_answers() {
        let (cases, sizes) = if cfg!(miri) { (1, [49, 50, 52]) } else { (20, [49, 97, 300]) };
        for nodes in sizes {
            for case in 0..cases {
                let mut cluster = Sparse::new(nodes, 1 << 12);
                cluster.reorder(case);
                let mut rng = Rng::new(case ^ u64::from(nodes) << 32);
                let mut any = || NodeId(rng.below(u64::from(nodes)) as u16);
                let gfn = cluster.page_of(any(), 512);
                let mut writer = any();
                for round in 0..4 {
                    cluster.access(writer, gfn, Access::Write);
                    let readers: Vec<NodeId> = (0..5 + 7 * round).map(|_| any()).collect();
                    for &reader in &readers {
                        cluster.access(reader, gfn, Access::Read);
                        assert_eq!(cluster.reads(reader, gfn), Some(cluster.last_written()));
                    }
                    writer = if round % 2 == 0 { readers[0] } else { any() };
                    let cost = cluster.access(writer, gfn, Access::Write);
                    // What the home sends to itself is not counted.
                    let few = cost.acks.abs_diff(cost.invalidations) <= 1;
                    assert!(few, "{nodes} nodes, case {case}: {cost:?}");
                    let readable = |n: &NodeId| cluster.reads(*n, gfn).is_some();
                    let left: Vec<NodeId> = (0..nodes).map(NodeId).filter(readable).collect();
                    assert_eq!(left, [writer], "{nodes} nodes, case {case}");
                }
            }
        }
    }

    /// The same of an eviction: the master goes to a node of the superset that
    /// has a replica, if that is one of the first that are asked, or to one with
    /// room; replicas are known of after either.
    #[test]
    fn a_master_that_leaves_is_taken_over_or_moves() {
        for (nodes, case) in [(49, 1), (97, 2), (300, 3)] {
            let mut cluster = Sparse::new(nodes, 1 << 12);
            cluster.reorder(case);
            let gfn = cluster.page_of(NodeId(nodes / 2), 512);
            let owner = NodeId(3);
            let readers = [nodes - 6, 5, 11, 17, 40, 44].map(NodeId);
            for kept in [Some(readers[0]), Some(readers[1]), None] {
                cluster.access(owner, gfn, Access::Write);
                readers.iter().for_each(|&n| {
                    cluster.access(n, gfn, Access::Read);
                });
                let drops = readers.iter().filter(|&&n| Some(n) != kept);
                drops.for_each(|&n| cluster.drop_replica(n, gfn));
                cluster.evict(owner, gfn);
                assert_eq!(cluster.reads(owner, gfn), None);
                let keeps = kept.and_then(|n| cluster.reads(n, gfn));
                assert_eq!(keeps, kept.map(|_| cluster.stamp));
                cluster.access(NodeId(1), gfn, Access::Read);
                assert_eq!(cluster.reads(NodeId(1), gfn), Some(cluster.stamp));
                cluster.access(NodeId(2), gfn, Access::Write);
                let readable = |n: &NodeId| cluster.reads(*n, gfn).is_some();
                let left: Vec<NodeId> = (0..nodes).map(NodeId).filter(readable).collect();
                assert_eq!(left, [NodeId(2)], "{nodes} nodes");
            }
        }
    }
}
