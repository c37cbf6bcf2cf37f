//! Power off and reset of the node.
//!
//! Sources: ACPI 6.5, 4.8.3.2 (PM1 control), 4.8.3.6 (reset register); Intel
//! ICH9 datasheet, 13.7.4 (reset control register, port 0xCF9).

use crate::acpi::{self, Register};
use crate::address_space::map_mmio;
use crate::cpu::{self, inb, inw, outb, outw};

const SCI_ENABLE: u16 = 1;
const SLEEP_TYPE_SHIFT: u32 = 10;
const SLEEP_TYPE_MASK: u16 = 7 << SLEEP_TYPE_SHIFT;
const SLEEP_ENABLE: u16 = 1 << 13;
/// Polls of a register before its device is given up.
const POLLS_MAX: u32 = 3_000_000;

/// Powers the node off through ACPI. Where that is not possible the reason is
/// logged and the processor stops.
pub fn power_off() -> ! {
    let reason = match acpi::get() {
        None => "the ACPI tables have not been read",
        Some(tables) => match (tables.pm1a_control, tables.s5) {
            (None, _) => "no PM1a control register in the ACPI tables",
            (_, None) => "no \\_S5 package in the ACPI tables",
            (Some(pm1a), Some(types)) => {
                enter_s5(tables, pm1a, types);
                "the hardware did not react"
            }
        },
    };
    log::error!("power off failed: {reason}; the node stops here");
    cpu::stop()
}

fn enter_s5(tables: &acpi::Tables, pm1a: u16, types: (u8, u8)) {
    // SAFETY: the FADT names the ports as the PM1 control registers and the
    // SMI command port; nobody else in the node uses them.
    unsafe {
        if let Some((port, value)) = tables.enable
            && inw(pm1a) & SCI_ENABLE == 0
        {
            outb(port, value);
            // QEMU turns off all the same if the firmware never answers.
            let _ = (0..POLLS_MAX / 30).any(|_| inw(pm1a) & SCI_ENABLE != 0);
        }
        let ports = [(Some(pm1a), types.0), (tables.pm1b_control, types.1)];
        for sleep in [0, SLEEP_ENABLE] {
            for (port, kind) in ports {
                let Some(port) = port else { continue };
                let kept = inw(port) & !(SLEEP_TYPE_MASK | SLEEP_ENABLE);
                outw(port, kept | u16::from(kind) << SLEEP_TYPE_SHIFT | sleep);
            }
        }
        // The machine goes off within this wait.
        for _ in 0..POLLS_MAX {
            let _ = inw(pm1a);
        }
    }
}

/// Resets the node: by the FADT's reset register, then port 0xCF9, then the
/// keyboard controller, then a triple fault.
pub fn reset() -> ! {
    x86_64::instructions::interrupts::disable();
    if let Some((register, value)) = acpi::get().and_then(|t| t.reset) {
        match register {
            // SAFETY: the FADT names the port as the reset register.
            Register::Port(port) => unsafe { outb(port, value) },
            Register::Memory(address) => {
                if let Ok(register) = map_mmio(address, 1) {
                    // SAFETY: as above, in memory; just mapped.
                    unsafe { register.write_volatile(value) };
                }
            }
        }
        pause();
    }
    // SAFETY: the reset control register and the keyboard controller's
    // command port of a PC; the node ends here.
    unsafe {
        outb(0xCF9, 0x02);
        outb(0xCF9, 0x06);
        pause();
        let _ = (0..POLLS_MAX / 30).any(|_| inb(0x64) & 0b10 == 0);
        outb(0x64, 0xFE);
        pause();
        let none =
            x86_64::structures::DescriptorTablePointer { limit: 0, base: x86_64::VirtAddr::zero() };
        x86_64::instructions::tables::lidt(&none);
        core::arch::asm!("ud2", options(noreturn));
    }
}

/// Gives a reset a moment to take effect: port 0x80 takes about 1 us.
fn pause() {
    for _ in 0..20_000 {
        // SAFETY: port 0x80 shows power-on self test codes and nothing else.
        unsafe { outb(0x80, 0) };
    }
}
