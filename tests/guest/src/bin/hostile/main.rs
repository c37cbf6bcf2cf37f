//! A guest that does its worst.
//!
//! The word `try=NAME` of its command line picks what: one of [`TRIES`]. Each
//! attempt may fault; the handlers of [`trap`] take note and go on behind it.
//! A try that comes through prints `@hostile NAME ok: ...` and switches the
//! machine off. Some tries are meant to kill the guest: those print what they
//! are about to do and never come back. What counts is the other side: no
//! node may panic, and the guest gets the fault that the manuals say, or dies
//! with a report.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod apic;
#[cfg(target_os = "none")]
mod control;
#[cfg(target_os = "none")]
mod ends;
#[cfg(target_os = "none")]
mod instructions;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod msrs;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
mod random;
#[cfg(target_os = "none")]
mod strings;
#[cfg(target_os = "none")]
mod trap;

#[cfg(target_os = "none")]
guests::entry!(main);

/// What came of a try: attempts made, and what they have shown.
#[cfg(target_os = "none")]
type Verdict = Result<(), &'static str>;

/// A try.
#[cfg(target_os = "none")]
type Try = fn() -> Verdict;

/// Every try and its name.
#[cfg(target_os = "none")]
const TRIES: [(&str, Try); 24] = [
    ("ports", ports::scan),
    ("strings", strings::string_io),
    ("msrs", msrs::scan),
    ("mmio", memory::device_memory),
    ("registers", memory::device_registers),
    ("control", control::registers),
    ("unpaged", control::unpaged),
    ("unprotected", control::unprotected),
    ("without-pae", control::without_pae),
    ("reserved", control::reserved),
    ("xcr0", control::extended),
    ("cpuid", instructions::cpuid),
    ("vmmcall", instructions::hypercalls),
    ("undefined", instructions::undefined),
    ("apic", apic::garbage),
    ("storm", apic::storm),
    ("livelock", apic::livelock),
    ("halt", ends::halt),
    ("triple", ends::triple_fault),
    ("walk-root", ends::walk_root),
    ("walk-table", ends::walk_table),
    ("stall", ends::stall),
    ("init", ends::init),
    ("spin", ends::spin),
];

#[cfg(target_os = "none")]
fn main(boot: &'static guests::boot::BootParams) -> ! {
    trap::install();
    let words = boot.command_line().split_ascii_whitespace();
    let name = words.filter_map(|w| w.strip_prefix("try=")).next_back().unwrap_or("");
    let verdict = match TRIES.iter().find(|(known, _)| *known == name) {
        Some((_, run)) => run(),
        None => Err("there is no such try"),
    };
    let (attempts, faults) = trap::counts();
    match verdict {
        Ok(()) => guests::println!("@hostile {name} ok: {attempts} attempts, {faults} faults"),
        Err(why) => guests::println!("@hostile {name} FAILED: {why}"),
    }
    guests::cpu::power_off()
}

/// On the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this guest is built for x86_64-unknown-none and run by the system tests");
}
