//! Exceptions: noted, and gone on behind the attempt that raised them.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "mov rdi, rsp",
    "call {handle}",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    handle = sym handle,
);

unsafe extern "C" {
    /// First of the stubs.
    static trap_stubs: u8;
}

/// What the stub and the processor have pushed.
#[repr(C)]
struct Frame {
    scratch: [u64; 9],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Where to go on after an exception; 0 when none is expected.
pub(crate) static RECOVER: AtomicU64 = AtomicU64::new(0);
/// The exception that came: vector + 1 in the high half, error code in the low.
static CAUGHT: AtomicU64 = AtomicU64::new(0);
/// Interrupts that came.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);
/// The number of interrupts at which the APIC's timer is stopped, should it
/// leave the guest no time to do that.
static LIMIT: AtomicU64 = AtomicU64::new(0);
static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// An exception that an attempt has raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// Its vector.
    pub(crate) vector: u8,
    /// Its error code.
    pub(crate) error: u32,
}

/// #UD without an error code.
pub(crate) const UNDEFINED: Fault = Fault { vector: 6, error: 0 };
/// #GP(0).
pub(crate) const PROTECTION: Fault = Fault { vector: 13, error: 0 };

/// Called by the stubs.
extern "C" fn handle(frame: &mut Frame) {
    if frame.vector >= 32 || frame.vector == 2 {
        if INTERRUPTS.fetch_add(1, Relaxed) + 1 == LIMIT.load(Relaxed) {
            crate::apic::calm();
        }
        if frame.vector != 2 {
            crate::apic::end_of_interrupt();
        }
        return;
    }
    let recover = RECOVER.swap(0, Relaxed);
    if recover == 0 {
        let Frame { vector, error, rip, .. } = frame;
        guests::println!("@hostile FAILED: exception {vector} ({error:#x}) at {rip:#x}");
        guests::cpu::stop();
    }
    CAUGHT.store((frame.vector + 1) << 32 | frame.error & 0xFFFF_FFFF, Relaxed);
    frame.rip = recover;
    // No single step behind an attempt that had set it.
    frame.rflags &= !(1 << 8);
}

/// Interrupts so far.
pub(crate) fn interrupts() -> u64 {
    INTERRUPTS.load(Relaxed)
}

/// Stops the timer after `more` interrupts; never for 0.
pub(crate) fn limit(more: u64) {
    LIMIT.store(if more == 0 { 0 } else { interrupts() + more }, Relaxed);
}

/// Attempts and faults so far.
pub(crate) fn counts() -> (u64, u64) {
    (ATTEMPTS.load(Relaxed), FAULTS.load(Relaxed))
}

/// Ends an attempt: what it has raised.
pub(crate) fn outcome() -> Option<Fault> {
    RECOVER.store(0, Relaxed);
    ATTEMPTS.fetch_add(1, Relaxed);
    let caught = CAUGHT.swap(0, Relaxed);
    if caught == 0 {
        return None;
    }
    FAULTS.fetch_add(1, Relaxed);
    Some(Fault { vector: (caught >> 32) as u8 - 1, error: caught as u32 })
}

/// Runs instructions that may fault, and says what they have raised. The
/// operands are those of `asm!`; the instructions must leave the stack and
/// the registers that are not their operands as they were, also where they
/// fault.
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
        $crate::trap::outcome()
    }};
}
pub(crate) use attempt;

/// A gate of the interrupt descriptor table (AMD APM volume 2, 4.8.4).
#[repr(C, align(16))]
struct Table([[u64; 2]; 256]);

static mut TABLE: Table = Table([[0; 2]; 256]);

/// LGDT's and LIDT's operand.
#[repr(C, packed)]
pub(crate) struct Descriptor {
    /// Bytes less one.
    pub(crate) limit: u16,
    /// Address.
    pub(crate) base: u64,
}

/// Loads the table of all 256 stubs.
pub(crate) fn install() {
    let cs: u16;
    // SAFETY: reads a selector.
    unsafe { asm!("mov {0:x}, cs", out(reg) cs, options(nomem, nostack)) };
    let first = &raw const trap_stubs as u64;
    let table = &raw mut TABLE;
    for vector in 0..256 {
        let stub = first + 16 * vector as u64;
        // Present, 64-bit interrupt gate.
        let low = stub & 0xFFFF | u64::from(cs) << 16 | 0x8E << 40 | (stub >> 16 & 0xFFFF) << 48;
        // SAFETY: the table is loaded only below; nothing else refers to it.
        unsafe { (*table).0[vector] = [low, stub >> 32] };
    }
    load(&Descriptor { limit: size_of::<Table>() as u16 - 1, base: table as u64 });
}

/// Loads an interrupt descriptor table.
pub(crate) fn load(descriptor: &Descriptor) {
    // SAFETY: whatever the table is, only this guest can suffer from it.
    unsafe { asm!("lidt [{}]", in(reg) descriptor, options(readonly, nostack)) };
}
