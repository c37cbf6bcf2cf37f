//! The guest's memory and processor as Linux's boot protocol wants them: long
//! mode, the first 4 GiB mapped to themselves, RSI on the boot parameters
//! (Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol";
//! zero-page.rst).

use crate::memory::Mapping;
use anyhow::{Context, Result, ensure};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use std::ops::Range;

/// Where things lie below the guest's program.
const ROOT: u64 = 0x1_0000;
const DIRECTORY_POINTERS: u64 = 0x1_1000;
const DIRECTORIES: u64 = 0x1_2000;
const PARAMETERS: u64 = 0x2_0000;
const COMMAND_LINE: u64 = 0x2_1000;
const STACK_END: u64 = 0x9_0000;
/// GiB that are mapped.
const MAPPED_GIB: u64 = 4;
/// Page table entries: present and writable; and large.
const TABLE: u64 = 0x3;
const LARGE: u64 = 0x83;
/// Offsets in the boot parameters.
const E820_ENTRIES: usize = 0x1E8;
const COMMAND_LINE_PLACE: usize = 0x228;
const E820_TABLE: usize = 0x2D0;
const E820_ENTRY: usize = 20;
/// Bytes that a command line has room for, its final zero among them.
const COMMAND_LINE_MAX: usize = 2048;
/// Usable memory.
const USABLE: u32 = 1;
/// CR0: paging, write protection, protection. CR4: PAE, OSFXSR. EFER: long
/// mode, enabled and active (AMD APM volume 2, sections 3.1 and 14).
const CR0: u64 = 1 << 31 | 1 << 16 | 1;
const CR4: u64 = 1 << 9 | 1 << 5;
const EFER: u64 = 1 << 10 | 1 << 8;

/// Writes bytes into the guest's memory.
pub(crate) fn put(memory: &mut Mapping, at: u64, bytes: &[u8]) {
    memory.bytes_mut(at as usize, bytes.len()).copy_from_slice(bytes);
}

/// Puts an ELF program into the guest's memory; where it begins.
pub(crate) fn load(memory: &mut Mapping, program: &[u8]) -> Result<u64> {
    let header = FileHeader64::<LittleEndian>::parse(program).context("the guest is no program")?;
    let endian = header.endian()?;
    for segment in header.program_headers(endian, program)? {
        if segment.p_type(endian) != PT_LOAD {
            continue;
        }
        let (to, size) = (segment.p_paddr(endian), segment.p_memsz(endian));
        let end = to.checked_add(size).context("the guest's program wraps around")?;
        ensure!(end <= memory.len() as u64, "the guest's program does not fit");
        let data = segment.data(endian, program).ok().context("the guest's program is cut off")?;
        put(memory, to, data);
    }
    Ok(header.e_entry(endian))
}

/// Writes page tables, boot parameters and command line. `parameters` has what
/// is known besides the usable memory and the command line.
pub(crate) fn prepare(
    memory: &mut Mapping,
    mut parameters: [u8; 4096],
    usable: &[Range<u64>],
    command_line: &str,
) -> Result<()> {
    ensure!(command_line.len() < COMMAND_LINE_MAX, "the guest's command line is too long");
    put(memory, ROOT, &(DIRECTORY_POINTERS | TABLE).to_le_bytes());
    for gib in 0..MAPPED_GIB {
        let directory = DIRECTORIES + gib * 4096;
        put(memory, DIRECTORY_POINTERS + gib * 8, &(directory | TABLE).to_le_bytes());
        for index in 0..512 {
            let page = (gib << 30) + (index << 21);
            put(memory, directory + index * 8, &(page | LARGE).to_le_bytes());
        }
    }
    parameters[E820_ENTRIES] = u8::try_from(usable.len())?;
    for (range, entry) in usable.iter().zip(parameters[E820_TABLE..].chunks_mut(E820_ENTRY)) {
        entry[..8].copy_from_slice(&range.start.to_le_bytes());
        entry[8..16].copy_from_slice(&(range.end - range.start).to_le_bytes());
        entry[16..20].copy_from_slice(&USABLE.to_le_bytes());
    }
    parameters[COMMAND_LINE_PLACE..][..4].copy_from_slice(&(COMMAND_LINE as u32).to_le_bytes());
    put(memory, PARAMETERS, &parameters);
    put(memory, COMMAND_LINE, command_line.as_bytes());
    Ok(())
}

/// A flat segment; `kind` is its type (AMD APM volume 2, section 4.7).
fn segment(kind: u8, selector: u16, long: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        ..kvm_segment::default()
    }
}

/// The system registers, from those after a reset.
pub(crate) fn system_registers(mut registers: kvm_sregs) -> kvm_sregs {
    let data = segment(3, 0x10, 0);
    registers.cs = segment(11, 0x08, 1);
    (registers.ds, registers.es, registers.ss) = (data, data, data);
    (registers.fs, registers.gs) = (data, data);
    (registers.cr0, registers.cr3, registers.cr4) = (CR0, ROOT, CR4);
    registers.efer = EFER;
    registers
}

/// The general registers at the program's beginning.
pub(crate) fn registers(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsp: STACK_END, rsi: PARAMETERS, rflags: 2, ..kvm_regs::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_tell_memory_and_command_line() {
        let mut memory = Mapping::lazy(1 << 20).unwrap();
        let usable = [0..0x9000, 0x10_0000..0x1234_5000];
        prepare(&mut memory, [7; 4096], &usable, "a=1 b").unwrap();
        let page = memory.bytes_mut(PARAMETERS as usize, 4096).to_vec();
        assert_eq!((page[E820_ENTRIES], page[0]), (2, 7));
        assert_eq!(page[E820_TABLE + 8..][..8], 0x9000u64.to_le_bytes());
        assert_eq!(page[E820_TABLE + 20..][..8], 0x10_0000u64.to_le_bytes());
        assert_eq!(page[E820_TABLE + 28..][..8], 0x1224_5000u64.to_le_bytes());
        assert_eq!(page[COMMAND_LINE_PLACE..][..4], (COMMAND_LINE as u32).to_le_bytes());
        assert_eq!(memory.bytes_mut(COMMAND_LINE as usize, 6), b"a=1 b\0");
        let last = DIRECTORIES + MAPPED_GIB * 4096 - 8;
        let entry = memory.bytes_mut(last as usize, 8).to_vec();
        assert_eq!(entry, (0xFFE0_0000u64 | LARGE).to_le_bytes());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let mut memory = Mapping::lazy(1 << 20).unwrap();
        assert!(load(&mut memory, b"#!/bin/sh").is_err());
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(load(&mut Mapping::lazy(4096).unwrap(), &own).is_err(), "it does not fit");
    }
}
