//! A few hundred seeds in every test run.

use sim::{Scenario, Summary};

/// Runs seeds and adds up what they reached.
fn seeds(range: std::ops::Range<u64>) -> Summary {
    let mut all = Summary::default();
    for seed in range {
        let s = match sim::run(Scenario::of(seed, None), false) {
            Ok(summary) => summary,
            Err(report) => panic!("seed {seed}: {report}"),
        };
        all.evicted += s.evicted;
        all.evicted_zero += s.evicted_zero;
        all.promoted += s.promoted;
        all.refused += s.refused;
        all.no_room += s.no_room;
        all.deferred += s.deferred;
        all.prefetches += s.prefetches;
        all.overflows += s.overflows;
        all.killed |= s.killed;
        all.slowest_ns = all.slowest_ns.max(s.slowest_ns);
    }
    all
}

#[test]
fn seeds_hold_and_reach_what_they_are_for() {
    let all = seeds(0..300);
    println!("{all:?}");
    for (what, count) in [
        ("was evicted", all.evicted),
        ("became dormant", all.evicted_zero),
        ("was promoted", all.promoted),
        ("was put off", all.deferred),
        ("was fetched ahead", all.prefetches),
        ("overflowed a ring", all.overflows),
    ] {
        assert!(count > 0, "nothing {what}");
    }
    assert!(all.killed, "no node died");
}
