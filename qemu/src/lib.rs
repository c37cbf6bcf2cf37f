//! Starts emulated nodes and the links between them.
//!
//! [`Cluster`] is the door: it takes a [`ClusterConfig`] (a machine
//! [`Recipe`], the number of nodes, the image, the guest's payload), starts
//! one emulator a node, links them, and gives everything that they say as one
//! stream of [`Message`]s. [`Session`] reads that stream and knows how a run
//! ends: it is a pure state machine, so its rules are tested without an
//! emulator. The rest is what these two stand on: [`cpio`] archives for the
//! guest's payload, bootable [`disc`]s, the [`event`]s a node prints, the [`switch`] that can
//! lose, double and reorder frames, [`pcap`] captures, and the [`symbols`] of
//! a node's backtrace.
//!
//! Nothing that was started here outlives the process: every emulator is in
//! a process group of its own, is killed when its [`Cluster`] is dropped or
//! [`process::kill_all`] is called, and asks the kernel to be killed should
//! the runner die without doing either.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod cpio;
pub mod disc;
mod emulator;
mod error;
pub mod event;
pub mod faults;
mod link;
mod logs;
pub mod memory;
pub mod message;
mod node;
mod panic_watch;
pub mod pcap;
pub mod process;
pub mod recipe;
pub mod record;
pub mod session;
pub mod switch;
pub mod symbols;
mod voice;

pub use cluster::{Cluster, ClusterConfig, NodeOverride};
pub use disc::Disc;
pub use emulator::Emulator;
pub use error::RunnerError;
pub use event::Event;
pub use faults::Faults;
pub use link::LinkOptions;
pub use memory::MemorySize;
pub use message::{Kind, Message, Port};
pub use recipe::Recipe;
pub use session::{Effect, Ended, Session};

/// The most nodes that a cluster can have.
pub const NODES_MAX: u32 = 64;
