//! The driver against a device that behaves, and one that does not.

use super::fake::{Area, Bus, Device, DeviceQueue, MAC};
use super::registers::{NET_HEADER_LEN, feature, status};
use super::{CHAINS, InterruptKind, RECEIVE_SIZE, Structures, VirtioNet};
use crate::fake::{FakeEnvironment, device_word, device_write, fake_page};
use crate::{BUFFER_LEN, HEADER_MAX, MTU_MAX, Nic, NicError, TransmitError};
use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

const OFFERED: u64 = feature::VERSION_1 | feature::MAC | feature::MTU | feature::STATUS;

type Shared = Rc<RefCell<Device>>;

fn new_device() -> Shared {
    Rc::new(RefCell::new(Device {
        features: OFFERED | 1 << 15 | 1 << 29,
        accepted: [0; 2],
        select: [0; 2],
        status: 0xFF,
        refuses: false,
        stuck: false,
        queue: 0,
        size_max: 1024,
        queues: [DeviceQueue::default(), DeviceQueue::default()],
        notified: Vec::new(),
        isr: 0,
        mtu: 9000,
        link: 1,
        wire: Vec::new(),
    }))
}

fn start_with(device: &Shared, notify_len: usize) -> Result<VirtioNet<Bus>, NicError> {
    let area = |area| Bus(device.clone(), area);
    let structures = Structures {
        common: area(Area::Common),
        notify: area(Area::Notify),
        notify_len,
        notify_multiplier: 4,
        interrupt_status: area(Area::Interrupt),
        device: area(Area::Net),
    };
    VirtioNet::start(structures, InterruptKind::Line, None, &mut FakeEnvironment::default())
}

fn start(device: &Shared) -> Result<VirtioNet<Bus>, NicError> {
    start_with(device, 8)
}

fn started() -> (VirtioNet<Bus>, Shared) {
    let device = new_device();
    let nic = start(&device).unwrap();
    (nic, device)
}

fn received(nic: &mut VirtioNet<Bus>) -> Option<Vec<u8>> {
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

#[test]
fn start_agrees_on_what_it_knows_only() {
    let (mut nic, device) = started();
    assert_eq!((nic.mac(), nic.mtu()), (MAC, MTU_MAX));
    assert!(nic.link_up());
    device.borrow_mut().link = 0;
    assert!(!nic.link_up());
    let d = device.borrow();
    let accepted = u64::from(d.accepted[0]) | u64::from(d.accepted[1]) << 32;
    assert_eq!(accepted, OFFERED, "merged buffers and event indices stay off");
    assert_eq!(d.status & status::DRIVER_OK, status::DRIVER_OK);
    assert!(d.queues.iter().all(|q| q.enabled));
    assert_eq!(device_word(d.queues[0].addresses[1] + 2, 2), u64::from(RECEIVE_SIZE));
    assert_eq!(device_word(d.queues[0].addresses[1], 2), 1, "interrupts are off");
}

#[test]
fn without_an_mtu_field_frames_are_ordinary() {
    let device = new_device();
    device.borrow_mut().features = feature::VERSION_1 | feature::MAC;
    assert_eq!(start(&device).unwrap().mtu(), 1500);
}

#[test]
fn devices_that_cannot_be_started() {
    let attempt = |change: fn(&mut Device), error| {
        let device = new_device();
        change(&mut device.borrow_mut());
        assert_eq!(start(&device).err(), Some(error));
        assert_eq!(device.borrow().status & status::DRIVER_OK, device.borrow().stuck as u8 * 4);
    };
    attempt(|d| d.stuck = true, NicError::ResetTimeout);
    attempt(|d| d.refuses = true, NicError::Features);
    attempt(|d| d.features = feature::MAC, NicError::Features);
    attempt(|d| d.size_max = 0, NicError::BadConfiguration);
    attempt(|d| d.size_max = 100, NicError::BadConfiguration);
    let outside = start_with(&new_device(), 5).err();
    assert_eq!(outside, Some(NicError::BadConfiguration));
}

#[test]
fn a_page_is_sent_from_where_it_lies_and_order_is_kept() {
    let (mut nic, device) = started();
    let page = fake_page(8, 4088, |i| (i % 251) as u8);
    for n in 0..1000u32 {
        let mut header = vec![0; 64];
        header[14..18].copy_from_slice(&n.to_le_bytes());
        nic.transmit(&header, (n % 2 == 0).then_some(page), &[]).unwrap();
        if n % 50 == 49 {
            assert!(nic.transmit_pending());
            device.borrow_mut().run_transmit();
            assert!(!nic.transmit_pending());
        }
    }
    assert_eq!(nic.pages_sent(), 500);
    let d = device.borrow();
    assert_eq!(d.notified.iter().filter(|&&q| q == 1).count(), 1000);
    for (n, frame) in d.wire.iter().enumerate() {
        assert_eq!(frame[14..18], (n as u32).to_le_bytes());
        assert_eq!(frame.len(), if n % 2 == 0 { 64 + 4088 } else { 64 });
        assert!(frame[64..].iter().enumerate().all(|(i, &b)| b == (i % 251) as u8));
    }
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    let (mut nic, device) = started();
    let page = fake_page(0, 4096, |_| 1);
    for _ in 0..CHAINS {
        nic.transmit(&[0; 64], Some(page), &[]).unwrap();
    }
    assert_eq!((nic.room(), nic.transmit(&[0; 64], None, &[])), (0, Err(TransmitError::Full)));
    device.borrow_mut().run_transmit();
    assert_eq!(nic.room(), CHAINS);
    nic.transmit(&[0; HEADER_MAX], None, &[]).unwrap();
    assert_eq!(nic.transmit(&[0; HEADER_MAX + 1], None, &[]), Err(TransmitError::TooLong));
}

#[test]
fn pages_count_in_order_though_frames_end_in_any() {
    let (mut nic, device) = started();
    let page = fake_page(0, 4096, |_| 1);
    for _ in 0..3 {
        nic.transmit(&[0; 64], Some(page), &[]).unwrap();
    }
    let queue = |f: &mut dyn FnMut(&mut DeviceQueue)| f(&mut device.borrow_mut().queues[1]);
    let mut heads = Vec::new();
    queue(&mut |q| heads = (0..3).map(|_| u32::from(q.take().unwrap())).collect());
    queue(&mut |q| q.give(heads[2], 0));
    assert_eq!(nic.pages_sent(), 0);
    queue(&mut |q| q.give(heads[0], 0));
    assert_eq!(nic.pages_sent(), 1);
    // The middle one hangs for as long as it likes: room runs out, no more.
    for _ in 0..CHAINS - 2 {
        nic.transmit(&[0; 64], Some(page), &[]).unwrap();
        queue(&mut |q| {
            let head = q.take().unwrap();
            q.give(u32::from(head), 0);
        });
    }
    assert_eq!(nic.pages_sent(), 1);
    queue(&mut |q| q.give(heads[1], 0));
    assert_eq!(nic.pages_sent(), CHAINS as u64 + 1);
    assert_eq!(nic.room(), CHAINS);
}

#[test]
fn receive_wraps() {
    let (mut nic, device) = started();
    assert_eq!(received(&mut nic), None);
    for n in 0..70_000usize {
        let frame = (n as u32).to_le_bytes().repeat(4);
        device.borrow_mut().put_frame(&frame);
        assert!(nic.receive_ready());
        assert_eq!(received(&mut nic), Some(frame));
    }
    let longest = vec![7; usize::from(MTU_MAX) + 14];
    device.borrow_mut().put_frame(&longest);
    assert_eq!(received(&mut nic), Some(longest));
}

#[test]
fn hostile_used_entries_are_dropped() {
    let (mut nic, device) = started();
    let good = vec![9; 100];
    let len = (good.len() + NET_HEADER_LEN) as u32;
    let put = |id_of: fn(u16) -> u32, len| device.borrow_mut().put_raw(&good, id_of, len);
    put(u32::from, 0);
    put(u32::from, NET_HEADER_LEN as u32 + 13);
    put(u32::from, BUFFER_LEN as u32 + 1);
    put(u32::from, u32::MAX);
    put(|_| u32::from(RECEIVE_SIZE), len);
    put(|_| u32::MAX, len);
    device.borrow_mut().put_frame(&good);
    assert_eq!(received(&mut nic), Some(good));
    assert_eq!(nic.counters().dropped, 6);
    // The transmit side: an id inside a chain, one that is not in flight.
    nic.transmit(&[0; 64], None, &[]).unwrap();
    device.borrow_mut().queues[1].give(255, 0);
    device.borrow_mut().queues[1].give(0, 0);
    assert_eq!(nic.room(), CHAINS - 1);
    assert_eq!(nic.counters().dropped, 8);
}

#[test]
fn an_index_that_ran_away_does_not_hold_the_driver() {
    let (mut nic, device) = started();
    let used = device.borrow().queues[0].addresses[2];
    device_write(used + 2, &0x7FFFu16.to_le_bytes());
    // Zeroed entries name chain 0 with no byte, again and again.
    assert!(!nic.receive(|_| unreachable!("no frame is good")));
    assert!(nic.counters().dropped <= u64::from(RECEIVE_SIZE));
}

#[test]
fn interrupts_follow_the_flag_and_the_status_byte() {
    let (mut nic, device) = started();
    let flags = device.borrow().queues[0].addresses[1];
    nic.enable_interrupts();
    assert_eq!(device_word(flags, 2), 0);
    assert!(!nic.acknowledge_interrupt());
    device.borrow_mut().isr = 1;
    assert!(nic.acknowledge_interrupt());
    assert!(!nic.acknowledge_interrupt());
    nic.disable_interrupts();
    assert_eq!(device_word(flags, 2), 1);
    assert!(!nic.raise_interrupt());
}
