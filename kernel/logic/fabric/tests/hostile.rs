//! Frames that no honest peer sends: counted, never a panic, never believed.

mod common;
use common::{FAIR, Inbox, MS, Rng, STORM, Sim, Weather, config};
use fabric::{Channel, Config, Drop, Fabric};
use wire::{DataWriter, Header, Kind, Link, Message};

#[test]
#[cfg_attr(miri, ignore = "needs many messages to meet every reason")]
fn random_bytes_and_flipped_bits() {
    let mut sim = Sim::cluster(1, FAIR, 3, 1500);
    let mut rng = Rng(5);
    let mut flips = Rng(6);
    sim.weather = Weather { jitter_ns: 50_000, ..FAIR };
    sim.censor = Some(Box::new(move |_, bytes| {
        if flips.chance(300) {
            let bit = flips.below(128.min(bytes.len() as u64) * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if flips.chance(100) {
            bytes.truncate(flips.below(bytes.len() as u64) as usize);
        }
        true
    }));
    sim.watch = false;
    for id in 0..600 {
        let channel = [Channel::Request, Channel::Forward, Channel::Response][id % 3];
        let to = addr::NodeId(1 + (id % 2) as u16);
        sim.send(0, to, channel, id as u64, id % 4 == 0).unwrap();
        for _ in 0..rng.below(30) {
            sim.step();
        }
        let mut noise = vec![0; rng.below(300) as usize];
        noise.iter_mut().for_each(|b| *b = rng.next() as u8);
        if noise.len() >= 16 && rng.chance(500) {
            noise[12..16].copy_from_slice(&[0x88, 0xB5, 1, rng.below(14) as u8]);
        }
        let now = sim.now;
        let node = &mut sim.nodes[0];
        node.fabric.handle_frame(now, &noise, &mut node.inbox);
    }
    sim.until(20_000 * MS, |s| {
        s.nodes[1].inbox.seen.len() + s.nodes[2].inbox.seen.len() == 600
            && s.nodes[0].lent.is_empty()
    });
    let count = |d| sim.nodes.iter().map(|n| n.fabric.counters().dropped(d)).sum::<u64>();
    for reason in [Drop::Foreign, Drop::Version, Drop::Short, Drop::Kind, Drop::Check] {
        assert!(count(reason) > 0, "{reason:?}");
    }
}

/// Well-formed frames with random content from a member's address.
#[test]
fn a_lying_peer_breaks_nothing() {
    let mut rng = Rng(9);
    for round in 0..if cfg!(miri) { 1 } else { 20 } {
        let mut sim = Sim::cluster(100 + round, STORM, 2, if round % 2 == 0 { 1500 } else { 9000 });
        let (mut inbox, now) = (Swallow, sim.now);
        for id in 0..50 {
            sim.send(0, addr::NodeId(1), Channel::Response, id, id % 2 == 0).unwrap();
        }
        let epoch = sim.nodes[0].fabric.membership().unwrap().epoch;
        for _ in 0..if cfg!(miri) { 30 } else { 500 } {
            let frame = lie(&mut rng, &sim.nodes[0].config, &sim.nodes[1].config, epoch);
            let victim = &mut sim.nodes[0].fabric;
            victim.handle_frame(now, &frame, &mut inbox);
            while victim.poll_transmit(now, &mut [0; 512]).is_some() {}
        }
        let victim = &mut sim.nodes[0].fabric;
        assert!(victim.counters().messages_in.iter().sum::<u64>() > 0);
        // After the liar is lost everything it held comes back.
        let mut now = now;
        while victim.is_alive(addr::NodeId(1)) {
            now += 50 * MS;
            victim.handle_timeout(now);
        }
        let released = std::iter::from_fn(|| victim.poll_released()).count();
        assert_eq!(released, 25);
    }
}

struct Swallow;
impl fabric::Sink for Swallow {
    fn deliver(&mut self, _: addr::NodeId, _: Channel, _: &[u8; 32], _: Option<addr::Arrived<'_>>) {
    }
}

fn lie(rng: &mut Rng, me: &Config, liar: &Config, epoch: u64) -> Vec<u8> {
    let small = |rng: &mut Rng| if rng.chance(900) { rng.below(70) } else { rng.next() };
    let mut buf = vec![0; 9100];
    let mut link = Link::default();
    for c in 0..3 {
        link.awaited[c] = small(rng) as u32;
        link.window[c] = small(rng) as u8;
        link.received[c] = rng.next() & rng.next();
    }
    let parts = rng.below(5) as u8;
    let payload = match (parts, rng.below(4)) {
        (0, _) => 0,
        (_, 0) => 1384,
        (_, 1) => 1328,
        (_, 2) => 4096,
        _ => rng.below(4096) as u16 + 1,
    };
    let header = Header {
        dst: me.mac,
        src: liar.mac,
        kind: Kind::Data,
        from: 1,
        payload,
        cluster: me.cluster,
        epoch,
        free_frames: 0,
        masters: 0,
    };
    let count = if parts == 0 { 1 + rng.below(8) } else { 1 };
    let mut writer = DataWriter::new(&mut buf);
    for _ in 0..count {
        let channel =
            [Channel::Request, Channel::Forward, Channel::Response][rng.below(3) as usize];
        let part = if parts == 0 { 0 } else { rng.below(u64::from(parts)) as u8 };
        let sequence = small(rng) as u32;
        writer.push(&Message { channel, sequence, part, parts, body: &[7; 32] });
    }
    let len = writer.finish(&header, &link);
    buf.truncate(len + usize::from(payload));
    buf
}

#[test]
fn frames_of_another_epoch_are_stale() {
    let mut sim = Sim::cluster(3, FAIR, 2, 9000);
    let mut rng = Rng(1);
    let (mut inbox, now) = (Inbox::default(), sim.now);
    let frame = lie(&mut rng, &sim.nodes[0].config, &sim.nodes[1].config, 1234);
    sim.nodes[0].fabric.handle_frame(now, &frame, &mut inbox);
    assert_eq!(sim.nodes[0].fabric.counters().dropped(Drop::Stale), 1);
    // From a stranger's address in a member's name.
    let epoch = sim.nodes[0].fabric.membership().unwrap().epoch;
    let frame = lie(&mut rng, &sim.nodes[0].config, &config(9, 2), epoch);
    sim.nodes[0].fabric.handle_frame(now, &frame, &mut inbox);
    assert_eq!(sim.nodes[0].fabric.counters().dropped(Drop::WrongSource), 1);
}

#[test]
fn a_flood_of_strangers_is_bounded() {
    let mut fabric = Fabric::new(config(0, 3), 0);
    let mut other = 1;
    for now in 0..if cfg!(miri) { 300 } else { 20_000u64 } {
        other += 1;
        let mut stranger = Fabric::new(Config { mac: common::mac(other), ..config(1, 3) }, 0);
        let mut header = [0; 256];
        stranger.handle_timeout(100 * MS);
        let len = stranger.poll_transmit(100 * MS, &mut header).unwrap().header_len;
        fabric.handle_frame(now, &header[..len], &mut Swallow);
    }
    let events = std::iter::from_fn(|| fabric.poll_event()).count();
    assert!(events < 200, "{events}");
}

#[test]
fn a_member_believes_only_its_own_epoch_that_it_is_fenced() {
    let mut sim = Sim::cluster(4, FAIR, 2, 9000);
    let (now, me) = (sim.now, sim.nodes[0].config);
    let epoch = sim.nodes[0].fabric.membership().unwrap().epoch;
    let fenced = wire::Refuse { incarnation: me.incarnation, reason: 6, detail: 0 };
    let mut told = |epoch| {
        let header = Header {
            dst: me.mac,
            src: sim.nodes[1].config.mac,
            kind: Kind::Refuse,
            from: 1,
            payload: 0,
            cluster: me.cluster,
            epoch,
            free_frames: 0,
            masters: 0,
        };
        let mut frame = [0; 128];
        let len = fenced.emit(&header, &mut frame);
        sim.nodes[0].fabric.handle_frame(now, &frame[..len], &mut Swallow);
        sim.nodes[0].fabric.poll_event()
    };
    assert_eq!(told(epoch ^ 1), None);
    assert!(matches!(told(epoch), Some(fabric::Event::Refused { .. })));
}
