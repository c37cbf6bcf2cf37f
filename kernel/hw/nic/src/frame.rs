//! What is sent and received, and the checks and counts all drivers share.

use crate::{ETHERNET_HEADER_LEN, HEADER_MAX, LandingPage};
use addr::{Frame, PAGE_SIZE};

/// A part of a page frame, sent from where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSlice {
    /// The page frame.
    pub frame: Frame,
    /// First byte in the page.
    pub offset: u16,
    /// Number of bytes, at least 1.
    pub len: u16,
}

impl PageSlice {
    /// Physical address of the first byte.
    pub(crate) fn address(self) -> u64 {
        self.frame.start().0 + u64::from(self.offset)
    }

    /// Its length.
    ///
    /// # Panics
    /// If it leaves its page.
    #[inline]
    pub(crate) fn check(self) -> usize {
        let len = usize::from(self.len);
        assert!(
            len > 0 && usize::from(self.offset) + len <= PAGE_SIZE,
            "a slice that is not in its page"
        );
        len
    }
}

/// A received frame, as it lies in the receive buffers.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// In one piece.
    Whole(&'a [u8]),
    /// Its first 4096 bytes fill a page frame, which may be exchanged for
    /// another; the rest follows.
    Long(&'a mut LandingPage, &'a mut [u8]),
}

/// A frame that has come and was not taken, and what an answer may be written to.
#[derive(Debug)]
pub struct Peek<'a> {
    /// All of it.
    pub frame: &'a [u8],
    /// As [`crate::Nic::staged`].
    pub staged: Option<&'a mut [u8]>,
}

/// Why a frame was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransmitError {
    /// All slots are in flight: try again later.
    Full,
    /// Longer than the MTU, or a header longer than [`HEADER_MAX`].
    TooLong,
}

/// What a NIC did since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NicCounters {
    /// Frames handed on.
    pub received: u64,
    /// Bytes in them.
    pub received_bytes: u64,
    /// Frames that came damaged, oversized or with impossible lengths.
    pub dropped: u64,
    /// Frames the device had no buffer for, where it counts them.
    pub missed: u64,
    /// Frames taken for sending.
    pub sent: u64,
    /// Bytes in them.
    pub sent_bytes: u64,
    /// Times a frame was refused because all slots were in flight.
    pub full: u64,
    /// Interrupts that were this device's.
    pub interrupts: u64,
}

impl NicCounters {
    #[inline(always)]
    pub(crate) fn count_transmit(&mut self, len: usize, result: Result<(), TransmitError>) {
        if result.is_ok() {
            self.sent += 1;
            self.sent_bytes += len as u64;
        } else {
            self.full += 1;
        }
    }

    /// Counts the outcome of one look at the receive ring; says whether a
    /// frame was handed on.
    pub(crate) fn count_receive(&mut self, received: Option<usize>, dropped: u64) -> bool {
        self.dropped += dropped;
        if let Some(len) = received {
            self.received += 1;
            self.received_bytes += len as u64;
        }
        received.is_some()
    }
}

/// Checks a frame against the MTU and returns its length.
pub(crate) fn check_frame(
    mtu: u16,
    header: &[u8],
    page: Option<PageSlice>,
    tail: &[u8],
) -> Result<usize, TransmitError> {
    assert!(header.len() >= ETHERNET_HEADER_LEN, "a frame without an Ethernet header");
    let page_len = page.map_or(0, PageSlice::check);
    assert!(page.is_some() || tail.is_empty(), "a tail without a page");
    let copied = header.len() + tail.len();
    let len = copied + page_len;
    if copied > HEADER_MAX || len > ETHERNET_HEADER_LEN + usize::from(mtu) {
        return Err(TransmitError::TooLong);
    }
    Ok(len)
}

/// Whether this can be a station's address: neither zero nor a group.
pub(crate) fn is_unicast(mac: [u8; 6]) -> bool {
    mac != [0; 6] && mac[0] & 1 == 0
}
