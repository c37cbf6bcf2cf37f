//! What a running cluster says, as one stream.

use crate::Event;
use serde_json::Value;
use std::process::ExitStatus;
use std::time::Duration;

/// Something that node `node` did or said, `at` after the cluster's start.
#[derive(Clone, Debug)]
pub struct Message {
    /// Which node, counted from 0, the leading one.
    pub node: u32,
    /// Time since the start of the cluster.
    pub at: Duration,
    /// What it is.
    pub kind: Kind,
}

/// What a message carries.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A line of the node's log, without its end.
    Line(String),
    /// A machine-readable line: the event if this version knows it, and the
    /// object as printed.
    Event(Option<Event>, Value),
    /// Bytes from one of the guest's serial ports.
    Bytes(Port, Vec<u8>),
    /// A line that the emulator itself printed.
    Emulator(String),
    /// The emulator has ended.
    Exited(ExitStatus),
}

/// One of the guest's serial ports, as the host sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// `ttyS0`: the guest kernel's console.
    Console,
    /// `ttyS1`: standard output of the command.
    Output,
    /// `ttyS2`: standard error of the command, and its end record.
    Control,
}

impl Port {
    /// All ports in the guest's order.
    pub const ALL: [Self; 3] = [Self::Console, Self::Output, Self::Control];

    /// The port's number in the guest (`ttyS<n>`).
    pub const fn index(self) -> usize {
        match self {
            Self::Console => 0,
            Self::Output => 1,
            Self::Control => 2,
        }
    }

    /// A name for files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Output => "output",
            Self::Control => "control",
        }
    }
}
