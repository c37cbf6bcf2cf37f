//! The guest's devices as pure state machines.
//!
//! Every device here is logic only: no I/O, no clock of its own, no statics.
//! Time comes in as `now`, the guest's TSC in ticks, whose frequency is in
//! each device's configuration. A device that acts by itself tells when with
//! `deadline() -> Option<u64>` (a TSC value) and does it in `tick(now)`;
//! calling `tick` early or late is harmless. Interrupt outputs are levels that
//! the machine samples after each access (`line()`), except where a device
//! makes edges (`Pit::take_irq`). Nothing a guest writes can panic.
//!
//! Which port or address leads to which device is the business of `machine`;
//! the numbers that `machine` and the ACPI tables share are in [`map`].
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod hostile;
pub mod ioapic;
pub mod lapic;
pub mod map;
pub mod message;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod reset;
pub mod rtc;
pub mod time;
pub mod uart;

pub use message::{Delivery, Destination, Message};

/// The access raises #GP(0) in the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GeneralProtection;

/// What the guest asked of the machine's power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerRequest {
    /// Soft off (S5).
    Off,
    /// Reset of the whole machine.
    Reset,
}
