//! What one fault costs in clusters of any size: only the nodes that take
//! part exist, everything about them is the production crate's.

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
        }
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
                reserve: 192,
                open_max: 64,
                puts_max: 32,
                dones_max: 512,
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
            self.flying.push_back(Flight { from: node, to, message, page, depth: depth + 1 });
        }
        result
    }

    fn deliver(&mut self, mut seen: impl FnMut(&Sparse, u64)) {
        while let Some(Flight { from, to, message, page, depth }) = self.flying.pop_front() {
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
            memory.write(frame, 0, &[1]);
        }
        Cost { hops: hops.unwrap_or(0), ..self.cost }
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
    let shared = REPLICAS.iter().enumerate().map(|(i, &replicas)| {
        let gfn = cluster.layout.gfn_at(home, 512 * (8 + i as u64));
        let others: Vec<u16> = (1..nodes).filter(|&n| n != home.0 && n != owner.0).collect();
        if others.len() < replicas {
            return (replicas, None);
        }
        cluster.access(owner, gfn, Access::Write);
        let step = others.len() / replicas;
        for n in others.iter().step_by(step).take(replicas) {
            cluster.access(NodeId(*n), gfn, Access::Read);
        }
        (replicas, Some(cluster.access(requester, gfn, Access::Write)))
    });
    let shared = shared.collect();
    Faults { nodes, first, read, write, upgrade, evict, shared }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
