//! I/O APIC: the 82093AA's programming model with the EOI register of version
//! 0x20 (Intel 82093AA datasheet, 3.0; ICH9 datasheet, 13.5).
//!
//! A pin's level means "asserted": the polarity bit of a redirection entry is
//! kept and not used, as there are no real wires to invert. Destination bits
//! 8 to 14 are in bits 49 to 55 of an entry ("extended destination id").

use crate::{Delivery, Destination, Message, map};

/// Number of pins.
pub const PINS: usize = 24;

const INDEX: u32 = 0x00;
const WINDOW: u32 = 0x10;
const EOI: u32 = 0x40;

const REGISTER_ID: u8 = 0;
const REGISTER_VERSION: u8 = 1;
const REGISTER_ARBITRATION: u8 = 2;
const REGISTER_ENTRIES: u8 = 0x10;

/// Version 0x20: has the EOI register.
const VERSION: u32 = 0x20 | (PINS as u32 - 1) << 16;

const ENTRY_LOGICAL: u32 = 1 << 11;
const ENTRY_REMOTE_IRR: u32 = 1 << 14;
const ENTRY_LEVEL: u32 = 1 << 15;
const ENTRY_MASKED: u32 = 1 << 16;
/// Bits a guest may write: vector, delivery, destination mode, polarity,
/// trigger, mask.
const ENTRY_WRITABLE: u32 = 0x1_AFFF;
/// Destination, with its extension.
const ENTRY_HIGH_WRITABLE: u32 = 0xFFFE_0000;

/// One redirection entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    low: u32,
    high: u32,
}

impl Entry {
    const fn masked(self) -> bool {
        self.low & ENTRY_MASKED != 0
    }

    const fn delivery(self) -> Option<Delivery> {
        Delivery::from_bits((self.low >> 8) as u8)
    }

    /// Only vectored interrupts wait for an EOI; the others act as edges.
    const fn level(self) -> bool {
        self.low & ENTRY_LEVEL != 0
            && matches!(self.delivery(), Some(Delivery::Fixed | Delivery::LowestPriority))
    }

    fn message(self) -> Option<Message> {
        let id = self.high >> 24 | ((self.high >> 17) & 0x7F) << 8;
        let destination = if self.low & ENTRY_LOGICAL == 0 {
            Destination::Physical { id, wide: false }
        } else {
            Destination::Logical { mda: id, wide: false }
        };
        let (vector, level) = (self.low as u8, self.level());
        self.delivery().map(|delivery| Message { destination, delivery, vector, level })
    }
}

/// The I/O APIC, page [`crate::map::IOAPIC_BASE`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoApic {
    index: u8,
    id: u32,
    entries: [Entry; PINS],
    /// Asserted pins, one bit each.
    lines: u32,
    /// Pins with an edge to send.
    edges: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        IoApic {
            index: 0,
            id: (map::IOAPIC_ID as u32) << 24,
            entries: [Entry { low: ENTRY_MASKED, high: 0 }; PINS],
            lines: 0,
            edges: 0,
        }
    }
}

/// The entry and half (true: high) that a register number names.
fn place(register: u8) -> Option<(usize, bool)> {
    let offset = register.checked_sub(REGISTER_ENTRIES)?;
    let pin = usize::from(offset / 2);
    (pin < PINS).then_some((pin, offset % 2 == 1))
}

impl IoApic {
    /// Reads 32 bits at an offset in the page.
    #[must_use]
    pub fn read(&self, offset: u32) -> u32 {
        match offset {
            INDEX => u32::from(self.index),
            WINDOW => match self.index {
                REGISTER_ID | REGISTER_ARBITRATION => self.id,
                REGISTER_VERSION => VERSION,
                register => match place(register) {
                    Some((pin, true)) => self.entries[pin].high,
                    Some((pin, false)) => self.entries[pin].low,
                    None => 0,
                },
            },
            _ => 0,
        }
    }

    /// Writes 32 bits at an offset in the page.
    pub fn write(&mut self, offset: u32, value: u32) {
        match offset {
            INDEX => self.index = value as u8,
            WINDOW if self.index == REGISTER_ID => self.id = value & 0x0F00_0000,
            WINDOW => match place(self.index) {
                Some((pin, true)) => self.entries[pin].high = value & ENTRY_HIGH_WRITABLE,
                Some((pin, false)) => self.write_low(pin, value),
                None => {}
            },
            EOI => self.end_of_interrupt(value as u8),
            _ => {}
        }
    }

    /// An entry that is or becomes edge-triggered has no remote IRR, and a
    /// masked or level-triggered one no edge to send.
    fn write_low(&mut self, pin: usize, value: u32) {
        let entry = &mut self.entries[pin];
        entry.low = (entry.low & ENTRY_REMOTE_IRR) | (value & ENTRY_WRITABLE);
        if !entry.level() {
            entry.low &= !ENTRY_REMOTE_IRR;
        }
        if entry.masked() || entry.level() {
            self.edges &= !(1 << pin);
        }
    }

    /// Asserts or releases a pin (0 to 23).
    ///
    /// # Panics
    /// If there is no such pin: the machine is wired wrongly.
    pub fn set_line(&mut self, pin: u8, high: bool) {
        let entry = self.entries[usize::from(pin)];
        let bit = 1 << pin;
        if high && self.lines & bit == 0 && !entry.masked() && !entry.level() {
            self.edges |= bit;
        }
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
    }

    /// A local APIC broadcast the end of level-triggered `vector`.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for entry in &mut self.entries {
            if entry.low as u8 == vector {
                entry.low &= !ENTRY_REMOTE_IRR;
            }
        }
    }

    /// Next message to deliver. Ask until `None` after every `write`,
    /// `set_line` and `end_of_interrupt`. At most [`PINS`] come at a time.
    pub fn take_message(&mut self) -> Option<Message> {
        // Mostly there is none.
        let mut asserted = self.lines | self.edges;
        while asserted != 0 {
            let (pin, bit) =
                (asserted.trailing_zeros() as usize, asserted & asserted.wrapping_neg());
            asserted &= !bit;
            let entry = &mut self.entries[pin];
            if entry.masked() {
                continue;
            }
            let due = if entry.level() {
                self.lines & bit != 0 && entry.low & ENTRY_REMOTE_IRR == 0
            } else {
                self.edges & bit != 0
            };
            if !due {
                continue;
            }
            self.edges &= !bit;
            if entry.level() {
                entry.low |= ENTRY_REMOTE_IRR;
            }
            if let Some(message) = entry.message() {
                return Some(message);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(io: &mut IoApic, pin: u8, low: u32, high: u32) {
        io.write(INDEX, u32::from(0x11 + pin * 2));
        io.write(WINDOW, high);
        io.write(INDEX, u32::from(0x10 + pin * 2));
        io.write(WINDOW, low);
    }

    #[test]
    fn identity() {
        let mut io = IoApic::default();
        io.write(INDEX, 1);
        assert_eq!(io.read(WINDOW), 0x0017_0020);
        io.write(INDEX, 0x10);
        assert_eq!(io.read(WINDOW), ENTRY_MASKED);
        io.write(INDEX, 0xFF);
        io.write(WINDOW, 7);
        assert_eq!(io.read(WINDOW), 0);
    }

    #[test]
    fn an_edge_sends_once() {
        let mut io = IoApic::default();
        set(&mut io, 4, 0x34, 3 << 24 | 1 << 17);
        io.set_line(4, true);
        let m = io.take_message().unwrap();
        assert_eq!(m.destination, Destination::Physical { id: 0x103, wide: false });
        assert_eq!((m.vector, m.level, m.delivery), (0x34, false, Delivery::Fixed));
        assert_eq!(io.take_message(), None);
        io.set_line(4, true);
        assert_eq!(io.take_message(), None);
        io.set_line(4, false);
        io.set_line(4, true);
        assert!(io.take_message().is_some());
    }

    #[test]
    fn a_masked_edge_is_lost_and_a_masked_level_waits() {
        let mut io = IoApic::default();
        io.set_line(4, true);
        set(&mut io, 4, 0x34, 0);
        assert_eq!(io.take_message(), None);
        io.set_line(9, true);
        set(&mut io, 9, 0x39 | ENTRY_LEVEL, 0);
        assert!(io.take_message().unwrap().level);
    }

    #[test]
    fn a_level_waits_for_its_end() {
        let mut io = IoApic::default();
        set(&mut io, 9, 0x39 | ENTRY_LEVEL | ENTRY_LOGICAL, 1 << 24);
        io.set_line(9, true);
        let m = io.take_message().unwrap();
        assert_eq!(m.destination, Destination::Logical { mda: 1, wide: false });
        assert_eq!(io.take_message(), None);
        assert_ne!(io.read(WINDOW) & ENTRY_REMOTE_IRR, 0);
        io.end_of_interrupt(0x38);
        assert_eq!(io.take_message(), None);
        io.end_of_interrupt(0x39);
        assert!(io.take_message().is_some(), "still asserted");
        io.set_line(9, false);
        io.write(EOI, 0x39);
        assert_eq!(io.take_message(), None);
        io.set_line(9, true);
        assert!(io.take_message().is_some());
        set(&mut io, 9, 0x39, 0);
        assert_eq!(io.read(WINDOW) & ENTRY_REMOTE_IRR, 0, "edge clears remote IRR");
    }

    #[test]
    fn level_nmi_does_not_repeat_and_reserved_modes_vanish() {
        let mut io = IoApic::default();
        set(&mut io, 3, ENTRY_LEVEL | 4 << 8, 0);
        set(&mut io, 5, 3 << 8 | 0x40, 0);
        io.set_line(3, true);
        io.set_line(5, true);
        assert_eq!(io.take_message().unwrap().delivery, Delivery::Nmi);
        assert_eq!(io.take_message(), None);
    }
}
