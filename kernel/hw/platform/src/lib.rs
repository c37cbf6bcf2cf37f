//! CPU, memory, interrupts, clock, serial, ACPI and PCI of a node.
//!
//! `start` takes the machine over from the boot code in one go: own page
//! tables, descriptor tables, heap, clock, interrupt controllers, PCI. What
//! follows is used through free functions, because there is one of each in a
//! node: [`clock`], [`interrupts`], [`pci::devices`], [`power`]. RAM is
//! handed out by [`memory::BootMemory`] and accessed through
//! [`memory::PhysMemory`].
//!
//! The crate compiles on the host too, where its pure parts are tested; what
//! needs the bare machine is there for the target only.
#![no_std]
// What only `startup` and `exceptions` call is dead on the host.
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

extern crate alloc;

pub mod acpi;
pub mod address_space;
pub mod apic;
pub mod clock;
pub mod cpu;
pub mod descriptors;
#[cfg(target_os = "none")]
mod exceptions;
pub mod heap;
pub mod interrupts;
pub mod memory;
pub mod page_table;
pub mod pci;
mod pic;
pub mod power;
pub mod report;
pub mod rtc;
pub mod serial;
#[cfg(target_os = "none")]
mod startup;

pub use address_space::{map_device_memory, map_mmio};
#[cfg(target_os = "none")]
pub use startup::{Platform, StartError, start};
