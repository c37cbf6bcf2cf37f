//! The record of a run with `--json`, and numbers in what guests print.

use serde_json::Value;

/// What `run --json` printed.
#[derive(Clone, Debug)]
pub struct Record(pub Value);

impl Record {
    /// The command's standard output.
    #[must_use]
    pub fn stdout(&self) -> &str {
        self.0["stdout"].as_str().unwrap_or_default()
    }

    /// The reason of a failure, empty if there was none.
    #[must_use]
    pub fn failure(&self) -> &str {
        self.0["failure"].as_str().unwrap_or_default()
    }

    /// The events of this name, in order.
    pub fn events<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> + 'a {
        let events = self.0["events"].as_array().into_iter().flatten();
        events.filter(move |event| event["event"] == name)
    }

    /// A number at a JSON pointer in each node's report, by node.
    ///
    /// # Panics
    /// If a report lacks it.
    #[must_use]
    pub fn reported(&self, pointer: &str) -> Vec<u64> {
        let mut numbers: Vec<(u64, u64)> = self
            .events("report")
            .map(|report| {
                let number = report.pointer(pointer).and_then(Value::as_u64);
                let number = number.unwrap_or_else(|| panic!("no {pointer} in {report}"));
                (report["node"].as_u64().unwrap_or(u64::MAX), number)
            })
            .collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|(_, number)| number).collect()
    }

    /// How long the whole run lasted.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.0["seconds"].as_f64().unwrap_or_default()
    }
}

/// The first number behind `key` in a text.
#[must_use]
pub fn number(text: &str, key: &str) -> Option<u64> {
    let rest = &text[text.find(key)? + key.len()..];
    let start = rest.find(|c: char| c.is_ascii_digit())?;
    let digits = &rest[start..];
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Bytes that the memory map in a kernel's messages calls usable.
#[must_use]
pub fn e820_usable(dmesg: &str) -> u64 {
    let range = |line: &str| {
        let (_, rest) = line.split_once("BIOS-e820: [mem 0x")?;
        let (range, kind) = rest.split_once("] ")?;
        let (first, last) = range.split_once("-0x")?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        (kind.trim() == "usable").then_some(hex(last)? - hex(first)? + 1)
    };
    dmesg.lines().filter_map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reports_come_by_node() {
        let record = Record(json!({"events": [
            {"event": "report", "node": 1, "pages": {"evicted": 7}},
            {"event": "up", "node": 0},
            {"event": "report", "node": 0, "pages": {"evicted": 5}},
        ]}));
        assert_eq!(record.reported("/pages/evicted"), [5, 7]);
        assert_eq!(record.events("up").count(), 1);
    }

    #[test]
    fn numbers_are_found_behind_their_key() {
        assert_eq!(number("MemTotal:   1993444 kB\n", "MemTotal"), Some(1_993_444));
        assert_eq!(number("Mem: none", "Mem:"), None);
        assert_eq!(number("", "Mem"), None);
    }

    #[test]
    fn the_memory_map_is_summed() {
        let dmesg = "\
[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009efff] usable
[    0.000000] BIOS-e820: [mem 0x000000000009f000-0x00000000000dffff] reserved
[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000007dbfffff] usable
[    0.014400] e820: update [mem 0x00000000-0x00000fff] usable ==> reserved
";
        assert_eq!(e820_usable(dmesg), 0x9_f000 + 0x7db0_0000);
    }
}
