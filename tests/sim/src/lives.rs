//! Lives of a cluster: forming, playing, deaths, partitions, forming anew.

use crate::failure::{Class, Failure};
use crate::host::Host;
use crate::scenario::{MS, Mishap};
use crate::world::{Happening, World, mac};
use addr::NodeId;
use fabric::{Config, RefuseReason};

/// Longest time to form a cluster.
const FORM_NS: u64 = 60_000 * MS;
/// Longest time of all programs; one access has its own limit.
const PLAY_NS: u64 = 600_000 * MS;
/// Longest time for a mishap to come.
const MISHAP_NS: u64 = 20_000 * MS;
/// Time in which frames of an old life come in a new one.
const OLD_NS: u64 = 4 * MS;
/// Longest time until a restarted node has been told why it stays out.
const REFUSE_NS: u64 = 5_000 * MS;

fn epoch(host: &Host) -> Option<u64> {
    host.node.fabric().membership().map(|m| m.epoch)
}

impl World {
    /// From power-on to the end, through the scenario's mishap.
    pub(crate) fn live(&mut self) -> Result<(), Failure> {
        if let Mishap::EarlyRestart { host, after_ns, away_ns } = self.scenario.mishap {
            self.happens(self.now + after_ns, Happening::Dies(host));
            self.happens(self.now + after_ns + away_ns, Happening::Returns(host));
            let back = |w: &World| w.died.is_some() && w.hosts[host].alive;
            self.until(MISHAP_NS, "nobody returns", back)?;
        }
        self.form()?;
        match self.scenario.mishap {
            Mishap::None | Mishap::EarlyRestart { .. } => self.play()?,
            Mishap::Death { host, after_ns } => {
                self.happens(self.now + after_ns, Happening::Dies(host));
                self.play()?;
                self.until(MISHAP_NS, "nobody dies", |w| w.died.is_some())?;
                return self.end();
            }
            Mishap::Rejoin { host, after_ns, away_ns } => {
                self.happens(self.now + after_ns, Happening::Dies(host));
                self.happens(self.now + after_ns + away_ns, Happening::Returns(host));
                self.play()?;
                self.until(MISHAP_NS, "nobody dies", |w| w.died.is_some())?;
                self.end()?;
                self.until(MISHAP_NS, "nobody returns", |w| w.hosts[host].alive)?;
                self.stays_out(host)?;
                self.start_anew()?;
            }
            Mishap::Partition { after_ns, .. } => {
                self.happens(self.now + after_ns, Happening::Parts);
                self.play()?;
                self.until(MISHAP_NS, "nothing parts", |w| w.parted.is_some())?;
                if self.scenario.mishap.ends_cluster() {
                    self.end()?;
                    self.link.cut = None;
                    self.start_anew()?;
                } else {
                    self.until(MISHAP_NS, "nothing heals", |w| w.parted.is_some_and(|p| p.1))?;
                    self.play()?;
                }
            }
        }
        self.calm()
    }

    /// All nodes find each other. A cluster that formed with a life that is
    /// over by now must end, and its nodes are restarted.
    fn form(&mut self) -> Result<(), Failure> {
        let end = self.now + FORM_NS;
        loop {
            let first = epoch(&self.hosts[0]);
            let one = first.is_some() && self.hosts.iter().all(|h| h.alive && epoch(h) == first);
            if one && self.hosts.iter().all(|h| h.id().is_some() && !h.over) {
                return Ok(());
            }
            let formed: Vec<usize> = (0..self.hosts.len())
                .filter(|&n| self.hosts[n].alive && epoch(&self.hosts[n]).is_some())
                .collect();
            if !formed.is_empty() && formed.iter().all(|&n| self.hosts[n].over) {
                self.summary.ended += 1;
                self.judge()?;
                formed.into_iter().for_each(|n| self.restart(n));
                self.forget();
            }
            if self.now > end {
                return Err(Failure::new(Class::Liveness, "the cluster does not form"));
            }
            self.next()?;
        }
    }

    /// Runs the programs until they are done or the cluster is ending.
    fn play(&mut self) -> Result<(), Failure> {
        let ending = |w: &World| w.scenario.mishap.ends_cluster() && w.hosts.iter().any(|h| h.over);
        let dead = |w: &World| w.died.is_some() && w.scenario.mishap.ends_cluster();
        let over = |w: &World| w.hosts.iter().all(Host::is_done) || ending(w) || dead(w);
        self.until(PLAY_NS, "the programs do not end", over)
    }

    /// The cluster must end: every node that was in it reports so in time,
    /// and misses only who is missing.
    fn end(&mut self) -> Result<(), Failure> {
        let ids: Vec<Option<NodeId>> = self.hosts.iter().map(Host::id).collect();
        let since = match (self.died, self.parted) {
            (Some((_, at)), _) | (None, Some((at, _))) => at,
            (None, None) => unreachable!("something has happened"),
        };
        let weather = self.scenario.weather;
        // What a lost node had sent last may be on its way for as long as a
        // stray frame. A survivor that was away itself for a heartbeat (it
        // looks at its timers every half one) begins to count anew, four times
        // at most. Behind a cut that lets one way through, a group may hear of
        // the others until these have ended.
        let config = Config::new(mac(0), 0, 0, 1, 2);
        let excuses = if weather.pause_ns >= config.heartbeat_ns / 2 { 4 } else { 0 };
        let ways = if self.parted.is_some() { 2 } else { 1 };
        let slack = 60 * MS + 2 * weather.pause_ns;
        let bound = since + config.dead_after_ns * (ways + excuses) + slack;
        let in_it = |h: &&Host| h.alive && h.id().is_some();
        while !self.hosts.iter().filter(in_it).all(|h| h.over) {
            if self.now > bound {
                let late = self.hosts.iter().filter(in_it).find(|h| !h.over);
                let index = late.map_or(0, |h| h.index);
                let what = format!("host {index} does not notice that the cluster is over");
                return Err(Failure::new(Class::Liveness, what));
            }
            self.next()?;
        }
        for host in self.hosts.iter().filter(in_it) {
            for &(lost, at) in &host.lost {
                let peer = ids.iter().position(|&id| id == Some(lost)).expect("a member");
                if !self.is_excusable(host.index, peer) {
                    let what = format!(
                        "host {} misses host {peer} at {at}, which is alive and can be heard",
                        host.index
                    );
                    return Err(Failure::new(Class::Correctness, what));
                }
            }
        }
        self.summary.ended += 1;
        self.look_at_all()?;
        self.judge()
    }

    /// Whether a node may miss another: it has died, or is behind the cut, or
    /// has ended the cluster itself and is silent since.
    fn is_excusable(&self, by: usize, missed: usize) -> bool {
        let behind = match self.scenario.mishap {
            Mishap::Partition { group, .. } => (group >> by ^ group >> missed) & 1 != 0,
            _ => false,
        };
        behind || self.died.is_some_and(|(n, _)| n == missed) || self.hosts[missed].over
    }

    /// A node in a new life is told to stay out, and does.
    fn stays_out(&mut self, host: usize) -> Result<(), Failure> {
        let told = |w: &World| w.hosts[host].refused.contains(&RefuseReason::Fenced);
        self.until(REFUSE_NS, "a restarted node is not refused", told)?;
        if self.hosts[host].id().is_some() {
            let what = format!("host {host} is in the cluster again in another life");
            return Err(Failure::new(Class::Correctness, what));
        }
        self.summary.refused += 1;
        Ok(())
    }

    /// All nodes of the cluster that has ended are restarted, one after the
    /// other; with those that wait they form a new one.
    fn start_anew(&mut self) -> Result<(), Failure> {
        self.died = None;
        for n in 0..self.hosts.len() {
            if self.hosts[n].id().is_some() {
                let at = self.now + self.rng.below(300 * MS);
                self.happens(at, Happening::Returns(n));
            }
        }
        while self.hosts.iter().any(|h| h.over) {
            self.next()?;
        }
        self.forget();
        self.form()?;
        // Something on the way kept frames of the life before.
        for (to, bytes) in std::mem::take(&mut self.old) {
            let at = self.now + self.rng.below(OLD_NS);
            self.happens(at, Happening::Arrives(to, bytes));
        }
        self.play()
    }

    /// Switches a host on, in a new life.
    pub(crate) fn restart(&mut self, n: usize) {
        self.summary.faults.restarts += 1;
        self.summary.host(&self.hosts[n]);
        self.hosts[n] = self.build(n);
    }
}
