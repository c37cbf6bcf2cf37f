//! When a member sends: acknowledgements, repetitions, patient messages, signs
//! of life. Times are exact, as the fabric has no clock of its own.

mod common;
use common::lab::Lab;
use common::{MS, config, mac};
use fabric::{Channel, Config, Drop, Event, Kind};
use wire::{Body, Link, MESSAGE_BYTES, PAGE_OFFSET, Packet};

const DELAY: u64 = 200_000;
/// Of a response without a page.
const LAST_DELAY: u64 = 3 * MS;
/// Before a round trip was measured: four times the least.
const FIRST_TIMEOUT: u64 = 20 * MS;
const HEARTBEAT: u64 = 100 * MS;
const DEAD: u64 = 3_000 * MS;

/// Member 1 of a small cluster that node 0 leads, its greetings sent.
fn member(nodes: u16) -> Lab {
    member_of(config(1, nodes))
}

fn member_of(config: Config) -> Lab {
    let mut lab = Lab::member(config);
    lab.until(lab.now);
    lab
}

/// What a peer says that has all requests below `awaited`, and those of the
/// bits of `received` above it.
fn has(awaited: u32, received: u64) -> Link {
    Link { awaited: [awaited, 0, 0], received: [received, 0, 0], window: [60; 3] }
}

/// Posts so many requests to node 0 and sends them.
fn send_requests(lab: &mut Lab, count: usize) {
    (0..count).for_each(|_| lab.posts(0, Channel::Request, false));
    assert_eq!(numbers(lab).concat().len(), count);
}

/// The numbers of the messages in each frame that is sent now.
fn numbers(lab: &mut Lab) -> Vec<Vec<u32>> {
    let of = |frame: Vec<u8>| match Packet::parse(&frame).unwrap().body {
        Body::Data(data) => data.messages().map(|m| m.sequence).collect(),
        _ => Vec::new(),
    };
    let frames: Vec<Vec<u32>> = lab.frames().into_iter().map(of).collect();
    frames.into_iter().filter(|frame| !frame.is_empty()).collect()
}

/// When the node wakes up to a time, and the messages that it sends then.
fn wakes(lab: &mut Lab, end: u64) -> Vec<(u64, Vec<u32>)> {
    let mut all = Vec::new();
    while let Some(at) = lab.fabric.poll_timeout().filter(|&at| at <= end) {
        assert!(at >= lab.now, "a time that is over");
        lab.now = at;
        lab.fabric.handle_timeout(at);
        all.push((at, numbers(lab).concat()));
    }
    lab.now = end;
    all
}

/// When messages go, up to a time, and which.
fn messages(lab: &mut Lab, end: u64) -> Vec<(u64, Vec<u32>)> {
    wakes(lab, end).into_iter().filter(|(_, numbers)| !numbers.is_empty()).collect()
}

fn lost(lab: &mut Lab) -> Vec<u16> {
    let events = std::iter::from_fn(|| lab.fabric.poll_event());
    let lost = |e| if let Event::PeerLost { node, .. } = e { Some(node.0) } else { None };
    events.filter_map(lost).collect()
}

/// The number of the message in the next frame, which has room for one.
fn next_number(lab: &mut Lab) -> Option<u32> {
    let mut frame = [0; PAGE_OFFSET];
    let sent = lab.fabric.poll_transmit(lab.now, &mut frame)?;
    match Packet::parse(&frame[..sent.header_len]).unwrap().body {
        Body::Data(data) => data.messages().next().map(|m| m.sequence),
        _ => None,
    }
}

/// A frame is taken note of when the device has it, or by the next call.
#[test]
fn a_frame_that_was_handed_out_is_not_forgotten() {
    let mut lab = member(2);
    (0..2).for_each(|_| lab.posts(0, Channel::Request, false));
    assert_eq!(next_number(&mut lab), Some(0));
    assert!(lab.fabric.has_output(), "there is a second message");
    assert_eq!(lab.fabric.poll_timeout(), Some(lab.now));
    assert_eq!(next_number(&mut lab), Some(1));
    assert_eq!(lab.fabric.poll_timeout(), Some(lab.now));
    lab.fabric.sent();
    assert!(!lab.fabric.has_output());
    assert!(lab.fabric.poll_timeout().is_some_and(|at| at > lab.now));
    // Both are sent again when nobody answers.
    let end = lab.now + FIRST_TIMEOUT;
    let again = messages(&mut lab, end);
    assert_eq!(again, [(lab.now, vec![0, 1])]);
}

/// An acknowledgement that came before is looked at after it.
#[test]
fn a_frame_is_taken_note_of_before_what_is_acknowledged() {
    let mut lab = member(2);
    (0..2).for_each(|_| lab.posts(0, Channel::Request, false));
    assert_eq!(next_number(&mut lab), Some(0));
    lab.hears_link(0, lab.epoch, has(1, 0));
    assert_eq!(next_number(&mut lab), Some(1));
    assert_eq!(lab.fabric.poll_released(), None);
    assert_eq!(next_number(&mut lab), None, "it was sent just now");
}

#[test]
fn an_acknowledgement_waits_for_its_delay_and_no_longer() {
    let mut lab = member(2);
    let start = lab.now;
    lab.hears_data(0, Channel::Request, &[0], has(0, 0));
    assert_eq!(lab.until_of(Kind::Ack, start + 40 * MS), [(start + DELAY, mac(0))]);
    // The wait counts from the first that it is owed for.
    let start = lab.now;
    lab.hears_data(0, Channel::Request, &[1], has(0, 0));
    assert_eq!(lab.until_of(Kind::Ack, start + DELAY / 2), []);
    lab.hears_data(0, Channel::Request, &[2], has(0, 0));
    assert_eq!(lab.until_of(Kind::Ack, start + 40 * MS), [(start + DELAY, mac(0))]);
}

/// Nothing goes back for it, so it waits for longer; whoever it came from.
#[test]
fn the_last_word_of_an_exchange_is_acknowledged_later() {
    for (nodes, from) in [(2, 0), (64, 5), (64, 32)] {
        let mut lab = member_of(Config { ring: 4096, ..config(1, nodes) });
        let start = lab.now;
        let acked = |at| vec![(at, mac(from))];
        lab.hears_data(from, Channel::Response, &[0], has(0, 0));
        assert_eq!(lab.until_of(Kind::Ack, start + 40 * MS), acked(start + LAST_DELAY));
        // Nor by itself, where something is owed sooner.
        let start = lab.now;
        lab.hears_data(from, Channel::Response, &[1], has(0, 0));
        assert_eq!(lab.until_of(Kind::Ack, start + MS), []);
        lab.hears_data(from, Channel::Request, &[0], has(0, 0));
        assert_eq!(lab.until_of(Kind::Ack, start + 40 * MS), acked(start + MS + DELAY));
        // Nor where there is company.
        let start = lab.now;
        lab.hears_data(from, Channel::Response, &[2], has(0, 0));
        lab.posts(from as u16, Channel::Response, false);
        assert_eq!(lab.until_of(Kind::Ack, start + 4 * MS), []);
    }
}

/// Before the sender's window is used up: half of it, sixteen at most.
#[test]
fn many_messages_are_acknowledged_at_once() {
    for (nodes, many) in [(2, 16), (9, 5)] {
        for (count, wait) in [(many - 1, DELAY), (many, 0)] {
            let mut lab = member(nodes);
            let start = lab.now;
            let all: Vec<u32> = (0..count).collect();
            lab.hears_data(0, Channel::Request, &all, has(0, 0));
            assert_eq!(lab.until_of(Kind::Ack, start + MS), [(start + wait, mac(0))], "{count}");
        }
    }
}

/// The sender learns of a loss without delay.
#[test]
fn what_has_come_out_of_turn_or_twice_is_acknowledged_at_once() {
    for numbers in [[0, 2], [0, 0]] {
        let mut lab = member(2);
        let start = lab.now;
        lab.hears_data(0, Channel::Request, &numbers, has(0, 0));
        assert_eq!(lab.until_of(Kind::Ack, start + MS), [(start, mac(0))]);
        let twice = u64::from(numbers[0] == numbers[1]);
        assert_eq!(lab.fabric.counters().duplicates, twice);
    }
}

#[test]
fn an_acknowledgement_that_travels_with_a_message_is_not_sent_again() {
    let mut lab = member(2);
    lab.hears_data(0, Channel::Request, &[0], has(0, 0));
    lab.posts(0, Channel::Response, false);
    assert_eq!(lab.kinds(), [Kind::Data]);
    assert_eq!(lab.until(lab.now + 10 * MS), []);
}

/// What would make a guest exit later leaves while it has exited anyway.
#[test]
fn nothing_waits_for_company_when_in_a_hurry() {
    let mut lab = member(3);
    lab.hears_data(0, Channel::Request, &[0], has(0, 0));
    lab.posts(2, Channel::Response, true);
    lab.fabric.hurry();
    assert_eq!(lab.kinds(), [Kind::Data, Kind::Ack]);
    lab.fabric.hurry();
    assert_eq!(lab.kinds(), []);
    // Nor does it leave a second time.
    lab.hears_link(2, lab.epoch, has(1, 0));
    assert_eq!(lab.until(lab.now + 10 * MS), []);
}

#[test]
fn what_was_acknowledged_wakes_nobody_after_a_refresh() {
    let mut lab = member(2);
    send_requests(&mut lab, 1);
    let timeout = lab.fabric.poll_timeout().unwrap();
    lab.now += MS;
    lab.hears_link(0, lab.epoch, has(1, 0));
    lab.fabric.handle_timeout(lab.now);
    assert_eq!(lab.fabric.poll_timeout(), Some(timeout));
    lab.fabric.refresh(lab.now);
    assert!(lab.fabric.poll_timeout().unwrap() > timeout);
    // What was not is still sent again.
    send_requests(&mut lab, 1);
    let timeout = lab.fabric.poll_timeout();
    lab.fabric.refresh(lab.now + 1);
    assert_eq!(lab.fabric.poll_timeout(), timeout);
    assert_eq!(messages(&mut lab, timeout.unwrap()), [(timeout.unwrap(), vec![1])]);
}

/// The frame has room for one message only.
#[test]
fn patience_that_did_not_travel_along_keeps_its_time() {
    let mut lab = member(2);
    lab.room = PAGE_OFFSET;
    let start = lab.now;
    lab.posts(0, Channel::Request, true);
    lab.posts(0, Channel::Forward, true);
    lab.now += DELAY / 2;
    lab.posts(0, Channel::Response, false);
    assert_eq!(lab.kinds(), [Kind::Data]);
    assert_eq!(lab.until(start + DELAY - 1), []);
    // Then all go that had to wait, in as many frames as it takes.
    let went = lab.until_of(Kind::Data, start + 10 * MS);
    assert_eq!(went, [(start + DELAY, mac(0)), (start + DELAY, mac(0))]);
}

#[test]
fn patience_outlasts_the_acknowledgement_of_others() {
    let mut lab = member(2);
    send_requests(&mut lab, 1);
    lab.now += MS;
    lab.posts(0, Channel::Request, true);
    let posted = lab.now;
    lab.now += DELAY / 2;
    lab.hears_link(0, lab.epoch, has(1, 0));
    assert_eq!(messages(&mut lab, posted + 5 * MS), [(posted + DELAY, vec![1])]);
}

#[test]
fn what_is_lost_is_sent_again_after_the_time_out_and_ever_more_rarely() {
    let mut lab = member(2);
    let mut at = lab.now;
    send_requests(&mut lab, 3);
    assert_eq!(lab.fabric.poll_timeout(), Some(at + FIRST_TIMEOUT));
    let mut again = Vec::new();
    for wait in [20, 40, 80, 160, 250, 250] {
        at += wait * MS;
        again.push((at, vec![0, 1, 2]));
    }
    assert_eq!(messages(&mut lab, at + MS), again);
    let resent = lab.fabric.counters().retransmits_timeout;
    assert_eq!(resent, 3 * again.len() as u64);
    // What was sent more than once measures nothing, but ends the patience.
    lab.hears_link(0, lab.epoch, has(3, 0));
    assert_eq!((messages(&mut lab, at + 300 * MS), lab.fabric.counters().acks_in), (vec![], 1));
    assert_eq!(lab.fabric.rtt_ns(addr::NodeId(0)), None);
    let start = lab.now;
    send_requests(&mut lab, 1);
    assert_eq!(messages(&mut lab, start + 21 * MS), [(start + FIRST_TIMEOUT, vec![3])]);
}

/// A processor may have better things to do when the timer runs out.
#[test]
fn a_time_out_that_is_seen_late_counts() {
    let mut lab = member(2);
    send_requests(&mut lab, 1);
    lab.now += FIRST_TIMEOUT + 3 * MS;
    lab.fabric.handle_timeout(lab.now);
    assert_eq!(numbers(&mut lab), [[0]]);
}

/// RFC 6298: the smoothed round trip and four times its variation. RFC 9002: and what
/// an acknowledgement may be kept for.
#[test]
fn the_time_out_follows_the_round_trip() {
    let mut lab = member(2);
    for (n, (trip, smoothed, timeout)) in
        [(8, 8, 8 + 4 * 4), (16, 9, 9 + 4 * 5), (1, 8, 8 + 23)].into_iter().enumerate()
    {
        let timeout = timeout + LAST_DELAY / MS;
        send_requests(&mut lab, 1);
        lab.until(lab.now + trip * MS);
        lab.hears_link(0, lab.epoch, has(n as u32 * 2 + 1, 0));
        lab.until(lab.now);
        assert_eq!(lab.fabric.rtt_ns(addr::NodeId(0)), Some(smoothed * MS));
        let sent = lab.now;
        send_requests(&mut lab, 1);
        let again = messages(&mut lab, sent + (timeout + 1) * MS);
        assert_eq!(again, [(sent + timeout * MS, vec![n as u32 * 2 + 1])]);
        lab.hears_link(0, lab.epoch, has(n as u32 * 2 + 2, 0));
        lab.until(lab.now);
    }
}

/// While acknowledgements come the link works, only slower than it was.
#[test]
fn the_time_out_starts_anew_with_every_acknowledgement() {
    let mut lab = member(2);
    send_requests(&mut lab, 2);
    let heard = lab.now + 4 * MS;
    assert_eq!(messages(&mut lab, heard), []);
    lab.hears_link(0, lab.epoch, has(1, 0));
    // A round trip of 4 ms that varies by 2.
    let timeout = 12 * MS + LAST_DELAY;
    assert_eq!(messages(&mut lab, heard + timeout + MS), [(heard + timeout, vec![1])]);
}

/// All that three later ones have overtaken, at once and once; then each has
/// its whole time.
#[test]
fn what_is_overtaken_is_sent_again_and_has_its_time() {
    let mut lab = member(2);
    send_requests(&mut lab, 6);
    let heard = lab.now + 4 * MS;
    assert_eq!(messages(&mut lab, heard), []);
    lab.hears_link(0, lab.epoch, has(0, 0b11_1010));
    lab.fabric.handle_timeout(lab.now);
    assert!(lab.fabric.has_output());
    // The device is busy for a while.
    lab.now += 3 * MS;
    assert_eq!(
        (numbers(&mut lab).concat(), lab.fabric.counters().retransmits_fast),
        (vec![0, 2], 2)
    );
    // The timer of the acknowledgement finds nothing old enough.
    let timer = heard + 12 * MS + LAST_DELAY;
    assert_eq!(messages(&mut lab, timer - 1), []);
    assert_eq!(lab.fabric.poll_timeout(), Some(timer));
    lab.fabric.handle_timeout(timer);
    assert!(!lab.fabric.has_output());
    let again = timer + 3 * MS;
    assert_eq!(messages(&mut lab, again + MS), [(again, vec![0, 2])]);
}

#[test]
fn frames_are_filled_up_to_the_link_and_no_further() {
    for mtu in [1500, 1511] {
        let mut lab = member_of(Config { mtu, ..config(1, 2) });
        (0..60).for_each(|_| lab.posts(0, Channel::Request, false));
        let most = (usize::from(mtu) + wire::ETHERNET_BYTES - wire::LINK_END) / MESSAGE_BYTES;
        let frames: Vec<usize> = numbers(&mut lab).iter().map(Vec::len).collect();
        assert_eq!(frames, [most, 60 - most]);
    }
}

/// Silence towards a peer lasts for one heartbeat, whatever is said to others.
#[test]
fn a_sign_of_life_goes_when_nothing_else_did() {
    let mut lab = member(3);
    let start = lab.now;
    let beats = lab.until_of(Kind::Heartbeat, start + HEARTBEAT);
    assert_eq!(beats, [(start + HEARTBEAT, mac(0)), (start + HEARTBEAT, mac(2))]);
    lab.until(lab.now + 30 * MS);
    let said = lab.now;
    lab.hears_data(2, Channel::Request, &[0], has(0, 0));
    assert_eq!(lab.until_of(Kind::Ack, said + DELAY), [(said + DELAY, mac(2))]);
    let beats = lab.until_of(Kind::Heartbeat, said + DELAY + HEARTBEAT);
    let (zero, two) = (start + 2 * HEARTBEAT, said + DELAY + HEARTBEAT);
    assert_eq!(beats, [(zero, mac(0)), (two, mac(2))]);
}

/// Half a heartbeat is the longest that a node sleeps, so that it notices when
/// it was away; and it wakes for nothing but what is due.
#[test]
fn a_node_sleeps_until_something_is_due() {
    let mut lab = member(2);
    let start = lab.now;
    lab.hears_data(0, Channel::Request, &[0], has(0, 0));
    let when: Vec<u64> = wakes(&mut lab, start + HEARTBEAT).iter().map(|w| w.0).collect();
    assert_eq!(when, [start, start + DELAY, start + HEARTBEAT / 2, start + HEARTBEAT]);
}

/// Also when it is spoken to: only what it says itself counts.
#[test]
fn a_peer_is_lost_after_its_silence_and_told_now_and_then() {
    let mut lab = member(3);
    let start = lab.now;
    lab.until(start + 1_000 * MS);
    send_requests(&mut lab, 1);
    lab.hears_ack(2, lab.epoch);
    lab.until(start + DEAD - 1);
    assert_eq!(lost(&mut lab), []);
    lab.until(start + DEAD);
    assert_eq!(lost(&mut lab), [0]);
    // It comes back with heartbeats: one answer in so much time.
    let refusals = [(0, 1), (HEARTBEAT - 1, 0), (1, 1), (HEARTBEAT / 2, 0), (HEARTBEAT, 1)];
    for (wait, told) in refusals {
        lab.until(lab.now + wait);
        lab.hears_ack(0, lab.epoch);
        assert_eq!(lab.until_of(Kind::Refuse, lab.now).len(), told, "after {wait}");
    }
    assert_eq!(lab.fabric.counters().dropped(Drop::FromLost), 5);
    // The other one was heard later.
    lab.until(start + 1_000 * MS + DEAD - 1);
    assert_eq!(lost(&mut lab), []);
    lab.until(start + 1_000 * MS + DEAD);
    assert_eq!(lost(&mut lab), [2]);
}

/// More than a heartbeat without being woken is an absence of our own. It
/// excuses a peer's silence four times in a row.
#[test]
fn our_own_absence_excuses_silence_but_not_for_ever() {
    let mut lab = member(2);
    for (step, pauses) in [(HEARTBEAT, 0), (HEARTBEAT + 1, 1)] {
        lab.now += step;
        lab.fabric.handle_timeout(lab.now);
        assert_eq!(lab.fabric.counters().pauses, pauses);
    }
    lab.hears_ack(0, lab.epoch);
    // Two absences are more than a peer may be silent.
    let mut absences = 0;
    while lost(&mut lab).is_empty() {
        lab.now += DEAD * 2 / 3;
        lab.fabric.handle_timeout(lab.now);
        absences += 1;
    }
    assert_eq!(absences, 4 + 2);
}
