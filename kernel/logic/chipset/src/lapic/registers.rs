//! Register accesses of the local APIC (Intel SDM vol. 3, tables 11-1, 11-6).
//!
//! One number names a register in both modes: the MSR less 0x800, the offset
//! in the page over 16.

use super::{
    ESR_ILLEGAL_REGISTER, ESR_SEND_ILLEGAL, Effect, LVT_COUNT, LVT_ERROR, LVT_LINT0, LVT_MASKED,
    LVT_TIMER, Lapic, MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC_FIRST, MSR_X2APIC_LAST, Mode,
    SVR_ENABLE, TimerMode,
};
use crate::{Delivery, Destination, GeneralProtection, Message};

const ID: u32 = 0x02;
const VERSION: u32 = 0x03;
const TPR: u32 = 0x08;
const PPR: u32 = 0x0A;
const EOI: u32 = 0x0B;
const LDR: u32 = 0x0D;
const DFR: u32 = 0x0E;
const SVR: u32 = 0x0F;
const ISR: u32 = 0x10;
const ISR_END: u32 = 0x17;
const TMR: u32 = 0x18;
const TMR_END: u32 = 0x1F;
const IRR: u32 = 0x20;
const IRR_END: u32 = 0x27;
const ESR: u32 = 0x28;
const ICR: u32 = 0x30;
const ICR_HIGH: u32 = 0x31;
const LVT: u32 = 0x32;
const LVT_END: u32 = 0x37;
const INITIAL: u32 = 0x38;
const CURRENT: u32 = 0x39;
const DIVIDE: u32 = 0x3E;
const SELF_IPI: u32 = 0x3F;

/// Version 0x14 (integrated), 6 LVT entries, no EOI-broadcast suppression.
const VERSION_VALUE: u32 = 0x14 | (LVT_COUNT as u32 - 1) << 16;
/// Bits of SVR: vector, enable, focus check (kept, without effect).
const SVR_BITS: u32 = 0x3FF;
/// Bits of ICR that a guest may set: vector, delivery, destination mode,
/// status (ignored), level, trigger, shorthand.
const ICR_BITS: u32 = 0x000C_DFFF;
/// LVT and ICR: delivery status, read-only and always idle here.
const DELIVERY_STATUS: u32 = 1 << 12;
/// LVT and ICR: remote IRR of an entry, read-only.
const REMOTE_IRR: u32 = 1 << 14;

/// Bits of an LVT entry that exist, read-only ones included.
const fn lvt_bits(index: usize) -> u32 {
    const BASIC: u32 = 0xFF | DELIVERY_STATUS | LVT_MASKED;
    match index {
        LVT_TIMER => BASIC | 3 << 17,
        LVT_ERROR => BASIC,
        1 | 2 => BASIC | 7 << 8,
        _ => BASIC | 7 << 8 | 1 << 13 | REMOTE_IRR | 1 << 15,
    }
}

/// Why a register access fails: #GP in x2APIC mode, an ESR bit in xAPIC mode.
struct Illegal;

impl Lapic {
    /// Reads IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register.
    ///
    /// # Errors
    /// As the processor raises it.
    pub fn read_msr(&mut self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        match msr {
            MSR_APIC_BASE => Ok(self.base()),
            MSR_TSC_DEADLINE => Ok(self.timer.tsc_deadline()),
            MSR_X2APIC_FIRST..=MSR_X2APIC_LAST if self.mode == Mode::X2Apic => {
                match msr - MSR_X2APIC_FIRST {
                    ICR => Ok(self.icr),
                    ID => Ok(u64::from(self.config.apic_id)),
                    DFR | ICR_HIGH => Err(GeneralProtection),
                    number => self.read(number, now).map(u64::from).or(Err(GeneralProtection)),
                }
            }
            _ => Err(GeneralProtection),
        }
    }

    /// Writes IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC register.
    ///
    /// # Errors
    /// As the processor raises it.
    pub fn write_msr(
        &mut self,
        msr: u32,
        value: u64,
        now: u64,
    ) -> Result<Effect, GeneralProtection> {
        match msr {
            MSR_APIC_BASE => self.set_base(value).map(|()| Effect::None),
            MSR_TSC_DEADLINE => {
                self.timer.set_tsc_deadline(value);
                self.tick(now);
                Ok(Effect::None)
            }
            MSR_X2APIC_FIRST..=MSR_X2APIC_LAST if self.mode == Mode::X2Apic => {
                self.write_x2apic(msr - MSR_X2APIC_FIRST, value, now)
            }
            _ => Err(GeneralProtection),
        }
    }

    fn write_x2apic(
        &mut self,
        number: u32,
        value: u64,
        now: u64,
    ) -> Result<Effect, GeneralProtection> {
        let low = value as u32;
        if number == ICR {
            if low & !ICR_BITS != 0 {
                return Err(GeneralProtection);
            }
            self.icr = value & !u64::from(DELIVERY_STATUS);
            return Ok(self.send());
        }
        let allowed = match number {
            TPR | SELF_IPI => 0xFF,
            EOI | ESR => 0,
            SVR => SVR_BITS,
            LVT..=LVT_END => lvt_bits((number - LVT) as usize),
            INITIAL => u32::MAX,
            DIVIDE => 0xB,
            _ => return Err(GeneralProtection),
        };
        let reserved_mode = number == LVT && TimerMode::of(low).is_none();
        if value & !u64::from(allowed) != 0 || reserved_mode {
            return Err(GeneralProtection);
        }
        if number == SELF_IPI {
            self.accept_own(low as u8);
            return Ok(Effect::None);
        }
        self.write(number, low, now).or(Err(GeneralProtection))
    }

    /// Reads an xAPIC register; `offset` in the page. 0xFFFF_FFFF when not in
    /// xAPIC mode.
    pub fn read_mmio(&mut self, offset: u32, now: u64) -> u32 {
        if self.mode != Mode::XApic {
            return u32::MAX;
        }
        if offset & 0xF != 0 {
            return 0;
        }
        self.read(offset >> 4, now).unwrap_or_else(|Illegal| {
            self.error(ESR_ILLEGAL_REGISTER);
            0
        })
    }

    /// Writes an xAPIC register; nothing happens when not in xAPIC mode.
    pub fn write_mmio(&mut self, offset: u32, value: u32, now: u64) -> Effect {
        if self.mode != Mode::XApic || offset & 0xF != 0 {
            return Effect::None;
        }
        self.write(offset >> 4, value, now).unwrap_or_else(|Illegal| {
            self.error(ESR_ILLEGAL_REGISTER);
            Effect::None
        })
    }

    /// Registers as both modes read them, in the xAPIC's shape.
    fn read(&self, number: u32, now: u64) -> Result<u32, Illegal> {
        Ok(match number {
            ID => self.config.apic_id << 24,
            VERSION => VERSION_VALUE,
            TPR => u32::from(self.tpr),
            PPR => u32::from(self.ppr()),
            LDR => self.logical_id(),
            DFR => self.dfr,
            SVR => self.svr,
            ISR..=ISR_END => self.isr.word(number),
            TMR..=TMR_END => self.tmr.word(number),
            IRR..=IRR_END => self.irr.word(number),
            ESR => self.esr,
            ICR => self.icr as u32,
            ICR_HIGH => (self.icr >> 32) as u32,
            LVT..=LVT_END => self.lvt[(number - LVT) as usize],
            INITIAL => self.timer.initial(),
            CURRENT => self.timer.current(now),
            DIVIDE => self.timer.divide(),
            _ => return Err(Illegal),
        })
    }

    /// Registers as both modes write them; read-only ones ignore it.
    fn write(&mut self, number: u32, value: u32, now: u64) -> Result<Effect, Illegal> {
        match number {
            TPR => self.tpr = value as u8,
            EOI => return Ok(self.end_of_interrupt()),
            LDR => self.ldr = value & 0xFF00_0000,
            DFR => self.dfr = value | 0x0FFF_FFFF,
            SVR => self.set_svr(value & SVR_BITS),
            ESR => self.esr = core::mem::take(&mut self.errors),
            ICR => {
                let low = value & ICR_BITS & !DELIVERY_STATUS;
                self.icr = (self.icr & !0xFFFF_FFFF) | u64::from(low);
                return Ok(self.send());
            }
            ICR_HIGH => {
                self.icr = (self.icr & 0xFFFF_FFFF) | u64::from(value & 0xFF00_0000) << 32;
            }
            LVT..=LVT_END => {
                let index = (number - LVT) as usize;
                let kept = lvt_bits(index) & !(DELIVERY_STATUS | REMOTE_IRR);
                self.set_lvt(index, value & kept, now);
            }
            INITIAL => self.timer.set_initial(value, now),
            DIVIDE => self.timer.set_divide(value, now),
            ID | VERSION | PPR | CURRENT | ISR..=IRR_END => {}
            _ => return Err(Illegal),
        }
        self.tick(now);
        Ok(Effect::None)
    }

    /// Software disable masks every LVT entry (11.4.7.2).
    fn set_svr(&mut self, value: u32) {
        self.svr = value;
        if value & SVR_ENABLE == 0 {
            self.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
        }
    }

    /// A vector sent to oneself.
    fn accept_own(&mut self, vector: u8) {
        if vector < 16 {
            self.error(ESR_SEND_ILLEGAL);
        } else {
            self.accept(vector, false);
        }
    }

    /// Sends what ICR says (11.6.1).
    fn send(&mut self) -> Effect {
        let low = self.icr as u32;
        let vector = low as u8;
        let Some(delivery) = Delivery::from_bits((low >> 8) as u8) else { return Effect::None };
        let level = low & (1 << 15) != 0;
        let assert = low & (1 << 14) != 0;
        match delivery {
            // A level de-assert only set arbitration ids on old buses.
            Delivery::Init if level && !assert => return Effect::None,
            // Not sendable by ICR, or without meaning as there is no SMM.
            Delivery::ExtInt | Delivery::Smi => return Effect::None,
            Delivery::Fixed | Delivery::LowestPriority if vector < 16 => {
                self.error(ESR_SEND_ILLEGAL);
                return Effect::None;
            }
            Delivery::Fixed
            | Delivery::LowestPriority
            | Delivery::Nmi
            | Delivery::Init
            | Delivery::StartUp => {}
        }
        let wide = self.mode == Mode::X2Apic;
        let number = if wide { (self.icr >> 32) as u32 } else { (self.icr >> 56) as u32 };
        let destination = match (low >> 18) & 3 {
            0 if low & (1 << 11) == 0 => Destination::Physical { id: number, wide },
            0 => Destination::Logical { mda: number, wide },
            1 => Destination::Myself,
            2 => Destination::All,
            _ => Destination::Others,
        };
        if destination == Destination::Myself && delivery == Delivery::Fixed {
            self.accept_own(vector);
            return Effect::None;
        }
        // IPIs are always edge (11.6.1: the trigger mode matters to INIT only).
        Effect::Ipi(Message { destination, delivery, vector, level: false })
    }
}

const _: () = assert!(LVT_END - LVT + 1 == LVT_COUNT as u32 && LVT + LVT_LINT0 as u32 == 0x35);
