//! Exits as a node brings them, with memory that is Pending at first.

use crate::testing::{CODE, Guest, START_TSC, TSC_HZ};
use crate::*;
use vcpu::{Event, IoExit, RAX, RCX, RDI, RDX, RSI};

fn io(port: u16, size: u8, input: bool) -> IoExit {
    IoExit { port, size, input, string: false, rep: false, next_rip: None }
}

#[test]
fn the_next_instruction_is_found_by_decoding() {
    for (exit, code) in [
        (Exit::Cpuid, &[0x0F, 0xA2][..]),
        (Exit::Cpuid, &[0x66, 0x0F, 0xA2]),
        (Exit::CacheControl, &[0x0F, 0x09]),
        (Exit::CacheControl, &[0x0F, 0x08]),
        (Exit::Io(io(0x80, 1, false)), &[0xEE]),
        (Exit::Io(io(0x80, 1, false)), &[0xE6, 0x80]),
    ] {
        // At the end of a page, so that the instruction may cross it.
        for start in [CODE, CODE + 0xFFF, CODE + 0xFFE] {
            let mut g = Guest::new(true);
            g.vcpu.registers.rip = start;
            g.code(code);
            assert_eq!(g.exit(exit), Outcome::Resume);
            assert_eq!(g.vcpu.registers.rip, start + code.len() as u64);
            assert!(g.ram.fetched > 0);
        }
    }
}

#[test]
fn xsetbv_takes_only_what_the_host_has() {
    let mut g = Guest::new(true);
    g.code(&[0x0F, 0x01, 0xD1]);
    g.vcpu.registers.gpr[RAX] = 7;
    assert_eq!(g.exit(Exit::Xsetbv), Outcome::Resume);
    assert_eq!(g.vcpu.injected, Some(Event::UNDEFINED), "without CR4.OSXSAVE");
    g.vcpu.system.cr4 |= 1 << 18;
    g.exit(Exit::Xsetbv);
    assert_eq!(g.vcpu.injected, Some(Event::GENERAL_PROTECTION), "the host has no XSAVE");
    g.vcpu.cpuid = |leaf, _| match leaf {
        0 => [0xD, 0, 0, 0],
        1 => [0, 0, u32::MAX, u32::MAX],
        0xD => [7, 0, 0, 0],
        _ => [0; 4],
    };
    for (value, good) in [(7, true), (3, true), (1, true), (0, false), (5, false), (0xE7, false)] {
        g.vcpu.injected = None;
        g.vcpu.registers.rip = CODE;
        g.vcpu.registers.gpr[RAX] = value;
        g.exit(Exit::Xsetbv);
        assert_eq!(g.vcpu.injected.is_none(), good, "{value}");
        assert_eq!(g.vcpu.xcr0 == value, good);
    }
}

#[test]
fn time_structures_are_written() {
    let mut g = Guest::new(true);
    g.prepare();
    // Across a page boundary.
    assert_eq!(g.wrmsr(0x4B56_4D01, 0x30_0FF1), Outcome::Resume);
    let info = g.ram.get(0x30_0FF0, 32);
    assert_eq!((info[0], info[29]), (2, 1));
    let mul = u64::from(u32::from_le_bytes(info[24..28].try_into().unwrap()));
    assert_eq!((mul, info[28] as i8), (1 << 31, 0), "2 GHz: half a nanosecond a tick");
    assert_eq!(g.wrmsr(0x4B56_4D00, 0x30_2000), Outcome::Resume);
    assert_eq!(g.ram.get_u64(0x30_2000), (1_700_000_000 << 32) | 2);
    assert_eq!(g.rdmsr(0x4B56_4D01), Some(0x30_0FF1));
    // The guest moves its TSC: it reads 5000 now, so 5000 at time 0.
    assert_eq!(g.wrmsr(0x10, 5000), Outcome::Resume);
    assert_eq!(g.rdmsr(0x3B), Some(5000));
    assert_eq!(g.ram.get_u64(0x30_0FF8), 5000);
    assert_eq!(g.vcpu.tsc_offset, 5000u64.wrapping_sub(START_TSC));
    // Where there is no memory: #GP.
    g.wrmsr(0x4B56_4D01, 0xC000_0001);
    assert_eq!(g.vcpu.injected, Some(Event::GENERAL_PROTECTION));
}

#[test]
fn the_tsc_starts_at_zero() {
    let mut g = Guest::new(true);
    g.prepare();
    assert_eq!(g.rdmsr(0x10), Some(0));
    assert_eq!(g.vcpu.tsc_offset, START_TSC.wrapping_neg());
    g.now += 777;
    assert_eq!(g.rdmsr(0x10), Some(777));
}

#[test]
fn an_intel_processor_has_no_registers_of_amds() {
    let mut g = Guest::new(true);
    assert_eq!(g.rdmsr(0xC001_0015), Some(1 << 24));
    g.vcpu.cpuid = |leaf, _| match leaf {
        0 => [0xD, 0x756E_6547, 0x6C65_746E, 0x4965_6E69],
        _ => [0; 4],
    };
    for msr in [0xC001_0010, 0xC001_0015, 0xC001_0114, 0xC001_1029] {
        assert_eq!(g.rdmsr(msr), None, "{msr:x}");
        g.wrmsr(msr, 0);
        assert_eq!(g.vcpu.injected, Some(Event::GENERAL_PROTECTION), "{msr:x}");
    }
    assert_eq!(g.rdmsr(0x1A0), Some(0x1801), "MISC_ENABLE");
}

#[test]
fn efer_and_pat_are_checked() {
    let mut g = Guest::new(true);
    g.vcpu.cpuid = |leaf, _| match leaf {
        0x8000_0000 => [0x8000_0008, 0, 0, 0],
        0x8000_0001 => [0, 0, 0, u32::MAX],
        _ => [0; 4],
    };
    g.wrmsr(0xC000_0080, 0xD01);
    assert_eq!((g.vcpu.injected, g.vcpu.system.efer), (None, 0xD01));
    g.wrmsr(0xC000_0080, 0x1D01);
    assert_eq!(g.vcpu.injected, Some(Event::GENERAL_PROTECTION), "SVME");
    g.wrmsr(0x277, 0x0106_0500_0106_0504);
    assert_eq!(g.rdmsr(0x277), Some(0x0106_0500_0106_0504));
    g.wrmsr(0x277, 2);
    assert_eq!(g.vcpu.injected, Some(Event::GENERAL_PROTECTION));
}

#[test]
fn a_scan_of_all_msrs_is_harmless() {
    let mut g = Guest::new(false);
    g.prepare();
    let scan = (0..0x2000).chain(0xC000_0000..0xC000_0200).chain(0xC001_0000..0xC001_2000);
    for msr in scan.chain([0x4B56_4D00, 0x4B56_4D01, u32::MAX]) {
        let before = g.rdmsr(msr);
        g.vcpu.registers.rip = CODE;
        g.vcpu.injected = None;
        if !matches!(msr, 0x1B | 0x800..=0x8FF) {
            g.wrmsr(msr, before.unwrap_or(0x1234_5678_9ABC_DEF0));
        }
        g.vcpu.registers.rip = CODE;
    }
    assert!(g.machine.counters().unknown_msrs.others() > 0);
    assert_eq!(g.rdmsr(0xC001_0114), Some(0x18), "virtualization is off and locked");
    assert_eq!(g.rdmsr(0x179), Some(0), "no machine check banks");
}

#[test]
fn a_scan_of_all_ports_is_harmless() {
    let mut g = Guest::new(false);
    g.prepare();
    for port in 0..=u16::MAX {
        for size in [1, 2, 4] {
            for input in [true, false] {
                g.vcpu.registers.rip = CODE;
                g.vcpu.registers.gpr[RAX] = 0x5A5A_5A5A_5A5A_5A5A;
                let exit = Exit::Io(IoExit { next_rip: Some(CODE + 1), ..io(port, size, input) });
                let outcome = g.exit(exit);
                assert!(matches!(outcome, Outcome::Resume | Outcome::Reset | Outcome::PowerOff));
                assert_eq!(g.vcpu.registers.rip, CODE + 1);
            }
        }
    }
    g.exit(Exit::Io(IoExit { next_rip: Some(CODE), ..io(0x1234, 2, true) }));
    assert_eq!(g.vcpu.registers.gpr[RAX], 0x5A5A_5A5A_5A5A_FFFF);
    g.exit(Exit::Io(IoExit { next_rip: Some(CODE), ..io(0x1234, 4, true) }));
    assert_eq!(g.vcpu.registers.gpr[RAX], 0xFFFF_FFFF);
}

#[test]
fn string_output_reaches_the_console_once() {
    let mut g = Guest::new(true);
    let text = b"hello, one machine";
    let from = 0x30_0FF8; // crosses a page
    g.ram.put(from, text);
    g.code(&[0xF3, 0x6E]); // REP OUTSB
    g.vcpu.registers.gpr[RSI] = from;
    g.vcpu.registers.gpr[RCX] = text.len() as u64;
    g.vcpu.registers.gpr[RDX] = 0x3F8;
    let exit = Exit::Io(IoExit { string: true, rep: true, ..io(0x3F8, 1, false) });
    let mut out = std::vec::Vec::new();
    while g.vcpu.registers.rip == CODE {
        assert_eq!(g.exit(exit), Outcome::Resume);
        while let Some(byte) = g.machine.uart(0).take_output() {
            out.push(byte);
        }
    }
    assert_eq!(out, text);
    assert_eq!(g.vcpu.registers.gpr[RCX], 0);
    assert_eq!(g.vcpu.registers.gpr[RSI], from + text.len() as u64);
    assert!(g.ram.fetched >= 4);
}

#[test]
fn string_input_reads_the_device_once_an_element() {
    let mut g = Guest::new(true);
    // The FIFO holds more than one byte.
    g.vcpu.registers.gpr[RAX] = 1;
    g.exit(Exit::Io(IoExit { next_rip: Some(CODE), ..io(0x3FA, 1, false) }));
    for &byte in b"abcd" {
        assert!(g.machine.uart(0).input(byte, 0));
    }
    g.code(&[0xF3, 0x6C]); // REP INSB
    g.vcpu.registers.gpr[RDI] = 0x30_0FFE;
    g.vcpu.registers.gpr[RCX] = 4;
    let exit = Exit::Io(IoExit { string: true, rep: true, ..io(0x3F8, 1, true) });
    assert_eq!(g.exit(exit), Outcome::Resume);
    assert_eq!(g.ram.get(0x30_0FFE, 5), b"abcd\0");
    assert_eq!(g.vcpu.registers.rip, CODE + 2);
}

#[test]
fn halting_for_ever_is_told() {
    let mut g = Guest::new(true);
    g.code(&[0xF4]);
    assert_eq!(g.exit(Exit::Hlt), Outcome::Dead(Death::HaltedForEver { rip: CODE }));
    g.vcpu.registers.rip = CODE;
    g.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    assert_eq!(g.exit(Exit::Hlt), Outcome::Halted);
    assert_eq!(g.machine.run_state(0), RunState::Halted);
    assert!(!g.machine.wakes(0, g.now));
}

#[test]
fn the_deadline_timer_wakes_and_interrupts() {
    let mut g = Guest::new(true);
    g.prepare();
    g.wrmsr(0x1B, 0xFEE0_0D00); // x2APIC
    g.wrmsr(0x80F, 0x1FF);
    g.wrmsr(0x832, 0x4_0040); // TSC-deadline, vector 0x40
    let at = TSC_HZ;
    g.wrmsr(0x6E0, at);
    assert_eq!(g.vcpu.injected, None);
    assert_eq!(g.machine.next_deadline(), Some(START_TSC + at));
    g.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    g.code(&[0xF4]);
    assert_eq!(g.exit(Exit::Hlt), Outcome::Halted);
    assert!(!g.machine.wakes(0, START_TSC + at - 1));
    assert!(g.machine.wakes(0, START_TSC + at));
    g.now = START_TSC + at;
    g.vcpu.shadow = true;
    g.prepare();
    assert_eq!((g.vcpu.injected, g.vcpu.window), (None, true), "first the shadow ends");
    g.vcpu.shadow = false;
    g.prepare();
    assert_eq!((g.vcpu.injected, g.vcpu.window), (Some(Event::Interrupt(0x40)), false));
    assert_eq!(g.machine.run_state(0), RunState::Running);
}

#[test]
fn an_interrupt_below_cr8_waits_for_it() {
    let mut g = Guest::new(true);
    g.prepare();
    g.wrmsr(0x1B, 0xFEE0_0D00);
    g.wrmsr(0x80F, 0x1FF);
    g.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    g.vcpu.tpr = 0x5; // MOV CR8 without an exit
    g.wrmsr(0x83F, 0x52); // self IPI
    g.prepare();
    assert_eq!((g.vcpu.injected, g.vcpu.window_above), (None, Some(5)));
    g.vcpu.tpr = 0x4;
    assert_eq!(g.exit(Exit::InterruptWindow), Outcome::Resume);
    g.prepare();
    assert_eq!((g.vcpu.injected, g.vcpu.window), (Some(Event::Interrupt(0x52)), false));
    // The guest writes the local APIC's own register instead.
    g.wrmsr(0x808, 0x70);
    g.prepare();
    assert_eq!(g.vcpu.tpr, 7);
}

#[test]
fn a_cr8_raised_without_an_exit_holds_back_what_comes_next() {
    let mut g = Guest::new(true);
    g.prepare();
    g.wrmsr(0x1B, 0xFEE0_0D00);
    g.wrmsr(0x80F, 0x1FF);
    g.wrmsr(0x832, 0x4_0040); // TSC-deadline, vector 0x40
    g.wrmsr(0x6E0, TSC_HZ);
    g.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    g.prepare();
    // MOV CR8, then a page fault, which the machine does not hear of.
    g.vcpu.tpr = 0x5;
    g.now = START_TSC + TSC_HZ;
    g.prepare();
    assert_eq!((g.vcpu.injected, g.vcpu.window_above), (None, Some(4)));
}

#[test]
fn a_cr8_that_holds_nothing_back_disturbs_nothing() {
    let mut g = Guest::new(true);
    g.prepare();
    g.wrmsr(0x1B, 0xFEE0_0D00);
    g.wrmsr(0x80F, 0x1FF);
    g.wrmsr(0x808, 0x10); // as Linux has it
    g.prepare();
    assert!(g.machine.is_calm(0));
    g.wrmsr(0x83F, 0x12); // self IPI
    g.prepare();
    assert!(!g.machine.is_calm(0), "CR8 holds it back");
    assert_eq!((g.vcpu.injected, g.vcpu.window_above), (None, Some(1)));
}

#[test]
fn a_move_to_cr8_that_exits_is_done() {
    let mut g = Guest::new(true);
    g.prepare();
    g.wrmsr(0x1B, 0xFEE0_0D00);
    g.vcpu.registers.gpr[8] = 7;
    g.code(&[0x45, 0x0F, 0x22, 0xC0]); // MOV CR8, R8
    let rip = g.vcpu.registers.rip;
    assert_eq!(g.exit(Exit::WriteCr8), Outcome::Resume);
    assert_eq!((g.vcpu.tpr, g.rdmsr(0x808), g.vcpu.registers.rip), (7, Some(0x70), rip + 4 + 2));
    g.vcpu.registers.gpr[8] = 16;
    g.code(&[0x45, 0x0F, 0x22, 0xC0]);
    g.exit(Exit::WriteCr8);
    assert_eq!((g.vcpu.injected, g.vcpu.tpr), (Some(Event::GENERAL_PROTECTION), 7));
}

#[test]
fn an_nmi_that_is_blocked_asks_for_a_window_of_its_own() {
    let mut g = Guest::new(true);
    g.prepare();
    g.wrmsr(0x1B, 0xFEE0_0D00);
    g.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    g.vcpu.nmi_blocked = true;
    g.wrmsr(0x830, 4 << 8); // NMI to itself
    g.prepare();
    let seen = (g.vcpu.injected, g.vcpu.nmi_window, g.vcpu.window);
    assert_eq!(seen, (None, true, false), "a window for interrupts would open at once, and again");
    g.vcpu.nmi_blocked = false;
    g.prepare();
    assert_eq!((g.vcpu.injected, g.vcpu.nmi_window), (Some(Event::Nmi), false));
}

#[test]
fn the_console_interrupts_through_both_controllers() {
    let mut g = Guest::new(true);
    g.prepare();
    g.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    let out = |g: &mut Guest, port: u16, value: u8| {
        g.vcpu.registers.gpr[RAX] = u64::from(value);
        g.exit(Exit::Io(IoExit { next_rip: Some(CODE), ..io(port, 1, false) }));
    };
    // 8259 pair: vectors from 0x30, IRQ 4 unmasked; UART: received data, OUT2.
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xEF),
        (0xA0, 0x11),
        (0xA1, 0x38),
        (0xA1, 2),
        (0xA1, 1),
        (0xA1, 0xFF),
        (0x3FC, 0x08),
        (0x3F9, 1),
    ] {
        out(&mut g, port, value);
    }
    assert!(g.machine.uart(0).input(b'x', 0));
    g.prepare();
    assert_eq!(g.vcpu.injected.take(), Some(Event::Interrupt(0x34)), "virtual wire");
    out(&mut g, 0x20, 0x20);
    out(&mut g, 0x21, 0xFF);
    // Now the I/O APIC, pin 4 to vector 0x51, through device memory.
    g.wrmsr(0x1B, 0xFEE0_0D00);
    g.wrmsr(0x80F, 0x1FF);
    for (index, value) in [(0x19, 0), (0x18, 0x8051)] {
        g.vcpu.registers.gpr[RAX] = index;
        g.vcpu.registers.gpr[RDI] = 0xFEC0_0000;
        g.device(&[0x89, 0x07], 0xFEC0_0000); // MOV [RDI], EAX
        g.vcpu.registers.gpr[RAX] = value;
        g.device(&[0x89, 0x47, 0x10], 0xFEC0_0010); // MOV [RDI+16], EAX
    }
    g.prepare();
    assert_eq!(g.vcpu.injected.take(), Some(Event::Interrupt(0x51)));
    g.prepare();
    assert_eq!(g.vcpu.injected.take(), None, "in service");
    // Level-triggered: the end of interrupt finds the line still high.
    g.wrmsr(0x80B, 0);
    g.prepare();
    assert_eq!(g.vcpu.injected.take(), Some(Event::Interrupt(0x51)));
}

#[test]
fn power_and_reset() {
    let mut g = Guest::new(true);
    g.vcpu.registers.gpr[RAX] = 6;
    let out = |port, size| Exit::Io(IoExit { next_rip: Some(CODE), ..io(port, size, false) });
    assert_eq!(g.exit(out(0xCF9, 1)), Outcome::Reset);
    g.vcpu.registers.gpr[RAX] = (5 << 10) | (1 << 13);
    assert_eq!(g.exit(out(0x604, 2)), Outcome::PowerOff);
    assert_eq!(g.exit(Exit::Shutdown), Outcome::Dead(Death::TripleFault));
    assert_eq!(g.exit(Exit::Invalid { code: 7 }), Outcome::Dead(Death::RefusedState(7)));
}

#[test]
fn hypercalls_go_to_the_caller() {
    let mut g = Guest::new(true);
    g.code(&[0x0F, 0x01, 0xD9]);
    assert_eq!(g.exit(Exit::Hypercall), Outcome::Hypercall);
    loop {
        let outcome = g.machine.end_hypercall(0, 42, &mut g.vcpu, &mut g.ram, g.now);
        let Outcome::Pending { gfn, access } = outcome else { break };
        g.ram.fetch(gfn, access);
    }
    assert_eq!((g.vcpu.registers.gpr[RAX], g.vcpu.registers.rip), (42, CODE + 3));
}

#[test]
fn init_and_start_up_start_a_second_processor() {
    let mut g = Guest::with_cpus(false, 2);
    g.prepare();
    assert!(!g.machine.wakes(1, g.now));
    g.wrmsr(0x1B, 0xFEE0_0D00);
    g.wrmsr(0x80F, 0x1FF);
    let mut other = vcpu::fake::FakeVcpu::default();
    g.wrmsr(0x830, (1 << 32) | 0x4500);
    assert_eq!(g.machine.run_state(1), RunState::WaitForSipi);
    g.wrmsr(0x830, (1 << 32) | 0x4699);
    assert!(g.machine.wakes(1, g.now));
    g.machine.prepare_entry(1, &mut other, g.now);
    assert_eq!((other.system.cs.selector, other.system.cs.base), (0x9900, 0x9_9000));
    assert_eq!((other.registers.rip, other.system.cr0 & 1), (0, 0));
}

#[test]
fn what_reads_the_processor_alone_disturbs_nothing() {
    let mut g = Guest::new(false);
    g.prepare();
    g.wrmsr(0x1B, 0xFEE0_0D00); // x2APIC
    assert!(!g.machine.is_calm(0), "a local APIC was written");
    g.prepare();
    g.code(&[0x0F, 0xA2]);
    let before = g.vcpu.registers.rip;
    assert_eq!(g.exit(Exit::Cpuid), Outcome::Resume);
    assert_eq!(g.vcpu.registers.rip, before + 2);
    assert!(g.machine.is_calm(0));
    // An access that faults is injected, and the next entry looks at all.
    g.vcpu.registers.gpr[vcpu::RCX] = 0xDEAD_0000;
    g.code(&[0x0F, 0x32]);
    assert_eq!(g.exit(Exit::Rdmsr), Outcome::Resume);
    assert!(g.vcpu.injected.is_some() && !g.machine.is_calm(0));
}

#[test]
fn a_calm_machine_still_hears_its_timers_and_its_ports() {
    let mut g = Guest::new(true);
    g.prepare();
    g.wrmsr(0x1B, 0xFEE0_0D00); // x2APIC
    g.wrmsr(0x80F, 0x1FF);
    g.wrmsr(0x832, 0x4_0040); // TSC-deadline, vector 0x40
    g.wrmsr(0x6E0, TSC_HZ);
    g.vcpu.registers.rflags |= vcpu::RFLAGS_IF;
    g.prepare();
    let at = START_TSC + TSC_HZ;
    assert_eq!(g.machine.next_deadline(), Some(at));
    g.now = at - 1;
    g.prepare();
    assert_eq!((g.vcpu.injected, g.machine.next_deadline()), (None, Some(at)));
    assert_eq!(g.machine.upcoming_deadline(at - 1), Some(at));
    // What is due needs no timer of the host's that would end the entry at once.
    assert_eq!(g.machine.upcoming_deadline(at), None);
    g.now = at;
    g.prepare();
    assert_eq!(g.vcpu.injected.take(), Some(Event::Interrupt(0x40)));
    // The host's side of a port wakes it as well.
    g.prepare();
    assert_ne!(g.machine.cpus[0].calm_until, 0);
    g.machine.uart(0).input(b'x', 0);
    assert_eq!(g.machine.cpus[0].calm_until, 0);
}
