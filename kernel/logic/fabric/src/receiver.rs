//! The receiving side of one channel from one peer, and the buffers in which
//! pages are put together.

use crate::sender::{ROWS, row};
use addr::{PAGE_SIZE, PageBytes};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use wire::{ETHERNET_BYTES, Message, PAGE_OFFSET, Payload};

/// How a page is cut for the link's MTU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Plan {
    /// Parts; 1 when a page fits in one frame.
    pub(crate) parts: u8,
    /// Bytes of every part but the last.
    bytes: u16,
}

impl Plan {
    pub(crate) fn new(mtu: u16) -> Plan {
        // What is not a whole page stays within a receive buffer of a page.
        let mut frame = usize::from(mtu) + ETHERNET_BYTES;
        if frame < PAGE_OFFSET + PAGE_SIZE {
            frame = frame.min(PAGE_SIZE);
        }
        let room = (frame - PAGE_OFFSET).min(PAGE_SIZE) & !7;
        Plan { parts: PAGE_SIZE.div_ceil(room) as u8, bytes: room as u16 }
    }

    /// First byte and length of a part.
    pub(crate) fn slice(self, part: u8) -> (u16, u16) {
        let start = u16::from(part) * self.bytes;
        (start, self.bytes.min(PAGE_SIZE as u16 - start))
    }
}

/// Buffers for pages that come in parts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Pool {
    buffers: Vec<Box<PageBytes>>,
    free: Vec<u16>,
}

impl Pool {
    pub(crate) fn new(count: u16) -> Pool {
        let buffers = (0..count).map(|_| Box::new([0; PAGE_SIZE])).collect();
        Pool { buffers, free: (0..count).rev().collect() }
    }

    pub(crate) fn page(&self, buffer: u16) -> &PageBytes {
        &self.buffers[usize::from(buffer)]
    }

    pub(crate) fn give_back(&mut self, buffer: u16) {
        self.free.push(buffer);
    }
}

/// A page of which some parts have come, at the row of its first number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Partial {
    buffer: u16,
    /// Parts that have come; none: the row is unused.
    got: u8,
}

/// What became of a message or part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Deliver it with what its frame holds.
    Whole,
    /// Deliver it with the page in this buffer, then give that back.
    Assembled(u16),
    /// Kept; other parts are missing.
    Kept,
    /// It has come before.
    Duplicate,
    /// Beyond the grant.
    Beyond,
    /// No buffer free.
    NoBuffer,
    /// Not as the link's MTU demands.
    Malformed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Receiver {
    /// Lowest number that has not come.
    awaited: u32,
    /// Bit i: `awaited + i` has come; bit 0 never is set.
    received: u64,
    /// Rows for pages in parts; none before the first.
    partial: Box<[Partial]>,
}

impl Receiver {
    pub(crate) fn new() -> Receiver {
        Receiver { awaited: 0, received: 0, partial: Box::default() }
    }

    /// Takes the memory for pages in parts, if it has not.
    pub(crate) fn open(&mut self) {
        if self.partial.is_empty() {
            self.partial = vec![Partial::default(); ROWS].into_boxed_slice();
        }
    }

    pub(crate) fn state(&self) -> (u32, u64) {
        (self.awaited, self.received)
    }

    /// Whether this number comes next, and none that is later has come.
    #[inline]
    pub(crate) fn awaits(&self, sequence: u32) -> bool {
        self.awaited == sequence && !self.gap()
    }

    /// Whether an earlier number is missing.
    pub(crate) fn gap(&self) -> bool {
        self.received != 0
    }

    /// Takes a message or part, once.
    #[inline(always)]
    pub(crate) fn accept(
        &mut self,
        message: &Message<'_>,
        payload: Payload<'_>,
        (plan, window): (Plan, u8),
        pool: &mut Pool,
    ) -> Verdict {
        let offset = message.sequence.wrapping_sub(self.awaited);
        if (offset as i32) < 0 {
            return Verdict::Duplicate;
        }
        if offset >= u32::from(window) {
            return Verdict::Beyond;
        }
        if self.received >> offset & 1 != 0 {
            return Verdict::Duplicate;
        }
        let verdict = match message.parts {
            0 => Verdict::Whole,
            parts if parts != plan.parts => Verdict::Malformed,
            1 if payload.len() == PAGE_SIZE => Verdict::Whole,
            1 => Verdict::Malformed,
            _ => match payload {
                Payload::Here(bytes) => self.assemble(message, bytes, plan, pool),
                Payload::Apart(_) => Verdict::Malformed,
            },
        };
        if matches!(verdict, Verdict::Whole | Verdict::Assembled(_) | Verdict::Kept) {
            self.received |= 1 << offset;
            let run = self.received.trailing_ones();
            self.received >>= run;
            self.awaited = self.awaited.wrapping_add(run);
        }
        verdict
    }

    fn assemble(
        &mut self,
        m: &Message<'_>,
        payload: &[u8],
        plan: Plan,
        pool: &mut Pool,
    ) -> Verdict {
        self.open();
        let (start, len) = plan.slice(m.part);
        let partial = &mut self.partial[row(m.sequence.wrapping_sub(u32::from(m.part)))];
        let bit = 1 << m.part;
        if payload.len() != usize::from(len) || partial.got & bit != 0 {
            return Verdict::Malformed;
        }
        if partial.got == 0 {
            let Some(buffer) = pool.free.pop() else { return Verdict::NoBuffer };
            partial.buffer = buffer;
        }
        partial.got |= bit;
        let start = usize::from(start);
        pool.buffers[usize::from(partial.buffer)][start..start + payload.len()]
            .copy_from_slice(payload);
        if partial.got == (1 << plan.parts) - 1 {
            partial.got = 0;
            return Verdict::Assembled(partial.buffer);
        }
        Verdict::Kept
    }

    /// Gives back the buffers of pages that will never be complete.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        for partial in self.partial.iter_mut().filter(|p| p.got != 0) {
            partial.got = 0;
            pool.give_back(partial.buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Channel;

    fn message(sequence: u32, part: u8, parts: u8) -> Message<'static> {
        Message { channel: Channel::Request, sequence, part, parts, body: &[0; 32] }
    }

    #[test]
    fn plans_cover_the_page() {
        for mtu in wire::MTU_MIN..=wire::MTU_MAX {
            let plan = Plan::new(mtu);
            let mut end = 0;
            for part in 0..plan.parts {
                let (start, len) = plan.slice(part);
                assert_eq!(start, end);
                assert!(PAGE_OFFSET + usize::from(len) <= usize::from(mtu) + ETHERNET_BYTES);
                end = start + len;
            }
            assert_eq!(usize::from(end), PAGE_SIZE);
            assert!(plan.parts <= crate::WINDOW_MIN);
        }
        assert_eq!((Plan::new(1500).parts, Plan::new(9000).parts), (3, 1));
    }

    #[test]
    fn takes_each_number_once_within_the_window() {
        let (plan, mut pool) = (Plan::new(9000), Pool::new(0));
        let mut receiver = Receiver::new();
        receiver.awaited = u32::MAX - 1; // numbers wrap
        let mut take =
            |n: u32| receiver.accept(&message(n, 0, 0), Payload::Here(&[]), (plan, 4), &mut pool);
        assert_eq!(take(2), Verdict::Beyond);
        assert_eq!(take(1), Verdict::Whole);
        assert_eq!(take(1), Verdict::Duplicate);
        assert_eq!(take(u32::MAX - 1), Verdict::Whole);
        assert_eq!(take(3), Verdict::Beyond);
        assert_eq!(take(u32::MAX - 1), Verdict::Duplicate);
        assert_eq!(take(2), Verdict::Whole);
        assert_eq!(take(u32::MAX), Verdict::Whole);
        assert_eq!(take(0), Verdict::Whole);
        assert_eq!(receiver.state(), (3, 0));
    }

    #[test]
    fn a_page_in_one_frame_is_a_whole_page() {
        let (plan, mut pool) = (Plan::new(9000), Pool::new(1));
        let mut receiver = Receiver::new();
        let mut take = |n: u32, parts: u8, payload: Payload<'_>| {
            let verdict = receiver.accept(&message(n, 0, parts), payload, (plan, 4), &mut pool);
            (verdict, receiver.gap())
        };
        let page = [0; PAGE_SIZE];
        for payload in [Payload::Here(&page[1..]), Payload::Apart(PAGE_SIZE - 1)] {
            assert_eq!(take(0, 1, payload), (Verdict::Malformed, false));
        }
        assert_eq!(take(0, 3, Payload::Here(&page)), (Verdict::Malformed, false));
        assert_eq!(take(1, 1, Payload::Apart(PAGE_SIZE)), (Verdict::Whole, true));
        assert_eq!(take(0, 1, Payload::Here(&page)), (Verdict::Whole, false));
    }

    #[test]
    fn an_empty_pool_refuses_and_recovers() {
        let (plan, mut pool) = (Plan::new(1500), Pool::new(1));
        let (mut a, mut b) = (Receiver::new(), Receiver::new());
        let part = |r: &mut Receiver, pool: &mut Pool, part: u8| {
            let bytes = [part + 1; PAGE_SIZE];
            let (_, len) = plan.slice(part);
            let payload = &bytes[..usize::from(len)];
            r.accept(&message(u32::from(part), part, 3), Payload::Here(payload), (plan, 4), pool)
        };
        assert_eq!(part(&mut a, &mut pool, 2), Verdict::Kept);
        assert_eq!(part(&mut b, &mut pool, 0), Verdict::NoBuffer);
        assert_eq!(b.state(), (0, 0));
        assert_eq!(part(&mut a, &mut pool, 0), Verdict::Kept);
        assert_eq!(part(&mut a, &mut pool, 1), Verdict::Assembled(0));
        let page = pool.page(0);
        assert_eq!((page[0], page[1384], page[PAGE_SIZE - 1]), (1, 2, 3));
        pool.give_back(0);
        assert_eq!(part(&mut b, &mut pool, 0), Verdict::Kept);
        b.clear(&mut pool);
        assert_eq!(pool.free.len(), 1);
    }
}
