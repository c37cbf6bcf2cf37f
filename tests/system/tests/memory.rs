//! One guest on the sum of the nodes' memory.

use system::{Door, Record, e820_usable, number, serial};

const GIB: u64 = 1 << 30;

/// Sums a number of each node's `up` event.
fn sum(record: &Record, field: &str) -> u64 {
    record.events("up").map(|up| up[field].as_u64().expect("a number")).sum()
}

/// Makes sure that the guest's memory lay on more than two nodes: pages went
/// out of the leader by eviction, and each node took some in.
fn spread_over_all(record: &Record, nodes: usize) {
    let numbers = |pointer| {
        let numbers = record.reported(pointer);
        println!("{pointer}: {numbers:?}");
        assert_eq!(numbers.len(), nodes, "every node reports");
        numbers
    };
    let adopted = numbers("/pages/adopted");
    assert!(numbers("/pages/evicted").iter().sum::<u64>() > 1000);
    assert!(numbers("/fabric/pages_out").iter().sum::<u64>() > 1000);
    assert!(numbers("/fabric/pages_in").iter().sum::<u64>() > 1000);
    assert!(adopted[1..].iter().all(|&pages| pages > 100), "every lender takes pages in");
    let masters = numbers("/masters");
    assert!(masters.iter().filter(|&&pages| pages > 100).count() > 2, "more than two nodes hold");
}

/// At least 97% of all memory, the hypervisor's fixed part aside, is the
/// guest's: by its memory map, and by what its kernel has left of that.
#[test]
fn two_nodes_of_1_gib_give_97_percent() {
    let _turn = serial("2 x 1G free");
    let show = "free -m; grep -E 'MemTotal|MemFree' /proc/meminfo; dmesg";
    let run = Door::run("--nodes 2 --memory 1G --json").shell(show).finish();
    let record = run.expect(0).record();
    let out = record.stdout();
    let usable = e820_usable(out);
    let total = number(out, "MemTotal:").expect("MemTotal") * 1024;
    let free = number(out, "Mem:").expect("free's total") << 20;
    // "Memory: 410364K/2059896K available (14343K kernel code, ...": the
    // second number is what the kernel manages before it reserves its own.
    let (_, line) = out.split_once("] Memory: ").expect("the kernel's sum");
    let managed = number(line, "/").expect("the kernel's sum") * 1024;
    // The leader's part holds the guest's image at first; it is given back.
    let fixed = record.events("up").map(|up| up["fixed_bytes"].as_u64().unwrap());
    let fixed = fixed.min().expect("a node") * 2;
    let lost = 2 * GIB - usable;
    println!("memory of the nodes        {:>12}", 2 * GIB);
    println!("found by the nodes         {:>12}", sum(&record, "memory_bytes"));
    println!("fixed part of two nodes    {fixed:>12}");
    println!("usable in the guest's map  {usable:>12}, lost {lost}");
    println!("managed by the kernel      {managed:>12}");
    println!("MemTotal                   {total:>12}, free -m {free}");
    let wanted = (2 * GIB - fixed) / 100 * 97;
    assert!(usable >= wanted, "{usable} usable, {wanted} wanted");
    assert!(managed >= wanted, "{managed} managed, {wanted} wanted");
    assert!(total.abs_diff(free) <= 1 << 20);
    // What Debian's kernel takes for its code and page structures.
    assert!(total <= usable && usable - total < usable / 10, "MemTotal {total} of {usable}");
}

/// Memtester's patterns on memory that lies on more than two nodes: the
/// guest's files alone fill the leader. The size is chosen for the time it
/// takes: memtester walks through all of its memory again and again, and
/// here each walk moves every page.
#[test]
fn memtester_passes_on_three_nodes() {
    let _turn = serial("3 x 128M memtester");
    let test = "cat /bin/* /lib/*/* > /tmp/fill; MEMTESTER_TEST_MASK=0x3 memtester 48M 1";
    let run = Door::run("--nodes 3 --memory 128M --json").shell(test).within(400).finish();
    let record = run.expect(0).record();
    println!("{:.1} s", record.seconds());
    assert!(record.stdout().contains("Stuck Address"), "{}", record.stdout());
    assert!(!record.stdout().contains("FAILURE"), "{}", record.stdout());
    assert!(record.stdout().trim_end().ends_with("Done."), "{}", record.stdout());
    spread_over_all(&record, 3);
}

/// The same at the size that a user would try; it takes many hours under
/// emulation.
#[test]
#[ignore = "takes many hours under emulation"]
fn memtester_passes_on_three_nodes_in_full() {
    let _turn = serial("3 x 512M memtester");
    let run = Door::run("--nodes 3 --memory 512M --json")
        .command(&["memtester", "1G", "1"])
        .within(7 * 86_400)
        .finish();
    let record = run.expect(0).record();
    assert!(!record.stdout().contains("FAILURE"), "{}", record.stdout());
    spread_over_all(&record, 3);
}

#[test]
fn stress_ng_verifies_on_four_nodes() {
    let _turn = serial("4 x 1G stress-ng");
    let words = "stress-ng --vm 1 --vm-bytes 3G --vm-method all --verify --timeout 60s";
    let run = Door::run("--nodes 4 --memory 1G --json")
        .command(&words.split(' ').collect::<Vec<_>>())
        .within(300)
        .finish();
    let record = run.expect(0).record();
    let text = record.0["stderr"].as_str().unwrap_or_default();
    assert!(text.contains("successful run completed"), "{text}");
    assert!(!text.contains("fail"), "{text}");
    spread_over_all(&record, 4);
}

/// More memory than the host has: what is not touched costs nothing.
#[test]
fn four_nodes_of_32_gib_boot() {
    let _turn = serial("4 x 32G free");
    let run = Door::run("--nodes 4 --memory 32G --json").command(&["free", "-g"]).finish();
    let record = run.expect(0).record();
    let total = number(record.stdout(), "Mem:").expect("free's total");
    println!("free -g: {total} GiB of 128, {:.1} s", record.seconds());
    assert!((125..=128).contains(&total), "{}", record.stdout());
    let masters: u64 = record.reported("/masters").iter().sum();
    println!("pages held at the end: {masters}");
    assert!(masters < 4 * GIB / 4096, "untouched memory must cost nothing");
    assert!(record.events("formed").all(|f| f["nodes"].as_u64() == Some(4)));
}
