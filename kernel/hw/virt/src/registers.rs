//! Registers that the hypervisor itself never uses, and which are therefore
//! the guest's even between runs: x87 and SSE, XCR0, DR0 to DR3.

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

/// CPUID of this processor: EAX, EBX, ECX, EDX.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = raw_cpuid::native_cpuid::cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// Makes x87 and SSE usable, and XCR0 where there is `xsave`, and gives them
/// their state after reset.
///
/// # Safety
/// At privilege level 0, on a processor that has XSAVE if `xsave` says so; the
/// host uses no x87 or SSE register.
pub unsafe fn give_floating_point(xsave: bool) {
    let mut cr0 = Cr0::read();
    cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
    cr0.insert(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR);
    let mut cr4 = Cr4::read();
    cr4.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE);
    cr4.set(Cr4Flags::OSXSAVE, xsave);
    let mxcsr: u32 = 0x1F80;
    // SAFETY: the bits exist on every processor with long mode or by `xsave`,
    // and concern only instructions that the host does not use, says the
    // caller; so do the two instructions.
    unsafe {
        Cr0::write(cr0);
        Cr4::write(cr4);
        core::arch::asm!(
            "fninit",
            "ldmxcsr [{mxcsr}]",
            mxcsr = in(reg) &raw const mxcsr,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Clears DR0 to DR3, the guest's breakpoint addresses, which nothing swaps.
///
/// # Safety
/// At privilege level 0; the host sets no breakpoint.
pub unsafe fn clear_breakpoints() {
    // SAFETY: the caller says that nobody relies on the addresses.
    unsafe {
        core::arch::asm!(
            "mov dr0, {zero}",
            "mov dr1, {zero}",
            "mov dr2, {zero}",
            "mov dr3, {zero}",
            zero = in(reg) 0u64,
            options(nostack, preserves_flags, nomem),
        );
    }
}

/// Has the host's own handler see a machine check that a guest ran into.
///
/// # Safety
/// The host's IDT has a handler for vector 18 that may be entered by INT.
pub unsafe fn host_machine_check() {
    // SAFETY: the caller says that there is a handler; it keeps registers.
    unsafe { core::arch::asm!("int 18") };
}
