//! The benchmark's result: the JSON that others read, and the table.

use super::measure::{Measured, Phase, Summary, Total};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::fmt::Write;

/// The node that runs the guest, and the one that owns the pages.
const REQUESTER: u64 = 0;
const OWNER: u64 = 1;

/// The result as JSON has it.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    /// A round trip without payload.
    pub(super) null_rtt: Summary,
    /// A round trip whose answer carries a page.
    pub(super) page_rtt: Summary,
    /// A nested page fault that is answered on the spot.
    pub(super) exit_floor: Summary,
    /// A read of a page that another node owns.
    pub(super) read_fault: Summary,
    /// The same where the guest does something else for 2 ms before each.
    pub(super) lone_read_fault: Summary,
    /// A read of such a page whose home is the reader's node.
    pub(super) own_read_fault: Summary,
    /// A write to a page that another node owns.
    pub(super) write_fault: Summary,
    /// A write to a page of which there is a copy to read.
    pub(super) upgrade: Summary,
    /// The first touch of a run of dormant pages.
    pub(super) first_touch: Summary,
    /// A page's way out of a full node, as the node sees it.
    pub(super) evict: Summary,
    /// Many pages.
    pub(super) bandwidth: Bandwidth,
    /// Instructions for one read fault.
    pub(super) instructions: Instructions,
    /// Times that the guest exits for one fault.
    pub(super) exits: Exits,
    /// What became of the pages that the requester received.
    pub(super) received: Received,
    /// Where the time of a read fault goes.
    pub(super) stages: Vec<Stage>,
    /// What was measured.
    pub(super) cluster: ClusterFacts,
    /// What only the table shows.
    #[serde(skip)]
    extra: Extra,
}

/// Many pages, in MiB a second.
#[derive(Debug, Serialize)]
pub(super) struct Bandwidth {
    /// All that was touched, whether it was there or had to come.
    sequential_mib_s: f64,
    random_mib_s: f64,
    /// What came over the link meanwhile.
    sequential_fetched_mib_s: f64,
    /// What another node holds, where nothing has to leave for it.
    remote_sequential_mib_s: f64,
    link_mib_s: f64,
}

/// Instructions for one read fault, without waiting.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Instructions {
    requester: u64,
    owner: u64,
    /// On the requester, where it is home to the page.
    requester_at_home: u64,
}

/// Times that the guest exits for one fault: for itself, and for all that it leads to
/// and that comes meanwhile.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Exits {
    read_fault: f64,
    lone_read_fault: f64,
}

impl Exits {
    fn new(m: &Measured) -> Result<Self> {
        let [read_fault, lone_read_fault] = [m.exits("read_fault")?, m.exits("lone_read_fault")?];
        Ok(Self { read_fault, lone_read_fault })
    }
}

/// Pages that a node received.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Received {
    /// They stay in the frame into which the NIC put them.
    landed: u64,
    /// The processor copied them.
    copied: u64,
}

impl Received {
    fn new(m: &Measured) -> Result<Self> {
        let count = |path: &[&str]| m.count(REQUESTER, path);
        let unfolded = count(&["pages_unfolded"])?;
        let landed = count(&["pages", "pages_landed"])?;
        let copied = count(&["pages", "pages_copied"])?;
        Ok(Self { landed: landed.saturating_sub(unfolded), copied: copied + unfolded })
    }
}

/// One stage of a read fault.
#[derive(Debug, Serialize)]
pub(super) struct Stage {
    name: &'static str,
    p50_ns: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ClusterFacts {
    /// Nodes.
    pub(super) nodes: u32,
    /// Memory of all nodes.
    pub(super) memory_bytes: u64,
    /// The machine recipe.
    pub(super) machine: String,
    /// The NIC.
    pub(super) link: String,
    /// Largest frame payload.
    pub(super) mtu: u16,
}

/// What only the table shows.
#[derive(Debug)]
struct Extra {
    /// Faults as the requester's node sees them, without the world switch.
    hypervisor: Vec<(&'static str, Summary)>,
    /// Faults under pressure, as the guest sees them.
    pressure: Summary,
    first_touch_page_ns: f64,
    sequential: Total,
    random: Total,
    remote_sequence: Total,
    /// What came over the link in the sequential pass and in the random one.
    fetched: [Total; 2],
}

/// Stages on the requester, in their order.
const STAGES: [&str; 5] = ["lookup", "send", "wire_and_remote", "map", "resume"];

impl Instructions {
    /// Reads the run in which the TSC counts instructions, `per_second` of them
    /// in a second of the emulated machine.
    pub(super) fn new(counted: &Measured, per_second: f64) -> Result<Self> {
        let requester = |phase| {
            let busy = STAGES.iter().filter(|s| **s != "wire_and_remote");
            busy.map(|stage| Ok(counted.histogram(REQUESTER, phase, &["stages", stage])?.p50_ns))
                .sum::<Result<u64>>()
        };
        let owner = counted.histogram(OWNER, Phase::Read, &["serve"])?.p50_ns;
        let (far, at_home) = (requester(Phase::Read)?, requester(Phase::OwnRead)?);
        ensure!(far > 0 && at_home > 0 && owner > 0, "no instruction was counted");
        let count = |ns: u64| (ns as f64 * per_second / 1e9).round() as u64;
        let [requester, owner, requester_at_home] = [far, owner, at_home].map(count);
        Ok(Self { requester, owner, requester_at_home })
    }
}

impl Outcome {
    /// Puts the result together; refuses it if anything was not measured.
    pub(super) fn new(m: &Measured, counted: Instructions, cluster: ClusterFacts) -> Result<Self> {
        m.check_complete()?;
        let guest = |name: &str| m.distribution(name).map(|d| d.summary());
        let fault = |phase, kind| m.histogram(REQUESTER, phase, &["faults", kind]);
        let floor = guest("exit_floor")?;
        let local = fault(Phase::Floor, "local_fault")?;
        let mut stages = vec![Stage {
            name: "exit",
            // Both ways between guest and node, measured where nothing waits.
            p50_ns: floor.p50_ns.saturating_sub(local.p50_ns),
        }];
        for name in STAGES {
            let p50_ns = m.histogram(REQUESTER, Phase::Read, &["stages", name])?.p50_ns;
            stages.push(Stage { name, p50_ns });
        }
        let p50_ns = m.histogram(OWNER, Phase::Read, &["serve"])?.p50_ns;
        stages.push(Stage { name: "remote_serve", p50_ns });
        let (sequential, random) = (m.total("sequential")?, m.total("random")?);
        let remote_sequence = m.total("remote_sequence")?;
        let fetched = [m.total("sequential_fetched")?, m.total("random_fetched")?];
        ensure!(sequential.faults > 0 && random.faults > 0, "no touch under pressure faulted");
        Ok(Self {
            null_rtt: guest("null_rtt")?,
            page_rtt: guest("page_rtt")?,
            exit_floor: floor,
            read_fault: guest("read_fault")?,
            lone_read_fault: guest("lone_read_fault")?,
            own_read_fault: guest("own_read_fault")?,
            write_fault: guest("write_fault")?,
            upgrade: guest("upgrade")?,
            first_touch: guest("first_touch")?,
            evict: m.histogram(REQUESTER, Phase::Evict, &["evict"])?,
            bandwidth: Bandwidth {
                sequential_mib_s: sequential.mib_s(),
                random_mib_s: random.mib_s(),
                sequential_fetched_mib_s: fetched[0].mib_s(),
                remote_sequential_mib_s: remote_sequence.mib_s(),
                link_mib_s: m.total("link")?.mib_s(),
            },
            instructions: counted,
            exits: Exits::new(m)?,
            received: Received::new(m)?,
            stages,
            cluster,
            extra: Extra {
                hypervisor: vec![
                    ("exit floor", local),
                    ("read fault", fault(Phase::Read, "read_fault")?),
                    ("read fault, home here", fault(Phase::OwnRead, "read_fault")?),
                    ("write fault", fault(Phase::Write, "write_fault")?),
                    ("upgrade", fault(Phase::Upgrade, "upgrade")?),
                    ("first touch of 2 MiB", fault(Phase::FirstTouch, "first_touch")?),
                ],
                pressure: guest("pressure_fault")?,
                first_touch_page_ns: m.total("first_touch_page")?.page_ns(),
                sequential,
                random,
                remote_sequence,
                fetched,
            },
        })
    }

    /// The table for people.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let c = &self.cluster;
        let memory = c.memory_bytes >> 20;
        line(
            &mut text,
            format_args!(
                "{} nodes, {memory} MiB together, {}, {}, MTU {}\n",
                c.nodes, c.machine, c.link, c.mtu
            ),
        );
        self.heading(&mut text, "as the guest sees it");
        for (name, summary) in [
            ("null round trip", &self.null_rtt),
            ("4 KiB round trip", &self.page_rtt),
            ("exit floor", &self.exit_floor),
            ("read fault", &self.read_fault),
            ("read fault, alone", &self.lone_read_fault),
            ("read fault, home here", &self.own_read_fault),
            ("write fault", &self.write_fault),
            ("upgrade", &self.upgrade),
            ("first touch of 2 MiB", &self.first_touch),
            ("read under pressure", &self.extra.pressure),
        ] {
            self.row(&mut text, name, summary);
        }
        line(&mut text, format_args!(""));
        self.heading(&mut text, "as the node sees it");
        for (name, summary) in &self.extra.hypervisor {
            self.row(&mut text, name, summary);
        }
        self.row(&mut text, "eviction of a page", &self.evict);
        self.write_stages(&mut text);
        self.write_totals(&mut text);
        text
    }

    fn heading(&self, text: &mut String, title: &str) {
        line(
            text,
            format_args!(
                "{title:<22} {:>7} {:>10} {:>10} {:>10} {:>10} {:>7} {:>7}",
                "count", "min us", "p50 us", "p90 us", "p99 us", "x null", "x 4 KiB"
            ),
        );
    }

    fn row(&self, text: &mut String, name: &str, s: &Summary) {
        let us = |ns: u64| ns as f64 / 1e3;
        let ratio = |to: &Summary| s.p50_ns as f64 / to.p50_ns.max(1) as f64;
        line(
            text,
            format_args!(
                "{name:<22} {:>7} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>7.2} {:>7.2}",
                s.count,
                us(s.min_ns),
                us(s.p50_ns),
                us(s.p90_ns),
                us(s.p99_ns),
                ratio(&self.null_rtt),
                ratio(&self.page_rtt)
            ),
        );
    }

    fn write_stages(&self, text: &mut String) {
        line(text, format_args!("\nstages of a read fault        p50 us"));
        for stage in &self.stages {
            let us = stage.p50_ns as f64 / 1e3;
            line(text, format_args!("  {:<24} {us:>9.1}", stage.name));
        }
    }

    fn write_totals(&self, text: &mut String) {
        let less = self.read_fault.p50_ns.saturating_sub(self.exit_floor.p50_ns) as f64;
        let tail = self.read_fault.p99_ns as f64 / self.page_rtt.p99_ns.max(1) as f64;
        line(
            text,
            format_args!(
                "\nread fault less exit floor: {:.2} x 4 KiB round trip, {:.2} x null; p99 {tail:.2} x",
                less / self.page_rtt.p50_ns.max(1) as f64,
                less / self.null_rtt.p50_ns.max(1) as f64
            ),
        );
        let i = self.instructions;
        line(
            text,
            format_args!(
                "instructions for a read fault: {} on the requester ({} if it is the page's home), \
                 {} on the owner",
                i.requester, i.requester_at_home, i.owner
            ),
        );
        let e = self.exits;
        line(
            text,
            format_args!(
                "exits for a read fault: {:.2}, {:.2} where it comes alone",
                e.read_fault, e.lone_read_fault
            ),
        );
        let r = self.received;
        line(
            text,
            format_args!("pages received: {} landed in place, {} copied", r.landed, r.copied),
        );
        let x = &self.extra;
        line(
            text,
            format_args!("first touch, each page of a run: {:.1} us", x.first_touch_page_ns / 1e3),
        );
        for (name, total) in [("sequential", x.sequential), ("random", x.random)] {
            line(
                text,
                format_args!(
                    "{name} touch: {:.1} MiB/s over {} MiB, {:.0} % of the touches fault",
                    total.mib_s(),
                    total.pages / 256,
                    total.faults as f64 * 100.0 / total.pages as f64
                ),
            );
        }
        let [sequential, random] = x.fetched;
        let b = &self.bandwidth;
        let of_link = |mib_s: f64| mib_s * 100.0 / b.link_mib_s;
        line(text, format_args!("raw link: {:.1} MiB/s, pages one way", b.link_mib_s));
        line(
            text,
            format_args!(
                "of that, sequential touch of what another node holds: {:.1} MiB/s, {:.0} %",
                b.remote_sequential_mib_s,
                of_link(b.remote_sequential_mib_s)
            ),
        );
        line(
            text,
            format_args!(
                "of that, sequential touch while as much has to leave: {:.1} MiB/s, {:.0} %",
                b.sequential_fetched_mib_s,
                of_link(b.sequential_fetched_mib_s)
            ),
        );
        let ahead = |t: Total| t.pages as f64 / t.faults as f64;
        line(
            text,
            format_args!(
                "pages fetched for each fault: {:.2} in sequence, {:.2} with pressure, {:.2} at random",
                ahead(x.remote_sequence),
                ahead(sequential),
                ahead(random)
            ),
        );
    }
}

/// Adds a line.
fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(text, "{words}").expect("a string takes all");
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
