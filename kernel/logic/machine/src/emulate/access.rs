//! An instruction's way to memory: translated, then RAM or a device.
//!
//! An operand may reach over the end of a page, and each part may lie in RAM
//! or in a device. RAM comes first, since only that can be Pending: so a
//! device is not read twice, nor written before all else is done.

use super::Step;
use crate::memory::in_page;
use crate::stop::Stop;
use crate::walk::Use;
use crate::{Context, Machine};
use addr::GuestPhys;

/// Where an operand lies: in one page, or in two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Address and bytes of each part; no bytes for one that is not there.
    parts: [Part; 2],
    /// Bytes of the operand.
    pub(super) size: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    gpa: u64,
    len: usize,
    is_ram: bool,
}

impl Place {
    /// Whether any of it is a device.
    pub(super) fn has_device(&self) -> bool {
        self.parts.iter().any(|part| part.len > 0 && !part.is_ram)
    }

    /// The parts that are RAM, or those that are not, each with its range of
    /// the operand's bytes.
    fn of_kind(self, is_ram: bool) -> impl Iterator<Item = (u64, core::ops::Range<usize>)> {
        let [first, second] = self.parts;
        let ranges = [(first, 0..first.len), (second, first.len..self.size)];
        ranges
            .into_iter()
            .filter(move |(part, range)| !range.is_empty() && part.is_ram == is_ram)
            .map(|(part, range)| (part.gpa, range))
    }
}

impl Machine {
    fn part(&self, gpa: u64, len: usize) -> Part {
        Part { gpa, len, is_ram: self.layout.linear(GuestPhys(gpa).gfn()).is_some() }
    }

    /// Translates an operand of `size` (1 to 8) bytes.
    pub(super) fn place(
        &self,
        at: &mut Context<'_>,
        step: &Step,
        linear: u64,
        size: usize,
        what: Use,
    ) -> Result<Place, Stop> {
        let gpa = step.mmu.translate(at.memory, linear, what)?;
        let first = in_page(gpa, size);
        let mut parts = [self.part(gpa, first), Part { gpa: 0, len: 0, is_ram: true }];
        if first < size {
            let next = step.wrap(linear.wrapping_add(first as u64));
            let gpa = step.mmu.translate(at.memory, next, what)?;
            parts[1] = self.part(gpa, size - first);
        }
        Ok(Place { parts, size })
    }

    /// Translates an operand that must be a device at least in part: else it
    /// was not the cause of the exit.
    pub(super) fn device_place(
        &self,
        at: &mut Context<'_>,
        step: &Step,
        linear: u64,
        size: usize,
        what: Use,
    ) -> Result<Place, Stop> {
        let place = self.place(at, step, linear, size, what)?;
        if place.has_device() { Ok(place) } else { Err(Stop::Unemulatable) }
    }

    /// Reads what of an operand is RAM.
    pub(super) fn load_ram(&self, at: &mut Context<'_>, place: &Place) -> Result<u64, Stop> {
        let mut bytes = [0; 8];
        for (gpa, range) in place.of_kind(true) {
            at.memory.read(GuestPhys(gpa), &mut bytes[range])?;
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads what of an operand is a device, to add to what is RAM.
    pub(super) fn load_device(&mut self, at: &Context<'_>, place: &Place) -> u64 {
        let mut value = 0;
        for (gpa, range) in place.of_kind(false) {
            let part = self.read_device(at.cpu, gpa, range.len(), at.now);
            value |= part << (8 * range.start);
        }
        value
    }

    /// Reads an operand. If this exit read a device before it became Pending,
    /// it is the same value again, as reading may have had an effect: there is
    /// at most one such operand before each point of progress.
    pub(super) fn load(&mut self, at: &mut Context<'_>, place: &Place) -> Result<u64, Stop> {
        if !place.has_device() {
            return self.load_ram(at, place);
        }
        if let Some(value) = self.cpus[at.cpu].replay {
            return Ok(value);
        }
        let value = self.load_ram(at, place)? | self.load_device(at, place);
        self.cpus[at.cpu].replay = Some(value);
        Ok(value)
    }

    /// Writes an operand.
    pub(super) fn store(
        &mut self,
        at: &mut Context<'_>,
        place: &Place,
        value: u64,
    ) -> Result<(), Stop> {
        let bytes = value.to_le_bytes();
        for (gpa, range) in place.of_kind(true) {
            at.memory.write(GuestPhys(gpa), &bytes[range])?;
        }
        for (gpa, range) in place.of_kind(false) {
            let part = value >> (8 * range.start);
            self.write_device(at.cpu, gpa, range.len(), part, at.now);
        }
        Ok(())
    }
}
