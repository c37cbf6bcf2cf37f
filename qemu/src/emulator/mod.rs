//! The emulators that run nodes, each in a file of its own: how a node's
//! plan becomes a process, its serial lines and its end of the link.

mod bochs;
mod qemu;
mod serial;

use crate::link::{End, Wiring};
use crate::switch::Mac;
use crate::{MemorySize, Recipe, RunnerError};
use serde::Deserialize;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

pub(crate) use serial::SerialLines;

/// A program that emulates machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Emulator {
    /// QEMU: fast, and its TCG emulates AMD's SVM.
    #[serde(rename = "qemu-system-x86_64")]
    Qemu,
    /// Bochs: slow, exact, and the one that emulates Intel's VT-x.
    #[serde(rename = "bochs")]
    Bochs,
}

impl Emulator {
    /// The program's name.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system-x86_64",
            Self::Bochs => "bochs",
        }
    }

    /// How a device of this name reaches the link.
    pub(crate) fn wiring(self, nic: &str) -> Wiring {
        match self {
            Self::Qemu if nic.starts_with(qemu::SHARED_MEMORY) => Wiring::Memory,
            Self::Qemu => Wiring::Socket,
            Self::Bochs => Wiring::Port,
        }
    }
}

/// Everything that one node's process depends on.
pub(crate) struct NodePlan<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) cpu: &'a str,
    pub(crate) memory: MemorySize,
    pub(crate) image: &'a Path,
    /// The payload archive, or a direct machine's initrd.
    pub(crate) payload: Option<&'a Path>,
    /// The node's command line.
    pub(crate) append: &'a str,
    /// What stands in for its firmware: commands of GRUB, a command a line.
    pub(crate) firmware: &'a str,
    /// How many serial ports it has, COM1 first.
    pub(crate) serial_ports: usize,
    pub(crate) mac: Mac,
    /// The processor of the host's that it runs on, if it has one for itself.
    pub(crate) processor: Option<usize>,
}

/// A process that is ready to be started.
pub(crate) struct Launch {
    pub(crate) command: Command,
    /// What it inherits under the same numbers.
    pub(crate) inherited: Vec<OwnedFd>,
    /// The runner's ends of its serial ports.
    pub(crate) serial: SerialLines,
    /// The terminal that it draws its screen on, which nobody looks at.
    pub(crate) screen: Option<File>,
}

/// Prepares the process of a node.
pub(crate) fn prepare(plan: &NodePlan<'_>, end: End) -> Result<Launch, RunnerError> {
    match plan.recipe.emulator {
        Emulator::Qemu => qemu::prepare(plan, end),
        Emulator::Bochs => bochs::prepare(plan, end),
    }
}

/// Whether a line of an emulator's is known and tells nothing about a run.
pub(crate) fn is_noise(line: &str) -> bool {
    line.trim().is_empty() || qemu::is_noise(line) || bochs::is_noise(line)
}

/// An Ethernet address as both emulators write it.
fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A plan for tests.
#[cfg(test)]
fn test_plan<'a>(recipe: &'a Recipe, cpu: &'a str) -> NodePlan<'a> {
    NodePlan {
        recipe,
        cpu,
        memory: "32G".parse().unwrap(),
        image: Path::new("/a b"),
        payload: None,
        append: "nodes=2 lead",
        firmware: "",
        serial_ports: 3,
        mac: [0x52, 0x54, 0, 0x50, 0, 1],
        processor: None,
    }
}

#[cfg(test)]
mod tests {
    use super::is_noise;

    #[test]
    fn only_what_tells_nothing_is_noise() {
        for noise in [
            "",
            "warning: TCG doesn't support requested feature: CPUID.07H:EBX.x [bit 3]",
            "00000000000i[      ] parsing arg 7, config_interface: textconfig",
            "Bochs connected to screen \"/dev/pts/1\"",
            "========================================================================",
            "Bochs is exiting with the following message:",
            "00177986596p[ACPI  ] >>PANIC<< ACPI control: soft power off",
            "[ACPI  ] ACPI control: soft power off",
        ] {
            assert!(is_noise(noise), "{noise}");
        }
        for word in [
            "00000000000p[      ] >>PANIC<< eth_socket: could not bind to socket '5'",
            "00031459265e[CPU0  ] exception(): 3rd (13) exception with no resolution",
            "qemu-system-x86_64: Could not open 'x'",
        ] {
            assert!(!is_noise(word), "{word}");
        }
    }
}
