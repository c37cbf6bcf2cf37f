//! The coherence protocol under arbitrary messages from peers.
//!
//! A message that the protocol does not allow is a `Violation`, after which a
//! node stops. So the run ends there; until then no message may panic a node
//! or give it more frames than it has.

use crate::input::Input;
use addr::{Access, Frame, Gfn, NodeId, PAGE_SIZE};
use coherence::{Coherence, Env, Kind, Limits, Message, Output, Violation};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool};
use std::sync::OnceLock;

const FRAMES: u64 = 96;
const PAGES: u64 = 1024;
const LIMITS: Limits = Limits {
    table_frames: 24,
    unpromised: 24,
    reserve: 16,
    open_max: 8,
    puts_max: 4,
    asks_max: 4,
    dones_max: 512,
};
const STEPS_MAX: usize = 400;

/// What was sent: pages are let go of when the fuzzer says so.
#[derive(Default)]
struct Sent {
    pages: Vec<Frame>,
    messages: Vec<Message>,
    room: u64,
}

impl Output for Sent {
    fn send(&mut self, _: NodeId, message: Message, page: Option<Frame>) {
        self.messages.push(message);
        self.pages.extend(page);
    }
    fn free_frames(&self, _: NodeId) -> u64 {
        self.room
    }
    fn flush(&mut self) {}
}

struct Run {
    coherence: Coherence,
    memory: VecMemory,
    sent: Sent,
    me: NodeId,
    nodes: u16,
}

fn fresh(me: u16, nodes: u16) -> (Coherence, VecMemory) {
    static FRESH: OnceLock<[(Coherence, VecMemory); 4]> = OnceLock::new();
    let make = |me: u16, nodes: usize| {
        let mut memory = VecMemory::new(FRAMES as usize + 1);
        let mut pool = FramePool::new();
        pool.add(Frame(1), Frame(FRAMES + 1));
        let layout = Layout::new(&vec![PAGES; nodes]).expect("a layout");
        let c = Coherence::new(NodeId(me), layout, LIMITS, Format::NPT, pool, &mut memory);
        (c, memory)
    };
    let all = FRESH.get_or_init(|| [make(0, 2), make(1, 2), make(0, 3), make(1, 3)]);
    all[usize::from((nodes - 2) * 2 + me)].clone()
}

impl Run {
    fn gfn(input: &mut Input<'_>) -> Gfn {
        // Few pages, so that things meet; of each home, and some that are none.
        let base = input.one_of(&[0x100, 0x101, 0x1FF, 0x200, 0x3FF, 0x400, 0x500, 0x7FF, 0x800]);
        Gfn(if input.u8() < 250 { base } else { input.u64() })
    }

    /// An arbitrary message; many are answers to what was sent last.
    fn message(&self, input: &mut Input<'_>) -> Message {
        let kind = Kind::ALL[input.below(Kind::ALL.len())];
        let flags = input.u8();
        let like = self.sent.messages.last().filter(|_| flags & 1 != 0);
        let mut message = match like {
            Some(&last) => Message { kind, ..last },
            None => Message::new(kind, Run::gfn(input), NodeId(input.u16() % (self.nodes + 1))),
        };
        if flags & 2 != 0 {
            message.count = input.skewed() as u16;
        }
        if flags & 4 != 0 {
            message.lead = input.skewed() as u16;
        }
        if flags & 8 != 0 {
            message.txn = input.skewed() as u32;
        }
        if flags & 16 != 0 {
            message.party = NodeId(input.u16() % self.nodes);
        }
        message.exclusive ^= flags & 32 != 0;
        message.zero ^= flags & 64 != 0;
        message.has_copy ^= flags & 128 != 0;
        message.prefetch = input.u8() & 7 == 0;
        message
    }

    fn step(&mut self, input: &mut Input<'_>) -> Result<(), Violation> {
        let choice = input.below(10);
        let message = self.message(input);
        let gfn = Run::gfn(input);
        let access = input.one_of(&[Access::Read, Access::Write]);
        let ahead = u16::from(input.u8() & 15);
        let from = NodeId((self.me.0 + 1 + u16::from(input.u8()) % (self.nodes - 1)) % self.nodes);
        self.sent.room = u64::from(input.u8());
        let mut env = Env { memory: &mut self.memory, out: &mut self.sent };
        match choice {
            0..=4 => {
                let page = message.carries_page().then_some(&[0x5A; PAGE_SIZE]);
                self.coherence.handle(&mut env, from, message, page)
            }
            // Only RAM is asked for; what is RAM the caller knows by the home.
            5 | 6 if self.coherence.home(gfn).is_some() => {
                self.coherence.access(&mut env, gfn, access, ahead).map(drop)
            }
            7 => self.coherence.release_held(&mut env),
            8 => self.coherence.balance(&mut env),
            _ => {
                if let Some(frame) = self.sent.pages.pop() {
                    self.coherence.released(frame);
                }
                Ok(())
            }
        }
    }
}

/// Makes the calls that the bytes stand for.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (nodes, me) = (2 + u16::from(input.u8() & 1), u16::from(input.u8() & 1));
    let (coherence, memory) = fresh(me, nodes);
    let mut run = Run { coherence, memory, sent: Sent::default(), me: NodeId(me), nodes };
    for _ in 0..STEPS_MAX {
        if input.is_empty() || run.step(&mut input).is_err() {
            break;
        }
        assert!(run.coherence.free_frames() <= FRAMES, "frames from nowhere");
    }
}
