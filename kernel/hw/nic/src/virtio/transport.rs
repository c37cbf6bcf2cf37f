//! The register structures of a virtio PCI device, and its start-up.

use super::queue::Queue;
use super::registers::{NO_VECTOR, common, status};
use crate::{Environment, NicError, Registers};

/// Steps of the wait for a reset, and what one takes.
const RESET_STEPS: u32 = 1000;
const RESET_STEP_US: u32 = 100;

/// The four structures that the device's capabilities point at (VIRTIO 1.2,
/// 4.1.4).
pub struct Structures<R> {
    /// Common configuration.
    pub common: R,
    /// Notification area.
    pub notify: R,
    /// Bytes of the notification area.
    pub notify_len: usize,
    /// Bytes between two queues' notification addresses, times their offset.
    pub notify_multiplier: u32,
    /// Interrupt status byte.
    pub interrupt_status: R,
    /// The network device's own configuration.
    pub device: R,
}

/// How the device interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptKind {
    /// A shared line; the interrupt status byte says whose it was.
    Line,
    /// MSI-X with this table entry for received frames.
    MsiX(u16),
}

impl<R: Registers> Structures<R> {
    /// Resets the device (2.4.1, 4.1.4.3.2).
    pub(super) fn reset(&mut self, environment: &mut dyn Environment) -> Result<(), NicError> {
        self.common.write8(common::DEVICE_STATUS, 0);
        for _ in 0..RESET_STEPS {
            if self.common.read8(common::DEVICE_STATUS) == 0 {
                return Ok(());
            }
            environment.delay_us(RESET_STEP_US);
        }
        Err(NicError::ResetTimeout)
    }

    fn add_status(&mut self, bits: u8) {
        let status = self.common.read8(common::DEVICE_STATUS);
        self.common.write8(common::DEVICE_STATUS, status | bits);
    }

    /// Tells the device that this driver gives up on it.
    pub(super) fn fail(&mut self) {
        self.add_status(status::FAILED);
    }

    /// Lets the device serve the queues.
    pub(super) fn driver_ok(&mut self) {
        self.add_status(status::DRIVER_OK);
    }

    /// Agrees on features: all of `needed`, and what there is of `wanted`
    /// (3.1.1, steps 2 to 6).
    pub(super) fn negotiate(&mut self, needed: u64, wanted: u64) -> Result<u64, NicError> {
        self.add_status(status::ACKNOWLEDGE);
        self.add_status(status::DRIVER);
        let mut offered = 0;
        for half in 0..2u32 {
            self.common.write32(common::DEVICE_FEATURE_SELECT, half);
            offered |= u64::from(self.common.read32(common::DEVICE_FEATURE)) << (32 * half);
        }
        if offered & needed != needed {
            return Err(NicError::Features);
        }
        let agreed = offered & (needed | wanted);
        for half in 0..2u32 {
            self.common.write32(common::DRIVER_FEATURE_SELECT, half);
            self.common.write32(common::DRIVER_FEATURE, (agreed >> (32 * half)) as u32);
        }
        self.add_status(status::FEATURES_OK);
        if self.common.read8(common::DEVICE_STATUS) & status::FEATURES_OK == 0 {
            return Err(NicError::Features);
        }
        Ok(agreed)
    }

    /// Makes queue `index` with at most `size_max` descriptors in chains of
    /// `links` (4.1.5.1.3). Returns it with its notification offset.
    pub(super) fn make_queue(
        &mut self,
        index: u16,
        size_max: u16,
        links: u16,
        vector: u16,
        environment: &mut dyn Environment,
    ) -> Result<(Queue, usize), NicError> {
        if self.common.read16(common::NUM_QUEUES) <= index {
            return Err(NicError::BadConfiguration);
        }
        self.common.write16(common::QUEUE_SELECT, index);
        let offered = self.common.read16(common::QUEUE_SIZE);
        if !offered.is_power_of_two() || offered < 2 {
            return Err(NicError::BadConfiguration);
        }
        let size = offered.min(size_max);
        self.common.write16(common::QUEUE_SIZE, size);
        let queue = Queue::new(environment, size, links).ok_or(NicError::NoMemory)?;
        let places = [common::QUEUE_DESC, common::QUEUE_DRIVER, common::QUEUE_DEVICE];
        for (place, address) in places.into_iter().zip(queue.addresses()) {
            self.common.write32(place, address as u32);
            self.common.write32(place + 4, (address >> 32) as u32);
        }
        self.common.write16(common::QUEUE_MSIX_VECTOR, vector);
        if vector != NO_VECTOR && self.common.read16(common::QUEUE_MSIX_VECTOR) != vector {
            return Err(NicError::BadConfiguration);
        }
        let offset = u64::from(self.common.read16(common::QUEUE_NOTIFY_OFF))
            * u64::from(self.notify_multiplier);
        if offset % 2 != 0 || offset + 2 > self.notify_len as u64 {
            return Err(NicError::BadConfiguration);
        }
        self.common.write16(common::QUEUE_ENABLE, 1);
        Ok((queue, offset as usize))
    }
}
