//! Pages at home on another node, and pages sent there.
//!
//! Without Pangaea, or on one node, the pages are like any other: the tests
//! stay the same and only prove less.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use guests::boot::BootParams;
use guests::hypercall::{self, Call};
use guests::memory::Memory;

/// Pages that there are for tests.
pub(crate) const PAGES: u64 = 64;
/// Where they lie on a machine that tells nothing: memory of every PC.
const ANYWHERE: u64 = 16 << 20;
/// The suite maps memory up to here.
const MAPPED_END: u64 = 3 << 30;
/// Longest a page is waited for, in polls.
const POLLS_MAX: u32 = 10_000_000;

static FIRST: AtomicU64 = AtomicU64::new(ANYWHERE);
/// The node that has them; 0 without another node.
static NODE: AtomicU64 = AtomicU64::new(0);

/// Whether Pangaea runs this guest (its CPUID leaves, `machine::cpuid`).
pub(crate) fn is_pangaea() -> bool {
    let answer = core::arch::x86_64::__cpuid(0x4000_0100);
    let mut text = [0; 12];
    for (place, word) in text.chunks_exact_mut(4).zip([answer.ebx, answer.ecx, answer.edx]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    text == *b"PangaeaPanga"
}

/// Finds pages at home on node 1.
pub(crate) fn install(boot: &BootParams) {
    if !is_pangaea() || hypercall::call(Call::Nodes, 0, 0, 0).unwrap_or(1) < 2 {
        return;
    }
    let memory = Memory::find(boot);
    let is_away = |gfn| hypercall::call(Call::Home, gfn, 0, 0) == Some(1);
    if let Some(row) = memory.row(is_away)
        && row.pages() >= PAGES
        && row.first() + PAGES <= MAPPED_END >> 12
    {
        FIRST.store(row.first() << 12, Relaxed);
        NODE.store(1, Relaxed);
    }
}

/// Physical address of a page.
pub(crate) fn page(index: u64) -> u64 {
    assert!(index < PAGES, "remote page {index}");
    FIRST.load(Relaxed) + (index << 12)
}

/// Has the other node take pages, so that the next access here misses.
/// `false` if it did not happen.
pub(crate) fn send(physical: u64, pages: u64) -> bool {
    let node = NODE.load(Relaxed);
    if node == 0 {
        return true;
    }
    if hypercall::call(Call::TakeWrite, physical >> 12, pages, node).is_none() {
        return false;
    }
    (0..POLLS_MAX).any(|_| hypercall::call(Call::Outstanding, 0, 0, 0) == Some(0))
}
