//! Exit codes (APM appendix C) and what they mean.

use addr::{Access, GuestPhys};
use bitflags::bitflags;
use vcpu::{Exit, IoExit};

/// EXITCODE, as far as an intercept of ours can cause it.
pub mod code {
    /// Write of CR8.
    pub const CR8_WRITE: u64 = 0x18;
    /// First of the 32 exception intercepts.
    pub const EXCEPTION: u64 = 0x40;
    /// Last of the 32 exception intercepts.
    pub const EXCEPTION_LAST: u64 = 0x5F;
    /// #PF, whose address is in EXITINFO2: CR2 is left as it was.
    pub const PAGE_FAULT: u64 = EXCEPTION + 14;
    /// Physical interrupt.
    pub const INTR: u64 = 0x60;
    /// Non-maskable interrupt.
    pub const NMI: u64 = 0x61;
    /// System management interrupt.
    pub const SMI: u64 = 0x62;
    /// INIT.
    pub const INIT: u64 = 0x63;
    /// Virtual interrupt.
    pub const VINTR: u64 = 0x64;
    /// RDPMC.
    pub const RDPMC: u64 = 0x6F;
    /// PUSHF, not yet executed.
    pub const PUSHF: u64 = 0x70;
    /// POPF, not yet executed.
    pub const POPF: u64 = 0x71;
    /// CPUID.
    pub const CPUID: u64 = 0x72;
    /// RSM.
    pub const RSM: u64 = 0x73;
    /// IRET, not yet executed.
    pub const IRET: u64 = 0x74;
    /// INT n, not yet executed.
    pub const SWINT: u64 = 0x75;
    /// INVD.
    pub const INVD: u64 = 0x76;
    /// HLT.
    pub const HLT: u64 = 0x78;
    /// INVLPGA.
    pub const INVLPGA: u64 = 0x7A;
    /// Port access.
    pub const IOIO: u64 = 0x7B;
    /// MSR access.
    pub const MSR: u64 = 0x7C;
    /// Legacy FERR freeze.
    pub const FERR_FREEZE: u64 = 0x7E;
    /// Shutdown.
    pub const SHUTDOWN: u64 = 0x7F;
    /// VMRUN.
    pub const VMRUN: u64 = 0x80;
    /// VMMCALL.
    pub const VMMCALL: u64 = 0x81;
    /// VMLOAD.
    pub const VMLOAD: u64 = 0x82;
    /// SKINIT, last of the SVM instructions from VMLOAD on.
    pub const SKINIT: u64 = 0x86;
    /// WBINVD or WBNOINVD.
    pub const WBINVD: u64 = 0x89;
    /// MONITOR or MONITORX.
    pub const MONITOR: u64 = 0x8A;
    /// MWAIT or MWAITX.
    pub const MWAIT: u64 = 0x8B;
    /// MWAIT or MWAITX with an armed monitor.
    pub const MWAIT_CONDITIONAL: u64 = 0x8C;
    /// XSETBV.
    pub const XSETBV: u64 = 0x8D;
    /// RDPRU.
    pub const RDPRU: u64 = 0x8E;
    /// INVLPGB.
    pub const INVLPGB: u64 = 0xA0;
    /// INVLPGB with an illegal operand.
    pub const INVLPGB_ILLEGAL: u64 = 0xA1;
    /// MCOMMIT.
    pub const MCOMMIT: u64 = 0xA3;
    /// TLBSYNC.
    pub const TLBSYNC: u64 = 0xA4;
    /// Nested page fault.
    pub const NPF: u64 = 0x400;
    /// VMRUN found the guest's state or the control block inconsistent.
    pub const INVALID: u64 = u64::MAX;
    /// The same as QEMU 7.2 tells it, with 32 bits.
    pub const INVALID_32: u64 = 0xFFFF_FFFF;
}

bitflags! {
    /// EXITINFO1 of a nested page fault (APM 15.25.6).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PageFaultInfo: u64 {
        /// The nested page was present.
        const PRESENT = 1 << 0;
        /// The access was a write.
        const WRITE = 1 << 1;
        /// The access was a user one; every nested access is.
        const USER = 1 << 2;
        /// A reserved bit was set in a nested entry.
        const RESERVED = 1 << 3;
        /// The access was an instruction fetch.
        const FETCH = 1 << 4;
        /// It came from the guest's final physical address.
        const FINAL = 1 << 32;
        /// It came from the walk of the guest's page tables.
        const WALK = 1 << 33;
    }
}

bitflags! {
    /// EXITINFO1 of a port access (APM 15.10.2). The port is in bits 16 to 31.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct IoInfo: u64 {
        /// IN or INS.
        const INPUT = 1 << 0;
        /// INS or OUTS.
        const STRING = 1 << 2;
        /// REP prefix.
        const REP = 1 << 3;
        /// 8-bit operand.
        const SIZE_8 = 1 << 4;
        /// 16-bit operand.
        const SIZE_16 = 1 << 5;
        /// 32-bit operand.
        const SIZE_32 = 1 << 6;
    }
}

/// The fields of a VMCB that tell an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawExit {
    /// EXITCODE.
    pub code: u64,
    /// EXITINFO1.
    pub info1: u64,
    /// EXITINFO2.
    pub info2: u64,
}

impl RawExit {
    /// Whether VMRUN refused to run the guest.
    #[must_use]
    pub fn is_refused(self) -> bool {
        matches!(self.code, code::INVALID | code::INVALID_32)
    }
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
    /// A machine check, which the host's handler wants to see.
    MachineCheck,
    /// An instruction that has the flags on the stack is about to be executed.
    Flags,
}

/// Says what an exit asks for.
#[must_use]
pub fn decode(raw: RawExit) -> Meaning {
    let exit = match raw.code {
        code::EXCEPTION..=code::EXCEPTION_LAST => return exception(raw),
        code::PUSHF | code::POPF | code::IRET | code::SWINT => return Meaning::Flags,
        // No counter is offered, so every counter number is a wrong one
        // (APM vol. 3, RDPMC).
        code::RDPMC => return Meaning::Reflect { vector: 13, error: Some(0) },
        // An unmasked x87 exception with CR0.NE clear: delivered as if NE were
        // set, since there is no FERR wire from here to a guest's IRQ 13.
        code::FERR_FREEZE => return Meaning::Reflect { vector: 16, error: None },
        code::INTR | code::NMI => Exit::HostInterrupt,
        code::SMI | code::INIT => Exit::Ignore,
        code::VINTR => Exit::InterruptWindow,
        code::CPUID => Exit::Cpuid,
        code::INVD | code::WBINVD => Exit::CacheControl,
        code::HLT => Exit::Hlt,
        code::IOIO => port(raw),
        code::MSR if raw.info1 & 1 == 0 => Exit::Rdmsr,
        code::MSR => Exit::Wrmsr,
        code::SHUTDOWN => Exit::Shutdown,
        code::VMMCALL => Exit::Hypercall,
        code::XSETBV => Exit::Xsetbv,
        code::CR8_WRITE => Exit::WriteCr8,
        code::RSM | code::INVLPGA | code::VMRUN | code::VMLOAD..=code::SKINIT => Exit::Undefined,
        code::MONITOR | code::MWAIT | code::MWAIT_CONDITIONAL | code::RDPRU => Exit::Undefined,
        code::INVLPGB | code::INVLPGB_ILLEGAL | code::MCOMMIT | code::TLBSYNC => Exit::Undefined,
        code::NPF => page_fault(raw),
        _ if raw.is_refused() => Exit::Invalid { code: code::INVALID },
        other => Exit::Invalid { code: other },
    };
    Meaning::Tell(exit)
}

/// Decodes the intercept of an exception. EXITINFO1 has the error code of
/// those that push one; that of #AC is always zero.
fn exception(raw: RawExit) -> Meaning {
    let vector = (raw.code - code::EXCEPTION) as u8;
    match vector {
        0 | 1 | 5..=7 | 16 | 19 => Meaning::Reflect { vector, error: None },
        10..=14 => Meaning::Reflect { vector, error: Some(raw.info1 as u32) },
        17 => Meaning::Reflect { vector, error: Some(0) },
        18 => Meaning::MachineCheck,
        _ => Meaning::Tell(Exit::Invalid { code: raw.code }),
    }
}

/// Decodes EXITINFO1 and 2 of a port access.
fn port(raw: RawExit) -> Exit {
    let info = IoInfo::from_bits_truncate(raw.info1);
    let size = match info & (IoInfo::SIZE_8 | IoInfo::SIZE_16 | IoInfo::SIZE_32) {
        IoInfo::SIZE_8 => 1,
        IoInfo::SIZE_16 => 2,
        IoInfo::SIZE_32 => 4,
        _ => return Exit::Invalid { code: raw.code },
    };
    Exit::Io(IoExit {
        port: (raw.info1 >> 16) as u16,
        size,
        input: info.contains(IoInfo::INPUT),
        string: info.contains(IoInfo::STRING),
        rep: info.contains(IoInfo::REP),
        next_rip: Some(raw.info2),
    })
}

/// Decodes EXITINFO1 and 2 of a nested page fault. A walk of the guest's page
/// tables is a write, whatever else is told: it may set accessed and dirty
/// flags, and is checked as a write (APM 15.25.5).
fn page_fault(raw: RawExit) -> Exit {
    let info = PageFaultInfo::from_bits_truncate(raw.info1);
    if info.contains(PageFaultInfo::RESERVED) {
        return Exit::Invalid { code: raw.code };
    }
    let walk = info.contains(PageFaultInfo::WALK);
    let write = walk || info.contains(PageFaultInfo::WRITE);
    Exit::PageFault {
        gpa: GuestPhys(raw.info2),
        access: if write { Access::Write } else { Access::Read },
        fetch: info.contains(PageFaultInfo::FETCH) && !walk,
        walk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u64, info1: u64, info2: u64) -> Exit {
        match decode(RawExit { code, info1, info2 }) {
            Meaning::Tell(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn page_faults() {
        let fault = |info1| match told(code::NPF, info1, 0x1234_5678) {
            Exit::PageFault { gpa: GuestPhys(0x1234_5678), access, fetch, walk } => {
                (access, fetch, walk)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(0x1_0000_0004), (Access::Read, false, false));
        assert_eq!(fault(0x1_0000_0007), (Access::Write, false, false));
        assert_eq!(fault(0x1_0000_0014), (Access::Read, true, false));
        assert_eq!(fault(0x2_0000_0004), (Access::Write, false, true));
        assert_eq!(fault(0x2_0000_0016), (Access::Write, false, true));
        assert_eq!(told(code::NPF, 0x1_0000_000D, 0), Exit::Invalid { code: code::NPF });
    }

    #[test]
    fn port_accesses() {
        let io = |info1| match told(code::IOIO, info1, 0x7C02) {
            Exit::Io(io) => io,
            other => panic!("{other:?}"),
        };
        let next_rip = Some(0x7C02);
        let out =
            IoExit { port: 0x3F8, size: 1, input: false, string: false, rep: false, next_rip };
        assert_eq!(io(0x03F8_0090), out);
        assert_eq!(io(0x0CFC_0141), IoExit { port: 0xCFC, size: 4, input: true, ..out });
        let rep_insw =
            IoExit { port: 0xFFFF, size: 2, input: true, string: true, rep: true, ..out };
        assert_eq!(io(0xFFFF_022D), rep_insw);
        assert_eq!(told(code::IOIO, 0x03F8_0000, 0), Exit::Invalid { code: code::IOIO });
        assert_eq!(told(code::IOIO, 0x03F8_0030, 0), Exit::Invalid { code: code::IOIO });
    }

    #[test]
    fn exceptions_are_given_back_but_machine_checks() {
        let meaning = |code| decode(RawExit { code, info1: 0, info2: 0 });
        assert_eq!(meaning(0x41), Meaning::Reflect { vector: 1, error: None });
        assert_eq!(meaning(0x51), Meaning::Reflect { vector: 17, error: Some(0) });
        assert_eq!(meaning(0x52), Meaning::MachineCheck);
        let page_fault = RawExit { code: code::PAGE_FAULT, info1: 0x15, info2: 0x1234 };
        assert_eq!(decode(page_fault), Meaning::Reflect { vector: 14, error: Some(0x15) });
        assert_eq!(meaning(0x46), Meaning::Reflect { vector: 6, error: None });
        // #BP is a trap, #DF comes of delivery alone: neither is intercepted.
        for never in [0x43, 0x48] {
            assert_eq!(meaning(never), Meaning::Tell(Exit::Invalid { code: never }));
        }
        assert_eq!(meaning(code::RDPMC), Meaning::Reflect { vector: 13, error: Some(0) });
        assert_eq!(meaning(code::IRET), Meaning::Flags);
    }

    #[test]
    fn instructions_of_svm_do_not_exist_for_a_guest() {
        for code in [0x80, 0x82, 0x83, 0x84, 0x85, 0x86, 0x7A, 0x73, 0x8A, 0x8B, 0x8C, 0x8E, 0xA0] {
            assert_eq!(told(code, 0, 0), Exit::Undefined, "{code:x}");
        }
        assert_eq!(told(0x81, 0, 0), Exit::Hypercall);
    }

    #[test]
    fn the_rest() {
        assert_eq!(told(code::MSR, 0, 0), Exit::Rdmsr);
        assert_eq!(told(code::MSR, 1, 0), Exit::Wrmsr);
        assert_eq!(told(code::INTR, 0, 0), Exit::HostInterrupt);
        assert_eq!(told(code::VINTR, 0, 0), Exit::InterruptWindow);
        assert_eq!(told(code::SHUTDOWN, 0, 0), Exit::Shutdown);
        assert_eq!(told(code::XSETBV, 0, 0), Exit::Xsetbv);
        assert_eq!(told(0x18, 0, 0), Exit::WriteCr8);
        assert_eq!(told(code::INVALID, 0, 0), Exit::Invalid { code: u64::MAX });
        assert_eq!(told(0xFFFF_FFFF, 0, 0), Exit::Invalid { code: u64::MAX });
        // Never intercepted, so never expected: a task switch.
        assert_eq!(told(0x7D, 0, 0), Exit::Invalid { code: 0x7D });
    }
}
