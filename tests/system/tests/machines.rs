//! The machines that no other test boots: shorter frames, another NIC.

use system::{Door, serial};

/// Fills more than the leading node holds, and compares it with what was
/// written: pages leave, come back, and are the same.
const MOVE: &str = "cat /lib/*/* > /tmp/fill; cat /lib/*/* | cmp - /tmp/fill && echo same";

/// Runs a guest on two such machines.
fn carries_a_guest(machine: &'static str, mtu: u64, nic: &str) {
    let _turn = serial(machine);
    let run = Door::run("--nodes 2 --memory 128M --json --machine")
        .word(machine)
        .shell(MOVE)
        .within(240)
        .finish();
    let record = run.expect(0).record();
    assert_eq!(record.stdout().trim_end(), "same");
    assert!(record.events("formed").all(|formed| formed["mtu"] == mtu), "payloads of {mtu}");
    for node in ["node-0-log.log", "node-1-log.log"] {
        assert!(run.logs.text(node).contains(&format!("NIC {nic} at")), "{node} has another NIC");
    }
    let pages = record.reported("/fabric/pages_in");
    println!("{machine}: {:.1} s, pages in {pages:?}", record.seconds());
    assert!(pages.iter().all(|&pages| pages > 100), "pages move both ways");
}

#[test]
fn frames_of_1500_bytes_carry_a_guest() {
    carries_a_guest("q35-1500-svm", 1500, "E1000");
}

#[test]
fn virtio_net_carries_a_guest() {
    carries_a_guest("q35-virtio-svm", 8160, "Virtio");
}
