//! CPU, memory, interrupts, clock, serial, ACPI and PCI of a node.
#![no_std]

pub mod clock;
pub mod serial;
