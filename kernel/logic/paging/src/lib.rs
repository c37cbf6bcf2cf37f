//! Nested page tables, page frames, and the memory they live in.
//!
//! The nested page table of a node is also the record of what the node holds:
//! each leaf entry carries the page's coherence state in bits that the
//! hardware ignores ([`entry`]), so one lookup answers both "may the guest
//! touch it" and "what may the protocol do with it". [`table::PageTable`]
//! walks and changes it through [`HostMemory`]; [`pool::FramePool`] hands out
//! frames. All of it runs on the host as well as in the kernel.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod entry;
pub mod memory;
pub mod pool;
pub mod table;

pub use entry::{Entry, Format, PageState};
pub use memory::HostMemory;
pub use pool::FramePool;
pub use table::{OutOfFrames, PageTable};
