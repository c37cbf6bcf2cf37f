//! The virtual processor without VMRUN: a test plays the processor's part in
//! the control block.

use super::*;
use crate::control::VirtualInterrupt;
use crate::inject::Injection;
use crate::vmcb::{EXCEPTIONS, FAULTS, Roots};
use addr::Frame;
use std::alloc::{Layout, alloc_zeroed};

const ROOTS: Roots = Roots { nested: Frame(1), msrpm: Frame(2), iopm: Frame(4) };

fn vcpu(svm: SvmFlags) -> SvmVcpu {
    let features =
        Features { svm, asids: 2, xsave: false, xcr0: 1, tsc_aux: false, no_execute: true };
    // SAFETY: the layout is not empty. The block is never freed, as in life.
    let block = unsafe { alloc_zeroed(Layout::new::<Block>()) }.cast::<Block>();
    let mut vcpu = SvmVcpu::new(features, NonNull::new(block).unwrap(), 0x2000, 0x1000);
    vcpu.vmcb_mut().prepare(ROOTS);
    vcpu
}

/// Ends a run as the processor would: with an exit, EVENTINJ consumed, and a
/// virtual interrupt taken where nothing holds it.
fn exit(vcpu: &mut SvmVcpu, change: impl FnOnce(&mut Vmcb)) -> Exit {
    vcpu.commit();
    let vmcb = vcpu.vmcb_mut();
    vmcb.control.exit_int_info = 0;
    vmcb.control.event_injection = 0;
    let windowed = vmcb.control.intercept3.contains(Intercept3::VINTR);
    if vmcb.save.rflags & RFLAGS_IF != 0 && !windowed {
        vmcb.control.virtual_interrupt.remove(VirtualInterrupt::IRQ);
    }
    change(vmcb);
    let raw = vcpu.collect();
    vcpu.nmi = vcpu.nmi.after_exit(vcpu.registers.rip, raw.code == code::IRET);
    vcpu.settle(decode(raw))
}

fn cpuid_exit(vcpu: &mut SvmVcpu) -> Exit {
    exit(vcpu, |v| v.control.exit_code = code::CPUID)
}

/// A guest that interrupts are on for, with one on its way.
fn interrupted(vector: u8) -> SvmVcpu {
    let mut v = vcpu(SvmFlags::CLEAN);
    v.registers_mut().rflags = RFLAGS_IF | RFLAGS_FIXED;
    cpuid_exit(&mut v);
    assert!(v.can_take_interrupt());
    v.inject(Event::Interrupt(vector));
    assert!(!v.can_take_interrupt() && !v.can_take_nmi());
    v
}

/// What the next run begins with: V_IRQ with its vector, and EVENTINJ.
fn begins(v: &mut SvmVcpu) -> (Option<u8>, u64) {
    v.commit();
    let c = &v.vmcb().control;
    let vector = (c.virtual_interrupt.bits() >> 32) as u8;
    (c.virtual_interrupt.contains(VirtualInterrupt::IRQ).then_some(vector), c.event_injection)
}

#[test]
fn an_interrupt_goes_as_a_virtual_one_and_once() {
    let mut v = interrupted(0xEC);
    assert_eq!(begins(&mut v), (Some(0xEC), 0));
    assert!(!v.vmcb().control.clean.contains(Clean::TPR));
    cpuid_exit(&mut v);
    assert!(v.can_take_interrupt());
    assert_eq!(begins(&mut v), (None, 0));
    assert_eq!(v.vmcb().control.virtual_interrupt, VirtualInterrupt::MASKING);
}

/// Its delivery met a nested page fault. A processor has taken V_IRQ back by
/// then and tells of an interrupt, QEMU does neither.
#[test]
fn an_interrupt_cut_short_comes_again_and_no_more_after() {
    for (told, left) in [(0x8000_0030, false), (0x8000_0330, true)] {
        let mut v = interrupted(0x30);
        exit(&mut v, |vmcb| {
            vmcb.control.exit_code = code::NPF;
            vmcb.control.exit_int_info = told;
            vmcb.control.virtual_interrupt.set(VirtualInterrupt::IRQ, left);
        });
        assert!(!v.can_take_interrupt());
        assert_eq!(begins(&mut v), (Some(0x30), 0));
        cpuid_exit(&mut v);
        assert!(v.can_take_interrupt());
        assert_eq!(begins(&mut v), (None, 0));
    }
}

#[test]
fn an_interrupt_that_a_physical_one_overtook_is_kept() {
    let mut v = interrupted(0xEC);
    let overtaken = exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::INTR;
        vmcb.control.virtual_interrupt.insert(VirtualInterrupt::IRQ);
    });
    assert_eq!(overtaken, Exit::HostInterrupt);
    assert!(!v.can_take_interrupt());
    assert_eq!(begins(&mut v), (Some(0xEC), 0));
    // VMRUN refused takes none either.
    exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::INVALID;
        vmcb.control.virtual_interrupt.insert(VirtualInterrupt::IRQ);
    });
    assert_eq!(begins(&mut v), (Some(0xEC), 0));
}

fn intercepts(v: &SvmVcpu) -> Intercept3 {
    v.vmcb().control.intercept3 & (Intercept3::VINTR | Intercept3::IRET)
}

/// One that waits behind another has its window at the next exit.
#[test]
fn a_window_waits_for_the_interrupt_before_it() {
    let mut v = interrupted(8);
    v.request_window(true);
    assert_eq!(begins(&mut v), (Some(8), 0));
    assert_eq!(intercepts(&v), Intercept3::IRET);
    let handler = |vmcb: &mut Vmcb| vmcb.save.rflags = RFLAGS_FIXED;
    exit(&mut v, |vmcb| {
        handler(vmcb);
        vmcb.control.exit_code = code::NPF;
    });
    assert_eq!(begins(&mut v), (Some(0), 0));
    assert_eq!(intercepts(&v), Intercept3::VINTR);
    let opened = exit(&mut v, |vmcb| vmcb.control.exit_code = code::VINTR);
    assert_eq!((opened, v.pending), (Exit::InterruptWindow, Injection::NONE));

    // A handler that exits nowhere does at its IRET.
    let mut v = interrupted(8);
    v.request_window(true);
    let iret = exit(&mut v, |vmcb| {
        handler(vmcb);
        vmcb.control.exit_code = code::IRET;
    });
    assert_eq!((iret, v.pending), (Exit::Ignore, Injection::NONE));
    assert_eq!(begins(&mut v), (Some(0), 0));
    assert_eq!(intercepts(&v), Intercept3::VINTR);
}

#[test]
fn other_events_are_injected() {
    let mut v = interrupted(0xEC);
    v.registers_mut().rflags &= !RFLAGS_IF;
    assert_eq!(begins(&mut v), (None, 0x8000_00EC));
    let mut v = vcpu(SvmFlags::empty());
    v.inject(Event::UNDEFINED);
    assert_eq!(begins(&mut v), (None, 0x8000_0306));
}

/// A guest between STI and the next instruction, with an interrupt waiting.
fn behind_sti() -> SvmVcpu {
    let mut v = vcpu(SvmFlags::CLEAN);
    v.vmcb_mut().save.reset_debug();
    v.vmcb_mut().save.cr0 = 1;
    exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::INTR;
        vmcb.control.interrupt_state = Control::INTERRUPT_SHADOW;
        vmcb.save.rip = 0x1000;
        vmcb.save.rflags = RFLAGS_IF | RFLAGS_FIXED;
    });
    assert!(!v.can_take_interrupt());
    v.request_window(true);
    v
}

#[test]
fn a_window_does_not_open_in_a_shadow() {
    let mut v = behind_sti();
    let halted = exit(&mut v, |vmcb| {
        assert_eq!(vmcb.save.rflags & RFLAGS_TF, RFLAGS_TF);
        assert!(!vmcb.control.virtual_interrupt.contains(VirtualInterrupt::IRQ));
        assert!(!vmcb.control.intercept3.contains(Intercept3::VINTR));
        vmcb.control.exit_code = code::HLT;
        vmcb.control.interrupt_state = 0;
    });
    assert_eq!((halted, v.registers().rflags & RFLAGS_TF), (Exit::Hlt, 0));
    v.advance(0x1001);
    assert!(v.can_take_interrupt());

    // An instruction that exits nowhere is stepped over.
    let mut v = behind_sti();
    let stepped = exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::EXCEPTION + 1;
        vmcb.control.interrupt_state = 0;
        vmcb.save.rip = 0x1003;
        vmcb.save.dr6 |= DR6_BS;
    });
    assert_eq!((stepped, v.pending), (Exit::Ignore, Injection::NONE));
    assert_eq!(v.registers().rflags & RFLAGS_TF, 0, "no step is left");
    assert!(v.can_take_interrupt());
    assert_eq!(begins(&mut v), (Some(0), 0));
    assert_eq!(v.vmcb().control.intercept_exceptions, EXCEPTIONS);
}

/// QEMU tells of no shadow behind a VMRUN that found one.
#[test]
fn a_shadow_outlasts_an_exit_before_its_instruction_is_done() {
    let mut v = behind_sti();
    exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::INTR;
        vmcb.control.interrupt_state = 0;
    });
    assert!(!v.can_take_interrupt());
    // What has the flags on the stack ends it early, and sees none of the step's.
    let early = exit(&mut v, |vmcb| {
        assert!(vmcb.control.intercept3.contains(step::FLAGS | Intercept3::IRET));
        vmcb.control.exit_code = code::PUSHF;
        vmcb.control.interrupt_state = 0;
    });
    assert_eq!((early, v.registers().rflags & RFLAGS_TF), (Exit::Ignore, 0));
    assert!(v.can_take_interrupt());
    v.commit();
    assert!(!v.vmcb().control.intercept3.intersects(step::FLAGS | Intercept3::IRET));
}

#[test]
fn a_fault_of_a_step_shows_the_guest_no_trap_flag() {
    let mut v = behind_sti();
    exit(&mut v, |vmcb| {
        assert_eq!(vmcb.control.intercept_exceptions, EXCEPTIONS | FAULTS);
        assert!(!vmcb.control.clean.contains(Clean::INTERCEPTS));
        vmcb.control.exit_code = code::PAGE_FAULT;
        vmcb.control.exit_info1 = 2;
        vmcb.control.exit_info2 = 0xFFFF_8000_0000_1234;
    });
    let fault = Event::Exception { vector: 14, error: Some(2) };
    assert_eq!(v.pending, Injection::of(fault));
    assert_eq!(v.vmcb().save.cr2, 0xFFFF_8000_0000_1234);
    assert!(!v.clean.contains(Clean::CR2));
    v.commit();
    assert_eq!(v.vmcb().save.rflags & RFLAGS_TF, 0);
    assert_eq!(v.vmcb().control.intercept_exceptions, EXCEPTIONS);
}

#[test]
fn clean_bits_follow_what_is_changed() {
    let mut v = vcpu(SvmFlags::CLEAN);
    v.commit();
    assert_eq!(v.vmcb().control.clean, Clean::empty(), "nothing is cached before the first run");
    cpuid_exit(&mut v);
    v.registers_mut().gpr[RAX] = 5;
    v.advance(0x1002);
    v.inject(Event::UNDEFINED);
    v.commit();
    assert_eq!(v.vmcb().control.clean, Clean::all(), "uncached fields leave it clean");
    v.set_tpr(3);
    v.set_tsc_offset(1);
    assert_eq!(v.clean, Clean::all().difference(Clean::TPR | Clean::INTERCEPTS));
    v.set_system(&SystemRegisters::default());
    assert!(!v.clean.intersects(Clean::CONTROL_REGISTERS | Clean::SEGMENTS | Clean::CR2));
}

#[test]
fn flushes_are_paid_once_and_by_the_cheapest_means() {
    for (features, flush) in
        [(SvmFlags::empty(), TlbControl::EVERYTHING), (SvmFlags::FLUSH_BY_ASID, TlbControl::GUEST)]
    {
        let mut v = vcpu(features);
        v.commit();
        assert_eq!(v.vmcb().control.tlb_control, flush, "before the first run");
        cpuid_exit(&mut v);
        v.commit();
        assert_eq!(v.vmcb().control.tlb_control, TlbControl::NOTHING);
        v.flush();
        v.commit();
        assert_eq!(v.vmcb().control.tlb_control, flush);
        // A run that VMRUN refused has not flushed.
        exit(&mut v, |vmcb| vmcb.control.exit_code = code::INVALID);
        v.commit();
        assert_eq!(v.vmcb().control.tlb_control, flush);
    }
}

#[test]
fn new_translation_registers_owe_a_flush_and_others_do_not() {
    let mut v = vcpu(SvmFlags::empty());
    cpuid_exit(&mut v);
    let mut system = v.system();
    system.cr2 = 0x5000;
    v.set_system(&system);
    assert!(!v.flush_owed);
    system.cr3 = 0x6000;
    v.set_system(&system);
    assert!(v.flush_owed);
}

#[test]
fn a_refused_run_leaves_the_guests_registers() {
    let mut v = vcpu(SvmFlags::empty());
    v.registers_mut().rip = 0x7C00;
    let refused = exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::INVALID_32;
        vmcb.save.rip = 0xBAD;
    });
    assert_eq!(refused, Exit::Invalid { code: code::INVALID });
    assert_eq!(v.registers().rip, 0x7C00);
}

#[test]
fn a_window_opens_once() {
    let mut v = vcpu(SvmFlags::empty());
    v.request_window(true);
    let opened = exit(&mut v, |vmcb| {
        assert!(vmcb.control.intercept3.contains(Intercept3::VINTR));
        assert_eq!(vmcb.control.virtual_interrupt.bits(), 0x011F_0100);
        vmcb.control.exit_code = code::VINTR;
    });
    assert_eq!(opened, Exit::InterruptWindow);
    v.commit();
    assert!(!v.vmcb().control.intercept3.contains(Intercept3::VINTR));
    assert_eq!(v.vmcb().control.virtual_interrupt.bits(), 0x0100_0000);
}

#[test]
fn no_nmi_within_an_nmi() {
    let mut v = vcpu(SvmFlags::empty());
    v.inject(Event::Nmi);
    cpuid_exit(&mut v);
    assert!(v.vmcb().control.intercept3.contains(Intercept3::IRET));
    assert!(!v.can_take_nmi());
    let iret = exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::IRET;
        vmcb.save.rip = 0x1000;
    });
    assert_eq!(iret, Exit::Ignore);
    assert!(!v.can_take_nmi());
    exit(&mut v, |vmcb| {
        assert!(!vmcb.control.intercept3.contains(Intercept3::IRET));
        vmcb.control.exit_code = code::INTR;
        vmcb.save.rip = 0x2000;
    });
    assert!(v.can_take_nmi());
}

#[test]
fn a_stopped_debug_exception_is_given_back() {
    let mut v = vcpu(SvmFlags::empty());
    let stopped = exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::EXCEPTION + 1;
        vmcb.save.dr7 = 0x400 | DR7_GD;
    });
    assert_eq!(stopped, Exit::Ignore);
    assert_eq!(v.pending, Injection::of(Event::Exception { vector: 1, error: None }));
    assert_eq!(v.vmcb().save.dr7, 0x400);
    assert!(!v.clean.contains(Clean::DEBUG_REGISTERS));
}

#[test]
fn a_shutdown_leaves_nothing_to_inject() {
    let mut v = vcpu(SvmFlags::empty());
    let shutdown = exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::SHUTDOWN;
        vmcb.control.exit_int_info = 0x8000_0306;
    });
    assert_eq!(shutdown, Exit::Shutdown);
    assert_eq!(v.pending, Injection::NONE);
}

#[test]
fn the_next_instruction_is_told_where_the_processor_offers_it() {
    let set = |vmcb: &mut Vmcb| {
        vmcb.control.exit_code = code::CPUID;
        vmcb.control.next_rip = 0x1002;
    };
    let mut old = vcpu(SvmFlags::empty());
    exit(&mut old, set);
    assert_eq!(old.next_rip(), None);
    let mut new = vcpu(SvmFlags::NEXT_RIP);
    exit(&mut new, set);
    assert_eq!(new.next_rip(), Some(0x1002));
    exit(&mut new, |vmcb| {
        vmcb.control.exit_code = code::NPF;
        vmcb.control.next_rip = 0;
    });
    assert_eq!(new.next_rip(), None);
}

#[test]
fn a_shadow_ends_with_the_instruction() {
    let mut v = vcpu(SvmFlags::empty());
    v.registers_mut().rflags = RFLAGS_IF;
    exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::HLT;
        vmcb.control.interrupt_state = Control::INTERRUPT_SHADOW;
        vmcb.save.rflags = RFLAGS_IF | RFLAGS_FIXED;
    });
    assert!(!v.can_take_interrupt() && !v.can_take_nmi());
    v.advance(0x1001);
    assert!(v.can_take_interrupt() && v.can_take_nmi());
}

#[test]
fn a_single_step_ends_an_instruction_done_for_the_guest() {
    let mut v = vcpu(SvmFlags::empty());
    cpuid_exit(&mut v);
    v.registers_mut().rflags = RFLAGS_TF | RFLAGS_RF | RFLAGS_FIXED;
    v.vmcb_mut().save.dr7 = 0x400 | DR7_GD;
    v.advance(0x1002);
    assert_eq!(v.pending, Injection::of(Event::STEP));
    assert_eq!(v.registers().rflags, RFLAGS_TF | RFLAGS_FIXED, "RF ends with the instruction");
    assert_eq!((v.vmcb().save.dr6 & DR6_BS, v.vmcb().save.dr7), (DR6_BS, 0x400));
    assert!(!v.clean.contains(Clean::DEBUG_REGISTERS));
    assert!(!v.can_take_interrupt() && !v.can_take_nmi(), "the trap comes first");
}

/// A guest at the IRET of its NMI handler, with another NMI waiting.
fn at_iret() -> SvmVcpu {
    let mut v = vcpu(SvmFlags::empty());
    v.vmcb_mut().save.reset_debug();
    v.inject(Event::Nmi);
    v.request_nmi_window(true);
    let iret = exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::IRET;
        vmcb.save.rip = 0x1000;
        vmcb.save.rflags = RFLAGS_FIXED;
    });
    assert_eq!(iret, Exit::Ignore);
    assert!(!v.can_take_nmi());
    v
}

#[test]
fn an_nmi_that_waits_comes_right_behind_the_iret() {
    let mut v = at_iret();
    v.request_nmi_window(true);
    // A nested page fault of the IRET itself: the guest never sees TF.
    exit(&mut v, |vmcb| {
        assert_eq!(vmcb.save.rflags & RFLAGS_TF, RFLAGS_TF);
        vmcb.control.exit_code = code::NPF;
    });
    assert_eq!(v.registers().rflags & RFLAGS_TF, 0);
    let step = exit(&mut v, |vmcb| {
        assert_eq!(vmcb.save.rflags & RFLAGS_TF, RFLAGS_TF);
        vmcb.control.exit_code = code::EXCEPTION + 1;
        vmcb.save.rip = 0x2000;
        vmcb.save.rflags = RFLAGS_FIXED;
        vmcb.save.dr6 |= DR6_BS;
    });
    assert_eq!((step, v.pending), (Exit::Ignore, Injection::NONE));
    assert_eq!(v.vmcb().save.dr6 & DR6_BS, 0, "the guest's DR6 tells of no step");
    assert!(v.can_take_nmi());
    v.request_nmi_window(false);
    v.commit();
    assert_eq!(v.vmcb().save.rflags & RFLAGS_TF, 0);
}

#[test]
fn a_step_that_meets_a_breakpoint_gives_it_to_the_guest() {
    let mut v = at_iret();
    exit(&mut v, |vmcb| {
        vmcb.control.exit_code = code::EXCEPTION + 1;
        vmcb.save.rip = 0x2000;
        vmcb.save.dr6 |= DR6_BS | 1;
    });
    assert_eq!(v.pending, Injection::of(Event::STEP));
    assert_eq!(v.vmcb().save.dr6 & (DR6_BS | 1), 1);
}

#[test]
fn without_an_nmi_that_waits_the_guest_is_not_stepped() {
    let mut v = at_iret();
    v.request_nmi_window(false);
    v.commit();
    assert_eq!(v.vmcb().save.rflags & RFLAGS_TF, 0);
    // Nor is one that steps itself: it exits there anyway.
    v.request_nmi_window(true);
    v.registers_mut().rflags |= RFLAGS_TF;
    v.commit();
    assert_eq!(v.step, None);
}

#[test]
fn what_cr8_holds_back_waits_for_a_write_of_it() {
    let mut v = vcpu(SvmFlags::empty());
    v.set_tpr(5);
    v.request_window_above(5);
    v.commit();
    let c = &v.vmcb().control;
    assert_eq!(c.intercept_cr, Control::CR8_WRITE);
    assert!(!c.intercept3.contains(Intercept3::VINTR));
    assert!(!c.virtual_interrupt.contains(VirtualInterrupt::IRQ));
    let write = exit(&mut v, |vmcb| vmcb.control.exit_code = code::CR8_WRITE);
    assert_eq!(write, Exit::WriteCr8);
    v.request_window(false);
    assert_eq!(v.vmcb().control.intercept_cr, 0);
}
