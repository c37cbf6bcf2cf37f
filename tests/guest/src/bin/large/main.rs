//! Measures what loops over local memory cost where it is mapped large from the
//! start, and where it was taken apart and merged again.
//!
//! Two rows of [`RUNS`] runs of 2 MiB that this node is home to: the first is
//! written once and left alone, the second another node takes and this one takes
//! back, page by page in no order. Both are walked in turns, so that a busy host
//! slows both; of each loop the shortest time counts. For each state of the
//! second row one line `@bench {"name":"large","state":...}` is printed: TSC
//! ticks of a walk in order and of one at random over the first row and over the
//! second, and how many of the second row's runs are large. At last comes
//! `@bench {"name":"end"}`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod rows;

#[cfg(target_os = "none")]
guests::entry!(main);

#[cfg(target_os = "none")]
fn main(boot: &'static guests::boot::BootParams) -> ! {
    guests::entry::end(run(boot))
}

#[cfg(target_os = "none")]
fn run(boot: &guests::boot::BootParams) -> Result<(), &'static str> {
    let rows = rows::Rows::new(boot)?;
    rows.fill();
    rows.measure("untouched")?;
    rows.scatter()?;
    rows.measure("scattered")?;
    rows.await_merges()?;
    rows.measure("merged")
}

/// On the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this guest is built for x86_64-unknown-none: see tests/system/tests/large.rs");
}
