//! A model checker that runs the production coherence protocol.
//!
//! The nodes of a small cluster are [`coherence::Coherence`] itself, with page
//! tables in simulated memory. Everything that can happen to them is tried in
//! every order: loads, stores, evictions, messages that overtake each other,
//! nodes that die ([`explore`]). States that differ only in names (numbers of
//! transactions, frames, values) are one state ([`state`]), so that the space
//! is finite and is searched to its end. Every state must hold the invariants
//! ([`check`]); every row of the protocol's table must be reached ([`rows`]).
#![forbid(unsafe_code)]

pub mod check;
pub mod config;
pub mod configs;
pub mod explore;
pub mod hash;
pub mod local;
pub mod memory;
pub mod rows;
pub mod state;
pub mod table;
pub mod teeth;

pub use config::Config;
pub use explore::{Explored, Explorer, Failure};
