//! Reads and decodes the instruction that an exit stands for.
//!
//! Some hardware does not tell where the next instruction is, and no hardware
//! tells enough about a memory operand.

use crate::memory::{GuestMemory, in_page};
use crate::stop::Stop;
use crate::walk::{Mmu, Use};
use addr::GuestPhys;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use vcpu::{Registers, Segment, SystemRegisters};

/// Longest instruction in bytes.
const LONGEST: usize = 15;
const EFER_LMA: u64 = 1 << 10;

/// Bytes at the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code {
    /// The bytes; only `len` count.
    pub(crate) bytes: [u8; LONGEST],
    /// How many were read.
    len: usize,
    /// 16, 32 or 64.
    bitness: u32,
    rip: u64,
}

/// Code size of the processor's mode (AMD APM vol. 2, 4.8).
pub(crate) fn bitness(system: &SystemRegisters) -> u32 {
    let has = |bit| system.cs.attributes & bit != 0;
    if system.efer & EFER_LMA != 0 && has(Segment::LONG) {
        64
    } else if has(Segment::DEFAULT_BIG) {
        32
    } else {
        16
    }
}

/// Cuts an instruction pointer to the mode's width.
pub(crate) fn wrap_rip(bitness: u32, rip: u64) -> u64 {
    if bitness == 64 { rip } else { rip & 0xFFFF_FFFF }
}

impl Code {
    /// Reads as many bytes as lie in one page.
    pub(crate) fn fetch(
        memory: &mut dyn GuestMemory,
        registers: &Registers,
        system: &SystemRegisters,
    ) -> Result<Code, Stop> {
        let bitness = bitness(system);
        let mut code = Code { bytes: [0; LONGEST], len: 0, bitness, rip: registers.rip };
        code.fetch_more(memory, registers, system)?;
        Ok(code)
    }

    fn linear(&self, system: &SystemRegisters) -> u64 {
        if self.bitness == 64 {
            self.rip
        } else {
            system.cs.base.wrapping_add(self.rip) & 0xFFFF_FFFF
        }
    }

    /// Reads on to the end of a page or of the longest instruction.
    fn fetch_more(
        &mut self,
        memory: &mut dyn GuestMemory,
        registers: &Registers,
        system: &SystemRegisters,
    ) -> Result<(), Stop> {
        let linear = self.linear(system).wrapping_add(self.len as u64);
        let mmu = Mmu::new(system, registers.rflags);
        let gpa = mmu.translate(memory, linear, Use::Fetch)?;
        let len = in_page(gpa, LONGEST - self.len);
        memory.read(GuestPhys(gpa), &mut self.bytes[self.len..self.len + len])?;
        self.len += len;
        Ok(())
    }

    /// Decodes, reading on into the next page if the instruction goes there.
    pub(crate) fn decode(
        &mut self,
        memory: &mut dyn GuestMemory,
        registers: &Registers,
        system: &SystemRegisters,
    ) -> Result<Instruction, Stop> {
        loop {
            let bytes = &self.bytes[..self.len];
            let mut decoder = Decoder::with_ip(self.bitness, bytes, self.rip, DecoderOptions::NONE);
            let instruction = decoder.decode();
            match decoder.last_error() {
                DecoderError::None => return Ok(instruction),
                DecoderError::NoMoreBytes if self.len < LONGEST => {
                    self.fetch_more(memory, registers, system)?;
                }
                _ => return Err(Stop::UNDEFINED),
            }
        }
    }

    /// Length of one of the short instructions that exits mostly stand for,
    /// without prefixes.
    fn known_length(&self) -> Option<u64> {
        match self.bytes[..self.len] {
            [0xF4, ..] => Some(1), // HLT
            // CPUID, RDMSR, WRMSR, WBINVD, INVD
            [0x0F, 0xA2 | 0x32 | 0x30 | 0x09 | 0x08, ..] => Some(2),
            // VMMCALL, VMCALL, XSETBV
            [0x0F, 0x01, 0xD9 | 0xC1 | 0xD1, ..] => Some(3),
            [0xEC..=0xEF, ..] => Some(1),    // IN and OUT by DX
            [0xE4..=0xE7, _, ..] => Some(2), // IN and OUT, immediate
            _ => None,
        }
    }
}

/// Address of the instruction after the one at RIP.
pub(crate) fn next_rip(
    memory: &mut dyn GuestMemory,
    registers: &Registers,
    system: &SystemRegisters,
) -> Result<u64, Stop> {
    let mut code = Code::fetch(memory, registers, system)?;
    let length = match code.known_length() {
        Some(length) => length,
        None => code.decode(memory, registers, system)?.len() as u64,
    };
    Ok(wrap_rip(code.bitness, registers.rip.wrapping_add(length)))
}
