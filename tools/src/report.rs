//! What a run leaves: its record as JSON, and reports for people.

use crate::cli::RunArgs;
use anyhow::Result;
use runner::symbols::{self, Symbols};
use runner::{ClusterConfig, Ended};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

/// Lines of the guest's console that are kept.
const CONSOLE_LINES: usize = 12;
/// Longest line of the console that is kept.
const CONSOLE_LINE_LEN: usize = 200;

/// What a run is known by afterwards.
pub(crate) struct Record {
    nodes: u32,
    memory_bytes: u64,
    machine: String,
    command: Vec<String>,
    /// The command's standard output, for JSON.
    pub(crate) stdout: Vec<u8>,
    /// The command's standard error, for JSON.
    pub(crate) stderr: Vec<u8>,
    /// The end of the guest's console.
    pub(crate) console: ConsoleTail,
}

impl Record {
    /// Starts the record of a run.
    pub(crate) fn new(args: &RunArgs, config: &ClusterConfig) -> Self {
        Self {
            nodes: config.nodes,
            memory_bytes: config.memory.bytes(),
            machine: config.recipe.name.clone(),
            command: args.command.iter().map(|w| w.to_string_lossy().into_owned()).collect(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            console: ConsoleTail::default(),
        }
    }

    /// The command in the guest.
    pub(crate) fn command(&self) -> &[String] {
        &self.command
    }

    /// The record as one object.
    fn json(&self, ended: &Ended, events: &[(u32, Value)], elapsed: Duration) -> Value {
        let with_node = |(node, event): &(u32, Value)| {
            let mut event = event.clone();
            if let Some(object) = event.as_object_mut() {
                object.entry("node").or_insert(json!(node));
            }
            event
        };
        let is_report = |(_, event): &&(u32, Value)| event["event"] == "report";
        json!({
            "exit_status": ended.status,
            "failure": if ended.sentence.is_empty() { Value::Null } else { json!(ended.sentence) },
            "nodes": self.nodes,
            "memory_bytes": self.memory_bytes,
            "machine": self.machine,
            "command": self.command,
            "seconds": elapsed.as_secs_f64(),
            "events": events.iter().map(with_node).collect::<Vec<_>>(),
            "reports": events.iter().filter(is_report).map(with_node).collect::<Vec<_>>(),
            "stdout": String::from_utf8_lossy(&self.stdout),
            "stderr": String::from_utf8_lossy(&self.stderr),
        })
    }

    /// Prints the record on standard output.
    pub(crate) fn print(
        &self,
        ended: &Ended,
        events: &[(u32, Value)],
        elapsed: Duration,
    ) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json(ended, events, elapsed))?;
        Ok(crate::terminal::print(&(text + "\n"))?)
    }
}

/// The last lines of the guest's console, without escape sequences' bytes.
#[derive(Debug, Default)]
pub(crate) struct ConsoleTail {
    lines: VecDeque<String>,
    begun: String,
}

impl ConsoleTail {
    /// Takes what the console says.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for character in String::from_utf8_lossy(bytes).chars() {
            if character == '\n' {
                let line = std::mem::take(&mut self.begun);
                if !line.trim().is_empty() {
                    self.lines.push_back(line);
                }
                if self.lines.len() > CONSOLE_LINES {
                    self.lines.pop_front();
                }
            } else if !character.is_control() && self.begun.len() < CONSOLE_LINE_LEN {
                self.begun.push(character);
            }
        }
    }

    /// The last whole line.
    pub(crate) fn last(&self) -> Option<&str> {
        self.lines.back().map(String::as_str)
    }

    /// The last lines, oldest first.
    pub(crate) fn recent(&self) -> Vec<&str> {
        let begun = (!self.begun.trim().is_empty()).then_some(self.begun.as_str());
        self.lines.iter().map(String::as_str).chain(begun).collect()
    }
}

/// A node's panic for a person, its return addresses named from the image.
pub(crate) fn panic_lines(
    image: &Path,
    node: u32,
    message: &str,
    backtrace: &[String],
) -> Vec<String> {
    let symbols = Symbols::load(image);
    let mut lines = vec![format!("Node {node} panicked: {message}")];
    lines.extend(symbols::backtrace(symbols.as_ref(), backtrace));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_tail_keeps_whole_lines() {
        let mut tail = ConsoleTail::default();
        tail.push(b"one\r\n\r\ntw");
        assert_eq!(tail.last(), Some("one"));
        tail.push(b"o\x1b[0m\nthree");
        assert_eq!(tail.recent(), ["one", "two[0m", "three"]);
        (0..100).for_each(|i| tail.push(format!("{i}\n").as_bytes()));
        assert_eq!(tail.recent().len(), CONSOLE_LINES);
    }

    #[test]
    fn the_record_has_its_fields() {
        let record = Record {
            nodes: 2,
            memory_bytes: 1 << 30,
            machine: "m".into(),
            command: vec!["true".into()],
            stdout: b"out\xff".to_vec(),
            stderr: Vec::new(),
            console: ConsoleTail::default(),
        };
        let ended = Ended { status: 3, sentence: String::new() };
        let events = [(1, json!({"event": "report", "pages": 5})), (0, json!({"event": "off"}))];
        let json = record.json(&ended, &events, Duration::from_millis(1500));
        assert_eq!(json["exit_status"], 3);
        assert_eq!(json["failure"], Value::Null);
        assert_eq!(json["reports"], json!([{"event": "report", "pages": 5, "node": 1}]));
        assert_eq!(json["events"].as_array().unwrap().len(), 2);
        assert_eq!(json["stdout"], "out\u{fffd}");
    }
}
