//! An instruction's way to memory: translated, then RAM or a device.

use crate::memory::in_page;
use crate::stop::Stop;
use crate::walk::{Mmu, Use};
use crate::{Context, Machine};
use addr::GuestPhys;

impl Machine {
    fn is_ram(&self, gpa: u64) -> bool {
        self.layout.linear(GuestPhys(gpa).gfn()).is_some()
    }

    /// Translates an operand that must be device memory within one page.
    pub(super) fn device_address(
        &mut self,
        at: &mut Context<'_>,
        mmu: &Mmu,
        linear: u64,
        size: usize,
        what: Use,
    ) -> Result<u64, Stop> {
        let gpa = mmu.translate(at.memory, linear, what)?;
        if self.is_ram(gpa) || in_page(gpa, size) < size {
            return Err(Stop::Unemulatable);
        }
        Ok(gpa)
    }

    /// Reads device memory; if this exit did so before it became Pending, it
    /// is the same value again, as reading may have had an effect. There is
    /// at most one device read before each point of progress.
    pub(super) fn read_once(&mut self, at: &Context<'_>, gpa: u64, size: usize) -> u64 {
        if let Some(value) = self.cpus[at.cpu].replay {
            return value;
        }
        let value = self.read_device(at.cpu, gpa, size, at.now);
        self.cpus[at.cpu].replay = Some(value);
        value
    }

    /// Reads a string element from RAM or a device.
    pub(super) fn load(
        &mut self,
        at: &mut Context<'_>,
        mmu: &Mmu,
        linear: u64,
        size: usize,
    ) -> Result<u64, Stop> {
        let gpa = mmu.translate(at.memory, linear, Use::Read)?;
        if !self.is_ram(gpa) {
            let gpa = self.device_address(at, mmu, linear, size, Use::Read)?;
            return Ok(self.read_once(at, gpa, size));
        }
        let mut bytes = [0; 8];
        let first = in_page(gpa, size);
        at.memory.read(GuestPhys(gpa), &mut bytes[..first])?;
        if first < size {
            let rest = mmu.translate(at.memory, linear.wrapping_add(first as u64), Use::Read)?;
            at.memory.read(GuestPhys(rest), &mut bytes[first..size])?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a string element to RAM or a device.
    pub(super) fn store(
        &mut self,
        at: &mut Context<'_>,
        mmu: &Mmu,
        linear: u64,
        size: usize,
        value: u64,
    ) -> Result<(), Stop> {
        let gpa = mmu.translate(at.memory, linear, Use::Write)?;
        if !self.is_ram(gpa) {
            let gpa = self.device_address(at, mmu, linear, size, Use::Write)?;
            self.write_device(at.cpu, gpa, size, value, at.now);
            return Ok(());
        }
        let bytes = value.to_le_bytes();
        let first = in_page(gpa, size);
        if first < size {
            // Both translations before the first byte is written.
            let rest = mmu.translate(at.memory, linear.wrapping_add(first as u64), Use::Write)?;
            at.memory.write(GuestPhys(rest), &bytes[first..size])?;
        }
        at.memory.write(GuestPhys(gpa), &bytes[..first])?;
        Ok(())
    }
}
