//! The guest-physical address space, and how firmware tells it to the guest.
//!
//! RAM is where [`layout::Layout`] puts it. Of the first MiB the guest may
//! use what lies below [`LOW_END`]; the ACPI tables lie at [`ACPI_BASE`].
//! Between 3 and 4 GiB is the device window (numbers in [`chipset::map`]).

use alloc::vec::Vec;
use chipset::map as devices;
use layout::Layout;

/// End of usable conventional memory.
pub const LOW_END: u64 = 0x9_F000;
/// Where the ACPI tables lie; the RSDP comes first.
pub const ACPI_BASE: u64 = guest_acpi::BASE_DEFAULT.0;
/// End of the legacy area; RAM goes on here.
pub const HIGH_START: u64 = 0x10_0000;
const _: () = assert!(ACPI_BASE + guest_acpi::SIZE_MAX as u64 <= HIGH_START);

/// Kinds of E820 entries (ACPI 6.5, table 15.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Kind {
    /// RAM that the operating system may use.
    Usable = 1,
    /// Not to be used.
    Reserved = 2,
    /// ACPI tables.
    Acpi = 3,
}

/// One range of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// What is there.
    pub kind: Kind,
}

/// The E820 map with `acpi_len` bytes of ACPI tables, in ascending order.
#[must_use]
pub fn e820(layout: &Layout, acpi_len: u64) -> Vec<Range> {
    let acpi_end = (ACPI_BASE + acpi_len).next_multiple_of(4096).min(HIGH_START);
    let end = layout.end().start().0;
    let hole = layout::HOLE_START.start().0;
    let above = layout::HOLE_END.start().0;
    let apics = devices::LAPIC_BASE + devices::LAPIC_SIZE;
    [
        (0, LOW_END, Kind::Usable),
        (LOW_END, ACPI_BASE, Kind::Reserved),
        (ACPI_BASE, acpi_end, Kind::Acpi),
        (acpi_end, HIGH_START, Kind::Reserved),
        (HIGH_START, end.min(hole), Kind::Usable),
        (devices::ECAM_BASE, devices::ECAM_BASE + devices::ECAM_SIZE, Kind::Reserved),
        (devices::IOAPIC_BASE, apics, Kind::Reserved),
        (above, end.max(above), Kind::Usable),
    ]
    .into_iter()
    .filter(|(start, end, _)| start < end)
    .map(|(start, end, kind)| Range { start, end, kind })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 18;

    #[test]
    fn usable_ranges_are_ram_and_nothing_overlaps() {
        for pages in [&[512][..], &[GIB, GIB], &[4 * GIB, 2 * GIB]] {
            let layout = Layout::new(pages).unwrap();
            let map = e820(&layout, 5000);
            assert!(map.windows(2).all(|w| w[0].end <= w[1].start));
            let usable: u64 =
                map.iter().filter(|r| r.kind == Kind::Usable).map(|r| r.end - r.start).sum();
            assert_eq!(usable, layout.total_pages() * 4096 - (HIGH_START - LOW_END));
            for r in map.iter().filter(|r| r.kind == Kind::Usable) {
                assert!(layout.linear(addr::Gfn(r.start >> 12)).is_some());
                assert!(layout.linear(addr::Gfn((r.end - 1) >> 12)).is_some());
            }
            let acpi = map.iter().find(|r| r.kind == Kind::Acpi).unwrap();
            assert_eq!((acpi.start, acpi.end), (ACPI_BASE, ACPI_BASE + 8192));
        }
    }
}
