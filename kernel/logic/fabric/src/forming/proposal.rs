//! Proposal, consent and commit.

use super::may_lead;
use super::{Forming, Phase, rank, sound};
use crate::Drop;
use crate::io::{Control, Io};
use alloc::vec::Vec;
use core::cmp::Ordering;
use wire::{Accept, Mac, Roster};

/// Time in which a node takes in one short frame, with room to spare.
pub(crate) const TAKE_NS: u64 = 4_000;

impl Forming {
    /// Proposes, when all are here and none would rather lead.
    pub(super) fn try_propose(&mut self, io: &mut Io) {
        let seeking = self.phase == Phase::Seeking && io.now_ns >= self.double_until_ns;
        let all = self.known() == io.config.nodes;
        let best = || self.candidates.iter().all(|c| rank(&self.me, &c.entry) == Ordering::Less);
        if !seeking || !all || !may_lead(&self.me, io) || !best() {
            return;
        }
        self.attempts += 1;
        self.epoch = io.rng.next() ^ self.me.incarnation.wrapping_add(self.attempts);
        self.epoch = self.epoch.max(1);
        self.leader = self.me.mac;
        self.roster.clear();
        self.roster.push(Some(self.me));
        self.roster.extend(self.candidates.iter().map(|c| Some(c.entry)));
        self.candidates.iter_mut().for_each(|c| c.accepted = false);
        self.phase = Phase::Proposing { since_ns: io.now_ns };
        self.send_roster(io);
    }

    /// Sends the proposal to all who have not accepted it.
    pub(super) fn send_roster(&self, io: &mut Io) {
        let missing = self.candidates.iter().filter(|c| !c.accepted);
        let missing: Vec<Mac> = missing.map(|c| c.entry.mac).collect();
        io.rosters(&missing, false);
    }

    /// Takes consent to our proposal; see [`Forming::agreed`].
    pub(crate) fn accept(&mut self, src: Mac, epoch: u64, accept: &Accept) -> Result<(), Drop> {
        let at = self.find(src).map_err(|_| Drop::Unexpected)?;
        let candidate = &mut self.candidates[at];
        let meant = matches!(self.phase, Phase::Proposing { .. }) && epoch == self.epoch;
        if !meant || candidate.entry.incarnation != accept.incarnation {
            return Err(Drop::Stale);
        }
        candidate.accepted = true;
        Ok(())
    }

    /// Takes a part of a proposal or of a commit; `Ok(true)`: the roster is
    /// complete and committed.
    pub(crate) fn roster(
        &mut self,
        io: &mut Io,
        (src, epoch, commit): (Mac, u64, bool),
        roster: &Roster<'_>,
    ) -> Result<bool, Drop> {
        if roster.total != io.config.nodes {
            return Err(Drop::Unexpected);
        }
        let same = epoch == self.epoch && src == self.leader && !self.proposing();
        let busy = match self.phase {
            Phase::Seeking => false,
            Phase::Proposing { .. } => {
                let head = roster.entries().next().filter(|_| roster.first == 0);
                head.is_none_or(|e| rank(&e, &self.me) != Ordering::Less)
            }
            Phase::Accepted { .. } => src != self.leader,
        };
        if !commit && (busy || io.now_ns < self.double_until_ns) {
            return Err(Drop::Unexpected);
        }
        if !same {
            self.phase = Phase::Seeking;
            (self.epoch, self.leader) = (epoch, src);
            self.roster.clear();
            self.roster.resize(usize::from(roster.total), None);
        }
        let from = usize::from(roster.first);
        for (place, entry) in self.roster[from..].iter_mut().zip(roster.entries()) {
            *place = Some(entry);
        }
        if self.roster.iter().any(Option::is_none) {
            return Ok(false);
        }
        if !self.roster_sound() {
            (self.epoch, self.phase) = (0, Phase::Seeking);
            return Err(Drop::Malformed);
        }
        if commit {
            return Ok(true);
        }
        let first = self.phase == Phase::Seeking;
        if first {
            self.phase = Phase::Accepted { since_ns: io.now_ns };
        }
        if io.config.is_large() {
            // All at once would be more than the proposer can take in.
            let spread = u64::from(io.config.nodes) * TAKE_NS;
            let at = io.now_ns + io.rng.next() % spread;
            self.accept_ns.get_or_insert(at);
        } else {
            io.control(Control::Accept { to: src, epoch });
        }
        Ok(false)
    }

    /// Whether the complete roster has an order, and us as we are.
    fn roster_sound(&self) -> bool {
        let mut others = self.members();
        let leads = others.next().is_some_and(|e| e.mac == self.leader);
        let mut found = false;
        let mut last = None;
        for e in others {
            if e.mac == self.leader || last >= Some(e.mac) {
                return false;
            }
            last = Some(e.mac);
            found |= e == self.me;
        }
        leads && found && self.members().all(|e| sound(&e))
    }
}
