//! Pages over raw Ethernet frames, by Pangaea's e1000 driver in user space,
//! polled: no system call and no interrupt between a request and its answer.
//!
//! A frame is an Ethernet header and a [`Head`]. With a page it is the header,
//! the page from its byte 14 on, the page's first 14 bytes, and the head: the
//! driver's buffers are pages, so that the page is whole in one of them once
//! its first bytes have changed places with the header. `GET` is answered by `PAGE`, `PUT` by `KEPT`, each with the
//! request's number; a request without an answer is sent again, which changes
//! nothing if only the answer was lost. A page that is sent leaves from
//! where the device can read it: on the server from the store itself, on the
//! pager's side, whose memory may move, from a copy.

use crate::dma::{self, HugePages};
use crate::link::{GET, Link, PAGE, PUT};
use crate::memory::HUGE;
use crate::store::Store;
use addr::Frame;
use anyhow::{Context, Result, bail};
use nic::e1000::E1000;
use nic::{Arrival, Mmio, Nic, PageSlice, TransmitError};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Answers, beside [`GET`] and [`PUT`].
const DATA: u32 = 3;
const KEPT: u32 = 4;
/// "Local Experimental Ethertype 1" (IEEE 802, table 9-1), and a mark.
const ETHERTYPE: [u8; 2] = [0x88, 0xB5];
const MARK: [u8; 2] = *b"PG";
/// Bytes of the Ethernet header, and of it with a [`Head`].
const LEAD: usize = nic::ETHERNET_HEADER_LEN;
const HEAD_LEN: usize = LEAD + 14;
/// Pages under way to the server at most.
const SLOTS: usize = 16;
/// When a request is sent again, and when it is given up.
const AGAIN: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);
/// Huge pages for rings and buffers, and for the slots.
const HUGE_PAGES: usize = 4;

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    what: u32,
    page: u32,
    number: u32,
}

impl Head {
    /// The bytes before the page. There is one other machine on the link, so
    /// all frames are broadcast.
    fn write(self, from: [u8; 6]) -> [u8; HEAD_LEN] {
        let mut bytes = [0xFF; HEAD_LEN];
        bytes[6..12].copy_from_slice(&from);
        bytes[12..14].copy_from_slice(&ETHERTYPE);
        bytes[14..16].copy_from_slice(&MARK);
        for (at, word) in [(16, self.what), (20, self.page), (24, self.number)] {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a frame in one piece, without a page.
    fn read(frame: &[u8]) -> Option<Head> {
        let head = Head::read_end(frame.get(LEAD..)?)?;
        (frame[12..LEAD] == ETHERTYPE).then_some(head)
    }

    /// Reads what follows the Ethernet header.
    fn read_end(bytes: &[u8]) -> Option<Head> {
        if bytes.get(..2) != Some(&MARK) {
            return None;
        }
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Head { what: word(2)?, page: word(6)?, number: word(10)? })
    }
}

/// Reads a frame that carries a page, whose parts are `first`, one buffer's
/// bytes, and `rest`. The page is whole in `first` then.
fn unfold<'a>(first: &'a mut [u8], rest: &[u8]) -> Option<(Head, &'a [u8])> {
    let (lead, end) = rest.split_at_checked(LEAD)?;
    let head = Head::read_end(end)?;
    if first.len() != PAGE || first[12..LEAD] != ETHERTYPE {
        return None;
    }
    first[..LEAD].copy_from_slice(lead);
    Some((head, first))
}

/// Reads any frame: what it says, and the page if it carries one.
fn read(frame: Arrival<'_>) -> Option<(Head, &[u8])> {
    let (head, page) = match frame {
        Arrival::Whole(bytes) => (Head::read(bytes)?, &[][..]),
        Arrival::Long(page, rest) => unfold(page.content_mut(), rest)?,
    };
    let has_page = [PUT, DATA].contains(&head.what);
    (has_page != page.is_empty()).then_some((head, page))
}

/// The NIC, and its own address.
struct Wire {
    nic: E1000<Mmio>,
    mac: [u8; 6],
}

impl Wire {
    /// Starts the NIC and waits for its link.
    fn start(memory: &mut HugePages) -> Result<Wire> {
        let mut nic = dma::start(memory)?;
        let begun = Instant::now();
        while !nic.link_up() {
            if begun.elapsed() > LIMIT {
                bail!("the e1000 has no link");
            }
        }
        let mac = nic.mac();
        Ok(Wire { nic, mac })
    }

    /// Sends a frame, as soon as there is room.
    fn send(&mut self, head: Head, page: Option<Page<'_>>) -> Result<()> {
        let header = head.write(self.mac);
        let mut end = [0; HEAD_LEN];
        let (lead, slice, tail) = match page {
            None => (&header[..], None, &[][..]),
            Some(page) => {
                end[..LEAD].copy_from_slice(&page.bytes[..LEAD]);
                end[LEAD..].copy_from_slice(&header[LEAD..]);
                let frame = Frame(page.physical / PAGE as u64);
                let (offset, len) = (LEAD as u16, (PAGE - LEAD) as u16);
                (&header[..LEAD], Some(PageSlice { frame, offset, len }), &end[..])
            }
        };
        loop {
            match self.nic.transmit(lead, slice, tail) {
                Ok(()) => return Ok(()),
                Err(TransmitError::Full) => {}
                Err(TransmitError::TooLong) => bail!("a page does not fit into a frame"),
            }
        }
    }
}

/// A page to send: its bytes, and where the device finds them.
#[derive(Clone, Copy)]
struct Page<'a> {
    bytes: &'a [u8],
    physical: u64,
}

/// A page that is under way to the server.
struct Put {
    page: u32,
    number: u32,
    slot: usize,
    sent: Instant,
}

/// The pager's end.
pub(crate) struct Client {
    wire: Wire,
    slots: nic::DmaRegion,
    free: Vec<usize>,
    puts: VecDeque<Put>,
    number: u32,
}

impl Client {
    /// Starts the NIC.
    pub(crate) fn start() -> Result<Client> {
        use nic::Environment;
        let mut memory = HugePages::new(HUGE_PAGES)?;
        let wire = Wire::start(&mut memory)?;
        let slots = memory.dma(SLOTS * PAGE).context("there is no memory for pages")?;
        let free = (0..SLOTS).collect();
        Ok(Client { wire, slots, free, puts: VecDeque::new(), number: 0 })
    }

    fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// Sends a page that lies in a slot.
    fn send_slot(&mut self, put: &Put) -> Result<()> {
        let head = Head { what: PUT, page: put.page, number: put.number };
        let at = put.slot * PAGE;
        let bytes = self.slots.bytes(at, PAGE);
        self.wire.send(head, Some(Page { bytes, physical: self.slots.bus(at) }))
    }

    /// Takes note that the server keeps a page.
    fn kept(&mut self, number: u32) {
        if let Some(at) = self.puts.iter().position(|put| put.number == number) {
            let put = self.puts.remove(at).expect("it was just found");
            self.free.push(put.slot);
        }
    }

    /// Looks at one received frame; `take` gets what `wanted` asked for.
    /// Says whether that came.
    fn receive(
        &mut self,
        wanted: Option<u32>,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let mut kept = None;
        let mut taken = None;
        self.wire.nic.receive(|frame| match read(frame) {
            Some((head, bytes)) if head.what == DATA && Some(head.number) == wanted => {
                taken = Some(take(bytes));
            }
            Some((head, _)) if head.what == KEPT => kept = Some(head.number),
            _ => {}
        });
        if let Some(number) = kept {
            self.kept(number);
        }
        taken.transpose().map(|taken| taken.is_some())
    }
}

impl Link for Client {
    fn get(&mut self, page: u32, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // The last word about this page may still be under way.
        if let Some(put) = self.puts.iter().rfind(|put| put.page == page) {
            return take(self.slots.bytes(put.slot * PAGE, PAGE));
        }
        let number = self.next_number();
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            self.wire.send(Head { what: GET, page, number }, None)?;
            let sent = Instant::now();
            while sent.elapsed() < AGAIN {
                if self.receive(Some(number), take)? {
                    return Ok(());
                }
            }
        }
        bail!("the page server does not answer")
    }

    fn put(&mut self, page: u32, bytes: &[u8; PAGE]) -> Result<()> {
        let begun = Instant::now();
        let slot = loop {
            if let Some(slot) = self.free.pop() {
                break slot;
            }
            self.receive(None, &mut |_| Ok(()))?;
            if begun.elapsed() > LIMIT {
                bail!("the page server does not answer");
            }
            if self.puts.front().is_some_and(|put| put.sent.elapsed() > AGAIN) {
                let mut late = self.puts.pop_front().expect("it was just seen");
                late.sent = Instant::now();
                self.send_slot(&late)?;
                self.puts.push_back(late);
            }
        };
        self.slots.copy_in(slot * PAGE, bytes);
        let put = Put { page, number: self.next_number(), slot, sent: Instant::now() };
        self.send_slot(&put)?;
        self.puts.push_back(put);
        Ok(())
    }
}

/// Serves `pages` pages for ever.
pub(crate) fn serve(pages: usize) -> Result<()> {
    let mut memory = HugePages::new(HUGE_PAGES)?;
    let mut store = Store::huge(pages)?;
    let runs = store.memory().len() / HUGE;
    let physical =
        (0..runs).map(|run| store.memory().physical(run * HUGE)).collect::<Result<Vec<_>>>()?;
    let mut wire = Wire::start(&mut memory)?;
    loop {
        let mut asked = None;
        wire.nic.receive(|frame| {
            let Some((head, bytes)) = read(frame) else { return };
            let Ok(place) = store.page_mut(head.page) else { return };
            if head.what == PUT {
                place.copy_from_slice(bytes);
            }
            asked = Some(head);
        });
        let Some(head) = asked else { continue };
        let offset = head.page as usize * PAGE;
        match head.what {
            GET => {
                let physical = physical[offset / HUGE] + (offset % HUGE) as u64;
                let page = Page { bytes: store.page_mut(head.page)?, physical };
                wire.send(Head { what: DATA, ..head }, Some(page))?;
            }
            PUT => wire.send(Head { what: KEPT, ..head }, None)?,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { what: DATA, page: 7, number: u32::MAX };

    /// The two buffers of a frame with a page.
    fn folded(page: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let header = HEAD.write([2, 0, 0, 0, 0, 1]);
        let first = [&header[..LEAD], &page[LEAD..]].concat();
        (first, [&page[..LEAD], &header[LEAD..]].concat())
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        let get = Head { what: GET, ..HEAD };
        assert_eq!(Head::read(&get.write([2, 0, 0, 0, 0, 1])), Some(get));
        let page: Vec<u8> = (0..PAGE).map(|i| (i % 251) as u8).collect();
        let (mut first, rest) = folded(&page);
        assert_eq!(unfold(&mut first, &rest), Some((HEAD, &page[..])));
    }

    #[test]
    fn other_frames_are_passed_over() {
        let good = Head { what: GET, ..HEAD }.write([2; 6]);
        for len in 0..HEAD_LEN {
            assert!(Head::read(&good[..len]).is_none(), "{len} bytes");
        }
        for at in [12, 15] {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(Head::read(&bad).is_none(), "byte {at}");
        }
        let (first, rest) = folded(&[9; PAGE]);
        for len in 0..rest.len() {
            assert!(unfold(&mut first.clone(), &rest[..len]).is_none(), "{len} bytes behind");
        }
        assert!(unfold(&mut first[1..].to_vec(), &rest).is_none());
        let mut foreign = first;
        foreign[13] ^= 1;
        assert!(unfold(&mut foreign, &rest).is_none());
        assert!(read(Arrival::Whole(&HEAD.write([2; 6]))).is_none(), "the page is missing");
    }
}
