//! Hypercalls for benchmark guests (VMMCALL or VMCALL).
//!
//! RAX is the call, RBX, RCX and RDX its operands; the result comes back in
//! RAX. Every result that is no number of its own is [`ERROR`]. They tell and
//! measure; none gives a guest power over a node.
//!
//! | RAX | call | RBX | RCX | RDX | result |
//! |---|---|---|---|---|---|
//! | 1 | nodes | | | | number of nodes |
//! | 2 | take for writing | gfn | pages | node | 0: that node will access them |
//! | 3 | take for reading | gfn | pages | node | the same |
//! | 4 | outstanding | | | | takes not yet done |
//! | 5 | probe | payload bytes | round trips | node | TSC ticks for all |
//! | 6 | stream | payload bytes | messages | node | TSC ticks for all |
//! | 7 | protect | gfn | | | 1: the next write faults and is answered on the spot |
//! | 8 | clear | | | | 0: the node's histograms start anew |
//! | 9 | TSC frequency | | | | Hz |
//! | 10 | free frames | | | | frames of this node |
//! | 11 | home | gfn | | | node |
//! | 12 | mark | number | | | 0: every node will print its histograms and clear them |
//! | 13 | fetched | | | | pages that came for accesses of this node, or ahead of them |
//! | 14 | large | gfn | | | 1: this node maps the page as part of a large one, else 0 |
//! | 15 | exits | | | | times that the guest has exited, this call included |

use super::guest::Context;
use addr::{Access, Gfn, NodeId};
use coherence::Env;
use fabric::Fabric;
use paging::HostMemory;
use vcpu::{RAX, RBX, RCX, RDX, Registers};

/// Result of a call that cannot be done.
pub const ERROR: u64 = u64::MAX;

/// Longest a probe is waited for, in nanoseconds.
const PROBE_PATIENCE_NS: u64 = 2_000_000_000;
/// Probes under way at once in a stream.
const STREAM_WINDOW: u64 = 16;

/// A hypercall's operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    number: u64,
    rbx: u64,
    rcx: u64,
    rdx: u64,
}

impl Call {
    pub(crate) fn of(registers: &Registers) -> Call {
        let g = &registers.gpr;
        Call { number: g[RAX], rbx: g[RBX], rcx: g[RCX], rdx: g[RDX] }
    }
}

/// A measurement under way: `left` answers are still to be asked for, and at
/// most `window` are waited for at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    node: NodeId,
    bytes: u16,
    unsent: u64,
    unanswered: u64,
    window: u64,
    started: u64,
    last_answer: u64,
    /// The token that is waited for where there is only one.
    token: u64,
    sent_ns: u64,
}

impl Wait {
    /// An answer has come.
    pub(crate) fn answered(&mut self, token: u64, tsc: u64) {
        if self.window > 1 || token == self.token {
            self.unanswered = self.unanswered.saturating_sub(1);
            self.last_answer = tsc;
        }
    }

    /// Sends what may be sent; the result when all answers are there.
    pub(crate) fn poll(&mut self, fabric: &mut Fabric, now_ns: u64, tsc: u64) -> Option<u64> {
        if self.started == 0 {
            self.started = tsc;
        }
        if self.unsent == 0 && self.unanswered == 0 {
            return Some(self.last_answer.saturating_sub(self.started));
        }
        while self.unsent > 0 && self.unanswered < self.window {
            match fabric.probe(now_ns, self.node, self.bytes) {
                Ok(token) => {
                    self.token = token;
                    self.sent_ns = now_ns;
                    self.unsent -= 1;
                    self.unanswered += 1;
                }
                Err(_) => break,
            }
        }
        // Probes are not repeated: a lost one ends the measurement.
        (now_ns.saturating_sub(self.sent_ns) > PROBE_PATIENCE_NS).then_some(ERROR)
    }
}

/// How a call began.
pub(crate) enum Started {
    /// It is done.
    Value(u64),
    /// It takes messages.
    Wait(Wait),
}

fn node_of(rdx: u64, nodes: usize, me: NodeId) -> Option<NodeId> {
    let node = NodeId(u16::try_from(rdx).ok()?);
    (node.index() < nodes && node != me).then_some(node)
}

/// Does a call of a guest that has exited so often, or begins it.
pub(crate) fn start<V, M: HostMemory>(
    call: Call,
    exits: u64,
    at: &mut Context<'_, V, M>,
) -> Started {
    let nodes = at.cluster.coherence().layout().nodes();
    let node = node_of(call.rdx, nodes, at.cluster.me());
    let gfn = Gfn(call.rbx);
    Started::Value(match call.number {
        1 => nodes as u64,
        2 | 3 => match (node, u32::try_from(call.rcx)) {
            (Some(node), Ok(count)) if at.cluster.actor.outstanding() == 0 => {
                let access = if call.number == 2 { Access::Write } else { Access::Read };
                at.cluster.ask(node, gfn, count, access);
                0
            }
            _ => ERROR,
        },
        4 => u64::from(at.cluster.actor.outstanding()),
        5 | 6 => match (node, u16::try_from(call.rbx)) {
            (Some(node), Ok(bytes)) if usize::from(bytes) <= addr::PAGE_SIZE && call.rcx > 0 => {
                return Started::Wait(Wait {
                    node,
                    bytes,
                    unsent: call.rcx,
                    unanswered: 0,
                    window: if call.number == 6 { STREAM_WINDOW } else { 1 },
                    started: 0,
                    last_answer: 0,
                    token: 0,
                    sent_ns: at.now_ns,
                });
            }
            _ => ERROR,
        },
        7 if at.cluster.coherence().home(gfn).is_some() => {
            let (coherence, outbox) = at.cluster.parts();
            let mut env = Env { memory: at.memory, out: outbox };
            u64::from(coherence.protect(&mut env, gfn))
        }
        8 => {
            at.stages.clear();
            0
        }
        9 => at.tsc_hz,
        10 => at.cluster.coherence().free_frames(),
        13 => at.cluster.coherence().counters().pages_in,
        14 if at.cluster.coherence().home(gfn).is_some() => {
            u64::from(at.cluster.coherence().is_large(at.memory, gfn))
        }
        15 => exits,
        12 if at.cluster.ask_mark(call.rbx) => 0,
        11 => at.cluster.coherence().home(gfn).map_or(ERROR, |n| u64::from(n.0)),
        _ => ERROR,
    })
}
