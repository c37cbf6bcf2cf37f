//! Fields of the virtio PCI transport and the network device.
//!
//! Source: "Virtual I/O Device (VIRTIO) Version 1.2": 4.1.4 "Virtio Structure
//! PCI Capabilities", 4.1.4.3 "Common configuration structure layout", 2.1
//! "Device Status Field", 5.1 "Network Device".

/// Offsets in the common configuration structure.
pub(super) mod common {
    pub(crate) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(crate) const DEVICE_FEATURE: usize = 0x04;
    pub(crate) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(crate) const DRIVER_FEATURE: usize = 0x0C;
    pub(crate) const CONFIG_MSIX_VECTOR: usize = 0x10;
    pub(crate) const NUM_QUEUES: usize = 0x12;
    pub(crate) const DEVICE_STATUS: usize = 0x14;
    pub(crate) const QUEUE_SELECT: usize = 0x16;
    pub(crate) const QUEUE_SIZE: usize = 0x18;
    pub(crate) const QUEUE_MSIX_VECTOR: usize = 0x1A;
    pub(crate) const QUEUE_ENABLE: usize = 0x1C;
    pub(crate) const QUEUE_NOTIFY_OFF: usize = 0x1E;
    pub(crate) const QUEUE_DESC: usize = 0x20;
    pub(crate) const QUEUE_DRIVER: usize = 0x28;
    pub(crate) const QUEUE_DEVICE: usize = 0x30;
    /// Bytes of the structure.
    pub(crate) const LEN: usize = 0x38;
}

/// Device status bits.
pub(super) mod status {
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    pub(crate) const DRIVER: u8 = 2;
    pub(crate) const DRIVER_OK: u8 = 4;
    pub(crate) const FEATURES_OK: u8 = 8;
    pub(crate) const FAILED: u8 = 128;
}

/// Feature bits.
pub(super) mod feature {
    pub(crate) const MTU: u64 = 1 << 3;
    pub(crate) const MAC: u64 = 1 << 5;
    pub(crate) const STATUS: u64 = 1 << 16;
    pub(crate) const VERSION_1: u64 = 1 << 32;
    /// The device sees the addresses that the platform gives it; memory is
    /// identity mapped for devices here.
    pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;
}

/// Offsets in the network device's configuration (5.1.4).
pub(super) mod net {
    pub(crate) const MAC: usize = 0;
    pub(crate) const STATUS: usize = 6;
    pub(crate) const MTU: usize = 10;
    /// Bytes up to and including the MTU.
    pub(crate) const LEN: usize = 12;
    pub(crate) const STATUS_LINK_UP: u16 = 1;
}

/// The queue of received frames and the queue of frames to send (5.1.2).
pub(super) const RECEIVE_QUEUE: u16 = 0;
pub(super) const TRANSMIT_QUEUE: u16 = 1;

/// Bytes of `virtio_net_hdr` under VERSION_1 (5.1.6): all zero here, as no
/// offload is negotiated.
pub(super) const NET_HEADER_LEN: usize = 12;

/// No MSI-X vector.
pub(super) const NO_VECTOR: u16 = 0xFFFF;
