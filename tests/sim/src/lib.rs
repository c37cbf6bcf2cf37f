//! A seeded simulator of whole clusters.
//!
//! Every node is the production engine ([`node::Node`]: fabric, coherence and
//! paging as they run on hardware) with simulated memory, a processor that
//! walks the production page tables ([`mmu`]), and a NIC. The world around
//! them ([`world`]) has virtual time only; one seed decides everything
//! ([`scenario`]), so a failure is repeated by its seed.
//!
//! Checked all along ([`check`], [`oracle`]): a read returns the last write;
//! one master; no frame is lost; every access ends in time; a quiet cluster
//! sends heartbeats only; a death or a partition is noticed in time by every
//! node, and a node in a new life is kept out until all have begun anew
//! (`lives.rs`). Afterwards the histories of all processors are judged as a
//! user would ([`history`], [`litmus`]).
#![forbid(unsafe_code)]

pub mod campaign;
pub mod check;
pub mod failure;
pub mod history;
pub mod host;
pub mod landing;
pub mod link;
pub mod litmus;
mod lives;
pub mod mmu;
pub mod oracle;
pub mod processor;
pub mod program;
pub mod rng;
pub mod scale;
pub mod scenario;
pub mod summary;
pub mod trace;
pub mod world;

pub use failure::{Class, Failure};
pub use scenario::Scenario;
pub use summary::Summary;
pub use world::World;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a scenario.
///
/// # Errors
/// The failure, with the command that repeats it and, when `tracing`, the
/// timeline of the page it is about.
pub fn run(scenario: Scenario, tracing: bool) -> Result<Summary, Report> {
    let command = scenario.command();
    let mut world = World::new(scenario, tracing);
    drive(&mut world).map_err(|failure| {
        let timeline = failure.page.filter(|_| tracing).map(|gfn| world.trace.timeline(gfn));
        Report { failure, command, timeline: timeline.unwrap_or_default() }
    })
}

/// Runs a world to its end; a panic of the production code is a crash.
///
/// # Errors
/// The failure.
pub fn drive(world: &mut World) -> Result<Summary, Failure> {
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Failure::new(Class::Crash, text.unwrap_or("a panic without words")))
    })
}

/// A failure and how to see it again.
#[derive(Clone, Debug)]
pub struct Report {
    /// What went wrong.
    pub failure: Failure,
    /// The command that repeats it.
    pub command: String,
    /// What happened to the page, if that was traced.
    pub timeline: String,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  again: {}\n{}", self.failure, self.command, self.timeline)
    }
}
