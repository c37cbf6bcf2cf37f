//! The memory bus beyond RAM: which address leads to which device.

use crate::Machine;
use chipset::{lapic, map};

/// Bits of IA32_APIC_BASE that are an address.
const APIC_BASE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// Who answers at an address.
enum Target {
    IoApic(u32),
    Lapic(u32),
    Ecam(u64),
    Nobody,
}

impl Machine {
    fn target(&mut self, cpu: usize, gpa: u64) -> Target {
        let offset = (gpa & 0xFFF) as u32;
        if let Some(at) = offset_in(gpa, map::IOAPIC_BASE, map::IOAPIC_SIZE) {
            return Target::IoApic(at as u32);
        }
        if let Some(at) = offset_in(gpa, map::ECAM_BASE, map::ECAM_SIZE) {
            return Target::Ecam(at);
        }
        let apic = &mut self.cpus[cpu].lapic;
        if apic.mode() == lapic::Mode::XApic
            && apic
                .read_msr(lapic::MSR_APIC_BASE, 0)
                .is_ok_and(|base| base & APIC_BASE_ADDRESS == gpa - u64::from(offset))
        {
            return Target::Lapic(offset);
        }
        Target::Nobody
    }

    /// Reads `size` (1, 2, 4 or 8) bytes of device memory within a page.
    pub(crate) fn read_device(&mut self, cpu: usize, gpa: u64, size: usize, time: u64) -> u64 {
        let tsc = self.guest_tsc(cpu, time);
        let value = match self.target(cpu, gpa) {
            Target::IoApic(at) => part(self.devices.ioapic.read(at & !3), at),
            Target::Lapic(at) => part(self.cpus[cpu].lapic.read_mmio(at & !3, tsc), at),
            Target::Ecam(at) => {
                let mut value = 0;
                for (done, step) in pieces(at, size) {
                    let bits = self.devices.pci.read_ecam(&mut (), at + done, step);
                    value |= u64::from(bits) << (8 * done);
                }
                value
            }
            Target::Nobody => {
                self.counters.unknown_mmio.count(gpa & !0xFFF);
                u64::MAX
            }
        };
        value & ones(size)
    }

    /// Writes `size` (1, 2, 4 or 8) bytes of device memory within a page.
    /// The APICs take only the dword that starts at a register.
    pub(crate) fn write_device(
        &mut self,
        cpu: usize,
        gpa: u64,
        size: usize,
        value: u64,
        time: u64,
    ) {
        let tsc = self.guest_tsc(cpu, time);
        match self.target(cpu, gpa) {
            Target::IoApic(at) if at & 3 == 0 => {
                self.devices.ioapic.write(at, value as u32);
                self.drain_ioapic();
            }
            Target::Lapic(at) if at & 3 == 0 => {
                let effect = self.cpus[cpu].lapic.write_mmio(at, value as u32, tsc);
                self.apply(cpu, effect);
            }
            Target::IoApic(_) | Target::Lapic(_) => {}
            Target::Ecam(at) => {
                for (done, step) in pieces(at, size) {
                    let bits = (value >> (8 * done)) as u32;
                    let bits = bits & ones(usize::from(step)) as u32;
                    self.devices.pci.write_ecam(&mut (), at + done, step, bits);
                }
            }
            Target::Nobody => self.counters.unknown_mmio.count(gpa & !0xFFF),
        }
    }
}

fn offset_in(gpa: u64, base: u64, size: u64) -> Option<u64> {
    gpa.checked_sub(base).filter(|&at| at < size)
}

/// A register's bits from the byte that was addressed on.
fn part(register: u32, at: u32) -> u64 {
    u64::from(register) >> (8 * (at & 3))
}

/// All ones in the low `size` bytes.
pub(crate) fn ones(size: usize) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 }
}

/// Splits an access into aligned ones of 1, 2 or 4 bytes: offset and size.
fn pieces(at: u64, size: usize) -> impl Iterator<Item = (u64, u8)> {
    let mut done = 0u64;
    core::iter::from_fn(move || {
        let left = size as u64 - done;
        if left == 0 {
            return None;
        }
        let fits = |step: u64| (at + done).is_multiple_of(step) && step <= left;
        let step = [4, 2, 1].into_iter().find(|&s| fits(s)).unwrap_or(1);
        let piece = (done, step as u8);
        done += step;
        Some(piece)
    })
}
