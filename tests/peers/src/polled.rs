//! Pages over raw Ethernet frames, by Pangaea's e1000 driver in user space,
//! polled: no system call and no interrupt between a request and its answer.
//!
//! A frame is an Ethernet header, a [`Head`] and, where it carries one, a
//! page. `GET` is answered by `PAGE`, `PUT` by `KEPT`, each with the
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
/// Ethernet header and [`Head`].
const HEAD_LEN: usize = 14 + 14;
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

    /// Reads a frame: what it says, and the page if there is one.
    fn read(frame: &[u8]) -> Option<(Head, &[u8])> {
        if frame.get(12..14) != Some(&ETHERTYPE) || frame.get(14..16) != Some(&MARK) {
            return None;
        }
        let word = |at: usize| Some(u32::from_le_bytes(frame.get(at..at + 4)?.try_into().ok()?));
        let head = Head { what: word(16)?, page: word(20)?, number: word(24)? };
        let has_page = [PUT, DATA].contains(&head.what);
        let payload = frame.get(HEAD_LEN..)?;
        Some((head, if has_page { payload.get(..PAGE)? } else { &[] }))
    }
}

/// The NIC, and its own address.
struct Wire {
    nic: E1000<Mmio>,
    mac: [u8; 6],
    joined: Vec<u8>,
}

/// A frame in one piece: what a page is put into wants it so. The driver's
/// buffers are pages, and the head before a page pushes its end into a second
/// one.
fn in_one_piece<'a>(frame: Arrival<'a>, joined: &'a mut Vec<u8>) -> &'a [u8] {
    match frame {
        Arrival::Whole(bytes) => bytes,
        Arrival::Long(page, rest) => {
            joined.clear();
            joined.extend_from_slice(page.content());
            joined.extend_from_slice(rest);
            joined
        }
    }
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
        Ok(Wire { nic, mac, joined: Vec::with_capacity(nic::BUFFER_LEN) })
    }

    /// Sends a frame, as soon as there is room.
    fn send(&mut self, head: Head, page: Option<PageSlice>) -> Result<()> {
        let header = head.write(self.mac);
        loop {
            match self.nic.transmit(&header, page, &[]) {
                Ok(()) => return Ok(()),
                Err(TransmitError::Full) => {}
                Err(TransmitError::TooLong) => bail!("a page does not fit into a frame"),
            }
        }
    }
}

/// The page frame at a physical address, whole.
fn whole(address: u64) -> PageSlice {
    PageSlice { frame: Frame((address / PAGE as u64) as _), offset: 0, len: PAGE as u16 }
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
        self.wire.send(head, Some(whole(self.slots.bus(put.slot * PAGE))))
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
        let joined = &mut self.wire.joined;
        self.wire.nic.receive(|frame| match Head::read(in_one_piece(frame, joined)) {
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
        let joined = &mut wire.joined;
        wire.nic.receive(|frame| {
            let Some((head, bytes)) = Head::read(in_one_piece(frame, joined)) else { return };
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
                let page = whole(physical[offset / HUGE] + (offset % HUGE) as u64);
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

    #[test]
    fn frames_are_read_as_they_were_written() {
        let head = Head { what: DATA, page: 7, number: u32::MAX };
        let mut frame = head.write([2, 0, 0, 0, 0, 1]).to_vec();
        assert!(Head::read(&frame).is_none(), "the page is missing");
        frame.extend([9; PAGE]);
        assert_eq!(Head::read(&frame), Some((head, &[9; PAGE][..])));
        let get = Head { what: GET, ..head }.write([2, 0, 0, 0, 0, 1]);
        assert_eq!(Head::read(&get).unwrap().1, []);
    }

    #[test]
    fn other_frames_are_passed_over() {
        let good = Head { what: GET, page: 1, number: 1 }.write([2; 6]);
        for len in 0..HEAD_LEN {
            assert!(Head::read(&good[..len]).is_none(), "{len} bytes");
        }
        for at in [12, 15] {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(Head::read(&bad).is_none(), "byte {at}");
        }
    }
}
