//! A guest that does its worst: it gets its fault or dies with a report, and
//! no node panics. What each try does is in `tests/guest/src/bin/hostile`.

use runner::session::status;
use std::time::Duration;
use system::{Nodes, Outcome, guests, serial};

/// Boots the hostile guest on two nodes.
fn nodes(name: &str) -> Nodes {
    Nodes::new(2, "128M", &guests().join("hostile"), &format!("try={name}"))
}

/// Runs a try and makes sure that both nodes came through.
fn attempt(name: &str) -> Outcome {
    let outcome = nodes(name).run();
    assert_eq!(outcome.panics, [""; 0], "nodes must not panic");
    assert!(!outcome.console.contains("FAILED"), "the try {name} says so");
    let reports = outcome.events.iter().filter(|(_, e)| e["event"] == "report").count();
    assert_eq!(reports, 2, "each node ends with a report");
    println!("{name}: {:.1} s", outcome.took.as_secs_f64());
    outcome
}

/// A try that comes through: the guest says so and switches the machine off.
fn survives(name: &'static str) {
    let _turn = serial(name);
    let outcome = attempt(name);
    outcome.expect(status::OK, &[]);
    let verdict = format!("@hostile {name} ok: ");
    let line = outcome.console.lines().find(|l| l.contains(&verdict));
    println!("{}", line.unwrap_or_else(|| panic!("no verdict of {name}")).trim());
}

/// A try that kills the guest: the run says why.
fn dies(name: &'static str, why: &str) {
    let _turn = serial(name);
    let outcome = attempt(name);
    outcome.expect(status::GUEST_DIED, &["the guest died", why]);
    assert!(outcome.console.contains("@hostile about to "), "{}", outcome.console);
}

#[test]
fn every_port() {
    survives("ports");
}

#[test]
fn strings_to_bad_addresses() {
    survives("strings");
}

#[test]
fn every_msr() {
    survives("msrs");
}

#[test]
fn wild_device_memory() {
    survives("mmio");
}

#[test]
fn device_registers() {
    survives("registers");
}

#[test]
fn control_registers() {
    survives("control");
}

#[test]
fn xcr0() {
    survives("xcr0");
}

#[test]
fn cpuid_leaves() {
    survives("cpuid");
}

#[test]
fn hypercalls() {
    survives("vmmcall");
}

#[test]
fn undefined_instructions() {
    survives("undefined");
}

#[test]
fn apic_garbage() {
    survives("apic");
}

#[test]
fn interrupt_storm() {
    survives("storm");
}

#[test]
fn halt_with_interrupts_off() {
    dies("halt", "interrupts off");
}

#[test]
fn triple_fault() {
    dies("triple", "triple fault");
}

#[test]
fn page_table_root_out_of_memory() {
    dies("walk-root", "page table at 0xd0000000");
}

#[test]
fn page_table_out_of_memory() {
    dies("walk-table", "page table at 0xd0000000");
}

/// A try whose attempt may be refused with a fault or may kill the guest,
/// as emulators and processors differ there. Both are right.
fn ends(name: &'static str, why: &str) {
    let _turn = serial(name);
    let outcome = attempt(name);
    let ended = outcome.ended.as_ref().expect("it ends");
    println!("{name}: {ended:?}");
    if ended.status == status::OK {
        assert!(outcome.console.contains(&format!("@hostile {name} ok: ")));
    } else {
        outcome.expect(status::GUEST_DIED, &["the guest died", why]);
    }
}

/// An access that the machine does not emulate, over and over: each time it
/// is a fault, which the guest handles.
#[test]
fn stall() {
    survives("stall");
}

#[test]
fn long_mode_torn_down() {
    for name in ["unpaged", "unprotected", "without-pae", "reserved"] {
        ends(name, "");
    }
}

#[test]
fn init_to_itself() {
    let _turn = serial("init");
    // A PC's chipset takes it for a reset.
    attempt("init").expect(status::OK, &[]);
}

/// A guest that never exits, or does nothing but take interrupts, cannot keep
/// a lost node from being noticed.
fn loses_a_node(name: &'static str, before: &'static str) {
    let _turn = serial(name);
    let mut nodes = nodes(name);
    nodes.kill = Some((1, before));
    let outcome = nodes.run();
    outcome.expect(status::NODE_LOST, &["node 1 is lost in epoch", "pages"]);
    println!("{name}: over {:.1} s after the kill", outcome.lost_for.as_secs_f64());
    assert!(outcome.lost_for < Duration::from_secs(5), "{:?}", outcome.lost_for);
}

#[test]
fn a_node_is_lost_while_the_guest_spins() {
    loses_a_node("spin", "about to spin");
}

#[test]
fn a_node_is_lost_in_a_storm_of_interrupts() {
    loses_a_node("livelock", "about to livelock");
}
