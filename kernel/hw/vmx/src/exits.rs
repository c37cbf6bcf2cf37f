//! Exit reasons (SDM appendix C) and what they mean.

use addr::{Access, GuestPhys};
use bitflags::bitflags;
use vcpu::{Exit, IoExit};

/// Basic exit reasons, as far as a control of ours can cause them.
pub mod reason {
    /// Exception or NMI.
    pub const EXCEPTION: u32 = 0;
    /// Physical interrupt.
    pub const INTERRUPT: u32 = 1;
    /// Triple fault.
    pub const TRIPLE_FAULT: u32 = 2;
    /// INIT.
    pub const INIT: u32 = 3;
    /// Start-up IPI.
    pub const SIPI: u32 = 4;
    /// System management interrupt right after an I/O instruction.
    pub const IO_SMI: u32 = 5;
    /// Other system management interrupt.
    pub const SMI: u32 = 6;
    /// Interrupt window.
    pub const INTERRUPT_WINDOW: u32 = 7;
    /// NMI window.
    pub const NMI_WINDOW: u32 = 8;
    /// CPUID.
    pub const CPUID: u32 = 10;
    /// GETSEC.
    pub const GETSEC: u32 = 11;
    /// HLT.
    pub const HLT: u32 = 12;
    /// INVD.
    pub const INVD: u32 = 13;
    /// RDPMC.
    pub const RDPMC: u32 = 15;
    /// RSM.
    pub const RSM: u32 = 17;
    /// VMCALL.
    pub const VMCALL: u32 = 18;
    /// VMCLEAR, first of nine instructions of VMX.
    pub const VMCLEAR: u32 = 19;
    /// VMXON, last of them.
    pub const VMXON: u32 = 27;
    /// Access to a control register.
    pub const CONTROL_REGISTER: u32 = 28;
    /// Port access.
    pub const IO: u32 = 30;
    /// RDMSR.
    pub const RDMSR: u32 = 31;
    /// WRMSR.
    pub const WRMSR: u32 = 32;
    /// MWAIT.
    pub const MWAIT: u32 = 36;
    /// MONITOR.
    pub const MONITOR: u32 = 39;
    /// The entry failed because of a machine check.
    pub const ENTRY_MACHINE_CHECK: u32 = 41;
    /// Task priority below the threshold.
    pub const TPR_BELOW_THRESHOLD: u32 = 43;
    /// EPT violation.
    pub const EPT_VIOLATION: u32 = 48;
    /// INVEPT.
    pub const INVEPT: u32 = 50;
    /// INVVPID.
    pub const INVVPID: u32 = 53;
    /// WBINVD or WBNOINVD.
    pub const WBINVD: u32 = 54;
    /// XSETBV.
    pub const XSETBV: u32 = 55;
    /// VMFUNC.
    pub const VMFUNC: u32 = 59;
    /// Set in the exit reason when an entry failed (SDM 25.9.1).
    pub const ENTRY_FAILED: u32 = 1 << 31;
}

/// Set in [`Exit::Invalid`]'s code where VMLAUNCH or VMRESUME failed without
/// an exit; the rest is the VM-instruction error (SDM 31.4).
pub const VM_FAIL: u64 = 1 << 32;

bitflags! {
    /// Exit qualification of an EPT violation (SDM table 28-7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Violation: u64 {
        /// The access was a read.
        const READ = 1 << 0;
        /// The access was a write; so is a walk that sets a flag.
        const WRITE = 1 << 1;
        /// The access was an instruction fetch.
        const FETCH = 1 << 2;
        /// There is a linear address; there is none when PDPTEs are loaded.
        const LINEAR = 1 << 7;
        /// With LINEAR: the access was to the translation of the address, not
        /// to a page table on the way there.
        const FINAL = 1 << 8;
        /// IRET had just ended the blocking of NMIs.
        const NMI_UNBLOCKED = 1 << 12;
    }
}

/// Exit interruption information (SDM table 25-19): IRET had just ended the
/// blocking of NMIs.
pub const EVENT_NMI_UNBLOCKED: u64 = 1 << 12;

/// The fields that tell an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawExit {
    /// Exit reason.
    pub reason: u32,
    /// Exit qualification.
    pub qualification: u64,
    /// Guest-physical address, of an EPT violation.
    pub gpa: u64,
    /// Exit interruption information, of an exception or NMI.
    pub event: u64,
    /// Address of the next instruction, where an instruction caused the exit.
    pub next_rip: u64,
}

/// What an exit asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// Tell the machine.
    Tell(Exit),
    /// Give the guest its exception back.
    Reflect {
        /// Vector.
        vector: u8,
        /// Error code, for the vectors that push one.
        error: Option<u32>,
    },
    /// Give the guest its #DB back; these bits of DR6 are what it is about.
    Debug {
        /// Bits of DR6.
        dr6: u64,
    },
    /// Give the guest the #DB of its INT1, which is a trap.
    DebugTrap,
    /// A machine check, which the host's handler wants to see.
    MachineCheck,
    /// An NMI, which the host's handler wants to see.
    Nmi,
    /// MOV to CR0 from the general register with this number.
    WriteCr0(usize),
    /// MOV to CR4.
    WriteCr4(usize),
}

/// Whether an instruction causes exits of this reason, so that its length is
/// told (SDM 28.2.5). The ones of #DB are left out.
#[must_use]
pub fn is_instruction(reason: u32) -> bool {
    matches!(
        reason,
        reason::CPUID..=reason::INVD
            | reason::RDPMC
            | reason::RSM..=reason::WRMSR
            | reason::MWAIT
            | reason::MONITOR
            | reason::INVEPT
            | reason::INVVPID..=reason::XSETBV
            | reason::VMFUNC
    )
}

/// Says what an exit asks for.
#[must_use]
pub fn decode(raw: RawExit) -> Meaning {
    let exit = match raw.reason {
        reason::EXCEPTION => return exception(raw),
        reason::CONTROL_REGISTER => return control_register(raw),
        // No counter is offered, so every counter number is a wrong one
        // (SDM vol. 2, RDPMC).
        reason::RDPMC => return Meaning::Reflect { vector: 13, error: Some(0) },
        reason::INTERRUPT => Exit::HostInterrupt,
        reason::TRIPLE_FAULT => Exit::Shutdown,
        reason::INIT | reason::SIPI | reason::IO_SMI | reason::SMI => Exit::Ignore,
        reason::INTERRUPT_WINDOW | reason::NMI_WINDOW | reason::TPR_BELOW_THRESHOLD => {
            Exit::InterruptWindow
        }
        reason::CPUID => Exit::Cpuid,
        reason::HLT => Exit::Hlt,
        reason::INVD | reason::WBINVD => Exit::CacheControl,
        reason::VMCALL => Exit::Hypercall,
        reason::IO => port(raw),
        reason::RDMSR => Exit::Rdmsr,
        reason::WRMSR => Exit::Wrmsr,
        reason::XSETBV => Exit::Xsetbv,
        reason::EPT_VIOLATION => violation(raw),
        reason::VMCLEAR..=reason::VMXON
        | reason::INVEPT
        | reason::INVVPID
        | reason::VMFUNC
        | reason::GETSEC
        | reason::RSM
        | reason::MWAIT
        | reason::MONITOR => Exit::Undefined,
        other if other == reason::ENTRY_FAILED | reason::ENTRY_MACHINE_CHECK => {
            return Meaning::MachineCheck;
        }
        other => Exit::Invalid { code: u64::from(other) },
    };
    Meaning::Tell(exit)
}

/// Decodes the exit of an exception or NMI.
fn exception(raw: RawExit) -> Meaning {
    const PRIVILEGED_SOFTWARE: u64 = 5;
    let kind = raw.event >> 8 & 7;
    match raw.event & 0xFF {
        1 if kind == PRIVILEGED_SOFTWARE => Meaning::DebugTrap,
        1 => Meaning::Debug { dr6: raw.qualification },
        2 => Meaning::Nmi,
        17 => Meaning::Reflect { vector: 17, error: Some(0) },
        18 => Meaning::MachineCheck,
        _ => Meaning::Tell(Exit::Invalid { code: u64::from(raw.reason) }),
    }
}

/// Decodes the qualification of an access to a control register (SDM table
/// 28-3): number, kind, general register.
fn control_register(raw: RawExit) -> Meaning {
    const MOV_TO: u64 = 0;
    let kind = raw.qualification >> 4 & 3;
    let register = (raw.qualification >> 8 & 0xF) as usize;
    match (raw.qualification & 0xF, kind) {
        (0, MOV_TO) => Meaning::WriteCr0(register),
        (4, MOV_TO) => Meaning::WriteCr4(register),
        _ => Meaning::Tell(Exit::Invalid { code: u64::from(raw.reason) }),
    }
}

/// Decodes the qualification of a port access (SDM table 28-5).
fn port(raw: RawExit) -> Exit {
    let has = |bit: u32| raw.qualification & 1 << bit != 0;
    let size = match raw.qualification & 7 {
        0 => 1,
        1 => 2,
        3 => 4,
        _ => return Exit::Invalid { code: u64::from(raw.reason) },
    };
    Exit::Io(IoExit {
        port: (raw.qualification >> 16) as u16,
        size,
        input: has(3),
        string: has(4),
        rep: has(5),
        next_rip: Some(raw.next_rip),
    })
}

/// Decodes an EPT violation. Without accessed and dirty flags in the EPT, a
/// walk of the guest's page tables is a read, unless it sets a flag there.
fn violation(raw: RawExit) -> Exit {
    let info = Violation::from_bits_truncate(raw.qualification);
    let walk = !info.contains(Violation::LINEAR | Violation::FINAL);
    let write = info.contains(Violation::WRITE);
    Exit::PageFault {
        gpa: GuestPhys(raw.gpa),
        access: if write { Access::Write } else { Access::Read },
        fetch: info.contains(Violation::FETCH) && !walk,
        walk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(raw: RawExit) -> Exit {
        match decode(raw) {
            Meaning::Tell(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    fn plain(reason: u32) -> Exit {
        told(RawExit { reason, ..RawExit::default() })
    }

    #[test]
    fn page_faults() {
        let fault = |qualification| {
            let reason = reason::EPT_VIOLATION;
            let raw = RawExit { reason, qualification, gpa: 0x1234_5678, ..RawExit::default() };
            match told(raw) {
                Exit::PageFault { gpa: GuestPhys(0x1234_5678), access, fetch, walk } => {
                    (access, fetch, walk)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(fault(0x181), (Access::Read, false, false));
        assert_eq!(fault(0x182), (Access::Write, false, false));
        assert_eq!(fault(0x1AB), (Access::Write, false, false), "an upgrade");
        assert_eq!(fault(0x184), (Access::Read, true, false));
        assert_eq!(fault(0x081), (Access::Read, false, true));
        assert_eq!(fault(0x083), (Access::Write, false, true), "sets a flag");
        assert_eq!(fault(0x001), (Access::Read, false, true), "loads PDPTEs");
    }

    #[test]
    fn port_accesses() {
        let io = |qualification| {
            told(RawExit {
                reason: reason::IO,
                qualification,
                next_rip: 0x7C02,
                ..RawExit::default()
            })
        };
        let next_rip = Some(0x7C02);
        let out =
            IoExit { port: 0x3F8, size: 1, input: false, string: false, rep: false, next_rip };
        assert_eq!(io(0x03F8_0000), Exit::Io(out));
        assert_eq!(io(0x0CFC_000B), Exit::Io(IoExit { port: 0xCFC, size: 4, input: true, ..out }));
        let rep_insw =
            IoExit { port: 0xFFFF, size: 2, input: true, string: true, rep: true, ..out };
        assert_eq!(io(0xFFFF_0039), Exit::Io(rep_insw));
        assert_eq!(io(2), Exit::Invalid { code: 30 });
    }

    #[test]
    fn exceptions_are_given_back_but_machine_checks_and_nmis() {
        let meaning = |event| {
            decode(RawExit { reason: 0, event, qualification: 0x4001, ..RawExit::default() })
        };
        assert_eq!(meaning(0x8000_0301), Meaning::Debug { dr6: 0x4001 });
        assert_eq!(meaning(0x8000_0501), Meaning::DebugTrap);
        assert_eq!(meaning(0x8000_0202), Meaning::Nmi);
        assert_eq!(meaning(0x8000_0B11), Meaning::Reflect { vector: 17, error: Some(0) });
        assert_eq!(meaning(0x8000_0312), Meaning::MachineCheck);
        assert_eq!(meaning(0x8000_0B0E), Meaning::Tell(Exit::Invalid { code: 0 }));
    }

    #[test]
    fn control_registers() {
        let meaning =
            |qualification| decode(RawExit { reason: 28, qualification, ..RawExit::default() });
        assert_eq!(meaning(0x0000), Meaning::WriteCr0(0));
        assert_eq!(meaning(0x0F04), Meaning::WriteCr4(15));
        // CR3 and CR8, CLTS and LMSW are never intercepted.
        for other in [0x003, 0x008, 0x010, 0x020, 0x030] {
            assert_eq!(meaning(other), Meaning::Tell(Exit::Invalid { code: 28 }), "{other:x}");
        }
    }

    #[test]
    fn instructions_of_vmx_do_not_exist_for_a_guest() {
        for reason in (19..=27).chain([11, 17, 36, 39, 50, 53, 59]) {
            assert_eq!(plain(reason), Exit::Undefined, "{reason}");
            assert!(is_instruction(reason), "{reason}");
        }
        assert_eq!(plain(18), Exit::Hypercall);
    }

    #[test]
    fn the_rest() {
        assert_eq!(plain(31), Exit::Rdmsr);
        assert_eq!(plain(32), Exit::Wrmsr);
        assert_eq!(plain(1), Exit::HostInterrupt);
        for window in [7, 8, 43] {
            assert_eq!(plain(window), Exit::InterruptWindow);
        }
        assert_eq!(plain(2), Exit::Shutdown);
        assert_eq!(plain(13), Exit::CacheControl);
        assert_eq!(plain(54), Exit::CacheControl);
        assert_eq!(plain(55), Exit::Xsetbv);
        for asynchronous in [0, 1, 2, 3, 7, 8, 43, 48, 49] {
            assert!(!is_instruction(asynchronous), "{asynchronous}");
        }
        assert_eq!(plain(0x8000_0021), Exit::Invalid { code: 0x8000_0021 });
        let machine_check = RawExit { reason: 0x8000_0029, ..RawExit::default() };
        assert_eq!(decode(machine_check), Meaning::MachineCheck);
        // Not expected: a task switch, an EPT misconfiguration.
        assert_eq!(plain(9), Exit::Invalid { code: 9 });
        assert_eq!(plain(49), Exit::Invalid { code: 49 });
    }
}
