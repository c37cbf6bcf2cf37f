//! From firmware to Rust.
//!
//! One ELF image serves two ways to boot: the PVH note (QEMU's `-kernel`) and
//! the Multiboot2 header (GRUB on BIOS or UEFI, disk, network or USB). Both
//! enter `entry.s` in 32-bit protected mode, which builds temporary page
//! tables and calls into `entry` in long mode. What firmware or loader said
//! is parsed into one [`BootInfo`], the only type that this crate and the
//! kernel share, and handed to the kernel's `pangaea_main`.
//!
//! Tables of firmware and loader are bytes from outside: every count is
//! bounded, every address checked, nothing here panics. [`pvh`] and
//! [`multiboot2`] work on slices and are tested on the host.
#![no_std]

pub mod bundle;
#[cfg(target_os = "none")]
pub mod entry;
pub mod info;
pub mod multiboot2;
pub mod pvh;
pub mod ranges;

pub use bundle::Payload;
pub use info::{BootInfo, BootMethod, ImageLayout, Module, Rsdp};
pub use ranges::{Range, RangeSet};

/// Reads little-endian fields out of tables that nobody has checked yet.
pub(crate) mod read {
    /// The `N` bytes at `offset`, if they are there.
    pub(crate) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
        bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
    /// A 32-bit field.
    pub(crate) fn u32(bytes: &[u8], offset: usize) -> Option<u32> {
        array(bytes, offset).map(u32::from_le_bytes)
    }
    /// A 64-bit field.
    pub(crate) fn u64(bytes: &[u8], offset: usize) -> Option<u64> {
        array(bytes, offset).map(u64::from_le_bytes)
    }
    /// What comes before the first zero byte, or all of it.
    pub(crate) fn until_zero(bytes: &[u8]) -> &[u8] {
        bytes.split(|&b| b == 0).next().unwrap_or(&[])
    }
}
