//! Redis with a data set of twice a node's memory, checked key by key.

use system::{Door, serial};

/// Memory of a node.
const NODE_BYTES: usize = 128 << 20;
/// Bytes of a value, as the script makes them.
const VALUE_BYTES: usize = 4090;
/// Keys whose values take twice a node's memory.
const KEYS: usize = (2 * NODE_BYTES).div_ceil(VALUE_BYTES);

/// The number after `name:` in a text.
fn told(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    line.trim().parse().unwrap_or_else(|_| panic!("{name} is {line}"))
}

#[test]
fn redis_keeps_twice_a_nodes_memory() {
    let _turn = serial("4 x 128M redis");
    let script = include_str!("../scripts/redis.sh");
    // More nodes than most hosts of tests have processors, for minutes: one
    // that has to wait for its turn is not lost.
    let run = Door::run("--nodes 4 --memory 128M --json --node-append dead_ms=20000")
        .command(&["sh", "-c", script, "redis.sh", &KEYS.to_string()])
        .within(900)
        .finish();
    let record = run.expect(0).record();
    let text = record.stdout();
    println!("{text}{:.1} s", record.seconds());
    assert_eq!(record.0["stderr"], "", "nobody complains");
    let third = (KEYS - 1).div_ceil(3);
    for line in [
        &format!("fill: {KEYS}"),
        &format!("change: errors: 0, replies: {third}"),
        &format!("read: {KEYS} right, 0 wrong, 0 lost"),
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in:\n{text}");
    }
    assert_eq!(told(text, "keys"), KEYS as u64);
    assert!(told(text, "used_memory") >= 2 * NODE_BYTES as u64);
    for name in ["evicted_keys", "total_error_replies", "rejected_connections"] {
        assert_eq!(told(text, name), 0, "{name}");
    }
    // The data lay where the sum of memory is, and moved.
    assert!(record.reported("/pages/evicted").iter().sum::<u64>() > 10_000);
    assert!(record.reported("/pages/adopted")[1..].iter().all(|&pages| pages > 1000));
}
