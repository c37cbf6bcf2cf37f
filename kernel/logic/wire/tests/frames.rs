//! Round trips of every kind, and bytes that are not frames.

use addr::PAGE_SIZE;
use wire::{
    Accept, Body, Channel, DataWriter, Draft, Entry, HEADER_BYTES, Header, HeaderKey, Hello, Kind,
    Link, Message, PAGE_OFFSET, Packet, Payload, Probe, ProbeReply, Refuse, Stop, WireError,
    emit_roster, roster_room, seal,
};

fn header(kind: Kind) -> Header {
    Header {
        dst: [2, 1, 2, 3, 4, 5],
        src: [2, 9, 8, 7, 6, 5],
        kind,
        from: 3,
        payload: 0,
        cluster: 0x1122_3344_5566_7788,
        epoch: 0x99AA_BBCC_DDEE_FF00,
        free_frames: 1234,
        masters: 5678,
    }
}

fn entry(n: u8) -> Entry {
    Entry {
        mac: [2, 9, 8, 7, 6, n],
        window: n,
        has_payload: n.is_multiple_of(2),
        lead: n.is_multiple_of(3),
        incarnation: u64::from(n) << 40,
        pages: 512 * u64::from(n),
        cpus: u16::from(n) * 3,
        mtu: 9000 - u16::from(n),
    }
}

fn link() -> Link {
    Link { awaited: [1, u32::MAX, 3], window: [60, 4, 5], received: [2, u64::MAX - 1, 8] }
}

/// One frame of every kind.
fn samples() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut keep = |buf: &[u8], len: usize| all.push(buf[..len].to_vec());
    let mut b = vec![0xAA; 6000];
    let hello = Hello { build: 7, nodes: 4, known: 2, entry: entry(5) };
    let len = hello.emit(&header(Kind::Hello), &mut b);
    keep(&b, len);
    for kind in [Kind::Propose, Kind::Commit] {
        let len = emit_roster(&header(kind), 9, 2, (2..7).map(entry), &mut b);
        keep(&b, len);
    }
    let len = Accept { incarnation: 77 }.emit(&header(Kind::Accept), &mut b);
    keep(&b, len);
    let refuse = Refuse { incarnation: 5, reason: 6, detail: 7 };
    let len = refuse.emit(&header(Kind::Refuse), &mut b);
    keep(&b, len);
    for kind in [Kind::Ack, Kind::Heartbeat] {
        let len = link().emit_frame(&header(kind), &mut b);
        keep(&b, len);
    }
    let len = Stop { reason: 3, code: 4 }.emit(&header(Kind::Stop), &mut b);
    keep(&b, len);
    let len = Stop::emit_ack(&header(Kind::StopAck), &mut b);
    keep(&b, len);
    let len = Probe { token: 8, bytes: 4096 }.emit(&header(Kind::Probe), &mut b);
    keep(&b, len);
    let reply = ProbeReply { token: 8, total: 100, offset: 40, payload: Payload::Apart(0) };
    let len = reply.emit(&Header { payload: 60, ..header(Kind::ProbeReply) }, &mut b);
    keep(&b, len + 60);
    let mut writer = DataWriter::new(&mut b);
    for n in 0..3 {
        let body = [n as u8; 32];
        writer.push(&Message {
            channel: Channel::Forward,
            sequence: n,
            part: 0,
            parts: 0,
            body: &body,
        });
    }
    let len = writer.finish(&header(Kind::Data), &link());
    keep(&b, len);
    let mut writer = DataWriter::new(&mut b);
    let (channel, body) = (Channel::Response, &[9; 32]);
    writer.push(&Message { channel, sequence: 42, part: 2, parts: 3, body });
    let len = writer.finish(&Header { payload: 1328, ..header(Kind::Data) }, &link());
    keep(&b, len + 1328);
    all
}

#[test]
fn every_kind_comes_back() {
    let all = samples();
    for frame in &all {
        let packet = Packet::parse(frame).unwrap();
        let payload = packet.header.payload;
        assert_eq!(packet.header, Header { payload, ..header(packet.header.kind) });
        match packet.body {
            Body::Hello(h) => {
                assert_eq!((h.build, h.nodes, h.known), (7, 4, 2));
                assert_eq!(h.entry, entry(5));
            }
            Body::Propose(r) | Body::Commit(r) => {
                assert_eq!((r.total, r.first), (9, 2));
                assert!(r.entries().eq((2..7).map(entry)));
            }
            Body::Accept(a) => assert_eq!(a.incarnation, 77),
            Body::Refuse(r) => assert_eq!((r.incarnation, r.reason, r.detail), (5, 6, 7)),
            Body::Ack(l) | Body::Heartbeat(l) => assert_eq!(l, link()),
            Body::Stop(s) => assert_eq!((s.reason, s.code), (3, 4)),
            Body::StopAck => assert_eq!(packet.header.kind, Kind::StopAck),
            Body::Probe(p) => assert_eq!((p.token, p.bytes), (8, 4096)),
            Body::ProbeReply(r) => {
                assert_eq!((r.token, r.total, r.offset, r.payload.len()), (8, 100, 40, 60));
            }
            Body::Data(d) if payload == 0 => {
                assert_eq!(d.link, link());
                let seen: Vec<_> = d.messages().map(|m| (m.sequence, m.body[31])).collect();
                assert_eq!(seen, [(0, 0), (1, 1), (2, 2)]);
            }
            Body::Data(d) => {
                let m = d.messages().next().unwrap();
                let got = (m.channel, m.sequence, m.part, m.parts, m.body[0]);
                assert_eq!(got, (Channel::Response, 42, 2, 3, 9));
                assert_eq!(d.payload, Payload::Here(&frame[PAGE_OFFSET..]));
            }
        }
    }
    let mut kinds: Vec<_> = all.iter().map(|f| f[15]).collect();
    kinds.dedup();
    assert_eq!(kinds.len(), Kind::COUNT - 1);
}

#[test]
fn a_page_starts_where_promised() {
    let mut b = vec![0; PAGE_OFFSET];
    let mut writer = DataWriter::new(&mut b);
    let (channel, body) = (Channel::Response, &[0; 32]);
    writer.push(&Message { channel, sequence: 0, part: 0, parts: 1, body });
    assert!(!writer.room());
    let len = writer.finish(&Header { payload: 4096, ..header(Kind::Data) }, &link());
    assert_eq!(len, PAGE_OFFSET);
    b.resize(PAGE_OFFSET + PAGE_SIZE, 5);
    let Body::Data(data) = Packet::parse(&b).unwrap().body else { panic!("data was written") };
    assert_eq!(data.payload, Payload::Here(&[5; PAGE_SIZE]));
    // The same frame, its page apart.
    let head = &b[..PAGE_OFFSET];
    let Ok(Packet { body: Body::Data(data), .. }) = Packet::parse_apart(head, PAGE_SIZE) else {
        panic!("a page apart is none")
    };
    assert_eq!((data.payload, data.messages().count()), (Payload::Apart(PAGE_SIZE), 1));
    assert_eq!(Packet::parse_apart(head, PAGE_SIZE - 1), Err(WireError::Malformed));
    assert_eq!(Packet::parse_apart(&b, 0), Err(WireError::Malformed));
}

#[test]
fn padding_is_ignored() {
    for frame in samples() {
        let mut padded = frame.clone();
        padded.resize(frame.len() + 40, 0xEE);
        assert_eq!(Packet::parse(&padded), Packet::parse(&frame));
    }
}

#[test]
fn every_truncation_is_short() {
    for frame in samples() {
        for len in (0..frame.len()).step_by(if cfg!(miri) { 397 } else { 1 }) {
            let error = Packet::parse(&frame[..len]).unwrap_err();
            let foreign = len < 14;
            assert_eq!(error, if foreign { WireError::Foreign } else { WireError::Short });
        }
    }
}

#[test]
fn every_flipped_header_bit_is_noticed() {
    for frame in samples() {
        let payload = usize::from(Packet::parse(&frame).unwrap().header.payload);
        for bit in (0..(frame.len() - payload) * 8).step_by(if cfg!(miri) { 997 } else { 1 }) {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Packet::parse(&bad).is_err(), "kind {} bit {bit}", frame[15]);
        }
    }
}

/// Frames with a right check and random content: the parser's own checks.
#[test]
fn sealed_nonsense_never_panics() {
    let mut state = 1u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut read = 0;
    for round in 0..if cfg!(miri) { 60 } else { 60_000 } {
        let words = 6 + random() % 24;
        let mut frame: Vec<u8> = (0..words).flat_map(|_| random().to_le_bytes()).collect();
        frame[12..16].copy_from_slice(&[0x88, 0xB5, 1, (round % 14) as u8]);
        // Small numbers pass more checks.
        for at in [18, 50, 52, 58, 63, 80, 81, 89, 90, 91] {
            if random() % 4 != 0
                && let Some(byte) = frame.get_mut(at)
            {
                *byte = (random() % 3) as u8;
            }
        }
        frame[19] &= (random() % 2) as u8;
        let len = (6 + random() as usize % 16) * 8;
        let len = len.min(frame.len());
        seal(&mut frame[..len]);
        if let Ok(packet) = Packet::parse(&frame) {
            read += 1;
            match packet.body {
                Body::Data(d) => assert!(d.messages().count() > 0),
                Body::Propose(r) | Body::Commit(r) => {
                    assert!(usize::from(r.first) + r.entries().count() <= usize::from(r.total));
                }
                _ => {}
            }
        }
    }
    assert!(cfg!(miri) || read > 100, "{read}");
}

#[test]
fn contradictions_are_malformed() {
    let paged = |count: u32, part, parts, payload: u16| {
        let mut b = vec![0; 6000];
        let mut writer = DataWriter::new(&mut b);
        for sequence in 0..count {
            let channel = Channel::Request;
            writer.push(&Message { channel, sequence, part, parts, body: &[1; 32] });
        }
        writer.finish(&Header { payload, ..header(Kind::Data) }, &link());
        Packet::parse(&b).map(drop)
    };
    assert_eq!(paged(1, 0, 1, 4096), Ok(()));
    for (count, part, parts, payload) in [
        (1, 0, 1, 4097), // more than a page
        (1, 3, 3, 100),  // no such part
        (1, 1, 0, 0),    // a part of nothing
        (1, 0, 1, 0),    // a page without bytes
        (1, 0, 0, 100),  // bytes without a page
        (2, 0, 1, 100),  // whose page?
        (0, 0, 0, 0),    // no message
    ] {
        let error = Err(WireError::Malformed);
        assert_eq!(paged(count, part, parts, payload), error, "{count} {part} {parts} {payload}");
    }
}

/// Each field that must hold one value or be small, alone and under a right
/// check.
#[test]
fn each_wrong_field_is_malformed() {
    let mut b = vec![0; 6000];
    let mut wrong = |what: &str, write: &dyn Fn(&mut [u8]) -> usize, at: usize, values: &[u8]| {
        let len = write(&mut b);
        let payload = usize::from(Packet::parse(&b).expect(what).header.payload);
        for &value in values {
            let mut bad = b[..len + payload].to_vec();
            bad[at] = value;
            seal(&mut bad[..len]);
            assert_eq!(Packet::parse(&bad), Err(WireError::Malformed), "{what}: {value}");
        }
    };
    let ack = |b: &mut [u8]| link().emit_frame(&header(Kind::Ack), b);
    wrong("messages in an Ack", &ack, 63, &[1]);
    wrong("a payload in an Ack", &ack, 18, &[1]);
    let data = |b: &mut [u8]| {
        let mut writer = DataWriter::new(b);
        let (channel, body) = (Channel::Request, &[0; 32]);
        writer.push(&Message { channel, sequence: 0, part: 0, parts: 0, body });
        writer.finish(&header(Kind::Data), &link())
    };
    wrong("a channel", &data, 88, &[3, 255]);
    wrong("a reserved byte", &data, 90, &[1]);
    wrong("a reserved byte", &data, 91, &[1]);
    let roster = |b: &mut [u8]| emit_roster(&header(Kind::Commit), 9, 2, (2..7).map(entry), b);
    wrong("a payload in a roster", &roster, 18, &[1]);
    wrong("more entries than members", &roster, 48, &[0, 6]);
    wrong("unknown flags of a member", &roster, 56 + 7, &[4, 0x83]);
    let probe = |b: &mut [u8]| Probe { token: 8, bytes: 100 }.emit(&header(Kind::Probe), b);
    wrong("more than a page asked for", &probe, 57, &[17, 255]);
    let reply = |b: &mut [u8]| {
        let reply = ProbeReply { token: 8, total: 4096, offset: 4036, payload: Payload::Apart(0) };
        reply.emit(&Header { payload: 60, ..header(Kind::ProbeReply) }, b)
    };
    wrong("more than a page in all", &reply, 57, &[17, 255]);
    wrong("a part beyond the end", &reply, 58, &[0xc5]);
    wrong("less in all than this part", &reply, 57, &[0]);
    // Without a membership there is no roster; an empty one says nothing.
    let len = emit_roster(
        &Header { epoch: 0, ..header(Kind::Commit) },
        1,
        0,
        [entry(0)].into_iter(),
        &mut b,
    );
    assert_eq!(Packet::parse(&b[..len]), Err(WireError::Malformed));
    let len = emit_roster(&header(Kind::Commit), 1, 0, [].into_iter(), &mut b);
    assert_eq!(Packet::parse(&b[..len]), Err(WireError::Malformed));
}

/// Nodes of two builds must be able to tell each other that they differ, so
/// what one of them sends is pinned here, the check included.
#[test]
fn the_format_stays_what_it_is() {
    let mut b = [0; 64];
    let len = Accept { incarnation: 0x0102_0304_0506_0708 }.emit(&header(Kind::Accept), &mut b);
    #[rustfmt::skip]
    let frame = [
        2, 1, 2, 3, 4, 5, 2, 9, 8, 7, 6, 5, 0x88, 0xB5, 1, 4,
        3, 0, 0, 0, 98, 249, 12, 254, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
        0x00, 0xFF, 0xEE, 0xDD, 0xCC, 0xBB, 0xAA, 0x99, 0xD2, 4, 0, 0, 0x2E, 0x16, 0, 0,
        8, 7, 6, 5, 4, 3, 2, 1,
    ];
    assert_eq!(b[..len], frame);
}

#[test]
fn numbers_index_arrays() {
    let channels = Channel::BY_URGENCY.map(Channel::index);
    assert_eq!(channels, [2, 1, 0]);
    let kinds: Vec<_> = samples().iter().map(|f| Packet::parse(f).unwrap().header.kind).collect();
    assert!(kinds.iter().all(|k| k.index() < Kind::COUNT));
    assert!(kinds.windows(2).all(|k| (k[0] == k[1]) == (k[0].index() == k[1].index())));
}

/// The number of messages is one byte.
#[test]
fn a_frame_has_room_for_255_messages() {
    let mut b = vec![0; PAGE_OFFSET + 300 * 40];
    let mut writer = DataWriter::new(&mut b);
    let (channel, body) = (Channel::Request, &[0; 32]);
    while writer.room() {
        let sequence = u32::from(writer.count());
        writer.push(&Message { channel, sequence, part: 0, parts: 0, body });
    }
    assert_eq!(writer.count(), 255);
    let len = writer.finish(&header(Kind::Data), &link());
    let Ok(Packet { body: Body::Data(data), .. }) = Packet::parse(&b[..len]) else {
        panic!("a full frame is a frame")
    };
    assert!(data.messages().map(|m| m.sequence).eq(0..255));
}

#[test]
fn rosters_fill_frames() {
    assert_eq!(roster_room(55), 0);
    let room = roster_room(1514);
    let mut b = vec![0; 1514];
    let entries = (0..room).map(|n| entry(n as u8));
    let len = emit_roster(&header(Kind::Commit), room as u16, 0, entries, &mut b);
    assert!(len <= 1514 && len + 32 > 1514);
    assert!(Packet::parse(&b[..len]).is_ok());
}

/// What is written before the message is known comes to the same frame.
#[test]
fn a_draft_is_the_frame_that_it_becomes() {
    let body = &core::array::from_fn(|i| i as u8 ^ 0x5A);
    for (payload, parts) in [(0, 0), (4096, 1)] {
        let header = Header { payload, ..header(Kind::Data) };
        let draft = Draft::new(&header, &link());
        for channel in Channel::BY_URGENCY {
            let message = Message { channel, sequence: u32::MAX - 1, part: 0, parts, body };
            let (mut usual, mut drafted) = ([0xAA; PAGE_OFFSET], [0x55; PAGE_OFFSET]);
            let mut writer = DataWriter::new(&mut usual);
            writer.push(&message);
            assert_eq!(writer.finish(&header, &link()), PAGE_OFFSET);
            assert_eq!(draft.finish(&message, &mut drafted), PAGE_OFFSET);
            assert_eq!(usual, drafted);
            let mut laid = *draft.frame();
            laid[PAGE_OFFSET - wire::MESSAGE_BYTES..].fill(0x55);
            assert_eq!(draft.complete(&message, &mut laid), PAGE_OFFSET);
            assert_eq!(usual, laid);
        }
    }
}

/// A key says what the header says, and tells headers apart but for what changes.
#[test]
fn keys_tell_headers_apart() {
    let key = |header: Header| {
        let mut b = [0; HEADER_BYTES];
        header.emit(&mut b);
        HeaderKey::of(&b).expect("long enough")
    };
    let one = Header { payload: 4096, ..header(Kind::Data) };
    assert_eq!((key(one).from(), key(one).payload()), (one.from, one.payload));
    assert!(key(one).is(&key(Header { free_frames: 1, masters: 2, ..one })));
    for other in [
        Header { dst: [9; 6], ..one },
        Header { src: [9; 6], ..one },
        Header { kind: Kind::ProbeReply, ..one },
        Header { from: 4, ..one },
        Header { payload: 0, ..one },
        Header { cluster: 1, ..one },
        Header { epoch: 1, ..one },
    ] {
        assert!(!key(one).is(&key(other)), "{other:?}");
    }
    assert_eq!(HeaderKey::of(&[0; HEADER_BYTES - 1]), None);
}
