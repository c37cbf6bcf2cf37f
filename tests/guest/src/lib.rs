//! What bare guests have in common: entry, console, memory map, hypercalls.
//!
//! A guest is an ELF program that the node's loader enters in long mode, as
//! Linux Documentation/arch/x86/boot.rst says for 64-bit kernels: RSI points
//! to [`boot::BootParams`], a stack is set, interrupts are off, and the first
//! 4 GiB are mapped to themselves. A program under `src/bin` names its main
//! function with [`entry!`], prints with [`println!`] on COM1, and ends with
//! [`cpu::power_off`], which ends the cluster.
//!
//! Neighbours: `machine::loader`, which starts a guest; `node::bench`, which
//! answers [`hypercall`]s.
#![cfg_attr(target_os = "none", no_std)]

pub mod boot;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
pub mod hypercall;
#[cfg(target_os = "none")]
pub mod memory;
pub mod order;
#[cfg(target_os = "none")]
pub mod rows;
pub mod samples;
#[cfg(target_os = "none")]
pub mod serial;
#[cfg(target_os = "none")]
pub mod trap;
pub mod workloads;
