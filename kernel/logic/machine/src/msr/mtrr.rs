//! Memory type range registers: kept, without effect (Intel SDM vol. 3,
//! 12.11). Guest memory is always write-back; the type that the guest gives a
//! range of devices changes nothing, as every access to them is emulated.

use crate::stop::Stop;

/// IA32_MTRRCAP: eight variable ranges, fixed ranges, write-combining.
const CAP: u64 = 8 | (1 << 8) | (1 << 10);
/// Variable ranges.
const RANGES: usize = 8;
/// Fixed-range registers, in the order of the memory they describe.
const FIXED: [u32; 11] =
    [0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F];
/// Types as a byte of a fixed-range register.
const UNCACHED: u64 = 0;
const WRITE_PROTECTED: u64 = 0x0505_0505_0505_0505;
const WRITE_BACK: u64 = 0x0606_0606_0606_0606;

/// One processor's registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mtrrs {
    default: u64,
    fixed: [u64; 11],
    /// Base and mask.
    variable: [[u64; 2]; RANGES],
}

fn is_type(value: u64) -> bool {
    matches!(value, 0 | 1 | 4 | 5 | 6)
}

impl Mtrrs {
    /// As a PC's firmware leaves them: write-back, the device window under
    /// 4 GiB uncached.
    pub(crate) fn new(phys_bits: u32) -> Mtrrs {
        let mut fixed = [WRITE_BACK; 11];
        fixed[2] = UNCACHED; // 0xA0000 to 0xBFFFF
        fixed[3..].fill(WRITE_PROTECTED);
        let mut variable = [[0; 2]; RANGES];
        let window = !((1u64 << 30) - 1) & ((1 << phys_bits) - 1);
        variable[0] = [0xC000_0000, window | (1 << 11)];
        Mtrrs { default: 0xC06, fixed, variable }
    }

    /// Reads a register of the group; `None` if `msr` is none.
    pub(crate) fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            0xFE => Some(CAP),
            0x2FF => Some(self.default),
            0x200..=0x20F => Some(self.variable[(msr as usize - 0x200) / 2][msr as usize & 1]),
            _ => FIXED.iter().position(|&f| f == msr).map(|i| self.fixed[i]),
        }
    }

    /// Writes a register of the group; `None` if `msr` is none.
    pub(crate) fn write(
        &mut self,
        msr: u32,
        value: u64,
        phys_bits: u32,
    ) -> Option<Result<(), Stop>> {
        let address = (1u64 << phys_bits) - 1;
        let (slot, valid) = match msr {
            0xFE => return Some(Err(Stop::PROTECTION)),
            0x2FF => (&mut self.default, value & !0xCFF == 0 && is_type(value & 0xFF)),
            0x200..=0x20F => {
                let mask = msr & 1 != 0;
                let low = if mask { value & 0x7FF == 0 } else { is_type(value & 0xFFF) };
                let slot = &mut self.variable[(msr as usize - 0x200) / 2][msr as usize & 1];
                (slot, low && value & !address == 0)
            }
            _ => {
                let index = FIXED.iter().position(|&f| f == msr)?;
                let valid = value.to_le_bytes().iter().all(|&t| is_type(u64::from(t)));
                (&mut self.fixed[index], valid)
            }
        };
        if !valid {
            return Some(Err(Stop::PROTECTION));
        }
        *slot = value;
        Some(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_keep_what_is_legal() {
        let mut m = Mtrrs::new(40);
        assert_eq!(m.read(0x2FF), Some(0xC06));
        assert_eq!(m.read(0x201), Some(0xFF_C000_0800));
        assert_eq!(m.write(0x202, 0x1234_5006, 40), Some(Ok(())));
        assert_eq!(m.read(0x202), Some(0x1234_5006));
        for (msr, value) in
            [(0x202, 1 << 40), (0x202, 2), (0x203, 1), (0x2FF, 0x1006), (0x250, 2), (0xFE, 0)]
        {
            assert_eq!(m.write(msr, value, 40), Some(Err(Stop::PROTECTION)), "{msr:#x}");
        }
        assert_eq!(m.write(0x210, 0, 40), None);
        assert_eq!(m.read(0x251), None);
    }
}
