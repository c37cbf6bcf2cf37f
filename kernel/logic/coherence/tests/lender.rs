//! A node that lends memory keeps few frames for tables of other nodes' pages.
//! When it touches more of the guest's memory than those tables cover, further
//! tables come out of frames for pages; never does one fail to be had.

use addr::{Access, Frame, Gfn, NodeId, PageBytes, RUN_PAGES};
use coherence::{Coherence, Env, Limits, Message, Output, Progress};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool, HostMemory};
use std::collections::VecDeque;

/// Frames of the leader and of the lender.
const FRAMES: [u64; 2] = [64 * RUN_PAGES, 4 * RUN_PAGES];

struct Out<'a> {
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

struct Pair {
    nodes: Vec<(Coherence, VecMemory)>,
    sent: VecDeque<(usize, usize, Message, Option<Frame>)>,
}

impl Pair {
    fn new() -> Pair {
        let cluster = FRAMES.iter().sum();
        let limits = |n: usize| Limits::new(FRAMES[n], cluster, n == 0);
        let pages: Vec<u64> = (0..2).map(|n| limits(n).contribution(FRAMES[n])).collect();
        let layout = Layout::new(&pages).unwrap();
        let make = |n: usize| {
            let mut memory = VecMemory::new(FRAMES[n] as usize + 1);
            let mut pool = FramePool::new();
            pool.add(Frame(1), Frame(FRAMES[n] + 1));
            let (id, layout) = (NodeId(n as u16), layout.clone());
            let c = Coherence::new(id, layout, limits(n), Format::NPT, pool, &mut memory);
            (c, memory)
        };
        Pair { nodes: (0..2).map(make).collect(), sent: VecDeque::new() }
    }

    fn with<R>(
        &mut self,
        n: usize,
        f: impl FnOnce(&mut Coherence, &mut Env<'_, VecMemory, Out<'_>>) -> R,
    ) -> R {
        let rooms = [self.nodes[0].0.room(), self.nodes[1].0.room()];
        let mut out = Out { from: n, rooms, sent: &mut self.sent };
        let (coherence, memory) = &mut self.nodes[n];
        f(coherence, &mut Env { memory, out: &mut out })
    }

    fn deliver_all(&mut self) {
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

    fn write(&mut self, n: usize, gfn: Gfn) {
        for _ in 0..1000 {
            let progress = self.with(n, |c, env| c.access(env, gfn, Access::Write, 0)).unwrap();
            if progress == Progress::Ready {
                let (coherence, memory) = &mut self.nodes[n];
                let frame = coherence.look(memory, gfn, Access::Write).unwrap().unwrap();
                memory.write_entry(frame, 0, gfn.0);
                self.with(n, |c, env| c.release_held(env)).unwrap();
                return;
            }
            self.deliver_all();
        }
        panic!("node {n} never gets page {:#x}", gfn.0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn tables_are_had_wherever_a_lender_touches() {
    let mut pair = Pair::new();
    let layout = pair.nodes[0].0.layout().clone();
    let runs = layout.pages_of(NodeId(0)) / RUN_PAGES;
    // Every run of the leader, until the lender's frames have long run out.
    for place in 0..40 {
        for run in 0..runs {
            pair.write(1, Gfn(run * RUN_PAGES + place));
        }
    }
    let (nested, _) = pair.nodes[1].0.table_frames();
    let kept = Limits::new(FRAMES[1], FRAMES.iter().sum(), false).table_frames;
    assert!(nested > kept, "{nested} tables are no more than were kept back");
    // What the lender is home to needs tables of its directory now.
    let own = layout.pages_of(NodeId(0));
    for run in 0..layout.pages_of(NodeId(1)) / RUN_PAGES {
        for node in [0, 1] {
            pair.write(node, Gfn(own + run * RUN_PAGES + node as u64));
        }
    }
    // Whole runs that the lender was granted come apart.
    for run in 0..runs {
        pair.write(0, Gfn(run * RUN_PAGES + 500));
    }
}
