//! What is local costs what it costs on one node with large pages everywhere:
//! also after other nodes have had it.
//!
//! That it is mapped large is what the node says of each run. The times show that
//! it is no slower; an emulator, which keeps translations by 4 KiB whatever the
//! tables say, would show less than a processor of what small pages cost.

use serde_json::Value;
use system::{Nodes, guests, serial};

/// The least that memory which was merged may do, of what memory does that was
/// large all along.
const LEAST: f64 = 0.95;
/// Runs of the guest at most: in each the shortest of many walks counts, so
/// that only a host that was busy all along makes another one due.
const TRIES: u32 = 3;

/// The guest's lines by the state that they tell of.
fn lines(console: &str) -> Vec<Value> {
    let lines = console.lines().filter_map(|line| line.trim().strip_prefix("@bench "));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// How much the second row does of what the first does, in order and at random.
fn ratios(line: &Value) -> [f64; 2] {
    ["in_order", "at_random"].map(|walk| {
        let ticks = |at: usize| line[walk][at].as_f64().filter(|&t| t > 0.0).expect("ticks");
        ticks(0) / ticks(1)
    })
}

#[test]
fn merged_memory_is_as_fast_as_memory_that_was_never_taken_apart() {
    let _turn = serial("large pages");
    let mut worst = 0.0;
    for _ in 0..TRIES {
        let run = Nodes::new(2, "256M", &guests().join("large"), "").within(240).run();
        run.expect(0, &[]);
        let lines = lines(&run.console);
        assert_eq!(lines.last().expect("lines")["name"], "end", "{lines:?}");
        let of = |state: &str| {
            let line = lines.iter().find(|line| line["state"] == state);
            line.unwrap_or_else(|| panic!("no {state} in {lines:?}"))
        };
        for (state, large) in [("untouched", 8), ("merged", 8)] {
            assert_eq!(of(state)["large"], large, "{state}");
        }
        for state in ["untouched", "scattered", "merged"] {
            let [order, random] = ratios(of(state));
            let large = &of(state)["large"];
            println!("{state:<10} in order {order:.3}, at random {random:.3}, {large} runs large");
        }
        let report = run.events.iter().rfind(|(n, e)| *n == 0 && e["event"] == "report");
        let pages = &report.expect("the leader reports").1["pages"];
        let count = |name: &str| pages[name].as_u64().expect("a count");
        assert!(count("split") >= 8 && count("merged") >= 8, "{pages}");
        worst = ratios(of("merged")).into_iter().fold(f64::INFINITY, f64::min);
        if worst >= LEAST {
            return;
        }
    }
    panic!("merged memory does {worst:.3} of what it should");
}
