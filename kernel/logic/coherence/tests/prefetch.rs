//! What a node asks for ahead of need: which pages, of whom, in how many
//! messages.

use addr::{Access, Frame, Gfn, NodeId};
use coherence::{Coherence, Env, Kind, Limits, Message, Output, Progress};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool, PageState};

/// What was sent, as (home, first page, pages).
#[derive(Default)]
struct Sent(Vec<(u16, u64, u16)>);

impl Output for Sent {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        assert!(page.is_none());
        if matches!(message.kind, Kind::GetShared | Kind::GetExclusive) {
            self.0.push((to.0, message.gfn.0, message.count));
        }
    }
    fn free_frames(&self, _: NodeId) -> u64 {
        0
    }
    fn flush(&mut self) {}
}

/// Node 1 of three, each home to 1024 pages.
struct Node {
    coherence: Coherence,
    memory: VecMemory,
}

impl Node {
    fn new(frames: u64) -> Node {
        let limits = Limits {
            table_frames: 20,
            unpromised: 20,
            reserve: 8,
            open_max: 16,
            puts_max: 4,
            asks_max: 4,
            dones_max: 64,
        };
        let mut memory = VecMemory::new(frames as usize + 1);
        let mut pool = FramePool::new();
        pool.add(Frame(1), Frame(frames + 1));
        let layout = Layout::new(&[1024; 3]).unwrap();
        let c = Coherence::new(NodeId(1), layout, limits, Format::NPT, pool, &mut memory);
        Node { coherence: c, memory }
    }

    fn prefetch(&mut self, from: u64, step: i64, count: u16) -> Vec<(u16, u64, u16)> {
        let mut out = Sent::default();
        let mut env = Env { memory: &mut self.memory, out: &mut out };
        self.coherence.prefetch(&mut env, Gfn(from), step, count, Access::Read).unwrap();
        out.0
    }

    fn access(&mut self, gfn: u64, ahead: u16) -> (Progress, Vec<(u16, u64, u16)>) {
        let mut out = Sent::default();
        let mut env = Env { memory: &mut self.memory, out: &mut out };
        let progress = self.coherence.access(&mut env, Gfn(gfn), Access::Write, ahead).unwrap();
        (progress, out.0)
    }

    fn is_open(&self, gfns: impl IntoIterator<Item = u64>) -> bool {
        gfns.into_iter().all(|gfn| self.coherence.is_open(Gfn(gfn)))
    }
}

#[test]
fn neighbours_go_into_one_request() {
    let mut node = Node::new(60);
    assert_eq!(node.prefetch(100, 1, 4), [(0, 100, 4)]);
    assert!(node.is_open(100..104) && !node.is_open([104]));
    assert_eq!(node.coherence.counters().prefetches, 4);
    // What is asked for already is left out, and so is what another is home to.
    assert_eq!(node.prefetch(98, 1, 8), [(0, 98, 2), (0, 104, 2)]);
    assert_eq!(node.prefetch(3072 - 1, 1, 3), [(2, 3071, 1)]);
    assert_eq!(node.prefetch(1022, 1, 2), [(0, 1022, 2)]);
    assert_eq!(node.prefetch(1022, 1, 0), []);
}

#[test]
fn pages_apart_are_asked_for_one_by_one() {
    let mut node = Node::new(60);
    assert_eq!(node.prefetch(100, 3, 3), [(0, 100, 1), (0, 103, 1), (0, 106, 1)]);
    assert_eq!(node.prefetch(99, -1, 2), [(0, 99, 1), (0, 98, 1)]);
    assert_eq!(node.prefetch(2, -2, 4), [(0, 2, 1), (0, 0, 1)], "there is nothing below 0");
}

/// A page that comes ahead of need takes no frame that one in need may want.
#[test]
fn few_frames_are_for_what_is_needed() {
    // 20 frames are kept for tables (the root is one of them), and a quarter
    // of the reserve of 8.
    let mut node = Node::new(20 + 2 + 3);
    assert_eq!(node.prefetch(100, 1, 8), [(0, 100, 3)]);
    assert_eq!(node.access(200, 4), (Progress::Pending, vec![(0, 200, 1)]));
    // No more fetches than are allowed, whoever wants them.
    let mut node = Node::new(60);
    assert_eq!(node.prefetch(100, 1, 20), [(0, 100, 16)]);
    assert_eq!(node.access(200, 0), (Progress::Starved, vec![]));
    let mut node = Node::new(60);
    assert_eq!(node.access(200, 4), (Progress::Pending, vec![(0, 200, 5)]));
    assert!(node.is_open(200..205) && !node.is_open([205]));
}

/// A page that is here or on its way does not end what an access asks for
/// beyond its own.
#[test]
fn an_access_asks_for_what_lies_behind_pages_that_are_not_missing() {
    let mut node = Node::new(60);
    assert_eq!(node.prefetch(103, 1, 2), [(0, 103, 2)]);
    let asked = vec![(0, 100, 3), (0, 105, 3)];
    assert_eq!(node.access(100, 7), (Progress::Pending, asked));
    assert!(node.is_open(100..108) && !node.is_open([108]));
    // Behind the last page there is nothing.
    assert_eq!(node.access(3071, 3), (Progress::Pending, vec![(2, 3071, 1)]));
}

/// The floor that remote faults are measured against: a write that faults and
/// is answered on the spot.
#[test]
fn a_protected_page_is_had_without_a_word() {
    let mut node = Node::new(60);
    let gfn = Gfn(1500);
    let protect = |node: &mut Node| {
        let mut env = Env { memory: &mut node.memory, out: &mut Sent::default() };
        node.coherence.protect(&mut env, gfn)
    };
    assert!(!protect(&mut node), "it is not here");
    assert_eq!(node.access(gfn.0, 0), (Progress::Ready, vec![]));
    assert!(protect(&mut node));
    let entry = node.coherence.entry(&node.memory, gfn);
    assert!(entry.state == PageState::Exclusive && entry.readable() && !entry.writable());
    assert!(!protect(&mut node), "it is protected already");
    assert_eq!(node.access(gfn.0, 0), (Progress::Ready, vec![]));
    assert!(node.coherence.entry(&node.memory, gfn).writable());
}
