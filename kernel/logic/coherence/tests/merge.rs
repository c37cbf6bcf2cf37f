//! Runs that are a node's alone become large pages again, and stay so only
//! while they are.
//!
//! Not under Miri: each test moves megabytes.
#![cfg(not(miri))]

mod common;
use addr::{Access, Gfn, RUN_PAGES};
use coherence::{Progress, Visit};
use common::{Cluster, Rng};
use paging::PageState;

/// The second run of the first node.
const RUN: Gfn = Gfn(512);
/// Frames for pages: room for some runs and for what a merge wants left.
const FRAMES: u64 = 3072;

/// Two nodes; the first has the run as one large page, in which each small one
/// has a value.
fn large() -> Cluster {
    let pages: Vec<u64> = (RUN.0..RUN.0 + RUN_PAGES).collect();
    let mut cluster = Cluster::new(2, FRAMES, &pages);
    (0..pages.len()).for_each(|at| write(&mut cluster, 0, at));
    assert!(is_large(&cluster), "frames are plenty");
    cluster
}

/// Writes a page of the run, as soon as that can be.
fn write(cluster: &mut Cluster, node: usize, at: usize) {
    let mut tries = 0;
    while !cluster.access(node, at, Access::Write, 0) {
        cluster.drain();
        tries += 1;
        assert!(tries < 100, "page {at} never comes to node {node}");
    }
}

fn is_large(cluster: &Cluster) -> bool {
    cluster.nodes[0].0.large_pages().0 == 1
}

/// The other node takes some pages of the run; the first takes them back in
/// another order, so that each lies where another did.
fn scatter(cluster: &mut Cluster, pages: &[usize]) {
    pages.iter().for_each(|&at| write(cluster, 1, at));
    cluster.drain();
    pages.iter().rev().for_each(|&at| write(cluster, 0, at));
    cluster.drain();
    assert!(!is_large(cluster), "it came apart");
}

/// Moves the hand once round; what it came to, but for where nothing was to be done.
fn round(cluster: &mut Cluster) -> Vec<Visit> {
    let mut seen = Vec::new();
    for _ in 0..100 {
        match cluster.with(0, |c, env| c.visit_run(env)) {
            Visit::Passed => {}
            Visit::Round => return seen,
            visit => seen.push(visit),
        }
    }
    assert!(!cluster.nodes[0].0.is_quiet() && seen.is_empty(), "it waits for what is open");
    seen
}

fn holds(cluster: &Cluster, at: u64) -> PageState {
    let (c, memory) = &cluster.nodes[0];
    c.entry(memory, RUN.offset_by(at)).state
}

#[test]
fn a_run_that_was_scattered_is_large_again() {
    let mut cluster = large();
    scatter(&mut cluster, &[0, 3, 200, 510]);
    let (free, tables) = (cluster.nodes[0].0.free_frames(), cluster.nodes[0].0.table_frames().0);
    assert!(cluster.with(0, |c, env| c.merge(env, RUN.offset_by(7))));
    assert!(is_large(&cluster) && cluster.flushed, "pages have moved");
    let c = &cluster.nodes[0].0;
    assert_eq!((c.free_frames(), c.table_frames().0), (free + 1, tables - 1));
    assert_eq!((c.counters().merged, c.counters().merged_in_place), (1, 0));
    cluster.check();
    cluster.account();
    // Every page is where the leaf says, with what it held.
    (0..RUN_PAGES as usize).for_each(|at| assert!(cluster.access(0, at, Access::Read, 0)));
    assert!(is_large(&cluster) && !cluster.with(0, |c, env| c.merge(env, RUN)), "it is already");
    // And comes apart when another node wants one.
    write(&mut cluster, 1, 200);
    assert_eq!((is_large(&cluster), cluster.nodes[0].0.large_pages().1), (false, 2));
    assert_eq!(
        (holds(&cluster, 200), holds(&cluster, 201)),
        (PageState::Invalid, PageState::Exclusive)
    );
    cluster.finish();
}

#[test]
fn pages_that_lie_in_a_run_are_not_copied() {
    let mut cluster = large();
    // It comes apart, and no page goes.
    assert!(cluster.with(0, |c, env| c.protect(env, RUN)));
    assert!(!is_large(&cluster));
    let frame = |cluster: &Cluster, at| {
        let (c, memory) = &cluster.nodes[0];
        c.entry(memory, RUN.offset_by(at)).frame
    };
    assert_eq!(cluster.nodes[0].0.may_merge(&cluster.nodes[0].1, RUN), None, "one is read-only");
    write(&mut cluster, 0, 0);
    let before = frame(&cluster, 5);
    assert_eq!(cluster.nodes[0].0.may_merge(&cluster.nodes[0].1, RUN), Some(false));
    assert!(cluster.with(0, |c, env| c.merge(env, RUN)) && cluster.flushed);
    assert_eq!((is_large(&cluster), frame(&cluster, 5)), (true, before));
    assert_eq!(cluster.nodes[0].0.counters().merged_in_place, 1);
    cluster.check();
    cluster.account();
}

#[test]
fn the_hand_merges_what_was_whole_when_it_came_by_last() {
    let mut cluster = large();
    assert_eq!(round(&mut cluster), [], "it is large");
    scatter(&mut cluster, &[3, 4]);
    assert_eq!(round(&mut cluster), [Visit::Marked]);
    // Meanwhile it was away and came back, or was lent to a reader.
    scatter(&mut cluster, &[100, 101]);
    assert_eq!(round(&mut cluster), [Visit::Marked]);
    while !cluster.access(1, 5, Access::Read, 0) {
        cluster.drain();
    }
    assert_eq!(round(&mut cluster), [], "not its alone");
    write(&mut cluster, 0, 5);
    cluster.drain();
    assert_eq!(round(&mut cluster), [Visit::Marked]);
    assert_eq!((round(&mut cluster), is_large(&cluster)), (vec![Visit::Merged], true));
    assert_eq!(round(&mut cluster), []);
    cluster.finish();
}

#[test]
fn a_run_in_use_stays_as_it_is() {
    let mut cluster = large();
    scatter(&mut cluster, &[3, 4]);
    let may = |cluster: &Cluster| cluster.nodes[0].0.may_merge(&cluster.nodes[0].1, RUN);
    assert_eq!(may(&cluster), Some(true));
    // The other node has a replica of a page; the vCPU needs the page when it
    // may be written again, until it has got on.
    let at = RUN.offset_by(9);
    while !cluster.access(1, 9, Access::Read, 0) {
        cluster.drain();
    }
    cluster.drain();
    assert_eq!((holds(&cluster, 9), may(&cluster)), (PageState::Owned, None));
    let ask = |cluster: &mut Cluster| cluster.with(0, |c, env| c.access(env, at, Access::Write, 0));
    assert_eq!(ask(&mut cluster), Ok(Progress::Pending));
    assert_eq!(round(&mut cluster), [], "a fetch is open");
    while !cluster.flying.is_empty() {
        cluster.deliver(0);
    }
    assert_eq!(ask(&mut cluster), Ok(Progress::Ready));
    assert_eq!((holds(&cluster, 9), may(&cluster)), (PageState::Exclusive, None), "it is kept");
    cluster.with(0, |c, env| c.release_held(env)).unwrap();
    assert_eq!(may(&cluster), Some(true));
    // A page is asked to leave.
    assert_eq!(cluster.with(0, |c, env| c.evict(env, at, true)), Ok(true));
    assert_eq!(may(&cluster), None);
    assert!(!cluster.with(0, |c, env| c.merge(env, RUN)));
    cluster.finish();
}

#[test]
fn nothing_is_copied_where_frames_are_short() {
    let mut cluster = large();
    scatter(&mut cluster, &[3, 4]);
    let may = |cluster: &Cluster| cluster.nodes[0].0.may_merge(&cluster.nodes[0].1, RUN);
    let mut taken = Vec::new();
    while may(&cluster) == Some(true) {
        taken.push(cluster.nodes[0].0.pool_mut().allocate().expect("frames are plenty"));
    }
    let free = cluster.nodes[0].0.free_frames();
    assert!(free > RUN_PAGES, "{free} are left");
    assert_eq!((may(&cluster), round(&mut cluster)), (None, vec![]));
    for frame in taken {
        cluster.nodes[0].0.pool_mut().release(frame);
    }
    assert_eq!(
        (round(&mut cluster), round(&mut cluster)),
        (vec![Visit::Marked], vec![Visit::Merged])
    );
    cluster.finish();
}

/// A frame that the fabric may still read is not used again.
#[test]
fn a_frame_on_its_way_comes_free_when_it_has_arrived() {
    let mut cluster = large();
    scatter(&mut cluster, &[3, 4]);
    while !cluster.access(1, 9, Access::Read, 0) {
        (0..cluster.flying.len()).rev().for_each(|at| cluster.deliver(at));
    }
    while !cluster.access(0, 9, Access::Write, 0) {
        (0..cluster.flying.len()).rev().for_each(|at| cluster.deliver(at));
    }
    while !cluster.flying.is_empty() {
        cluster.deliver(0);
    }
    let (node, frame) = cluster.releases.pop().expect("the page that was sent");
    assert!(node == 0 && cluster.releases.is_empty());
    let free = cluster.nodes[0].0.free_frames();
    assert!(cluster.with(0, |c, env| c.merge(env, RUN)));
    assert_eq!(
        (cluster.nodes[0].0.free_frames(), cluster.nodes[0].0.frames_in_transactions()),
        (free, 1)
    );
    cluster.account();
    cluster.nodes[0].0.released(frame);
    assert_eq!(cluster.nodes[0].0.free_frames(), free + 1);
    cluster.finish();
}

/// Ranks are counted page by page, whatever is large.
#[test]
fn a_merged_run_is_kept() {
    let mut cluster = large();
    let kept = |cluster: &Cluster| cluster.nodes[0].0.ranks().0;
    assert_eq!(kept(&cluster), RUN_PAGES);
    scatter(&mut cluster, &[3, 4]);
    assert_eq!(kept(&cluster), RUN_PAGES - 2, "two are new");
    assert!(cluster.with(0, |c, env| c.merge(env, RUN)));
    assert_eq!(kept(&cluster), RUN_PAGES);
    // The new ones that still wait in the queue are no longer new.
    for at in [7, 8, 9] {
        write(&mut cluster, 1, at);
    }
    assert_eq!(kept(&cluster), RUN_PAGES - 3);
    cluster.finish();
}

/// Merges at any time among loads, stores, evictions and messages in any order.
#[test]
fn random_accesses_find_what_was_written() {
    let seeds = if cfg!(miri) { 1 } else { 6 };
    for seed in 1..=seeds {
        let mut cluster = large();
        let mut rng = Rng(seed);
        let mut merged = 0;
        for i in 0..if cfg!(miri) { 50 } else { 4000 } {
            cluster.step(&mut rng);
            match rng.below(8) {
                0 => merged += u64::from(cluster.with(0, |c, env| c.merge(env, RUN))),
                1 => {
                    let gfn = RUN.offset_by(rng.below(RUN_PAGES));
                    cluster.with(rng.below(2) as usize, |c, env| c.evict(env, gfn, true)).unwrap();
                }
                _ => {}
            }
            if i % 500 == 0 {
                // The first node has it all.
                cluster.drain();
                (0..RUN_PAGES as usize).for_each(|at| write(&mut cluster, 0, at));
                cluster.drain();
                merged += u64::from(cluster.with(0, |c, env| c.merge(env, RUN)));
                cluster.check();
                cluster.account();
            }
        }
        assert!(merged > 3 || cfg!(miri), "{merged}");
        cluster.finish();
    }
}
