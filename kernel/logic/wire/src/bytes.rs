//! Little-endian integers at fixed offsets.
//!
//! Readers take arrays, not slices: with a constant offset the bounds check
//! is done by the compiler.

/// The `N` bytes at `at`.
#[inline(always)]
pub(crate) fn take<const N: usize, const K: usize>(bytes: &[u8; K], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[inline(always)]
pub(crate) fn u16_at<const K: usize>(bytes: &[u8; K], at: usize) -> u16 {
    u16::from_le_bytes(take(bytes, at))
}

#[inline(always)]
pub(crate) fn u32_at<const K: usize>(bytes: &[u8; K], at: usize) -> u32 {
    u32::from_le_bytes(take(bytes, at))
}

#[inline(always)]
pub(crate) fn u64_at<const K: usize>(bytes: &[u8; K], at: usize) -> u64 {
    u64::from_le_bytes(take(bytes, at))
}

/// Writes `value` at `at`.
#[inline(always)]
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
