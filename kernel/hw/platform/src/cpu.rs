//! Wrappers of processor instructions, model specific registers, features.
//!
//! One processor is in use now: the boot processor. The others stay where the
//! firmware parked them (waiting for INIT/SIPI); [`this_cpu`] is the seam
//! where per-processor data will hang.

use core::arch::asm;
use x86_64::registers::control::{Cr4, Cr4Flags};

/// Index of a processor of this node: 0 is the boot processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuIndex(pub u16);

/// The processor that runs this code.
#[must_use]
pub const fn this_cpu() -> CpuIndex {
    CpuIndex(0)
}

/// Model specific registers that this crate uses.
pub mod msr {
    /// Local APIC base and enables.
    pub const APIC_BASE: u32 = 0x1B;
    /// Page attribute table.
    pub const PAT: u32 = 0x277;
    /// TSC deadline of the local APIC timer.
    pub const TSC_DEADLINE: u32 = 0x6E0;
    /// First of the x2APIC registers.
    pub const X2APIC_BASE: u32 = 0x800;
    /// Extended features: LME, NXE, SVME.
    pub const EFER: u32 = 0xC000_0080;
}

/// EFER.NXE: page tables may forbid execution.
pub const EFER_NXE: u64 = 1 << 11;

/// Reads a model specific register.
///
/// # Safety
/// The register has to exist, or the processor faults (#GP).
#[must_use]
pub unsafe fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller promises that the register exists; reading has no
    // effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nostack, nomem, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model specific register.
///
/// # Safety
/// The register has to exist and take the value, and what it changes must not
/// break the running code.
pub unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the caller answers for the register and the value.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}

/// Reads a model specific register that may not exist; `None` after #GP. The
/// exception handlers have to be installed.
#[cfg(target_os = "none")]
#[must_use]
pub fn rdmsr_checked(msr: u32) -> Option<u64> {
    let (low, high): (u32, u32);
    let failed: u32;
    // SAFETY: a #GP at label 2 is caught by the fixup table, which goes on at
    // label 3 with the registers as they were.
    unsafe {
        asm!(
            "2: rdmsr",
            "xor {failed:e}, {failed:e}",
            "3:",
            ".pushsection .fixup_table, \"a\", @progbits",
            ".quad 2b, 3b",
            ".popsection",
            failed = inout(reg) 1 => failed,
            in("ecx") msr, inout("eax") 0 => low, inout("edx") 0 => high,
            options(nostack),
        );
    }
    (failed == 0).then_some(u64::from(high) << 32 | u64::from(low))
}

/// Writes a model specific register that may not exist or may refuse the
/// value; `false` after #GP. The exception handlers have to be installed.
///
/// # Safety
/// What the register changes must not break the running code.
#[cfg(target_os = "none")]
pub unsafe fn wrmsr_checked(msr: u32, value: u64) -> bool {
    let failed: u32;
    // SAFETY: a #GP at label 2 is caught by the fixup table, which goes on at
    // label 3; the caller answers for the effect.
    unsafe {
        asm!(
            "2: wrmsr",
            "xor {failed:e}, {failed:e}",
            "3:",
            ".pushsection .fixup_table, \"a\", @progbits",
            ".quad 2b, 3b",
            ".popsection",
            failed = inout(reg) 1 => failed,
            in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack),
        );
    }
    failed == 0
}

/// CPUID of a leaf and subleaf: EAX, EBX, ECX, EDX.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// Width of physical addresses in bits (CPUID 8000_0008h EAX), 36 to 52.
#[must_use]
pub fn physical_address_bits() -> u32 {
    let bits =
        if cpuid(0x8000_0000, 0)[0] >= 0x8000_0008 { cpuid(0x8000_0008, 0)[0] & 0xFF } else { 36 };
    bits.clamp(36, 52)
}

/// Whether page tables may map 1 GiB pages (CPUID 8000_0001h EDX bit 26).
#[must_use]
pub fn has_giant_pages() -> bool {
    cpuid(0x8000_0001, 0)[3] & 1 << 26 != 0
}

/// Whether page tables may forbid execution (CPUID 8000_0001h EDX bit 20).
#[must_use]
pub fn has_no_execute() -> bool {
    cpuid(0x8000_0001, 0)[3] & 1 << 20 != 0
}

/// Whether there is a page attribute table (CPUID 1 EDX bit 16).
#[must_use]
pub fn has_pat() -> bool {
    cpuid(1, 0)[3] & 1 << 16 != 0
}

/// Modes of CR4 that 64-bit operating systems run with, of those the processor
/// has: large and global pages, SMEP and SMAP (CPUID 1 EDX bits 3 and 13,
/// CPUID 7 EBX bits 7 and 20).
pub(crate) fn os_modes() -> Cr4Flags {
    let basic = cpuid(1, 0)[3];
    let extended = if cpuid(0, 0)[0] >= 7 { cpuid(7, 0)[1] } else { 0 };
    let mut modes = Cr4Flags::empty();
    modes.set(Cr4Flags::PAGE_SIZE_EXTENSION, basic & 1 << 3 != 0);
    modes.set(Cr4Flags::PAGE_GLOBAL, basic & 1 << 13 != 0);
    modes.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, extended & 1 << 7 != 0);
    modes.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, extended & 1 << 20 != 0);
    modes
}

/// Lets machine checks raise #MC, whose handler reports them, instead of
/// shutting the processor down. The exception handlers have to be installed.
pub fn enable_machine_check() {
    if cpuid(1, 0)[3] & 1 << 7 != 0 {
        // SAFETY: CPUID offers the exception; the bit changes nothing else.
        unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION)) };
    }
}

/// Reads the time stamp counter.
#[must_use]
pub fn rdtsc() -> u64 {
    // SAFETY: every processor with long mode has RDTSC, and CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Forgets the translation of one page.
pub fn invlpg(address: u64) {
    x86_64::instructions::tlb::flush(x86_64::VirtAddr::new_truncate(address));
}

/// Stops this processor for good; only an NMI or a reset ends it.
pub fn stop() -> ! {
    loop {
        // SAFETY: interrupts off, then halt: nothing else is touched.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Reads the address of the caller's stack frame.
#[inline(always)]
#[must_use]
pub fn frame_pointer() -> u64 {
    let rbp: u64;
    // SAFETY: only copies a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}

/// Port I/O of one byte.
///
/// # Safety
/// The port's device must be one that the caller owns.
#[must_use]
pub unsafe fn inb(port: u16) -> u8 {
    let value: u8;
    // SAFETY: the caller owns the device.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// Port I/O of one byte.
///
/// # Safety
/// The port's device must be one that the caller owns.
pub unsafe fn outb(port: u16, value: u8) {
    // SAFETY: the caller owns the device.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Port I/O of a 16-bit word.
///
/// # Safety
/// The port's device must be one that the caller owns.
#[must_use]
pub unsafe fn inw(port: u16) -> u16 {
    let value: u16;
    // SAFETY: the caller owns the device.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nostack, preserves_flags)) };
    value
}

/// Port I/O of a 16-bit word.
///
/// # Safety
/// The port's device must be one that the caller owns.
pub unsafe fn outw(port: u16, value: u16) {
    // SAFETY: the caller owns the device.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// Port I/O of a 32-bit word.
///
/// # Safety
/// The port's device must be one that the caller owns.
#[must_use]
pub unsafe fn inl(port: u16) -> u32 {
    let value: u32;
    // SAFETY: the caller owns the device.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags))
    };
    value
}

/// Port I/O of a 32-bit word.
///
/// # Safety
/// The port's device must be one that the caller owns.
pub unsafe fn outl(port: u16, value: u32) {
    // SAFETY: the caller owns the device.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}

/// A random number of the processor's, where it has RDRAND.
pub fn random() -> Option<u64> {
    x86_64::instructions::random::RdRand::new()?.get_u64()
}
