use super::*;
use crate::Progress;
use addr::Access;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool};

/// 1 GiB of frames.
const GIB: u64 = 1 << 18;

#[test]
fn limits_grow_with_what_may_be_held() {
    // Tables for its own pages, for the other GiB, for the directory, and
    // 16 and two for the levels above.
    let leader = Limits::new(GIB, 2 * GIB, true);
    assert_eq!((leader.table_frames, leader.reserve), (512 + 512 + 512 + 18, 1024));
    assert_eq!(leader.contribution(GIB), 506 * RUN_PAGES);
    let lender = Limits::new(GIB, 2 * GIB, false);
    assert_eq!((lender.table_frames, lender.reserve), (512 + 32 + 512 + 18, 1024));
    assert_eq!(lender.contribution(GIB), 507 * RUN_PAGES);
    // 64 GiB in a cluster of 1 TiB, and in one of 16 TiB.
    let tables = |cluster| Limits::new(64 * GIB, cluster, false).table_frames;
    assert_eq!(tables(1024 * GIB), 32_768 + 30_720 + 32_768 + 16 + 64 + 960);
    assert_eq!(tables(16_384 * GIB), 3 * 32_768 + 16 + 64 + 4096);
}

/// What the leading node keeps for tables has a bound: that of a guest twice its
/// own memory. What they may take beyond that is not promised to the guest, and
/// is half of it at most, but for the levels above.
#[test]
fn a_leader_keeps_no_more_tables_than_its_memory_needs() {
    let frames = 16 * GIB;
    for nodes in [2, 3, 64, 256, 4096] {
        let leader = Limits::new(frames, nodes * frames, true);
        assert_eq!(leader.table_frames, 3 * 8192 + 16 + 32, "{nodes} nodes");
        // 16 bytes a frame, 8 of directory, and the levels above.
        assert!(leader.table_frames * 4096 <= (16 + 8) * frames + 64 * 4096);
        let above = 16 + nodes * 16;
        let all = above + nodes * 8192 + 8192;
        assert!(leader.unpromised <= all, "{nodes} nodes: one for each run at most");
        let left = frames - leader.reserve - 8192 - above;
        assert!(leader.contribution(frames) >= left / 2 / RUN_PAGES * RUN_PAGES, "{nodes} nodes");
    }
    let two = Limits::new(frames, 2 * frames, true);
    assert_eq!(two.unpromised, two.table_frames);
}

/// As many masters as a leader was promised for have room there with a table
/// each, if there are so many runs.
#[test]
fn what_is_promised_fits_however_far_apart() {
    for nodes in [1, 2, 3, 5, 17, 100, 255, 256, 257, 1000, 4096] {
        for gib in [1, 4, 16] {
            let (frames, cluster) = (gib * GIB, nodes * gib * GIB);
            let limits = Limits::new(frames, cluster, true);
            let masters = limits.contribution(frames);
            let (runs, own) = (cluster / RUN_PAGES, frames / RUN_PAGES);
            let nested = masters.min(runs) + runs / RUN_PAGES + 16;
            let tables = (nested + own).max(limits.table_frames);
            assert!(masters + tables + limits.reserve <= frames, "{nodes} of {gib} GiB");
            assert!(masters > 0 || gib < 16, "{nodes} of {gib} GiB");
        }
    }
}

#[test]
fn the_reserve_has_bounds() {
    let reserve = |frames| Limits::new(frames, frames, true).reserve;
    assert_eq!((reserve(1000), reserve(GIB / 2), reserve(64 * GIB)), (192, 512, 4096));
}

#[test]
fn too_few_frames_add_nothing() {
    let limits = Limits::new(512, 512, true);
    assert_eq!((limits.contribution(512), limits.contribution(0)), (0, 0));
    let least = limits.unpromised + limits.reserve + RUN_PAGES;
    assert_eq!(limits.contribution(least), RUN_PAGES);
    assert_eq!(limits.contribution(least - 1), 0);
}

/// One root, a table for each 512 GiB and for each GiB begun, one for each
/// 2 MiB that there is and one for each that the node is home to.
#[test]
fn tables_are_covered_to_the_last_one() {
    for (pages, needed) in [
        ([2, 2], 3 + 4 + 2),
        ([600, 600], 1 + 3 + 1 + 1200 + 600),
        // 3 GiB below the window, and 512 GiB above 4 GiB.
        ([1536, 512 * 512], 1 + 516 + 2 + 1536 + 512 * 512 + 1536),
    ] {
        let layout = Layout::new(&pages.map(|runs| runs * RUN_PAGES)).unwrap();
        let limits = |table_frames| Limits { table_frames, ..Limits::new(GIB, GIB, true) };
        assert!(limits(needed).cover_tables(&layout, NodeId(0)), "{pages:?}");
        assert!(!limits(needed - 1).cover_tables(&layout, NodeId(0)), "{pages:?}");
    }
}

/// Takes what is sent and forgets it.
struct Nowhere;

impl Output for Nowhere {
    fn send(&mut self, _: NodeId, _: Message, _: Option<Frame>) {}
    fn free_frames(&self, _: NodeId) -> u64 {
        0
    }
    fn flush(&mut self) {}
}

/// Node 1 of two, with 4 chunks of its own, 100 frames and so many of them
/// kept for tables.
fn lender(table_frames: u64) -> (Coherence, VecMemory) {
    let layout = Layout::new(&[1 << 19, 4 * RUN_PAGES]).unwrap();
    let limits = Limits {
        table_frames,
        unpromised: table_frames,
        reserve: 30,
        open_max: 8,
        puts_max: 4,
        asks_max: 4,
        dones_max: 64,
    };
    let mut memory = VecMemory::new(101);
    let mut pool = FramePool::new();
    pool.add(Frame(1), Frame(101));
    (Coherence::new(NodeId(1), layout, limits, Format::NPT, pool, &mut memory), memory)
}

#[test]
fn frames_for_tables_are_out_of_reach_of_pages() {
    let fetch = |c: &mut Coherence, memory: &mut VecMemory, gfn: u64| {
        let mut env = Env { memory, out: &mut Nowhere };
        c.access(&mut env, Gfn(gfn), Access::Write, 0).unwrap()
    };
    // As many as were kept back, less the root.
    let (c, _) = lender(40);
    assert_eq!((c.free_frames(), c.floor(), c.room()), (99, 39, 50));
    // Too few for every run: still one for each chunk of the directory, and
    // three for the next page.
    let (mut c, mut memory) = lender(4);
    assert_eq!((c.floor(), c.room()), (4 + 3, 99 - 7 - 10));
    // Three more for each fetch that is open.
    for open in 1..4 {
        assert_eq!(fetch(&mut c, &mut memory, 1000 * open), Progress::Pending);
        assert_eq!((c.free_frames(), c.floor()), (99 - open, 7 + 3 * open));
    }
    // A directory table that is made is owed no more; a large leaf may need one.
    let (mut c, mut memory) = lender(5);
    let own = Gfn(1 << 19);
    let alone = Message { alone: true, ..Message::new(Kind::GetExclusive, own, NodeId(0)) };
    let env = &mut Env { memory: &mut memory, out: &mut Nowhere };
    c.handle(env, NodeId(0), alone, None).unwrap();
    assert_eq!((c.table_frames(), c.floor()), ((1, 1), 3 + 3));
    let env = &mut Env { memory: &mut memory, out: &mut Nowhere };
    c.prefetch(env, own.offset_by(RUN_PAGES), 1, 1, Access::Write).unwrap();
    assert_eq!((c.table.large_leaves(), c.floor()), (1, 3 + 1 + 3));
}

#[test]
fn frames_that_come_free_after_start_are_lent() {
    let (mut c, _) = lender(40);
    c.pool_mut().add(Frame(101), Frame(111));
    assert_eq!((c.free_frames(), c.room()), (109, 60));
}

/// A grant of fewer pages than a run has makes no large page, wherever it lies.
#[test]
fn a_part_of_a_run_is_granted_as_such() {
    for (lead, count) in [(0, 4), (3, 511)] {
        let (mut c, mut memory) = lender(40);
        let env = &mut Env { memory: &mut memory, out: &mut Nowhere };
        let (start, gfn) = (Gfn(2 * RUN_PAGES), Gfn(2 * RUN_PAGES + lead));
        assert_eq!(c.access(env, gfn, Access::Write, 0).unwrap(), Progress::Pending);
        let grant = Message::new(Kind::ZeroGrant, gfn, NodeId(1));
        let grant = Message { count, lead: lead as u16, ..grant };
        c.handle(env, NodeId(0), grant, None).unwrap();
        assert_eq!((c.table.large_leaves(), c.masters()), (0, u64::from(count)));
        let state = |n| c.table.get(&memory, start.offset_by(n)).state;
        let last = u64::from(count);
        assert_eq!((state(last - 1), state(last)), (PageState::Exclusive, PageState::Invalid));
    }
}
