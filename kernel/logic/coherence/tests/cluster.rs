//! Whole clusters of the production crate in one process: random accesses,
//! every message delayed and reordered at random, frames scarce. After every
//! step each readable copy must equal the last write.

mod common;
use common::{Cluster, Rng};

fn run(seed: u64, nodes: usize, frames: u64, pages: &[u64], steps: usize) -> Cluster {
    drive(seed, Cluster::new(nodes, frames, pages), steps)
}

fn drive(seed: u64, mut cluster: Cluster, steps: usize) -> Cluster {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for step in 0..steps {
        cluster.step(&mut rng);
        if step % 4 == 0 {
            cluster.check();
        }
        if step % 1000 == 999 {
            cluster.account();
        }
    }
    cluster.finish();
    cluster
}

/// A few pages, some neighbours, homes spread over the nodes.
fn spread(nodes: usize, each: u64) -> Vec<u64> {
    (0..nodes as u64).flat_map(|n| (0..each).map(move |i| n * 1024 + 100 + i)).collect()
}

#[test]
fn hot_pages_stay_coherent_under_any_order() {
    // An interpreter gets one seed of two nodes.
    let (seeds, steps) = if cfg!(miri) { (1..2, 60) } else { (0..60, 3000) };
    for seed in seeds {
        let nodes = 1 + (seed % 4) as usize;
        println!("seed {seed}");
        run(seed, nodes, 116, &spread(nodes, 2), steps);
    }
}

#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn scarce_frames_evict_and_lose_nothing() {
    let mut total = coherence::Counters::default();
    for seed in 0..40 {
        let nodes = 2 + (seed % 3) as usize;
        println!("seed {seed}");
        // More pages than one node holds, fewer than all do.
        let pages = spread(nodes, 90 / nodes as u64 * 2);
        let cluster = run(seed, nodes, 124, &pages, 4000);
        for (c, _) in &cluster.nodes {
            total.evicted += c.counters().evicted;
            total.evicted_zero += c.counters().evicted_zero;
            total.promoted += c.counters().promoted;
            total.dropped += c.counters().dropped;
            total.deferred += c.counters().deferred;
            total.prefetches += c.counters().prefetches;
        }
    }
    println!("{total:?}");
    for (what, count) in [
        ("evicted", total.evicted),
        ("promoted", total.promoted),
        ("dropped", total.dropped),
        ("prefetched", total.prefetches),
    ] {
        assert!(count > 0, "no page was {what}");
    }
}

/// Orders that only a lossy link makes: an eviction's request or answer comes
/// after the page has been granted, taken, moved back or kept.
#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn late_messages_break_nothing() {
    let mut total = coherence::Counters::default();
    for seed in 0..60 {
        let nodes = 2 + (seed % 3) as usize;
        println!("seed {seed}");
        let frames = 60;
        let pages = spread(nodes, frames);
        let mut cluster = Cluster::new(nodes, frames, &pages);
        cluster.newest_first = true;
        cluster.writes = [3, 30, 60][seed as usize / 2 % 3];
        let cluster = drive(seed, cluster, 3000);
        for (c, _) in &cluster.nodes {
            total.evicted_zero += c.counters().evicted_zero;
            total.refused += c.counters().refused;
            total.no_room += c.counters().no_room;
        }
    }
    println!("{total:?}");
    assert!(total.evicted_zero > 0, "no zero page was evicted");
    assert!(total.refused > 0, "no move was refused");
}
