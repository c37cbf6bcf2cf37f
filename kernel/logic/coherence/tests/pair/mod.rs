//! A leader and a lender without a fabric between them.

use addr::{Access, Frame, Gfn, NodeId, PageBytes, RUN_PAGES};
use coherence::{Coherence, Env, Limits, Message, Output, Progress};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool, HostMemory};
use std::collections::VecDeque;

pub(crate) struct Out<'a> {
    from: usize,
    rooms: [u64; 2],
    sent: &'a mut VecDeque<(usize, usize, Message, Option<Frame>)>,
}

impl Output for Out<'_> {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        self.sent.push_back((self.from, to.index(), message, page));
    }
    fn free_frames(&self, node: NodeId) -> u64 {
        self.rooms[node.index()]
    }
    fn flush(&mut self) {}
}

/// Both nodes, and what is under way.
pub(crate) struct Pair {
    /// The leader, then the lender.
    pub(crate) nodes: Vec<(Coherence, VecMemory)>,
    sent: VecDeque<(usize, usize, Message, Option<Frame>)>,
}

impl Pair {
    /// Nodes of so many frames.
    pub(crate) fn new(frames: [u64; 2]) -> Pair {
        let cluster = frames.iter().sum();
        let limits = |n: usize| Limits::new(frames[n], cluster, n == 0);
        let pages: Vec<u64> = (0..2).map(|n| limits(n).contribution(frames[n])).collect();
        let layout = Layout::new(&pages).unwrap();
        let make = |n: usize| {
            let mut memory = VecMemory::new(2 * frames[n] as usize);
            let mut pool = FramePool::new();
            // The leader has no whole run of frames: zero pages get none early.
            let piece = if n == 0 { RUN_PAGES - 1 } else { frames[n] };
            for at in 0..frames[n].div_ceil(piece) {
                let start = 1 + at * RUN_PAGES;
                pool.add(Frame(start), Frame(start + piece.min(frames[n] - at * piece)));
            }
            let (id, layout) = (NodeId(n as u16), layout.clone());
            let c = Coherence::new(id, layout, limits(n), Format::NPT, pool, &mut memory);
            (c, memory)
        };
        Pair { nodes: (0..2).map(make).collect(), sent: VecDeque::new() }
    }

    /// Has one node do something.
    pub(crate) fn with<R>(
        &mut self,
        n: usize,
        f: impl FnOnce(&mut Coherence, &mut Env<'_, VecMemory, Out<'_>>) -> R,
    ) -> R {
        let rooms = [self.nodes[0].0.room(), self.nodes[1].0.room()];
        let mut out = Out { from: n, rooms, sent: &mut self.sent };
        let (coherence, memory) = &mut self.nodes[n];
        f(coherence, &mut Env { memory, out: &mut out })
    }

    /// Delivers until nothing is under way.
    pub(crate) fn deliver_all(&mut self) {
        while let Some((from, to, message, frame)) = self.sent.pop_front() {
            let page = frame.map(|frame| {
                let mut bytes: Box<PageBytes> = Box::new([0; 4096]);
                self.nodes[from].1.read(frame, 0, &mut bytes[..]);
                bytes
            });
            let id = NodeId(from as u16);
            self.with(to, |c, env| c.handle(env, id, message, page.as_deref())).unwrap();
            if let Some(frame) = frame {
                self.nodes[from].0.released(frame);
            }
        }
    }

    /// Writes one more than its own number to a page.
    pub(crate) fn write(&mut self, n: usize, gfn: Gfn) {
        for _ in 0..2000 {
            let progress = self.with(n, |c, env| c.access(env, gfn, Access::Write, 0)).unwrap();
            if progress == Progress::Ready {
                let (coherence, memory) = &mut self.nodes[n];
                let frame = coherence.look(memory, gfn, Access::Write).unwrap().unwrap();
                memory.write_entry(frame, 0, gfn.0 + 1);
                self.with(n, |c, env| c.release_held(env)).unwrap();
                return;
            }
            self.deliver_all();
        }
        panic!("node {n} never gets page {:#x}", gfn.0);
    }
}
