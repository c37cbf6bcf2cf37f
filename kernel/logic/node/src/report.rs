//! What a node tells the host tool: one JSON object on one line.
//!
//! The writer of the line puts its mark before it. Everything here is numbers
//! and fixed words, so nothing has to be escaped.

use super::clock::Clock;
use super::cluster::Cluster;
use super::histogram::{Recent, Summary};
use super::stages::{FAULT_NAMES, FaultKind, STAGE_NAMES, Stages};
use core::fmt::{self, Write};
use fabric::Fabric;
use machine::{Counters, Kind};

fn measure(out: &mut dyn Write, name: &str, s: &Summary, clock: &Clock) -> fmt::Result {
    let ns = |ticks| clock.ns(ticks);
    write!(
        out,
        r#""{name}":{{"count":{},"min_ns":{},"p50_ns":{},"p90_ns":{},"p99_ns":{}}}"#,
        s.count,
        ns(s.min),
        ns(s.p50),
        ns(s.p90),
        ns(s.p99)
    )
}

/// Writes the fields of a node's `stages` event: `"faults":{..}` by kind,
/// `"stages":{..}` of remote faults, `"serve"` and `"evict"`.
///
/// # Errors
/// As the writer.
pub fn stages(out: &mut dyn Write, stages: &Stages, clock: &Clock) -> fmt::Result {
    let lists: [(&str, &[&str], &[_]); 2] =
        [("faults", &FAULT_NAMES, &stages.faults), ("stages", &STAGE_NAMES, &stages.stages)];
    for (list, names, histograms) in lists {
        write!(out, r#""{list}":{{"#)?;
        for (i, (name, histogram)) in names.iter().zip(histograms).enumerate() {
            if i > 0 {
                out.write_char(',')?;
            }
            measure(out, name, &histogram.summary(), clock)?;
        }
        out.write_str("},")?;
    }
    measure(out, "serve", &stages.serve.summary(), clock)?;
    out.write_char(',')?;
    measure(out, "evict", &stages.evict.summary(), clock)
}

/// Writes the fields of a node's `report` event: memory, pages, fabric.
///
/// # Errors
/// As the writer.
pub fn counters(out: &mut dyn Write, cluster: &Cluster, fabric: &Fabric) -> fmt::Result {
    let c = cluster.coherence().counters();
    let (nested, directory) = cluster.coherence().table_frames();
    let (large, split) = cluster.coherence().large_pages();
    write!(
        out,
        r#""node":{},"free_frames":{},"masters":{},"large_pages":{large},"nested_tables":{nested},"directory_tables":{directory}"#,
        cluster.me().0,
        cluster.coherence().free_frames(),
        cluster.coherence().masters(),
    )?;
    let pages = [
        ("read_fetches", c.read_fetches),
        ("write_fetches", c.write_fetches),
        ("upgrades", c.upgrades),
        ("prefetches", c.prefetches),
        ("skipped", c.skipped),
        ("zero_grants", c.zero_grants),
        ("zero_pages", c.zero_pages),
        ("materialised", c.materialised),
        ("pages_in", c.pages_in),
        ("pages_landed", c.pages_landed),
        ("pages_copied", c.pages_copied),
        ("pages_out", c.pages_out),
        ("invalidated", c.invalidated),
        ("dropped", c.dropped),
        ("evicted", c.evicted),
        ("evicted_zero", c.evicted_zero),
        ("promoted", c.promoted),
        ("adopted", c.adopted),
        ("refused", c.refused),
        ("no_room", c.no_room),
        ("merged", c.merged),
        ("merged_in_place", c.merged_in_place),
        ("split", split),
        ("deferred", c.deferred),
        ("queued", c.queued),
    ];
    out.write_str(r#","pages":{"#)?;
    for (i, (name, value)) in pages.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, r#"{comma}"{name}":{value}"#)?;
    }
    out.write_str(r#"},"fabric":{"#)?;
    fabric_counters(out, fabric)?;
    out.write_char('}')
}

/// What a node's NIC has carried, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// Writes the fields of a node's `exits` event: the guest's exits by kind, other
/// than those for its memory, which `stages` counts.
///
/// # Errors
/// As the writer.
pub fn exits(out: &mut dyn Write, counters: &Counters) -> fmt::Result {
    for (i, (kind, count)) in Kind::ALL.iter().zip(&counters.exits).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, r#"{comma}"{}":{count}"#, kind.name())?;
    }
    Ok(())
}

/// Writes the fields of a node's `sample` event, for a live view: frames and
/// pages as they are, what was counted since start (`faults`, `evicted`,
/// `bytes_in`, `bytes_out`, and `exits` where the guest runs), and since the last
/// sample the remote faults' median and 99th percentile and the pages that they
/// went to.
///
/// # Errors
/// As the writer.
pub fn sample(
    out: &mut dyn Write,
    cluster: &Cluster,
    measured: (&mut Stages, &mut Recent),
    clock: &Clock,
    traffic: Traffic,
    guest: Option<&Counters>,
) -> fmt::Result {
    let coherence = cluster.coherence();
    let counters = coherence.counters();
    write!(
        out,
        r#""node":{},"frames":{},"free":{},"masters":{},"replicas":{},"evicted":{}"#,
        cluster.me().0,
        coherence.total_frames(),
        coherence.free_frames(),
        coherence.masters(),
        coherence.replicas(),
        counters.evicted
    )?;
    write!(out, r#","bytes_in":{},"bytes_out":{},"faults":{{"#, traffic.received, traffic.sent)?;
    let (stages, recent) = measured;
    for (i, (name, histogram)) in FAULT_NAMES.iter().zip(&stages.faults).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, r#"{comma}"{name}":{}"#, histogram.count())?;
    }
    let kinds = [FaultKind::Read, FaultKind::Write].map(|kind| &stages.faults[kind as usize]);
    out.write_str(r#"},"exits":{"#)?;
    if let Some(counters) = guest {
        exits(out, counters)?;
    }
    out.write_str("},")?;
    measure(out, "recent", &recent.look(kinds), clock)?;
    out.write_str(r#","hot":["#)?;
    for (i, hot) in stages.hot.most().iter().filter(|hot| hot.count > 0).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let (gfn, rip) = (hot.gfn.0, hot.rip);
        write!(
            out,
            r#"{comma}{{"gfn":{gfn},"rip":"{rip:x}","count":{},"error":{}}}"#,
            hot.count, hot.error
        )?;
    }
    stages.hot.fade();
    out.write_char(']')
}

/// Names of [`fabric::Drop`]'s reasons, in their order.
const DROP_NAMES: [&str; fabric::Drop::COUNT] = [
    "foreign",
    "version",
    "short",
    "kind",
    "check",
    "malformed",
    "other_cluster",
    "not_for_me",
    "echo",
    "stale",
    "wrong_source",
    "from_lost",
    "unexpected",
    "beyond_window",
    "no_buffer",
    "stopped",
];

fn fabric_counters(out: &mut dyn Write, fabric: &Fabric) -> fmt::Result {
    let c = fabric.counters();
    let sum = |list: &[u64]| list.iter().sum::<u64>();
    write!(
        out,
        r#""frames_in":{},"frames_out":{},"messages_in":{},"messages_out":{},"pages_in":{},"pages_out":{}"#,
        sum(&c.frames_in),
        sum(&c.frames_out),
        sum(&c.messages_in),
        sum(&c.messages_out),
        c.pages_in,
        c.pages_out
    )?;
    write!(
        out,
        r#","duplicates":{},"retransmits_timeout":{},"retransmits_fast":{},"pauses":{},"drops":{{"#,
        c.duplicates, c.retransmits_timeout, c.retransmits_fast, c.pauses
    )?;
    for (i, (name, value)) in DROP_NAMES.iter().zip(&c.drops).enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, r#"{comma}"{name}":{value}"#)?;
    }
    out.write_char('}')
}
