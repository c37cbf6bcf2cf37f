//! The pair of 8259A interrupt controllers (Intel 8259A datasheet), with the
//! edge/level registers of the PIIX (ELCR).
//!
//! One difference from the chip: an edge stays requested when its line falls
//! before the acknowledge, so that short pulses do not become spurious
//! interrupts. The slave's output is wired to the master's input 2 as a
//! level.

#[cfg(test)]
mod tests;

use crate::map;

/// Input of the master that the slave drives.
const CASCADE: u8 = 2;

/// What the next write to the odd port is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Mask,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Chip {
    lines: u8,
    irr: u8,
    isr: u8,
    imr: u8,
    elcr: u8,
    /// Bits of `elcr` that can be set.
    elcr_writable: u8,
    base: u8,
    expect: Expect,
    single: bool,
    needs_icw4: bool,
    auto_eoi: bool,
    rotate_auto: bool,
    nested: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
    /// Input with the lowest priority.
    lowest: u8,
}

impl Chip {
    fn new(elcr_writable: u8) -> Chip {
        Chip {
            lines: 0,
            irr: 0,
            isr: 0,
            // Nothing may come through before the guest has set a base.
            imr: 0xFF,
            elcr: 0,
            elcr_writable,
            base: 0,
            expect: Expect::Mask,
            single: false,
            needs_icw4: false,
            auto_eoi: false,
            rotate_auto: false,
            nested: false,
            special_mask: false,
            read_isr: false,
            poll: false,
            lowest: 7,
        }
    }

    fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1 << input;
        if high {
            if self.elcr & bit != 0 || self.lines & bit == 0 {
                self.irr |= bit;
            }
            self.lines |= bit;
        } else {
            if self.elcr & bit != 0 {
                self.irr &= !bit;
            }
            self.lines &= !bit;
        }
    }

    /// The slave's output, always a level.
    fn set_cascade(&mut self, high: bool) {
        let bit = 1 << CASCADE;
        self.irr = if high { self.irr | bit } else { self.irr & !bit };
    }

    /// Rank of the best input in `set` (0 is best), and the input.
    fn best(&self, set: u8) -> Option<(u8, u8)> {
        (0..8).map(|rank| (rank, (self.lowest + 1 + rank) & 7)).find(|&(_, i)| set & 1 << i != 0)
    }

    /// The input to be served now, if any.
    fn pending(&self) -> Option<u8> {
        let requested = self.irr & !self.imr;
        // Mostly there is none.
        let (rank, input) = (requested != 0).then(|| self.best(requested))??;
        let mut blocking = self.isr;
        if self.special_mask {
            blocking &= !self.imr;
        }
        if self.nested {
            blocking &= !(1 << CASCADE);
        }
        match self.best(blocking) {
            Some((in_service, _)) if in_service <= rank => None,
            _ => Some(input),
        }
    }

    /// Takes the pending input into service; 7 without a trace if none.
    fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.pending() else { return 7 };
        let bit = 1 << input;
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_auto {
            self.lowest = input;
        }
        input
    }

    fn read_even(&mut self) -> u8 {
        if core::mem::take(&mut self.poll) {
            return self.pending().map_or(0, |_| 0x80 | self.acknowledge());
        }
        if self.read_isr { self.isr } else { self.irr }
    }

    fn write_even(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.initialise(value);
        } else if value & 0x08 != 0 {
            self.operation_3(value);
        } else {
            self.operation_2(value);
        }
    }

    /// ICW1: starts the initialisation sequence.
    fn initialise(&mut self, icw1: u8) {
        let fresh = Chip::new(self.elcr_writable);
        *self = Chip {
            lines: self.lines,
            elcr: self.elcr,
            base: self.base,
            irr: self.lines & self.elcr,
            imr: 0,
            expect: Expect::Icw2,
            single: icw1 & 2 != 0,
            needs_icw4: icw1 & 1 != 0,
            ..fresh
        };
    }

    /// OCW2: end of interrupt and rotation.
    fn operation_2(&mut self, value: u8) {
        let level = value & 7;
        let best = self.best(self.isr).map(|(_, input)| input);
        match value >> 5 {
            0 => self.rotate_auto = false,
            4 => self.rotate_auto = true,
            1 | 5 => {
                if let Some(input) = best {
                    self.isr &= !(1 << input);
                    if value >> 5 == 5 {
                        self.lowest = input;
                    }
                }
            }
            3 => self.isr &= !(1 << level),
            7 => {
                self.isr &= !(1 << level);
                self.lowest = level;
            }
            6 => self.lowest = level,
            _ => {}
        }
    }

    /// OCW3: register to read, poll, special mask.
    fn operation_3(&mut self, value: u8) {
        self.poll = value & 4 != 0;
        if value & 2 != 0 {
            self.read_isr = value & 1 != 0;
        }
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
    }

    fn write_odd(&mut self, value: u8) {
        let after_3 = if self.needs_icw4 { Expect::Icw4 } else { Expect::Mask };
        match self.expect {
            Expect::Mask => self.imr = value,
            Expect::Icw2 => {
                self.base = value & 0xF8;
                self.expect = if self.single { after_3 } else { Expect::Icw3 };
            }
            // The wiring is fixed.
            Expect::Icw3 => self.expect = after_3,
            Expect::Icw4 => {
                self.auto_eoi = value & 2 != 0;
                self.nested = value & 0x10 != 0;
                self.expect = Expect::Mask;
            }
        }
    }
}

/// Both controllers, ports `PIC_MASTER`, `PIC_SLAVE`, `PIC_ELCR` of
/// [`crate::map`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pic {
    master: Chip,
    slave: Chip,
}

impl Default for Pic {
    fn default() -> Self {
        // Timer, keyboard, cascade, RTC and FPU are always edges (PIIX, ELCR).
        Pic { master: Chip::new(0xF8), slave: Chip::new(0xDE) }
    }
}

impl Pic {
    /// Reads a byte at one of the six ports.
    pub fn read(&mut self, port: u16) -> u8 {
        let slave = map::PIC_SLAVE.contains(&port) || port == *map::PIC_ELCR.end();
        let chip = if slave { &mut self.slave } else { &mut self.master };
        let value = if map::PIC_ELCR.contains(&port) {
            chip.elcr
        } else if port & 1 == 0 {
            chip.read_even()
        } else {
            chip.imr
        };
        self.cascade();
        value
    }

    /// Writes a byte at one of the six ports.
    pub fn write(&mut self, port: u16, value: u8) {
        let slave = map::PIC_SLAVE.contains(&port) || port == *map::PIC_ELCR.end();
        let chip = if slave { &mut self.slave } else { &mut self.master };
        if map::PIC_ELCR.contains(&port) {
            chip.elcr = value & chip.elcr_writable;
            chip.irr |= chip.lines & chip.elcr;
        } else if port & 1 == 0 {
            chip.write_even(value);
        } else {
            chip.write_odd(value);
        }
        self.cascade();
    }

    fn cascade(&mut self) {
        self.master.set_cascade(self.slave.pending().is_some());
    }

    /// Sets the level of ISA interrupt `irq` (0 to 15; 2 is the cascade and
    /// has no line).
    pub fn set_line(&mut self, irq: u8, high: bool) {
        match irq {
            CASCADE => {}
            0..=7 => self.master.set_line(irq, high),
            _ => {
                self.slave.set_line(irq & 7, high);
                self.cascade();
            }
        }
    }

    /// The INTR output (to LINT0 of the bootstrap processor as ExtINT).
    #[must_use]
    pub fn output(&self) -> bool {
        self.master.pending().is_some()
    }

    /// Interrupt acknowledge: the vector (a spurious one if nothing waits).
    pub fn acknowledge(&mut self) -> u8 {
        let input = self.master.acknowledge();
        if input != CASCADE {
            return self.master.base | input;
        }
        let input = self.slave.acknowledge();
        self.cascade();
        self.slave.base | input
    }
}
