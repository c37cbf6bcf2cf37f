//! Debian's kernel on a cluster, as its user sees it.

use runner::session::status;
use system::{Door, Finished, serial};

/// What the issue calls a complaint of the kernel.
const COMPLAINTS: &str = r#"dmesg | grep -iE "warn|bug:|unstable|call trace|cut here""#;

/// Words of the kernel's notes on the processor's vulnerabilities
/// (arch/x86/kernel/cpu/bugs.c).
const NOTES: [&str; 7] =
    ["Spectre", "Speculative", "RETBleed", "MDS", "TAA", "MMIO Stale Data", "Inception"];

/// Boots two nodes and lets the kernel complain.
fn complaints(options: &str) {
    let list = "ls -d /sys/devices/system/node/node*; uname -r";
    let run = Door::run("--nodes 2 --memory 512M")
        .options(options)
        .shell(&format!("{COMPLAINTS} >&2; {list}; cat /sys/devices/system/clocksource/*/current*"))
        .within(180)
        .finish();
    run.expect(0);
    let text = run.text();
    let nodes = text.lines().filter(|l| l.starts_with("/sys/devices/system/node/node")).count();
    assert_eq!(nodes, 2, "one NUMA node a machine: {text}");
    assert!(text.trim_end().ends_with("tsc"), "the clock is the TSC: {text}");
    let own = |line: &&str| !line.starts_with("pangaea: ") && !line.trim().is_empty();
    let bad: Vec<_> = run
        .stderr
        .lines()
        .filter(own)
        .filter(|line| !NOTES.iter().any(|note| line.contains(note)))
        .collect();
    assert!(bad.is_empty(), "the kernel complains: {bad:#?}");
}

#[test]
fn debians_kernel_has_nothing_to_complain_about() {
    let _turn = serial("dmesg of 6.1");
    complaints("");
}

#[test]
fn debians_newer_kernel_has_nothing_to_complain_about() {
    let _turn = serial("dmesg of 6.12");
    complaints("--kernel 6.12");
}

fn small() -> Door {
    Door::run("--nodes 2 --memory 256M")
}

#[test]
fn status_and_both_outputs_pass_through() {
    let _turn = serial("status and output");
    let run = small().shell(r#"printf "a\0b\377\n\036c"; printf "x\r\ny" >&2; exit 37"#).finish();
    run.expect(37);
    assert_eq!(run.stdout, b"a\0b\xff\n\x1ec");
    assert!(run.stderr.contains("x\r\ny"), "{:?}", run.stderr);
}

/// Every byte value, 256 KiB of them.
#[test]
fn output_of_every_byte_value_is_intact() {
    let _turn = serial("256 KiB of output");
    // 1024 times the 256 byte values, by doubling; no pattern of the line
    // discipline's or of the end record's is left out.
    let script = r#"cd /tmp
        i=0; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i+1)); done > b
        n=0; while [ $n -lt 10 ]; do cat b b > c; mv c b; n=$((n+1)); done
        cat b; sha256sum < b >&2"#;
    let run = small().shell(script).within(300).finish();
    run.expect(0);
    let wanted: Vec<u8> = (0..1024).flat_map(|_| 0..=255u8).collect();
    assert_eq!(run.stdout.len(), wanted.len(), "bytes of output");
    assert!(run.stdout == wanted, "the first difference is at {:?}", difference(&run, &wanted));
}

fn difference(run: &Finished, wanted: &[u8]) -> Option<usize> {
    run.stdout.iter().zip(wanted).position(|(a, b)| a != b)
}

#[test]
fn a_command_that_does_not_exist_is_127() {
    let _turn = serial("no such command");
    small().command(&["no-such-command"]).finish().expect(127);
}

#[test]
fn power_off_and_reboot_are_good_ends() {
    let _turn = serial("power-off and reboot");
    for command in [&["poweroff", "-f"][..], &["reboot", "-f"]] {
        let run = small().command(command).finish();
        run.expect(i32::from(status::OK));
    }
}

/// What Ctrl-C at the terminal does.
#[test]
fn an_interrupt_ends_every_emulator() {
    let _turn = serial("interrupt");
    let run = small().shell("echo ready; sleep 600").start();
    assert!(run.wait_for_output("ready"), "the guest runs");
    assert_eq!(run.mark.processes().iter().filter(|(_, l)| l.contains("mac=")).count(), 2);
    run.signal(nix::sys::signal::Signal::SIGINT);
    run.finish().expect(130);
}
