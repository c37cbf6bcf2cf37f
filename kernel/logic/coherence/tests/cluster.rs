//! Whole clusters of the production crate in one process: random accesses,
//! every message delayed and reordered at random, frames scarce. After every
//! step each readable copy must equal the last write.

use addr::{Access, Arrived, Frame, Gfn, NodeId, PageBytes};
use coherence::{Coherence, Env, Kind, Limits, Message, Output, Progress};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Entry, Format, FramePool, HostMemory, PageState};

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

struct Out {
    sent: Vec<(NodeId, Message, Option<Frame>)>,
    free: Vec<u64>,
}
impl Output for Out {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        self.sent.push((to, message, page));
    }
    fn free_frames(&self, node: NodeId) -> u64 {
        self.free[node.index()]
    }
    fn flush(&mut self) {}
}

struct Flight {
    from: usize,
    to: usize,
    message: Message,
    page: Option<(Frame, Box<PageBytes>)>,
}

struct Cluster {
    nodes: Vec<(Coherence, VecMemory)>,
    flying: Vec<Flight>,
    /// Each node's frame in which the next page lands.
    landing: Vec<Frame>,
    /// Frames delivered, whose release the sender has yet to hear of.
    releases: Vec<(usize, Frame)>,
    written: Vec<(Gfn, u64)>,
    pages: Vec<Gfn>,
    next_value: u64,
    /// The newest message mostly comes first, so that old ones come very late.
    newest_first: bool,
    /// What nodes know of each other's room; seldom refreshed where messages
    /// come late.
    rooms: Vec<u64>,
    calls: u64,
    /// Of a hundred accesses, how many write.
    writes: u64,
}

fn value_of(memory: &VecMemory, frame: Option<Frame>) -> u64 {
    frame.map_or(0, |f| memory.read_entry(f, 3))
}

impl Cluster {
    /// `frames` for pages at each node, besides what tables and reserve take.
    fn new(nodes: usize, frames: u64, pages: &[u64]) -> Cluster {
        let contributions = vec![1024; nodes];
        let layout = Layout::new(&contributions).unwrap();
        let limits =
            Limits { table_frames: 16, reserve: 12, open_max: 8, puts_max: 4, dones_max: 512 };
        let all = limits.table_frames + limits.reserve + frames;
        let make = |n: usize| {
            // One frame more is the link's, in which a page may land.
            let mut memory = VecMemory::new(all as usize + 2);
            let mut pool = FramePool::new();
            pool.add(Frame(1), Frame(all + 1));
            pool.know(Frame(all + 1), Frame(all + 2));
            let layout = layout.clone();
            let id = NodeId(n as u16);
            let c = Coherence::new(id, layout, limits, Format::NPT, pool, &mut memory);
            (c, memory)
        };
        Cluster {
            nodes: (0..nodes).map(make).collect(),
            landing: vec![Frame(all + 1); nodes],
            flying: vec![],
            releases: vec![],
            written: pages.iter().map(|&g| (Gfn(g), 0)).collect(),
            pages: pages.iter().map(|&g| Gfn(g)).collect(),
            next_value: 1,
            newest_first: false,
            rooms: vec![0; nodes],
            calls: 0,
            writes: 50,
        }
    }

    fn with<R>(
        &mut self,
        node: usize,
        f: impl FnOnce(&mut Coherence, &mut Env<'_, VecMemory, Out>) -> R,
    ) -> R {
        self.calls += 1;
        if !self.newest_first || self.calls.is_multiple_of(64) {
            self.rooms = self.nodes.iter().map(|(c, _)| c.room()).collect();
        }
        let mut out = Out { sent: vec![], free: self.rooms.clone() };
        let (coherence, memory) = &mut self.nodes[node];
        let result = f(coherence, &mut Env { memory, out: &mut out });
        for (to, message, page) in out.sent {
            let page = page.map(|frame| {
                let mut bytes = Box::new([0; 4096]);
                self.nodes[node].1.read(frame, 0, &mut bytes[..]);
                (frame, bytes)
            });
            self.flying.push(Flight { from: node, to: to.index(), message, page });
        }
        result
    }

    fn deliver(&mut self, at: usize) {
        let f = self.flying.swap_remove(at);
        let page = f.page.as_ref().map(|(_, bytes)| &**bytes);
        let mut landing = self.landing[f.to];
        let lands = f.message.gfn.0.is_multiple_of(2);
        self.with(f.to, |c, env| {
            let page = match page {
                Some(bytes) if lands => {
                    env.memory.write(landing, 0, bytes);
                    Some(Arrived::Landed(&mut landing))
                }
                page => page.map(Arrived::Bytes),
            };
            c.handle_arrived(env, NodeId(f.from as u16), f.message, page)
        })
        .unwrap_or_else(|v| panic!("{v:?}"));
        self.landing[f.to] = landing;
        if let Some((frame, _)) = f.page {
            self.releases.push((f.from, frame));
        }
    }

    /// One access by a node's vCPU; `true` if it was done.
    fn access(&mut self, node: usize, which: usize, access: Access, ahead: u16) -> bool {
        let gfn = self.pages[which];
        let progress = self
            .with(node, |c, env| c.access(env, gfn, access, ahead))
            .unwrap_or_else(|v| panic!("{v:?}"));
        if progress != Progress::Ready {
            return false;
        }
        let (coherence, memory) = &mut self.nodes[node];
        let frame = coherence.look(memory, gfn, access).expect("ready");
        assert_eq!(value_of(memory, frame), self.written[which].1, "{gfn:?} at {node}");
        if access == Access::Write {
            memory.write_entry(frame.expect("writable"), 3, self.next_value);
            self.written[which].1 = self.next_value;
            self.next_value += 1;
        }
        self.with(node, |c, env| c.release_held(env)).unwrap();
        true
    }

    fn check(&self) {
        for &(gfn, last) in &self.written {
            let mut masters = 0;
            let mut copies = 0;
            let mut exclusive = 0;
            for (n, (c, memory)) in self.nodes.iter().enumerate() {
                let entry = c.entry(memory, gfn);
                masters += usize::from(entry.state.is_master() && !entry.leaving);
                if let Some(frame) = c.look(memory, gfn, Access::Read) {
                    copies += 1;
                    exclusive += usize::from(entry.state == PageState::Exclusive);
                    assert_eq!(value_of(memory, frame), last, "stale {gfn:?} at {n}");
                }
            }
            assert!(masters <= 1, "{masters} masters of {gfn:?}");
            assert!(exclusive == 0 || copies == 1, "{gfn:?} exclusive among {copies} copies");
        }
    }

    /// Every frame is somewhere, and what is counted is there.
    fn account(&self) {
        for (n, (c, memory)) in self.nodes.iter().enumerate() {
            assert_eq!(c.me(), NodeId(n as u16));
            let entries = (0..c.layout().end().0).map(|g| c.entry(memory, Gfn(g)));
            let entries: Vec<_> = entries.filter(|e| e.state != PageState::Invalid).collect();
            let count =
                |what: &dyn Fn(&Entry) -> bool| entries.iter().filter(|&e| what(e)).count() as u64;
            assert_eq!(c.masters(), count(&|e| e.state.is_master()), "masters at {n}");
            assert_eq!(c.replicas(), count(&|e| e.state == PageState::Shared), "replicas at {n}");
            let held = count(&|e| e.frame.is_some());
            let (nested, directory) = c.table_frames();
            let used = held + nested + directory + c.frames_in_transactions();
            assert_eq!(c.free_frames() + used, c.total_frames(), "frames at {n}");
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        if !self.releases.is_empty() && rng.below(3) == 0 {
            let at = rng.below(self.releases.len() as u64) as usize;
            let (node, frame) = self.releases.swap_remove(at);
            self.nodes[node].0.released(frame);
        }
        if !self.flying.is_empty() && rng.below(4) != 0 {
            let newest = self.newest_first && rng.below(10) != 0;
            let len = self.flying.len();
            let at = if newest { len - 1 } else { rng.below(len as u64) as usize };
            self.deliver(at);
            return;
        }
        let node = rng.below(self.nodes.len() as u64) as usize;
        let which = rng.below(self.pages.len() as u64) as usize;
        let access = if rng.below(100) < self.writes { Access::Write } else { Access::Read };
        let ahead = if rng.below(4) == 0 { 3 } else { 0 };
        self.access(node, which, access, ahead);
    }

    fn drain(&mut self) {
        let mut steps = 0;
        loop {
            if self.flying.is_empty() && self.releases.is_empty() && steps > 0 {
                break;
            }
            if self.flying.is_empty() {
                for (node, frame) in core::mem::take(&mut self.releases) {
                    self.nodes[node].0.released(frame);
                }
            } else {
                self.deliver(0);
            }
            for node in 0..self.nodes.len() {
                self.with(node, |c, env| c.release_held(env)).unwrap();
                self.with(node, |c, env| c.balance(env)).unwrap();
            }
            steps += 1;
            assert!(steps < 100_000, "messages never end");
        }
    }

    /// Every access succeeds in the end, on every node.
    fn finish(&mut self) {
        self.drain();
        for node in 0..self.nodes.len() {
            for which in 0..self.pages.len() {
                for access in [Access::Read, Access::Write] {
                    let mut tries = 0;
                    while !self.access(node, which, access, 0) {
                        self.drain();
                        tries += 1;
                        assert!(tries < 1000, "starved at node {node} page {which}");
                    }
                }
            }
        }
        self.drain();
        self.check();
        self.account();
        for (n, (c, _)) in self.nodes.iter().enumerate() {
            assert!(c.is_quiet(), "node {n} is not quiet");
            assert_eq!((c.puts_open(), c.frames_in_transactions()), (0, 0), "node {n}");
            assert!(self.pages.iter().all(|&gfn| c.is_idle(gfn) && !c.is_open(gfn)));
        }
    }
}

fn run(seed: u64, nodes: usize, frames: u64, pages: &[u64], steps: usize) -> Cluster {
    drive(seed, Cluster::new(nodes, frames, pages), steps)
}

fn drive(seed: u64, mut cluster: Cluster, steps: usize) -> Cluster {
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for step in 0..steps {
        cluster.step(&mut rng);
        if step % 4 == 0 {
            cluster.check();
        }
        if step % 1000 == 999 {
            cluster.account();
        }
    }
    cluster.finish();
    cluster
}

/// A few pages, some neighbours, homes spread over the nodes.
fn spread(nodes: usize, each: u64) -> Vec<u64> {
    (0..nodes as u64).flat_map(|n| (0..each).map(move |i| n * 1024 + 100 + i)).collect()
}

#[test]
fn hot_pages_stay_coherent_under_any_order() {
    // An interpreter gets one seed of two nodes.
    let (seeds, steps) = if cfg!(miri) { (1..2, 60) } else { (0..60, 3000) };
    for seed in seeds {
        let nodes = 1 + (seed % 4) as usize;
        println!("seed {seed}");
        run(seed, nodes, 116, &spread(nodes, 2), steps);
    }
}

#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn scarce_frames_evict_and_lose_nothing() {
    let mut total = coherence::Counters::default();
    for seed in 0..40 {
        let nodes = 2 + (seed % 3) as usize;
        println!("seed {seed}");
        // More pages than one node holds, fewer than all do.
        let pages = spread(nodes, 90 / nodes as u64 * 2);
        let cluster = run(seed, nodes, 124, &pages, 4000);
        for (c, _) in &cluster.nodes {
            total.evicted += c.counters().evicted;
            total.evicted_zero += c.counters().evicted_zero;
            total.promoted += c.counters().promoted;
            total.dropped += c.counters().dropped;
            total.deferred += c.counters().deferred;
            total.prefetches += c.counters().prefetches;
        }
    }
    println!("{total:?}");
    for (what, count) in [
        ("evicted", total.evicted),
        ("promoted", total.promoted),
        ("dropped", total.dropped),
        ("prefetched", total.prefetches),
    ] {
        assert!(count > 0, "no page was {what}");
    }
}

/// Orders that only a lossy link makes: an eviction's request or answer comes
/// after the page has been granted, taken, moved back or kept.
#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn late_messages_break_nothing() {
    let mut total = coherence::Counters::default();
    for seed in 0..60 {
        let nodes = 2 + (seed % 3) as usize;
        println!("seed {seed}");
        let frames = 60;
        let pages = spread(nodes, frames);
        let mut cluster = Cluster::new(nodes, frames, &pages);
        cluster.newest_first = true;
        cluster.writes = [3, 30, 60][seed as usize / 2 % 3];
        let cluster = drive(seed, cluster, 3000);
        for (c, _) in &cluster.nodes {
            total.evicted_zero += c.counters().evicted_zero;
            total.refused += c.counters().refused;
            total.no_room += c.counters().no_room;
        }
    }
    println!("{total:?}");
    assert!(total.evicted_zero > 0, "no zero page was evicted");
    assert!(total.refused > 0, "no move was refused");
}

/// Only a home that lies could ask that; it must not panic an honest owner.
#[test]
fn a_page_asked_for_by_its_owner_itself_is_a_violation() {
    for kind in [Kind::ForwardShared, Kind::ForwardExclusive, Kind::PutTo] {
        // Page 0 of node 1's part, owned by node 0 with data in it.
        let mut cluster = Cluster::new(2, 60, &[1024 + 100]);
        while !cluster.access(0, 0, Access::Write, 0) {
            (0..cluster.flying.len()).rev().for_each(|at| cluster.deliver(at));
        }
        let forward = Message { txn: 1, ..Message::new(kind, Gfn(1024 + 100), NodeId(0)) };
        let answer = cluster.with(0, |c, env| {
            c.release_held(env).expect("nothing waits");
            c.handle(env, NodeId(1), forward, None)
        });
        assert!(answer.is_err_and(|v| v.why.contains("to itself")), "{kind:?}");
    }
}

/// What the engine around asks a node about: which pages are in doubt, who
/// waits, and where the frames are.
#[test]
fn what_is_under_way_shows() {
    let gfn = Gfn(1024 + 100);
    let mut cluster = Cluster::new(2, 60, &[gfn.0]);
    let ask = |cluster: &mut Cluster, node: usize| {
        cluster.with(node, |c, env| c.access(env, gfn, Access::Write, 0)).unwrap()
    };
    // (open, idle, quiet, keeps others waiting, frames in transactions)
    let doubt = |cluster: &Cluster, node: usize| {
        let c = &cluster.nodes[node].0;
        assert!(c.is_idle(gfn.offset_by(1)) && !c.is_open(gfn.offset_by(1)));
        let open = (c.is_open(gfn), c.is_idle(gfn), c.is_quiet());
        (open, c.keeps_others_waiting(), c.frames_in_transactions())
    };
    const NOTHING: (bool, bool, bool) = (false, true, true);
    const OPEN: (bool, bool, bool) = (true, false, false);
    const WAITS: (bool, bool, bool) = (false, false, false);
    assert_eq!(
        (doubt(&cluster, 0), doubt(&cluster, 1)),
        ((NOTHING, false, 0), (NOTHING, false, 0))
    );
    assert_eq!(cluster.nodes[0].0.home(gfn), Some(NodeId(1)));
    assert_eq!(cluster.nodes[0].0.home(Gfn(2048)), None);

    // A first touch, answered with a run of zero pages.
    assert_eq!(ask(&mut cluster, 0), Progress::Pending);
    assert_eq!((doubt(&cluster, 0), doubt(&cluster, 1)), ((OPEN, false, 1), (NOTHING, false, 0)));
    (0..2).for_each(|_| cluster.deliver(0));
    assert_eq!(ask(&mut cluster, 0), Progress::Ready);
    assert_eq!(doubt(&cluster, 0), (NOTHING, false, 0));

    // The home wants it while its owner still needs it.
    assert_eq!(ask(&mut cluster, 1), Progress::Pending);
    assert_eq!(doubt(&cluster, 1), (OPEN, false, 1));
    cluster.deliver(0);
    assert_eq!((doubt(&cluster, 0), doubt(&cluster, 1)), ((WAITS, true, 0), (OPEN, false, 1)));
    cluster.with(0, |c, env| c.release_held(env)).unwrap();
    assert_eq!(doubt(&cluster, 0), (NOTHING, false, 1), "its frame is on the way");
    cluster.deliver(0);
    let (node, frame) = cluster.releases.pop().unwrap();
    cluster.nodes[node].0.released(frame);
    assert_eq!(
        (doubt(&cluster, 0), doubt(&cluster, 1)),
        ((NOTHING, false, 0), (NOTHING, false, 0))
    );

    // And is rid of it again, once it may go.
    let (c, memory) = &mut cluster.nodes[1];
    let frame = c.look(memory, gfn, Access::Write).unwrap().unwrap();
    memory.write_entry(frame, 3, 7);
    let evict = |cluster: &mut Cluster| cluster.with(1, |c, env| c.evict(env, gfn, true)).unwrap();
    assert!(!evict(&mut cluster), "the vCPU needs it");
    assert_eq!((cluster.nodes[1].0.puts_open(), cluster.nodes[1].0.take_started_put()), (0, None));
    cluster.with(1, |c, env| c.release_held(env)).unwrap();
    assert!(evict(&mut cluster));
    assert_eq!((doubt(&cluster, 0), doubt(&cluster, 1)), ((NOTHING, false, 0), (OPEN, false, 1)));
    let c = &mut cluster.nodes[1].0;
    assert_eq!((c.puts_open(), c.take_started_put()), (1, Some(gfn)));
    assert_eq!(c.take_started_put(), None);
    (0..2).for_each(|_| cluster.deliver(0));
    assert_eq!(cluster.nodes[1].0.puts_open(), 0);
    assert_eq!(doubt(&cluster, 1), (NOTHING, false, 1), "its frame is on the way");
    let counters = |node: usize| *cluster.nodes[node].0.counters();
    assert_eq!((counters(1).evicted, counters(1).pages_out, counters(0).adopted), (1, 0, 1));
    assert_eq!((counters(0).deferred, counters(0).pages_out, counters(1).pages_in), (1, 1, 1));
    let (c, memory) = &cluster.nodes[0];
    assert_eq!(value_of(memory, c.look(memory, gfn, Access::Write).unwrap()), 7);
}

/// A home keeps room for as many requests as every node may have open.
#[test]
fn so_many_evictions_and_no_more_are_open() {
    let pages: Vec<u64> = (0..5).map(|i| 1024 + 100 * i).collect();
    let mut cluster = Cluster::new(2, 60, &pages);
    for which in 0..pages.len() {
        while !cluster.access(0, which, Access::Write, 0) {
            (0..cluster.flying.len()).rev().for_each(|at| cluster.deliver(at));
        }
    }
    for (i, &gfn) in pages.iter().enumerate() {
        let goes = cluster.with(0, |c, env| c.evict(env, Gfn(gfn), true)).unwrap();
        assert_eq!((goes, cluster.nodes[0].0.puts_open()), (i < 4, (i + 1).min(4)));
    }
    cluster.drain();
    assert_eq!(cluster.nodes[0].0.counters().evicted, 4);
    cluster.check();
}

/// What only a home that lies, or one that has lost count, could send.
#[test]
fn answers_that_cannot_be_are_violations() {
    let gfn = Gfn(1024 + 100);
    let grant =
        |count, lead| Message { count, lead, ..Message::new(Kind::ZeroGrant, gfn, NodeId(0)) };
    let plain = |kind| Message::new(kind, gfn, NodeId(0));
    let asked = || {
        let mut cluster = Cluster::new(2, 60, &[gfn.0]);
        assert!(!cluster.access(0, 0, Access::Write, 0));
        cluster
    };
    let tell = |cluster: &mut Cluster, node: usize, from: u16, message| {
        cluster.with(node, |c, env| c.handle(env, NodeId(from), message, None)).map_err(|v| v.why)
    };
    for bad in [grant(0, 0), grant(513, 0), grant(3, 3), grant(2, 101)] {
        assert!(tell(&mut asked(), 0, 1, bad).is_err_and(|why| why.contains("cover")), "{bad:?}");
    }
    assert_eq!(tell(&mut asked(), 0, 1, grant(101, 100)), Ok(()));
    // An acknowledgement that the answer did not announce.
    let mut cluster = asked();
    assert_eq!(tell(&mut cluster, 0, 1, plain(Kind::InvalidateAck)), Ok(()));
    assert!(
        tell(&mut cluster, 0, 1, plain(Kind::Grant)).is_err_and(|why| why.contains("announced"))
    );
    // An answer to nobody, and a grant without a copy or a run to come.
    assert!(tell(&mut Cluster::new(2, 60, &[gfn.0]), 0, 1, plain(Kind::Grant)).is_err());
    // At home: a run longer than there can be, the end of another transaction.
    let get = |count| Message { count, ..plain(Kind::GetShared) };
    let home = || Cluster::new(2, 60, &[gfn.0]);
    assert_eq!(tell(&mut home(), 1, 0, get(512)), Ok(()));
    assert!(tell(&mut home(), 1, 0, get(513)).is_err_and(|why| why.contains("longer")));
    let mut cluster = home();
    while !cluster.access(1, 0, Access::Write, 0) {}
    tell(&mut cluster, 1, 0, Message { count: 1, ..plain(Kind::GetShared) }).unwrap();
    let forward = cluster.flying.last().map_or(0, |f| f.message.txn);
    let done = |txn| Message { txn, ..plain(Kind::Done) };
    assert!(tell(&mut cluster, 1, 0, done(forward + 1)).is_err_and(|why| why.contains("no such")));
}

/// A coarse sharer set cannot tell whether the replica of a node that writes is
/// good, so the node gets the page anew.
#[test]
fn a_replica_that_nobody_vouches_for_is_replaced() {
    let gfn = Gfn(1024 + 100);
    let mut cluster = Cluster::new(2, 60, &[gfn.0]);
    while !cluster.access(1, 0, Access::Write, 0) {}
    while !cluster.access(0, 0, Access::Read, 0) {
        cluster.drain();
    }
    assert!(!cluster.access(0, 0, Access::Write, 0));
    let data = Message {
        kind: Kind::Data,
        count: 0,
        exclusive: true,
        ..cluster.flying.pop().expect("it asks for the right").message
    };
    let bytes = [7; 4096];
    cluster.with(0, |c, env| c.handle(env, NodeId(1), data, Some(&bytes))).unwrap();
    let (c, memory) = &cluster.nodes[0];
    let frame = c.look(memory, gfn, Access::Write).expect("it may write");
    assert_eq!(value_of(memory, frame), u64::from_le_bytes([7; 8]));
    assert_eq!((c.masters(), c.replicas(), c.frames_in_transactions()), (1, 0, 0));
}

/// A sharer may have dropped its replica without a word. The master must not
/// move past those that have theirs.
#[test]
fn the_next_sharer_is_asked_when_one_has_dropped_its_replica() {
    let gfn = Gfn(3 * 1024 + 100);
    let mut cluster = Cluster::new(4, 60, &[gfn.0]);
    for (node, access) in [(0, Access::Write), (1, Access::Read), (2, Access::Read)] {
        while !cluster.access(node, 0, access, 0) {
            cluster.drain();
        }
    }
    for node in [1, 0] {
        assert!(cluster.with(node, |c, env| c.evict(env, gfn, true)).unwrap());
        cluster.drain();
    }
    let state = |node: usize| cluster.nodes[node].0.entry(&cluster.nodes[node].1, gfn).state;
    assert_eq!(
        [0, 1, 2, 3].map(state),
        [PageState::Invalid, PageState::Invalid, PageState::Owned, PageState::Invalid]
    );
    assert_eq!(cluster.nodes[0].0.counters().promoted, 1);
    cluster.check();
}
