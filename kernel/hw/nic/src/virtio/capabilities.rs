//! Where a virtio PCI device says its register structures are.
//!
//! Source: VIRTIO 1.2, 4.1.4 "Virtio Structure PCI Capabilities"; PCI Local
//! Bus Specification 3.0, 6.7 "Capabilities List".

use crate::NicError;

const STATUS_HAS_LIST: u32 = 1 << 20;
const CAPABILITIES_POINTER: u8 = 0x34;
const VENDOR_SPECIFIC: u32 = 0x09;
/// As many as 192 bytes of configuration space can hold.
const CAPABILITIES_MAX: usize = 48;

/// A range of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which BAR, 0 to 5.
    pub bar: u8,
    /// First byte in it.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

/// The structures that the driver needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Places {
    /// Common configuration.
    pub common: Place,
    /// Notification area.
    pub notify: Place,
    /// Its multiplier.
    pub notify_multiplier: u32,
    /// Interrupt status.
    pub interrupt_status: Place,
    /// Device configuration.
    pub device: Place,
}

/// Walks the capability list; `read` gives the 32 bits of configuration space
/// at an aligned offset. The first capability of a kind wins, as 4.1.4.1 asks.
///
/// # Errors
/// [`NicError::BadConfiguration`] if one of the four is not there: the device
/// is a legacy one only.
pub fn find(read: impl Fn(u8) -> u32) -> Result<Places, NicError> {
    let mut found: [Option<Place>; 4] = [None; 4];
    let mut notify_multiplier = 0;
    let has_list = read(0x04) & STATUS_HAS_LIST != 0;
    let mut at = if has_list { read(CAPABILITIES_POINTER) as u8 & 0xFC } else { 0 };
    for _ in 0..CAPABILITIES_MAX {
        // The structure takes 20 bytes with the multiplier.
        if !(0x40..=0x100 - 20).contains(&usize::from(at)) {
            break;
        }
        let head = read(at);
        let kind = (head >> 24) as usize;
        if head & 0xFF == VENDOR_SPECIFIC && (1..=4).contains(&kind) && found[kind - 1].is_none() {
            let place = Place { bar: read(at + 4) as u8, offset: read(at + 8), len: read(at + 12) };
            // Other BAR numbers are reserved: such a capability is ignored.
            if place.bar <= 5 {
                found[kind - 1] = Some(place);
                if kind == 2 {
                    notify_multiplier = read(at + 16);
                }
            }
        }
        at = (head >> 8) as u8 & 0xFC;
    }
    let [Some(common), Some(notify), Some(interrupt_status), Some(device)] = found else {
        return Err(NicError::BadConfiguration);
    };
    Ok(Places { common, notify, notify_multiplier, interrupt_status, device })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration space with virtio capabilities `(at, next, kind, bar)`.
    fn space(list: &[(u8, u8, u32, u32)]) -> [u32; 64] {
        let mut words = [0; 64];
        words[1] = STATUS_HAS_LIST;
        words[0x34 / 4] = list.first().map_or(0, |c| u32::from(c.0));
        for &(at, next, kind, bar) in list {
            let word = usize::from(at) / 4;
            words[word] = VENDOR_SPECIFIC | u32::from(next) << 8 | 20 << 16 | kind << 24;
            words[word + 1] = bar;
            words[word + 2] = kind << 12;
            words[word + 3] = 0x1000;
            words[word + 4] = 4;
        }
        words
    }

    fn find_in(words: [u32; 64]) -> Result<Places, NicError> {
        find(|at| words[usize::from(at) / 4])
    }

    #[test]
    fn all_structures_are_found_and_the_first_wins() {
        let words = space(&[
            (0x40, 0x54, 1, 4),
            (0x54, 0x68, 5, 0),
            (0x68, 0x7C, 3, 4),
            (0x7C, 0x90, 4, 4),
            (0x90, 0xA4, 2, 6),
            (0xA4, 0xB8, 2, 4),
            (0xB8, 0x00, 1, 2),
        ]);
        let places = find_in(words).unwrap();
        assert_eq!(places.common, Place { bar: 4, offset: 0x1000, len: 0x1000 });
        assert_eq!((places.notify.bar, places.notify.offset), (4, 0x2000));
        assert_eq!(places.notify_multiplier, 4);
        assert_eq!(places.device.offset, 0x4000);
    }

    #[test]
    fn a_legacy_device_a_loop_and_a_stray_pointer_end() {
        let mut words = space(&[]);
        assert_eq!(find_in(words), Err(NicError::BadConfiguration));
        words = space(&[(0x40, 0x54, 1, 4), (0x54, 0x40, 2, 4)]);
        assert_eq!(find_in(words), Err(NicError::BadConfiguration));
        words = space(&[(0x40, 0xFC, 1, 4)]);
        assert_eq!(find_in(words), Err(NicError::BadConfiguration));
        words[1] = 0;
        assert_eq!(find_in(words), Err(NicError::BadConfiguration));
        assert_eq!(find(|_| u32::MAX), Err(NicError::BadConfiguration));
    }
}
