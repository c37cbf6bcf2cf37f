//! The world switch.
//!
//! # Physical interrupts
//!
//! With V_INTR_MASKING, VMRUN takes the host's RFLAGS.IF as the mask of
//! physical interrupts while the guest runs, whatever the guest's own IF
//! (APM 15.21.1). So IF has to be 1 at VMRUN, or a guest that computes would
//! never let the host have an interrupt. Yet none may be taken between here
//! and VMRUN, with half of the guest's registers loaded. GIF does both: CLGI
//! first, which holds everything back (APM 15.17), then STI, then VMRUN, which
//! sets GIF for the guest. The exit clears GIF again and gives IF back as 1,
//! and the interrupt that caused it is still pending: it is taken at STGI,
//! through the host's own IDT, after the host's registers are back. POPFQ
//! then gives the caller the IF it came with.

use core::arch::naked_asm;
use vcpu::Registers;

/// Runs the guest until it exits. RAX, RSP, RIP and RFLAGS pass by the VMCB,
/// the other general registers by `registers`.
///
/// # Safety
/// SVM is on. `guest` is the physical address of a VMCB whose permission maps
/// and nested page tables are valid and reach no memory but the guest's;
/// `host` is that of a VMCB that VMSAVE has filled on this processor. The
/// host's IDT can take interrupts and NMIs. The host uses no x87 or SSE
/// register.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn enter(registers: *mut Registers, guest: u64, host: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "pushfq",
        "push rdi", // registers
        "push rdx", // host VMCB
        "clgi",
        "sti",
        "mov rax, rsi",
        // FS, GS, TR, LDTR and the MSRs that go with them (APM 15.5.2).
        "vmload rax",
        "mov rcx, [rdi + 8 * 1]",
        "mov rdx, [rdi + 8 * 2]",
        "mov rbx, [rdi + 8 * 3]",
        "mov rbp, [rdi + 8 * 5]",
        "mov rsi, [rdi + 8 * 6]",
        "mov r8, [rdi + 8 * 8]",
        "mov r9, [rdi + 8 * 9]",
        "mov r10, [rdi + 8 * 10]",
        "mov r11, [rdi + 8 * 11]",
        "mov r12, [rdi + 8 * 12]",
        "mov r13, [rdi + 8 * 13]",
        "mov r14, [rdi + 8 * 14]",
        "mov r15, [rdi + 8 * 15]",
        "mov rdi, [rdi + 8 * 7]",
        "vmrun rax",
        // RAX is the guest VMCB's address again, RSP the host's stack.
        "vmsave rax",
        "push rdi",
        "mov rdi, [rsp + 16]",
        "mov [rdi + 8 * 1], rcx",
        "mov [rdi + 8 * 2], rdx",
        "mov [rdi + 8 * 3], rbx",
        "mov [rdi + 8 * 5], rbp",
        "mov [rdi + 8 * 6], rsi",
        "mov [rdi + 8 * 8], r8",
        "mov [rdi + 8 * 9], r9",
        "mov [rdi + 8 * 10], r10",
        "mov [rdi + 8 * 11], r11",
        "mov [rdi + 8 * 12], r12",
        "mov [rdi + 8 * 13], r13",
        "mov [rdi + 8 * 14], r14",
        "mov [rdi + 8 * 15], r15",
        "pop rcx", // the guest's RDI
        "mov [rdi + 8 * 7], rcx",
        "pop rax", // host VMCB
        "vmload rax",
        "add rsp, 8",
        // What waits is taken here; the NOP gives it a boundary of its own
        // before POPFQ may close IF.
        "stgi",
        "nop",
        "popfq",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Saves the host's FS, GS, TR, LDTR and the MSRs that go with them.
///
/// # Safety
/// SVM is on; `host` is the physical address of a page kept for this.
pub(crate) unsafe fn save_host(host: u64) {
    // SAFETY: the caller says that VMSAVE exists and may write the page.
    unsafe { core::arch::asm!("vmsave rax", in("rax") host, options(nostack, preserves_flags)) };
}
