//! What can go wrong while a cluster is started, each as one plain sentence.

use std::io;
use std::path::PathBuf;

/// Why a cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// No recipe has this name.
    #[error("there is no machine `{name}`; those that exist are {known}")]
    UnknownMachine {
        /// The name asked for.
        name: String,
        /// The names of the recipes that were found, separated by commas.
        known: String,
    },
    /// A recipe cannot be read or understood.
    #[error("the machine recipe {path} cannot be used: {reason}")]
    BadRecipe {
        /// The recipe's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The emulator is not installed.
    #[error("the emulator {0} was not found; `cargo pangaea doctor` says how to install it")]
    NoEmulator(&'static str),
    /// Commands for a boot loader that is not there.
    #[error("{0} starts a node without GRUB, which could take commands")]
    NoLoader(&'static str),
    /// A number of nodes outside the limits.
    #[error("a cluster has 1 to {max} nodes, not {0}", max = crate::NODES_MAX)]
    NodeCount(u32),
    /// A recipe without Pangaea has one machine only.
    #[error(
        "the machine `{0}` runs the guest without Pangaea, on one node only; leave out --nodes"
    )]
    DirectWithNodes(String),
    /// The payload does not fit into the leading node.
    #[error(
        "the guest's kernel and initrd take {payload_mib} MiB and do not fit into a node of \
         {memory_mib} MiB; give the nodes more memory (--memory) or use a smaller initrd"
    )]
    PayloadTooLarge {
        /// Size of the payload.
        payload_mib: u64,
        /// Size of the node's memory.
        memory_mib: u64,
    },
    /// Faults or a capture of a link that nothing can come between.
    #[error(
        "the nodes of this machine are linked by shared memory, whose frames can be neither \
         lost, doubled, reordered nor captured; leave that out or choose another --machine"
    )]
    NothingBetween,
    /// A percentage that is none.
    #[error("{0} is no percentage; give a number from 0 to 100")]
    Percentage(f64),
    /// A file could not be read or written.
    #[error("{path} cannot be {verb}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// "read", "written" or "copied".
        verb: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A bootable disc could not be made.
    #[error("the bootable disc could not be made: {0}")]
    Disc(String),
    /// A call to the operating system failed.
    #[error("{what} failed: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl RunnerError {
    /// Makes a function that wraps an I/O error with what was tried.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// Wraps an error of a file that could not be `verb`.
    pub(crate) fn file(path: &std::path::Path, verb: &'static str, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), verb, source }
    }
}
