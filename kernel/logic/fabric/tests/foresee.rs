//! A frame that leaves early is the one that would have left anyway.

mod common;
use addr::{Arrived, Frame, NodeId};
use common::{MS, Rng};
use fabric::{Channel, Config, Desk, Fabric, Glance, Outgoing, Seen, Sink, Transmit};
use std::collections::VecDeque;

/// Counts what comes.
#[derive(Default)]
struct Taken(Vec<[u8; 32]>);

impl Sink for Taken {
    fn deliver(&mut self, _: NodeId, _: Channel, body: &[u8; 32], _: Option<Arrived<'_>>) {
        self.0.push(*body);
    }
}

/// A frame on the link: its header part, and what follows.
type Sent = (Vec<u8>, Option<fabric::PageSlice>);

fn frame(header: &[u8], t: Transmit) -> Sent {
    (header[..t.header_len].to_vec(), t.page)
}

fn all_sent(fabric: &mut Fabric, now: u64) -> Vec<Sent> {
    let mut header = [0; 600];
    let mut frames = Vec::new();
    while let Some(t) = fabric.poll_transmit(now, &mut header) {
        frames.push(frame(&header, t));
    }
    frames
}

/// A frame as it counts: its messages have no order, and the check follows.
fn sorted((header, page): &Sent) -> (Vec<u8>, Vec<Vec<u8>>, Option<fabric::PageSlice>) {
    let (link, messages) = header.split_at(wire::LINK_END.min(header.len()));
    let mut link = link.to_vec();
    link[20..24].fill(0);
    let mut messages: Vec<Vec<u8>> = messages.chunks(wire::MESSAGE_BYTES).map(Vec::from).collect();
    messages.sort();
    (link, messages, *page)
}

/// Takes a frame; what its page holds does not matter here. A page of which is
/// told what it will deliver is delivered.
fn take(fabric: &mut Fabric, now: u64, (header, page): &Sent) -> Vec<[u8; 32]> {
    let mut taken = Taken::default();
    let told = fabric.glance_landed(header).copied();
    match page {
        None => {
            assert_eq!(told, None, "there is no page");
            fabric.handle_frame(now, header, &mut taken);
        }
        Some(_) => {
            fabric.handle_landed(now, header, &mut Frame(9), &mut taken);
            assert!(told.is_none_or(|body| taken.0 == [body]), "what was told");
        }
    }
    taken.0
}

/// What is seen of a frame with one message.
fn only<'a>(glance: Option<&Glance<'a>>) -> Option<(Seen, &'a [u8; 32])> {
    let mut bodies = glance?.bodies();
    let one = (glance?.seen(), bodies.next()?);
    bodies.next().is_none().then_some(one)
}

/// Two fabrics that have formed over a perfect link, and how they go on.
struct Pair {
    fabrics: [Fabric; 2],
    flying: [VecDeque<Sent>; 2],
    /// The frame that each has laid ahead.
    laid: [Option<Vec<u8>>; 2],
    now: u64,
    number: u64,
    /// Frames that were completed where they were laid.
    completed: u64,
    rng: Rng,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let config = |n: u8| Config { queue: 4, ..Config::new([2, 0, 0, 0, 0, n], 1, 1, 1, 2) };
        let fabrics = [1, 2].map(|n| Fabric::new(config(n), 0));
        let (flying, laid) = Default::default();
        let mut pair =
            Pair { fabrics, flying, laid, now: 0, number: 0, completed: 0, rng: Rng(seed) };
        while pair.fabrics.iter().any(|f| f.membership().is_none()) {
            pair.now += MS;
            (0..2).for_each(|n| pair.fabrics[n].handle_timeout(pair.now));
            (0..2).for_each(|n| pair.collect(n));
            (0..2).for_each(|n| while pair.arrives(n).is_some() {});
        }
        pair
    }

    fn collect(&mut self, n: usize) {
        let frames = all_sent(&mut self.fabrics[n], self.now);
        self.flying[1 - n].extend(frames);
    }

    /// What is written ahead is laid, or not yet; what was laid last may be gone.
    fn lays(&mut self, n: usize) {
        if self.rng.chance(100) {
            self.laid[n] = None;
        }
        if self.rng.chance(700) {
            let laid = &mut self.laid[n];
            self.fabrics[n].lay_ahead(laid.is_none(), |frame, _| {
                *laid = Some(frame.to_vec());
                true
            });
        }
    }

    fn arrives(&mut self, n: usize) -> Option<Vec<[u8; 32]>> {
        let sent = self.flying[n].pop_front()?;
        Some(take(&mut self.fabrics[n], self.now, &sent))
    }

    fn message(&mut self, from: usize) -> Outgoing {
        self.number += 1;
        let mut body = [0; 32];
        body[..8].copy_from_slice(&self.number.to_le_bytes());
        let me = self.fabrics[from].membership().expect("formed").me;
        let channel = Channel::BY_URGENCY[self.rng.below(3) as usize];
        let page = self.rng.chance(300).then_some(Frame(100 + self.number));
        let patient = page.is_none() && self.rng.chance(300);
        Outgoing { to: NodeId(1 - me.0), channel, body, page, patient }
    }

    /// A message leaves node `n` before it is sent, in answer to the next frame
    /// or not. Whether it did.
    fn foresees(&mut self, n: usize, answers: bool) -> bool {
        let come = self.flying[n].front().cloned().filter(|_| answers);
        let message = Outgoing { patient: false, ..self.message(n) };
        let (now, fabric) = (self.now, &mut self.fabrics[n]);
        let mut usual = fabric.clone();
        let glance = come.as_ref().and_then(|(header, _)| fabric.glance(header));
        if let Some((header, _)) = &come {
            assert_eq!(fabric.glance_one(header), only(glance.as_ref()), "the short way");
        }
        if answers && glance.is_none() {
            return false;
        }
        let seen = glance.as_ref().map(Glance::seen);
        let mut header = [0; 600];
        let mut desk = Desk { header: &mut header, laid: self.laid[n].as_deref_mut() };
        let Some(t) = fabric.foresee(now, &message, seen, &mut desk) else {
            return false;
        };
        let early = match self.laid[n].take().filter(|_| t.is_laid) {
            Some(laid) => (laid, t.page),
            None => frame(&header, t),
        };
        self.completed += u64::from(t.is_laid);
        assert!(wire::Header::parse(&early.0).is_ok_and(|header| {
            let payload = early.1.map(|page| usize::from(page.len));
            wire::Data::parse(&early.0, header.payload, payload.or(Some(0))).is_ok()
        }));
        // The same without looking ahead.
        if let Some(sent) = &come {
            let bodies = take(&mut usual, now, sent);
            assert!(glance.expect("it was plain").bodies().eq(&bodies), "what it says");
            assert_eq!(take(fabric, now, sent), bodies);
            self.flying[n].pop_front();
        }
        assert!(fabric.has_foreseen());
        assert_eq!((usual.send(now, &message), fabric.send(now, &message)), (Ok(()), Ok(())));
        assert!(!fabric.has_foreseen());
        let later = all_sent(&mut usual, now);
        let same = later.iter().any(|sent| sorted(sent) == sorted(&early));
        assert!(same, "{early:?} is none of {later:?}");
        let rest = all_sent(fabric, now);
        let (_, left, _) = sorted(&early);
        let again = rest.iter().any(|sent| sorted(sent).1.iter().any(|m| left.contains(m)));
        assert!(!again, "what was in {early:?} leaves again in {rest:?}");
        self.flying[1 - n].push_back(early);
        self.flying[1 - n].extend(rest);
        let counts = |f: &Fabric| (f.counters().messages_out, f.counters().pages_out);
        assert_eq!(counts(&self.fabrics[n]), counts(&usual));
        true
    }
}

#[test]
fn what_leaves_early_is_what_would_have_left() {
    let (mut early, mut answers, mut completed) = (0, 0, 0);
    for seed in 0..if cfg!(miri) { 1 } else { 100 } {
        let mut pair = Pair::new(seed);
        let mut sent = 0;
        let mut taken = 0;
        for _ in 0..if cfg!(miri) { 100 } else { 300 } {
            let n = pair.rng.below(2) as usize;
            match pair.rng.below(7) {
                0 => {
                    let message = pair.message(n);
                    sent += usize::from(pair.fabrics[n].send(pair.now, &message).is_ok());
                }
                1 => pair.collect(n),
                2 => taken += pair.arrives(n).map_or(0, |bodies| bodies.len()),
                3 => {
                    pair.now += pair.rng.below(MS);
                    pair.fabrics[n].handle_timeout(pair.now);
                    pair.fabrics[n].write_ahead();
                    pair.lays(n);
                }
                6 => {
                    // Frames say this from now on; what was written ahead does not.
                    let masters = pair.rng.below(3) as u32;
                    pair.fabrics[n].set_status(fabric::Status { free_frames: 7, masters });
                }
                what => {
                    if pair.rng.chance(500) {
                        pair.fabrics[n].write_ahead();
                        pair.lays(n);
                    }
                    let waiting = pair.flying[n].front().cloned();
                    let count = |s: &Sent| take(&mut pair.fabrics[n].clone(), pair.now, s).len();
                    let come = waiting.as_ref().filter(|_| what == 5).map_or(0, count);
                    if pair.foresees(n, what == 5) {
                        (sent, taken) = (sent + 1, taken + come);
                        early += 1;
                        answers += usize::from(what == 5);
                    }
                }
            }
        }
        for _ in 0..200 {
            pair.now += MS;
            for n in [0, 1] {
                pair.fabrics[n].handle_timeout(pair.now);
                pair.collect(n);
                taken += pair.arrives(n).map_or(0, |bodies| bodies.len());
            }
        }
        assert_eq!(taken, sent, "seed {seed}: each once");
        completed += pair.completed;
    }
    let often = early > 2000 && answers > 300 && completed > 300;
    assert!(cfg!(miri) || often, "{early}, of these {answers} answers, {completed} laid ahead");
}

/// A message that goes elsewhere or says something else is not the one that left.
#[test]
fn another_message_is_not_taken_for_it() {
    let mut pair = Pair::new(7);
    let message = Outgoing { patient: false, page: None, ..pair.message(0) };
    let mut header = [0; 600];
    let fabric = &mut pair.fabrics[0];
    let mut desk = Desk { header: &mut header, laid: None };
    assert!(fabric.foresee(pair.now, &message, None, &mut desk).is_some());
    let mut other = message;
    other.body[31] ^= 1;
    assert_eq!(fabric.send(pair.now, &other), Ok(()));
    // Its number is taken now: it cannot become true any more.
    assert_eq!(fabric.send(pair.now, &message), Ok(()));
    assert!(fabric.has_foreseen());
    fabric.unforesee();
    assert!(!fabric.has_foreseen());
    assert_eq!(all_sent(fabric, pair.now).len(), 1, "both in one frame");
}

/// A page can be told of once, in its turn, and as long as the link stands.
#[test]
fn a_page_is_told_of_before_it_is_taken() {
    let mut pair = Pair::new(3);
    let me = pair.fabrics[0].membership().expect("formed").me;
    let message = |number| Outgoing {
        to: NodeId(1 - me.0),
        channel: Channel::Response,
        body: [number; 32],
        page: Some(Frame(u64::from(number))),
        patient: false,
    };
    for number in [1, 2] {
        assert_eq!(pair.fabrics[0].send(pair.now, &message(number)), Ok(()));
    }
    let sent = all_sent(&mut pair.fabrics[0], pair.now);
    let fabric = &mut pair.fabrics[1];
    let told = |fabric: &Fabric, n: usize| fabric.glance_landed(&sent[n].0).map(|b| b[0]);
    assert_eq!((told(fabric, 0), told(fabric, 1)), (Some(1), None), "in turn");
    let mut damaged = sent[0].0.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(fabric.glance_landed(&damaged).is_none());
    assert_eq!(take(fabric, pair.now, &sent[0]), [[1; 32]]);
    assert_eq!((told(fabric, 0), told(fabric, 1)), (None, Some(2)), "once");
    fabric.stop(pair.now, fabric::StopReason::PowerOff);
    assert_eq!(told(fabric, 1), None);
    assert!(take(fabric, pair.now, &sent[1]).is_empty());
}
