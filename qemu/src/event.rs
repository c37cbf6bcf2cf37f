//! The machine-readable lines that a node prints on its first serial port.
//!
//! Such a line is `@pangaea ` and a JSON object whose field `event` names
//! what happened. Everything else on that port is the node's log for people.

use serde::Deserialize;
use serde_json::{Map, Value};

/// What marks a machine-readable line.
pub const PREFIX: &str = "@pangaea ";

/// Something that happened on a node.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The node runs and knows its machine.
    Up {
        /// Version of the image.
        #[serde(default)]
        version: String,
        /// Which build of that version.
        #[serde(default)]
        build: String,
        /// Memory that the node found.
        #[serde(default)]
        memory_bytes: u64,
        /// What the hypervisor keeps for itself.
        #[serde(default)]
        fixed_bytes: u64,
    },
    /// The number of nodes known so far.
    Joined {
        /// Nodes seen, this one among them.
        nodes: u32,
        /// Nodes wanted.
        of: u32,
    },
    /// The membership stands.
    Formed {
        /// Nodes in it.
        nodes: u32,
        /// The membership's epoch, in hexadecimal.
        #[serde(default)]
        epoch: String,
    },
    /// The guest's first instruction is about to run.
    GuestStart {
        /// The guest's memory.
        #[serde(default)]
        memory_bytes: u64,
    },
    /// The guest has stopped.
    GuestEnd {
        /// In which way.
        how: GuestEnd,
        /// Why, if it died.
        #[serde(default)]
        reason: String,
    },
    /// The node's counters at the end.
    Report(Map<String, Value>),
    /// The node cannot go on, for a reason outside its own code.
    Fatal {
        /// What kind of reason.
        class: String,
        /// One sentence for a person.
        message: String,
        /// Further facts, such as the lost node and its pages.
        #[serde(flatten)]
        facts: Map<String, Value>,
    },
    /// The node's own code found itself broken.
    Panic {
        /// What it said.
        message: String,
        /// Return addresses, innermost first, in hexadecimal.
        #[serde(default)]
        backtrace: Vec<String>,
    },
    /// The node is about to switch itself off.
    Off {},
}

/// How a guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestEnd {
    /// It switched the machine off.
    PowerOff,
    /// It reset the machine.
    Reset,
    /// It could not go on (a triple fault, for example).
    Died,
}

/// A line of a node's first serial port.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// A line of the log.
    Text,
    /// An event that is known, and the object as printed.
    Known(Event, Value),
    /// An object that this version does not know.
    Unknown(Value),
    /// Marked as machine-readable, but no object.
    Broken,
}

/// Reads one line.
pub fn parse(line: &str) -> Parsed {
    let Some(json) = line.strip_prefix(PREFIX) else { return Parsed::Text };
    let Ok(value) = serde_json::from_str::<Value>(json) else { return Parsed::Broken };
    if !value.is_object() {
        return Parsed::Broken;
    }
    match Event::deserialize(&value) {
        Ok(event) => Parsed::Known(event, value),
        Err(_) => Parsed::Unknown(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(line: &str) -> Event {
        match parse(line) {
            Parsed::Known(event, _) => event,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn events_parse() {
        assert_eq!(
            known(r#"@pangaea {"event":"formed","nodes":3,"epoch":"3cc3291ad823e295","me":0}"#),
            Event::Formed { nodes: 3, epoch: "3cc3291ad823e295".to_owned() }
        );
        assert_eq!(
            known(r#"@pangaea {"event":"guest-end","how":"power-off"}"#),
            Event::GuestEnd { how: GuestEnd::PowerOff, reason: String::new() }
        );
        assert_eq!(known(r#"@pangaea {"event":"off"}"#), Event::Off {});
        let Event::Report(report) = known(r#"@pangaea {"event":"report","evicted":12}"#) else {
            panic!("no report")
        };
        assert_eq!(report["evicted"], 12);
    }

    #[test]
    fn a_fatal_event_keeps_its_facts() {
        let line = r#"@pangaea {"event":"fatal","class":"node-lost","message":"m","node":2}"#;
        let Event::Fatal { class, facts, .. } = known(line) else { panic!("not fatal") };
        assert_eq!(class, "node-lost");
        assert_eq!(facts["node"], 2);
    }

    #[test]
    fn other_lines_are_told_apart() {
        assert_eq!(parse("[    0.000000] Linux"), Parsed::Text);
        assert_eq!(parse("@pangaea {oops"), Parsed::Broken);
        assert_eq!(parse("@pangaea 3"), Parsed::Broken);
        assert!(matches!(parse(r#"@pangaea {"event":"new"}"#), Parsed::Unknown(_)));
        assert!(matches!(parse(r#"@pangaea {"event":"formed"}"#), Parsed::Unknown(_)));
    }
}
