//! Nodes on one memory, in one process.

use super::*;
use crate::fake::{FakeEnvironment, fake_page};
use core::ptr::NonNull;
use std::vec::Vec;

/// A memory for `nodes` nodes, zeroed.
fn memory(nodes: usize) -> (NonNull<u8>, usize) {
    let len = nodes * nodes * RING_BYTES;
    let layout = std::alloc::Layout::from_size_align(len, 4096).unwrap();
    // SAFETY: the layout is not empty.
    (NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap(), len)
}

fn node((base, len): (NonNull<u8>, usize), identity: u64) -> Result<SharedMemory, NicError> {
    // SAFETY: leaked, zeroed pages that only these tests' regions refer to.
    let region = unsafe { SharedRegion::new(base, len) };
    SharedMemory::start(region, identity, None, &mut FakeEnvironment::default())
}

fn frame(to: [u8; 6], from: [u8; 6], fill: u8) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend([0x88, 0xB5]);
    frame.extend([fill; 50]);
    frame
}

fn take(node: &mut SharedMemory) -> Option<Vec<u8>> {
    // Every second frame is looked at first.
    let looks = node.counters.received.is_multiple_of(2);
    let shown = if looks { node.peek().map(|peek| peek.frame.to_vec()) } else { None };
    let mut got = None;
    let any = node.receive(|arrival| got = Some(crate::fake::bytes_of(arrival)));
    assert_eq!(any, got.is_some());
    if shown.is_some() {
        assert_eq!(shown, got, "what was shown is what is taken");
    }
    got
}

#[test]
fn each_node_has_a_place_and_an_address_of_its_own() {
    let shared = memory(3);
    let nodes: Vec<_> = (1..=3).map(|id| node(shared, id).unwrap()).collect();
    let macs: Vec<_> = nodes.iter().map(|n| n.mac()).collect();
    assert_eq!(macs.iter().map(|m| m[5]).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(macs.iter().all(|m| m[0] & 3 == 2), "locally administered, no group");
    assert_eq!(node(shared, 4).err(), Some(NicError::NoPlace));
    assert_eq!(node(memory(1), 1).err(), Some(NicError::BadConfiguration));
}

#[test]
fn frames_with_pages_arrive_whole_and_in_order() {
    let shared = memory(2);
    let (mut a, mut b) = (node(shared, 1).unwrap(), node(shared, 2).unwrap());
    let page = fake_page(96, 4000, |i| i as u8);
    for n in 0..500u64 {
        let with_page = n % 3 == 0;
        let header = frame(b.mac(), a.mac(), n as u8);
        a.transmit(&header, with_page.then_some(page), &[]).unwrap();
        assert!(b.receive_ready() && !a.receive_ready());
        let got = take(&mut b).unwrap();
        assert_eq!(got[..header.len()], header[..]);
        let tail = &got[header.len()..];
        assert_eq!(tail.len(), if with_page { 4000 } else { 0 });
        assert!(tail.iter().enumerate().all(|(i, &byte)| byte == i as u8));
        assert!(take(&mut b).is_none());
    }
    assert_eq!((a.pages_sent(), b.counters().received), (167, 500));
}

#[test]
fn a_full_ring_says_so_and_loses_nothing() {
    let shared = memory(2);
    let (mut a, mut b) = (node(shared, 1).unwrap(), node(shared, 2).unwrap());
    let mut sent = 0u8;
    while a.room() > 0 {
        a.transmit(&frame(b.mac(), a.mac(), sent), None, &[]).unwrap();
        sent += 1;
    }
    assert_eq!(u64::from(sent), ENTRIES);
    assert_eq!(a.transmit(&frame(b.mac(), a.mac(), 0), None, &[]), Err(TransmitError::Full));
    assert_eq!(take(&mut b).unwrap()[20], 0);
    assert_eq!(a.room(), 1);
    for n in 1..sent {
        assert_eq!(take(&mut b).unwrap()[20], n);
    }
    assert_eq!(a.room() as u64, ENTRIES);
}

#[test]
fn a_broadcast_reaches_all_others_and_strangers_nobody() {
    let shared = memory(4);
    let mut nodes: Vec<_> = (1..=3).map(|id| node(shared, id).unwrap()).collect();
    let from = nodes[1].mac();
    nodes[1].transmit(&frame([0xFF; 6], from, 9), None, &[]).unwrap();
    nodes[1].transmit(&frame([2, 0, 0, 0, 0, 1], from, 9), None, &[]).unwrap();
    nodes[1].transmit(&frame([0x02, 0x50, 0x47, 0x53, 0x4D, 200], from, 9), None, &[]).unwrap();
    let got: Vec<_> = nodes.iter_mut().map(|n| std::iter::from_fn(|| take(n)).count()).collect();
    assert_eq!(got, [1, 0, 1]);
}

/// What another node writes is not believed.
#[test]
fn lengths_and_counts_that_cannot_be_are_dropped() {
    let shared = memory(2);
    let (mut a, mut b) = (node(shared, 1).unwrap(), node(shared, 2).unwrap());
    // SAFETY: as in `node`.
    let mut liar = unsafe { SharedRegion::new(shared.0, shared.1) };
    let ring = RING_BYTES; // from place 0 to place 1
    for (n, len) in [0, 13, FRAME_MAX as u64 + 1, u64::MAX].into_iter().enumerate() {
        let entry = ring + 8192 * (1 + n);
        liar.write(entry + 8, len);
        liar.write(entry, n as u64 + 1);
    }
    assert!(take(&mut b).is_none());
    assert_eq!(b.counters().dropped, 4);
    // A reader that claims to have read what was never written.
    for _ in 0..40 {
        a.transmit(&frame(b.mac(), a.mac(), 1), None, &[]).unwrap();
    }
    liar.write(ring, u64::MAX);
    assert_eq!(a.room() as u64, ENTRIES - 40 + 4);
}

#[test]
fn a_place_taken_over_takes_the_link_down() {
    let shared = memory(2);
    let mut a = node(shared, 1).unwrap();
    assert!(a.link_up());
    // SAFETY: as in `node`.
    unsafe { SharedRegion::new(shared.0, shared.1) }.write(0, 77);
    assert!(!a.link_up());
}

#[test]
fn a_long_frame_lands_in_a_page_of_its_own() {
    let shared = memory(2);
    let (mut a, mut b) = (node(shared, 1).unwrap(), node(shared, 2).unwrap());
    let page = fake_page(14, 4082, |i| i as u8);
    a.transmit(&frame(b.mac(), a.mac(), 3)[..14], Some(page), &[9; 128]).unwrap();
    let mut landed = None;
    b.receive(|arrival| match arrival {
        Arrival::Long(page, rest) => {
            assert_eq!(rest, [9; 128]);
            assert!(page.content()[14..].iter().enumerate().all(|(i, &byte)| byte == i as u8));
            landed = Some(page.frame());
        }
        Arrival::Whole(_) => panic!("it is longer than a page"),
    });
    assert_eq!(landed.map(|f| (f, f.offset_by(1))), b.landing_frames());
}
