//! Instructions at device memory: the I/O APIC's index register is a byte
//! that keeps what is written, the window behind it a dword.

use crate::testing::{CODE, Guest};
use crate::*;
use addr::{Access, Gfn, GuestPhys};
use vcpu::{Event, RAX, RBX, RCX, RDI, RSI};

const IOAPIC: u64 = 0xFEC0_0000;
const NOBODY: u64 = 0xC000_0000;

/// A guest whose RDI points at the I/O APIC.
fn guest() -> Guest {
    let mut g = Guest::new(true);
    g.vcpu.registers.gpr[RDI] = IOAPIC;
    g
}

/// The I/O APIC's index register, read by MOV EAX, [RDI].
fn index(g: &mut Guest) -> u64 {
    g.vcpu.registers.rip = CODE + 0x800;
    g.vcpu.registers.gpr[RDI] = IOAPIC;
    assert_eq!(g.device(&[0x8B, 0x07], IOAPIC), Outcome::Resume);
    g.vcpu.registers.gpr[RAX]
}

fn run(g: &mut Guest, code: &[u8], gpa: u64) {
    let rip = g.vcpu.registers.rip;
    assert_eq!(g.device(code, gpa), Outcome::Resume);
    assert_eq!(g.vcpu.injected, None);
    assert_eq!(g.vcpu.registers.rip, rip + code.len() as u64, "{code:02x?}");
}

#[test]
fn stores_of_all_forms() {
    for (code, rax, expected) in [
        (&[0x89, 0x07][..], 0x1234_5678, 0x78),  // MOV [RDI], EAX
        (&[0x88, 0x07], 0x1234_5678, 0x78),      // MOV [RDI], AL
        (&[0x88, 0x27], 0x1234_5678, 0x56),      // MOV [RDI], AH
        (&[0x48, 0x89, 0x07], 0x11, 0x11),       // MOV [RDI], RAX
        (&[0xC7, 0x07, 0x21, 0, 0, 0], 0, 0x21), // MOV DWORD [RDI], 0x21
        (&[0xC6, 0x07, 0x22], 0, 0x22),          // MOV BYTE [RDI], 0x22
        (&[0x0F, 0xC3, 0x07], 0x33, 0x33),       // MOVNTI [RDI], EAX
        (&[0x48, 0xA3, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0], 0x44, 0x44), // MOV [moffs], RAX
        (&[0x67, 0x89, 0x07], 0x55, 0x55),       // MOV [EDI], EAX
        (&[0x89, 0x04, 0x25, 0, 0, 0xC0, 0xFE], 0x1_0066, 0), // disp32, sign-extended
    ] {
        let mut g = guest();
        g.vcpu.registers.gpr[RAX] = rax;
        if code.len() == 7 {
            // The address is 0xFFFF_FFFF_FEC0_0000, which is not mapped.
            assert_eq!(g.device(code, IOAPIC), Outcome::Resume);
            let fault = Event::Exception { vector: 14, error: Some(2) };
            assert_eq!(g.vcpu.injected, Some(fault));
            assert_eq!(g.vcpu.system.cr2, 0xFFFF_FFFF_FEC0_0000);
            continue;
        }
        run(&mut g, code, IOAPIC);
        assert_eq!(index(&mut g) & 0xFF, expected, "{code:02x?}");
    }
}

#[test]
fn loads_write_their_part_of_the_register() {
    for (code, expected) in [
        (&[0x8A, 0x07][..], 0x1111_1111_1111_11FF), // MOV AL, [RDI]
        (&[0x8A, 0x27], 0x1111_1111_1111_FF11),     // MOV AH, [RDI]
        (&[0x66, 0x8B, 0x07], 0x1111_1111_1111_FFFF),
        (&[0x8B, 0x07], 0xFFFF_FFFF),
        (&[0x48, 0x8B, 0x07], u64::MAX),
        (&[0x0F, 0xB6, 0x07], 0xFF),        // MOVZX EAX, BYTE
        (&[0x0F, 0xB7, 0x07], 0xFFFF),      // MOVZX EAX, WORD
        (&[0x0F, 0xBE, 0x07], 0xFFFF_FFFF), // MOVSX EAX, BYTE
        (&[0x66, 0x0F, 0xBE, 0x07], 0x1111_1111_1111_FFFF), // MOVSX AX, BYTE
        (&[0x48, 0x63, 0x07], u64::MAX),    // MOVSXD RAX, DWORD
    ] {
        let mut g = guest();
        g.vcpu.registers.gpr[RAX] = 0x1111_1111_1111_1111;
        g.vcpu.registers.gpr[RDI] = NOBODY;
        run(&mut g, code, NOBODY);
        assert_eq!(g.vcpu.registers.gpr[RAX], expected, "{code:02x?}");
    }
}

#[test]
fn read_modify_write() {
    // Code, index before, RAX, index after.
    for (code, before, rax, after) in [
        (&[0x08, 0x07][..], 0x0F, 0xF0, 0xFF),         // OR [RDI], AL
        (&[0x80, 0x27, 0x3C], 0xFF, 0, 0x3C),          // AND BYTE [RDI], 0x3C
        (&[0x30, 0x07], 0xFF, 0x0F, 0xF0),             // XOR [RDI], AL
        (&[0x00, 0x07], 0xFF, 2, 1),                   // ADD [RDI], AL
        (&[0x28, 0x07], 1, 2, 0xFF),                   // SUB [RDI], AL
        (&[0xFE, 0x07], 7, 0, 8),                      // INC BYTE [RDI]
        (&[0xF6, 0x17], 0x0F, 0, 0xF0),                // NOT BYTE [RDI]
        (&[0x86, 0x07], 0x12, 0x34, 0x34),             // XCHG [RDI], AL
        (&[0x0F, 0xBA, 0x2F, 3], 0, 0, 8),             // BTS DWORD [RDI], 3
        (&[0xF0, 0x0F, 0xBA, 0x37, 3], 0xFF, 0, 0xF7), // LOCK BTR DWORD [RDI], 3
    ] {
        let mut g = guest();
        g.vcpu.registers.gpr[RAX] = before;
        run(&mut g, &[0x89, 0x07], IOAPIC);
        g.vcpu.registers.gpr[RAX] = rax;
        run(&mut g, code, IOAPIC);
        if code[0] == 0x86 {
            assert_eq!(g.vcpu.registers.gpr[RAX] & 0xFF, before);
        }
        assert_eq!(index(&mut g) & 0xFF, after, "{code:02x?}");
    }
}

#[test]
fn comparisons_set_flags_only() {
    let mut g = guest();
    g.vcpu.registers.gpr[RAX] = 0x40;
    run(&mut g, &[0x89, 0x07], IOAPIC);
    run(&mut g, &[0x80, 0x3F, 0x40], IOAPIC); // CMP BYTE [RDI], 0x40
    assert_ne!(g.vcpu.registers.rflags & 0x40, 0, "ZF");
    run(&mut g, &[0xF6, 0x07, 0x40], IOAPIC); // TEST BYTE [RDI], 0x40
    assert_eq!(g.vcpu.registers.rflags & 0x40, 0);
    g.vcpu.registers.gpr[RBX] = (6i64 - 8 * 64) as u64;
    g.vcpu.registers.gpr[RDI] = IOAPIC + 64;
    run(&mut g, &[0x48, 0x0F, 0xA3, 0x1F], IOAPIC); // BT [RDI], RBX
    assert_eq!(g.vcpu.registers.rflags & 1, 1, "a bit before the address");
    assert_eq!(index(&mut g) & 0xFF, 0x40);
}

#[test]
fn instructions_and_modes() {
    // Across a page, RIP-relative: MOV [RIP + d], AL.
    let mut g = guest();
    g.vcpu.registers.rip = CODE + 0xFFC;
    let d = (IOAPIC - (CODE + 0xFFC + 6)) as u32 as i32;
    let mut code = std::vec![0x88, 0x05];
    code.extend(d.to_le_bytes());
    g.vcpu.registers.gpr[RAX] = 0x77;
    // The displacement is beyond 2 GiB and wraps below zero: use a high base
    // instead, by mapping the device's page at 0x60_0000.
    if d < 0 {
        g.ram.put_u64(0x4000 + 8 * 3, IOAPIC | 0x83);
        code = std::vec![0x88, 0x05];
        code.extend((0x60_0000u32 - (CODE as u32 + 0xFFC + 6)).to_le_bytes());
    }
    run(&mut g, &code, IOAPIC);
    assert_eq!(index(&mut g) & 0xFF, 0x77);
    // 32-bit code with a segment base, no paging.
    let mut g = guest();
    g.flat32();
    g.vcpu.system.es.base = 0x10_0000;
    g.vcpu.registers.gpr[RDI] = 0xDEAD_0000_0000_0000 | (IOAPIC - 0x10_0000);
    g.vcpu.registers.gpr[RAX] = 0x5A;
    run(&mut g, &[0x26, 0x89, 0x07], IOAPIC); // MOV ES:[EDI], EAX
    assert_eq!(index(&mut g) & 0xFF, 0x5A);
}

#[test]
fn strings_between_device_and_memory() {
    // REP MOVSD from nobody (all ones) to RAM across a page.
    let mut g = guest();
    g.vcpu.registers.gpr[RSI] = NOBODY;
    g.vcpu.registers.gpr[RDI] = 0x30_0FFA;
    g.vcpu.registers.gpr[RCX] = 5;
    run(&mut g, &[0xF3, 0xA5], NOBODY);
    assert_eq!(g.ram.get(0x30_0FFA, 21), [&[0xFF; 20][..], &[0]].concat());
    assert_eq!(g.vcpu.registers.gpr[RSI], NOBODY + 20);
    assert_eq!(g.vcpu.registers.gpr[RCX], 0);
    let reads = g.machine.counters().unknown_mmio.entries().map(|e| e.1).sum::<u64>();
    assert_eq!(reads, 5, "Pending reads the device no second time");
    // STOSB, downwards.
    let mut g = guest();
    g.vcpu.registers.gpr[RAX] = 0x42;
    g.vcpu.registers.rflags |= 1 << 10;
    run(&mut g, &[0xAA], IOAPIC);
    assert_eq!(g.vcpu.registers.gpr[RDI], IOAPIC - 1);
    assert_eq!(index(&mut g) & 0xFF, 0x42);
    // LODSW.
    let mut g = guest();
    g.vcpu.registers.gpr[RSI] = NOBODY;
    run(&mut g, &[0x66, 0xAD], NOBODY);
    assert_eq!((g.vcpu.registers.gpr[RAX], g.vcpu.registers.gpr[RSI]), (0xFFFF, NOBODY + 2));
}

#[test]
fn a_long_repetition_is_cut_into_exits() {
    let mut g = guest();
    g.vcpu.registers.gpr[RSI] = NOBODY;
    g.vcpu.registers.gpr[RDI] = 0x30_0000;
    g.vcpu.registers.gpr[RCX] = 1000;
    let mut exits = 0;
    while g.vcpu.registers.rip == CODE {
        assert_eq!(g.device(&[0xF3, 0xA4], NOBODY), Outcome::Resume);
        exits += 1;
    }
    assert_eq!(exits, 4);
    assert_eq!(g.ram.get(0x30_0000, 1001), [&[0xFF; 1000][..], &[0]].concat());
}

#[test]
fn what_is_not_emulated_raises_gp_each_time() {
    let mut g = guest();
    for n in 0..60_000 {
        g.vcpu.injected = None;
        assert_eq!(g.device(&[0x0F, 0x11, 0x07], IOAPIC), Outcome::Resume); // MOVUPS [RDI], XMM0
        let fault = (n % 5 == 4).then_some(Event::GENERAL_PROTECTION);
        assert_eq!(g.vcpu.injected, fault, "tried again four times");
    }
}

#[test]
fn faults_outside_emulation() {
    let mut g = guest();
    let fault = |gpa, fetch, walk| Exit::PageFault {
        gpa: GuestPhys(gpa),
        access: Access::Read,
        fetch,
        walk,
    };
    let dead = Outcome::Dead(Death::PageTableNotMemory { gpa: NOBODY });
    assert_eq!(g.exit(fault(NOBODY, false, true)), dead);
    assert_eq!(g.exit(fault(NOBODY, true, false)), Outcome::Resume);
    assert_eq!(g.vcpu.injected, Some(Event::UNDEFINED));
    let pending = Outcome::Pending { gfn: Gfn(0x300), access: Access::Read };
    let exit = fault(0x30_0123, false, false);
    let outcome = g.machine.handle_exit(0, &exit, &mut g.vcpu, &mut g.ram, g.now);
    assert_eq!(outcome, pending, "RAM is the caller's business");
}

/// xorshift64*: enough disorder for a fuzz test that repeats exactly.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    fn flip(&mut self) -> bool {
        self.roll() & 1 == 0
    }
    /// Mostly interesting numbers.
    fn number(&mut self) -> u64 {
        match self.roll() % 6 {
            0 => self.roll() % 64,
            1 => IOAPIC + self.roll() % 0x1000,
            2 => 0xE000_0000 + self.roll() % 0x1000_0000,
            3 => 0x20_0000 + self.roll() % 0x3000,
            4 => u64::MAX - self.roll() % 4096,
            _ => self.roll(),
        }
    }
}

#[test]
fn random_exits_with_random_state_never_panic() {
    for seed in 1..=if cfg!(miri) { 20 } else { 6000u64 } {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut g = Guest::new(seed % 2 == 0);
        if seed % 3 == 0 {
            g.flat32();
        }
        if seed % 7 == 0 {
            let s = &mut g.vcpu.system;
            (s.cr0, s.cr3, s.cr4) = (dice.roll(), dice.number(), dice.roll());
            (s.efer, s.cs.base, s.cs.attributes) = (dice.roll(), dice.number(), dice.roll() as u16);
        }
        for gpr in &mut g.vcpu.registers.gpr {
            *gpr = dice.number();
        }
        g.vcpu.registers.rflags = dice.roll();
        let bytes: std::vec::Vec<u8> = (0..16).map(|_| dice.roll() as u8).collect();
        g.vcpu.registers.rip = CODE + dice.roll() % 0x1000;
        for round in 0..8 {
            let rip = CODE + g.vcpu.registers.rip % 0x1000;
            if seed % 5 != 0 {
                g.vcpu.registers.rip = rip;
            }
            // Opcodes that the machine emulates come up often.
            let mut code = bytes.clone();
            const OPCODES: [u8; 16] = [
                0x88, 0x89, 0x8A, 0x8B, 0xA4, 0xA5, 0xAA, 0xAB, 0xAD, 0x6C, 0x6F, 0x0F, 0x80, 0x83,
                0xF7, 0xA3,
            ];
            code[usize::from(round % 2 == 0)] = OPCODES[dice.roll() as usize % 16];
            g.ram.put(rip, &code);
            let io = vcpu::IoExit {
                port: dice.roll() as u16,
                size: [1, 2, 4][dice.roll() as usize % 3],
                input: dice.flip(),
                string: dice.flip(),
                rep: dice.flip(),
                next_rip: None,
            };
            let gpa = GuestPhys(dice.number() | 0xC000_0000);
            let exits = [
                Exit::PageFault { gpa, access: Access::Write, fetch: false, walk: false },
                Exit::PageFault { gpa, access: Access::Read, fetch: false, walk: false },
                Exit::Io(io),
                Exit::Rdmsr,
                Exit::Wrmsr,
                Exit::Cpuid,
                Exit::Xsetbv,
                Exit::WriteCr8,
                Exit::Hlt,
            ];
            let exit = exits[dice.roll() as usize % exits.len()];
            fuzz_step(&mut g, exit, &mut dice);
        }
    }
}

/// One exit; a page above RAM that is Pending stays so.
fn fuzz_step(g: &mut Guest, exit: Exit, dice: &mut Dice) {
    for _ in 0..4096 {
        let outcome = g.machine.handle_exit(0, &exit, &mut g.vcpu, &mut g.ram, g.now);
        match outcome {
            Outcome::Pending { gfn, access } if g.machine.layout().linear(gfn).is_some() => {
                if g.ram.is_here(gfn, access) {
                    break; // A page fault at RAM is the caller's business.
                }
                g.ram.fetch(gfn, access);
            }
            _ => break,
        }
    }
    g.now = g.now.wrapping_add(dice.roll() % 1_000_000_000);
    let _ = g.machine.wakes(0, g.now);
    let _ = g.machine.next_deadline();
    g.prepare();
    g.vcpu.injected = None;
}
