//! Local APIC: xAPIC and x2APIC over one state.
use crate::{Delivery, Destination, GeneralProtection, Message};

/// Frequency of the APIC timer before its divider: 1 GHz, fixed.
pub const TIMER_HZ: u64 = 1_000_000_000;
/// IA32_APIC_BASE.
pub const MSR_APIC_BASE: u32 = 0x1B;
/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6E0;
/// First x2APIC register.
pub const MSR_X2APIC_FIRST: u32 = 0x800;
/// Last x2APIC register.
pub const MSR_X2APIC_LAST: u32 = 0x8FF;

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

/// One local APIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lapic {
    config: Config,
}

impl Lapic {
    /// A local APIC after reset, in x2APIC mode.
    #[must_use]
    pub fn new(config: Config) -> Lapic {
        Lapic { config }
    }
    /// x2APIC id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.config.apic_id
    }
    /// Mode of IA32_APIC_BASE.
    #[must_use]
    pub fn mode(&self) -> Mode {
        Mode::X2Apic
    }
    /// Reads IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register.
    ///
    /// # Errors
    /// As the processor raises it.
    pub fn read_msr(&mut self, _msr: u32, _now: u64) -> Result<u64, GeneralProtection> {
        Err(GeneralProtection)
    }
    /// Writes IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register.
    ///
    /// # Errors
    /// As the processor raises it.
    pub fn write_msr(
        &mut self,
        _msr: u32,
        _value: u64,
        _now: u64,
    ) -> Result<Effect, GeneralProtection> {
        Err(GeneralProtection)
    }
    /// Reads an xAPIC register; `offset` in the page. 0xFFFF_FFFF when not in
    /// xAPIC mode.
    pub fn read_mmio(&mut self, _offset: u32, _now: u64) -> u32 {
        u32::MAX
    }
    /// Writes an xAPIC register; nothing happens when not in xAPIC mode.
    pub fn write_mmio(&mut self, _offset: u32, _value: u32, _now: u64) -> Effect {
        Effect::None
    }
    /// Whether a message from the local APIC with x2APIC id `source` (`None`:
    /// from a device) is for this one.
    #[must_use]
    pub fn accepts(&self, _destination: Destination, _source: Option<u32>) -> bool {
        false
    }
    /// Takes a message that this local APIC accepts.
    pub fn deliver(&mut self, _delivery: Delivery, _vector: u8, _level: bool) -> Delivered {
        Delivered::Accepted
    }
    /// Priority for the choice of a lowest-priority destination: the smaller
    /// the better.
    #[must_use]
    pub fn arbitration_priority(&self) -> u8 {
        0
    }
    /// The vector that the processor would take now if it takes interrupts.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        None
    }
    /// Takes the pending vector into service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        None
    }
    /// Whether the 8259's output reaches the processor (LINT0 is an unmasked
    /// ExtINT, or the local APIC is globally disabled).
    #[must_use]
    pub fn takes_extint(&self) -> bool {
        false
    }
    /// CR8: task priority class.
    #[must_use]
    pub fn cr8(&self) -> u8 {
        0
    }
    /// Writes CR8 (the value's low 4 bits; the caller checks the others).
    pub fn set_cr8(&mut self, _class: u8) {}
    /// Resets all but identity and base as INIT does (Intel SDM vol. 3,
    /// 11.4.7.3).
    pub fn init(&mut self) {}
    /// When [`Lapic::tick`] is due, in TSC ticks.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        None
    }
    /// Does what is due.
    pub fn tick(&mut self, _now: u64) {}
}
