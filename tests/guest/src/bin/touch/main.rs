//! Touches memory that lies on another machine (`guests::workloads`), on
//! Pangaea or on a pager in user space (`tests/peers`).
//!
//! Words of its command line: `touches=N`; and on a pager `pager`, which
//! answers [`PAGER`]'s port in place of hypercalls, `hz=N`, the TSC's
//! frequency, and `local=N`, the pages that fit.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod ground;

#[cfg(target_os = "none")]
guests::entry!(main);

#[cfg(target_os = "none")]
static SAMPLES: spin::Mutex<guests::samples::Samples> =
    spin::Mutex::new(guests::samples::Samples::new());

#[cfg(target_os = "none")]
fn main(boot: &'static guests::boot::BootParams) -> ! {
    guests::entry::end(run(boot))
}

#[cfg(target_os = "none")]
fn run(boot: &guests::boot::BootParams) -> Result<(), &'static str> {
    guests::cpu::set_modes_of_an_os();
    let (mut ground, plan) = ground::Machine::new(boot)?;
    guests::workloads::run(&mut ground, plan, &mut SAMPLES.lock())
}

/// On the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this guest is built for x86_64-unknown-none: cargo pangaea bench peers");
}
