//! What happened to each page, for the replay of a failed run.

use addr::{Gfn, NodeId};
use coherence::Message;
use std::fmt::Write;
use wire::{Body, Packet};

/// Events by page, in the order of time; nothing unless switched on.
#[derive(Default, Debug)]
pub struct Trace {
    on: bool,
    events: Vec<(u64, Gfn, String)>,
}

/// Lines of a timeline at most; the last ones matter.
const LINES: usize = 80;

impl Trace {
    /// A trace that keeps what it is told if `on`.
    #[must_use]
    pub fn new(on: bool) -> Trace {
        Trace { on, events: Vec::new() }
    }

    /// Notes an event of a page.
    pub fn note(&mut self, now: u64, gfn: Gfn, text: impl FnOnce() -> String) {
        if self.on {
            self.events.push((now, gfn, text()));
        }
    }

    /// Notes the coherence messages in a frame, of which `missing` bytes have
    /// still to be read from memory.
    pub fn frame(&mut self, now: u64, node: usize, verb: &str, bytes: &[u8], missing: u16) {
        if !self.on {
            return;
        }
        let mut whole = bytes.to_vec();
        whole.resize(bytes.len() + usize::from(missing), 0);
        for m in messages(&whole) {
            let flags = [(m.exclusive, " exclusive"), (m.zero, " zero"), (m.prefetch, " ahead")];
            let flags: String = flags.iter().filter(|f| f.0).map(|f| f.1).collect();
            let text = format!(
                "host {node} {verb} {:?} for {} txn {} count {} lead {}{flags}",
                m.kind, m.party, m.txn, m.count, m.lead
            );
            self.events.push((now, m.gfn, text));
        }
    }

    /// The page about which most was noted.
    #[must_use]
    pub fn busiest(&self) -> Option<Gfn> {
        let mut counts = std::collections::BTreeMap::new();
        self.events.iter().for_each(|&(_, gfn, _)| *counts.entry(gfn).or_insert(0u64) += 1);
        counts.into_iter().max_by_key(|&(_, count)| count).map(|(gfn, _)| gfn)
    }

    /// The last events of a page.
    #[must_use]
    pub fn timeline(&self, gfn: Gfn) -> String {
        let covers = |&&(_, page, ref text): &&(u64, Gfn, String)| {
            page == gfn || (text.contains("ZeroGrant") && page.run_start() == gfn.run_start())
        };
        let events: Vec<_> = self.events.iter().filter(covers).collect();
        let mut text = format!("page {:#x}:\n", gfn.0);
        for (now, page, what) in &events[events.len().saturating_sub(LINES)..] {
            let other = if *page == gfn { String::new() } else { format!(" [{:#x}]", page.0) };
            let _ = writeln!(text, "  {:>12.3} us  {what}{other}", *now as f64 / 1000.0);
        }
        text
    }
}

/// The coherence messages in a frame, an end that travels in another before that.
pub fn messages(bytes: &[u8]) -> Vec<Message> {
    let Ok(Packet { header, body: Body::Data(data) }) = Packet::parse(bytes) else {
        return Vec::new();
    };
    let read = data.messages().filter_map(|m| Message::from_bytes_with(m.body));
    let from = NodeId(header.from);
    read.flat_map(|(m, end)| end.map(|end| end.message(from)).into_iter().chain([m])).collect()
}
