//! `cargo pangaea top`: what it shows of a cluster that runs.

use nix::sys::signal::Signal;
use serde_json::Value;
use system::{Door, serial};

/// Reads more memory than a node has, over and over. What cannot be kept is
/// not the point, so a full file system is no failure.
const BUSY: &str = "cat /bin/* /lib/*/* > /tmp/fill 2>/dev/null; echo ready
    while :; do cat /tmp/fill > /dev/null; done";

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[test]
fn a_busy_cluster_is_seen_from_outside() {
    let _turn = serial("2 x 128M top");
    // A host with more to do than these nodes is no loss of one.
    let run = Door::run("--nodes 2 --memory 128M --node-append dead_ms=20000")
        .shell(BUSY)
        .within(400)
        .start();
    assert!(run.wait_for_output("ready"), "the guest does not get ready");
    let process = run.process().to_string();
    let view = run.top();
    println!("{view:#}");
    assert_eq!(view["process"].to_string(), process);
    let nodes = view["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.iter().map(|n| n["node"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1)]);
    for node in nodes {
        let at = |name| number(node, name);
        assert!(at("used") > 0.0 && at("used") <= at("frames"), "{node}");
        assert!(at("owned") > 1000.0, "{node}");
        assert!(at("owned") + at("replicas") < 2.0 * 131_072.0, "{node}");
        assert!(at("in_bytes_s") > 0.0 && at("out_bytes_s") > 0.0, "{node}");
    }
    let leader = &nodes[0];
    assert!(number(leader, "faults") > 1000.0 && number(leader, "faults_s") > 0.0, "{leader}");
    assert!(number(leader, "evictions") > 100.0, "{leader}");
    let (p50, p99) = (number(leader, "fault_p50_us"), number(leader, "fault_p99_us"));
    assert!(p50 > 0.0 && p50 <= p99, "{leader}");
    let hot = view["hot"].as_array().expect("hot pages");
    assert!(!hot.is_empty());
    for page in hot {
        let rip = page["rip"].as_str().and_then(|rip| u64::from_str_radix(rip, 16).ok());
        assert!(rip.is_some_and(|rip| rip > 0), "{page}");
        assert!(number(page, "gfn") * 4096.0 < (1u64 << 33) as f64, "{page}");
    }
    // The samples go on, and with them what they count.
    let later = run.top_after(number(leader, "uptime_s"));
    let exits = |leader: &Value| number(&leader["exits"], "page fault");
    assert!(exits(&later["nodes"][0]) > exits(leader), "{later}");
    assert!(number(leader, "exits_s") > 0.0, "{leader}");
    assert!(nodes[1]["exits"].as_object().is_some_and(|exits| exits.is_empty()), "{view}");
    run.signal(Signal::SIGINT);
    let ended = run.finish();
    assert_eq!(ended.status, Some(130));
    Door::new("top")
        .options("--json --wait 0 --process")
        .word(&process)
        .finish()
        .refused(1, &["runs no cluster"]);
}
