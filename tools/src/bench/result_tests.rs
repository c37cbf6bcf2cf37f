//! Tests of the result: shape of the JSON, table, refusals.

use super::*;
use crate::bench::measure::{Line, STEPS};
use serde_json::{Value, json};

/// Nanoseconds: one tick each.
const HZ: u64 = 1_000_000_000;

fn summary(count: u64, p50: u64) -> Value {
    json!({"count": count, "min_ns": p50 / 2, "p50_ns": p50, "p90_ns": p50 * 2, "p99_ns": p50 * 3})
}

/// A `stages` event of a node in which every histogram has `count` values.
fn event(node: u64, mark: u64, count: u64) -> Value {
    let kinds = ["local_fault", "read_fault", "write_fault", "upgrade", "first_touch"];
    let all = |names: &[&str], p50: u64| {
        let values = names.iter().map(|n| ((*n).to_owned(), summary(count, p50)));
        Value::Object(values.collect())
    };
    json!({
        "event": "stages", "node": node, "mark": mark,
        "faults": all(&kinds, 7000), "stages": all(&STAGES, 1000),
        "serve": summary(count, 4000), "evict": summary(count, 90_000),
    })
}

/// A run in which everything was measured; `count` values in the nodes.
fn measured(count: u64) -> Measured {
    let mut m = Measured::default();
    for (name, base) in [
        ("null_rtt", 50_000),
        ("page_rtt", 100_000),
        ("exit_floor", 10_000),
        ("read_fault", 120_000),
        ("lone_read_fault", 150_000),
        ("own_read_fault", 115_000),
        ("write_fault", 130_000),
        ("upgrade", 60_000),
        ("first_touch", 500_000),
        ("pressure_fault", 300_000),
    ] {
        let quantiles = (0..=STEPS as u64).map(|i| base - 200 + i).collect();
        let line = Line::Samples { name: name.into(), hz: HZ, count: 1000, quantiles };
        assert_eq!(m.take(line).unwrap(), None);
    }
    for name in [
        "first_touch_page",
        "sequential",
        "sequential_fetched",
        "remote_sequence",
        "random",
        "random_fetched",
        "link",
    ] {
        let line =
            Line::Total { name: name.into(), hz: HZ, pages: 2560, ticks: HZ / 4, faults: 640 };
        assert_eq!(m.take(line).unwrap(), None);
    }
    for (name, exits) in [("read_fault", 1010), ("lone_read_fault", 1250)] {
        m.take(Line::Exits { name: name.into(), faults: 1000, exits }).unwrap();
    }
    m.take(Line::End { name: "end".into() }).unwrap();
    let report = json!({
        "event": "report", "node": 0, "pages_unfolded": 5,
        "pages": {"pages_landed": 105, "pages_copied": 2},
    });
    m.take_events([&report]);
    let events: Vec<_> = (0..2)
        .flat_map(|node| [1, 2, 3, 4, 5, 6, 8].map(move |mark| event(node, mark, count)))
        .collect();
    m.take_events(&events);
    m
}

fn facts() -> ClusterFacts {
    ClusterFacts {
        nodes: 2,
        memory_bytes: 512 << 20,
        machine: "m".into(),
        link: "nic".into(),
        mtu: 9000,
    }
}

fn outcome() -> Outcome {
    let m = measured(1000);
    Outcome::new(&m, Instructions::new(&m, 1e9).unwrap(), facts()).unwrap()
}

#[test]
fn the_json_has_the_promised_shape() {
    let json = serde_json::to_value(outcome()).unwrap();
    for name in [
        "null_rtt",
        "page_rtt",
        "exit_floor",
        "read_fault",
        "lone_read_fault",
        "own_read_fault",
        "write_fault",
        "upgrade",
        "first_touch",
        "evict",
    ] {
        for field in ["count", "p50_ns", "p90_ns", "p99_ns", "min_ns"] {
            assert!(json[name][field].as_u64().unwrap() > 0, "{name}.{field}");
        }
    }
    assert_eq!(json["read_fault"]["p50_ns"], 120_000);
    assert_eq!(
        json["bandwidth"],
        json!({"sequential_mib_s": 40.0, "random_mib_s": 40.0, "sequential_fetched_mib_s": 40.0, "remote_sequential_mib_s": 40.0, "link_mib_s": 40.0})
    );
    assert_eq!(
        json["instructions"],
        json!({"requester": 4000, "owner": 4000, "requester_at_home": 4000})
    );
    assert_eq!(json["stages"][0], json!({"name": "exit", "p50_ns": 3000}));
    assert_eq!(json["stages"].as_array().unwrap().len(), 7);
    assert_eq!(
        json["cluster"],
        json!({"nodes": 2, "memory_bytes": 536_870_912, "machine": "m", "link": "nic", "mtu": 9000})
    );
    assert_eq!(json["received"], json!({"landed": 100, "copied": 7}));
    assert_eq!(json["exits"], json!({"read_fault": 1.01, "lone_read_fault": 1.25}));
    assert_eq!(json.as_object().unwrap().len(), 16, "nothing else");
}

#[test]
fn the_table_gives_ratios_to_both_round_trips() {
    let table = outcome().table();
    let row = table.lines().find(|l| l.starts_with("read fault ")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells[2..], ["1000", "119.8", "120.0", "120.2", "120.2", "2.40", "1.20"]);
    assert!(table.contains("read fault less exit floor: 1.10 x 4 KiB round trip, 2.20 x null"));
    assert!(table.contains("exits for a read fault: 1.01, 1.25 where it comes alone"), "{table}");
    assert!(table.contains("25 % of the touches fault"), "{table}");
}

#[test]
fn a_result_without_values_is_refused() {
    let (good, empty) = (measured(1000), measured(0));
    assert!(Instructions::new(&empty, 1e9).is_err());
    let counted = Instructions::new(&good, 1e9).unwrap();
    let error = Outcome::new(&empty, counted, facts()).unwrap_err().to_string();
    assert!(error.contains("has not measured"), "{error}");
    assert!(Outcome::new(&Measured::default(), counted, facts()).is_err());
}

#[test]
fn instructions_are_ticks_of_whatever_rate() {
    let m = measured(1000);
    let [a, b] = [1e9, 5e7].map(|rate| Instructions::new(&m, rate).unwrap());
    assert!(a.requester.abs_diff(20 * b.requester) <= 10 && a.owner.abs_diff(20 * b.owner) <= 10);
}
