//! The node's command line: words of the form `key=value`.
//!
//! | word | meaning | default |
//! |---|---|---|
//! | `nodes=N` | nodes to wait for | 1 |
//! | `cluster=HEX` | which cluster, where several share a link | 0 |
//! | `join_timeout=SECONDS` | give up when nodes are missing; 0: never | 0 |
//! | `nic=NAME` | driver or PCI address of the NIC | best found |
//! | `mtu=BYTES` | largest Ethernet payload to use | what the NIC takes |
//! | `lead` | this node leads | the one with the guest's kernel |
//! | `spin_us=N` | how long to poll for a reply before halting | 100 |
//! | `report_s=N` | print counters every so many seconds | 0: at the end |
//! | `sample_s=N` | print a sample for a live view every so many seconds | 0: never |
//! | `dead_ms=N` | silence after which a node counts as lost | 3000 |
//!
//! Other words are kept out of the way with a warning: loaders add their own.

/// What the command line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings<'a> {
    /// Nodes expected, this one included.
    pub nodes: u16,
    /// Which cluster.
    pub cluster: u64,
    /// When to give up on missing nodes, in seconds; 0 for never.
    pub join_timeout_s: u64,
    /// Which NIC.
    pub nic: Option<&'a str>,
    /// Largest Ethernet payload.
    pub mtu: Option<u16>,
    /// This node must lead.
    pub lead: bool,
    /// How long to poll for a reply before halting, in microseconds.
    pub spin_us: u64,
    /// Silence after which a node counts as lost, in milliseconds.
    pub dead_ms: u64,
    /// How often to print counters, in seconds; 0 for only at the end.
    pub report_s: u64,
    /// How often to print a sample for a live view, in seconds; 0 for never.
    pub sample_s: u64,
}

/// A word with a value that cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadSetting<'a> {
    /// The word.
    pub word: &'a str,
    /// What its value must be.
    pub must_be: &'static str,
}

impl core::fmt::Display for BadSetting<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the node's command line has {:?}; it must be {}", self.word, self.must_be)
    }
}

impl<'a> Settings<'a> {
    /// Reads a command line. `unknown` is told of words that mean nothing.
    ///
    /// # Errors
    /// [`BadSetting`] names the first word whose value cannot be used.
    pub fn parse(
        line: &'a str,
        mut unknown: impl FnMut(&'a str),
    ) -> Result<Settings<'a>, BadSetting<'a>> {
        let mut s = Settings {
            nodes: 1,
            cluster: 0,
            join_timeout_s: 0,
            nic: None,
            mtu: None,
            lead: false,
            spin_us: 100,
            dead_ms: 3000,
            report_s: 0,
            sample_s: 0,
        };
        for word in line.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let bad = |must_be| BadSetting { word, must_be };
            let number = |must_be| value.parse::<u64>().map_err(|_| bad(must_be));
            match key {
                "nodes" => {
                    let must = "nodes=1 to nodes=4096";
                    s.nodes = value.parse().map_err(|_| bad(must))?;
                    if s.nodes == 0 || usize::from(s.nodes) > addr::MAX_NODES {
                        return Err(bad(must));
                    }
                }
                "cluster" => {
                    let must = "cluster= and up to 16 hexadecimal digits";
                    s.cluster = u64::from_str_radix(value, 16).map_err(|_| bad(must))?;
                }
                "join_timeout" => {
                    s.join_timeout_s = number("join_timeout= and whole seconds")?.min(1 << 30);
                }
                "nic" if value == "auto" => s.nic = None,
                "nic" => s.nic = Some(value),
                "mtu" => {
                    let must = "mtu=1500 to mtu=9000";
                    let mtu = value.parse().map_err(|_| bad(must))?;
                    if !(1500..=9000).contains(&mtu) {
                        return Err(bad(must));
                    }
                    s.mtu = Some(mtu);
                }
                "sample_s" => s.sample_s = number("sample_s= and whole seconds")?.min(1 << 20),
                "report_s" => s.report_s = number("report_s= and whole seconds")?.min(1 << 20),
                "lead" => s.lead = true,
                "spin_us" => s.spin_us = number("spin_us= and microseconds")?.min(1_000_000),
                "dead_ms" => {
                    let must = "dead_ms=500 to dead_ms=60000";
                    s.dead_ms = number(must)?;
                    if !(500..=60_000).contains(&s.dead_ms) {
                        return Err(bad(must));
                    }
                }
                _ => unknown(word),
            }
        }
        Ok(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn reads_what_it_knows_and_reports_the_rest() {
        let mut odd = alloc::vec::Vec::new();
        let s = Settings::parse("pangaea nodes=3 cluster=beef nic=auto lead x=1", |w| odd.push(w));
        let s = s.unwrap();
        assert_eq!((s.nodes, s.cluster, s.nic, s.lead), (3, 0xbeef, None, true));
        assert_eq!(odd, ["pangaea", "x=1"]);
    }

    #[test]
    fn refuses_values_out_of_range() {
        for word in ["nodes=0", "nodes=x", "nodes=5000", "mtu=100", "cluster=zz", "dead_ms=1"] {
            let bad = Settings::parse(word, |_| {}).unwrap_err();
            assert_eq!(bad.word, word);
            assert!(bad.to_string().contains(word) && bad.to_string().contains(bad.must_be));
        }
    }

    #[test]
    fn every_word_sets_its_own() {
        let line = "nodes=4096 join_timeout=7 nic=e1000 mtu=1500 sample_s=3 report_s=4 spin_us=5 \
                    dead_ms=500 nic=e1000e";
        let s = Settings::parse(line, |word| panic!("{word}")).unwrap();
        assert_eq!((s.nodes, s.cluster, s.join_timeout_s, s.lead), (4096, 0, 7, false));
        assert_eq!((s.nic, s.mtu, s.dead_ms), (Some("e1000e"), Some(1500), 500));
        assert_eq!((s.sample_s, s.report_s, s.spin_us), (3, 4, 5));
    }
}
