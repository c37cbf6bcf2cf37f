//! Reliable transport and membership between nodes.
//!
//! [`Fabric`] is the whole of it: a state machine without I/O, clock or
//! randomness of its own. Frames, messages, and the time go in through
//! [`Fabric::handle_frame`], [`Fabric::send`] and [`Fabric::handle_timeout`];
//! frames, events and page frames no longer needed come out of
//! [`Fabric::poll_transmit`], [`Fabric::poll_event`] and
//! [`Fabric::poll_released`]. Messages are handed to a [`Sink`] while the
//! frame that completes them is handled.
//!
//! # Start-up
//!
//! [`Fabric::new`] knows only how many nodes to expect. It broadcasts Hello,
//! learns the others, agrees with them on a [`Membership`] (`forming.rs`) and
//! reports [`Event::Formed`]. From then on every frame carries the
//! membership's epoch; the membership never changes. A node that falls silent
//! is reported by [`Event::PeerLost`] and fenced: nothing from it is taken any
//! more, also when it comes back, restarted or not.
//!
//! # Messages
//!
//! A message is 32 opaque bytes and perhaps one page. Each is delivered
//! exactly once while both ends are alive, *without any order*, not even in
//! one channel: the coherence protocol tolerates every order, and so a lost
//! frame delays only its own message. Each (peer, channel) pair has its own
//! sequence numbers, window and queue (`sender.rs`, `receiver.rs`), so that a
//! response never waits behind a request. The receiver grants the window:
//! the windows of all peers and channels together fit in its receive ring.
//! What is lost is sent again when three later ones were acknowledged, or
//! after the retransmission time-out. Acknowledgements, and messages that nobody
//! waits for, travel with the next frame, or alone after a short delay, which is longer
//! for a response without a page.
//!
//! A page is sent from the caller's frame by the device; nothing is copied.
//! With a small MTU it goes in up to three parts and is put together in one
//! of a fixed pool of buffers.
//!
//! # Polling
//!
//! After every call that takes the time, call `poll_transmit` until it says
//! `None` (or the device is full: what is not taken keeps), and
//! `handle_timeout` when the time `poll_timeout` gives has come. Sending or
//! receiving one message costs a bounded number of instructions whatever the
//! number of nodes; nodes are scanned only when a timer runs out (at most
//! once in half the least retransmission time-out or heartbeat). All memory is allocated by
//! `new` and when the membership forms. Who calls `sent` when the device has a
//! frame lets it leave before what follows from it is noted; who can tell what
//! will be sent lets it leave even earlier (`foresee.rs`).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod ahead;
mod config;
mod counters;
mod fabric;
mod fifo;
mod foresee;
mod forming;
mod io;
mod peer;
mod receive;
mod receiver;
mod rng;
mod rtt;
mod sender;
mod timers;
mod transmit;
mod types;

pub use ahead::Desk;
pub use config::Config;
pub use counters::{Counters, Drop};
pub use fabric::Fabric;
pub use foresee::{Glance, Seen};
pub use types::{
    Event, Member, Membership, Outgoing, PageSlice, RefuseReason, SendError, Sink, Status,
    StopReason, Transmit,
};
pub use wire::{Channel, Kind, Mac, PAGE_OFFSET};

use sender::{WINDOW_MAX, WINDOW_MIN};
