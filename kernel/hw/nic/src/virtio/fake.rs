//! A virtio-net device that a test holds by both ends.

use super::registers::{NET_HEADER_LEN, common, net, status};
use crate::fake::{device_read, device_word, device_write};
use crate::{BUFFER_LEN, Registers};
use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

pub(super) const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

/// One queue as the device sees it.
#[derive(Clone, Default)]
pub(super) struct DeviceQueue {
    pub(super) size: u16,
    pub(super) addresses: [u64; 3],
    pub(super) enabled: bool,
    /// Available entries taken, used entries given.
    pub(super) taken: u16,
    pub(super) used: u16,
}

impl DeviceQueue {
    pub(super) fn take(&mut self) -> Option<u16> {
        let available = self.addresses[1];
        if device_word(available + 2, 2) as u16 == self.taken {
            return None;
        }
        let entry = u64::from(self.taken % self.size);
        self.taken = self.taken.wrapping_add(1);
        Some(device_word(available + 4 + 2 * entry, 2) as u16)
    }

    pub(super) fn give(&mut self, id: u32, len: u32) {
        let entry = self.addresses[2] + 4 + 8 * u64::from(self.used % self.size);
        device_write(entry, &id.to_le_bytes());
        device_write(entry + 4, &len.to_le_bytes());
        self.used = self.used.wrapping_add(1);
        device_write(self.addresses[2] + 2, &self.used.to_le_bytes());
    }

    pub(super) fn descriptor(&self, index: u16) -> (u64, usize, u16, u16) {
        let place = self.addresses[0] + 16 * u64::from(index);
        let word = |at, len| device_word(place + at, len);
        (word(0, 8), word(8, 4) as usize, word(12, 2) as u16, word(14, 2) as u16)
    }

    pub(super) fn gather(&self, head: u16) -> Vec<u8> {
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

pub(super) struct Device {
    pub(super) features: u64,
    pub(super) accepted: [u32; 2],
    pub(super) select: [u32; 2],
    pub(super) status: u8,
    pub(super) refuses: bool,
    pub(super) stuck: bool,
    pub(super) queue: usize,
    pub(super) size_max: u16,
    pub(super) queues: [DeviceQueue; 2],
    pub(super) notified: Vec<u16>,
    pub(super) isr: u8,
    pub(super) mtu: u16,
    pub(super) link: u16,
    pub(super) wire: Vec<Vec<u8>>,
}

impl Device {
    /// Sends everything available, in order.
    pub(super) fn run_transmit(&mut self) {
        while let Some(head) = self.queues[1].take() {
            let frame = self.queues[1].gather(head);
            assert_eq!(frame[..NET_HEADER_LEN], [0; NET_HEADER_LEN]);
            self.wire.push(frame[NET_HEADER_LEN..].to_vec());
            self.queues[1].give(u32::from(head), 0);
        }
    }

    pub(super) fn put_raw(&mut self, content: &[u8], id_of: impl Fn(u16) -> u32, len: u32) {
        let head = self.queues[0].take().expect("no receive buffer");
        let (address, room, flags, _) = self.queues[0].descriptor(head);
        assert!(flags & 2 != 0 && room == BUFFER_LEN);
        device_write(address + NET_HEADER_LEN as u64, content);
        self.queues[0].give(id_of(head), len);
    }

    pub(super) fn put_frame(&mut self, content: &[u8]) {
        self.put_raw(content, u32::from, (content.len() + NET_HEADER_LEN) as u32);
    }
}

#[derive(Clone, Copy)]
pub(super) enum Area {
    Common,
    Notify,
    Interrupt,
    Net,
}

pub(super) struct Bus(pub(super) Rc<RefCell<Device>>, pub(super) Area);

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
