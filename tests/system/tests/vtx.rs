//! Intel's VT-x, which Bochs emulates: what a node says of a processor that
//! lacks something.

use runner::session::status;
use system::{Nodes, guests, serial};

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
