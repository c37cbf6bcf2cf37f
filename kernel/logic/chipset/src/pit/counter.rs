//! One counter of the 8254 (Intel 8254 datasheet, "Mode definitions").
//!
//! The count is a function of the time since it was loaded. Two differences
//! from the chip: a new count starts at once in modes 2 and 3 too, where the
//! chip ends the period in progress; and it starts without the one clock of
//! delay.

use crate::time::Rate;

/// Which bytes of a count the guest reads and writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bytes {
    Low,
    High,
    Both,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Counter {
    rate: Rate,
    /// 0 to 5.
    mode: u8,
    bcd: bool,
    bytes: Bytes,
    /// Count as loaded: 1 to 65536.
    reload: u32,
    /// A count has been loaded since the control word.
    loaded: bool,
    /// TSC when the count started; `None` while it does not run.
    origin: Option<u64>,
    /// Clocks done before `origin` (mode 0 and 4 stopped by the gate).
    before: u64,
    gate: bool,
    /// Low byte written, high byte awaited.
    low_written: Option<u8>,
    /// The next read of both bytes gives the high one.
    read_high: bool,
    latched: Option<u16>,
    latched_status: Option<u8>,
}

impl Counter {
    pub(super) fn new(rate: Rate, gate: bool) -> Counter {
        Counter {
            rate,
            mode: 0,
            bcd: false,
            bytes: Bytes::Both,
            reload: 0x1_0000,
            loaded: false,
            origin: None,
            before: 0,
            gate,
            low_written: None,
            read_high: false,
            latched: None,
            latched_status: None,
        }
    }

    /// A control word that is not a latch command.
    pub(super) fn control(&mut self, word: u8) {
        let mode = (word >> 1) & 7;
        let bytes = match (word >> 4) & 3 {
            1 => Bytes::Low,
            2 => Bytes::High,
            _ => Bytes::Both,
        };
        let fresh = Counter::new(self.rate, self.gate);
        // Modes 6 and 7 are 2 and 3.
        let mode = if mode > 5 { mode - 4 } else { mode };
        *self = Counter { mode, bytes, bcd: word & 1 != 0, ..fresh };
    }

    /// Modes that the gate's rising edge starts.
    const fn triggered(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    /// Modes that go on where they stopped when the gate comes back.
    const fn pauses(&self) -> bool {
        matches!(self.mode, 0 | 4)
    }

    /// Clocks since the count started; `None` if it never did.
    fn clocks(&self, now: u64) -> Option<u64> {
        let run = self.origin.map(|o| self.rate.ticks(now.saturating_sub(o)));
        match run {
            Some(ticks) => Some(ticks.saturating_add(self.before)),
            None if self.loaded && self.pauses() => Some(self.before),
            None => None,
        }
    }

    pub(super) fn write(&mut self, value: u8, now: u64) {
        let count = match (self.bytes, self.low_written.take()) {
            (Bytes::Low, _) => u16::from(value),
            (Bytes::High, _) => u16::from(value) << 8,
            (Bytes::Both, Some(low)) => u16::from(value) << 8 | u16::from(low),
            (Bytes::Both, None) => {
                self.low_written = Some(value);
                if self.mode == 0 {
                    // The first byte stops the count.
                    self.before = self.clocks(now).unwrap_or(0);
                    self.origin = None;
                }
                return;
            }
        };
        self.reload = self.decode(count);
        self.loaded = true;
        self.before = 0;
        if !self.triggered() {
            self.origin = self.gate.then_some(now);
        }
    }

    /// Count as a number, 0 standing for the largest.
    fn decode(&self, count: u16) -> u32 {
        let value = if self.bcd {
            (0..4).rev().fold(0, |v, n| v * 10 + u32::from(count >> (4 * n) & 15))
        } else {
            u32::from(count)
        };
        if value == 0 { self.modulus() } else { value }
    }

    const fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    fn encode(&self, value: u64) -> u16 {
        let value = (value % u64::from(self.modulus())) as u32;
        if !self.bcd {
            return value as u16;
        }
        [1000, 100, 10, 1].iter().fold(0, |v, unit| v << 4 | (value / unit % 10) as u16)
    }

    /// The counting element.
    fn count(&self, now: u64) -> u16 {
        let reload = u64::from(self.reload);
        let Some(clocks) = self.clocks(now) else { return self.encode(reload) };
        match self.mode {
            2 => self.encode(reload - clocks % reload),
            // Counts down by two, twice a period.
            3 => self.encode((reload - clocks.saturating_mul(2) % reload) & !1),
            _ => {
                let modulus = u64::from(self.modulus());
                self.encode(reload + modulus - clocks % modulus)
            }
        }
    }

    /// The OUT pin.
    pub(super) fn output(&self, now: u64) -> bool {
        let reload = u64::from(self.reload);
        let clocks = self.clocks(now);
        match (self.mode, clocks) {
            (0, Some(c)) => c >= reload,
            (0, None) => false,
            (1, Some(c)) => c >= reload,
            (2, Some(c)) => c % reload != reload - 1,
            (3, Some(c)) => c % reload < reload.div_ceil(2),
            (4 | 5, Some(c)) => c != reload,
            _ => true,
        }
    }

    /// Rising edges of OUT since the count started.
    pub(super) fn edges(&self, now: u64) -> u64 {
        let (Some(clocks), reload) = (self.clocks(now), u64::from(self.reload)) else { return 0 };
        match self.mode {
            2 | 3 => clocks / reload,
            0 | 1 => u64::from(clocks >= reload),
            _ => u64::from(clocks > reload),
        }
    }

    /// TSC of the rising edge after `edges` of them, if it comes by itself.
    pub(super) fn edge_after(&self, edges: u64) -> Option<u64> {
        let origin = self.origin?;
        let reload = u64::from(self.reload);
        let clocks = match self.mode {
            2 | 3 => edges.saturating_add(1).saturating_mul(reload),
            0 | 1 => (edges == 0).then_some(reload)?,
            _ => (edges == 0).then_some(reload + 1)?,
        };
        Some(origin.saturating_add(self.rate.tsc(clocks.saturating_sub(self.before))))
    }

    /// The GATE pin.
    pub(super) fn set_gate(&mut self, gate: bool, now: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        if gate {
            if self.loaded && self.low_written.is_none() {
                if !self.pauses() {
                    self.before = 0;
                }
                self.origin = Some(now);
            }
        } else if !self.triggered() {
            self.before = if self.pauses() { self.clocks(now).unwrap_or(0) } else { 0 };
            self.origin = None;
        }
    }

    pub(super) fn latch_count(&mut self, now: u64) {
        if self.latched.is_none() {
            self.latched = Some(self.count(now));
            self.read_high = false;
        }
    }

    pub(super) fn latch_status(&mut self, now: u64) {
        if self.latched_status.is_none() {
            let bytes = match self.bytes {
                Bytes::Low => 1,
                Bytes::High => 2,
                Bytes::Both => 3,
            };
            let null = u8::from(!self.loaded || self.low_written.is_some());
            self.latched_status = Some(
                u8::from(self.output(now)) << 7
                    | null << 6
                    | bytes << 4
                    | self.mode << 1
                    | u8::from(self.bcd),
            );
        }
    }

    pub(super) fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched.unwrap_or_else(|| self.count(now)).to_le_bytes();
        match self.bytes {
            Bytes::Low => {
                self.latched = None;
                low
            }
            Bytes::High => {
                self.latched = None;
                high
            }
            Bytes::Both if self.read_high => {
                self.read_high = false;
                self.latched = None;
                high
            }
            Bytes::Both => {
                self.read_high = true;
                low
            }
        }
    }
}
