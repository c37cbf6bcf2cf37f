//! Whole clusters, booted through the project's own door.
//!
//! Each file under `tests/` is a group of system tests. Most run the real
//! program: [`Door`] is `cargo pangaea VERB ...` with a time limit, and gives
//! a [`Finished`] that holds exit status and output, has made sure that no
//! process was left behind, and prints the nodes' logs and the whole command
//! line (with the seed of the link's faults) should the test then fail. What
//! the door does not offer, such as two nodes with one address, is built
//! from the crate `runner` by [`Nodes`].
//!
//! Clusters run one at a time ([`serial`]): they would starve each other of
//! processors, and time limits would mean nothing.
//!
//! Neighbours: `runner`, which starts emulators; `tools`, which is the door;
//! `tests/guest`, whose program `hostile` is the guest that does its worst.
#![forbid(unsafe_code)]

mod build;
mod door;
mod finished;
mod kicks;
mod logs;
mod nodes;
mod processes;
mod record;
mod serial;

pub use build::{door, guests, node_image, workspace};
pub use door::{Door, Started};
pub use finished::Finished;
pub use logs::Folder;
pub use nodes::{Nodes, Outcome};
pub use processes::{Mark, emulators};
pub use record::{Record, e820_usable, number};
pub use serial::{Turn, serial};
