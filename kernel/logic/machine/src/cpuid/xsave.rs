//! Leaf 0xD: the extended state that XSAVE keeps, and the rule for XCR0.

use super::{Query, bits as b};

/// Legacy region and header of an XSAVE area, in bytes.
const LEGACY: u32 = 576;
/// XCR0: x87, SSE, AVX, and AVX-512's three.
const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const AVX512: u64 = 0x7 << 5;

impl Query<'_> {
    /// XCR0 bits that the guest may set; zero without XSAVE.
    pub(crate) fn xcr0_mask(&self) -> u64 {
        if self.host(1, 0)[2] & b::XSAVE == 0 {
            return 0;
        }
        let mask = u64::from(self.host(0xD, 0)[0]) & b::XCR0;
        let with_avx = if mask & AVX512 == AVX512 { mask } else { mask & !AVX512 };
        with_avx | X87
    }

    /// Whether XSETBV takes this value for XCR0 (Intel SDM vol. 1, 13.3; AMD
    /// APM vol. 2, 11.5.2).
    pub(crate) fn xcr0_valid(&self, value: u64) -> bool {
        let avx512 = value & AVX512;
        value & X87 != 0
            && value & !self.xcr0_mask() == 0
            && (value & AVX == 0 || value & SSE != 0)
            && (avx512 == 0 || (avx512 == AVX512 && value & AVX != 0))
    }

    pub(super) fn xsave(&self, subleaf: u32) -> [u32; 4] {
        let mask = self.xcr0_mask();
        if mask == 0 {
            return [0; 4];
        }
        match subleaf {
            0 => [mask as u32, self.standard_size(self.xcr0), self.standard_size(mask), 0],
            1 => {
                let a = self.host(0xD, 1)[0] & b::EAX_D_1;
                [a, self.compacted_size(self.xcr0), 0, 0]
            }
            n @ 2..=62 if mask & (1 << n) != 0 => {
                let [size, offset, flags, _] = self.host(0xD, n);
                [size, offset, flags & 2, 0]
            }
            _ => [0; 4],
        }
    }

    /// Components of `state` from AVX on.
    fn components(&self, state: u64) -> impl Iterator<Item = [u32; 4]> + '_ {
        let state = state & self.xcr0_mask();
        (2..63).filter(move |n| state & (1 << n) != 0).map(|n| self.host(0xD, n))
    }

    fn standard_size(&self, state: u64) -> u32 {
        let ends = self.components(state).map(|[size, at, ..]| at.saturating_add(size));
        ends.fold(LEGACY, u32::max)
    }

    fn compacted_size(&self, state: u64) -> u32 {
        self.components(state).fold(LEGACY, |end, [size, _, flags, _]| {
            let start = if flags & 2 != 0 { end.next_multiple_of(64) } else { end };
            start.saturating_add(size)
        })
    }
}
