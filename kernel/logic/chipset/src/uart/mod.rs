//! 16550A serial port (National PC16550D datasheet).
//!
//! The transmitter sends at once into a ring of [`OUTPUT_MAX`] bytes that the
//! host takes from. While the ring has no room for a whole transmit FIFO, the
//! transmitter shows as busy, so a guest that waits for it loses nothing. The
//! modem on the other side always has CTS, DSR and DCD up.

mod ring;
#[cfg(test)]
mod tests;

use ring::Ring;

/// Bytes that wait for the host at most.
pub const OUTPUT_MAX: usize = 4096;
/// Bytes in each FIFO.
pub const FIFO: usize = 16;
/// Bit rate of divisor 1.
const BITS_HZ: u64 = 115_200;
/// Bit times in four characters of 10 bits: the receiver's timeout.
const TIMEOUT_BITS: u64 = 40;

const IER_RECEIVED: u8 = 1 << 0;
const IER_TRANSMITTER: u8 = 1 << 1;
const IER_LINE: u8 = 1 << 2;
const IER_MODEM: u8 = 1 << 3;

const IIR_NONE: u8 = 1;
const IIR_MODEM: u8 = 0;
const IIR_TRANSMITTER: u8 = 2;
const IIR_RECEIVED: u8 = 4;
const IIR_LINE: u8 = 6;
const IIR_TIMEOUT: u8 = 0xC;
const IIR_FIFO: u8 = 0xC0;

const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
const FCR_TRIGGER: u8 = 0xC0;

const LCR_DLAB: u8 = 1 << 7;

const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;
const MCR_BITS: u8 = 0x1F;

const LSR_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_BREAK: u8 = 1 << 4;
const LSR_ERRORS: u8 = 0x1E;
const LSR_THR_EMPTY: u8 = 1 << 5;
const LSR_IDLE: u8 = 1 << 6;

const MSR_RING_ENDED: u8 = 1 << 2;
const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RING: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;

/// Static configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// TSC ticks a second.
    pub tsc_hz: u64,
}

/// A serial port with 8 registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uart {
    config: Config,
    output: Ring<OUTPUT_MAX>,
    received: Ring<FIFO>,
    divisor: u16,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// Error bits of LSR that wait to be read.
    errors: u8,
    /// Modem lines as last shown, to find changes, and the changes.
    modem: u8,
    modem_changes: u8,
    scratch: u8,
    /// The transmitter became empty and nobody has been told.
    transmitter_told: bool,
    /// When the receiver's timeout comes; and whether it came.
    timeout_at: Option<u64>,
    timed_out: bool,
}

impl Uart {
    /// A port after reset.
    #[must_use]
    pub fn new(config: Config) -> Uart {
        Uart {
            config,
            output: Ring::new(),
            received: Ring::new(),
            divisor: 12,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            errors: 0,
            modem: MSR_CTS | MSR_DSR | MSR_DCD,
            modem_changes: 0,
            scratch: 0,
            transmitter_told: false,
            timeout_at: None,
            timed_out: false,
        }
    }

    const fn fifo(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    const fn looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    const fn divisor_latch(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    /// Bytes that the receiver can hold.
    const fn depth(&self) -> usize {
        if self.fifo() { FIFO } else { 1 }
    }

    /// Bytes that raise the receiver's interrupt.
    const fn trigger(&self) -> usize {
        match (self.fifo(), self.fcr >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    /// Room for a whole transmit FIFO: a guest fills it without asking again.
    fn transmitter_empty(&self) -> bool {
        OUTPUT_MAX - self.output.len() >= FIFO
    }

    /// Reads register `offset` (0 to 7).
    pub fn read(&mut self, offset: u16, now: u64) -> u8 {
        self.tick(now);
        match offset {
            0 if self.divisor_latch() => self.divisor as u8,
            0 => self.read_received(now),
            1 if self.divisor_latch() => (self.divisor >> 8) as u8,
            1 => self.ier,
            2 => self.read_iir(),
            3 => self.lcr,
            4 => self.mcr,
            5 => self.read_lsr(),
            6 => self.modem | core::mem::take(&mut self.modem_changes),
            7 => self.scratch,
            _ => 0xFF,
        }
    }

    /// Writes register `offset` (0 to 7).
    pub fn write(&mut self, offset: u16, value: u8, now: u64) {
        self.tick(now);
        match offset {
            0 if self.divisor_latch() => self.divisor = (self.divisor & 0xFF00) | u16::from(value),
            0 => self.transmit(value, now),
            1 if self.divisor_latch() => {
                self.divisor = (self.divisor & 0xFF) | u16::from(value) << 8;
            }
            1 => self.write_ier(value),
            2 => self.write_fcr(value),
            3 => self.lcr = value,
            4 => {
                self.mcr = value & MCR_BITS;
                self.update_modem();
            }
            7 => self.scratch = value,
            // LSR and MSR are for reading.
            _ => {}
        }
    }

    fn read_received(&mut self, now: u64) -> u8 {
        let byte = self.received.pop().unwrap_or(0);
        self.timed_out = false;
        self.restart_timeout(now);
        byte
    }

    /// The receiver's timeout starts anew with each byte in or out.
    fn restart_timeout(&mut self, now: u64) {
        self.timeout_at = (self.fifo() && self.received.len() != 0).then(|| {
            let bits = u128::from(TIMEOUT_BITS) * u128::from(self.divisor.max(1));
            let ticks = bits * u128::from(self.config.tsc_hz) / u128::from(BITS_HZ);
            // A divisor of 50 baud and less must not make a console feel dead.
            let most = self.config.tsc_hz / 50;
            now.saturating_add((ticks as u64).min(most))
        });
    }

    fn transmit(&mut self, byte: u8, now: u64) {
        self.transmitter_told = true;
        if self.looped() {
            self.receive(byte, now);
        } else {
            // A guest that sends into a busy transmitter loses the byte, as
            // on the chip.
            self.output.push(byte);
        }
        if self.transmitter_empty() {
            self.transmitter_told = false;
        }
    }

    fn receive(&mut self, byte: u8, now: u64) {
        if self.received.len() >= self.depth() || !self.received.push(byte) {
            self.errors |= LSR_OVERRUN;
        }
        self.restart_timeout(now);
    }

    /// Enabling the transmitter's interrupt while it is empty raises it.
    fn write_ier(&mut self, value: u8) {
        if value & !self.ier & IER_TRANSMITTER != 0 && self.transmitter_empty() {
            self.transmitter_told = false;
        }
        self.ier = value & (IER_RECEIVED | IER_TRANSMITTER | IER_LINE | IER_MODEM);
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (value ^ self.fcr) & FCR_ENABLE != 0;
        if toggled || value & FCR_CLEAR_RECEIVER != 0 {
            self.received = Ring::new();
            self.timeout_at = None;
            self.timed_out = false;
        }
        let kept = FCR_ENABLE | FCR_TRIGGER;
        self.fcr = if value & FCR_ENABLE != 0 { value & kept } else { 0 };
    }

    /// The interrupt that IIR shows, without its FIFO bits.
    fn cause(&self) -> u8 {
        let enabled = |bit| self.ier & bit != 0;
        if enabled(IER_LINE) && self.errors & LSR_ERRORS != 0 {
            IIR_LINE
        } else if enabled(IER_RECEIVED) && self.received.len() >= self.trigger() {
            IIR_RECEIVED
        } else if enabled(IER_RECEIVED) && self.timed_out {
            IIR_TIMEOUT
        } else if enabled(IER_TRANSMITTER) && !self.transmitter_told && self.transmitter_empty() {
            IIR_TRANSMITTER
        } else if enabled(IER_MODEM) && self.modem_changes != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    fn read_iir(&mut self) -> u8 {
        let cause = self.cause();
        if cause == IIR_TRANSMITTER {
            self.transmitter_told = true;
        }
        cause | if self.fifo() { IIR_FIFO } else { 0 }
    }

    fn read_lsr(&mut self) -> u8 {
        let ready = if self.received.len() != 0 { LSR_READY } else { 0 };
        let empty = if self.transmitter_empty() { LSR_THR_EMPTY | LSR_IDLE } else { 0 };
        ready | empty | core::mem::take(&mut self.errors)
    }

    /// Modem lines: from the modem, or in loopback from MCR.
    fn update_modem(&mut self) {
        let line = |from: u8, to: u8| if self.mcr & from != 0 { to } else { 0 };
        let modem = if self.looped() {
            line(MCR_DTR, MSR_DSR)
                | line(MCR_RTS, MSR_CTS)
                | line(MCR_OUT1, MSR_RING)
                | line(MCR_OUT2, MSR_DCD)
        } else {
            MSR_CTS | MSR_DSR | MSR_DCD
        };
        let changed = (modem ^ self.modem) & (MSR_CTS | MSR_DSR | MSR_DCD);
        self.modem_changes |= changed >> 4;
        if self.modem & !modem & MSR_RING != 0 {
            self.modem_changes |= MSR_RING_ENDED;
        }
        self.modem = modem;
    }

    /// Level of the interrupt line. OUT2 gates it on a PC; loopback takes
    /// OUT2 off the pin.
    #[must_use]
    pub fn line(&self) -> bool {
        self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 && self.cause() != IIR_NONE
    }

    /// Next byte that the guest sent. The line may rise by this.
    pub fn take_output(&mut self) -> Option<u8> {
        let was_empty = self.transmitter_empty();
        let byte = self.output.pop();
        if !was_empty && self.transmitter_empty() {
            self.transmitter_told = false;
        }
        byte
    }

    /// The byte that [`Uart::take_output`] would give.
    #[must_use]
    pub fn peek_output(&self) -> Option<u8> {
        self.output.first()
    }

    /// Bytes waiting in the output ring.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Offers a byte to the guest; false if there is no room for it.
    pub fn input(&mut self, byte: u8, now: u64) -> bool {
        let accepted = self.input_room() > 0;
        if accepted {
            self.receive(byte, now);
        }
        accepted
    }

    /// Sends a break, as magic SysRq wants it; false if there is no room.
    pub fn input_break(&mut self, now: u64) -> bool {
        let accepted = self.input(0, now);
        if accepted {
            self.errors |= LSR_BREAK;
        }
        accepted
    }

    /// Bytes that [`Uart::input`] would take now.
    #[must_use]
    pub fn input_room(&self) -> usize {
        if self.looped() { 0 } else { self.depth().saturating_sub(self.received.len()) }
    }

    /// When [`Uart::tick`] is due, in TSC ticks.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.timeout_at.filter(|_| self.ier & IER_RECEIVED != 0)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.timeout_at = None;
            self.timed_out = true;
        }
    }
}
