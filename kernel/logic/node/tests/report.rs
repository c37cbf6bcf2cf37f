//! The lines for the host tool: well-formed, and each number under its name.
#![cfg(not(miri))] // Whole nodes over virtual time: too long for an interpreter.

mod common;
use addr::{Access, Gfn};
use common::{FAR, HZ, World};
use node::histogram::Recent;
use node::report::{self, Traffic};
use node::stages::{FaultKind, Stages, Stamps};
use node::{Clock, Guest};

/// Brackets match and commas stand between values, nowhere else.
fn is_json(fields: &str) -> bool {
    let bad = ["{,", "[,", ",,", ",}", ",]", "}{", "}\"", "\"\"", ":,", ":}"];
    let depth = |open, close| fields.matches(open).count() == fields.matches(close).count();
    depth('{', '}') && depth('[', ']') && !bad.iter().any(|b| fields.contains(b))
}

fn stages() -> Stages {
    let mut stages = Stages::default();
    let at = Stamps { exit: 100, queued: 101, sent: 103, received: 107, mapped: 115 };
    stages.fault(FaultKind::Read, &at, 131);
    stages.fault(FaultKind::Local, &at, 110);
    stages
}

#[test]
fn stages_are_told_by_name() {
    let mut line = String::new();
    report::stages(&mut line, &stages(), &Clock::new(HZ)).unwrap();
    assert!(is_json(&line), "{line}");
    let one = |name, ns| {
        format!(r#""{name}":{{"count":1,"min_ns":{ns},"p50_ns":{ns},"p90_ns":{ns},"p99_ns":{ns}}}"#)
    };
    for (name, ns) in [("read_fault", 31), ("local_fault", 10), ("send", 2), ("resume", 16)] {
        assert!(line.contains(&one(name, ns)), "{name} in {line}");
    }
    let none = r#"{"count":0,"min_ns":0,"p50_ns":0,"p90_ns":0,"p99_ns":0}"#;
    for name in ["upgrade", "first_touch", "serve", "evict"] {
        assert!(line.contains(&format!(r#""{name}":{none}"#)), "{name} in {line}");
    }
    assert!(line.starts_with(r#""faults":{"local_fault""#), "{line}");
    assert!(line.contains(r#"},"stages":{"lookup""#), "{line}");
}

#[test]
fn counters_are_told_by_name() {
    let mut world = World::new(2);
    world.touch(1, FAR, Access::Write);
    world.touch(0, FAR, Access::Read);
    let node = &world.hosts[0].node;
    let cluster = node.cluster.as_ref().unwrap();
    let mut line = String::new();
    report::counters(&mut line, cluster, node.fabric()).unwrap();
    assert!(is_json(&line), "{line}");
    let (free, c) = (cluster.coherence().free_frames(), node.fabric().counters());
    let out: u64 = c.frames_out.iter().sum();
    for field in [
        format!(r#""node":0,"free_frames":{free},"masters":0,"large_pages":0,"nested_tables":"#),
        r#""pages":{"read_fetches":1,"write_fetches":0,"#.to_owned(),
        r#""pages_in":1,"#.to_owned(),
        format!(
            r#""fabric":{{"frames_in":{},"frames_out":{out},"#,
            c.frames_in.iter().sum::<u64>()
        ),
        r#""drops":{"foreign":0,"#.to_owned(),
        r#","stopped":0}"#.to_owned(),
    ] {
        assert!(line.contains(&field), "{field} in {line}");
    }
}

#[test]
fn a_sample_tells_what_is_hot() {
    let world = World::with_guest(2);
    let (mut stages, mut recent) = (stages(), Recent::default());
    let mut sample = |stages: &mut Stages, guest: Option<&Guest>| {
        let cluster = world.hosts[1].node.cluster.as_ref().unwrap();
        let traffic = Traffic { received: 12, sent: 34 };
        let mut line = String::new();
        let (measured, clock) = ((stages, &mut recent), Clock::new(HZ));
        let counters = guest.map(|guest| guest.machine.counters());
        report::sample(&mut line, cluster, measured, &clock, traffic, counters).unwrap();
        assert!(is_json(&line), "{line}");
        line
    };
    let line = sample(&mut stages, None);
    assert!(line.starts_with(r#""node":1,"frames":"#), "{line}");
    for field in [
        r#""bytes_in":12,"bytes_out":34,"faults":{"local_fault":1,"read_fault":1,"write_fault":0,"#,
        r#""exits":{},"recent":{"count":1,"min_ns":31,"#,
        r#""hot":[]"#,
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    (0..100).for_each(|i| stages.hot.fault(Gfn(5 + i % 2), 0xabc));
    let line = sample(&mut stages, world.guest.as_ref());
    assert!(line.contains(r#""exits":{"device memory":0,"cpuid":0,"#), "{line}");
    assert!(line.contains(r#","host interrupt":1,"#), "{line}");
    assert_eq!(line.matches("\"gfn\"").count(), 2, "{line}");
    assert!(line.contains(r#""rip":"abc""#) && line.contains(r#""recent":{"count":0"#), "{line}");
}
