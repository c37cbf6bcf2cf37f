//! Measures what it costs to touch a page that another node holds.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
guests::entry!(main);

#[cfg(target_os = "none")]
fn main(boot: &'static guests::boot::BootParams) -> ! {
    guests::println!("bench: {}", boot.command_line());
    for range in boot.e820() {
        guests::println!("{range:x?}");
    }
    guests::cpu::power_off()
}

/// On the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this guest is built for x86_64-unknown-none: cargo pangaea bench");
}
