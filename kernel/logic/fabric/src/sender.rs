//! The sending side of one channel to one peer.
//!
//! A message that the peer's grant covers gets its sequence numbers (one, or
//! one for each part of its page) and a place in the flight table, where it
//! stays until all of them are acknowledged; others wait for that in a queue.
//! `due` marks what is to be sent, for the first time or again; the lowest
//! goes first. All sets are bitmaps relative to `base`.

use crate::fifo::Fifo;
use addr::Frame;
use alloc::boxed::Box;
use alloc::vec;
use wire::BODY_BYTES;

/// Most sequence numbers in flight on one channel. Below 64, so that a part
/// of a page still in flight never shares its table row with a later one
/// although `base` may have passed the page's first part.
pub(crate) const WINDOW_MAX: u8 = 60;
/// Least window: one page in its parts.
pub(crate) const WINDOW_MIN: u8 = 4;
/// Rows of a receiver's table, indexed by sequence number.
pub(crate) const ROWS: usize = 64;
/// Patient messages that wait at once; one more takes them all along.
const PATIENT_MAX: u32 = 15;
/// Later ones acknowledged before one counts as lost, not reordered.
const REORDER: u32 = 3;

/// The lowest `n` bits.
fn low(n: u32) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

pub(crate) fn row(sequence: u32) -> usize {
    sequence as usize % ROWS
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Waiting {
    body: [u8; BODY_BYTES],
    page: Option<Frame>,
}

/// A message that has its sequence numbers, at the row of the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Flight {
    body: [u8; BODY_BYTES],
    page: Option<Frame>,
    /// Parts not acknowledged.
    left: u8,
}

/// One sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Unit {
    sent_ns: u64,
    part: u8,
    parts: u8,
    tries: u8,
}

/// Something to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due<'a> {
    /// Its bit in a set of numbers, of which the lowest is the first not
    /// acknowledged.
    pub(crate) bit: u64,
    pub(crate) sequence: u32,
    pub(crate) part: u8,
    /// 0 without a page.
    pub(crate) parts: u8,
    pub(crate) body: &'a [u8; BODY_BYTES],
    pub(crate) page: Option<Frame>,
}

/// What an acknowledgement brought.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Acked {
    pub(crate) progress: bool,
    /// The time since one of them was sent, once, and the parts of its page.
    pub(crate) rtt: Option<(u64, u8)>,
    /// Found lost by the gap they leave.
    pub(crate) lost: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Sender {
    /// What the grant does not cover.
    waiting: Fifo<Waiting>,
    /// Parts in which a page travels.
    parts: u8,
    /// Both tables have a power of two of rows, indexed by sequence number:
    /// the window and a page's parts more, so that a part still in flight
    /// never shares its row with a later one although `base` may have passed
    /// the page's first. None before the first message.
    flight: Box<[Flight]>,
    units: Box<[Unit]>,
    /// Largest window the peer may grant.
    window: u8,
    /// Lowest not acknowledged.
    base: u32,
    /// One past the highest ever sent.
    sent: u32,
    /// One past the highest given to a message.
    next: u32,
    /// One past the highest granted.
    limit: u32,
    acked: u64,
    due: u64,
    /// Of those due, new messages that wait for a frame to travel with.
    patient: u64,
}

impl Sender {
    pub(crate) fn new(queue: u16, window: u8, parts: u8) -> Self {
        let window = window.min(WINDOW_MAX);
        Sender {
            waiting: Fifo::empty(usize::from(queue)),
            parts,
            flight: Box::default(),
            units: Box::default(),
            window,
            base: 0,
            sent: 0,
            next: 0,
            limit: u32::from(window),
            acked: 0,
            due: 0,
            patient: 0,
        }
    }

    /// Takes the memory for messages, if it has not. A node of a small cluster
    /// does so at start, one of a large cluster when it first sends to a peer.
    #[inline]
    pub(crate) fn open(&mut self) {
        if self.units.is_empty() {
            self.take_memory();
        }
    }

    #[cold]
    fn take_memory(&mut self) {
        let rows = usize::from(self.window + WINDOW_MIN).next_power_of_two();
        let flight = Flight { body: [0; BODY_BYTES], page: None, left: 0 };
        let unit = Unit { sent_ns: 0, part: 0, parts: 0, tries: 0 };
        self.flight = vec![flight; rows].into_boxed_slice();
        self.units = vec![unit; rows].into_boxed_slice();
        self.waiting.reserve();
    }

    #[inline]
    fn row(&self, sequence: u32) -> usize {
        sequence as usize & (self.units.len() - 1)
    }

    /// Takes a message; `false` when full. A patient one waits for another
    /// that is not, for [`Sender::hurry`], or until there are many of them.
    #[must_use]
    pub(crate) fn push(
        &mut self,
        body: &[u8; BODY_BYTES],
        page: Option<Frame>,
        patient: bool,
    ) -> bool {
        self.open();
        if self.waiting.front().is_some() || !self.fits(page) {
            return self.waiting.push(Waiting { body: *body, page });
        }
        let known = self.due;
        self.admit(body, page);
        if patient && self.patient.count_ones() < PATIENT_MAX {
            self.patient |= self.due & !known;
        } else {
            self.patient = 0;
        }
        true
    }

    /// The number of the next message, if that will travel in one frame and need not
    /// wait.
    #[inline(always)]
    pub(crate) fn next_number(&self, page: Option<Frame>) -> Option<u32> {
        let whole = page.is_none() || self.parts == 1;
        let ready = whole && !self.units.is_empty() && self.waiting.front().is_none();
        (ready && self.fits(page)).then_some(self.next)
    }

    /// The bit of that number, as [`Due::bit`] has it.
    pub(crate) fn next_bit(&self) -> u64 {
        1 << self.next.wrapping_sub(self.base)
    }

    /// The lowest number that is not acknowledged.
    #[inline]
    pub(crate) fn base(&self) -> u32 {
        self.base
    }

    /// Ends the patience of what waits.
    pub(crate) fn hurry(&mut self) {
        self.patient = 0;
    }

    /// Whether messages wait for a frame to travel with.
    pub(crate) fn is_patient(&self) -> bool {
        self.patient != 0
    }

    /// Whether [`Sender::due`] has something.
    #[inline]
    pub(crate) fn has_due(&self) -> bool {
        self.due != 0
    }

    /// Whether [`Sender::due`] has something that is worth a frame of its own.
    #[inline]
    pub(crate) fn urgent(&self) -> bool {
        self.due & !self.patient != 0
    }

    /// Whether anything sent awaits its acknowledgement.
    pub(crate) fn outstanding(&self) -> bool {
        self.base != self.sent
    }

    #[inline(always)]
    fn fits(&self, page: Option<Frame>) -> bool {
        let parts = if page.is_some() { self.parts } else { 1 };
        let granted = self.limit.wrapping_sub(self.next) as i32;
        granted >= i32::from(parts)
    }

    /// Gives waiting messages their numbers, as far as the grant allows.
    fn admit_waiting(&mut self) {
        while self.waiting.front().is_some_and(|message| self.fits(message.page)) {
            let Waiting { body, page } = self.waiting.pop().expect("it is the first");
            self.admit(&body, page);
        }
    }

    /// Gives a message its numbers.
    #[inline]
    fn admit(&mut self, body: &[u8; BODY_BYTES], page: Option<Frame>) {
        let parts = if page.is_some() { self.parts } else { 0 };
        let left = parts.max(1);
        let at = self.row(self.next);
        let flight = &mut self.flight[at];
        assert!(flight.left == 0, "two messages in one row");
        *flight = Flight { body: *body, page, left };
        for part in 0..left {
            let at = self.row(self.next);
            self.units[at] = Unit { sent_ns: 0, part, parts, tries: 0 };
            self.due |= 1 << self.next.wrapping_sub(self.base);
            self.next = self.next.wrapping_add(1);
        }
    }

    /// What to send next but for the numbers in `taken`, if anything; it stays
    /// due until [`Sender::took`].
    #[inline]
    pub(crate) fn due(&self, taken: u64) -> Option<Due<'_>> {
        let due = self.due & !taken;
        if due == 0 {
            return None;
        }
        let sequence = self.base.wrapping_add(due.trailing_zeros());
        let unit = self.units[self.row(sequence)];
        let flight = &self.flight[self.row(sequence.wrapping_sub(u32::from(unit.part)))];
        let Flight { body, page, .. } = flight;
        let bit = due & due.wrapping_neg();
        Some(Due { bit, sequence, part: unit.part, parts: unit.parts, body, page: *page })
    }

    /// The numbers whose bits [`Sender::due`] gave have been sent.
    pub(crate) fn took(&mut self, mut numbers: u64, now_ns: u64) {
        self.due &= !numbers;
        self.patient &= self.due;
        while numbers != 0 {
            let offset = numbers.trailing_zeros();
            numbers &= numbers - 1;
            let sequence = self.base.wrapping_add(offset);
            let at = self.row(sequence);
            let unit = &mut self.units[at];
            unit.sent_ns = now_ns;
            unit.tries = unit.tries.saturating_add(1);
            if offset >= self.sent.wrapping_sub(self.base) {
                self.sent = sequence.wrapping_add(1);
            }
        }
    }

    /// Whether an acknowledgement says nothing new.
    #[inline]
    pub(crate) fn knows(&self, (awaited, received, window): (u32, u64, u8)) -> bool {
        awaited == self.base
            && received == self.acked
            && awaited.wrapping_add(u32::from(window)) == self.limit
    }

    /// Takes an acknowledgement; frames no longer needed go to `release`.
    /// Costs a few instructions when it says nothing new, else a few for
    /// each number newly acknowledged.
    pub(crate) fn acknowledge(
        &mut self,
        (awaited, received, window): (u32, u64, u8),
        now_ns: u64,
        smoothed_ns: u64,
        mut release: impl FnMut(Frame),
    ) -> Acked {
        let span = self.sent.wrapping_sub(self.base);
        let delta = awaited.wrapping_sub(self.base);
        if delta > span {
            return Acked::default(); // older than what is known, or not ours
        }
        let limit = awaited.wrapping_add(u32::from(window.min(self.window)));
        if (limit.wrapping_sub(self.limit) as i32) > 0 {
            self.limit = limit;
        }
        let mut new = (low(delta) | received << delta) & low(span) & !self.acked;
        if new == 0 {
            self.admit_waiting();
            return Acked::default();
        }
        self.acked |= new;
        self.due &= !new;
        let mut outcome = Acked { progress: true, ..Acked::default() };
        while new != 0 {
            let sequence = self.base.wrapping_add(new.trailing_zeros());
            new &= new - 1;
            let unit = self.units[self.row(sequence)];
            if unit.tries == 1 {
                outcome.rtt = Some((now_ns.saturating_sub(unit.sent_ns), unit.parts));
            }
            let at = self.row(sequence.wrapping_sub(u32::from(unit.part)));
            let flight = &mut self.flight[at];
            flight.left -= 1;
            if flight.left == 0
                && let Some(frame) = flight.page.take()
            {
                release(frame);
            }
        }
        let run = self.acked.trailing_ones();
        self.acked >>= run;
        self.due >>= run;
        self.patient >>= run;
        self.base = self.base.wrapping_add(run);
        self.admit_waiting();
        outcome.lost = self.mark_gaps(now_ns, smoothed_ns);
        outcome
    }

    /// Marks as due what later numbers have overtaken; once more only when a
    /// round trip has passed since it was sent.
    fn mark_gaps(&mut self, now_ns: u64, smoothed_ns: u64) -> u32 {
        let highest = 64 - self.acked.leading_zeros();
        let mut gaps = low(highest.saturating_sub(REORDER)) & !self.acked & !self.due;
        let patience = smoothed_ns + smoothed_ns / 8;
        let mut lost = 0;
        while gaps != 0 {
            let bit = gaps.trailing_zeros();
            gaps &= gaps - 1;
            let unit = &self.units[self.row(self.base.wrapping_add(bit))];
            if unit.tries == 1 || now_ns.saturating_sub(unit.sent_ns) >= patience {
                self.due |= 1 << bit;
                lost += 1;
            }
        }
        lost
    }

    /// Marks as due what was sent `timeout_ns` ago or earlier; returns how
    /// many, and when the next of the rest runs out.
    pub(crate) fn expire(&mut self, now_ns: u64, timeout_ns: u64) -> (u32, Option<u64>) {
        let mut open = low(self.sent.wrapping_sub(self.base)) & !self.acked & !self.due;
        let (mut lost, mut next) = (0, None);
        while open != 0 {
            let bit = open.trailing_zeros();
            open &= open - 1;
            let at = self.units[self.row(self.base.wrapping_add(bit))].sent_ns + timeout_ns;
            if at <= now_ns {
                self.due |= 1 << bit;
                lost += 1;
            } else {
                next = Some(next.map_or(at, |n: u64| n.min(at)));
            }
        }
        (lost, next)
    }

    /// Gives up everything; all frames go to `release`.
    pub(crate) fn clear(&mut self, mut release: impl FnMut(Frame)) {
        while let Some(message) = self.waiting.pop() {
            message.page.into_iter().for_each(&mut release);
        }
        for flight in self.flight.iter_mut() {
            flight.left = 0;
            flight.page.take().into_iter().for_each(&mut release);
        }
        (self.base, self.sent, self.limit) = (self.next, self.next, self.next);
        (self.acked, self.due, self.patient) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests;
