//! From device lines to injected vectors.
//!
//! Device outputs are wired to the 8259 pair and to the I/O APIC under their
//! ISA numbers, except that the interval timer is pin 2 of the I/O APIC (as
//! the MADT's override tells). Messages of the I/O APIC and IPIs of local
//! APICs are routed to every local APIC that accepts them. INIT and start-up
//! change a processor's [`RunState`]; what remains of them to do with its
//! registers is done by `prepare_entry` on the processor's own turn.

use crate::state::{self, RunState};
use crate::{Machine, Power};
use chipset::lapic::{Delivered, Effect, Mode};
use chipset::{Delivery, Message, map};
use vcpu::{Event, RFLAGS_IF, Vcpu};

/// Messages taken from the I/O APIC in one go: every pin may speak, and once
/// more after an end of interrupt.
const MESSAGES_MAX: usize = 2 * chipset::ioapic::PINS;

impl Machine {
    /// Samples the devices' interrupt lines.
    pub(crate) fn sync_lines(&mut self) {
        let d = &mut self.devices;
        let lines = u16::from(d.uarts[1].line()) << map::IRQ_COM2
            | u16::from(d.uarts[0].line() || d.uarts[2].line()) << map::IRQ_COM1
            | u16::from(d.rtc.line()) << map::IRQ_RTC
            | u16::from(d.pm.line()) << map::IRQ_SCI;
        let mut changed = lines ^ d.lines;
        d.lines = lines;
        while changed != 0 {
            let irq = changed.trailing_zeros() as u8;
            let high = lines & (1 << irq) != 0;
            d.pic.set_line(irq, high);
            d.ioapic.set_line(irq, high);
            changed &= changed - 1;
        }
        if d.pit.take_irq() {
            for high in [false, true] {
                d.pic.set_line(map::IRQ_PIT, high);
                d.ioapic.set_line(map::GSI_PIT, high);
            }
        }
        self.drain_ioapic();
    }

    /// Delivers what the I/O APIC has to say.
    pub(crate) fn drain_ioapic(&mut self) {
        for _ in 0..MESSAGES_MAX {
            let Some(message) = self.devices.ioapic.take_message() else { return };
            self.route(&message, None);
        }
    }

    /// Does what a write to a local APIC asks for.
    pub(crate) fn apply(&mut self, cpu: usize, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Ipi(message) => {
                let source = self.cpus[cpu].lapic.id();
                self.route(&message, Some(source));
            }
            Effect::EndOfInterrupt(vector) => {
                self.devices.ioapic.end_of_interrupt(vector);
                self.drain_ioapic();
            }
        }
    }

    /// Gives a message to the local APICs it is for.
    fn route(&mut self, message: &Message, source: Option<u32>) {
        let accepts = |cpu: &crate::cpu::Cpu| cpu.lapic.accepts(message.destination, source);
        if message.delivery == Delivery::LowestPriority {
            let best = (0..self.cpus.len())
                .filter(|&i| accepts(&self.cpus[i]))
                .min_by_key(|&i| self.cpus[i].lapic.arbitration_priority());
            if let Some(best) = best {
                self.deliver(best, message);
            }
            return;
        }
        for i in 0..self.cpus.len() {
            if accepts(&self.cpus[i]) {
                self.deliver(i, message);
            }
        }
    }

    fn deliver(&mut self, cpu: usize, message: &Message) {
        let alone = self.cpus.len() == 1;
        let target = &mut self.cpus[cpu];
        match target.lapic.deliver(message.delivery, message.vector, message.level) {
            Delivered::Accepted => {}
            Delivered::Nmi => target.nmi = true,
            Delivered::ExtInt => target.extint = true,
            Delivered::Init if alone => {
                // The only processor sends INIT to itself: a PC's chipset
                // takes this for a reset.
                self.power = Some(Power::Reset);
            }
            Delivered::Init => {
                target.lapic.init();
                target.reset = Some(state::INIT_VECTOR);
                target.nmi = false;
                target.extint = false;
                target.state = if cpu == 0 { RunState::Running } else { RunState::WaitForSipi };
            }
            Delivered::StartUp(page) if target.state == RunState::WaitForSipi => {
                target.reset = Some(state::sipi_vector(page));
                target.state = RunState::Running;
            }
            Delivered::StartUp(_) => {}
        }
    }

    /// Whether an NMI can come from a device: an unmasked I/O APIC entry says
    /// NMI. Reads a copy, as reading moves the index register.
    pub(crate) fn has_nmi_source(&self) -> bool {
        let mut copy = self.devices.ioapic.clone();
        (0..chipset::ioapic::PINS as u32).any(|pin| {
            copy.write(0, 0x10 + 2 * pin);
            let entry = copy.read(0x10);
            let masked = entry & (1 << 16) != 0;
            !masked && Delivery::from_bits((entry >> 8) as u8) == Some(Delivery::Nmi)
        })
    }

    /// Whether the 8259 pair interrupts this processor.
    pub(crate) fn wants_extint(&self, cpu: usize) -> bool {
        self.devices.pic.output() && (self.cpus[cpu].extint || self.cpus[cpu].lapic.takes_extint())
    }

    /// Whether an interrupt waits for this processor.
    pub(crate) fn has_interrupt(&self, cpu: usize) -> bool {
        self.cpus[cpu].lapic.pending().is_some() || self.wants_extint(cpu)
    }

    /// Injects what can be injected and asks for a window for the rest.
    pub(crate) fn inject(&mut self, cpu: usize, vcpu: &mut dyn Vcpu) {
        if self.cpus[cpu].nmi && vcpu.can_take_nmi() {
            self.cpus[cpu].nmi = false;
            self.counters.injected += 1;
            vcpu.inject(Event::Nmi);
        } else if self.has_interrupt(cpu)
            && vcpu.can_take_interrupt()
            && let Some(vector) = self.acknowledge(cpu)
        {
            self.counters.injected += 1;
            vcpu.inject(Event::Interrupt(vector));
        }
        let waiting = self.has_interrupt(cpu);
        match self.class_below_cr8(cpu) {
            Some(class) if !waiting => vcpu.request_window_above(class),
            _ => vcpu.request_window(waiting),
        }
        vcpu.request_nmi_window(self.cpus[cpu].nmi);
    }

    /// Priority class of the highest interrupt that CR8 holds back. The guest
    /// lowers CR8 without an exit, so the processor is to watch for that.
    pub(crate) fn class_below_cr8(&self, cpu: usize) -> Option<u8> {
        let apic = &self.cpus[cpu].lapic;
        let (cr8, mode) = (apic.cr8(), apic.mode());
        let class = apic.requested().filter(|_| cr8 != 0 && mode != Mode::Disabled)? >> 4;
        (class <= cr8).then_some(class)
    }

    fn acknowledge(&mut self, cpu: usize) -> Option<u8> {
        if self.wants_extint(cpu) {
            self.cpus[cpu].extint = false;
            return Some(self.devices.pic.acknowledge());
        }
        self.cpus[cpu].lapic.acknowledge()
    }

    /// Whether what waits for a halted processor wakes it.
    pub(crate) fn has_wake(&self, cpu: usize, rflags: u64) -> bool {
        self.cpus[cpu].nmi || (rflags & RFLAGS_IF != 0 && self.has_interrupt(cpu))
    }
}
