//! Frames folded and unfolded again.

use super::*;
use crate::fake::FakeEnvironment;
use crate::{Environment, NicCounters, Peek};
use std::vec;
use std::vec::Vec;

/// Page frames of the test's own; their numbers are their addresses.
struct Pages;

impl HostMemory for Pages {
    fn read_entry(&self, frame: Frame, index: usize) -> u64 {
        crate::fake::device_word(frame.start().0 + 8 * index as u64, 8)
    }
    fn write_entry(&mut self, _: Frame, _: usize, _: u64) {
        unreachable!("no tables here")
    }
    fn zero(&mut self, _: Frame) {
        unreachable!("nothing is zeroed")
    }
    fn is_zero(&self, _: Frame) -> bool {
        unreachable!("nothing is looked at")
    }
    fn write(&mut self, frame: Frame, offset: usize, from: &[u8]) {
        crate::fake::device_write(frame.start().0 + offset as u64, from);
    }
    fn read(&self, _: Frame, _: usize, _: &mut [u8]) {
        unreachable!("pages are sent from where they lie")
    }
}

/// A NIC that only keeps what it is told to send.
#[derive(Default)]
struct Wire {
    sent: Vec<u8>,
    /// Header, bytes of page, tail.
    staged: Option<(Vec<u8>, u16, Vec<u8>)>,
}

impl Nic for Wire {
    fn mac(&self) -> [u8; 6] {
        [2; 6]
    }
    fn mtu(&self) -> u16 {
        9000
    }
    fn link_up(&mut self) -> bool {
        true
    }
    fn transmit(
        &mut self,
        header: &[u8],
        page: Option<PageSlice>,
        tail: &[u8],
    ) -> Result<(), TransmitError> {
        let page = page.map(|p| crate::fake::device_read(p.address(), usize::from(p.len)));
        self.sent = [header, &page.unwrap_or_default(), tail].concat();
        Ok(())
    }
    fn stage(&mut self, header: &[u8], page_len: u16, tail: &[u8]) -> bool {
        self.staged = Some((header.to_vec(), page_len, tail.to_vec()));
        true
    }
    fn staged(&mut self) -> Option<&mut [u8]> {
        self.staged.as_mut().map(|s| if s.2.is_empty() { &mut s.0[..] } else { &mut s.2[..] })
    }
    fn launch(&mut self, page: Option<PageSlice>) -> bool {
        let Some((header, len, tail)) = self.staged.take() else { return false };
        assert_eq!(len, page.map_or(0, |page| page.len));
        self.transmit(&header, page, &tail).is_ok()
    }
    fn peek(&mut self) -> Option<Peek<'_>> {
        None
    }
    fn receive(&mut self, _: impl FnOnce(Arrival<'_>)) -> bool {
        false
    }
    fn receive_ready(&self) -> bool {
        false
    }
    fn transmit_pending(&mut self) -> bool {
        false
    }
    fn pages_sent(&mut self) -> u64 {
        0
    }
    fn room(&mut self) -> usize {
        1
    }
    fn enable_interrupts(&mut self) {}
    fn acknowledge_interrupt(&mut self) -> bool {
        false
    }
    fn disable_interrupts(&mut self) {}
    fn raise_interrupt(&mut self) -> bool {
        false
    }
    fn counters(&mut self) -> NicCounters {
        NicCounters::default()
    }
}

fn landing() -> LandingPage {
    FakeEnvironment::default().dma(PAGE_SIZE).unwrap().into_pages().remove(0)
}

fn header() -> Vec<u8> {
    let mut header: Vec<u8> = (0..128).collect();
    header[TYPE].copy_from_slice(&PLAIN);
    header
}

fn sent(page: Option<PageSlice>) -> Vec<u8> {
    let mut wire = Wire::default();
    transmit(&mut wire, &Pages, &mut header(), page).unwrap();
    wire.sent
}

/// A frame that was staged before its page was known is the same on the wire.
#[test]
fn a_staged_frame_goes_as_any_other() {
    let page = crate::fake::fake_page(0, 4096, content);
    for page in [Some(page), None] {
        let mut wire = Wire::default();
        let mut known = header();
        known[100..].fill(0);
        assert!(stage(&mut wire, &known, page.is_some()));
        wire.staged().unwrap()[100..].copy_from_slice(&header()[100..]);
        assert!(launch(&mut wire, &Pages, page));
        assert_eq!(wire.sent, sent(page));
        assert!(!launch(&mut wire, &Pages, page), "once");
    }
}

fn content(i: u16) -> u8 {
    (i % 249) as u8
}

#[test]
fn a_page_lands_in_its_frame_whatever_the_pieces() {
    let bytes = sent(Some(crate::fake::fake_page(0, 4096, content)));
    assert_eq!(bytes.len(), 4096 + 128);
    assert_eq!(bytes[TYPE], FOLDED);
    let (body, rest) = bytes.split_at(PAGE_SIZE);
    let mut pieces = (landing(), rest.to_vec());
    pieces.0.bytes_mut(PAGE_SIZE).copy_from_slice(body);
    let mut unfolder = Unfolder::new(Some(landing()));
    for whole in [false, true] {
        let (page, rest) = (&mut pieces.0, &mut pieces.1[..]);
        let arrival = if whole { Arrival::Whole(&bytes) } else { Arrival::Long(page, rest) };
        let Unfolded::Landed(head, page) = unfolder.unfold(&mut Pages, arrival) else {
            panic!("it does not unfold")
        };
        assert_eq!(head, header());
        let page = page.bytes(PAGE_SIZE);
        assert!(page.iter().enumerate().all(|(i, &b)| b == content(i as u16)), "whole: {whole}");
    }
    assert_eq!(unfolder.copied, 1);
}

/// What was unfolded where it lies, and written to since, is not unfolded again.
#[test]
fn a_frame_is_unfolded_once() {
    let bytes = sent(Some(crate::fake::fake_page(0, 4096, content)));
    let (body, rest) = bytes.split_at(PAGE_SIZE);
    let mut unfolder = Unfolder::new(None);
    for _ in 0..2 {
        let mut pieces = (landing(), rest.to_vec());
        let (page, rest) = (&mut pieces.0, &mut pieces.1[..]);
        page.bytes_mut(PAGE_SIZE).copy_from_slice(body);
        assert!(unfolder.unfold_ahead(page, rest) && unfolder.unfold_ahead(page, rest));
        assert_eq!(rest, header());
        assert!((0..4096).all(|i| page.bytes(PAGE_SIZE)[usize::from(i)] == content(i)));
        page.bytes_mut(PAGE_SIZE)[TYPE].copy_from_slice(&FOLDED);
        let Unfolded::Landed(head, page) = unfolder.unfold(&mut Pages, Arrival::Long(page, rest))
        else {
            panic!("it does not unfold")
        };
        assert_eq!((head, &page.bytes(14)[TYPE]), (&header()[..], &FOLDED[..]));
    }
    let mut foreign = (landing(), vec![0; 128]);
    assert!(!unfolder.unfold_ahead(&mut foreign.0, &mut foreign.1));
    let arrival = Arrival::Long(&mut foreign.0, &mut foreign.1);
    assert!(matches!(unfolder.unfold(&mut Pages, arrival), Unfolded::Foreign));
}

#[test]
fn what_has_no_whole_page_goes_as_it_is() {
    let part = crate::fake::fake_page(8, 1000, content);
    let bytes = sent(Some(part));
    assert_eq!((bytes.len(), &bytes[..128]), (1128, &header()[..]));
    assert_eq!(sent(None), header());
    let mut unfolder = Unfolder::new(None);
    let plain = unfolder.unfold(&mut Pages, Arrival::Whole(&bytes));
    assert!(matches!(plain, Unfolded::Plain(b) if b == bytes));
}

#[test]
fn foreign_frames_are_told_apart() {
    let mut unfolder = Unfolder::new(Some(landing()));
    let mut long = (landing(), vec![0; 128]);
    long.0.bytes_mut(14)[TYPE].copy_from_slice(&[8, 0]);
    let arrival = Arrival::Long(&mut long.0, &mut long.1);
    assert!(matches!(unfolder.unfold(&mut Pages, arrival), Unfolded::Foreign));
    long.0.bytes_mut(14)[TYPE].copy_from_slice(&FOLDED);
    let arrival = Arrival::Long(&mut long.0, &mut long.1[..13]);
    assert!(matches!(unfolder.unfold(&mut Pages, arrival), Unfolded::Foreign));
    for len in [14, 4095, 4096, 4109, 4096 + 257] {
        let mut bytes = vec![0; len];
        bytes[TYPE].copy_from_slice(&FOLDED);
        let arrival = Arrival::Whole(&bytes);
        let unfolded = unfolder.unfold(&mut Pages, arrival);
        assert!(matches!(unfolded, Unfolded::Foreign), "{len}");
    }
    for len in 0..14 {
        let bytes = vec![0; len];
        let unfolded = unfolder.unfold(&mut Pages, Arrival::Whole(&bytes));
        assert!(matches!(unfolded, Unfolded::Plain(_)));
    }
    assert_eq!(unfolder.copied, 0);
}
