//! Linux's bzImage: the setup header, and where the kernel goes.
//!
//! Fields by their offset in the file, as Linux
//! Documentation/arch/x86/boot.rst tabulates them.

use super::{Image, LoadError, Room, Segment};
use alloc::borrow::Cow;
use alloc::vec;

/// Offset of the setup header.
pub(super) const HEADER: usize = 0x1F1;
const SETUP_SECTS: usize = 0x1F1;
const JUMP_OFFSET: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const INITRD_ADDR_MAX: usize = 0x22C;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// Protocol 2.12 brought xloadflags.
const VERSION_MIN: u64 = 0x20C;
/// XLF_KERNEL_64: there is a 64-bit entry point at 0x200.
const XLF_KERNEL_64: u64 = 1;
/// The 64-bit entry point in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// Longest setup header: boot_params has room up to 0x290.
const HEADER_END_MAX: usize = 0x290;

/// Reads a little-endian field of `size` bytes.
pub(super) fn field(file: &[u8], at: usize, size: usize) -> Result<u64, LoadError> {
    let end = at.checked_add(size).ok_or(LoadError::Damaged)?;
    let bytes = file.get(at..end).ok_or(LoadError::Damaged)?;
    Ok(bytes.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
}

/// Checks a bzImage and places it.
pub(super) fn image(file: &[u8], room: Room) -> Result<Image<'_>, LoadError> {
    let is_kernel = file.get(MAGIC..MAGIC + 4) == Some(b"HdrS");
    if !is_kernel {
        return Err(LoadError::NotAKernel);
    }
    if field(file, VERSION, 2)? < VERSION_MIN {
        return Err(LoadError::TooOld);
    }
    if field(file, XLOADFLAGS, 2)? & XLF_KERNEL_64 == 0 {
        return Err(LoadError::No64Bit);
    }
    let sectors = match field(file, SETUP_SECTS, 1)? {
        0 => 4,
        n => n as usize,
    };
    let code = file.get((sectors + 1) * 512..).ok_or(LoadError::Damaged)?;
    if code.len() as u64 <= ENTRY_64 {
        return Err(LoadError::Damaged);
    }
    let header_end = MAGIC + field(file, JUMP_OFFSET, 1)? as usize;
    let header_end = header_end.min(HEADER_END_MAX);
    if header_end < INIT_SIZE + 4 {
        return Err(LoadError::Damaged);
    }
    let need = field(file, INIT_SIZE, 4)?.max(code.len() as u64);
    let start = place(file, need, room)?;
    let cmdline_max = field(file, CMDLINE_SIZE, 4)? as usize;
    Ok(Image {
        segments: vec![Segment { gpa: start, bytes: Cow::Borrowed(code) }],
        end: start + need,
        entry: start + ENTRY_64,
        header: &file[HEADER..header_end],
        initrd_max: field(file, INITRD_ADDR_MAX, 4)?,
        cmdline_max,
    })
}

/// The preferred address if there is room, else the lowest aligned one above
/// 1 MiB that a relocatable kernel takes.
fn place(file: &[u8], need: u64, room: Room) -> Result<u64, LoadError> {
    let preferred = field(file, PREF_ADDRESS, 8)?;
    let fits = |start: u64| {
        start >= room.start && start.checked_add(need).is_some_and(|end| end <= room.end)
    };
    if fits(preferred) {
        return Ok(preferred);
    }
    let too_large = LoadError::KernelTooLarge { have: room.end - room.start, need };
    let alignment = field(file, KERNEL_ALIGNMENT, 4)?;
    if field(file, RELOCATABLE, 1)? == 0 || !alignment.is_power_of_two() {
        return Err(too_large);
    }
    let start = room.start.next_multiple_of(alignment);
    if fits(start) { Ok(start) } else { Err(too_large) }
}
