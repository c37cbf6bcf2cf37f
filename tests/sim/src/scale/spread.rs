//! A leading node whose guest is 65,536 times as large as its memory, and what
//! it holds of it: nested tables come and go with the pages.

use crate::mmu::Mmu;
use crate::rng::Rng;
use addr::{Access, Frame, Gfn, NodeId, PageBytes, RUN_PAGES};
use coherence::{Coherence, Env, Limits, Message, Output, Progress};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool, HostMemory};
use std::collections::VecDeque;

/// Frames of the leading node: 64 MiB.
pub const FRAMES: u64 = 1 << 14;
/// Pages of the lender that is home to nearly all of the guest: 4 TiB.
pub const PAGES: u64 = 1 << 30;
/// Calls until a page is here, at most.
const PATIENCE: usize = 100_000;

/// Which pages are written, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// So many neighbours, over and over.
    Dense(u64),
    /// So many pages at random, each in a run of its own, over and over.
    Hot(u64),
    /// Any page.
    Uniform,
}

/// What a pattern came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    /// The pattern.
    pub pattern: Pattern,
    /// Writes in the second half, which is what is measured.
    pub writes: u64,
    /// Pages that were not here.
    pub misses: u64,
    /// Messages between the nodes.
    pub messages: u64,
    /// Pages in frames, and nested tables, at the end.
    pub held: u64,
    /// As above.
    pub tables: u64,
    /// Most nested tables at any time.
    pub most_tables: u64,
    /// Nested tables taken out.
    pub out: u64,
}

struct Out<'a> {
    from: u16,
    sent: &'a mut VecDeque<(u16, Message, Option<Frame>)>,
    /// The leader's processor.
    mmu: &'a mut Mmu,
}

impl Output for Out<'_> {
    fn send(&mut self, _: NodeId, message: Message, page: Option<Frame>) {
        self.sent.push_back((self.from, message, page));
    }
    fn free_frames(&self, node: NodeId) -> u64 {
        if node.0 == 1 { 1000 } else { 0 }
    }
    fn flush(&mut self) {
        if self.from == 0 {
            self.mmu.flush();
        }
    }
}

struct Pair {
    nodes: [(Coherence, VecMemory); 2],
    sent: VecDeque<(u16, Message, Option<Frame>)>,
    messages: u64,
    mmu: Mmu,
}

impl Pair {
    fn new() -> Pair {
        let leader = Limits::new(FRAMES, FRAMES + PAGES, true);
        let tables = PAGES / RUN_PAGES + (1 << 16);
        let lender = Limits { table_frames: tables, unpromised: tables, ..leader };
        let layout = Layout::new(&[leader.contribution(FRAMES), PAGES]).expect("a sound layout");
        let node = |n: u16, limits: Limits, frames: u64| {
            let mut memory = VecMemory::new(frames as usize + 1);
            let mut pool = FramePool::with_room_for(frames);
            pool.add(Frame(1), Frame(frames + 1));
            let (layout, format) = (layout.clone(), Format::NPT);
            let node = Coherence::new(NodeId(n), layout, limits, format, pool, &mut memory);
            (node, memory)
        };
        let nodes = [node(0, leader, FRAMES), node(1, lender, tables + (1 << 19))];
        Pair { nodes, sent: VecDeque::new(), messages: 0, mmu: Mmu::default() }
    }

    fn at<R>(
        &mut self,
        n: u16,
        act: impl FnOnce(&mut Coherence, &mut Env<'_, VecMemory, Out<'_>>) -> R,
    ) -> R {
        let (coherence, memory) = &mut self.nodes[usize::from(n)];
        let mut out = Out { from: n, sent: &mut self.sent, mmu: &mut self.mmu };
        act(coherence, &mut Env { memory, out: &mut out })
    }

    fn deliver(&mut self) {
        while let Some((from, message, frame)) = self.sent.pop_front() {
            self.messages += 1;
            let page = frame.map(|frame| {
                let (coherence, memory) = &mut self.nodes[usize::from(from)];
                let mut bytes: Box<PageBytes> = Box::new([0; addr::PAGE_SIZE]);
                memory.read(frame, 0, &mut bytes[..]);
                coherence.released(frame);
                bytes
            });
            self.at(1 - from, |c, env| c.handle(env, NodeId(from), message, page.as_deref()))
                .expect("the protocol allows it");
        }
    }

    /// Writes a page at the leader; whether it had to come.
    fn write(&mut self, gfn: Gfn) -> bool {
        for tries in 0..PATIENCE {
            let (coherence, memory) = &mut self.nodes[0];
            let root = coherence.root();
            if let Some(frame) = self.mmu.translate(memory, root, gfn, Access::Write) {
                memory.write(frame, 0, &gfn.0.to_le_bytes());
                self.at(0, |c, env| c.release_held(env)).expect("the protocol allows it");
                self.at(0, |c, env| c.balance(env)).expect("the protocol allows it");
                return tries > 0;
            }
            let progress = self.at(0, |c, env| c.access(env, gfn, Access::Write, 0));
            if progress.expect("the protocol allows it") != Progress::Ready {
                self.deliver();
            }
        }
        panic!("the leader never gets page {:#x}", gfn.0);
    }
}

/// Writes `2 * writes` pages and measures the second half.
#[must_use]
pub fn measure(pattern: Pattern, writes: u64) -> Spread {
    let mut pair = Pair::new();
    let mut rng = Rng::new(7);
    let layout = pair.nodes[0].0.layout().clone();
    let any = |rng: &mut Rng| layout.gfn_at(NodeId(1), rng.below(PAGES));
    let hot: Vec<Gfn> = match pattern {
        Pattern::Dense(pages) => (0..pages).map(|i| layout.gfn_at(NodeId(1), i)).collect(),
        Pattern::Hot(pages) => (0..pages).map(|_| any(&mut rng)).collect(),
        Pattern::Uniform => Vec::new(),
    };
    let (mut misses, mut most_tables) = (0, 0);
    let mut before = (0, 0);
    for i in 0..2 * writes {
        if i == writes {
            misses = 0;
            before = (pair.messages, pair.nodes[0].0.counters().tables_out);
        }
        let gfn = match pattern {
            Pattern::Dense(pages) => hot[(i % pages) as usize],
            Pattern::Hot(_) => rng.pick(&hot),
            Pattern::Uniform => any(&mut rng),
        };
        misses += u64::from(pair.write(gfn));
        most_tables = most_tables.max(pair.nodes[0].0.table_frames().0);
    }
    let (c, _) = &pair.nodes[0];
    let (tables, directory) = c.table_frames();
    let held = FRAMES - c.free_frames() - c.frames_in_transactions() - tables - directory;
    let (messages, out) = (pair.messages - before.0, c.counters().tables_out - before.1);
    Spread { pattern, writes, misses, messages, held, tables, most_tables, out }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is used stays where it fits with a table for each page; what does
    /// not fit comes and goes, and the tables with it.
    #[test]
    fn tables_follow_the_pages() {
        let dense = measure(Pattern::Dense(FRAMES * 3 / 4), 30_000);
        assert_eq!((dense.misses, dense.out), (0, 0), "{dense:?}");
        assert!(dense.most_tables < 2 * FRAMES / RUN_PAGES, "{dense:?}");
        let hot = measure(Pattern::Hot(FRAMES / 4), 60_000);
        assert!(hot.misses * 100 < hot.writes, "{hot:?}");
        let all = measure(Pattern::Uniform, 30_000);
        assert!(all.out > 20_000 && all.most_tables < FRAMES * 3 / 4, "{all:?}");
        assert!(all.held > FRAMES / 4, "{all:?}");
        for spread in [dense, hot, all] {
            assert!(spread.tables <= 2 * spread.held + 128, "{spread:?}");
        }
    }
}
