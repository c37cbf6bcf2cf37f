//! Whole clusters of the production crate in one process: messages are on their
//! way until a test delivers them.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

use addr::{Access, Arrived, Frame, Gfn, NodeId, PageBytes};
use coherence::{Coherence, Env, Limits, Message, Output, Progress};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Entry, Format, FramePool, HostMemory, PageState};

pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub struct Out {
    sent: Vec<(NodeId, Message, Option<Frame>)>,
    flushed: bool,
    free: Vec<u64>,
}
impl Output for Out {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        self.sent.push((to, message, page));
    }
    fn free_frames(&self, node: NodeId) -> u64 {
        self.free[node.index()]
    }
    fn flush(&mut self) {
        self.flushed = true;
    }
}

pub struct Flight {
    pub from: usize,
    pub to: usize,
    pub message: Message,
    pub page: Option<(Frame, Box<PageBytes>)>,
}

pub struct Cluster {
    pub nodes: Vec<(Coherence, VecMemory)>,
    pub flying: Vec<Flight>,
    /// Each node's frame in which the next page lands.
    pub landing: Vec<Frame>,
    /// Frames delivered, whose release the sender has yet to hear of.
    pub releases: Vec<(usize, Frame)>,
    pub written: Vec<(Gfn, u64)>,
    pub pages: Vec<Gfn>,
    pub next_value: u64,
    /// The newest message mostly comes first, so that old ones come very late.
    pub newest_first: bool,
    /// What nodes know of each other's room; seldom refreshed where messages
    /// come late.
    pub rooms: Vec<u64>,
    pub calls: u64,
    /// Whether the last call has led to a flush.
    pub flushed: bool,
    /// Of a hundred accesses, how many write.
    pub writes: u64,
}

pub fn value_of(memory: &VecMemory, frame: Option<Frame>) -> u64 {
    frame.map_or(0, |f| memory.read_entry(f, 3))
}

impl Cluster {
    /// `frames` for pages at each node, besides what tables and reserve take.
    pub fn new(nodes: usize, frames: u64, pages: &[u64]) -> Cluster {
        let contributions = vec![1024; nodes];
        let layout = Layout::new(&contributions).unwrap();
        let limits = Limits {
            table_frames: 16,
            unpromised: 16,
            reserve: 12,
            open_max: 8,
            puts_max: 4,
            asks_max: 4,
            // What makes room for them is most of what an interpreter does in a test.
            dones_max: if cfg!(miri) { 16 } else { 512 },
        };
        let all = limits.table_frames + limits.reserve + frames;
        let make = |n: usize| {
            // One frame more is the link's, in which a page may land.
            let mut memory = VecMemory::new(all as usize + 2);
            let mut pool = FramePool::new();
            pool.add(Frame(1), Frame(all + 1));
            pool.know(Frame(all + 1), Frame(all + 2));
            let layout = layout.clone();
            let id = NodeId(n as u16);
            let c = Coherence::new(id, layout, limits, Format::NPT, pool, &mut memory);
            (c, memory)
        };
        Cluster {
            nodes: (0..nodes).map(make).collect(),
            landing: vec![Frame(all + 1); nodes],
            flying: vec![],
            releases: vec![],
            written: pages.iter().map(|&g| (Gfn(g), 0)).collect(),
            pages: pages.iter().map(|&g| Gfn(g)).collect(),
            next_value: 1,
            newest_first: false,
            rooms: vec![0; nodes],
            calls: 0,
            flushed: false,
            writes: 50,
        }
    }

    pub fn with<R>(
        &mut self,
        node: usize,
        f: impl FnOnce(&mut Coherence, &mut Env<'_, VecMemory, Out>) -> R,
    ) -> R {
        self.calls += 1;
        if !self.newest_first || self.calls.is_multiple_of(64) {
            self.rooms = self.nodes.iter().map(|(c, _)| c.room()).collect();
        }
        let mut out = Out { sent: vec![], flushed: false, free: self.rooms.clone() };
        let (coherence, memory) = &mut self.nodes[node];
        let result = f(coherence, &mut Env { memory, out: &mut out });
        self.flushed = out.flushed;
        for (to, message, page) in out.sent {
            let page = page.map(|frame| {
                let mut bytes = Box::new([0; 4096]);
                self.nodes[node].1.read(frame, 0, &mut bytes[..]);
                (frame, bytes)
            });
            self.flying.push(Flight { from: node, to: to.index(), message, page });
        }
        result
    }

    pub fn deliver(&mut self, at: usize) {
        let f = self.flying.swap_remove(at);
        let page = f.page.as_ref().map(|(_, bytes)| &**bytes);
        let mut landing = self.landing[f.to];
        let lands = f.message.gfn.0.is_multiple_of(2);
        self.with(f.to, |c, env| {
            let page = match page {
                Some(bytes) if lands => {
                    env.memory.write(landing, 0, bytes);
                    Some(Arrived::Landed(&mut landing))
                }
                page => page.map(Arrived::Bytes),
            };
            c.handle_arrived(env, NodeId(f.from as u16), f.message, page)
        })
        .unwrap_or_else(|v| panic!("{v:?}"));
        self.landing[f.to] = landing;
        if let Some((frame, _)) = f.page {
            self.releases.push((f.from, frame));
        }
    }

    /// One access by a node's vCPU; `true` if it was done.
    pub fn access(&mut self, node: usize, which: usize, access: Access, ahead: u16) -> bool {
        let gfn = self.pages[which];
        let progress = self
            .with(node, |c, env| c.access(env, gfn, access, ahead))
            .unwrap_or_else(|v| panic!("{v:?}"));
        if progress != Progress::Ready {
            return false;
        }
        let (coherence, memory) = &mut self.nodes[node];
        let frame = coherence.look(memory, gfn, access).expect("ready");
        assert_eq!(value_of(memory, frame), self.written[which].1, "{gfn:?} at {node}");
        if access == Access::Write {
            memory.write_entry(frame.expect("writable"), 3, self.next_value);
            self.written[which].1 = self.next_value;
            self.next_value += 1;
        }
        self.with(node, |c, env| c.release_held(env)).unwrap();
        true
    }

    pub fn check(&self) {
        for &(gfn, last) in &self.written {
            let mut masters = 0;
            let mut copies = 0;
            let mut exclusive = 0;
            for (n, (c, memory)) in self.nodes.iter().enumerate() {
                let entry = c.entry(memory, gfn);
                masters += usize::from(entry.state.is_master() && !entry.leaving);
                if let Some(frame) = c.look(memory, gfn, Access::Read) {
                    copies += 1;
                    exclusive += usize::from(entry.state == PageState::Exclusive);
                    assert_eq!(value_of(memory, frame), last, "stale {gfn:?} at {n}");
                }
            }
            assert!(masters <= 1, "{masters} masters of {gfn:?}");
            assert!(exclusive == 0 || copies == 1, "{gfn:?} exclusive among {copies} copies");
        }
    }

    /// Every frame is somewhere, and what is counted is there.
    pub fn account(&self) {
        for (n, (c, memory)) in self.nodes.iter().enumerate() {
            assert_eq!(c.me(), NodeId(n as u16));
            let entries = (0..c.layout().end().0).map(|g| c.entry(memory, Gfn(g)));
            let entries: Vec<_> = entries.filter(|e| e.state != PageState::Invalid).collect();
            let count =
                |what: &dyn Fn(&Entry) -> bool| entries.iter().filter(|&e| what(e)).count() as u64;
            assert_eq!(c.masters(), count(&|e| e.state.is_master()), "masters at {n}");
            assert_eq!(c.replicas(), count(&|e| e.state == PageState::Shared), "replicas at {n}");
            let held = count(&|e| e.frame.is_some());
            let (nested, directory) = c.table_frames();
            let used = held + nested + directory + c.frames_in_transactions();
            assert_eq!(c.free_frames() + used, c.total_frames(), "frames at {n}");
        }
    }

    pub fn step(&mut self, rng: &mut Rng) {
        if !self.releases.is_empty() && rng.below(3) == 0 {
            let at = rng.below(self.releases.len() as u64) as usize;
            let (node, frame) = self.releases.swap_remove(at);
            self.nodes[node].0.released(frame);
        }
        if !self.flying.is_empty() && rng.below(4) != 0 {
            let newest = self.newest_first && rng.below(10) != 0;
            let len = self.flying.len();
            let at = if newest { len - 1 } else { rng.below(len as u64) as usize };
            self.deliver(at);
            return;
        }
        let node = rng.below(self.nodes.len() as u64) as usize;
        let which = rng.below(self.pages.len() as u64) as usize;
        let access = if rng.below(100) < self.writes { Access::Write } else { Access::Read };
        let ahead = if rng.below(4) == 0 { 3 } else { 0 };
        self.access(node, which, access, ahead);
    }

    pub fn drain(&mut self) {
        let mut steps = 0;
        loop {
            if self.flying.is_empty() && self.releases.is_empty() && steps > 0 {
                break;
            }
            if self.flying.is_empty() {
                for (node, frame) in core::mem::take(&mut self.releases) {
                    self.nodes[node].0.released(frame);
                }
            } else {
                self.deliver(0);
            }
            for node in 0..self.nodes.len() {
                self.with(node, |c, env| c.release_held(env)).unwrap();
                self.with(node, |c, env| c.balance(env)).unwrap();
            }
            steps += 1;
            assert!(steps < 100_000, "messages never end");
        }
    }

    /// Every access succeeds in the end, on every node.
    pub fn finish(&mut self) {
        self.drain();
        for node in 0..self.nodes.len() {
            for which in 0..self.pages.len() {
                for access in [Access::Read, Access::Write] {
                    let mut tries = 0;
                    while !self.access(node, which, access, 0) {
                        self.drain();
                        tries += 1;
                        assert!(tries < 1000, "starved at node {node} page {which}");
                    }
                }
            }
        }
        self.drain();
        self.check();
        self.account();
        for (n, (c, _)) in self.nodes.iter().enumerate() {
            assert!(c.is_quiet(), "node {n} is not quiet");
            assert_eq!((c.puts_open(), c.frames_in_transactions()), (0, 0), "node {n}");
            assert!(self.pages.iter().all(|&gfn| c.is_idle(gfn) && !c.is_open(gfn)));
        }
    }
}
