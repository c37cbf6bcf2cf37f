//! Nodes that are linked by shared memory instead of Ethernet.

use runner::session::status;
use system::{Door, serial};

/// More than the leader can hold, so that pages move both ways; every one of
/// them lands in the frame where it stays.
#[test]
fn a_guest_runs_on_nodes_linked_by_shared_memory() {
    let _turn = serial("shared memory");
    let test = "cat /bin/* /lib/*/* > /tmp/fill; before=$(sha256sum < /tmp/fill); \
                MEMTESTER_TEST_MASK=0x1 memtester 16M 1; after=$(sha256sum < /tmp/fill); \
                [ \"$before\" = \"$after\" ] && echo intact";
    let run = Door::run("--machine q35-shm-svm --nodes 2 --memory 128M --json")
        .shell(test)
        .within(300)
        .finish();
    let record = run.expect(0).record();
    let out = record.stdout();
    assert!(!out.contains("FAILURE") && out.trim_end().ends_with("intact"), "{out}");
    let sum = |pointer| record.reported(pointer).iter().sum::<u64>();
    let (pages, landed) = (sum("/fabric/pages_in"), sum("/pages/pages_landed"));
    let unfolded = sum("/pages_unfolded");
    println!("{pages} pages, {landed} landed, {unfolded} copied once more");
    assert!(pages > 1000 && unfolded == 0, "{pages} pages, {unfolded} copied");
    assert!(landed > 1000 && sum("/pages/pages_copied") == 0, "each stays where it landed");
}

/// Nothing can come between such nodes, and it says so.
#[test]
fn faults_and_captures_of_shared_memory_are_refused() {
    let _turn = serial("faults of shared memory");
    for options in ["--loss 5", "--pcap /tmp/no-such-folder/x.pcap"] {
        let run = Door::run("--machine q35-shm-svm --nodes 2 --memory 256M");
        run.options(options)
            .finish()
            .refused(i32::from(status::NOT_FORMED), &["shared memory", "another --machine"]);
    }
}
