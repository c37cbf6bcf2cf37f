//! The driver against a device that behaves, and one that does not.

use super::registers::{NET_HEADER_LEN, common, feature, net, status};
use super::{CHAINS, InterruptKind, RECEIVE_SIZE, Structures, VirtioNet};
use crate::fake::{FakeEnvironment, device_read, device_word, device_write, fake_page};
use crate::{BUFFER_LEN, HEADER_MAX, MTU_MAX, Nic, NicError, Registers, TransmitError};
use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const OFFERED: u64 = feature::VERSION_1 | feature::MAC | feature::MTU | feature::STATUS;

/// One queue as the device sees it.
#[derive(Clone, Default)]
struct DeviceQueue {
    size: u16,
    addresses: [u64; 3],
    enabled: bool,
    /// Available entries taken, used entries given.
    taken: u16,
    used: u16,
}

impl DeviceQueue {
    fn take(&mut self) -> Option<u16> {
        let available = self.addresses[1];
        if device_word(available + 2, 2) as u16 == self.taken {
            return None;
        }
        let entry = u64::from(self.taken % self.size);
        self.taken = self.taken.wrapping_add(1);
        Some(device_word(available + 4 + 2 * entry, 2) as u16)
    }

    fn give(&mut self, id: u32, len: u32) {
        let entry = self.addresses[2] + 4 + 8 * u64::from(self.used % self.size);
        device_write(entry, &id.to_le_bytes());
        device_write(entry + 4, &len.to_le_bytes());
        self.used = self.used.wrapping_add(1);
        device_write(self.addresses[2] + 2, &self.used.to_le_bytes());
    }

    fn descriptor(&self, index: u16) -> (u64, usize, u16, u16) {
        let place = self.addresses[0] + 16 * u64::from(index);
        let word = |at, len| device_word(place + at, len);
        (word(0, 8), word(8, 4) as usize, word(12, 2) as u16, word(14, 2) as u16)
    }

    fn gather(&self, head: u16) -> Vec<u8> {
        let (mut all, mut index) = (Vec::new(), head);
        loop {
            let (address, len, flags, next) = self.descriptor(index);
            assert_eq!(flags & 2, 0, "a buffer to write among those to read");
            all.extend(device_read(address, len));
            if flags & 1 == 0 {
                return all;
            }
            index = next;
        }
    }
}

struct Device {
    features: u64,
    accepted: [u32; 2],
    select: [u32; 2],
    status: u8,
    refuses: bool,
    stuck: bool,
    queue: usize,
    size_max: u16,
    queues: [DeviceQueue; 2],
    notified: Vec<u16>,
    isr: u8,
    mtu: u16,
    link: u16,
    wire: Vec<Vec<u8>>,
}

impl Device {
    /// Sends everything available, in order.
    fn run_transmit(&mut self) {
        while let Some(head) = self.queues[1].take() {
            let frame = self.queues[1].gather(head);
            assert_eq!(frame[..NET_HEADER_LEN], [0; NET_HEADER_LEN]);
            self.wire.push(frame[NET_HEADER_LEN..].to_vec());
            self.queues[1].give(u32::from(head), 0);
        }
    }

    fn put_raw(&mut self, content: &[u8], id_of: impl Fn(u16) -> u32, len: u32) {
        let head = self.queues[0].take().expect("no receive buffer");
        let (address, room, flags, _) = self.queues[0].descriptor(head);
        assert!(flags & 2 != 0 && room == BUFFER_LEN);
        device_write(address + NET_HEADER_LEN as u64, content);
        self.queues[0].give(id_of(head), len);
    }

    fn put_frame(&mut self, content: &[u8]) {
        self.put_raw(content, u32::from, (content.len() + NET_HEADER_LEN) as u32);
    }
}

#[derive(Clone, Copy)]
enum Area {
    Common,
    Notify,
    Interrupt,
    Net,
}

struct Bus(Rc<RefCell<Device>>, Area);

impl Registers for Bus {
    fn read8(&self, offset: usize) -> u8 {
        let mut d = self.0.borrow_mut();
        match self.1 {
            Area::Common if offset == common::DEVICE_STATUS => d.status,
            Area::Interrupt => core::mem::take(&mut d.isr),
            Area::Net => MAC[offset - net::MAC],
            _ => unreachable!(),
        }
    }

    fn read16(&self, offset: usize) -> u16 {
        let d = self.0.borrow();
        match (self.1, offset) {
            (Area::Common, common::NUM_QUEUES) => 2,
            (Area::Common, common::QUEUE_SIZE) => d.size_max,
            (Area::Common, common::QUEUE_NOTIFY_OFF) => d.queue as u16,
            (Area::Common, common::QUEUE_MSIX_VECTOR) => 1,
            (Area::Net, net::STATUS) => d.link,
            (Area::Net, net::MTU) => d.mtu,
            _ => unreachable!(),
        }
    }

    fn read32(&self, _: usize) -> u32 {
        let d = self.0.borrow();
        (d.features >> (32 * d.select[0])) as u32
    }

    fn write8(&mut self, _: usize, value: u8) {
        let mut d = self.0.borrow_mut();
        let refused = if d.refuses { status::FEATURES_OK } else { 0 };
        if !d.stuck {
            d.status = value & !refused;
        }
    }

    fn write16(&mut self, offset: usize, value: u16) {
        let mut d = self.0.borrow_mut();
        let queue = d.queue;
        match (self.1, offset) {
            (Area::Notify, at) => {
                assert_eq!(at, 4 * usize::from(value), "the wrong doorbell");
                d.notified.push(value);
            }
            (Area::Common, common::QUEUE_SELECT) => d.queue = usize::from(value),
            (Area::Common, common::QUEUE_SIZE) => d.queues[queue].size = value,
            (Area::Common, common::QUEUE_ENABLE) => d.queues[queue].enabled = value == 1,
            _ => {}
        }
    }

    fn write32(&mut self, offset: usize, value: u32) {
        let mut d = self.0.borrow_mut();
        let queue = d.queue;
        match offset {
            common::DEVICE_FEATURE_SELECT => d.select[0] = value,
            common::DRIVER_FEATURE_SELECT => d.select[1] = value,
            common::DRIVER_FEATURE => {
                let half = d.select[1] as usize;
                d.accepted[half] = value;
            }
            _ => {
                let place = (offset - common::QUEUE_DESC) / 8;
                let shift = (offset - common::QUEUE_DESC) % 8 * 8;
                d.queues[queue].addresses[place] |= u64::from(value) << shift;
            }
        }
    }
}

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
    let mut got = None;
    let any = nic.receive(|bytes| got = Some(bytes.to_vec()));
    assert_eq!(any, got.is_some());
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
        nic.transmit(&header, (n % 2 == 0).then_some(page)).unwrap();
        if n % 100 == 99 {
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
        nic.transmit(&[0; 64], Some(page)).unwrap();
    }
    assert_eq!((nic.room(), nic.transmit(&[0; 64], None)), (0, Err(TransmitError::Full)));
    device.borrow_mut().run_transmit();
    assert_eq!(nic.room(), CHAINS);
    nic.transmit(&[0; HEADER_MAX], None).unwrap();
    assert_eq!(nic.transmit(&[0; HEADER_MAX + 1], None), Err(TransmitError::TooLong));
}

#[test]
fn pages_count_in_order_though_frames_end_in_any() {
    let (mut nic, device) = started();
    let page = fake_page(0, 4096, |_| 1);
    for _ in 0..3 {
        nic.transmit(&[0; 64], Some(page)).unwrap();
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
        nic.transmit(&[0; 64], Some(page)).unwrap();
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
    nic.transmit(&[0; 64], None).unwrap();
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
    assert_eq!(received(&mut nic), None);
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
