//! Measures what it costs to touch a page that another node holds.
//!
//! The guest touches pages and reads the TSC around each touch; hypercalls
//! (`node::bench`) put pages on the other node first. It prints one line
//! `@bench {json}` for each measure, times in TSC ticks, and at last
//! `@bench {"name":"end"}`; `cargo pangaea bench remote-fault` reads them.
//! Words of its command line: `faults=N`, how many samples each measure has,
//! and `short`, which leaves out what needs all of the memory.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod faults;
#[cfg(target_os = "none")]
mod link;
#[cfg(target_os = "none")]
mod plan;
#[cfg(target_os = "none")]
mod pressure;

#[cfg(target_os = "none")]
guests::entry!(main);

#[cfg(target_os = "none")]
fn main(boot: &'static guests::boot::BootParams) -> ! {
    guests::entry::end(run(boot))
}

/// Measures everything, in an order in which no measure disturbs a later one.
#[cfg(target_os = "none")]
fn run(boot: &guests::boot::BootParams) -> Result<(), &'static str> {
    guests::cpu::set_modes_of_an_os();
    let plan = plan::Plan::new(boot)?;
    link::measure(&plan)?;
    if !plan.short {
        faults::first_touch(&plan)?;
    }
    faults::measure(&plan)?;
    if !plan.short {
        pressure::measure(&plan)?;
    }
    Ok(())
}

/// On the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this guest is built for x86_64-unknown-none: cargo pangaea bench remote-fault");
}
