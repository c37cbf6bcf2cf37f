//! The fabric's state machine under arbitrary frames, times and calls.

use super::wire::repair;
use crate::input::Input;
use addr::{Arrived, Frame, NodeId, PAGE_SIZE};
use fabric::{Channel, Config, Desk, Event, Fabric, Glance, Outgoing, Sink};
use std::collections::HashSet;
use std::sync::OnceLock;
use wire::{ETHERTYPE, VERSION};

const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];
const CLUSTER: u64 = 7;
/// Events that nobody takes are bounded.
const EVENTS_MAX: usize = 256;
const STEPS_MAX: usize = 400;

/// Takes everything, and counts it.
#[derive(Default)]
struct Anything(usize);

impl Sink for Anything {
    fn deliver(
        &mut self,
        _: NodeId,
        _: Channel,
        _: &[u8; wire::BODY_BYTES],
        _: Option<Arrived<'_>>,
    ) {
        self.0 += 1;
    }
}

fn config(n: usize) -> Config {
    Config { mtu: 9000, ..Config::new(MACS[n], CLUSTER, 1, 10 + n as u64, 2) }
}

/// A node that has formed with a peer, and when.
fn formed() -> (Fabric, u64) {
    static FORMED: OnceLock<(Fabric, u64)> = OnceLock::new();
    FORMED
        .get_or_init(|| {
            let mut pair = [Fabric::new(config(0), 0), Fabric::new(config(1), 0)];
            let mut now = 0;
            while pair.iter().any(|f| f.membership().is_none()) {
                now += 1_000_000;
                assert!(now < 60_000_000_000, "they never form");
                for (from, to) in [(0, 1), (1, 0)] {
                    pair[from].handle_timeout(now);
                    let mut frame = [0; 2048];
                    while let Some(t) = pair[from].poll_transmit(now, &mut frame) {
                        pair[to].handle_frame(
                            now,
                            &frame[..t.header_len],
                            &mut Anything::default(),
                        );
                    }
                }
            }
            let [first, _] = pair;
            (first, now)
        })
        .clone()
}

/// One node and the calls that the bytes stand for.
struct Run {
    fabric: Fabric,
    now: u64,
    epoch: u64,
    next_frame: u64,
    lent: HashSet<Frame>,
}

impl Run {
    fn new(formed_already: bool) -> Run {
        let (fabric, now) = if formed_already { formed() } else { (Fabric::new(config(0), 0), 0) };
        let epoch = fabric.membership().map_or(0, |m| m.epoch);
        Run { fabric, now, epoch, next_frame: 1, lent: HashSet::new() }
    }

    /// A frame that gets past the first looks, with the fuzzer's content.
    fn frame(&mut self, input: &mut Input<'_>) {
        let flags = input.u8();
        let kind = 1 + input.below(12) as u8;
        let mut frame = Vec::with_capacity(256);
        frame.extend(if flags & 1 == 0 { MACS[0] } else { wire::BROADCAST });
        frame.extend(MACS[if flags & 6 == 0 { 2 } else { 1 }]);
        frame.extend(ETHERTYPE.to_be_bytes());
        frame.extend([VERSION, kind]);
        let peer = self.fabric.membership().map_or(wire::NO_NODE, |m| 1 - m.me.0.min(1));
        frame.extend(if flags & 8 == 0 { peer } else { input.u16() }.to_le_bytes());
        let payload = if flags & 16 == 0 { 0 } else { input.u16() % 4200 };
        frame.extend(payload.to_le_bytes());
        frame.extend([0; 4]);
        frame.extend(if flags & 32 == 0 { CLUSTER } else { input.u64() }.to_le_bytes());
        frame.extend(if flags & 64 == 0 { self.epoch } else { input.u64() }.to_le_bytes());
        let len = input.u8();
        frame.extend_from_slice(input.bytes(usize::from(len)));
        repair(&mut frame);
        frame.resize(frame.len() + usize::from(payload), 0xEE);
        self.take(&frame, flags & 128 != 0);
    }

    /// Takes a frame; what is plain in it is taken whole, and an answer may leave
    /// before that.
    fn take(&mut self, frame: &[u8], answers: bool) {
        let glance = self.fabric.glance(frame);
        let plain = glance.as_ref().map(|glance| glance.bodies().count());
        let one = self.fabric.glance_one(frame);
        assert_eq!(one.is_some(), plain == Some(1), "the short way sees something else");
        if let (Some((seen, body)), Some(glance)) = (one, &glance) {
            assert!(seen == glance.seen() && glance.bodies().eq([body]));
        }
        let answer = glance.as_ref().filter(|_| answers).map(|glance| {
            let (to, channel) = (glance.seen().from(), Channel::Response);
            Outgoing { to, channel, body: [4; wire::BODY_BYTES], page: None, patient: false }
        });
        let mut header = [0; 600];
        let left = answer.filter(|answer| {
            let mut desk = Desk { header: &mut header, laid: None };
            self.fabric
                .foresee(self.now, answer, glance.as_ref().map(Glance::seen), &mut desk)
                .is_some()
        });
        let mut taken = Anything::default();
        let header = frame.len().checked_sub(PAGE_SIZE).map(|end| &frame[..end]);
        let landed = header.filter(|header| self.fabric.glance_landed(header).is_some());
        match landed {
            Some(header) => {
                self.fabric.handle_landed(self.now, header, &mut Frame(0), &mut taken);
                assert_eq!(taken.0, 1, "a page was not taken");
            }
            None => self.fabric.handle_frame(self.now, frame, &mut taken),
        }
        assert!(plain.is_none_or(|count| count == taken.0), "a plain frame was not taken whole");
        if let Some(answer) = left {
            assert_eq!(self.fabric.send(self.now, &answer), Ok(()));
            assert!(!self.fabric.has_foreseen(), "what has left was not sent");
        }
    }

    fn send(&mut self, input: &mut Input<'_>) {
        let channel = input.one_of(&[Channel::Request, Channel::Forward, Channel::Response]);
        let page = (input.u8() & 1 != 0).then_some(Frame(self.next_frame));
        let me = self.fabric.membership().map_or(NodeId(0), |m| m.me);
        let to = NodeId(if input.u8() < 240 { 1 - me.0.min(1) } else { input.u16() });
        let patient = page.is_none();
        let message = Outgoing { to, channel, body: [3; wire::BODY_BYTES], page, patient };
        if to != me
            && self.fabric.send(self.now, &message).is_ok()
            && let Some(frame) = page
        {
            self.next_frame += 1;
            self.lent.insert(frame);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0..=3 => self.frame(input),
            4 => self.send(input),
            5 => {
                self.now += input.skewed().min(1 << 40) * 1000;
                self.fabric.handle_timeout(self.now);
                let again = self.fabric.poll_timeout();
                assert!(again.is_none_or(|at| at > self.now), "a timer that stays due");
            }
            6 => {
                let mut header = [0; 600];
                for _ in 0..64 {
                    if self.fabric.poll_transmit(self.now, &mut header).is_none() {
                        break;
                    }
                }
            }
            _ => self.take_back(),
        }
    }

    /// Frames come back once each, and only those that were lent.
    fn take_back(&mut self) {
        while let Some(frame) = self.fabric.poll_released() {
            assert!(self.lent.remove(&frame), "a frame came back that was not lent");
        }
        let events = std::iter::from_fn(|| self.fabric.poll_event()).take(EVENTS_MAX + 1);
        let events: Vec<Event> = events.collect();
        assert!(events.len() <= EVENTS_MAX, "events without bound");
        if let Some(membership) = self.fabric.membership() {
            self.epoch = membership.epoch;
        }
    }
}

/// Makes the calls that the bytes stand for.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut run = Run::new(input.u8() & 1 == 0);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
    }
    run.take_back();
}
