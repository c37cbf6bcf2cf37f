use super::*;
use addr::Gfn;
use fabric::Config;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

struct Nobody;
impl fabric::Sink for Nobody {
    fn deliver(
        &mut self,
        _: NodeId,
        _: Channel,
        _: &[u8; wire::BODY_BYTES],
        _: Option<addr::Arrived<'_>>,
    ) {
    }
}

/// Two fabrics that have formed over a perfect link.
fn pair() -> [Fabric; 2] {
    let config = |mac, life| Config { queue: 4, ..Config::new(mac, 1, 1, life, 2) };
    let mut pair = [Fabric::new(config(A, 1), 0), Fabric::new(config(B, 2), 0)];
    let mut now = 0;
    while pair.iter().any(|f| f.membership().is_none()) {
        now += 1_000_000;
        assert!(now < 10_000_000_000, "they never form");
        for (from, to) in [(0, 1), (1, 0)] {
            pair[from].handle_timeout(now);
            let mut frame = [0; 2048];
            while let Some(t) = pair[from].poll_transmit(now, &mut frame) {
                pair[to].handle_frame(now, &frame[..t.header_len], &mut Nobody);
            }
        }
    }
    pair
}

#[test]
fn a_full_request_queue_keeps_no_response_waiting() {
    let [mut fabric, _] = pair();
    let peer = NodeId(1 - fabric.membership().unwrap().me.0);
    let mut outbox = Outbox::new(2);
    let message = |kind| Message::new(kind, Gfn(1), peer);
    for _ in 0..CONGESTED + 100 {
        outbox.send(peer, message(Kind::GetShared), None);
    }
    outbox.send(peer, message(Kind::Promoted), None);
    assert!(outbox.is_congested());
    assert_eq!(outbox.flush_to(&mut fabric, 0), Ok(()));
    assert!(outbox.queues[Channel::Response.index()].is_empty());
    // The fabric has taken 60, which the peer grants, and 4 into its queue.
    assert_eq!(outbox.queues[Channel::Request.index()].len(), CONGESTED + 100 - 60 - 4);
}

#[test]
fn a_lone_done_travels_in_the_next_message_to_its_home() {
    let (home, other) = (NodeId(1), NodeId(2));
    let mut outbox = Outbox::new(3);
    let message = |kind, gfn| Message::new(kind, Gfn(gfn), NodeId(0));
    outbox.send(home, Message { txn: 9, ..message(Kind::Done, 1) }, None);
    assert!(outbox.is_empty() && outbox.patience.is_unseen());
    // Not to another node.
    outbox.send(other, message(Kind::GetExclusive, 2), None);
    assert!(outbox.patience.is_unseen());
    // What is foreseen is what is sent.
    let get = message(Kind::GetShared, 3);
    let foreseen = outbox.foresee(home, get, None);
    outbox.send(home, get, None);
    assert!(!outbox.patience.is_unseen());
    let sent = outbox.queues[Channel::Request.index()].pop_back().expect("it is queued");
    assert_eq!(sent, foreseen);
    let end = End { gfn: Gfn(1), txn: 9 };
    assert_eq!(Message::from_bytes_with(&sent.body), Some((get, Some(end))));
    // The next takes along nothing.
    outbox.send(home, get, None);
    let sent = outbox.queues[Channel::Request.index()].pop_back().expect("it is queued");
    assert_eq!(Message::from_bytes(&sent.body), Some(get));
}

#[test]
fn a_done_leaves_before_the_next_request_for_its_page() {
    let peer = NodeId(1);
    let mut outbox = Outbox::new(2);
    let message = |kind, gfn| Message::new(kind, Gfn(gfn), peer);
    outbox.send(peer, message(Kind::Done, 1), None);
    outbox.send(peer, message(Kind::GetExclusive, 1), None);
    assert!(!outbox.patience.is_unseen());
    let [requests, _, responses] = &outbox.queues;
    assert_eq!((requests.len(), responses.len()), (1, 1));
    assert_eq!(Message::from_bytes(&requests[0].body), Some(message(Kind::GetExclusive, 1)));
    assert!(responses[0].patient, "it goes in the same frame");
}

#[test]
fn what_coherence_asks_is_answered() {
    let mut outbox = Outbox::new(3);
    assert_eq!(outbox.roomiest(3, &[]), None);
    outbox.rooms.set(NodeId(2), 9);
    assert_eq!((outbox.free_frames(NodeId(1)), outbox.free_frames(NodeId(2))), (0, 9));
    assert_eq!(outbox.roomiest(3, &[]), Some(NodeId(2)));
    outbox.glimpses.remember(Gfn(1), Frame(1));
    outbox.flush();
    assert!(outbox.flush_owed && outbox.is_empty());
    assert_eq!(outbox.glimpses.find(Gfn(1)), None, "it may lie elsewhere now");
    outbox.control(NodeId(1), Channel::Request, Control::Taken);
    assert!(!outbox.is_empty() && !outbox.is_congested());
}

#[test]
fn so_many_of_one_channel_are_too_many() {
    let mut outbox = Outbox::new(2);
    for i in 0..CONGESTED {
        assert!(!outbox.is_congested(), "{i}");
        outbox.send(NodeId(1), Message::new(Kind::GetShared, Gfn(1), NodeId(0)), None);
    }
    assert!(outbox.is_congested());
}
