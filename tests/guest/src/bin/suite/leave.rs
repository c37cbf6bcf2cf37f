//! Code at another privilege level or of another size, and the way back.

use crate::tables::{CODE, DATA};
use crate::trap::{self, Frame};
use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Stack pointer of who has left; 0 when nobody has.
static SAVED: AtomicU64 = AtomicU64::new(0);

/// Where to go, in the order that [`out`] reads it.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(crate) struct Start {
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
    /// DS and ES.
    pub(crate) ds: u64,
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
}

/// Whether somebody has left.
pub(crate) fn is_out() -> bool {
    SAVED.load(Relaxed) != 0
}

/// Has an exception's frame return to who has left.
pub(crate) fn come_back(frame: &mut Frame) {
    frame.rip = back as *const () as u64;
    frame.cs = u64::from(CODE);
    frame.ss = u64::from(DATA);
    frame.rsp = SAVED.swap(0, Relaxed);
    frame.rflags = 2;
}

/// Goes there; returns when an exception or INT 0x80 there comes.
pub(crate) fn leave(start: &Start) -> (trap::Fault, Frame) {
    // SAFETY: the code of a test runs on a stack of its own; its exception
    // comes back with this stack and all registers as they were.
    unsafe {
        out(start);
        asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {1:e}", "mov gs, {1:e}",
            in(reg) u32::from(DATA), in(reg) 0, options(nostack, preserves_flags));
    }
    match trap::outcome() {
        Some(fault) => (fault, trap::frame()),
        None => unreachable!("an exception has come back"),
    }
}

#[unsafe(naked)]
unsafe extern "sysv64" fn out(start: *const Start) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rip + {saved}], rsp",
        "mov eax, [rdi + 8 * 5]",
        "mov ds, eax",
        "mov es, eax",
        "push qword ptr [rdi + 8 * 4]",
        "push qword ptr [rdi + 8 * 3]",
        "push qword ptr [rdi + 8 * 2]",
        "push qword ptr [rdi + 8 * 1]",
        "push qword ptr [rdi]",
        "mov rax, [rdi + 8 * 6]",
        "mov rbx, [rdi + 8 * 7]",
        "mov rcx, [rdi + 8 * 8]",
        "mov rdx, [rdi + 8 * 9]",
        "mov rsi, [rdi + 8 * 10]",
        "mov rdi, [rdi + 8 * 11]",
        "iretq",
        saved = sym SAVED,
    )
}

/// The end of [`out`], with its stack.
#[unsafe(naked)]
unsafe extern "sysv64" fn back() {
    naked_asm!("cld", "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx", "ret",)
}
