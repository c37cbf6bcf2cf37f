//! The virtual processor without VMLAUNCH: a test plays the processor's part
//! in the control structure.

use super::*;
use crate::detect;
use crate::fake::{Fake, capabilities, cpuid};
use crate::vmcs::{Roots, Vmcs, prepare};
use addr::Frame;
use std::boxed::Box;

const ROOTS: Roots = Roots { nested: Frame(1), msr_bitmap: Frame(2), virtual_apic: Frame(3) };

fn vcpu() -> VmxVcpu<Fake> {
    let features = detect::features(cpuid, capabilities).unwrap();
    let mut fake = Fake::default();
    prepare(&mut fake, &features.controls, ROOTS);
    let mut vcpu = VmxVcpu::new(features, fake, 0x101E);
    vcpu.set_system(&SystemRegisters { cr0: 0x8000_0011, efer: 0x100, ..Default::default() });
    vcpu
}

/// Runs to an exit of this reason, which the processor leaves as `change` says.
fn exit(v: &mut VmxVcpu<Fake>, reason: u32, change: impl FnOnce(&mut Fake) + 'static) -> Exit {
    v.hardware.runs.push(Box::new(move |fake, _| {
        fake.write(Field::REASON, u64::from(reason));
        change(fake);
    }));
    v.run()
}

fn cpuid_exit(v: &mut VmxVcpu<Fake>) -> Exit {
    exit(v, reason::CPUID, |_| {})
}

fn event(v: &VmxVcpu<Fake>) -> u64 {
    v.hardware.read(Field::ENTRY_EVENT)
}

#[test]
fn an_event_cut_short_is_injected_again_and_no_more_after() {
    let mut v = vcpu();
    v.registers_mut().rflags = RFLAGS_IF;
    assert!(v.can_take_interrupt());
    v.inject(Event::Interrupt(0x30));
    assert!(!v.can_take_interrupt() && !v.can_take_nmi());
    exit(&mut v, reason::EPT_VIOLATION, |f| {
        assert_eq!(f.read(Field::ENTRY_EVENT), 0x8000_0030);
        f.write(Field::CUT_SHORT, 0x8000_0030);
    });
    assert!(!v.can_take_interrupt());
    exit(&mut v, reason::CPUID, |f| assert_eq!(f.read(Field::ENTRY_EVENT), 0x8000_0030));
    assert!(v.can_take_interrupt());
    exit(&mut v, reason::CPUID, |f| assert_eq!(f.read(Field::ENTRY_EVENT) & 1 << 31, 0));
}

#[test]
fn an_error_code_is_left_out_in_real_mode() {
    let mut v = vcpu();
    v.inject(Event::GENERAL_PROTECTION);
    v.commit();
    assert_eq!(event(&v), 0x8000_0B0D);
    let mut v = vcpu();
    v.set_system(&SystemRegisters { cr0: 0x10, ..Default::default() });
    v.inject(Event::GENERAL_PROTECTION);
    v.commit();
    assert_eq!(event(&v), 0x8000_030D);
}

#[test]
fn only_the_first_run_launches() {
    let mut v = vcpu();
    exit(&mut v, reason::ENTRY_FAILED | 33, |_| {});
    cpuid_exit(&mut v);
    cpuid_exit(&mut v);
    assert_eq!(v.hardware.launched, [false, false, true]);
}

#[test]
fn flushes_are_paid_once() {
    let mut v = vcpu();
    cpuid_exit(&mut v);
    cpuid_exit(&mut v);
    assert_eq!(v.hardware.invalidated, 1, "before the first run");
    v.flush();
    cpuid_exit(&mut v);
    assert_eq!(v.hardware.invalidated, 2);
}

#[test]
fn new_translation_registers_owe_a_flush_and_others_do_not() {
    let mut v = vcpu();
    cpuid_exit(&mut v);
    let mut system = v.system();
    system.cr2 = 0x5000;
    v.set_system(&system);
    assert!(!v.flush_owed);
    assert_eq!(v.hardware.cr2, 0x5000);
    system.cr3 = 0x6000;
    v.set_system(&system);
    assert!(v.flush_owed);
}

#[test]
fn a_refused_run_leaves_the_guests_registers() {
    let mut v = vcpu();
    v.registers_mut().rip = 0x7C00;
    let failed = reason::ENTRY_FAILED | 33;
    let refused = exit(&mut v, failed, |f| f.write(Field::GUEST_RIP, 0xBAD));
    assert_eq!(refused, Exit::Invalid { code: u64::from(failed) });
    assert_eq!(v.registers().rip, 0x7C00);
    v.hardware.refuses = true;
    v.hardware.write(Field::INSTRUCTION_ERROR, 7);
    assert_eq!(v.run(), Exit::Invalid { code: VM_FAIL | 7 });
}

#[test]
fn a_window_opens_once() {
    let mut v = vcpu();
    v.request_window(true);
    let opened = exit(&mut v, reason::INTERRUPT_WINDOW, |f| {
        assert_eq!(f.read(Field::PRIMARY) as u32 & (1 << 2 | 1 << 22), 1 << 2);
    });
    assert_eq!(opened, Exit::InterruptWindow);
    exit(&mut v, reason::CPUID, |f| assert_eq!(f.read(Field::PRIMARY) & (1 << 2), 0));
}

#[test]
fn the_window_of_nmis_is_watched_only_while_they_are_blocked() {
    let mut v = vcpu();
    exit(&mut v, reason::CPUID, |f| f.write(Field::INTERRUPTIBILITY, blocking::NMI));
    assert!(!v.can_take_nmi());
    v.request_window(true);
    let both = 1 << 2 | 1 << 22;
    let opened = exit(&mut v, reason::NMI_WINDOW, move |f| {
        assert_eq!(f.read(Field::PRIMARY) & both, both);
        f.write(Field::INTERRUPTIBILITY, 0);
    });
    assert_eq!(opened, Exit::InterruptWindow);
    assert!(v.can_take_nmi());
    v.request_window(true);
    exit(&mut v, reason::CPUID, move |f| assert_eq!(f.read(Field::PRIMARY) & both, 1 << 2));
}

#[test]
fn a_task_priority_is_watched_from_above_only() {
    let mut v = vcpu();
    v.set_tpr(0xA);
    v.request_window_above(0x7);
    let opened = exit(&mut v, reason::TPR_BELOW_THRESHOLD, |f| {
        assert_eq!(f.read(Field::TPR_THRESHOLD), 7);
        assert_eq!(f.read(Field::PRIMARY) & (1 << 2), 0);
        f.tpr = 3;
    });
    assert_eq!((opened, v.tpr()), (Exit::InterruptWindow, 3));
    // An entry with a threshold above the priority would fail.
    v.request_window_above(0x7);
    exit(&mut v, reason::CPUID, |f| {
        assert_eq!(f.read(Field::TPR_THRESHOLD), 0);
        assert_ne!(f.read(Field::PRIMARY) & (1 << 2), 0);
    });
}

#[test]
fn an_nmi_cut_short_is_not_in_service() {
    let mut v = vcpu();
    v.inject(Event::Nmi);
    exit(&mut v, reason::EPT_VIOLATION, |f| {
        f.write(Field::CUT_SHORT, 0x8000_0202);
        f.write(Field::INTERRUPTIBILITY, blocking::NMI);
    });
    exit(&mut v, reason::CPUID, |f| {
        assert_eq!(f.read(Field::INTERRUPTIBILITY), 0);
        assert_eq!(f.read(Field::ENTRY_EVENT), 0x8000_0202);
    });
}

#[test]
fn an_iret_that_faults_blocks_nmis_again() {
    let mut v = vcpu();
    exit(&mut v, reason::EPT_VIOLATION, |f| f.write(Field::QUALIFICATION, 0x1081));
    assert!(!v.can_take_nmi());
    assert_eq!(v.hardware.read(Field::INTERRUPTIBILITY), blocking::NMI);
    let mut v = vcpu();
    exit(&mut v, reason::EXCEPTION, |f| f.write(Field::EXIT_EVENT, 0x8000_1B11));
    assert_eq!(v.hardware.read(Field::INTERRUPTIBILITY), blocking::NMI);
}

#[test]
fn a_stopped_debug_exception_is_given_back() {
    let mut v = vcpu();
    v.hardware.dr6 = 0xFFFF_0FF3;
    let stopped = exit(&mut v, reason::EXCEPTION, |f| {
        f.write(Field::EXIT_EVENT, 0x8000_0301);
        f.write(Field::QUALIFICATION, 0x4004);
        f.write(Field::GUEST_DR7, 0x400 | DR7_GD);
    });
    assert_eq!(stopped, Exit::Ignore);
    assert_eq!(v.pending, Injection::of(Event::Exception { vector: 1, error: None }));
    assert_eq!(v.hardware.dr6, 0xFFFF_4FF4);
    assert_eq!(v.hardware.read(Field::GUEST_DR7), 0x400);
}

#[test]
fn an_int1_is_a_trap() {
    let mut v = vcpu();
    exit(&mut v, reason::EXCEPTION, |f| {
        f.write(Field::EXIT_EVENT, 0x8000_0501);
        f.write(Field::GUEST_RIP, 0x1000);
        f.write(Field::INSTRUCTION_LENGTH, 1);
    });
    assert_eq!(v.registers().rip, 0x1001);
    assert_eq!(v.pending, Injection::of(Event::Exception { vector: 1, error: None }));
}

#[test]
fn the_hosts_own_events_go_to_its_handlers() {
    let mut v = vcpu();
    let nmi = exit(&mut v, reason::EXCEPTION, |f| f.write(Field::EXIT_EVENT, 0x8000_0202));
    let check = exit(&mut v, reason::EXCEPTION, |f| f.write(Field::EXIT_EVENT, 0x8000_0312));
    assert_eq!([nmi, check], [Exit::HostInterrupt; 2]);
    assert_eq!((v.hardware.nmis, v.hardware.machine_checks), (1, 1));
}

#[test]
fn a_triple_fault_leaves_nothing_to_inject() {
    let mut v = vcpu();
    let shutdown = exit(&mut v, reason::TRIPLE_FAULT, |f| f.write(Field::CUT_SHORT, 0x8000_0306));
    assert_eq!(shutdown, Exit::Shutdown);
    assert_eq!(v.pending, Injection::NONE);
}

#[test]
fn a_control_register_is_shadowed_and_written_again() {
    let mut v = vcpu();
    v.registers_mut().gpr[3] = 0x8005_0033;
    let written = exit(&mut v, reason::CONTROL_REGISTER, |f| {
        f.write(Field::QUALIFICATION, 0x300);
        f.write(Field::GUEST_RIP, 0x1000);
    });
    assert_eq!(written, Exit::Ignore);
    assert_eq!(v.hardware.read(Field::CR0_SHADOW), 0x8005_0033);
    assert_eq!(v.registers().rip, 0x1000, "the instruction is executed again");
    assert!(!v.pending.is_some());
    // CR4.VMXE does not exist for a guest.
    v.registers_mut().gpr[3] = 1 << 13;
    exit(&mut v, reason::CONTROL_REGISTER, |f| f.write(Field::QUALIFICATION, 0x304));
    assert_eq!(v.pending, Injection::of(Event::GENERAL_PROTECTION));
    assert_eq!(v.hardware.read(Field::CR4_SHADOW), 0);
}

#[test]
fn the_next_instruction_is_told_where_one_caused_the_exit() {
    let mut v = vcpu();
    let at = |rip: u64| {
        move |f: &mut Fake| {
            f.write(Field::GUEST_RIP, rip);
            f.write(Field::INSTRUCTION_LENGTH, 2);
        }
    };
    exit(&mut v, reason::CPUID, at(0x1000));
    assert_eq!(v.next_rip(), Some(0x1002));
    exit(&mut v, reason::CPUID, at(0xFFFF_FFFF));
    assert_eq!(v.next_rip(), Some(1), "32-bit code wraps");
    exit(&mut v, reason::EPT_VIOLATION, at(0x1000));
    assert_eq!(v.next_rip(), None);
}

#[test]
fn a_shadow_ends_with_the_instruction_and_a_step_is_owed() {
    let mut v = vcpu();
    exit(&mut v, reason::HLT, |f| {
        f.write(Field::INTERRUPTIBILITY, blocking::STI);
        f.write(Field::GUEST_RFLAGS, RFLAGS_IF | RFLAGS_TF | RFLAGS_FIXED);
    });
    assert!(!v.can_take_interrupt() && !v.can_take_nmi());
    v.advance(0x1001);
    assert!(v.can_take_interrupt() && v.can_take_nmi());
    assert_eq!(v.hardware.read(Field::GUEST_PENDING_DEBUG), PENDING_STEP);
}

#[test]
fn init_clears_what_no_other_method_reaches() {
    let mut v = vcpu();
    v.inject(Event::UNDEFINED);
    v.request_window(true);
    v.set_tpr(5);
    v.hardware.write(Field::GUEST_DR7, 0x4FF);
    v.blocked = blocking::NMI;
    v.init();
    assert!(!v.pending.is_some() && v.can_take_nmi());
    assert_eq!((v.window, v.tpr()), (Window::Closed, 0));
    assert_eq!(v.hardware.read(Field::GUEST_DR7), 0x400);
    assert_eq!(v.hardware.dr6, DR6_RESET);
}
