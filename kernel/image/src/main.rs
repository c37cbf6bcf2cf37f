//! The hypervisor image: entry, wiring, panic. Nothing else.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[macro_use]
extern crate alloc;

#[cfg(target_os = "none")]
mod node;
#[cfg(target_os = "none")]
mod selftest;

/// On the host there is nothing to run; the image is built for the target
/// `x86_64-unknown-none`.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("the hypervisor image is built for x86_64-unknown-none: cargo pangaea build");
}
