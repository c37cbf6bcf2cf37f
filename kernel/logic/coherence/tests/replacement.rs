//! Which pages stay when a node runs short: reference strings over a node that
//! is too small for them and another with room, compared with exact LRU and
//! with the optimum (Belady's MIN).

use addr::{Access, Frame, Gfn, NodeId, PageBytes};
use coherence::{Coherence, Env, Limits, Message, Output, Progress};
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool, HostMemory};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Frames for pages on the small node.
const FRAMES: u64 = 1536;
const PAGES: u64 = 8192;

struct Rng(u64);
impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n
    }
}

type Sent = (usize, usize, Message, Option<(Frame, Box<PageBytes>)>);

struct Out {
    sent: Vec<(NodeId, Message, Option<Frame>)>,
    rooms: [u64; 2],
}
impl Output for Out {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        self.sent.push((to, message, page));
    }
    fn free_frames(&self, node: NodeId) -> u64 {
        self.rooms[node.index()]
    }
    fn flush(&mut self) {}
}

/// A small node that runs programs and a large one; every message is
/// delivered at once.
struct Pair {
    nodes: [(Coherence, VecMemory); 2],
    format: Format,
    flying: VecDeque<Sent>,
}

impl Pair {
    /// `others`: frames of the large node.
    fn new(format: Format, others: u64) -> Pair {
        let layout = Layout::new(&[PAGES, PAGES]).unwrap();
        let node = |id: u16, frames: u64| {
            let limits = Limits {
                table_frames: 48,
                unpromised: 48,
                reserve: 64,
                open_max: 16,
                puts_max: 16,
                asks_max: 4,
                dones_max: 64,
            };
            let all = limits.table_frames + limits.reserve / 2 + frames;
            let mut memory = VecMemory::new(all as usize + 1);
            let mut pool = FramePool::new();
            pool.add(Frame(1), Frame(all + 1));
            let c = Coherence::new(NodeId(id), layout.clone(), limits, format, pool, &mut memory);
            (c, memory)
        };
        Pair { nodes: [node(0, FRAMES), node(1, others)], format, flying: VecDeque::new() }
    }

    fn with<R>(
        &mut self,
        node: usize,
        f: impl FnOnce(&mut Coherence, &mut Env<'_, VecMemory, Out>) -> R,
    ) -> R {
        let rooms = [self.nodes[0].0.room(), self.nodes[1].0.room()];
        let mut out = Out { sent: vec![], rooms };
        let (coherence, memory) = &mut self.nodes[node];
        let result = f(coherence, &mut Env { memory, out: &mut out });
        for (to, message, page) in out.sent {
            let page = page.map(|frame| {
                let mut bytes = Box::new([0; 4096]);
                self.nodes[node].1.read(frame, 0, &mut bytes[..]);
                (frame, bytes)
            });
            self.flying.push_back((node, to.index(), message, page));
        }
        result
    }

    fn deliver(&mut self) {
        while let Some((from, to, message, page)) = self.flying.pop_front() {
            let bytes = page.as_ref().map(|(_, b)| &**b);
            self.with(to, |c, env| c.handle(env, NodeId(from as u16), message, bytes)).unwrap();
            if let Some((frame, _)) = page {
                self.nodes[from].0.released(frame);
            }
        }
    }

    /// An access of the small node's vCPU, as the hardware and the engine see
    /// it; `true` if the page was there.
    fn touch(&mut self, gfn: Gfn, access: Access) -> bool {
        let (mut hit, mut tries) = (true, 0);
        while self.with(0, |c, env| c.access(env, gfn, access, 0)).unwrap() != Progress::Ready {
            hit = false;
            tries += 1;
            assert!(tries < 10_000, "starved of a frame for {gfn:?}");
            self.deliver();
            self.with(0, |c, env| c.balance(env)).unwrap();
        }
        self.mark_accessed(gfn);
        if !hit {
            self.with(0, |c, env| c.release_held(env)).unwrap();
            self.with(0, |c, env| c.balance(env)).unwrap();
            self.deliver();
        }
        hit
    }

    fn mark_accessed(&mut self, gfn: Gfn) {
        let (coherence, memory) = &mut self.nodes[0];
        let mut table = coherence.root();
        for level in (1..=4).rev() {
            let index = (gfn.0 >> (9 * (level - 1)) & 511) as usize;
            let bits = memory.read_entry(table, index);
            match self.format.decode_table(bits) {
                Some(next) if level > 1 => table = next,
                _ => return memory.write_entry(table, index, bits | self.format.accessed),
            }
        }
    }

    /// Writes every page once, as a program that fills its memory does.
    fn fill(&mut self, string: &[u64]) {
        let pages: BTreeSet<u64> = string.iter().copied().collect();
        for page in pages {
            self.touch(Gfn(page), Access::Write);
            let frame = self.nodes[0].0.look(&self.nodes[0].1, Gfn(page), Access::Write);
            let frame = frame.expect("just written").expect("has a frame");
            self.nodes[0].1.write_entry(frame, 0, page + 1);
        }
    }

    /// The share of `string` that misses.
    fn misses(&mut self, string: &[u64]) -> f64 {
        let mut missed = 0;
        for &page in string {
            missed += u64::from(!self.touch(Gfn(page), Access::Write));
            let frame = self.nodes[0].0.look(&self.nodes[0].1, Gfn(page), Access::Read);
            let frame = frame.expect("just touched").expect("has a frame");
            assert_eq!(self.nodes[0].1.read_entry(frame, 0), page + 1, "another page's content");
        }
        missed as f64 / string.len() as f64
    }
}

/// What exact LRU misses, after the same fill.
fn lru(fill: &[u64], string: &[u64], frames: usize) -> f64 {
    let (mut last, mut order) = (HashMap::new(), BTreeSet::new());
    let mut missed = 0u64;
    for (time, &page) in fill.iter().chain(string).enumerate() {
        match last.insert(page, time) {
            Some(before) if order.remove(&(before, page)) => {}
            _ => missed += u64::from(time >= fill.len()),
        }
        order.insert((time, page));
        if order.len() > frames {
            order.pop_first();
        }
    }
    missed as f64 / string.len() as f64
}

/// What the optimum misses, which knows the future.
fn optimum(string: &[u64], frames: usize) -> f64 {
    let mut next = vec![usize::MAX; string.len()];
    let mut seen = HashMap::new();
    for (time, &page) in string.iter().enumerate().rev() {
        next[time] = seen.insert(page, time).unwrap_or(usize::MAX);
    }
    let (mut held, mut when) = (BTreeSet::new(), HashMap::new());
    let mut missed = 0u64;
    for (time, &page) in string.iter().enumerate() {
        match when.insert(page, next[time]) {
            Some(at) if held.remove(&(at, page)) => {}
            _ => missed += 1,
        }
        held.insert((next[time], page));
        if held.len() > frames {
            held.pop_last();
        }
    }
    missed as f64 / string.len() as f64
}

fn sweep(pages: u64, times: u64) -> Vec<u64> {
    (0..times).flat_map(|_| 0..pages).collect()
}

/// Pages by a Zipf law (exponent 0.9), scattered over the memory.
fn zipf(pages: u64, length: usize, rng: &mut Rng) -> Vec<u64> {
    let mut sum = 0.0;
    let bounds: Vec<f64> = (1..=pages)
        .map(|rank| {
            sum += 1.0 / (rank as f64).powf(0.9);
            sum
        })
        .collect();
    let draw = |_| {
        let point = rng.below(1 << 40) as f64 / (1u64 << 40) as f64 * sum;
        let rank = bounds.partition_point(|&b| b < point) as u64;
        rank.min(pages - 1) * 2_654_435_761 % pages
    };
    (0..length).map(draw).collect()
}

/// A working set that is used at random and becomes another one.
fn shift(length: usize, rng: &mut Rng) -> Vec<u64> {
    let set = FRAMES * 3 / 4;
    (0..length as u64)
        .map(|i| {
            let phase = i * 4 / length as u64;
            phase * set + rng.below(set)
        })
        .collect()
}

/// A hot set of half the frames beside a sweep that is far too large.
fn mixture(length: usize, rng: &mut Rng) -> Vec<u64> {
    let (hot, cold) = (FRAMES / 2, FRAMES * 2);
    let draw = |i| if i % 2 == 0 { rng.below(hot) } else { hot + i / 2 % cold };
    (0..length as u64).map(draw).collect()
}

struct Case {
    name: &'static str,
    string: Vec<u64>,
    /// Most misses with accessed flags and without, as a share of what LRU
    /// misses.
    most: [f64; 2],
}

fn cases() -> Vec<Case> {
    let rng = &mut Rng(0x1234_5678_9abc_def1);
    let case = |name, string, most| Case { name, string, most };
    vec![
        case("sweep of 1.1 x memory", sweep(FRAMES * 11 / 10, 12), [0.20, 0.20]),
        case("sweep of 1.5 x memory", sweep(FRAMES * 3 / 2, 12), [0.43, 0.48]),
        case("sweep of 2.3 x memory", sweep(FRAMES * 23 / 10, 12), [0.64, 0.64]),
        case("sweep of 4 x memory", sweep(FRAMES * 4, 8), [0.82, 0.82]),
        case("zipf over 3 x memory", zipf(FRAMES * 3, 60_000, rng), [1.20, 1.35]),
        case("working set of 0.75 x, shifting", shift(60_000, rng), [1.45, 1.60]),
        case("hot half beside a sweep", mixture(60_000, rng), [0.66, 0.66]),
    ]
}

#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn what_stays_is_what_is_used_again() {
    println!("{:<34} {:>6} {:>6} {:>6} {:>9}", "misses", "LRU", "MIN", "here", "no flags");
    let mut failed = false;
    for case in cases() {
        let ours = [Format::NPT, Format::EPT].map(|format| {
            let mut pair = Pair::new(format, 2 * PAGES);
            pair.fill(&case.string);
            pair.misses(&case.string)
        });
        let fill: BTreeSet<u64> = case.string.iter().copied().collect();
        let fill: Vec<u64> = fill.into_iter().collect();
        let lru = lru(&fill, &case.string, FRAMES as usize);
        let min = optimum(&case.string, FRAMES as usize);
        let percent = [lru, min, ours[0], ours[1]].map(|m| m * 100.0);
        println!(
            "{:<34} {:>5.1}% {:>5.1}% {:>5.1}% {:>8.1}%",
            case.name, percent[0], percent[1], percent[2], percent[3]
        );
        failed |= ours[0] > case.most[0] * lru || ours[1] > case.most[1] * lru;
    }
    assert!(!failed, "more misses than promised");
}

/// No node has room for another's masters, so only replicas can leave, and
/// they may be anywhere among what is held.
#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn replicas_are_found_where_no_master_can_leave() {
    for format in [Format::NPT, Format::EPT] {
        // The other node holds as many pages as this one, and no more.
        let mut pair = Pair::new(format, FRAMES);
        let pages = FRAMES * 2 - 200;
        pair.fill(&sweep(pages, 1));
        let mut rng = Rng(0x1234_5678_9abc_def1);
        for _ in 0..20_000 {
            let page = rng.below(pages);
            pair.touch(Gfn(page), Access::Read);
        }
        (0..3 * pages).for_each(|page| _ = pair.touch(Gfn(page % pages), Access::Read));
    }
}

/// A node that has taken a page for itself makes room for that page, and is then
/// no more in need of frames than one that never has: what others move to it
/// stays there.
#[test]
#[cfg_attr(miri, ignore = "frames run short only after long runs")]
fn two_full_nodes_do_not_pass_each_other_their_pages() {
    let mut pair = Pair::new(Format::NPT, FRAMES);
    while pair.with(1, |c, env| c.access(env, Gfn(0), Access::Write, 0)).unwrap() != Progress::Ready
    {
        pair.deliver();
    }
    pair.with(1, |c, env| c.release_held(env)).unwrap();
    let pages = FRAMES * 2 - 20;
    pair.fill(&sweep(pages, 1));
    for page in sweep(pages, 2) {
        pair.touch(Gfn(page), Access::Read);
        pair.with(1, |c, env| c.balance(env)).unwrap();
        pair.deliver();
    }
    let [here, there] = [0, 1].map(|n| pair.nodes[n].0.counters());
    assert!(here.evicted > pages / 4 && here.dropped > pages / 2, "frames did not run short");
    assert!(there.evicted < 10, "{} pages were sent back", there.evicted);
}
