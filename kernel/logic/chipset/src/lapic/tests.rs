use super::*;

const HZ: u64 = 2_000_000_000;

fn lapic(id: u32) -> Lapic {
    let mut l = Lapic::new(Config { apic_id: id, bootstrap: id == 0, tsc_hz: HZ });
    l.write_msr(0x80F, 0x1FF, 0).unwrap();
    l
}

fn base(l: &mut Lapic, bits: u64) -> Result<Effect, GeneralProtection> {
    l.write_msr(MSR_APIC_BASE, map::LAPIC_BASE | bits, 0)
}

fn xapic(id: u32) -> Lapic {
    let mut l = lapic(id);
    base(&mut l, 0).unwrap();
    base(&mut l, BASE_ENABLE).unwrap();
    l.write_mmio(0xF0, 0x1FF, 0);
    l
}

#[test]
fn mode_transitions_follow_the_manual() {
    let mut l = lapic(0);
    assert_eq!(l.read_msr(MSR_APIC_BASE, 0), Ok(0xFEE0_0D00));
    assert_eq!(base(&mut l, BASE_ENABLE), Err(GeneralProtection));
    assert_eq!(base(&mut l, BASE_EXTD), Err(GeneralProtection));
    assert_eq!(l.write_msr(MSR_APIC_BASE, 0xFEE0_1C00, 0), Err(GeneralProtection));
    assert_eq!(l.write_msr(MSR_APIC_BASE, 0xFEE0_0C01, 0), Err(GeneralProtection));
    base(&mut l, 0).unwrap();
    assert_eq!(l.mode(), Mode::Disabled);
    assert_eq!(l.read_msr(0x802, 0), Err(GeneralProtection));
    assert_eq!(base(&mut l, BASE_ENABLE | BASE_EXTD), Err(GeneralProtection));
    base(&mut l, BASE_ENABLE).unwrap();
    assert_eq!(l.mode(), Mode::XApic);
    assert_eq!(l.read_msr(0x802, 0), Err(GeneralProtection));
    base(&mut l, BASE_ENABLE | BASE_EXTD).unwrap();
    assert_eq!(l.mode(), Mode::X2Apic);
    assert_eq!(l.read_msr(MSR_APIC_BASE, 0), Ok(0xFEE0_0D00));
}

#[test]
fn priorities_nest() {
    let mut l = lapic(0);
    l.deliver(Delivery::Fixed, 0x41, false);
    l.deliver(Delivery::Fixed, 0x35, false);
    assert_eq!(l.acknowledge(), Some(0x41));
    assert_eq!(l.pending(), None);
    l.deliver(Delivery::Fixed, 0x4F, false);
    assert_eq!(l.pending(), None, "same class waits");
    l.deliver(Delivery::Fixed, 0x51, false);
    assert_eq!(l.acknowledge(), Some(0x51));
    assert_eq!(l.read_msr(0x80A, 0), Ok(0x50));
    l.write_msr(0x80B, 0, 0).unwrap();
    assert_eq!(l.pending(), None);
    l.write_msr(0x80B, 0, 0).unwrap();
    assert_eq!(l.acknowledge(), Some(0x4F));
    l.write_msr(0x80B, 0, 0).unwrap();
    l.set_cr8(3);
    assert_eq!(l.read_msr(0x808, 0), Ok(0x30));
    assert_eq!(l.pending(), None, "task priority holds class 3 back");
    l.write_msr(0x808, 0x20, 0).unwrap();
    assert_eq!(l.pending(), Some(0x35));
}

#[test]
fn end_of_a_level_vector_goes_to_the_ioapic() {
    let mut l = lapic(0);
    l.deliver(Delivery::Fixed, 0x60, true);
    assert_eq!(l.read_msr(0x818 + 3, 0), Ok(1));
    l.acknowledge();
    assert_eq!(l.read_msr(0x810 + 3, 0), Ok(1));
    assert_eq!(l.write_msr(0x80B, 1, 0), Err(GeneralProtection));
    assert_eq!(l.write_msr(0x80B, 0, 0), Ok(Effect::EndOfInterrupt(0x60)));
    assert_eq!(l.write_msr(0x80B, 0, 0), Ok(Effect::None));
}

#[test]
fn x2apic_faults_where_the_manual_says() {
    let mut l = lapic(3);
    for msr in [0x80B, 0x80E, 0x82F, 0x831, 0x83F, 0x800, 0x8FF] {
        assert_eq!(l.read_msr(msr, 0), Err(GeneralProtection), "read {msr:x}");
    }
    for msr in [0x802, 0x803, 0x80A, 0x80D, 0x80E, 0x810, 0x831, 0x839, 0x82F] {
        assert_eq!(l.write_msr(msr, 0, 0), Err(GeneralProtection), "write {msr:x}");
    }
    for (msr, value) in
        [(0x808, 0x100), (0x80F, 1 << 32), (0x832, 3 << 17), (0x828, 1), (0x830, 1 << 20)]
    {
        assert_eq!(l.write_msr(msr, value, 0), Err(GeneralProtection), "reserved {msr:x}");
    }
    assert_eq!(l.read_msr(0x802, 0), Ok(3));
    assert_eq!(l.read_msr(0x803, 0), Ok(0x0005_0014));
    assert_eq!(l.read_mmio(0x20, 0), u32::MAX);
}

#[test]
fn destinations() {
    let l = lapic(0x123);
    assert_eq!(l.logical_id(), 0x12 << 16 | 1 << 3);
    let physical = |id, wide| l.accepts(Destination::Physical { id, wide }, None);
    assert!(physical(0x123, true) && physical(u32::MAX, true) && physical(0xFF, false));
    assert!(!physical(0xFF, true) && !physical(0x23, false));
    let logical = |mda| l.accepts(Destination::Logical { mda, wide: true }, Some(1));
    assert!(logical(0x0012_0008) && logical(0x0012_FFFF) && logical(u32::MAX));
    assert!(!logical(0x0013_0008) && !logical(0x0012_0004));
    assert!(!l.accepts(Destination::Others, Some(0x123)) && l.accepts(Destination::Others, None));

    let mut x = xapic(0x21);
    x.write_mmio(0xD0, 0x2200_0000, 0);
    let logical = |x: &Lapic, mda| x.accepts(Destination::Logical { mda, wide: false }, None);
    assert!(logical(&x, 0x02) && logical(&x, 0xFF) && !logical(&x, 0x11));
    x.write_mmio(0xE0, 0, 0);
    assert!(logical(&x, 0x22) && !logical(&x, 0x12) && !logical(&x, 0x21));
    assert_eq!(x.read_mmio(0x20, 0), 0x2100_0000);
}

#[test]
fn interprocessor_interrupts() {
    let mut l = lapic(1);
    let ipi = l.write_msr(0x830, 5 << 32 | 0xC4500, 0).unwrap();
    let Effect::Ipi(m) = ipi else { panic!("{ipi:?}") };
    assert_eq!((m.destination, m.delivery), (Destination::Others, Delivery::Init));
    assert_eq!(l.write_msr(0x830, 5 << 32 | 0x8500, 0), Ok(Effect::None), "INIT de-assert");
    let Ok(Effect::Ipi(m)) = l.write_msr(0x830, 5 << 32 | 0x0610, 0) else { panic!() };
    assert_eq!(m.destination, Destination::Physical { id: 5, wide: true });
    assert_eq!((m.delivery, m.vector), (Delivery::StartUp, 0x10));
    assert_eq!(lapic(5).deliver(m.delivery, m.vector, false), Delivered::StartUp(0x10));
    assert_eq!(l.write_msr(0x830, 0x40 | 1 << 18, 0), Ok(Effect::None));
    assert_eq!(l.acknowledge(), Some(0x40), "self by shorthand");
    l.write_msr(0x83F, 0x55, 0).unwrap();
    assert_eq!(l.pending(), Some(0x55), "self by register");
    let mut x = xapic(1);
    x.write_mmio(0x310, 7 << 24, 0);
    let Effect::Ipi(m) = x.write_mmio(0x300, 0x31 | 1 << 11, 0) else { panic!() };
    assert_eq!(m.destination, Destination::Logical { mda: 7, wide: false });
}

#[test]
fn errors_latch_and_interrupt() {
    let mut l = lapic(0);
    l.write_msr(0x837, 0xFE, 0).unwrap();
    l.write_msr(0x830, 0x05, 0).unwrap();
    assert_eq!(l.pending(), Some(0xFE));
    assert_eq!(l.read_msr(0x828, 0), Ok(0));
    l.write_msr(0x828, 0, 0).unwrap();
    assert_eq!(l.read_msr(0x828, 0), Ok(0x20));
    l.write_msr(0x837, 3, 0).unwrap();
    l.deliver(Delivery::Fixed, 2, false);
    l.write_msr(0x828, 0, 0).unwrap();
    assert_eq!(l.read_msr(0x828, 0), Ok(0x40), "an illegal error vector does not recurse");
}

#[test]
fn one_shot_and_current_count() {
    let mut l = lapic(0);
    l.write_msr(0x83E, 0x3, 0).unwrap();
    l.write_msr(0x832, 0x30, 0).unwrap();
    l.write_msr(0x838, 1000, 500).unwrap();
    // 1000 counts of 16 ns at 2 ticks a nanosecond.
    assert_eq!(l.deadline(), Some(500 + 32_000));
    assert_eq!(l.read_msr(0x839, 500 + 16_000), Ok(500));
    l.tick(500 + 31_999);
    assert_eq!(l.pending(), None);
    l.tick(500 + 32_000);
    assert_eq!((l.pending(), l.deadline()), (Some(0x30), None));
    assert_eq!(l.read_msr(0x839, 40_000), Ok(0));
}

#[test]
fn periodic_keeps_its_phase() {
    let mut l = lapic(0);
    l.write_msr(0x83E, 0xB, 0).unwrap();
    l.write_msr(0x832, 0x30 | 1 << 17, 0).unwrap();
    l.write_msr(0x838, 1_000_000, 0).unwrap();
    for n in 1..=5u64 {
        assert_eq!(l.deadline(), Some(n * 2_000_000));
        l.tick(n * 2_000_000 + 777);
        assert_eq!(l.acknowledge(), Some(0x30));
        l.write_msr(0x80B, 0, 0).unwrap();
        assert_eq!(l.deadline(), Some((n + 1) * 2_000_000));
    }
    l.tick(100 * 2_000_000);
    assert_eq!(l.deadline(), Some(101 * 2_000_000), "missed periods merge");
    l.write_msr(0x838, 1, 0).unwrap();
    l.tick(1000);
    assert_eq!(l.deadline(), Some(1000 + HZ / 50_000), "no storm");
    l.write_msr(0x838, 0, 0).unwrap();
    assert_eq!(l.deadline(), None);
}

#[test]
fn tsc_deadline() {
    let mut l = lapic(0);
    l.write_msr(MSR_TSC_DEADLINE, 50, 0).unwrap();
    assert_eq!(l.read_msr(MSR_TSC_DEADLINE, 0), Ok(0), "ignored in another mode");
    l.write_msr(0x832, 0x31 | 2 << 17, 0).unwrap();
    l.write_msr(MSR_TSC_DEADLINE, 50, 0).unwrap();
    assert_eq!(l.deadline(), Some(50));
    l.tick(50);
    assert_eq!((l.pending(), l.read_msr(MSR_TSC_DEADLINE, 51)), (Some(0x31), Ok(0)));
    l.acknowledge();
    l.write_msr(0x80B, 0, 0).unwrap();
    l.write_msr(MSR_TSC_DEADLINE, 10, 100).unwrap();
    assert_eq!(l.pending(), Some(0x31), "a past deadline fires at once");
    l.write_msr(MSR_TSC_DEADLINE, 1000, 100).unwrap();
    l.write_msr(0x832, 0x31, 100).unwrap();
    assert_eq!(l.deadline(), None, "leaving the mode disarms");
}

#[test]
fn disabled_states() {
    let mut l = lapic(0);
    assert!(l.takes_extint());
    l.write_msr(0x80F, 0xFF, 0).unwrap();
    assert!(!l.takes_extint(), "software disable masks the LVT");
    l.write_msr(0x835, 7 << 8, 0).unwrap();
    assert_eq!(l.read_msr(0x835, 0), Ok(0x1_0700), "and keeps it masked");
    l.deliver(Delivery::Fixed, 0x40, false);
    assert_eq!(l.pending(), None);
    assert_eq!(l.deliver(Delivery::Nmi, 0, false), Delivered::Nmi);
    base(&mut l, 0).unwrap();
    assert!(!l.accepts(Destination::All, None) && l.takes_extint());
    let mut ap = lapic(2);
    assert!(!ap.takes_extint());
    ap.deliver(Delivery::Fixed, 0x40, false);
    ap.init();
    assert_eq!((ap.pending(), ap.mode(), ap.id()), (None, Mode::X2Apic, 2));
}

#[test]
fn hostile_accesses_do_not_panic() {
    let mut l = lapic(7);
    let mut x = xapic(7);
    let mut seed = 1u64;
    for step in 0..if cfg!(miri) { 500 } else { 200_000u64 } {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let msr = 0x800 + (seed >> 40) as u32 % 0x42;
        let value = if step % 3 == 0 { seed >> 44 } else { seed };
        let now = if step % 5 == 0 { seed } else { step };
        let _ = l.write_msr(msr, value, now);
        let _ = l.read_msr(msr, now);
        x.write_mmio((seed >> 30) as u32 % 4096, seed as u32, now);
        x.read_mmio((seed >> 31) as u32 & 0xFF0, now);
        if step % 2 == 0 {
            l.write_msr(MSR_TSC_DEADLINE, seed, now).unwrap();
        }
        l.acknowledge();
        for lapic in [&mut l, &mut x] {
            if let Some(d) = lapic.deadline() {
                lapic.tick(d);
                assert!(lapic.deadline().is_none_or(|next| next > d || d == u64::MAX));
            }
        }
    }
}
