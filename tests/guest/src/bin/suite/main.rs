//! Asserts the architecture: what every x86_64 processor does, whoever made
//! it, has to come out of the guest's machine as well.
//!
//! Each test prints one line `@suite NAME ok: ...` with the values it has
//! seen, as far as the architecture decides them: the transcript is the same
//! on every processor. At last comes `@suite end N passed, M skipped, K
//! FAILED`, and the machine is switched off.
//!
//! The suite boots without Pangaea too (`bare.s`; `cargo pangaea run
//! --machine bare --kernel ...`): a test that fails there is wrong itself, or
//! the emulator is. Known faults of emulators are beside the test that meets
//! them ([`report::Report::except`]) and count only if the command line says
//! `emulator=tcg` or `emulator=bochs`. The word `only=PREFIX,...` picks tests,
//! and `rounds=N` says how often `interrupt.once` arms the timer.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod apic;
#[cfg(target_os = "none")]
mod code;
#[cfg(target_os = "none")]
mod cpuid;
#[cfg(target_os = "none")]
mod debug;
#[cfg(target_os = "none")]
mod faults;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod leave;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod mmio;
#[cfg(target_os = "none")]
mod modes;
#[cfg(target_os = "none")]
mod msrs;
#[cfg(target_os = "none")]
mod once;
#[cfg(target_os = "none")]
mod paging;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
mod registers;
#[cfg(target_os = "none")]
mod remote;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod rings;
#[cfg(target_os = "none")]
mod state;
#[cfg(target_os = "none")]
mod tables;
#[cfg(target_os = "none")]
mod timer;
#[cfg(target_os = "none")]
mod trap;

#[cfg(target_os = "none")]
guests::entry!(main);
#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("bare.s"), include_str!("modes.s"));

/// A test: a name and what it does.
#[cfg(target_os = "none")]
type Test = (&'static str, fn(&mut report::Report));

/// All tests, by subject.
#[cfg(target_os = "none")]
const SUBJECTS: &[&[Test]] = &[
    cpuid::TESTS,
    registers::TESTS,
    ports::TESTS,
    faults::TESTS,
    interrupts::TESTS,
    timer::TESTS,
    once::TESTS,
    mmio::TESTS,
    debug::TESTS,
    state::TESTS,
    memory::TESTS,
    code::TESTS,
    rings::TESTS,
    modes::TESTS,
];

/// The name of the test with a number.
#[cfg(target_os = "none")]
fn test_name(number: usize) -> &'static str {
    SUBJECTS.iter().copied().flatten().nth(number).map_or("?", |(name, _)| name)
}

#[cfg(target_os = "none")]
fn main(boot: &'static guests::boot::BootParams) -> ! {
    use report::{Emulator, Report, Verdict};
    let word = |key: &str| {
        let words = boot.command_line().split_ascii_whitespace();
        words.filter_map(|w| w.strip_prefix(key)).next_back().unwrap_or("")
    };
    // It maps memory in the loader's tables, to look at it.
    remote::install(boot);
    tables::install();
    trap::install();
    paging::install();
    apic::install();
    let emulator = Emulator::named(word("emulator="));
    if let Ok(rounds) = word("rounds=").parse() {
        once::ROUNDS.store(rounds, core::sync::atomic::Ordering::Relaxed);
    }
    let [mut passed, mut skipped, mut failed] = [0; 3];
    for (number, (name, test)) in SUBJECTS.iter().copied().flatten().enumerate() {
        if !word("only=").split(',').any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        trap::begin(number);
        let mut report = Report::new(emulator);
        test(&mut report);
        match report.print(name) {
            Verdict::Passed => passed += 1,
            Verdict::Skipped => skipped += 1,
            Verdict::Failed => failed += 1,
        }
    }
    guests::println!("@suite end {passed} passed, {skipped} skipped, {failed} FAILED");
    guests::cpu::power_off()
}

/// On the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this guest is built for x86_64-unknown-none and run by the system tests");
}
