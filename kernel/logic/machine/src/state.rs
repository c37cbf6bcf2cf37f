//! Run states, and the registers that INIT, start-up and the loader set.

use vcpu::{Registers, Segment, SystemRegisters};

/// What a processor does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// Runs the guest.
    Running,
    /// In HLT.
    Halted,
    /// After INIT, waits for a start-up IPI.
    WaitForSipi,
}

/// Where a processor starts after INIT or start-up: CS selector and RIP.
pub(crate) type Vector = (u16, u64);

/// The reset vector (Intel SDM vol. 3, 10.1.4), as a selector and an offset.
pub(crate) const INIT_VECTOR: Vector = (0xF000, 0xFFF0);

/// Where a start-up IPI with this vector starts a processor.
pub(crate) fn sipi_vector(page: u8) -> Vector {
    (u16::from(page) << 8, 0)
}

/// IA32_PAT after reset.
pub(crate) const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// Attributes: present, code or data (S), accessed, and the type.
const CODE: u16 = 0x9B;
const DATA: u16 = 0x93;
const LDT: u16 = 0x82;
const TSS_BUSY: u16 = 0x8B;
const GRANULAR: u16 = 1 << 11;

/// State after INIT or start-up (Intel SDM vol. 3, table 10-1).
pub(crate) fn real_mode((selector, rip): Vector) -> (Registers, SystemRegisters) {
    let registers = Registers { rip, rflags: 2, ..Registers::default() };
    let data = Segment { selector: 0, attributes: DATA, limit: 0xFFFF, base: 0 };
    let base = if selector == INIT_VECTOR.0 { 0xFFFF_0000 } else { u64::from(selector) << 4 };
    let table = Segment { limit: 0xFFFF, ..Segment::default() };
    let system = SystemRegisters {
        cr0: 0x6000_0010,
        pat: PAT_RESET,
        cs: Segment { selector, attributes: CODE, limit: 0xFFFF, base },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        ldtr: Segment { attributes: LDT, ..table },
        tr: Segment { attributes: TSS_BUSY, ..table },
        gdtr: table,
        idtr: table,
        ..SystemRegisters::default()
    };
    (registers, system)
}

/// Long mode with flat segments as the 64-bit boot protocol wants them:
/// paging on with `cr3`, CS 0x10 and the data segments 0x18 of the GDT at
/// `gdt` with `gdt_limit`.
pub(crate) fn long_mode(cr3: u64, gdt: u64, gdt_limit: u32) -> SystemRegisters {
    let data = Segment {
        selector: 0x18,
        attributes: DATA | Segment::DEFAULT_BIG | GRANULAR,
        limit: u32::MAX,
        base: 0,
    };
    SystemRegisters {
        cr0: 0x8000_0031, // PG, NE, ET, PE
        cr3,
        cr4: 1 << 5, // PAE
        efer: 0x500, // LMA, LME
        pat: PAT_RESET,
        cs: Segment {
            selector: 0x10,
            attributes: CODE | Segment::LONG | GRANULAR,
            limit: u32::MAX,
            base: 0,
        },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        ldtr: Segment { attributes: LDT, ..Segment::default() },
        tr: Segment { attributes: TSS_BUSY, limit: 0x67, ..Segment::default() },
        gdtr: Segment { base: gdt, limit: gdt_limit, ..Segment::default() },
        idtr: Segment::default(),
        ..SystemRegisters::default()
    }
}
