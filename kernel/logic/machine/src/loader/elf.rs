//! 64-bit ELF executables, loaded at their physical addresses (System V ABI,
//! chapters 4 and 5).

use super::bzimage::field;
use super::{COMMAND_LINE_MAX, Image, LoadError, Room, Segment};
use alloc::borrow::Cow;
use alloc::vec::Vec;

const TYPE: usize = 16;
const MACHINE: usize = 18;
const ENTRY: usize = 24;
const PROGRAM_HEADERS: usize = 32;
const PROGRAM_HEADER_SIZE: usize = 54;
const PROGRAM_HEADER_COUNT: usize = 56;
/// ET_EXEC and ET_DYN.
const EXECUTABLE: [u64; 2] = [2, 3];
/// EM_X86_64.
const X86_64: u64 = 62;
/// PT_LOAD.
const LOAD: u64 = 1;
/// Smallest program header.
const HEADER_LEN: u64 = 56;

pub(super) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

struct Load {
    offset: u64,
    virt: u64,
    phys: u64,
    file_len: u64,
    memory_len: u64,
}

fn load(file: &[u8], at: usize) -> Result<Option<Load>, LoadError> {
    let f = |offset: usize, size| field(file, at.saturating_add(offset), size);
    if f(0, 4)? != LOAD || f(40, 8)? == 0 {
        return Ok(None);
    }
    let load = Load {
        offset: f(8, 8)?,
        virt: f(16, 8)?,
        phys: f(24, 8)?,
        file_len: f(32, 8)?,
        memory_len: f(40, 8)?,
    };
    if load.file_len > load.memory_len { Err(LoadError::Damaged) } else { Ok(Some(load)) }
}

/// Checks an executable and places its segments.
pub(super) fn image(file: &[u8], room: Room) -> Result<Image<'_>, LoadError> {
    // Class 64, little-endian.
    if file.get(4..6) != Some(&[2, 1]) || field(file, MACHINE, 2)? != X86_64 {
        return Err(LoadError::No64Bit);
    }
    if !EXECUTABLE.contains(&field(file, TYPE, 2)?) {
        return Err(LoadError::NotAKernel);
    }
    let (size, count) =
        (field(file, PROGRAM_HEADER_SIZE, 2)?, field(file, PROGRAM_HEADER_COUNT, 2)?);
    let first = field(file, PROGRAM_HEADERS, 8)?;
    if size < HEADER_LEN {
        return Err(LoadError::Damaged);
    }
    let entry = field(file, ENTRY, 8)?;
    let mut start = None;
    let mut image = Image {
        segments: Vec::new(),
        end: room.start,
        entry: 0,
        header: &[],
        initrd_max: u64::from(u32::MAX),
        cmdline_max: COMMAND_LINE_MAX - 1,
    };
    for i in 0..count {
        let at = first.checked_add(i * size).and_then(|at| usize::try_from(at).ok());
        let Some(load) = load(file, at.ok_or(LoadError::Damaged)?)? else { continue };
        let bad = LoadError::BadAddress { address: load.phys };
        let end = load.phys.checked_add(load.memory_len).ok_or(bad)?;
        if load.phys < room.start || end > room.end {
            return Err(bad);
        }
        let file_end = load.offset.checked_add(load.file_len).ok_or(LoadError::Damaged)?;
        let bytes = usize::try_from(load.offset)
            .ok()
            .zip(usize::try_from(file_end).ok())
            .and_then(|(from, to)| file.get(from..to))
            .ok_or(LoadError::Damaged)?;
        if entry.wrapping_sub(load.virt) < load.memory_len {
            start = Some(entry - load.virt + load.phys);
        }
        image.end = image.end.max(end);
        image.segments.push(Segment { gpa: load.phys, bytes: Cow::Borrowed(bytes) });
    }
    image.entry = start.ok_or(LoadError::Damaged)?;
    Ok(image)
}
