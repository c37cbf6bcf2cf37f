use super::*;
use crate::{Limits, Message};
use addr::NodeId;
use alloc::vec::Vec;
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool};

/// So many frames that a tick has 64 arrivals and the queue 64 pages.
const FRAMES: u64 = 1024;
const TICK: u32 = 64;
const QUEUE: u64 = 64;

struct Nowhere;

impl Output for Nowhere {
    fn send(&mut self, _: NodeId, _: Message, _: Option<Frame>) {}
    fn free_frames(&self, _: NodeId) -> u64 {
        0
    }
    fn flush(&mut self) {}
}

struct Node {
    c: Coherence,
    memory: VecMemory,
}

impl Node {
    fn new(format: Format) -> Node {
        let limits = Limits {
            table_frames: 16,
            unpromised: 16,
            reserve: 16,
            open_max: 8,
            puts_max: 4,
            asks_max: 4,
            dones_max: 64,
        };
        let mut memory = VecMemory::new(FRAMES as usize + 1);
        let mut pool = FramePool::new();
        pool.add(Frame(1), Frame(FRAMES + 1));
        let layout = Layout::new(&[8 * RUN_PAGES]).unwrap();
        let c = Coherence::new(NodeId(0), layout, limits, format, pool, &mut memory);
        Node { c, memory }
    }

    /// Puts a page in a frame; `rank` 0 for a new one.
    fn hold(&mut self, gfn: Gfn, rank: u8, accessed: bool) {
        let frame = self.c.pool.allocate().unwrap();
        let entry = Entry { rank, accessed, ..Entry::held(PageState::Exclusive, frame) };
        _ = self.c.table.set(&mut self.memory, &mut self.c.pool, gfn, entry).unwrap();
        self.c.replacement.ranked(0, rank, 1);
        if rank == 0 {
            self.c.enqueue(&mut self.memory, gfn);
        }
    }

    fn get(&self, gfn: Gfn) -> Entry {
        self.c.table.get(&self.memory, gfn)
    }

    fn next_victim(&mut self, budget: &mut u64) -> Option<Victim> {
        let env = &mut Env { memory: &mut self.memory, out: &mut Nowhere };
        self.c.next_victim(env, budget)
    }
}

/// The rank of a kept page of this age.
fn aged(c: &Coherence, age: u8) -> u8 {
    KEPT | (c.replacement.tick.wrapping_sub(age) & 63)
}

/// A few that are much older than all others do not make those old.
#[test]
fn the_oldest_are_more_than_one_in_thirty_two() {
    let mut node = Node::new(Format::NPT);
    node.c.replacement.tick = 5;
    assert_eq!(node.c.replacement.old_age(), 0);
    for (age, pages, oldest) in [(1, 62, 1), (20, 1, 1), (15, 1, 1), (10, 1, 10), (15, 1, 15)] {
        let rank = aged(&node.c, age);
        node.c.replacement.ranked(0, rank, pages);
        assert_eq!(node.c.replacement.old_age(), oldest);
    }
}

/// Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8 (14), 2003:
/// the first numbers of the triple 13, 17, 5.
#[test]
fn chance_is_the_published_generator() {
    let mut r = Replacement::new(FRAMES);
    let first = [0; 5].map(|_| r.draw());
    assert_eq!(first, [270_369, 67_634_689, 2_647_435_461, 307_599_695, 2_398_689_233]);
}

/// Younger, by the time it was away, than the oldest kept pages for sure: their
/// stamps may be late by half of the eight ticks that the hand takes to come
/// round. Without accessed flags: away for fewer arrivals than there are frames.
#[test]
fn a_page_returns_soon_that_was_away_for_less_than_the_oldest_are_old() {
    for (format, soon) in [(Format::NPT, (20 - 4) * TICK), (Format::EPT, FRAMES as u32)] {
        let mut node = Node::new(format);
        let gfn = Gfn(7);
        node.hold(Gfn(8), 0, false); // so that there is a table of leaves
        node.c.replacement.ranked(0, aged(&node.c, 20), 64);
        node.c.replacement.arrivals = 100_000;
        assert!(!node.c.returns_soon(node.c.table.history(&node.memory, gfn)), "it was never here");
        for (away, returns) in [(soon - 1, true), (soon, false), (90_000, false)] {
            node.c.remember(&mut node.memory, gfn, 100_000 - away);
            assert_eq!(
                node.c.returns_soon(node.c.table.history(&node.memory, gfn)),
                returns,
                "{away}"
            );
        }
    }
}

/// A page is used when it arrives. When a quarter of the queue has come after
/// it, the next use is another one.
#[test]
fn the_use_at_arrival_does_not_count() {
    let mut node = Node::new(Format::NPT);
    let fresh = QUEUE / 4;
    (0..fresh + 8).for_each(|n| node.hold(Gfn(n), 0, true));
    // One of the first has become a kept one meanwhile.
    let kept = aged(&node.c, 3);
    let entry = Entry { rank: kept, ..node.get(Gfn(2)) };
    _ = node.c.table.set(&mut node.memory, &mut node.c.pool, Gfn(2), entry).unwrap();
    node.c.look_after_ranks(&mut node.memory, false);
    let used = |n: &u64| node.get(Gfn(*n)).accessed;
    let expected: Vec<u64> = [2].into_iter().chain(8..fresh + 8).collect();
    assert_eq!((0..fresh + 8).filter(used).collect::<Vec<_>>(), expected);
    assert_eq!(node.get(Gfn(2)).rank, kept);
}

/// With frames to spare nothing has to leave: what comes to the end of the queue
/// is kept.
#[test]
fn without_need_the_queue_is_cut_to_its_length() {
    let mut node = Node::new(Format::NPT);
    (0..QUEUE + 16).for_each(|n| node.hold(Gfn(n), 0, false));
    node.c.look_after_ranks(&mut node.memory, false);
    assert_eq!(node.c.ranks(), (16, QUEUE as usize));
    let kept = |n: &u64| node.get(Gfn(*n)).rank & KEPT != 0;
    assert_eq!((0..QUEUE + 16).filter(kept).count(), 16);
    assert!(kept(&0) && kept(&15) && !kept(&16));
}

/// A page that is not used gets old and stays so, however often the stamps come
/// round.
#[test]
fn an_unused_page_never_looks_young_again() {
    let mut node = Node::new(Format::NPT);
    node.hold(Gfn(9), KEPT, false);
    for time in (0..200u32).take(if cfg!(miri) { 70 } else { 200 }) {
        node.c.replacement.tick = time as u8 & 63;
        while {
            node.c.move_hand(&mut node.memory, u8::MAX);
            node.c.replacement.hand != Gfn(0)
        } {}
        let age = node.c.replacement.age(node.get(Gfn(9)).rank);
        assert_eq!(u32::from(age), time.min(u32::from(OLDEST)));
    }
}

/// New pages leave in their order, but for those that were used again; each
/// that is looked at costs one of what may be looked at.
#[test]
fn a_long_queue_gives_the_next_that_was_not_used() {
    let mut node = Node::new(Format::NPT);
    (0..QUEUE + 4).for_each(|n| node.hold(Gfn(n), 0, n == 1));
    // One was kept at once when it came back; its place in the queue is left.
    let kept = aged(&node.c, 3);
    node.c.rank(&mut node.memory, Gfn(2), 0, 1, kept);
    let mut budget = 10;
    let next = [0; 4].map(|_| node.next_victim(&mut budget).map(|v| v.gfn));
    assert_eq!((next, budget), ([Some(Gfn(0)), None, None, Some(Gfn(3))], 6));
    assert_eq!(node.c.ranks(), (2, QUEUE as usize));
    assert_eq!(node.get(Gfn(1)).rank, node.c.replacement.stamp());
    assert_eq!(node.get(Gfn(2)).rank, kept);
}
