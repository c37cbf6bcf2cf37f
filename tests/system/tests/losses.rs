//! Lost nodes and bad links.

use runner::session::status;
use std::time::{Duration, Instant};
use system::{Door, Started, serial};

/// How soon every survivor must have stopped and reported once a node is lost.
const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// How soon nothing must run any more.
const END_LIMIT: Duration = Duration::from_secs(8);
/// More than the leader can hold: other nodes get some.
const FILL: &str = "cat /bin/* /lib/*/* > /tmp/fill";

/// Waits until a log that is being written holds a text; `false` if it does
/// not in time. The file has no event to wait for.
fn wait_for(run: &Started, log: &str, text: &str, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while !run.logs.text(log).contains(text) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Kills a node's emulator while the guest runs, and looks at what is said.
fn lose(nodes: u32, node: u8) {
    let work = format!("{FILL}; memtester 16M 100 >/dev/null & echo running; wait");
    let run = Door::run(&format!("--nodes {nodes} --memory 128M --json")).shell(&work);
    let run = run.within(180).start();
    let soon = Duration::from_secs(120);
    // With --json the output comes at the end; the log of the port is live.
    assert!(wait_for(&run, "node-0-output.log", "running", soon), "the guest runs");
    let killed = Instant::now();
    run.kill_node(node);
    for survivor in (0..nodes).filter(|&n| n != u32::from(node)) {
        let log = format!("node-{survivor}-log.log");
        let reported = wait_for(&run, &log, r#""event":"fatal""#, REPORT_LIMIT * 3);
        let took = killed.elapsed();
        println!("node {survivor} reports after {:.1} s", took.as_secs_f64());
        assert!(reported && took < REPORT_LIMIT, "node {survivor} is late");
    }
    let finished = run.finish();
    let took = killed.elapsed();
    println!("node {node} of {nodes} lost: over after {:.1} s", took.as_secs_f64());
    assert!(took < END_LIMIT, "it took {:.1} s", took.as_secs_f64());
    finished.expect(i32::from(status::NODE_LOST));
    let record = finished.record();
    let said = record.failure();
    assert!(said.contains(&format!("node {node} is lost in epoch")), "{said}");
    assert!(said.contains("pages"), "{said}");
    // Every survivor reports on its own console.
    let reports = record.events("fatal").filter(|f| f["class"] == "node-lost").count();
    let peers = record.events("fatal").filter(|f| f["class"] == "peer").count();
    assert_eq!(reports + peers, nodes as usize - 1, "every survivor reports");
    let fatal = record.events("fatal").find(|f| f["class"] == "node-lost").expect("a report");
    let epoch = record.events("formed").next().expect("formed")["epoch"].clone();
    assert_eq!(fatal["epoch"], epoch);
    assert!(fatal["pages"].as_u64() > Some(0), "it held some: {fatal}");
    assert!(record.events("guest-end").next().is_none(), "the guest must not end well");
}

#[test]
fn a_lost_lender_of_two_is_reported() {
    let _turn = serial("kill node 1 of 2");
    lose(2, 1);
}

#[test]
fn a_lost_leader_is_reported() {
    let _turn = serial("kill node 0 of 2");
    lose(2, 0);
}

#[test]
fn a_lost_lender_of_three_is_reported_by_both_others() {
    let _turn = serial("kill node 2 of 3");
    lose(3, 2);
}

/// 5% loss, with frames doubled and overtaken: the guest is right, only slow.
fn lossy(nodes: u32, seed: u64) {
    let link = format!("--loss 5 --duplicate 2 --reorder 5 --seed {seed}");
    let test = "MEMTESTER_TEST_MASK=0x1 memtester 16M 1";
    let run = Door::run(&format!("--nodes {nodes} --memory 128M --json"))
        .options(&link)
        .shell(&format!("{FILL}; {test}"))
        .within(400)
        .finish();
    let record = run.expect(0).record();
    let out = record.stdout();
    assert!(out.trim_end().ends_with("Done.") && !out.contains("FAILURE"), "{out}");
    let sum = |pointer| record.reported(pointer).iter().sum::<u64>();
    let again = sum("/fabric/retransmits_timeout") + sum("/fabric/retransmits_fast");
    let (twice, pages) = (sum("/fabric/duplicates"), sum("/fabric/pages_in"));
    println!("{nodes} nodes, seed {seed}: {pages} pages, {again} retransmits, {twice} duplicates");
    assert!(again > 0 && twice > 0 && pages > 1000);
}

#[test]
fn two_nodes_run_over_a_lossy_link() {
    let _turn = serial("lossy link of 2");
    lossy(2, 1);
}

#[test]
fn three_nodes_run_over_a_lossy_link() {
    let _turn = serial("lossy link of 3");
    lossy(3, 2);
}
