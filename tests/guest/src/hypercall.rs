//! The node's hypercalls for benchmark guests (`node::bench` says what each
//! does).

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Result of a call that cannot be done.
pub const ERROR: u64 = u64::MAX;

/// A hypercall's number (RAX).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Call {
    /// Number of nodes.
    Nodes = 1,
    /// Has a node take pages for writing: gfn, pages, node.
    TakeWrite = 2,
    /// Has a node take pages for reading: gfn, pages, node.
    TakeRead = 3,
    /// Takes that are not yet done.
    Outstanding = 4,
    /// Round trips one after the other: payload bytes, count, node.
    Probe = 5,
    /// Round trips several at a time: payload bytes, count, node.
    Stream = 6,
    /// Makes the next write to a page fault and be answered at once: gfn.
    Protect = 7,
    /// Clears the node's histograms.
    Clear = 8,
    /// The TSC's frequency in hertz.
    TscHz = 9,
    /// Free frames of the guest's node.
    FreeFrames = 10,
    /// Home node of a page: gfn.
    Home = 11,
    /// Has every node print and clear its histograms: a number to name them.
    Mark = 12,
    /// Pages that came to the guest's node for its accesses, or ahead of them.
    Fetched = 13,
    /// Whether a page is part of a large one at the guest's node: gfn.
    Large = 14,
    /// Times that this program has exited, the call included.
    Exits = 15,
}

/// Makes a hypercall; `None` where it cannot be done.
#[must_use]
pub fn call(call: Call, rbx: u64, rcx: u64, rdx: u64) -> Option<u64> {
    let value = raw(call as u64, rbx, rcx, rdx);
    (value != ERROR).then_some(value)
}

/// What [`is_intel`] has found: 0 nothing yet, 1 no, 2 yes.
static INTEL: AtomicU8 = AtomicU8::new(0);

/// Whether the hypercall is VMCALL: each vendor has an instruction of its own,
/// and the other's is undefined. Asks CPUID once, since that exits.
fn is_intel() -> bool {
    if INTEL.load(Relaxed) == 0 {
        let vendor = core::arch::x86_64::__cpuid(0);
        let is_intel = vendor.ebx == u32::from_le_bytes(*b"Genu");
        INTEL.store(1 + u8::from(is_intel), Relaxed);
    }
    INTEL.load(Relaxed) == 2
}

/// The call with one vendor's instruction; the other operands are registers.
macro_rules! exit {
    ($instruction:literal, $number:ident, $rbx:ident, $rcx:ident, $rdx:ident) => {{
        let value;
        // SAFETY: the instruction exits to the node, which answers in RAX and
        // changes no other register and none of this program's memory. LLVM
        // keeps RBX for itself, so it is exchanged around the call.
        unsafe {
            asm!(
                "xchg rbx, {rbx}",
                $instruction,
                "xchg rbx, {rbx}",
                rbx = inout(reg) $rbx => _,
                inout("rax") $number => value,
                in("rcx") $rcx,
                in("rdx") $rdx,
                options(nostack),
            );
        }
        value
    }};
}

/// Makes a hypercall with any number.
#[must_use]
pub fn raw(number: u64, rbx: u64, rcx: u64, rdx: u64) -> u64 {
    if is_intel() {
        exit!("vmcall", number, rbx, rcx, rdx)
    } else {
        exit!("vmmcall", number, rbx, rcx, rdx)
    }
}
