//! Why handling an exit ends before its instruction does.

use crate::memory::MemoryError;
use addr::{Access, Gfn};
use vcpu::Event;

/// Why the guest cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The processor shut down after a fault in a double fault (AMD APM
    /// vol. 2, 14.1.3).
    TripleFault,
    /// The hardware refused the processor's state; the vendor's code.
    RefusedState(u64),
    /// HLT with interrupts off on the only processor, and no NMI source.
    HaltedForEver {
        /// Where the HLT is.
        rip: u64,
    },
    /// The processor walks page tables that are not in memory.
    PageTableNotMemory {
        /// The table entry's address.
        gpa: u64,
    },
}

impl core::fmt::Display for Death {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Death::TripleFault => f.write_str("triple fault"),
            Death::RefusedState(code) => {
                write!(f, "the processor refused the guest's state (code {code:#x})")
            }
            Death::HaltedForEver { rip } => {
                write!(f, "halted at {rip:#x} with interrupts off; nothing can wake it")
            }
            Death::PageTableNotMemory { gpa } => {
                write!(f, "a page table at {gpa:#x}, where there is no memory")
            }
        }
    }
}

/// What keeps an instruction from being completed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// A page is not here.
    Pending { gfn: Gfn, access: Access },
    /// The instruction raises an event; a page fault also sets CR2.
    Fault { event: Event, cr2: Option<u64> },
    /// Not an instruction that the machine emulates.
    Unemulatable,
}

impl Stop {
    /// #GP(0).
    pub(crate) const PROTECTION: Stop = Stop::Fault { event: Event::GENERAL_PROTECTION, cr2: None };
    /// #UD.
    pub(crate) const UNDEFINED: Stop = Stop::Fault { event: Event::UNDEFINED, cr2: None };

    /// #PF at `linear`.
    pub(crate) const fn page_fault(linear: u64, error: u32) -> Stop {
        Stop::Fault {
            event: Event::Exception { vector: 14, error: Some(error) },
            cr2: Some(linear),
        }
    }
}

impl From<chipset::GeneralProtection> for Stop {
    fn from(_: chipset::GeneralProtection) -> Stop {
        Stop::PROTECTION
    }
}

/// A failed access to memory that the instruction names by physical address:
/// where there is no RAM it raises #GP, as a wrong MSR value does.
impl From<MemoryError> for Stop {
    fn from(error: MemoryError) -> Stop {
        match error {
            MemoryError::Pending { gfn, access } => Stop::Pending { gfn, access },
            MemoryError::NotMemory => Stop::PROTECTION,
        }
    }
}
