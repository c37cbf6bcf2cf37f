//! Intel's VT-x, which Bochs emulates: what a node says of a processor that
//! lacks something, and Debian on the memory of two nodes.

use runner::session::status;
use system::{Door, Nodes, e820_usable, guests, serial};

/// The machine with all of VT-x.
const MACHINE: &str = "bochs-vtx";
/// Debian's SeaBIOS (package `seabios`).
const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";

/// A node with a small guest.
fn node() -> Nodes {
    Nodes::on(MACHINE, 1, "128M", &guests().join("bench"), "")
}

/// Boots a node, which must refuse its processor in one sentence.
fn refuses(name: &'static str, nodes: Nodes, words: &[&str]) {
    let _turn = serial(name);
    let outcome = nodes.run();
    println!("{name}: {:?} after {:.1} s", outcome.ended, outcome.took.as_secs_f64());
    outcome.expect(status::NOT_FORMED, words);
    let fatals = outcome.fatals(0);
    assert!(matches!(fatals[..], [("cpu", _)]), "one sentence about the processor: {fatals:?}");
}

/// The same with another processor.
fn lacks(name: &'static str, cpu: &str, words: &[&str]) {
    let mut nodes = node();
    nodes.config.recipe.cpu = cpu.to_owned();
    refuses(name, nodes, words);
}

#[test]
fn a_processor_without_vt_x() {
    lacks("no VT-x", "p4_prescott_celeron_336", &["no VT-x (VMX)", "use one that"]);
}

/// AMD's, whose SVM this model does not have yet.
#[test]
fn a_processor_without_svm() {
    lacks("no SVM", "athlon64_venice", &["no SVM (AMD-V)", "use one that"]);
}

#[test]
fn vt_x_without_ept() {
    lacks("no EPT", "core2_penryn_t9600", &["no EPT", "Nehalem or later"]);
}

#[test]
fn vt_x_without_unrestricted_guest() {
    let words = ["no unrestricted guest", "Westmere or later"];
    lacks("no unrestricted guest", "corei5_lynnfield_750", &words);
}

/// Firmware that locks IA32_FEATURE_CONTROL (MSR 0x3A) with VT-x off. That of
/// Bochs has locked it with VT-x on before GRUB comes; SeaBIOS leaves it.
#[test]
fn vt_x_that_the_firmware_locked_off() {
    let mut nodes = node();
    nodes.config.recipe.args.push(format!("romimage: file={SEABIOS}"));
    nodes.config.overrides.entry(0).or_default().firmware = "wrmsr 0x3a 1".to_owned();
    refuses("VT-x locked off", nodes, &["turned off and locked", "firmware's setup"]);
}

/// Debian's kernel on two nodes: it sees the sum of their memory, and what is
/// written to more of it than one node has is there when it is read. The
/// emulated time, about five minutes, does not run ahead of the host's.
#[test]
fn debian_runs_on_two_nodes() {
    let _turn = serial("Debian with VT-x");
    let script = r#"dmesg; ls -d /sys/devices/system/node/node* | wc -l
        some() { cat /lib/*/* | head -c 12000000; }
        some > /tmp/fill; some | cmp - /tmp/fill && echo same
        MEMTESTER_TEST_MASK=0x1 memtester 4M 1; exit 5"#;
    let run = Door::run("--nodes 2 --memory 128M --json --machine")
        .word(MACHINE)
        .shell(script)
        .within(1500)
        .finish();
    let record = run.expect(5).record();
    let out = record.stdout();
    println!("{:.1} s", record.seconds());
    let sum = |field: &str| -> u64 {
        record.events("up").map(|up| up[field].as_u64().expect("a number")).sum()
    };
    let (found, fixed) = (sum("memory_bytes"), sum("fixed_bytes"));
    let usable = e820_usable(out);
    println!("{usable} usable of {found}, fixed {fixed}");
    // Below 1 GiB a node, the reserves weigh more than the 3% allowed there.
    assert!(usable > found / 10 * 9 && usable <= found - fixed, "{usable} of {found}");
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    assert!(lines.windows(2).any(|w| w == ["2", "same"]), "two NUMA nodes, same content: {out}");
    let complaints = ["bug:", "unstable", "call trace", "cut here"];
    let bad = lines.iter().find(|l| complaints.iter().any(|c| l.to_lowercase().contains(c)));
    assert_eq!(bad, None, "the kernel complains");
    assert!(lines.contains(&"Done.") && !out.contains("FAILURE"), "{out}");
    let evicted: u64 = record.reported("/pages/evicted").iter().sum();
    let pages = record.reported("/fabric/pages_in");
    println!("evicted {evicted}, pages in {pages:?}");
    assert!(evicted > 1000 && pages.iter().all(|&p| p > 1000), "pages move both ways");
}
