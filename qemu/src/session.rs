//! How a run ends: a pure reader of a cluster's messages.
//!
//! [`Session::observe`] takes each message and says what to show;
//! [`Session::ended`] says whether and how the run is over. It has no clock:
//! time comes with the messages and as an argument.

use crate::event::GuestEnd;
use crate::panic_watch::PanicWatch;
use crate::record::Scanner;
use crate::{Event, Kind, Message, Port};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::time::Duration;

/// Exit statuses of a run that are not a command's own.
pub mod status {
    /// The guest ended by itself.
    pub const OK: u8 = 0;
    /// A bad option.
    pub const USAGE: u8 = 2;
    /// The cluster could not start or form.
    pub const NOT_FORMED: u8 = 120;
    /// A node was lost.
    pub const NODE_LOST: u8 = 121;
    /// The guest died.
    pub const GUEST_DIED: u8 = 122;
    /// Pangaea stopped with a fault of its own.
    pub const FAULT: u8 = 123;
    /// The time that `--timeout` gives ran out.
    pub const TIMEOUT: u8 = 124;
}

/// How long the surviving nodes have to notice and report a lost one. They
/// notice within five seconds.
const LOSS_GRACE: Duration = Duration::from_secs(8);
/// How long the nodes have to switch themselves off after the guest's end.
const OFF_GRACE: Duration = Duration::from_secs(20);
/// How long the other nodes have to report after a first fatal report.
const REPORT_GRACE: Duration = Duration::from_secs(5);

/// Something to show, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Bytes that the command wrote to its standard output.
    Stdout(Vec<u8>),
    /// Bytes that the command wrote to its standard error.
    Stderr(Vec<u8>),
    /// Bytes of the guest kernel's console.
    Console(Vec<u8>),
    /// What is going on now.
    Progress(String),
    /// A report for a person, in lines.
    Report(Vec<String>),
    /// A node's panic, whose return addresses are yet to be named.
    Panic {
        /// Which node.
        node: u32,
        /// What it said.
        message: String,
        /// Return addresses in hexadecimal.
        backtrace: Vec<String>,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit status of the run.
    pub status: u8,
    /// One sentence, empty if all went well.
    pub sentence: String,
}

/// The state of a run.
#[derive(Clone, Debug)]
pub struct Session {
    nodes: u32,
    direct: bool,
    command: Option<Command>,
    up: BTreeSet<u32>,
    formed: bool,
    gone: BTreeSet<u32>,
    /// The first emulator that ended with no word before.
    lost: Option<(u32, Duration)>,
    verdict: Option<Ended>,
    /// The outcome is a node's word that another one has ended; the other's
    /// own reason is better.
    hearsay: bool,
    /// When everything is told to end, at the latest.
    deadline: Option<Duration>,
    /// The guest has reset the machine.
    reset: bool,
    panic: PanicWatch,
    events: Vec<(u32, Value)>,
}

/// The command's two output streams.
#[derive(Clone, Debug)]
struct Command {
    output: Scanner,
    control: Scanner,
}

impl Session {
    /// Starts the state of a run of `nodes` nodes that were started. A
    /// `nonce` says that a command runs in the guest; `direct` that there is
    /// no Pangaea below it.
    pub fn new(nodes: u32, direct: bool, nonce: Option<&str>) -> Self {
        let command = nonce.map(|n| Command { output: Scanner::new(n), control: Scanner::new(n) });
        Self {
            nodes,
            direct,
            command,
            up: BTreeSet::new(),
            formed: direct,
            gone: BTreeSet::new(),
            lost: None,
            verdict: None,
            hearsay: false,
            deadline: None,
            reset: false,
            panic: PanicWatch::default(),
            events: Vec::new(),
        }
    }

    /// Every machine-readable line so far, with its node.
    pub fn events(&self) -> &[(u32, Value)] {
        &self.events
    }

    /// Takes a message and says what to show.
    pub fn observe(&mut self, message: &Message) -> Vec<Effect> {
        match &message.kind {
            Kind::Line(_) | Kind::Emulator(_) => Vec::new(),
            Kind::Bytes(port, bytes) => self.bytes(*port, bytes, message.at),
            Kind::Event(event, value) => {
                self.events.push((message.node, value.clone()));
                match event {
                    Some(event) => self.event(message.node, event, message.at),
                    None => Vec::new(),
                }
            }
            Kind::Exited(status) => self.exited(message.node, *status, message.at),
        }
    }

    /// How the run ended, once there is nothing more to wait for at `now`.
    pub fn ended(&mut self, now: Duration) -> Option<Ended> {
        if self.verdict.is_none()
            && let Some((node, at)) = self.lost
            && (now >= at + LOSS_GRACE || self.all_gone())
        {
            let ended = self.silent_loss(node);
            self.decide(ended, now, Duration::ZERO);
        }
        let ended = self.verdict.as_ref()?;
        let over = self.all_gone() || self.deadline.is_some_and(|d| now >= d);
        // A kernel that panics resets the machine, as one does that ends well.
        // Its console may have been heard after the reset.
        let panicked = self.panic.reason().filter(|_| self.reset && ended.status == status::OK);
        over.then(|| match panicked {
            Some(reason) => Ended {
                status: status::GUEST_DIED,
                sentence: format!("the guest died: its kernel panicked: {reason}"),
            },
            None => ended.clone(),
        })
    }

    /// Whether the outcome is known, though nodes may still be ending.
    pub fn decided(&self) -> bool {
        self.verdict.is_some()
    }

    /// Whether no emulator runs any more.
    fn all_gone(&self) -> bool {
        self.gone.len() as u32 >= self.nodes
    }

    /// Fixes the outcome; the first one stands, but a panic overrules all,
    /// and everything overrules hearsay.
    fn decide(&mut self, ended: Ended, at: Duration, grace: Duration) {
        let overruled = self
            .verdict
            .as_ref()
            .is_none_or(|v| ended.status == status::FAULT && v.status != status::FAULT);
        if overruled || self.hearsay {
            self.verdict = Some(ended);
            self.deadline = Some(at + grace);
            self.hearsay = false;
        }
    }

    /// The outcome when an emulator vanished and nobody reported it.
    fn silent_loss(&self, node: u32) -> Ended {
        if self.formed {
            let sentence = format!("node {node} was lost; its emulator ended without a report");
            Ended { status: status::NODE_LOST, sentence }
        } else {
            let sentence = format!(
                "node {node} ended before the cluster had formed, without a reason; \
                 its last lines may tell"
            );
            Ended { status: status::NOT_FORMED, sentence }
        }
    }

    /// Takes bytes from a port of the guest.
    fn bytes(&mut self, port: Port, bytes: &[u8], at: Duration) -> Vec<Effect> {
        if port == Port::Console {
            self.panic.push(bytes);
        }
        let Some(command) = &mut self.command else {
            return match port {
                Port::Console => vec![Effect::Console(bytes.to_vec())],
                Port::Output | Port::Control => Vec::new(),
            };
        };
        let effect = match port {
            Port::Console => Effect::Console(bytes.to_vec()),
            Port::Output => Effect::Stdout(command.output.push(bytes)),
            Port::Control => Effect::Stderr(command.control.push(bytes)),
        };
        if let (Some(status), Some(_)) = (command.control.status(), command.output.status()) {
            let status = u8::try_from(status & 0xFF).expect("masked to a byte");
            self.decide(Ended { status, sentence: String::new() }, at, OFF_GRACE);
        }
        vec![effect]
    }

    /// Takes an event of a node.
    fn event(&mut self, node: u32, event: &Event, at: Duration) -> Vec<Effect> {
        match event {
            Event::Up { .. } => {
                self.up.insert(node);
                vec![Effect::Progress(format!("nodes up: {} of {}", self.up.len(), self.nodes))]
            }
            Event::Joined { nodes, of } => {
                vec![Effect::Progress(format!("nodes joined: {nodes} of {of}"))]
            }
            Event::Formed { nodes, .. } => {
                self.formed = true;
                vec![Effect::Progress(format!("cluster formed of {nodes}; loading the guest"))]
            }
            Event::GuestStart { .. } => vec![Effect::Progress("guest booting".to_owned())],
            Event::GuestEnd { how, reason } => self.guest_end(*how, reason, at),
            Event::Fatal { class, message, .. } => self.fatal(node, class, message, at),
            Event::Panic { message, backtrace } => {
                let sentence = format!("node {node} stopped with a fault of its own: {message}");
                self.decide(Ended { status: status::FAULT, sentence }, at, REPORT_GRACE);
                let (message, backtrace) = (message.clone(), backtrace.clone());
                vec![Effect::Panic { node, message, backtrace }]
            }
            Event::Report(_) | Event::Off {} => Vec::new(),
        }
    }

    /// Takes the guest's end.
    fn guest_end(&mut self, how: GuestEnd, reason: &str, at: Duration) -> Vec<Effect> {
        self.reset = how == GuestEnd::Reset;
        let ended = match how {
            GuestEnd::PowerOff | GuestEnd::Reset => {
                Ended { status: status::OK, sentence: String::new() }
            }
            GuestEnd::Died => {
                let reason = if reason.is_empty() { "no reason was given" } else { reason };
                Ended { status: status::GUEST_DIED, sentence: format!("the guest died: {reason}") }
            }
        };
        self.decide(ended, at, OFF_GRACE);
        vec![Effect::Progress("guest ended; nodes switch off".to_owned())]
    }

    /// Takes a node's reason to stop.
    fn fatal(&mut self, node: u32, class: &str, message: &str, at: Duration) -> Vec<Effect> {
        if class == "peer" && self.verdict.is_some() {
            return Vec::new();
        }
        let status = match class {
            "node-lost" => status::NODE_LOST,
            "guest" => status::GUEST_DIED,
            // What was given to a node does not do, whatever the others have
            // come to meanwhile.
            "config" | "cpu" | "nic" | "memory" | "version" | "join-timeout" => status::NOT_FORMED,
            _ if self.formed => status::FAULT,
            _ => status::NOT_FORMED,
        };
        self.decide(Ended { status, sentence: message.to_owned() }, at, REPORT_GRACE);
        self.hearsay = class == "peer";
        vec![Effect::Report(vec![format!("node {node}: {message}")])]
    }

    /// Takes the end of an emulator.
    fn exited(&mut self, node: u32, _status: ExitStatus, at: Duration) -> Vec<Effect> {
        self.gone.insert(node);
        if self.direct {
            // The guest's power-off or reset is the emulator's end.
            self.reset = true;
            self.decide(Ended { status: status::OK, sentence: String::new() }, at, Duration::ZERO);
        } else if self.verdict.is_none() && self.lost.is_none() {
            self.lost = Some((node, at));
        }
        match &mut self.command {
            // What was held back as the start of an end record was none.
            Some(c) if node == 0 => {
                vec![Effect::Stdout(c.output.finish()), Effect::Stderr(c.control.finish())]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
