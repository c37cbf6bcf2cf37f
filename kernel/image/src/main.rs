//! The hypervisor image: entry, wiring, panic. Nothing else.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[macro_use]
extern crate alloc;

#[cfg(target_os = "none")]
mod backend;
#[cfg(target_os = "none")]
mod consoles;
#[cfg(target_os = "none")]
mod ending;
#[cfg(target_os = "none")]
mod identity;
#[cfg(target_os = "none")]
mod leader;
#[cfg(target_os = "none")]
mod life;
#[cfg(target_os = "none")]
mod link;
#[cfg(target_os = "none")]
mod selftest;
#[cfg(target_os = "none")]
mod start;

/// What identifies this image beside its version: a hash of its sources.
#[cfg(target_os = "none")]
const BUILD_ID: &str = env!("PANGAEA_BUILD_ID");
#[cfg(target_os = "none")]
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// On the host there is nothing to run; the image is built for the target
/// `x86_64-unknown-none`.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("the hypervisor image is built for x86_64-unknown-none: cargo pangaea build");
}
