//! Operands that reach over pages or fault, single steps, and the rarer
//! forms. The I/O APIC's index register is a byte that keeps what is written;
//! where nobody answers, all bits are ones.

use crate::testing::{CODE, Guest};
use crate::*;
use vcpu::{Event, RAX, RBX, RCX, RDI, RFLAGS_RF, RFLAGS_TF, RSI, RSP};

const IOAPIC: u64 = 0xFEC0_0000;
const NOBODY: u64 = 0xC000_0000;
/// Two pages of 4 KiB in a directory entry that the tests' own table fills.
const PAGES: u64 = 0x80_0000;
const TABLE: u64 = 0x9000;
const ZF: u64 = 1 << 6;

/// A guest whose page at [`PAGES`] maps to `first`, and the next to `second`
/// if that is anything.
fn guest(first: u64, second: Option<u64>) -> Guest {
    let mut g = Guest::new(true);
    g.ram.put_u64(0x4000 + 8 * (PAGES >> 21), TABLE | 3);
    g.ram.put_u64(TABLE, first | 3);
    g.ram.put_u64(TABLE + 8, second.map_or(0, |page| page | 3));
    g.vcpu.registers.gpr[RSP] = 0x30_0000;
    g
}

fn run(g: &mut Guest, code: &[u8]) {
    let rip = g.vcpu.registers.rip;
    assert_eq!(g.device(code, NOBODY), Outcome::Resume);
    assert_eq!(g.vcpu.injected, None, "{code:02x?}");
    assert_eq!(g.vcpu.registers.rip, rip + code.len() as u64, "{code:02x?}");
}

fn reads(g: &Guest) -> u64 {
    g.machine.counters().unknown_mmio.entries().map(|e| e.1).sum()
}

/// The page fault that an instruction raises, and CR2.
fn fault(g: &mut Guest, code: &[u8]) -> (Option<Event>, u64) {
    assert_eq!(g.device(code, NOBODY), Outcome::Resume);
    assert_eq!(g.vcpu.registers.rip, CODE, "the instruction is not done");
    (g.vcpu.injected.take(), g.vcpu.system.cr2)
}

const fn page_fault(error: u32, cr2: u64) -> (Option<Event>, u64) {
    (Some(Event::Exception { vector: 14, error: Some(error) }), cr2)
}

#[test]
fn an_operand_half_in_memory() {
    // RAM, then a device.
    let mut g = guest(0x30_0000, Some(NOBODY));
    g.ram.put(0x30_0FFE, &[0x34, 0x12]);
    g.vcpu.registers.gpr[RDI] = PAGES + 0xFFE;
    run(&mut g, &[0x8B, 0x07]); // MOV EAX, [RDI]
    assert_eq!(g.vcpu.registers.gpr[RAX], 0xFFFF_1234);
    g.vcpu.registers.gpr[RAX] = 0x1122_3344;
    run(&mut g, &[0x89, 0x07]); // MOV [RDI], EAX
    assert_eq!(g.ram.get(0x30_0FFE, 2), [0x44, 0x33]);
    // A device, then RAM, changed in place: the device is read once, however
    // often the page has to be fetched.
    let mut g = guest(NOBODY, Some(0x31_0000));
    g.ram.put(0x31_0000, &[1, 0]);
    g.vcpu.registers.gpr[RDI] = PAGES + 0xFFE;
    run(&mut g, &[0x83, 0x07, 0x01]); // ADD DWORD [RDI], 1
    assert_eq!(g.ram.get(0x31_0000, 2), [2, 0]);
    assert_eq!(reads(&g), 2, "one read and one write");
    // Two devices.
    let mut g = guest(NOBODY, Some(NOBODY + 0x1000));
    g.vcpu.registers.gpr[RDI] = PAGES + 0xFFD;
    run(&mut g, &[0x48, 0x8B, 0x07]); // MOV RAX, [RDI]
    assert_eq!((g.vcpu.registers.gpr[RAX], reads(&g)), (u64::MAX, 2));
}

#[test]
fn an_operand_whose_second_page_is_absent_faults_there() {
    let mut g = guest(NOBODY, None);
    let border = PAGES + 0x1000;
    g.vcpu.registers.gpr[RDI] = border - 2;
    g.vcpu.registers.gpr[RSI] = border - 2;
    g.vcpu.registers.gpr[RCX] = 3;
    assert_eq!(fault(&mut g, &[0x8B, 0x07]), page_fault(0, border));
    assert_eq!(fault(&mut g, &[0x89, 0x07]), page_fault(2, border));
    assert_eq!(fault(&mut g, &[0xF3, 0xAB]), page_fault(2, border), "REP STOSD");
    assert_eq!(fault(&mut g, &[0xAD]), page_fault(0, border), "LODSD");
    assert_eq!((reads(&g), g.vcpu.registers.gpr[RCX]), (0, 3), "nothing was done");
    // The elements before it are done.
    g.vcpu.registers.gpr[RDI] = border - 10;
    assert_eq!(fault(&mut g, &[0xF3, 0xAB]), page_fault(2, border));
    assert_eq!((g.vcpu.registers.gpr[RDI], g.vcpu.registers.gpr[RCX]), (border - 2, 1));
}

#[test]
fn exchanges() {
    let mut g = guest(IOAPIC, None);
    g.vcpu.registers.gpr[RDI] = PAGES;
    g.vcpu.registers.gpr[RAX] = 0x11;
    run(&mut g, &[0x88, 0x07]); // MOV [RDI], AL
    g.vcpu.registers.gpr[RBX] = 0x22;
    run(&mut g, &[0xF0, 0x0F, 0xC0, 0x1F]); // LOCK XADD [RDI], BL
    assert_eq!(g.vcpu.registers.gpr[RBX], 0x11);
    g.vcpu.registers.gpr[RAX] = 0xFFFF_FF33;
    run(&mut g, &[0xF0, 0x0F, 0xB0, 0x1F]); // LOCK CMPXCHG [RDI], BL
    assert_eq!(g.vcpu.registers.rflags & ZF, ZF);
    run(&mut g, &[0x0F, 0xB0, 0x1F]); // CMPXCHG: AL is no longer what is there
    assert_eq!(g.vcpu.registers.rflags & ZF, 0);
    assert_eq!(g.vcpu.registers.gpr[RAX], 0xFFFF_FF11);
}

#[test]
fn conditions() {
    let mut g = guest(IOAPIC, None);
    g.vcpu.registers.gpr[RDI] = PAGES;
    for (flags, expected) in [(ZF | 2, 1), (2, 0)] {
        g.vcpu.registers.rflags = flags;
        run(&mut g, &[0x0F, 0x94, 0x07]); // SETE [RDI]
        g.vcpu.registers.gpr[RAX] = u64::MAX;
        run(&mut g, &[0x0F, 0x44, 0x07]); // CMOVE EAX, [RDI]
        let want = if expected == 1 { 1 } else { 0xFFFF_FFFF };
        assert_eq!(g.vcpu.registers.gpr[RAX], want, "the upper half goes either way");
    }
}

#[test]
fn the_stack() {
    let mut g = guest(NOBODY, None);
    g.vcpu.registers.gpr[RDI] = PAGES;
    g.vcpu.registers.gpr[RSP] = 0x30_0004;
    run(&mut g, &[0xFF, 0x37]); // PUSH QWORD [RDI]
    assert_eq!(g.vcpu.registers.gpr[RSP], 0x2F_FFFC);
    assert_eq!(g.ram.get_u64(0x2F_FFFC), u64::MAX);
    assert_eq!(reads(&g), 1, "a stack that is not there reads the device no second time");
    run(&mut g, &[0x66, 0x8F, 0x07]); // POP WORD [RDI]
    assert_eq!(g.vcpu.registers.gpr[RSP], 0x2F_FFFE);
    // A stack that faults.
    g.vcpu.registers.rip = CODE;
    g.vcpu.registers.gpr[RSP] = PAGES + 0x1008;
    assert_eq!(fault(&mut g, &[0xFF, 0x37]), page_fault(2, PAGES + 0x1000));
    assert_eq!(g.vcpu.registers.gpr[RSP], PAGES + 0x1008);
}

#[test]
fn scans() {
    let mut g = guest(NOBODY, None);
    g.ram.put(0x30_0000, &[0xFF, 0xFF, 0xFE, 0xFF]);
    let at = |g: &mut Guest, rsi, rdi| {
        g.vcpu.registers.gpr[RSI] = rsi;
        g.vcpu.registers.gpr[RDI] = rdi;
        g.vcpu.registers.gpr[RCX] = 4;
    };
    at(&mut g, PAGES, 0x30_0000);
    run(&mut g, &[0xF3, 0xA6]); // REPE CMPSB
    let r = &g.vcpu.registers;
    assert_eq!((r.gpr[RSI], r.gpr[RDI], r.gpr[RCX]), (PAGES + 3, 0x30_0003, 1));
    assert_eq!(r.rflags & (ZF | 1), 0);
    at(&mut g, PAGES, PAGES + 8);
    run(&mut g, &[0xF3, 0xA6]);
    assert_eq!((g.vcpu.registers.gpr[RCX], g.vcpu.registers.rflags & ZF), (0, ZF));
    at(&mut g, 0, PAGES);
    g.vcpu.registers.gpr[RAX] = 0xFF;
    run(&mut g, &[0xF2, 0xAE]); // REPNE SCASB
    assert_eq!((g.vcpu.registers.gpr[RDI], g.vcpu.registers.gpr[RCX]), (PAGES + 1, 3));
}

#[test]
fn an_emulated_instruction_ends_as_one_of_the_processors() {
    for (code, places) in [
        (&[0x8B, 0x07][..], &[2][..]), // MOV EAX, [RDI]
        (&[0xF3, 0xAA], &[0, 0, 2]),   // REP STOSB: a step for each element
    ] {
        let mut g = guest(NOBODY, None);
        g.vcpu.registers.gpr[RDI] = PAGES;
        g.vcpu.registers.gpr[RCX] = 3;
        g.vcpu.registers.rflags |= RFLAGS_TF | RFLAGS_RF;
        for place in places {
            assert_eq!(g.device(code, NOBODY), Outcome::Resume);
            assert_eq!(g.vcpu.injected.take(), Some(Event::STEP));
            assert_eq!(g.vcpu.registers.rip, CODE + place, "{code:02x?}");
            assert_eq!(g.vcpu.registers.rflags & RFLAGS_RF, 0);
        }
    }
    // HLT is stepped over, not slept in.
    let mut g = guest(NOBODY, None);
    g.vcpu.registers.rflags |= RFLAGS_TF;
    g.code(&[0xF4]);
    assert_eq!(g.exit(vcpu::Exit::Hlt), Outcome::Resume);
    assert_eq!(g.vcpu.injected, Some(Event::STEP));
}
