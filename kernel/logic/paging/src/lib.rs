//! Nested page tables over a table-memory trait.
#![no_std]
#![forbid(unsafe_code)]

pub mod memory;
pub use memory::HostMemory;
