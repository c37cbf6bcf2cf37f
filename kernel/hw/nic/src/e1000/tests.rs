//! The driver against a device that behaves, and one that does not.

use super::receive::{RETURN_BATCH, RING};
use super::registers::*;
use super::transmit::FRAMES;
use super::{E1000, Family};
use crate::fake::{FakeEnvironment, device_read, device_word, device_write, fake_page};
use crate::{
    Arrival, Environment, HEADER_MAX, MTU_MAX, Nic, NicError, PageSlice, Registers, TransmitError,
};
use addr::PAGE_SIZE;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::vec::Vec;
use std::{panic, vec};

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// A device: registers as last written, both rings walked on demand.
#[derive(Default)]
struct Device {
    values: HashMap<usize, u32>,
    writes: Vec<(usize, u32)>,
    /// EEPROM words, read through EERD.
    eeprom: [u16; 3],
    stuck_in_reset: bool,
    wire: Vec<Vec<u8>>,
    /// Descriptors done but not yet reported, for a device that is slow.
    hold_reports: bool,
}

impl Device {
    fn get(&self, register: usize) -> u32 {
        self.values.get(&register).copied().unwrap_or(0)
    }

    fn set(&mut self, register: usize, value: u32) {
        self.values.insert(register, value);
    }

    fn ring(&self, low: usize) -> u64 {
        u64::from(self.get(low)) | u64::from(self.get(low + 4)) << 32
    }

    /// Sends what lies between head and tail, reporting where RS asks for it.
    fn run_transmit(&mut self) {
        assert_ne!(self.get(TCTL) & TCTL_EN, 0);
        let mut frame = Vec::new();
        while self.get(TDH) != self.get(TDT) {
            let head = self.get(TDH);
            let place = self.ring(TDBAL) + u64::from(head) * 16;
            let fields = device_word(place + 8, 8);
            let len = (fields & 0xFFFF) as usize;
            frame.extend(device_read(device_word(place, 8), len));
            assert_ne!(fields & TX_CMD_IFCS, 0, "no checksum asked for");
            if fields & TX_CMD_EOP != 0 {
                self.wire.push(core::mem::take(&mut frame));
            }
            if fields & TX_CMD_RS != 0 && !self.hold_reports {
                device_write(place + 12, &[TX_DD]);
            }
            self.set(TDH, (head + 1) % (self.get(TDLEN) / 16));
        }
        assert!(frame.is_empty(), "a frame without an end");
    }

    /// Fills the next receive descriptor with raw fields; false if there is
    /// no descriptor.
    fn put_fields(&mut self, content: &[u8], fields: u64) -> bool {
        let head = self.get(RDH);
        if head == self.get(RDT) {
            return false;
        }
        let place = self.ring(RDBAL) + u64::from(head) * 16;
        device_write(device_word(place, 8), content);
        device_write(place + 8, &fields.to_le_bytes());
        self.set(RDH, (head + 1) % (self.get(RDLEN) / 16));
        true
    }

    fn put_frame(&mut self, content: &[u8]) -> bool {
        if let Some((page, rest)) = content.split_at_checked(PAGE_SIZE)
            && !rest.is_empty()
        {
            return self.put_fields(page, PAGE_SIZE as u64 | RX_DD) && self.put_frame(rest);
        }
        self.put_fields(content, content.len() as u64 | RX_DD | RX_EOP)
    }
}

#[derive(Clone)]
struct Bus(Rc<RefCell<Device>>);

impl Registers for Bus {
    fn read32(&self, offset: usize) -> u32 {
        let mut device = self.0.borrow_mut();
        let value = device.get(offset);
        match offset {
            ICR | MPC => device.set(offset, 0),
            CTRL if device.stuck_in_reset => return value | CTRL_RST,
            CTRL => return value & !CTRL_RST,
            EECD => return EECD_AUTO_RD,
            EERD => {
                let word = device.eeprom[(value >> 8 & 3) as usize];
                return u32::from(word) << 16 | 1 << 4;
            }
            _ => {}
        }
        value
    }

    fn write32(&mut self, offset: usize, value: u32) {
        let mut device = self.0.borrow_mut();
        device.writes.push((offset, value));
        match offset {
            ICS => device.set(ICR, value),
            IMS => {
                let mask = device.get(IMS) | value;
                device.set(IMS, mask);
            }
            IMC => {
                let mask = device.get(IMS) & !value;
                device.set(IMS, mask);
            }
            _ => device.set(offset, value),
        }
    }

    fn read8(&self, _: usize) -> u8 {
        unreachable!("all registers have 32 bits")
    }
    fn read16(&self, _: usize) -> u16 {
        unreachable!("all registers have 32 bits")
    }
    fn write8(&mut self, _: usize, _: u8) {
        unreachable!("all registers have 32 bits")
    }
    fn write16(&mut self, _: usize, _: u16) {
        unreachable!("all registers have 32 bits")
    }
}

fn new_device() -> Bus {
    let mut device = Device::default();
    device.set(RAL0, u32::from_le_bytes([MAC[0], MAC[1], MAC[2], MAC[3]]));
    device.set(RAH0, u32::from(MAC[4]) | u32::from(MAC[5]) << 8 | RAH_AV);
    Bus(Rc::new(RefCell::new(device)))
}

fn start_as(bus: &Bus, family: Family) -> Result<E1000<Bus>, NicError> {
    E1000::start(bus.clone(), family, None, &mut FakeEnvironment::default())
}

fn started() -> (E1000<Bus>, Bus) {
    let bus = new_device();
    let nic = start_as(&bus, Family::I8254x).unwrap();
    (nic, bus)
}

fn received(nic: &mut E1000<Bus>) -> Option<Vec<u8>> {
    // Every second frame is looked at first.
    let looks = nic.counters.received.is_multiple_of(2);
    let shown = if looks { nic.peek().map(|peek| peek.frame.to_vec()) } else { None };
    let mut got = None;
    let any = nic.receive(|arrival| got = Some(crate::fake::bytes_of(arrival)));
    assert_eq!(any, got.is_some());
    if shown.is_some() {
        assert_eq!(shown, got, "what was shown is what is taken");
    }
    got
}

fn header(byte: u8) -> Vec<u8> {
    vec![byte; 64]
}

#[test]
fn start_programs_jumbo_frames_and_the_address() {
    for family in [Family::I8254x, Family::I82574] {
        let bus = new_device();
        let mut nic = start_as(&bus, family).unwrap();
        assert_eq!((nic.mac(), nic.mtu()), (MAC, MTU_MAX));
        assert!(!nic.link_up());
        bus.0.borrow_mut().set(STATUS, STATUS_LU);
        assert!(nic.link_up());
        let device = bus.0.borrow();
        assert_eq!(device.get(RCTL) & (RCTL_EN | RCTL_LPE), RCTL_EN | RCTL_LPE);
        assert_eq!(device.get(IMS), 0, "interrupts stay off");
        let rctl = device.writes.iter().filter(|w| w.0 == RCTL && w.1 != 0).count();
        assert_eq!(rctl, 1, "receiving is switched on once");
    }
}

#[test]
fn start_takes_the_address_from_the_eeprom_if_none_was_loaded() {
    let bus = new_device();
    bus.0.borrow_mut().set(RAL0, 0);
    bus.0.borrow_mut().set(RAH0, 0);
    bus.0.borrow_mut().eeprom = [0x5452, 0x0100, 0x0302];
    assert_eq!(start_as(&bus, Family::I8254x).unwrap().mac(), MAC);
    bus.0.borrow_mut().set(RAL0, 0);
    bus.0.borrow_mut().set(RAH0, 0);
    bus.0.borrow_mut().eeprom = [0xFFFF; 3];
    assert_eq!(start_as(&bus, Family::I8254x).err(), Some(NicError::NoStationAddress));
}

#[test]
fn start_ends_for_a_dead_device_and_without_memory() {
    let bus = new_device();
    bus.0.borrow_mut().stuck_in_reset = true;
    let mut environment = FakeEnvironment::default();
    let result = E1000::start(bus.clone(), Family::I8254x, None, &mut environment);
    assert_eq!(result.err(), Some(NicError::ResetTimeout));
    assert!((100_000..1_000_000).contains(&environment.waited_us));
    bus.0.borrow_mut().stuck_in_reset = false;
    let mut environment = FakeEnvironment { left: Some(1 << 20), ..Default::default() };
    let result = E1000::start(bus, Family::I8254x, None, &mut environment);
    assert_eq!(result.err(), Some(NicError::NoMemory));
}

#[test]
fn a_page_is_sent_from_where_it_lies() {
    let (mut nic, bus) = started();
    let page = fake_page(16, 4080, |i| (i % 251) as u8);
    nic.transmit(&header(7), Some(page), &[]).unwrap();
    assert!(nic.transmit_pending());
    assert_eq!(nic.pages_sent(), 0);
    bus.0.borrow_mut().run_transmit();
    assert!(!nic.transmit_pending());
    assert_eq!(nic.pages_sent(), 1);
    let device = bus.0.borrow();
    let frame = &device.wire[0];
    assert_eq!(frame.len(), 64 + 4080);
    assert!(frame[..64].iter().all(|&b| b == 7));
    assert!(frame[64..].iter().enumerate().all(|(i, &b)| b == (i % 251) as u8));
    assert_eq!(nic.counters.sent_bytes, 64 + 4080);
}

#[test]
fn transmit_wraps_and_keeps_order() {
    let (mut nic, bus) = started();
    let page = fake_page(0, 4096, |i| i as u8);
    for n in 0..2000u32 {
        let mut head = header(0);
        head[14..18].copy_from_slice(&n.to_le_bytes());
        nic.transmit(&head, (n % 3 == 0).then_some(page), &[]).unwrap();
        if n % 50 == 49 {
            bus.0.borrow_mut().run_transmit();
        }
    }
    let device = bus.0.borrow();
    assert_eq!(device.wire.len(), 2000);
    for (n, frame) in device.wire.iter().enumerate() {
        assert_eq!(frame[14..18], (n as u32).to_le_bytes());
        assert_eq!(frame.len(), if n % 3 == 0 { 64 + 4096 } else { 64 });
    }
    assert_eq!(nic.pages_sent(), 667);
}

#[test]
fn a_full_ring_refuses_and_recovers() {
    let (mut nic, bus) = started();
    let page = fake_page(0, 4096, |_| 1);
    bus.0.borrow_mut().hold_reports = true;
    for _ in 0..FRAMES {
        nic.transmit(&header(1), Some(page), &[]).unwrap();
    }
    assert_eq!(nic.room(), 0);
    assert_eq!(nic.transmit(&header(1), None, &[]), Err(TransmitError::Full));
    // The device read all of it but does not say so: still full.
    bus.0.borrow_mut().run_transmit();
    assert_eq!(nic.transmit(&header(1), None, &[]), Err(TransmitError::Full));
    assert_eq!(nic.counters.full, 2);
    let end = (2 * FRAMES - 1) as u64;
    let place = bus.0.borrow().ring(TDBAL) + end * 16 + 12;
    device_write(place, &[TX_DD]);
    // The newest report alone does not count: reports come in order.
    assert_eq!(nic.room(), 0);
    for frame in 0..FRAMES as u64 {
        let place = bus.0.borrow().ring(TDBAL) + (2 * frame + 1) * 16 + 12;
        device_write(place, &[TX_DD]);
    }
    assert_eq!(nic.room(), FRAMES);
    assert_eq!(nic.pages_sent(), FRAMES as u64);
    nic.transmit(&header(2), None, &[]).unwrap();
}

#[test]
fn frames_without_a_page_report_seldom_but_often_enough() {
    let (mut nic, bus) = started();
    for _ in 0..10 * FRAMES {
        nic.transmit(&header(1), None, &[]).unwrap();
        bus.0.borrow_mut().run_transmit();
        assert!(!nic.transmit_pending());
    }
    assert!(nic.room() >= FRAMES / 2);
}

#[test]
fn frames_that_are_too_long_are_refused() {
    let (mut nic, _bus) = started();
    let page = fake_page(0, 4096, |_| 1);
    let long = vec![0; HEADER_MAX + 1];
    assert_eq!(nic.transmit(&long, None, &[]), Err(TransmitError::TooLong));
    nic.mtu = 1500;
    assert_eq!(nic.transmit(&header(0), Some(page), &[]), Err(TransmitError::TooLong));
    nic.transmit(&[0; 1514], None, &[]).unwrap();
    assert_eq!(nic.transmit(&[0; 1515], None, &[]), Err(TransmitError::TooLong));
    let outside = PageSlice { offset: 1, ..page };
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let _ = nic.transmit(&header(0), Some(outside), &[]);
    }));
    assert!(result.is_err(), "a slice that leaves its page is our own mistake");
}

#[test]
fn receive_wraps_and_returns_descriptors_in_batches() {
    let (mut nic, bus) = started();
    assert_eq!(received(&mut nic), None);
    for n in 0..5 * RING {
        let frame = vec![n as u8; 60 + n % 4000];
        assert!(bus.0.borrow_mut().put_frame(&frame), "ran dry at {n}");
        assert!(nic.receive_ready());
        assert_eq!(received(&mut nic), Some(frame));
        assert!(!nic.receive_ready());
    }
    let tails = bus.0.borrow().writes.iter().filter(|w| w.0 == RDT).count();
    assert_eq!(tails, 1 + 5 * RING / RETURN_BATCH);
}

#[test]
fn a_burst_fills_all_but_one_descriptor_and_none_is_lost() {
    let (mut nic, bus) = started();
    for round in 0..3 {
        let mut sent = 0u32;
        while bus.0.borrow_mut().put_frame(&[sent.to_le_bytes(); 16].concat()) {
            sent += 1;
        }
        assert!(sent as usize > RING - 1 - RETURN_BATCH, "round {round}: {sent}");
        for n in 0..sent {
            assert_eq!(received(&mut nic).unwrap()[..4], n.to_le_bytes());
        }
        assert_eq!(received(&mut nic), None);
    }
}

#[test]
fn the_longest_frame_fits_two_buffers() {
    let (mut nic, bus) = started();
    for len in [PAGE_SIZE, PAGE_SIZE + 1, usize::from(MTU_MAX) + 14] {
        let frame: Vec<u8> = (0..len).map(|i| i as u8).collect();
        bus.0.borrow_mut().put_frame(&frame);
        assert_eq!(received(&mut nic), Some(frame));
    }
}

#[test]
fn a_page_frame_is_exchanged_and_the_device_told() {
    let (mut nic, bus) = started();
    let (first, end) = nic.landing_frames().unwrap();
    assert_eq!(end.0 - first.0, RING as u64);
    let mut other = FakeEnvironment::default().dma(PAGE_SIZE).unwrap().into_pages();
    let frame = vec![3; PAGE_SIZE + 128];
    bus.0.borrow_mut().put_frame(&frame);
    let theirs = other[0].frame();
    let taken = nic.receive(|arrival| {
        let Arrival::Long(page, rest) = arrival else { panic!("in one piece") };
        assert_eq!((page.frame(), rest.len()), (first, 128));
        core::mem::swap(page, &mut other[0]);
    });
    assert!(taken);
    assert_eq!(other[0].bytes(PAGE_SIZE), &frame[..PAGE_SIZE]);
    let ring = bus.0.borrow().ring(RDBAL);
    assert_eq!(device_word(ring, 8), theirs.start().0);
    for n in 0..2 * RING {
        let frame = vec![n as u8; PAGE_SIZE + 128];
        bus.0.borrow_mut().put_frame(&frame);
        assert_eq!(received(&mut nic), Some(frame));
    }
    // Half a frame is none yet.
    bus.0.borrow_mut().put_fields(&[5; PAGE_SIZE], RX_DD | PAGE_SIZE as u64);
    assert_eq!(received(&mut nic), None);
    bus.0.borrow_mut().put_fields(&[6; 9], RX_DD | RX_EOP | 9);
    assert_eq!(received(&mut nic).unwrap().len(), PAGE_SIZE + 9);
    assert_eq!(nic.counters.dropped, 0);
}

#[test]
fn a_long_frame_is_seen_before_it_is_taken() {
    let (mut nic, bus) = started();
    let look = |nic: &mut E1000<Bus>| nic.peek_long(|page, rest| (page.frame(), rest.to_vec()));
    assert_eq!(look(&mut nic), None);
    let (first, _) = nic.landing_frames().unwrap();
    // One in a single piece is none, and neither is half of one.
    bus.0.borrow_mut().put_frame(&header(1));
    assert_eq!(look(&mut nic), None);
    assert!(received(&mut nic).is_some());
    bus.0.borrow_mut().put_fields(&[5; PAGE_SIZE], RX_DD | PAGE_SIZE as u64);
    assert_eq!(look(&mut nic), None);
    bus.0.borrow_mut().put_fields(&[6; 99], RX_DD | RX_EOP | 99);
    for _ in 0..2 {
        assert_eq!(look(&mut nic), Some((first.offset_by(1), vec![6; 99])));
    }
    assert_eq!(received(&mut nic).unwrap().len(), PAGE_SIZE + 99);
    assert_eq!(look(&mut nic), None);
    // One in three pieces, or damaged, is dropped when its turn comes.
    for last in [RX_DD | PAGE_SIZE as u64, RX_DD | RX_EOP | RX_ERRORS | 9] {
        bus.0.borrow_mut().put_fields(&[5; PAGE_SIZE], RX_DD | PAGE_SIZE as u64);
        bus.0.borrow_mut().put_fields(&[5; PAGE_SIZE], last);
        assert_eq!(look(&mut nic), None);
        bus.0.borrow_mut().put_fields(&[5; 9], RX_DD | RX_EOP | 9);
        while received(&mut nic).is_some() {}
        assert!(!nic.receive_ready());
    }
}

#[test]
fn a_tail_follows_the_page() {
    let (mut nic, bus) = started();
    let page = fake_page(14, 4082, |i| (i % 251) as u8);
    for _ in 0..3 * FRAMES {
        nic.transmit(&header(7)[..14], Some(page), &[8; 128]).unwrap();
        let mut device = bus.0.borrow_mut();
        device.run_transmit();
        let frame = device.wire.pop().unwrap();
        assert_eq!((frame.len(), frame[13], frame[14], frame[15]), (14 + 4082 + 128, 7, 0, 1));
        assert!(frame[4096..].iter().all(|&b| b == 8));
    }
}

/// A frame that is staged, completed and launched is the one that is transmitted;
/// whatever is sent or staged in between takes its place.
#[test]
fn a_staged_frame_is_sent_as_any_other() {
    let (mut nic, bus) = started();
    let page = fake_page(14, 4082, |i| (i % 251) as u8);
    for n in 0..2000u32 {
        let with_page = n % 3 == 0;
        let (first, rest): (&[u8], &[u8]) =
            if with_page { (&[5; 14], &[6; 128]) } else { (&[6; 128], &[]) };
        let page = with_page.then_some(page);
        assert!(nic.stage(first, page.map_or(0, |page| page.len), rest));
        assert_eq!(bus.0.borrow().get(TDH), bus.0.borrow().get(TDT), "nothing leaves");
        if n % 5 == 0 {
            nic.transmit(&header(1), None, &[]).unwrap();
            assert!(nic.staged().is_none() && !nic.launch(page), "another has left");
            bus.0.borrow_mut().run_transmit();
            assert_eq!(bus.0.borrow_mut().wire.pop(), Some(header(1)));
            assert!(nic.stage(first, page.map_or(0, |page| page.len), rest));
        }
        nic.staged().expect("it was staged")[124..].copy_from_slice(&n.to_le_bytes());
        if n % 7 == 0 {
            let other = fake_page(0, 8, |_| 0);
            assert!(!nic.launch(Some(other)), "it has another page or none");
        }
        assert!(nic.launch(page));
        assert!(nic.staged().is_none() && !nic.launch(page), "once");
        bus.0.borrow_mut().run_transmit();
        let mut whole =
            [first, &page.map_or(vec![], |_| (0..4082).map(|i| (i % 251) as u8).collect()), rest]
                .concat();
        let end = whole.len() - 4;
        whole[end..].copy_from_slice(&n.to_le_bytes());
        assert_eq!(bus.0.borrow_mut().wire.pop(), Some(whole), "frame {n}");
        assert!(!nic.transmit_pending());
    }
    assert_eq!((nic.pages_sent(), nic.counters.sent), (667, 2400));
    assert_eq!(nic.counters.sent_bytes, 667 * (14 + 4082) + 2000 * 128 + 400 * 64);
}

/// What cannot be sent is not staged, and nothing is left of what was.
#[test]
fn what_cannot_leave_is_not_staged() {
    let (mut nic, bus) = started();
    assert!(nic.stage(&header(1), 0, &[]));
    nic.mtu = 1500;
    assert!(!nic.stage(&header(1), 4082, &[]), "longer than the link");
    assert!(nic.staged().is_none());
    bus.0.borrow_mut().hold_reports = true;
    for _ in 0..FRAMES {
        nic.transmit(&header(1), None, &[]).unwrap();
    }
    assert!(!nic.stage(&header(1), 0, &[]), "no room");
    assert!(nic.staged().is_none());
}

#[test]
fn hostile_lengths_and_damaged_frames_are_dropped() {
    let (mut nic, bus) = started();
    let good = vec![9; 100];
    let done = RX_DD | RX_EOP;
    let bad = [
        done,                          // no byte
        done | (PAGE_SIZE as u64 + 1), // longer than the buffer
        done | 0xFFFF,
        done | 100 | 1 << 40, // CRC error
        done | 100 | 1 << 47, // receive error
    ];
    for fields in bad {
        bus.0.borrow_mut().put_fields(&good, fields);
    }
    // A frame over three descriptors: all of it goes, the next one comes.
    bus.0.borrow_mut().put_fields(&good, RX_DD | PAGE_SIZE as u64);
    bus.0.borrow_mut().put_fields(&good, RX_DD | PAGE_SIZE as u64);
    bus.0.borrow_mut().put_fields(&good, done | 100);
    // Checksum errors of the content are not about the frame.
    bus.0.borrow_mut().put_fields(&good, done | 100 | 1 << 45);
    assert_eq!(received(&mut nic), Some(good));
    assert_eq!(received(&mut nic), None);
    assert_eq!(nic.counters.dropped, 8);
    assert_eq!(nic.counters.received, 1);
}

#[test]
fn a_device_that_never_stops_does_not_hold_the_driver() {
    let (mut nic, bus) = started();
    // Every descriptor done at once, the driver's own one too.
    let ring = bus.0.borrow().ring(RDBAL);
    for index in 0..RING as u64 {
        device_write(ring + index * 16 + 8, &(RX_DD | RX_EOP | 0xFFFF).to_le_bytes());
    }
    assert_eq!(received(&mut nic), None);
    assert_eq!(nic.counters.dropped, RING as u64);
}

#[test]
fn interrupts_can_be_raised_acknowledged_and_stopped() {
    let (mut nic, bus) = started();
    bus.0.borrow_mut().set(ICR, INTERRUPT_RXT0);
    nic.enable_interrupts();
    assert!(!nic.acknowledge_interrupt(), "old causes are dropped");
    assert!(nic.raise_interrupt());
    let cause = bus.0.borrow().get(ICR) & bus.0.borrow().get(IMS);
    assert_ne!(cause, 0);
    assert!(nic.acknowledge_interrupt());
    assert!(!nic.acknowledge_interrupt());
    nic.disable_interrupts();
    assert_eq!(bus.0.borrow().get(IMS), 0);
    bus.0.borrow_mut().set(MPC, 3);
    assert_eq!((nic.counters().missed, nic.counters().interrupts), (3, 1));
}
