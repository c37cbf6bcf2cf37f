//! The world around the nodes: virtual time, the link, pauses, a death.

use crate::check;
use crate::failure::{Class, Failure};
use crate::host::{Host, Surroundings};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::scenario::{MS, Scenario, US};
use crate::trace::Trace;
use addr::{Gfn, RUN_PAGES};
use coherence::Limits;
use fabric::{Config, Counters, Kind};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest time to form a cluster.
const FORM_NS: u64 = 60_000 * MS;
/// Longest time until all is quiet after the last instruction.
const QUIET_NS: u64 = 20_000 * MS;
/// Steps between two looks at everything.
const LOOK_EVERY: u64 = 512;

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Happening {
    /// The NIC of a host sends its next frame.
    Sends(usize),
    /// A frame comes to a host's NIC.
    Arrives(usize, Vec<u8>),
    /// A host stands still for a while.
    Pauses(usize),
    /// A host dies.
    Dies(usize),
}

/// What a run that held came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Virtual time from boot to the end.
    pub virtual_ns: u64,
    /// Turns of main loops.
    pub steps: u64,
    /// Writes by all programs.
    pub writes: u64,
    /// Frames that found a NIC's ring full.
    pub overflows: u64,
    /// Longest wait of an instruction.
    pub slowest_ns: u64,
    /// All nodes' coherence counters that tell what the run has reached.
    pub evicted: u64,
    /// Evictions of zero pages.
    pub evicted_zero: u64,
    /// Ownership passed to a sharer.
    pub promoted: u64,
    /// Moves refused for want of frames.
    pub refused: u64,
    /// Evictions that found no room.
    pub no_room: u64,
    /// Messages put off.
    pub deferred: u64,
    /// Pages fetched ahead.
    pub prefetches: u64,
    /// Whether a node died and was missed.
    pub killed: bool,
}

/// A cluster and everything around it.
pub struct World {
    scenario: Scenario,
    rng: Rng,
    now: u64,
    hosts: Vec<Host>,
    happenings: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    number: u64,
    steps: u64,
    overflows: u64,
    fair: bool,
    oracle: Oracle,
    /// What happened to the pages.
    pub trace: Trace,
    died: Option<(usize, u64)>,
}

fn mac(index: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, index as u8]
}

impl World {
    /// The cluster of a scenario, switched on.
    #[must_use]
    pub fn new(scenario: Scenario, tracing: bool) -> World {
        let mut rng = Rng::new(scenario.seed);
        let now = 1_000 * MS;
        // The fabric tells memory in runs; a run more than is lent as guest
        // memory pays for tables and reserve.
        let told = |n: usize| (scenario.runs[n] + 1) * RUN_PAGES;
        let total = (0..usize::from(scenario.nodes)).map(told).sum();
        let hosts = (0..usize::from(scenario.nodes)).map(|n| {
            let limits = Limits::new(told(n), total, true);
            let needed = limits.contribution(told(n)) + limits.table_frames + limits.reserve;
            let mut config = Config::new(mac(n), 0x51, 7, rng.number() | 1, scenario.nodes);
            config.mtu = scenario.mtu;
            config.pages = told(n);
            Host::new(n, config, needed + scenario.spare[n], now)
        });
        let hosts = hosts.collect();
        let mut world = World {
            rng,
            now,
            hosts,
            happenings: BinaryHeap::new(),
            number: 0,
            steps: 0,
            overflows: 0,
            fair: false,
            oracle: Oracle::default(),
            trace: Trace::new(tracing),
            died: None,
            scenario,
        };
        for n in 0..world.hosts.len() {
            world.hosts[n].free_at += world.rng.below(50 * MS);
            world.plan_pause(n);
        }
        world
    }

    fn happens(&mut self, at: u64, what: Happening) {
        self.number += 1;
        self.happenings.push(Reverse((at, self.number, what)));
    }

    fn plan_pause(&mut self, host: usize) {
        let every = self.scenario.weather.pause_every_ns;
        if every > 0 {
            let at = self.now + self.rng.below(2 * every);
            self.happens(at, Happening::Pauses(host));
        }
    }

    /// Runs from power-on to quiet.
    ///
    /// # Errors
    /// The first failure.
    pub fn run(&mut self) -> Result<Summary, Failure> {
        self.until(FORM_NS, "the cluster does not form", |w| {
            w.hosts.iter().all(|h| h.id().is_some())
        })?;
        if let Some((after, host)) = self.scenario.kill {
            self.happens(self.now + after, Happening::Dies(host));
        }
        while !self.hosts.iter().all(|h| h.is_done() || !h.alive) && self.died.is_none() {
            self.next()?;
        }
        if self.scenario.kill.is_some() {
            self.miss_the_dead()?;
        } else {
            self.calm()?;
        }
        Ok(self.summary())
    }

    /// Goes on until `done`.
    fn until(
        &mut self,
        patience_ns: u64,
        what: &str,
        done: impl Fn(&World) -> bool,
    ) -> Result<(), Failure> {
        let end = self.now + patience_ns;
        while !done(self) {
            if self.now > end {
                return Err(Failure::new(Class::Liveness, what));
            }
            self.next()?;
        }
        Ok(())
    }

    /// After a death: every survivor reports it in time.
    fn miss_the_dead(&mut self) -> Result<(), Failure> {
        self.until(QUIET_NS, "nobody dies", |w| w.died.is_some())?;
        let (dead, at) = self.died.expect("it died");
        let id = self.hosts[dead].id().expect("it had formed");
        let weather = self.scenario.weather;
        // What it had sent last may be on its way for as long as a stray frame.
        // A survivor that was away itself for a heartbeat (it looks at its timers
        // every half one) begins to count anew, four times at most.
        let config = Config::new(mac(0), 0, 0, 1, 2);
        let excuses = if weather.pause_ns >= config.heartbeat_ns / 2 { 4 } else { 0 };
        let bound = at + config.dead_after_ns * (1 + excuses) + 60 * MS + 2 * weather.pause_ns;
        let missed = |h: &Host| h.lost.iter().any(|&(n, _)| n == id);
        while !self.hosts.iter().all(|h| !h.alive || missed(h)) {
            if self.now > bound {
                let what = format!("the death of host {dead} is not noticed");
                return Err(Failure::new(Class::Liveness, what));
            }
            self.next()?;
        }
        let wrongly = self.hosts.iter().find(|h| h.lost.iter().any(|&(n, _)| n != id));
        match wrongly {
            Some(h) => {
                let what = format!("host {} misses a peer that is alive", h.index);
                Err(Failure::new(Class::Correctness, what))
            }
            None => self.look_at_all(),
        }
    }

    /// After the last instruction: all transactions end, and all is as it
    /// must be.
    fn calm(&mut self) -> Result<(), Failure> {
        let quiet = |w: &World| {
            let clusters = w.hosts.iter().filter_map(|h| h.node.cluster.as_ref());
            clusters.into_iter().all(|c| c.coherence().is_quiet())
        };
        self.until(QUIET_NS, "transactions stay open", quiet)?;
        self.fair = true;
        let settle = self.now + 2_000 * MS;
        self.until(QUIET_NS, "time stands", |w| w.now > settle)?;
        self.look_at_all()?;
        check::agreement(&self.hosts)?;
        let in_transit = self.hosts.iter().find(|h| {
            h.node.cluster.as_ref().is_some_and(|c| c.coherence().frames_in_transactions() > 0)
        });
        if let Some(host) = in_transit {
            let what = format!("host {} keeps frames for nothing", host.index);
            return Err(Failure::new(Class::Correctness, what));
        }
        self.only_heartbeats()
    }

    /// A quiet cluster sends nothing but heartbeats.
    fn only_heartbeats(&mut self) -> Result<(), Failure> {
        let before: Vec<Counters> =
            self.hosts.iter().map(|h| h.node.fabric().counters().clone()).collect();
        let end = self.now + 500 * MS;
        self.until(QUIET_NS, "time stands", |w| w.now > end)?;
        for (host, before) in self.hosts.iter().zip(&before) {
            let after = host.node.fabric().counters();
            for (kind, (b, a)) in before.frames_out.iter().zip(&after.frames_out).enumerate() {
                if kind != Kind::Heartbeat.index() && a != b {
                    let what = format!("host {} is quiet and sends kind {kind}", host.index);
                    return Err(Failure::new(Class::Liveness, what));
                }
            }
        }
        Ok(())
    }

    /// Makes the next thing happen.
    fn next(&mut self) -> Result<(), Failure> {
        let turn = self.hosts.iter().map(|h| (h.wakes_at(), h.index)).min();
        let (wakes, host) = turn.expect("there are hosts");
        let at = self.happenings.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
        if at == u64::MAX && wakes == u64::MAX {
            return Err(Failure::new(Class::Liveness, "nothing will ever happen"));
        }
        if at <= wakes {
            let Reverse((at, _, what)) = self.happenings.pop().expect("peeked");
            self.now = self.now.max(at);
            self.let_happen(what);
            return Ok(());
        }
        self.now = self.now.max(wakes);
        self.turn(host)
    }

    fn turn(&mut self, index: usize) -> Result<(), Failure> {
        let World { hosts, oracle, trace, scenario, .. } = self;
        let host = &mut hosts[index];
        let sending = !host.tx.is_empty();
        host.step(self.now, &mut Surroundings { oracle, trace, scenario })?;
        host.free_at = self.now + self.rng.between(300, 3_000);
        let starts = !sending && !host.tx.is_empty();
        let touched = std::mem::take(&mut host.touched);
        for &gfn in &touched {
            check::page(&self.hosts, &self.oracle, gfn)?;
        }
        if starts {
            let at = self.now + self.rng.between(200, 4 * US);
            self.happens(at, Happening::Sends(index));
        }
        self.steps += 1;
        if self.steps.is_multiple_of(LOOK_EVERY) {
            self.look_at_all()?;
        }
        Ok(())
    }

    fn look_at_all(&self) -> Result<(), Failure> {
        let pages: Vec<Gfn> = self.oracle.pages().collect();
        pages.iter().try_for_each(|&gfn| check::page(&self.hosts, &self.oracle, gfn))?;
        self.hosts.iter().filter(|h| h.alive).try_for_each(check::frames)
    }

    fn let_happen(&mut self, what: Happening) {
        match what {
            Happening::Sends(host) => self.sends(host),
            Happening::Arrives(to, bytes) => {
                let host = &mut self.hosts[to];
                if !host.alive {
                    return;
                }
                if host.rx.len() >= self.scenario.ring {
                    self.overflows += 1;
                    return;
                }
                host.rx.push_back(bytes);
            }
            Happening::Pauses(host) => {
                if self.fair {
                    return;
                }
                let until = self.now + self.rng.below(self.scenario.weather.pause_ns);
                self.hosts[host].free_at = self.hosts[host].free_at.max(until);
                self.plan_pause(host);
            }
            Happening::Dies(host) => {
                self.hosts[host].alive = false;
                self.died = Some((host, self.now));
            }
        }
    }

    fn sends(&mut self, from: usize) {
        if !self.hosts[from].alive {
            return;
        }
        let Some(bytes) = self.hosts[from].take_sent() else { return };
        for to in (0..self.hosts.len()).filter(|&to| to != from) {
            if bytes[..6] == wire::BROADCAST || bytes[..6] == mac(to) {
                self.launch(to, &bytes);
            }
        }
        if !self.hosts[from].tx.is_empty() {
            // 10 Gbit/s: 0.8 ns a byte.
            let at = self.now + 100 + bytes.len() as u64 * 4 / 5;
            self.happens(at, Happening::Sends(from));
        }
    }

    fn launch(&mut self, to: usize, bytes: &[u8]) {
        let weather = self.scenario.weather;
        if !self.fair && self.rng.chance(weather.loss) {
            return;
        }
        let doubled = !self.fair && self.rng.chance(weather.double);
        for _ in 0..1 + u64::from(doubled) {
            let mut at = self.now + weather.delay_ns + self.rng.below(weather.jitter_ns + 1);
            if !self.fair && self.rng.chance(weather.strays) {
                at += self.rng.below(50 * MS);
            }
            self.happens(at, Happening::Arrives(to, bytes.to_vec()));
        }
    }

    fn summary(&self) -> Summary {
        let mut s = Summary {
            virtual_ns: self.now - 1_000 * MS,
            steps: self.steps,
            writes: self.oracle.writes(),
            overflows: self.overflows,
            killed: self.died.is_some(),
            ..Summary::default()
        };
        for host in &self.hosts {
            s.slowest_ns = s.slowest_ns.max(host.slowest_ns);
            let Some(cluster) = &host.node.cluster else { continue };
            let c = cluster.coherence().counters();
            s.evicted += c.evicted;
            s.evicted_zero += c.evicted_zero;
            s.promoted += c.promoted;
            s.refused += c.refused;
            s.no_room += c.no_room;
            s.deferred += c.deferred;
            s.prefetches += c.prefetches;
        }
        s
    }
}
