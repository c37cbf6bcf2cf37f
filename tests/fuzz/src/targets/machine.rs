//! The guest's machine: ports, registers, device memory and time, as any
//! guest can use them.

use super::guest::Guest;
use crate::input::Input;
use addr::{Access, GuestPhys};
use vcpu::{Exit, IoExit};

const STEPS_MAX: usize = 300;
/// Where the instructions lie that exits stand for.
const CODE: u64 = 0x1000;

/// Ports with something behind them are likelier than others.
const PORTS: [u16; 26] = [
    0x20, 0x21, 0xA0, 0xA1, 0x40, 0x42, 0x43, 0x61, 0x64, 0x70, 0x71, 0x92, 0x3F8, 0x3F9, 0x3FB,
    0x2F8, 0x3E8, 0x4D0, 0xCF8, 0xCFC, 0xCF9, 0x600, 0x604, 0x608, 0x620, 0x80,
];

/// MSRs that the machine knows are likelier than others.
const MSRS: [u32; 18] = [
    0x10,
    0x1B,
    0x3B,
    0xFE,
    0x174,
    0x1A0,
    0x200,
    0x20F,
    0x250,
    0x277,
    0x2FF,
    0x6E0,
    0x802,
    0x808,
    0x830,
    0x832,
    0xC000_0080,
    0xC001_0015,
];

fn port(input: &mut Input<'_>) -> Exit {
    let flags = input.u8();
    let port = if flags & 1 == 0 { input.one_of(&PORTS) } else { input.u16() };
    Exit::Io(IoExit {
        port,
        size: input.one_of(&[1, 2, 4]),
        input: flags & 2 != 0,
        string: flags & 12 == 12,
        rep: flags & 16 != 0,
        next_rip: (flags & 32 != 0).then_some(CODE + 2),
    })
}

fn device_memory(guest: &mut Guest, input: &mut Input<'_>) -> Exit {
    let base = input.one_of(&[0xFEE0_0000, 0xFEC0_0000, 0xE000_0000, 0xC000_0000u64]);
    let gpa = base + u64::from(input.u16());
    let code = input.bytes(6);
    guest.ram.put(CODE, code);
    // Without paging the operand's address is the physical one.
    guest.vcpu.registers.gpr[vcpu::RDI] = gpa;
    guest.vcpu.registers.gpr[vcpu::RSI] = gpa;
    Exit::PageFault { gpa: GuestPhys(gpa), access: Access::Write, fetch: false, walk: false }
}

fn step(guest: &mut Guest, input: &mut Input<'_>) -> bool {
    guest.vcpu.registers.rip = CODE;
    let exit = match input.below(10) {
        0..=2 => {
            guest.vcpu.registers.gpr[vcpu::RAX] = u64::from(input.u32());
            port(input)
        }
        3 | 4 => {
            let msr = if input.u8() & 3 == 0 { input.u32() } else { input.one_of(&MSRS) };
            let msr = if msr == 0x802 { 0x800 + u32::from(input.u8() & 0x3F) } else { msr };
            guest.vcpu.registers.gpr[vcpu::RCX] = u64::from(msr);
            guest.vcpu.registers.gpr[vcpu::RAX] = u64::from(input.u32());
            guest.vcpu.registers.gpr[vcpu::RDX] = input.skewed() & 0xFFFF_FFFF;
            guest.ram.put(CODE, &[0x0F, 0x30]);
            input.one_of(&[Exit::Rdmsr, Exit::Wrmsr, Exit::Wrmsr])
        }
        5 | 6 => device_memory(guest, input),
        7 => {
            guest.now = guest.now.saturating_add(input.skewed() << 12);
            guest.vcpu.registers.rflags = 2 | u64::from(input.u8() & 2) << 8;
            Exit::HostInterrupt
        }
        8 => {
            guest.registers(input);
            guest.ram.put(CODE, &[0x0F, 0xA2]);
            input.one_of(&[
                Exit::Cpuid,
                Exit::Hlt,
                Exit::Xsetbv,
                Exit::WriteCr8,
                Exit::Hypercall,
                Exit::CacheControl,
                Exit::Undefined,
                Exit::InterruptWindow,
                Exit::Ignore,
            ])
        }
        _ => {
            let uart = guest.machine.uart(input.below(3));
            while uart.take_output().is_some() {}
            let now = guest.now;
            if uart.input_room() > 0 {
                uart.input(input.u8(), now);
            }
            Exit::HostInterrupt
        }
    };
    guest.exit(exit)
}

/// Makes the exits that the bytes stand for.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut guest = Guest::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() || !step(&mut guest, &mut input) {
            break;
        }
        let _ = guest.machine.next_deadline();
    }
}
