//! How a node ends: the report on its console, and what the host tool reads.

use crate::link::Link;
use fabric::{RefuseReason, StopReason};
use machine::Counters;
use node::histogram::Recent;
use node::report::Traffic;
use node::{Cluster, Node, report};
use platform::report::{Json, event};
use platform::{clock, power};

/// Why a node ends before its guest has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Config,
    Cpu,
    Nic,
    Memory,
    Version,
    JoinTimeout,
    NodeLost,
    Protocol,
    Guest,
    Peer,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Config => "config",
            Class::Cpu => "cpu",
            Class::Nic => "nic",
            Class::Memory => "memory",
            Class::Version => "version",
            Class::JoinTimeout => "join-timeout",
            Class::NodeLost => "node-lost",
            Class::Protocol => "protocol",
            Class::Guest => "guest",
            Class::Peer => "peer",
        }
    }

    /// The number that tells the other nodes.
    pub(crate) fn code(self) -> u64 {
        self as u64 + 1
    }
}

/// Reports why the node cannot go on. `fields` is more JSON, with a comma in
/// front, or empty.
pub(crate) fn fatal(class: Class, message: core::fmt::Arguments<'_>, fields: &str) {
    log::error!("{message}");
    event(
        "fatal",
        format_args!("\"class\":\"{}\",\"message\":\"{}\"{fields}", class.name(), Json(message)),
    );
}

/// Reports and switches the node off; for faults before a cluster has formed.
pub(crate) fn give_up(class: Class, message: core::fmt::Arguments<'_>) -> ! {
    fatal(class, message, "");
    off()
}

/// Switches the node off.
pub(crate) fn off() -> ! {
    event("off", format_args!("\"uptime_us\":{}", clock::uptime_us()));
    power::power_off()
}

/// Resets the node.
pub(crate) fn reset() -> ! {
    event("off", format_args!("\"uptime_us\":{}", clock::uptime_us()));
    power::reset()
}

/// What a refused node should do about it.
pub(crate) fn refusal(reason: RefuseReason) -> (Class, alloc::string::String) {
    let text = match reason {
        RefuseReason::VersionMismatch { theirs } => {
            let text = format!(
                "another node runs a different build of Pangaea ({theirs:016x}, this one is {}): \
                 boot all nodes from the same image",
                crate::BUILD_ID
            );
            return (Class::Version, text);
        }
        RefuseReason::ClusterFull => {
            "the cluster has all the nodes it waits for: raise nodes= on every node, or leave \
             this one out"
                .into()
        }
        RefuseReason::DuplicateIdentity => {
            "another node has the same MAC address: give each node its own".into()
        }
        RefuseReason::NodeCountMismatch { theirs } => {
            format!("another node waits for {theirs} nodes: give all nodes the same nodes=")
        }
        RefuseReason::TwoForcedLeaders => {
            "another node was told to lead too: say `lead` on one node only".into()
        }
        RefuseReason::Fenced => {
            "this node was taken for lost by the running cluster: restart the whole cluster".into()
        }
    };
    (Class::Config, text)
}

/// Prints the node's counters and measurements.
pub(crate) fn summarise(link: &Link) {
    let node = &link.node;
    let Some(cluster) = &node.cluster else { return };
    let mut text = alloc::string::String::new();
    if report::counters(&mut text, cluster, node.fabric()).is_ok() {
        let unfolded = link.pages_unfolded();
        event("report", format_args!("{text},\"pages_unfolded\":{unfolded}"));
    }
    stages(node, None);
}

/// Prints a sample for a live view.
pub(crate) fn sample(
    node: &mut Node,
    recent: &mut Recent,
    traffic: Traffic,
    guest: Option<&Counters>,
) {
    let clock = *node.clock();
    let Some(cluster) = &node.cluster else { return };
    let mut text = alloc::string::String::new();
    let measured = (&mut node.stages, recent);
    if report::sample(&mut text, cluster, measured, &clock, traffic, guest).is_ok() {
        let uptime = clock::uptime_us();
        event("sample", format_args!("\"uptime_us\":{uptime},{text}"));
    }
}

/// Prints how often the guest exited, and why.
pub(crate) fn exits(counters: &Counters) {
    let mut text = alloc::string::String::new();
    if report::exits(&mut text, counters).is_ok() {
        event("exits", format_args!("{text}"));
    }
}

/// Prints the node's measurements, with the mark of a benchmark or without.
pub(crate) fn stages(node: &Node, mark: Option<u64>) {
    let Some(cluster) = &node.cluster else { return };
    let mut text = alloc::string::String::new();
    if report::stages(&mut text, &node.stages, node.clock()).is_ok() {
        let mark = mark.map_or(alloc::string::String::new(), |m| format!("\"mark\":{m},"));
        event("stages", format_args!("\"node\":{},{mark}{text}", cluster.me().0));
    }
}

/// Says why a node cannot go on with its part in the cluster.
pub(crate) fn describe(cluster: &Cluster) -> Option<alloc::string::String> {
    cluster.fatal().map(|fatal| format!("the cluster is not consistent any more: {fatal}"))
}

/// What a node does when a peer has ended the cluster.
pub(crate) fn follow(reason: StopReason) -> ! {
    match reason {
        StopReason::Reset => reset(),
        StopReason::PowerOff | StopReason::Fatal(_) => off(),
    }
}
