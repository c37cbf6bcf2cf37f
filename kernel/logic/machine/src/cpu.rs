//! One processor's share of the machine, besides its registers.

use crate::cpuid::Query;
use crate::state::{self, RunState};
use crate::{Context, Machine, msr};
use chipset::lapic::{self, Lapic};
use vcpu::Vcpu;

/// Physical address bits until a processor was entered and the host's are
/// known.
const PHYS_BITS_AT_START: u32 = 40;

#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    pub(crate) lapic: Lapic,
    pub(crate) state: RunState,
    /// RFLAGS when it halted.
    pub(crate) halted_rflags: u64,
    pub(crate) nmi: bool,
    /// The I/O APIC or an IPI asked for a vector of the 8259 pair.
    pub(crate) extint: bool,
    /// Registers are to be set to this start vector before it runs.
    pub(crate) reset: Option<state::Vector>,
    /// Has been entered once.
    pub(crate) started: bool,
    /// IA32_TSC_ADJUST: the guest's TSC less the machine's time.
    pub(crate) tsc_adjust: u64,
    pub(crate) phys_bits: u32,
    pub(crate) msrs: msr::Msrs,
    /// CR8 as the backend last had it from here or gave it.
    pub(crate) tpr: u8,
    /// A device read that the exit at hand made before it became Pending.
    pub(crate) replay: Option<u64>,
    /// Until this time of the machine an entry has nothing to do: nothing waits
    /// for the processor and nothing is due. 0 when something has changed.
    pub(crate) calm_until: u64,
    /// How often in a row an access that is not emulated was tried again.
    pub(crate) retries: u32,
}

impl Cpu {
    pub(crate) fn new(apic_id: u32, bootstrap: bool, tsc_hz: u64) -> Cpu {
        Cpu {
            lapic: Lapic::new(lapic::Config { apic_id, bootstrap, tsc_hz }),
            state: if bootstrap { RunState::Running } else { RunState::WaitForSipi },
            halted_rflags: 0,
            nmi: false,
            extint: false,
            reset: None,
            started: false,
            tsc_adjust: 0,
            phys_bits: PHYS_BITS_AT_START,
            msrs: msr::Msrs::new(PHYS_BITS_AT_START),
            tpr: 0,
            replay: None,
            calm_until: 0,
            retries: 0,
        }
    }

    /// The machine's time at which the local APIC next acts: one before the
    /// machine's start is due, one beyond the end of time never comes.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let at = i128::from(self.lapic.deadline()?) - i128::from(self.tsc_adjust as i64);
        u64::try_from(at.max(0)).ok()
    }
}

impl Machine {
    /// The TSC that processor `cpu` reads at the machine's time `time`.
    pub(crate) fn guest_tsc(&self, cpu: usize, time: u64) -> u64 {
        time.wrapping_add(self.cpus[cpu].tsc_adjust)
    }

    /// Asks the CPUID policy on behalf of the processor that exited.
    pub(crate) fn with_query<T>(&self, at: &Context<'_>, ask: impl FnOnce(&Query<'_>) -> T) -> T {
        self.query(at.cpu, at.vcpu, at.vcpu.cr4(), ask)
    }

    fn query<T>(
        &self,
        cpu: usize,
        vcpu: &dyn Vcpu,
        cr4: u64,
        ask: impl FnOnce(&Query<'_>) -> T,
    ) -> T {
        let place = self.topology.cpus()[cpu];
        ask(&Query {
            host: &|leaf, subleaf| vcpu.host_cpuid(leaf, subleaf),
            topology: &self.topology,
            apic_id: place.apic_id,
            cr4,
            xcr0: vcpu.xcr0(),
            tsc_hz: self.tsc_hz,
            nodes: self.layout.nodes() as u32,
            node: u32::from(place.node.0),
        })
    }

    /// The first entry of a processor: sets its TSC, takes from the host what
    /// registers depend on.
    pub(crate) fn start(&mut self, cpu: usize, vcpu: &mut dyn Vcpu) {
        let phys_bits = self.query(cpu, vcpu, 0, |query| query.phys_bits());
        let c = &mut self.cpus[cpu];
        c.started = true;
        c.phys_bits = phys_bits;
        c.msrs = msr::Msrs::new(phys_bits);
        vcpu.set_tsc_offset(c.tsc_adjust.wrapping_sub(self.start_tsc));
    }

    /// Takes over a task priority that the guest changed without an exit.
    pub(crate) fn take_tpr(&mut self, cpu: usize, vcpu: &dyn Vcpu) {
        let tpr = vcpu.tpr();
        let cpu = &mut self.cpus[cpu];
        if tpr != cpu.tpr {
            cpu.tpr = tpr;
            cpu.lapic.set_cr8(tpr & 0xF);
        }
    }

    /// Tells the backend a task priority that the guest wrote to the local
    /// APIC. One that does not keep it goes on answering the same.
    pub(crate) fn give_tpr(&mut self, cpu: usize, vcpu: &mut dyn Vcpu) {
        let cpu = &mut self.cpus[cpu];
        let tpr = cpu.lapic.cr8();
        if tpr != cpu.tpr {
            vcpu.set_tpr(tpr);
            cpu.tpr = vcpu.tpr();
        }
    }

    /// Says that a device or a local APIC may have changed.
    pub(crate) fn stir(&mut self) {
        self.cpus.iter_mut().for_each(|cpu| cpu.calm_until = 0);
    }

    /// Whether nothing has changed for the processor since its last entry.
    #[must_use]
    pub fn is_calm(&self, cpu: usize) -> bool {
        self.cpus[cpu].calm_until != 0
    }

    /// Finds out until when the next entries of a processor have nothing to do,
    /// right after one was prepared.
    pub(crate) fn calm(&mut self, cpu: usize) {
        let c = &self.cpus[cpu];
        // The guest may lower CR8 without an exit, but Linux keeps it at 1,
        // which holds nothing back.
        let held_back = self.class_below_cr8(cpu).is_some();
        let calm = !c.nmi && !held_back && !self.has_interrupt(cpu);
        let until = if calm { self.first_deadline().unwrap_or(u64::MAX) } else { 0 };
        self.cpus[cpu].calm_until = until;
    }

    /// Does what is due in the devices and in the processor's local APIC.
    pub(crate) fn run_timers(&mut self, cpu: usize, time: u64) {
        self.devices.tick(time);
        self.sync_lines();
        let tsc = self.guest_tsc(cpu, time);
        let apic = &mut self.cpus[cpu].lapic;
        if apic.deadline().is_some_and(|at| at <= tsc) {
            apic.tick(tsc);
        }
    }
}
