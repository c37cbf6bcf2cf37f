//! The paravirtual clock that Linux knows from KVM.
//!
//! A guest that finds the KVM interface in CPUID gets the TSC's frequency
//! from structures that the machine writes into its memory, so it needs no
//! calibration against the interval timer. The formats are documented in
//! Linux Documentation/virt/kvm/x86/msr.rst (MSR_KVM_WALL_CLOCK_NEW and
//! MSR_KVM_SYSTEM_TIME_NEW).

use crate::memory::{GuestMemory, in_page};
use crate::stop::Stop;
use addr::GuestPhys;

/// MSR_KVM_WALL_CLOCK_NEW.
pub(crate) const MSR_WALL_CLOCK: u32 = 0x4B56_4D00;
/// MSR_KVM_SYSTEM_TIME_NEW.
pub(crate) const MSR_SYSTEM_TIME: u32 = 0x4B56_4D01;
/// Bit 0 of MSR_SYSTEM_TIME: the structure is to be kept.
pub(crate) const ENABLE: u64 = 1;
/// PVCLOCK_TSC_STABLE_BIT: time is monotonic across processors.
const FLAG_TSC_STABLE: u8 = 1;
/// Nanoseconds in a second.
const NS: u128 = 1_000_000_000;

/// `(tsc << shift) * mul >> 32` is nanoseconds; a negative shift goes right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scale {
    /// tsc_to_system_mul.
    pub(crate) mul: u32,
    /// tsc_shift.
    pub(crate) shift: i8,
}

impl Scale {
    /// The most exact scale for a TSC of `hz` (at least 1).
    pub(crate) fn new(hz: u64) -> Scale {
        let hz = u128::from(hz.max(1));
        let mut shift = 0i8;
        // Bring the shifted frequency into (1 GHz, 2 GHz], so that the
        // multiplier uses all its 32 bits.
        while (hz >> shift.unsigned_abs()) > 2 * NS {
            shift -= 1;
        }
        while shift >= 0 && (hz << shift) <= NS {
            shift += 1;
        }
        let scaled = if shift < 0 {
            (NS << (32 + u32::from(shift.unsigned_abs()))) / hz
        } else {
            ((NS << 32) >> shift) / hz
        };
        Scale { mul: u32::try_from(scaled).unwrap_or(u32::MAX), shift }
    }
}

/// struct pvclock_vcpu_time_info: the TSC reads `origin` at machine time 0.
pub(crate) fn time_info(scale: Scale, origin: u64) -> [u8; 32] {
    let mut info = [0; 32];
    info[0..4].copy_from_slice(&2u32.to_le_bytes()); // version: even, complete
    info[8..16].copy_from_slice(&origin.to_le_bytes()); // tsc_timestamp
    // system_time (bytes 16 to 23) is 0 at that instant.
    info[24..28].copy_from_slice(&scale.mul.to_le_bytes());
    info[28] = scale.shift as u8;
    info[29] = FLAG_TSC_STABLE;
    info
}

/// struct pvclock_wall_clock: wall-clock time at machine time 0.
pub(crate) fn wall_clock(unix_seconds: u64) -> [u8; 12] {
    let mut info = [0; 12];
    info[0..4].copy_from_slice(&2u32.to_le_bytes());
    info[4..8].copy_from_slice(&(unix_seconds as u32).to_le_bytes());
    info
}

/// Writes a structure, which may cross a page. Writing it again does no harm.
pub(crate) fn store(memory: &mut dyn GuestMemory, gpa: u64, bytes: &[u8]) -> Result<(), Stop> {
    let mut done = 0;
    while done < bytes.len() {
        let at = gpa.checked_add(done as u64).ok_or(Stop::PROTECTION)?;
        let len = in_page(at, bytes.len() - done);
        memory.write(GuestPhys(at), &bytes[done..done + len])?;
        done += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a guest computes time, and as Linux computes the TSC's frequency.
    #[test]
    fn guests_compute_the_same_time_and_frequency() {
        for hz in [1, 999, 25_000_000, 1_000_000_000, 1_000_000_001, 2_600_000_000, 5_123_456_789] {
            let Scale { mul, shift } = Scale::new(hz);
            let tsc = u128::from(hz) * 1000; // 1000 s
            let shifted = if shift < 0 { tsc >> -shift } else { tsc << shift };
            let ns = (shifted * u128::from(mul)) >> 32;
            assert!(ns.abs_diff(1000 * NS) <= 1000 * NS / 100_000_000, "{hz}: {ns}");
            if hz >= 25_000_000 {
                let mut khz = (1_000_000u64 << 32) / u64::from(mul);
                khz = if shift < 0 { khz << -shift } else { khz >> shift };
                assert!(khz.abs_diff(hz / 1000) <= 3, "{hz}: {khz}");
            }
        }
    }
}
