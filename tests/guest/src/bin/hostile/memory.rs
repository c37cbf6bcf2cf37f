//! Device memory: wild addresses, sizes and instructions.

use crate::Verdict;
use crate::random::Random;
use crate::trap::{self, Fault, attempt};

/// The loader maps memory up to here, so that all of this can be touched.
const MAPPED_END: u64 = 4 << 30;
/// The device window.
const WINDOW: u64 = 3 << 30;
/// The APICs, and the first bytes of the configuration space.
const REGISTERS: [u64; 3] = [0xFEC0_0000, 0xFEE0_0000, 0xE000_0000];
/// The local APIC's interrupt command register: the try `apic` is its.
const LAPIC_COMMANDS: u64 = 0xFEE0_0300;

/// One access in one way.
fn access(way: u64, address: u64, value: u64) -> Option<Fault> {
    match way {
        0 => attempt!(["mov al, [{a}]"] a = in(reg) address, out("al") _),
        1 => attempt!(["mov ax, [{a}]"] a = in(reg) address, out("ax") _),
        2 => attempt!(["mov eax, [{a}]"] a = in(reg) address, out("eax") _),
        3 => attempt!(["mov rax, [{a}]"] a = in(reg) address, out("rax") _),
        4 => attempt!(["mov [{a}], al"] a = in(reg) address, in("al") value as u8),
        5 => attempt!(["mov [{a}], ax"] a = in(reg) address, in("ax") value as u16),
        6 => attempt!(["mov [{a}], eax"] a = in(reg) address, in("eax") value as u32),
        7 => attempt!(["mov [{a}], rax"] a = in(reg) address, in("rax") value),
        8 => attempt!(["movzx eax, byte ptr [{a}]"] a = in(reg) address, out("eax") _),
        9 => attempt!(["movsx rax, word ptr [{a}]"] a = in(reg) address, out("rax") _),
        10 => attempt!(["add [{a}], eax"] a = in(reg) address, in("eax") value as u32),
        11 => attempt!(["lock or [{a}], rax"] a = in(reg) address, in("rax") value),
        12 => attempt!(["xchg [{a}], eax"] a = in(reg) address, inout("eax") value as u32 => _),
        13 => attempt!(["lock cmpxchg [{a}], ecx"] a = in(reg) address, in("ecx") value as u32,
            inout("eax") 0 => _),
        14 => {
            attempt!(["lock cmpxchg16b [{a}]", "nop"] a = in(reg) address, inout("rax") value => _,
            inout("rdx") 0u64 => _, in("rcx") value)
        }
        15 => attempt!(["lock bts dword ptr [{a}], ecx"] a = in(reg) address,
            in("ecx") value as u32 & 0xFF),
        16 => attempt!(["push qword ptr [{a}]", "pop rax"] a = in(reg) address, out("rax") _),
        17 => attempt!(["test byte ptr [{a}], 1"] a = in(reg) address),
        18 => attempt!(["rep stosq"] inout("rdi") address => _, inout("rcx") 5u64 => _,
            in("rax") value),
        19 => attempt!(["rep movsb"] inout("rsi") address => _, inout("rdi") 12u64 << 20 => _,
            inout("rcx") 9u64 => _),
        20 => attempt!(["rep movsd"] inout("rdi") address => _, inout("rsi") 12u64 << 20 => _,
            inout("rcx") 3u64 => _),
        21 => attempt!(["repe cmpsb"] inout("rdi") address => _, inout("rsi") address => _,
            inout("rcx") 3u64 => _),
        22 => attempt!(["lgdt [{a}]"] a = in(reg) address + 0x1000),
        23 => attempt!(["fnsave [{a}]"] a = in(reg) address),
        24 => attempt!(["movups xmm0, [{a}]"] a = in(reg) address),
        25 => attempt!(["movntdq [{a}], xmm0"] a = in(reg) address & !15),
        26 => attempt!(["clflush [{a}]"] a = in(reg) address),
        27 => attempt!(["invlpg [{a}]"] a = in(reg) address),
        28 => attempt!(["jmp {a}"] a = in(reg) address),
        _ => attempt!(["prefetcht0 [{a}]"] a = in(reg) address),
    }
}

/// How many ways [`access`] knows.
const WAYS: u64 = 30;
/// The way that would replace the descriptor table with what a device says.
const LOAD_TABLE: u64 = 22;

/// Turns SSE on, so that its instructions reach device memory.
fn enable_sse() {
    // CR4.OSFXSR and OSXMMEXCPT; CR0.MP set, EM and TS clear.
    attempt!(["mov {t}, cr4", "or {t}, 0x600", "mov cr4, {t}"] t = out(reg) _);
    attempt!(["mov {t}, cr0", "and {t}, -13", "or {t}, 2", "mov cr0, {t}"] t = out(reg) _);
}

/// Every way at addresses all over the device window, where mostly nobody
/// answers.
pub(crate) fn device_memory() -> Verdict {
    enable_sse();
    let mut random = Random::new(3);
    for round in 0..6000 {
        let address = WINDOW + random.next() % (MAPPED_END - WINDOW - 0x4000);
        let address = match round % 4 {
            // Across the end of a page, and aligned.
            0 => address | 0xFFD,
            1 => address & !63,
            _ => address,
        };
        let way = random.next() % WAYS;
        if way != LOAD_TABLE && !is_register(address) {
            let _ = access(way, address, random.next());
        }
    }
    let (_, faults) = trap::counts();
    if faults == 0 { Err("nothing at all has faulted") } else { Ok(()) }
}

/// Whether an address is near the APICs, where nonsense may switch the
/// machine off: they have their own try.
fn is_register(address: u64) -> bool {
    (0xFEBF_F000..0xFEE0_2000).contains(&address)
}

/// Every way at the registers of the devices that are there.
pub(crate) fn device_registers() -> Verdict {
    enable_sse();
    let mut random = Random::new(4);
    for page in REGISTERS {
        for offset in 0..0x1000 {
            let address = page + offset;
            if (LAPIC_COMMANDS - 64..LAPIC_COMMANDS + 16).contains(&address) {
                continue;
            }
            for way in [2, 6, random.next() % WAYS, random.next() % WAYS] {
                if way != LOAD_TABLE {
                    let _ = access(way, address, random.next());
                }
            }
        }
    }
    Ok(())
}
