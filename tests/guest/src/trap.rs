//! Exceptions and interrupts, as far as guests have in common how they meet
//! them: stubs that hand a [`Frame`] to a guest's own handler, and [`attempt!`]
//! (crate::attempt!), which goes on behind what has faulted.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

// One stub of 16 bytes for each vector: pushes a zero where the processor
// pushes no error code (AMD APM volume 2, table 8-1), and the vector.
global_asm!(
    ".balign 16",
    "trap_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)",
    "push 0",
    ".endif",
    "push vector",
    "jmp trap_common",
    ".set vector, vector + 1",
    ".endr",
    "trap_common:",
    "cld",
    "push rax",
    "push rcx",
    "push rdx",
    "push rbx",
    "push rbp",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rdi, rsp",
    "call qword ptr [rip + {handler}]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rbp",
    "pop rbx",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    handler = sym HANDLER,
);

unsafe extern "C" {
    /// First of the stubs.
    static trap_stubs: u8;
}

/// What the stubs call.
pub type Handler = extern "C" fn(&mut Frame);

/// Address of the [`Handler`].
static HANDLER: AtomicUsize = AtomicUsize::new(0);
/// Where to go on after an exception; 0 when none is expected.
pub static RECOVER: AtomicU64 = AtomicU64::new(0);

/// Sets what the stubs call, before a table with them is loaded.
pub fn set_handler(handler: Handler) {
    HANDLER.store(handler as usize, Relaxed);
}

/// Address of the stub of a vector.
#[must_use]
pub fn stub(vector: u8) -> u64 {
    &raw const trap_stubs as u64 + 16 * u64::from(vector)
}

/// What the stub and the processor have pushed.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Frame {
    /// R15 down to R8, RDI, RSI, RBP, RBX, RDX, RCX, RAX.
    pub gpr: [u64; 15],
    /// By the stub.
    pub vector: u64,
    /// By the processor, or 0 by the stub.
    pub error: u64,
    /// By the processor, as all below.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

impl Frame {
    /// RAX.
    #[must_use]
    pub fn rax(&self) -> u64 {
        self.gpr[14]
    }

    /// RBX.
    #[must_use]
    pub fn rbx(&self) -> u64 {
        self.gpr[11]
    }

    /// RCX.
    #[must_use]
    pub fn rcx(&self) -> u64 {
        self.gpr[13]
    }

    /// RDX.
    #[must_use]
    pub fn rdx(&self) -> u64 {
        self.gpr[12]
    }

    /// RSI.
    #[must_use]
    pub fn rsi(&self) -> u64 {
        self.gpr[9]
    }
}

/// LGDT's and LIDT's operand.
#[derive(Clone, Copy, Default)]
#[repr(C, packed)]
pub struct Pointer {
    /// Bytes less one.
    pub limit: u16,
    /// Address.
    pub base: u64,
}

/// Loads an interrupt descriptor table.
pub fn load(pointer: &Pointer) {
    // SAFETY: whatever the table is, only this guest can suffer from it.
    unsafe { asm!("lidt [{}]", in(reg) pointer, options(readonly, nostack)) };
}

/// Runs assembler lines, and says what exception they have raised. The
/// operands are those of `asm!`; the instructions must leave the stack and
/// the registers that are not their operands as they were, also where they
/// fault. The guest has a module `trap` whose `outcome` says what came.
#[macro_export]
#[allow(clippy::crate_in_macro_def, reason = "what came is kept by the guest that uses it")]
macro_rules! attempt {
    ([$($line:expr),+ $(,)?] $($operands:tt)*) => {{
        // SAFETY: the guest has one address space and no safe state besides
        // what this program keeps; the caller's instructions touch none of
        // that. An exception goes on at label 2 with the same stack.
        unsafe {
            core::arch::asm!(
                "lea {recover}, [rip + 2f]",
                "mov qword ptr [rip + {place}], {recover}",
                $($line,)+
                "2:",
                recover = out(reg) _,
                place = sym $crate::trap::RECOVER,
                $($operands)*
            );
        }
        crate::trap::outcome()
    }};
}
