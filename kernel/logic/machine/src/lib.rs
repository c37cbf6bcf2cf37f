//! The guest's machine: devices, exits, interrupts, the OS loader.
//!
//! A [`Machine`] owns what the guest sees besides its RAM and the execution
//! of its instructions. The caller (the node's engine) runs a virtual
//! processor and brings each exit here; the machine answers with an
//! [`Outcome`]. It speaks only the vendor-neutral terms of [`vcpu`] and
//! reaches guest memory only through [`GuestMemory`], whose pages may be
//! somewhere else: then the outcome is [`Outcome::Pending`], nothing has
//! changed that matters, and the same exit is to be handled again.
//!
//! The life of a machine: [`Machine::new`]; [`loader::Plan::new`] and
//! [`loader::Plan::write`] put an operating system into memory and
//! [`loader::Plan::enter`] sets the first processor's registers; then, for
//! each processor, [`Machine::prepare_entry`], run, [`Machine::handle_exit`].
//! A processor that is [`Outcome::Halted`] runs again when
//! [`Machine::wakes`]; [`Machine::next_deadline`] says when to ask at the
//! latest.
//!
//! Time: `now_tsc` is the TSC of the node as the hardware counts it. The
//! guest's TSC reads 0 at `Config::start_tsc`, and the devices live in that
//! time.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bus;
mod counters;
mod cpu;
mod cpuid;
mod devices;
mod emulate;
mod exits;
mod fetch;
mod interrupts;
pub mod loader;
pub mod map;
mod memory;
pub mod msr;
mod outcome;
mod ports;
mod pvclock;
mod state;
mod stop;
#[cfg(test)]
mod testing;
mod topology;
mod walk;

pub use counters::{Counters, Kind, Tally};
pub use cpuid::{PANGAEA_BASE, PANGAEA_SIGNATURE};
pub use memory::{GuestMemory, MemoryError};
pub use outcome::Outcome;
pub use state::RunState;
pub use stop::Death;
pub use topology::CpuPlace;

use alloc::vec::Vec;
use chipset::uart;
use cpu::Cpu;
use devices::{Devices, earlier};
use layout::Layout;
use outcome::Power;
use topology::Topology;
use vcpu::{Exit, Vcpu};

/// Static configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The guest's RAM.
    pub layout: Layout,
    /// The processors; the first is the bootstrap processor.
    pub cpus: Vec<CpuPlace>,
    /// TSC ticks a second.
    pub tsc_hz: u64,
    /// Wall-clock time at `start_tsc`, in seconds since 1970-01-01 00:00 UTC.
    pub rtc_unix_seconds: u64,
    /// The node's TSC when the machine starts; the guest's reads 0 then.
    pub start_tsc: u64,
}

/// A configuration that no machine can be made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No processor, an APIC id twice or reserved, or ids that do not tell
    /// nodes apart by their upper bits.
    Topology,
    /// The TSC's frequency is zero.
    TscFrequency,
    /// A processor is on a node that the memory layout does not have.
    NoSuchNode,
}

/// The guest's machine.
#[derive(Clone, Debug)]
pub struct Machine {
    layout: Layout,
    topology: Topology,
    tsc_hz: u64,
    rtc_unix_seconds: u64,
    start_tsc: u64,
    scale: pvclock::Scale,
    cpus: Vec<Cpu>,
    devices: Devices,
    power: Option<Power>,
    counters: Counters,
}

/// What handling one exit works with.
struct Context<'a> {
    cpu: usize,
    vcpu: &'a mut dyn Vcpu,
    memory: &'a mut dyn GuestMemory,
    /// The machine's time: TSC ticks since its start.
    now: u64,
}

impl Machine {
    /// Makes a machine that has not started.
    ///
    /// # Errors
    /// [`Error`] says what is wrong with the configuration.
    pub fn new(config: Config) -> Result<Machine, Error> {
        let Config { layout, cpus, tsc_hz, rtc_unix_seconds, start_tsc } = config;
        if tsc_hz == 0 {
            return Err(Error::TscFrequency);
        }
        if cpus.iter().any(|c| c.node.index() >= layout.nodes()) {
            return Err(Error::NoSuchNode);
        }
        let topology = Topology::new(&cpus).ok_or(Error::Topology)?;
        let cpus = cpus
            .iter()
            .enumerate()
            .map(|(i, place)| Cpu::new(place.apic_id, i == 0, tsc_hz))
            .collect();
        Ok(Machine {
            layout,
            topology,
            tsc_hz,
            rtc_unix_seconds,
            start_tsc,
            scale: pvclock::Scale::new(tsc_hz),
            cpus,
            devices: Devices::new(tsc_hz, rtc_unix_seconds),
            power: None,
            counters: Counters::new(),
        })
    }

    /// Handles an exit of processor `cpu`.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn handle_exit(
        &mut self,
        cpu: usize,
        exit: &Exit,
        vcpu: &mut impl Vcpu,
        memory: &mut impl GuestMemory,
        now_tsc: u64,
    ) -> Outcome {
        let kind = &mut self.counters.exits[Kind::of(exit) as usize];
        *kind += 1;
        // These read what the processor is or change what belongs to it alone.
        let quiet = matches!(exit, Exit::Cpuid | Exit::Rdmsr | Exit::Xsetbv | Exit::CacheControl);
        if !quiet {
            self.stir();
        }
        self.take_tpr(cpu, vcpu);
        let now = self.time(now_tsc);
        let mut at = Context { cpu, vcpu, memory, now };
        match self.exit(&mut at, exit) {
            Ok(outcome) => {
                self.settle(cpu, !matches!(exit, Exit::HostInterrupt | Exit::InterruptWindow));
                if outcome == Outcome::Resume && !quiet { self.power_outcome() } else { outcome }
            }
            Err(stop) => {
                let outcome = self.stopped(&mut at, stop);
                self.stir();
                outcome
            }
        }
    }

    /// Ends the VMCALL or VMMCALL that [`Outcome::Hypercall`] stood for: its
    /// result goes to RAX. [`Outcome::Pending`] as for an exit.
    pub fn end_hypercall(
        &mut self,
        cpu: usize,
        result: u64,
        vcpu: &mut impl Vcpu,
        memory: &mut impl GuestMemory,
        now_tsc: u64,
    ) -> Outcome {
        let now = self.time(now_tsc);
        let mut at = Context { cpu, vcpu, memory, now };
        match self.next_rip(&mut at) {
            Ok(next) => {
                at.vcpu.registers_mut().gpr[vcpu::RAX] = result;
                at.vcpu.advance(next);
                Outcome::Resume
            }
            Err(stop) => self.stopped(&mut at, stop),
        }
    }

    /// Makes a processor ready to run: does what its timers owe, sets its
    /// registers if it was reset, injects an event or asks for a window.
    pub fn prepare_entry(&mut self, cpu: usize, vcpu: &mut impl Vcpu, now_tsc: u64) {
        let time = self.time(now_tsc);
        // An exit that is still Pending is given up: its instruction runs anew.
        self.cpus[cpu].replay = None;
        if time < self.cpus[cpu].calm_until {
            return;
        }
        // Not every exit comes here: after a page fault this is the first look.
        self.take_tpr(cpu, vcpu);
        self.run_timers(cpu, time);
        if !self.cpus[cpu].started {
            self.start(cpu, vcpu);
        }
        if let Some(vector) = self.cpus[cpu].reset.take() {
            let (registers, system) = state::real_mode(vector);
            *vcpu.registers_mut() = registers;
            vcpu.set_system(&system);
            vcpu.init();
            vcpu.flush();
        }
        if self.cpus[cpu].state == RunState::Halted {
            self.cpus[cpu].state = RunState::Running;
        }
        self.give_tpr(cpu, vcpu);
        self.inject(cpu, vcpu);
        self.calm(cpu);
    }

    /// Whether a processor that does not run has something to run for.
    pub fn wakes(&mut self, cpu: usize, now_tsc: u64) -> bool {
        let time = self.time(now_tsc);
        self.stir();
        self.run_timers(cpu, time);
        match self.cpus[cpu].state {
            RunState::Running => true,
            RunState::Halted => self.has_wake(cpu, self.cpus[cpu].halted_rflags),
            RunState::WaitForSipi => false,
        }
    }

    /// The TSC at which a device or a local APIC next acts by itself.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        // All processors' calm ends with the first deadline of all.
        let calm = self.cpus.iter().map(|c| c.calm_until).find(|&until| until != 0);
        let first = match calm {
            Some(u64::MAX) => None,
            Some(until) => Some(until),
            None => self.first_deadline(),
        };
        Some(first?.saturating_add(self.start_tsc))
    }

    /// The same once everything is done that is due by now, so that nothing is waited
    /// for which the next entry sees to anyway.
    pub fn upcoming_deadline(&mut self, now_tsc: u64) -> Option<u64> {
        let next = self.next_deadline();
        if next.is_none_or(|at| at > now_tsc) {
            return next;
        }
        let time = self.time(now_tsc);
        self.stir();
        for cpu in 0..self.cpus.len() {
            self.run_timers(cpu, time);
        }
        self.next_deadline()
    }

    /// The machine's time at which a device or a local APIC next acts.
    fn first_deadline(&self) -> Option<u64> {
        let mut first = self.devices.deadline();
        for cpu in &self.cpus {
            first = earlier(first, cpu.deadline());
        }
        first
    }

    /// The host's side of a serial port: 0 for COM1 to 2 for COM3.
    ///
    /// # Panics
    /// If there is no such port.
    pub fn uart(&mut self, index: usize) -> &mut uart::Uart {
        self.stir();
        &mut self.devices.uarts[index]
    }

    /// Whether a serial port has bytes for the host.
    #[must_use]
    pub fn has_serial_output(&self) -> bool {
        self.devices.uarts.iter().any(|uart| uart.output_len() > 0)
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        self.stir();
        self.devices.pm.press_power_button();
        self.sync_lines();
    }

    /// What a processor does.
    #[must_use]
    pub fn run_state(&self, cpu: usize) -> RunState {
        self.cpus[cpu].state
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The guest's RAM.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The guest's processors.
    #[must_use]
    pub fn places(&self) -> &[CpuPlace] {
        self.topology.cpus()
    }

    /// The ACPI tables that describe this machine.
    fn acpi_tables(&self) -> Result<guest_acpi::Tables, guest_acpi::Error> {
        let cpus: Vec<_> = self
            .places()
            .iter()
            .map(|&CpuPlace { apic_id, node }| guest_acpi::Cpu { apic_id, node })
            .collect();
        guest_acpi::build(&guest_acpi::Config::new(&self.layout, &cpus))
    }

    fn time(&self, now_tsc: u64) -> u64 {
        now_tsc.saturating_sub(self.start_tsc)
    }
}

// Most of them decode an instruction; see `emulate`.
#[cfg(all(test, not(miri)))]
mod tests;
