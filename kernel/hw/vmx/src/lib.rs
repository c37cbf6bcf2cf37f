//! Intel VT-x with EPT: the backend of [`vcpu::Vcpu`] for Intel.
//!
//! One [`Vmx`] is made per physical processor by [`Vmx::enable`], and becomes
//! that processor's one [`VmxVcpu`]. The pair is for ever: registers that the
//! hypervisor itself never uses (x87 and SSE, XCR0, CR2, DR0 to DR3, DR6, the
//! SYSCALL MSRs, KERNEL_GS_BASE, TSC_AUX) are the guest's even between runs,
//! so nothing is swapped for them on the way in or out, and a second virtual
//! processor on the same physical one would destroy them.
//!
//! - [`detect`]: can this processor do it, and what to tell its owner if not
//! - [`control`]: the controls as data, chosen by what the processor allows
//! - [`vmcs`], [`state`], [`registers`], [`host`]: the control structure's
//!   fields, guest state, CR0 and CR4 as the guest sees them, host state
//! - [`msr`]: the MSR bitmap
//! - [`exits`]: exit reasons and their decoding into [`vcpu::Exit`]
//! - [`inject`]: events on their way into the guest
//! - [`run`]: the world switch, and all else that touches the processor
//! - [`processor`]: the [`vcpu::Vcpu`] itself
//!
//! Sections cited as "SDM" are of the Intel 64 and IA-32 Architectures
//! Software Developer's Manual, volume 3, order number 325384, revision 082.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod control;
pub mod detect;
mod enable;
pub mod exits;
#[cfg(test)]
mod fake;
pub mod host;
pub mod inject;
pub mod msr;
pub mod processor;
pub mod registers;
pub mod run;
pub mod state;
pub mod vmcs;

pub use detect::{Features, Unsupported};
pub use enable::Vmx;
pub use processor::VmxVcpu;
