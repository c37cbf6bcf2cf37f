//! AMD SVM with nested paging: the backend of [`vcpu::Vcpu`] for AMD-V.
//!
//! One [`Svm`] is made per physical processor by [`Svm::enable`], and becomes
//! that processor's one [`SvmVcpu`]. The pair is for ever: registers that the
//! hypervisor itself never uses (x87 and SSE, XCR0, DR0 to DR3, TSC_AUX) are
//! the guest's even between runs, so nothing is swapped for them on the way
//! in or out, and a second virtual processor on the same physical one would
//! destroy them.
//!
//! - [`detect`]: can this processor do it, and what to tell its owner if not
//! - [`vmcb`], [`control`], [`state`]: the control block as data
//! - [`msr`], [`ports`]: the permission maps
//! - [`exits`]: exit codes and their decoding into [`vcpu::Exit`]
//! - [`inject`]: events on their way into the guest
//! - [`run`]: the world switch
//! - [`processor`]: the [`vcpu::Vcpu`] itself
//!
//! Sections cited as "APM" are of the AMD64 Architecture Programmer's Manual,
//! volume 2, publication 24593, revision 3.42.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod control;
pub mod detect;
mod enable;
pub mod exits;
pub mod inject;
pub mod msr;
pub mod ports;
pub mod processor;
pub mod run;
pub mod state;
pub mod vmcb;

pub use detect::{Features, Unsupported};
pub use enable::Svm;
pub use processor::SvmVcpu;
