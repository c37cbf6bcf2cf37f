//! Local APIC: xAPIC and x2APIC over one state (Intel SDM vol. 3, chapter 11).
//!
//! The machine gives register accesses to `read_msr`, `write_msr`,
//! `read_mmio`, `write_mmio`; an [`Effect`] tells what else to do. Messages
//! of other APICs and of devices go to every local APIC that [`accepts`]
//! them. Before it enters the guest, the machine injects [`pending`] and
//! calls [`acknowledge`].
//!
//! The timer's input clock is [`TIMER_HZ`] whatever the host is. CPUID leaf
//! 0x15 may tell it as the crystal clock (ECX = 1 GHz, EBX/EAX = TSC kHz /
//! 1,000,000); with the TSC-deadline mode no operating system needs it.
//!
//! As no firmware runs before the operating system, the bootstrap processor's
//! APIC starts as firmware leaves it: software enabled, LINT0 an open ExtINT
//! (virtual wire, MP specification 3.6.2.2), LINT1 NMI.
//!
//! [`accepts`]: Lapic::accepts
//! [`pending`]: Lapic::pending
//! [`acknowledge`]: Lapic::acknowledge

mod registers;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

use crate::{Delivery, Destination, GeneralProtection, Message, map};
use timer::{Timer, TimerMode};
use vectors::Vectors;

/// Frequency of the APIC timer before its divider: 1 GHz, fixed.
pub const TIMER_HZ: u64 = 1_000_000_000;
/// IA32_APIC_BASE.
pub const MSR_APIC_BASE: u32 = 0x1B;
/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6E0;
/// First x2APIC register.
pub const MSR_X2APIC_FIRST: u32 = 0x800;
/// Last MSR of the x2APIC's range.
pub const MSR_X2APIC_LAST: u32 = 0x8FF;

/// IA32_APIC_BASE: bootstrap processor.
const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode.
const BASE_EXTD: u64 = 1 << 10;
/// IA32_APIC_BASE: global enable.
const BASE_ENABLE: u64 = 1 << 11;
/// SVR: software enable.
const SVR_ENABLE: u32 = 1 << 8;
/// LVT: mask.
const LVT_MASKED: u32 = 1 << 16;

/// ESR: an illegal vector was sent.
const ESR_SEND_ILLEGAL: u32 = 1 << 5;
/// ESR: an illegal vector came in.
const ESR_RECEIVED_ILLEGAL: u32 = 1 << 6;
/// ESR: an xAPIC register that does not exist was accessed.
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// Static configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// x2APIC id; its low 8 bits are the xAPIC id.
    pub apic_id: u32,
    /// The bootstrap processor (BSP flag; LINT0 starts as ExtINT).
    pub bootstrap: bool,
    /// TSC ticks a second.
    pub tsc_hz: u64,
}

/// State of IA32_APIC_BASE (Intel SDM vol. 3, 11.12.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Globally disabled.
    Disabled,
    /// Memory mapped.
    XApic,
    /// By MSR.
    X2Apic,
}

/// What the machine has to do after a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing.
    None,
    /// Deliver an interprocessor interrupt: for each local APIC that
    /// `accepts` it, `deliver`.
    Ipi(Message),
    /// Tell the I/O APIC that this level-triggered vector ended.
    EndOfInterrupt(u8),
}

/// What became of a message given to a local APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivered {
    /// In IRR, or dropped, or merged: look at `pending`.
    Accepted,
    /// The processor takes an NMI.
    Nmi,
    /// The processor does INIT: reset it, call [`Lapic::init`].
    Init,
    /// The processor starts at page `vector`, if it waits for this.
    StartUp(u8),
    /// An 8259 vector is to be fetched from the pair and injected.
    ExtInt,
}

/// Entries of the local vector table, in register order from 0x32.
const LVT_TIMER: usize = 0;
const LVT_LINT0: usize = 3;
const LVT_LINT1: usize = 4;
const LVT_ERROR: usize = 5;
const LVT_COUNT: usize = 6;

/// One local APIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lapic {
    config: Config,
    mode: Mode,
    irr: Vectors,
    isr: Vectors,
    tmr: Vectors,
    tpr: u8,
    svr: u32,
    /// xAPIC logical destination (bits 24 to 31) and format.
    ldr: u32,
    dfr: u32,
    /// Errors since the last write of ESR, and what ESR shows.
    errors: u32,
    esr: u32,
    icr: u64,
    lvt: [u32; LVT_COUNT],
    timer: Timer,
}

impl Lapic {
    /// A local APIC in x2APIC mode; that of the bootstrap processor is
    /// software enabled and passes the 8259's interrupts on.
    #[must_use]
    pub fn new(config: Config) -> Lapic {
        let mut lapic = Lapic {
            config,
            mode: Mode::X2Apic,
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            tpr: 0,
            svr: 0xFF,
            ldr: 0,
            dfr: u32::MAX,
            errors: 0,
            esr: 0,
            icr: 0,
            lvt: [LVT_MASKED; LVT_COUNT],
            timer: Timer::new(config.tsc_hz),
        };
        if config.bootstrap {
            lapic.svr |= SVR_ENABLE;
            lapic.lvt[LVT_LINT0] = 7 << 8;
            lapic.lvt[LVT_LINT1] = 4 << 8;
        }
        lapic
    }

    /// Resets all but identity and mode as INIT does (Intel SDM vol. 3,
    /// 11.4.7.3 and 11.12.5.1).
    pub fn init(&mut self) {
        let mode = self.mode;
        self.clear();
        self.mode = mode;
    }

    /// Power-up state of the registers.
    fn clear(&mut self) {
        *self = Lapic::new(Config { bootstrap: false, ..self.config }).with_config(self.config);
    }

    fn with_config(mut self, config: Config) -> Lapic {
        self.config = config;
        self
    }

    /// x2APIC id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.config.apic_id
    }

    /// Mode of IA32_APIC_BASE.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    fn base(&self) -> u64 {
        let mode = match self.mode {
            Mode::Disabled => 0,
            Mode::XApic => BASE_ENABLE,
            Mode::X2Apic => BASE_ENABLE | BASE_EXTD,
        };
        map::LAPIC_BASE | mode | if self.config.bootstrap { BASE_BSP } else { 0 }
    }

    /// Mode changes are those of Intel SDM vol. 3, 11.12.5. The page cannot
    /// be moved: another address raises #GP, and the BSP flag is read-only.
    fn set_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        if value & !(BASE_BSP | BASE_EXTD | BASE_ENABLE) != map::LAPIC_BASE {
            return Err(GeneralProtection);
        }
        let wanted = match (value & BASE_ENABLE != 0, value & BASE_EXTD != 0) {
            (false, false) => Mode::Disabled,
            (true, false) => Mode::XApic,
            (true, true) => Mode::X2Apic,
            (false, true) => return Err(GeneralProtection),
        };
        match (self.mode, wanted) {
            (Mode::X2Apic, Mode::XApic) | (Mode::Disabled, Mode::X2Apic) => {
                return Err(GeneralProtection);
            }
            (Mode::X2Apic | Mode::XApic, Mode::Disabled) => self.clear(),
            (Mode::XApic, Mode::X2Apic) => self.icr &= 0xFFFF_FFFF,
            (Mode::Disabled | Mode::XApic, Mode::XApic)
            | (Mode::X2Apic, Mode::X2Apic)
            | (Mode::Disabled, Mode::Disabled) => {}
        }
        self.mode = wanted;
        Ok(())
    }

    /// Logical id: in x2APIC mode it follows from the id (11.12.10.2).
    fn logical_id(&self) -> u32 {
        match self.mode {
            Mode::X2Apic => {
                let id = self.config.apic_id;
                (((id >> 4) & 0xFFFF) << 16) | (1 << (id & 15))
            }
            Mode::XApic | Mode::Disabled => self.ldr,
        }
    }

    /// Whether a message from the local APIC with x2APIC id `source` (`None`:
    /// from a device) is for this one.
    #[must_use]
    pub fn accepts(&self, destination: Destination, source: Option<u32>) -> bool {
        if self.mode == Mode::Disabled {
            return false;
        }
        let broadcast = |wide: bool| if wide { u32::MAX } else { 0xFF };
        match destination {
            Destination::All => true,
            Destination::Others => source != Some(self.config.apic_id),
            Destination::Myself => source == Some(self.config.apic_id),
            Destination::Physical { id, wide } => {
                let own = match self.mode {
                    Mode::X2Apic => self.config.apic_id,
                    Mode::XApic | Mode::Disabled => self.config.apic_id & 0xFF,
                };
                id == own || id == broadcast(wide)
            }
            Destination::Logical { mda, wide } => {
                mda == broadcast(wide) || self.matches_logical(mda)
            }
        }
    }

    fn matches_logical(&self, mda: u32) -> bool {
        let own = self.logical_id();
        if self.mode == Mode::X2Apic {
            return own >> 16 == mda >> 16 && own & mda & 0xFFFF != 0;
        }
        let own = own >> 24;
        if self.dfr >> 28 == 0xF {
            own & mda & 0xFF != 0
        } else {
            own >> 4 == (mda >> 4) & 0xF && own & mda & 0xF != 0
        }
    }

    /// Takes a message that this local APIC accepts.
    pub fn deliver(&mut self, delivery: Delivery, vector: u8, level: bool) -> Delivered {
        match delivery {
            Delivery::Fixed | Delivery::LowestPriority => {
                self.accept(vector, level);
                Delivered::Accepted
            }
            Delivery::Smi => Delivered::Accepted,
            Delivery::Nmi => Delivered::Nmi,
            Delivery::Init => Delivered::Init,
            Delivery::StartUp => Delivered::StartUp(vector),
            Delivery::ExtInt => Delivered::ExtInt,
        }
    }

    /// Puts a vector into IRR unless the APIC is disabled by software.
    fn accept(&mut self, vector: u8, level: bool) {
        if self.svr & SVR_ENABLE == 0 || self.mode == Mode::Disabled {
            return;
        }
        if vector < 16 {
            self.error(ESR_RECEIVED_ILLEGAL);
            return;
        }
        self.irr.set(vector, true);
        self.tmr.set(vector, level);
    }

    /// Notes an error and raises the error interrupt. An illegal vector in
    /// the error entry itself is only noted.
    fn error(&mut self, bit: u32) {
        let new = self.errors & bit == 0;
        self.errors |= bit;
        let entry = self.lvt[LVT_ERROR];
        if new && entry & LVT_MASKED == 0 {
            if entry as u8 >= 16 {
                self.accept(entry as u8, false);
            } else {
                self.errors |= ESR_RECEIVED_ILLEGAL;
            }
        }
    }

    /// Processor priority (11.8.3.1).
    fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= in_service >> 4 { self.tpr } else { in_service & 0xF0 }
    }

    /// Priority for the choice of a lowest-priority destination: the smaller
    /// the better.
    #[must_use]
    pub fn arbitration_priority(&self) -> u8 {
        self.ppr()
    }

    /// The highest vector that waits, whatever holds it back.
    #[must_use]
    pub fn requested(&self) -> Option<u8> {
        self.irr.highest()
    }

    /// The vector that the processor would take now if it takes interrupts.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (vector >> 4 > self.ppr() >> 4).then_some(vector)
    }

    /// Takes the pending vector into service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.pending()?;
        self.irr.set(vector, false);
        self.isr.set(vector, true);
        Some(vector)
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else { return Effect::None };
        self.isr.set(vector, false);
        if self.tmr.has(vector) { Effect::EndOfInterrupt(vector) } else { Effect::None }
    }

    /// Whether the 8259's output reaches the processor (LINT0 is an unmasked
    /// ExtINT, or the local APIC is globally disabled).
    #[must_use]
    pub fn takes_extint(&self) -> bool {
        let lint0 = self.lvt[LVT_LINT0];
        self.config.bootstrap
            && (self.mode == Mode::Disabled || (lint0 & LVT_MASKED == 0 && (lint0 >> 8) & 7 == 7))
    }

    /// CR8: task priority class.
    #[must_use]
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Writes CR8 (the value's low 4 bits; the caller checks the others).
    pub fn set_cr8(&mut self, class: u8) {
        self.tpr = class << 4;
    }

    /// When [`Lapic::tick`] is due, in TSC ticks.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.timer.deadline()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        let entry = self.lvt[LVT_TIMER];
        if self.timer.tick(now) && entry & LVT_MASKED == 0 {
            self.accept(entry as u8, false);
        }
    }

    /// Sets an LVT entry's kept bits.
    fn set_lvt(&mut self, index: usize, value: u32, now: u64) {
        let masked = if self.svr & SVR_ENABLE == 0 { LVT_MASKED } else { 0 };
        if index == LVT_TIMER {
            self.timer.set_mode(TimerMode::of(value).unwrap_or(TimerMode::OneShot), now);
        }
        self.lvt[index] = value | masked;
    }
}
