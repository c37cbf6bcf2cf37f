//! The world around the nodes: virtual time, and what happens when.

use crate::check;
use crate::failure::{Class, Failure};
use crate::history::{Event, History, order};
use crate::host::{Host, Surroundings};
use crate::link::Link;
use crate::litmus::{self, Place};
use crate::oracle::Oracle;
use crate::program;
use crate::rng::Rng;
use crate::scenario::{MS, Mishap, Scenario, US};
use crate::summary::Summary;
use crate::trace::{Trace, messages};
use addr::{Gfn, NodeId};
use fabric::{Config, Counters, Kind};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest time until all is quiet after the last instruction.
const QUIET_NS: u64 = 20_000 * MS;
/// Steps between two looks at everything.
const LOOK_EVERY: u64 = 2048;

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Happening {
    /// The NIC of a host sends its next frame.
    Sends(usize),
    /// A frame comes to a host's NIC.
    Arrives(usize, Vec<u8>),
    /// A host stands still for a while.
    Pauses(usize),
    /// A host dies.
    Dies(usize),
    /// A host is switched on again.
    Returns(usize),
    /// The partition of the scenario begins.
    Parts,
    /// It ends.
    Heals,
}

/// A cluster and everything around it.
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) hosts: Vec<Host>,
    happenings: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    number: u64,
    pub(crate) link: Link,
    oracle: Oracle,
    /// What happened to the pages.
    pub trace: Trace,
    history: History,
    litmus: Vec<(Place, Event)>,
    pub(crate) summary: Summary,
    /// Which host has died and when.
    pub(crate) died: Option<(usize, u64)>,
    /// When the partition began, and whether it is over.
    pub(crate) parted: Option<(u64, bool)>,
    /// Frames with messages of the cluster's first life, and to whom they were
    /// sent: some of them come again in its next.
    pub(crate) old: Vec<(usize, Vec<u8>)>,
}

/// Frames of the first life that are kept: early ones, whose sequence numbers
/// the next life awaits as well.
const OLD_MAX: usize = 256;

pub(crate) fn mac(index: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, index as u8]
}

impl World {
    /// The cluster of a scenario, switched on.
    #[must_use]
    pub fn new(scenario: Scenario, tracing: bool) -> World {
        let nodes = usize::from(scenario.nodes);
        let mut world = World {
            rng: Rng::new(scenario.seed),
            now: 1_000 * MS,
            hosts: Vec::new(),
            happenings: BinaryHeap::new(),
            number: 0,
            link: Link::new(scenario.weather),
            oracle: Oracle::new(scenario.defect.is_some()),
            trace: Trace::new(tracing),
            history: History::new(nodes),
            litmus: Vec::new(),
            summary: Summary::default(),
            died: None,
            parted: None,
            old: Vec::new(),
            scenario,
        };
        for n in 0..nodes {
            let host = world.build(n);
            world.hosts.push(host);
            world.plan_pause(n);
        }
        world.summary.faults.slow = u64::from(world.scenario.slow.is_some());
        world
    }

    /// A host that boots about now, in a new life.
    pub(crate) fn build(&mut self, n: usize) -> Host {
        let scenario = &self.scenario;
        let mut config = Config::new(mac(n), 0x51, 7, self.rng.number() | 1, scenario.nodes);
        config.mtu = scenario.mtu;
        config.pages = scenario.told(n);
        let mut host = Host::new(n, config, scenario.needed(n) + scenario.spare[n], self.now);
        host.free_at += self.rng.below(50 * MS);
        host.hurry_every = scenario.hurry_every;
        host
    }

    pub(crate) fn happens(&mut self, at: u64, what: Happening) {
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

    /// The mean over all hosts of the time that they keep wanted pages, and of
    /// the round trips that they have measured.
    #[must_use]
    pub fn holds_and_rtts_ns(&self) -> (u64, u64) {
        let clusters = || self.hosts.iter().filter_map(|h| h.node.cluster.as_ref());
        let holds = clusters().map(node::Cluster::hold_ns).sum::<u64>();
        let all = || (0..self.hosts.len() as u16).map(NodeId);
        let of = |h: &Host| all().filter_map(|n| h.node.fabric().rtt_ns(n)).collect::<Vec<_>>();
        let rtts: Vec<u64> = self.hosts.iter().flat_map(of).collect();
        let mean = |sum: u64, of: usize| sum / of.max(1) as u64;
        (mean(holds, clusters().count()), mean(rtts.iter().sum(), rtts.len()))
    }

    /// When each host's instructions retired and how long they had waited,
    /// where that is asked for.
    #[must_use]
    pub fn waits_ns(&self) -> Vec<Vec<(u64, u64)>> {
        self.hosts.iter().map(|h| h.waits_ns.clone()).collect()
    }

    /// Runs from power-on to quiet.
    ///
    /// # Errors
    /// The first failure.
    pub fn run(&mut self) -> Result<Summary, Failure> {
        let start = self.now;
        self.live()?;
        self.judge()?;
        for host in &self.hosts {
            self.summary.host(host);
        }
        self.summary.virtual_ns = self.now - start;
        self.summary.writes += self.oracle.writes();
        Ok(self.summary.clone())
    }

    /// Goes on until `done`.
    pub(crate) fn until(
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

    /// After the last instruction: all transactions end, and all is as it
    /// must be.
    pub(crate) fn calm(&mut self) -> Result<(), Failure> {
        let quiet = |w: &World| {
            let clusters = w.hosts.iter().filter_map(|h| h.node.cluster.as_ref());
            clusters.into_iter().all(|c| c.coherence().is_quiet())
        };
        self.until(QUIET_NS, "transactions stay open", quiet)?;
        self.link.fair = true;
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

    /// Judges what the programs saw since the cluster formed.
    pub(crate) fn judge(&mut self) -> Result<(), Failure> {
        let nodes = self.hosts.len();
        let history = std::mem::replace(&mut self.history, History::new(nodes));
        self.summary.histories += u64::from(!history.is_empty());
        self.summary.events += history.len() as u64;
        if let Err(flaw) = order::check(&history) {
            let page = flaw.word().map(|w| w.gfn);
            let what = format!("the history of {} events: {flaw}", history.len());
            return Err(Failure { class: Class::Correctness, page, what });
        }
        let layout = self.hosts.iter().find_map(|h| h.node.cluster.as_ref());
        if let Some(layout) = layout.map(|c| c.coherence().layout()) {
            let plan = program::litmus_plan(&self.scenario, layout);
            let verdict = litmus::judge(&plan, &self.litmus);
            self.summary.litmus += verdict.judged;
            self.summary.outcomes.extend(verdict.outcomes);
            if let Some((what, gfn)) = verdict.forbidden {
                return Err(Failure::about(Class::Correctness, gfn, format!("litmus {what}")));
            }
        }
        self.litmus.clear();
        Ok(())
    }

    /// The last node of a cluster is gone: a new one begins with memory that
    /// is zero.
    pub(crate) fn forget(&mut self) {
        self.summary.writes += self.oracle.writes();
        self.oracle = Oracle::new(self.oracle.is_blind());
    }

    /// Makes the next thing happen.
    pub(crate) fn next(&mut self) -> Result<(), Failure> {
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
        let World { hosts, oracle, trace, scenario, history, litmus, .. } = self;
        let host = &mut hosts[index];
        let sending = !host.tx.is_empty();
        host.step(self.now, &mut Surroundings { oracle, trace, scenario, history, litmus })?;
        let slower = self.scenario.slow.filter(|&(slow, _)| slow == index).map_or(1, |(_, n)| n);
        host.free_at = self.now + slower * self.rng.between(300, 3_000);
        let starts = !sending && !host.tx.is_empty();
        let met = host.cpu.meeting.is_some();
        let mut touched = std::mem::take(&mut host.touched);
        touched.sort_unstable();
        touched.dedup();
        for &gfn in &touched {
            check::page(&self.hosts, &self.oracle, gfn)?;
        }
        self.hosts[index].touched = touched;
        if met {
            self.meet();
        }
        if starts {
            let at = self.now + self.rng.between(200, 4 * US);
            self.happens(at, Happening::Sends(index));
        }
        self.summary.steps += 1;
        if self.summary.steps.is_multiple_of(LOOK_EVERY) {
            self.look_at_all()?;
        }
        Ok(())
    }

    /// Lets all programs go on when the last has come to where they meet.
    fn meet(&mut self) {
        if !self.hosts.iter().all(|h| h.cpu.meeting.is_some()) {
            return;
        }
        for host in &mut self.hosts {
            let most = host.cpu.meeting.take().expect("all are here");
            let program = host.program.as_mut().expect("programs meet");
            host.cpu.next_ns = self.now + program.dawdle(most);
        }
    }

    pub(crate) fn look_at_all(&self) -> Result<(), Failure> {
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
                    self.summary.faults.overflows += 1;
                    return;
                }
                host.rx.push_back(bytes);
            }
            Happening::Pauses(host) => {
                if self.link.fair {
                    return;
                }
                self.summary.faults.pauses += 1;
                let until = self.now + self.rng.below(self.scenario.weather.pause_ns);
                self.hosts[host].free_at = self.hosts[host].free_at.max(until);
                self.plan_pause(host);
            }
            Happening::Dies(host) => {
                self.hosts[host].alive = false;
                self.died = Some((host, self.now));
                self.summary.faults.deaths += 1;
            }
            Happening::Returns(host) => self.restart(host),
            Happening::Parts => {
                let Mishap::Partition { group, one_way, long_ns, .. } = self.scenario.mishap else {
                    unreachable!("planned by a partition");
                };
                self.link.cut = Some(crate::link::Cut { group, one_way });
                self.parted = Some((self.now, false));
                self.summary.faults.partitions += 1;
                if !self.scenario.mishap.ends_cluster() {
                    self.happens(self.now + long_ns, Happening::Heals);
                }
            }
            Happening::Heals => {
                self.link.cut = None;
                self.parted = self.parted.map(|(at, _)| (at, true));
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
                let way = (from, to);
                let faults = &mut self.summary.faults;
                for at in self.link.arrivals(way, self.now, &mut self.rng, faults) {
                    self.happens(at, Happening::Arrives(to, bytes.clone()));
                }
                if self.old.len() < OLD_MAX && !messages(&bytes).is_empty() {
                    self.old.push((to, bytes.clone()));
                }
            }
        }
        if !self.hosts[from].tx.is_empty() {
            // 10 Gbit/s: 0.8 ns a byte.
            let at = self.now + 100 + bytes.len() as u64 * 4 / 5;
            self.happens(at, Happening::Sends(from));
        }
    }
}
