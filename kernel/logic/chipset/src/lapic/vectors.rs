//! A set of the 256 interrupt vectors: IRR, ISR and TMR.

/// 256 bits, one a vector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Vectors([u32; 8]);

impl Vectors {
    const fn place(vector: u8) -> (usize, u32) {
        ((vector >> 5) as usize, 1 << (vector & 31))
    }

    pub(super) fn set(&mut self, vector: u8, value: bool) {
        let (word, bit) = Self::place(vector);
        if value {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    pub(super) const fn has(&self, vector: u8) -> bool {
        let (word, bit) = Self::place(vector);
        self.0[word] & bit != 0
    }

    /// The highest vector in the set.
    pub(super) fn highest(&self) -> Option<u8> {
        let word = self.0.iter().rposition(|&w| w != 0)?;
        Some((word as u32 * 32 + self.0[word].ilog2()) as u8)
    }

    /// 32 vectors as a register shows them; `index` modulo 8.
    pub(super) const fn word(&self, index: u32) -> u32 {
        self.0[(index & 7) as usize]
    }
}
