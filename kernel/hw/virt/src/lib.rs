//! What the backends of both vendors share: memory that a processor keeps for
//! good, and the registers that are the guest's for good.
//!
//! - [`memory`]: page frames for control blocks and maps
//! - [`registers`]: x87 and SSE, XCR0, debug addresses, CPUID
#![no_std]

pub mod memory;
pub mod registers;

pub use memory::Pages;
