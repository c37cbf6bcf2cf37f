//! The instruction emulator and the walker of the guest's page tables: any
//! instruction, any mode, any tables.

use super::guest::Guest;
use crate::input::Input;
use addr::{Access, GuestPhys};
use vcpu::{Exit, Segment};

/// Where the tables that the fuzzer fills lie; CR3 mostly points here.
const TABLES: u64 = 0x2000;
/// Where the instruction lies.
const CODE: u64 = 0x1000;

const CR0: [u64; 4] = [0x11, 0x8000_0011, 0x8001_0011, 0x10];
const CR4: [u64; 6] = [0, 1 << 4, 1 << 5, 1 << 5 | 1 << 20, 1 << 5 | 1 << 21, 1 << 5 | 1 << 12];
const EFER: [u64; 4] = [0, 0xD00, 0x500, 0x800];

fn mode(guest: &mut Guest, input: &mut Input<'_>) {
    let system = &mut guest.vcpu.system;
    system.cr0 = input.one_of(&CR0);
    system.cr4 = input.one_of(&CR4);
    system.efer = input.one_of(&EFER);
    system.cr3 = if input.u8() < 220 { TABLES } else { input.u64() };
    system.cpl = if input.u8() & 3 == 0 { 3 } else { 0 };
    let bits = input.below(3);
    let attributes = 0x9B
        | if bits == 2 { Segment::LONG } else { 0 }
        | if bits == 1 { Segment::DEFAULT_BIG } else { 0 };
    let segment = Segment { selector: 8, attributes, limit: u32::MAX, base: 0 };
    system.cs = segment;
    let base = if input.u8() & 7 == 0 { input.skewed() } else { 0 };
    for s in [&mut system.ds, &mut system.es, &mut system.ss, &mut system.fs, &mut system.gs] {
        *s = Segment { base, ..segment };
    }
    guest.vcpu.registers.rflags = 2 | u64::from(input.u16() & 0x0ED5);
}

/// Tables whose entries mostly point at each other, the code, or a device.
fn tables(guest: &mut Guest, input: &mut Input<'_>) {
    let count = input.below(24);
    for _ in 0..count {
        let table = TABLES + (u64::from(input.u8() & 7) << 12);
        let place = table + u64::from(input.u16() & 0xFFF) / 8 * 8;
        let target =
            input.one_of(&[0, CODE, TABLES, TABLES + 0x1000, 0x5000, 0xFEE0_0000, 0xFEC0_0000]);
        let flags = u64::from(input.u16() & 0xFFF) | u64::from(input.u8() >> 7) << 63;
        guest.ram.put(place, &(target | flags).to_le_bytes());
    }
    // The first entries mostly lead on, or few addresses could be reached.
    if input.u8() < 200 {
        for level in 0..4 {
            let next = if level == 3 { 0x83 } else { (TABLES + ((level + 1) << 12)) | 7 };
            guest.ram.put(TABLES + (level << 12), &next.to_le_bytes());
        }
    }
}

/// One faulting instruction after the other.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut guest = Guest::new();
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        mode(&mut guest, &mut input);
        tables(&mut guest, &mut input);
        guest.registers(&mut input);
        let gpa = input.one_of(&[0xFEE0_0000, 0xFEC0_0000, 0xE000_0000, 0xC000_0000u64])
            + u64::from(input.u8());
        for register in [vcpu::RDI, vcpu::RSI, vcpu::RBX] {
            if input.u8() & 1 == 0 {
                guest.vcpu.registers.gpr[register] = gpa;
            }
        }
        guest.vcpu.registers.rip = if input.u8() < 230 { CODE } else { input.skewed() };
        let code = input.bytes(15);
        guest.ram.put(CODE, code);
        let flags = input.u8();
        let exit = Exit::PageFault {
            gpa: GuestPhys(gpa),
            access: if flags & 1 == 0 { Access::Read } else { Access::Write },
            fetch: flags & 6 == 6,
            walk: flags & 24 == 24,
        };
        guest.vcpu.injected = None;
        if !guest.exit(exit) {
            break;
        }
    }
}
