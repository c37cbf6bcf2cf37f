//! From the end of an exit's handling to what the caller is to do.

use crate::stop::{Death, Stop};
use crate::{Context, Machine};
use addr::{Access, Gfn};

/// Exits in a row for an access that is not emulated, which are only tried
/// again: another processor may have changed the translation meanwhile.
const RETRIES: u32 = 4;

/// What became of an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Run the guest on.
    Resume,
    /// The processor halted; run it when [`Machine::wakes`].
    Halted,
    /// Fetch the page, then handle the same exit again.
    Pending {
        /// The page.
        gfn: Gfn,
        /// What is to be done with it.
        access: Access,
    },
    /// The guest switched itself off.
    PowerOff,
    /// The guest resets itself.
    Reset,
    /// The guest cannot go on.
    Dead(Death),
    /// A hypercall: the registers hold it. The caller sets RAX and calls
    /// [`Machine::end_hypercall`].
    Hypercall,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    Off,
    Reset,
}

impl Machine {
    /// Forgets what belonged to one exit only.
    pub(crate) fn settle(&mut self, cpu: usize, progress: bool) {
        self.cpus[cpu].replay = None;
        if progress {
            self.cpus[cpu].retries = 0;
        }
    }

    pub(crate) fn stopped(&mut self, at: &mut Context<'_>, stop: Stop) -> Outcome {
        let (event, cr2) = match stop {
            Stop::Pending { gfn, access } => {
                self.counters.pending += 1;
                return Outcome::Pending { gfn, access };
            }
            Stop::Unemulatable => {
                self.cpus[at.cpu].replay = None;
                return self.unemulatable(at);
            }
            Stop::Fault { event, cr2 } => (event, cr2),
        };
        if let Some(cr2) = cr2 {
            let mut system = at.vcpu.system();
            system.cr2 = cr2;
            at.vcpu.set_system(&system);
        }
        self.settle(at.cpu, false);
        self.counters.injected += 1;
        at.vcpu.inject(event);
        Outcome::Resume
    }

    /// An instruction at which device memory was touched, but which the
    /// machine does not emulate. It may be that another processor changed
    /// the mapping meanwhile: the first few times it is tried again. Then it
    /// raises #GP, as some processors do for a wrong type of memory. What the
    /// guest makes of that is its own affair: one that cannot handle it ends
    /// by a triple fault.
    fn unemulatable(&mut self, at: &mut Context<'_>) -> Outcome {
        let cpu = &mut self.cpus[at.cpu];
        cpu.retries += 1;
        if cpu.retries <= RETRIES {
            return Outcome::Resume;
        }
        cpu.retries = 0;
        self.counters.unemulatable.count(at.vcpu.registers().rip);
        self.counters.injected += 1;
        at.vcpu.inject(vcpu::Event::GENERAL_PROTECTION);
        Outcome::Resume
    }

    pub(crate) fn power_outcome(&mut self) -> Outcome {
        match self.power.take() {
            Some(Power::Off) => Outcome::PowerOff,
            Some(Power::Reset) => Outcome::Reset,
            None => Outcome::Resume,
        }
    }
}
