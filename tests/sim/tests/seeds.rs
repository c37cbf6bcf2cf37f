//! A few hundred seeds in every run of the unit tests; `cargo pangaea test`
//! runs ten thousand more.

use sim::campaign;

#[test]
fn seeds_hold_and_reach_what_they_are_for() {
    let all = campaign::run(0..300, None, 2, 1, |_, _| {});
    if let Some((seed, report)) = all.failed.first() {
        panic!("seed {seed}: {report}");
    }
    println!("{}", all.line());
    let s = &all.summary;
    for (what, count) in [
        ("page was evicted", s.evicted),
        ("page became dormant", s.evicted_zero),
        ("master was promoted", s.promoted),
        ("table was taken out", s.tables_out),
        ("message was put off", s.deferred),
        ("page was fetched ahead", s.prefetches),
        ("instruction went on before its page's frame was taken", s.early),
        ("run was copied and merged", s.merged[0]),
        ("run was merged where it lay", s.merged[1]),
        ("large page came apart", s.split),
        ("history was checked", s.histories),
        ("litmus instance was judged", s.litmus),
        ("frame was lost", s.faults.lost),
        ("frame came twice", s.faults.doubled),
        ("frame was held up", s.faults.held_up),
        ("frame was cut off", s.faults.cut),
        ("frame overflowed a ring", s.faults.overflows),
        ("node stood still", s.faults.pauses),
        ("node was slow", s.faults.slow),
        ("partition was survived or ended a cluster", s.faults.partitions),
        ("node died", s.faults.deaths),
        ("node was restarted", s.faults.restarts),
        ("cluster ended", s.ended),
        ("restarted node was refused", s.refused),
    ] {
        assert!(count > 0, "no {what}");
    }
    for shape in sim::litmus::SHAPES {
        let seen = s.outcomes.iter().filter(|o| o.starts_with(shape.name)).count();
        assert!(seen > 1, "{} was no race: {seen} outcome", shape.name);
    }
}

#[test]
fn a_seed_decides_everything() {
    let run = |seed| sim::run(sim::Scenario::of(seed, None), false).expect("it holds");
    for seed in [3, 14, 15, 92] {
        assert_eq!(format!("{:?}", run(seed)), format!("{:?}", run(seed)));
    }
}
