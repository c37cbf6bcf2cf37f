//! The world switch, and all else that touches the processor.
//!
//! # Physical interrupts
//!
//! With external-interrupt exiting, a physical interrupt exits whatever the
//! guest's IF is. It is not acknowledged by the exit and stays pending: exits
//! clear RFLAGS (SDM 28.5.3), so it is taken at the STI below, through the
//! host's own IDT, after the host's registers are back. None may be taken
//! before the entry, or the guest would run on although the host has
//! something to do: hence CLI first. POPFQ then gives the caller the IF it
//! came with.

use crate::enable::Block;
use crate::vmcs::{Field, Vmcs};
use core::arch::{asm, naked_asm};
use core::ptr::NonNull;
use vcpu::Registers;
use virt::registers;
use x86_64::registers::control::Cr2;
use x86_64::registers::xcontrol::XCr0;

/// What a virtual processor asks of the physical one. Tests have another.
pub trait Hardware: Vmcs {
    /// Runs the guest until it exits; `launched` says that it ran before.
    /// `false` if the processor refused even to begin.
    fn enter(&mut self, registers: &mut Registers, launched: bool) -> bool;
    /// Drops all translations made by way of this EPT pointer.
    fn invalidate(&mut self, ept_pointer: u64, single: bool);
    /// The guest's CR8.
    fn task_priority(&self) -> u8;
    /// Sets the guest's CR8.
    fn set_task_priority(&mut self, priority: u8);
    /// CR2.
    fn cr2(&self) -> u64;
    /// Sets CR2.
    fn set_cr2(&mut self, value: u64);
    /// DR6.
    fn dr6(&self) -> u64;
    /// Sets DR6.
    fn set_dr6(&mut self, value: u64);
    /// Clears DR0 to DR3.
    fn clear_breakpoints(&mut self);
    /// XCR0.
    fn xcr0(&self) -> u64;
    /// Sets XCR0.
    fn set_xcr0(&mut self, value: u64);
    /// The host's CPUID.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Has the host's handler see a machine check.
    fn host_machine_check(&mut self);
    /// Has the host's handler see an NMI.
    fn host_nmi(&mut self);
}

/// The physical processor, in VMX operation, with the block's VMCS current.
///
/// It is bound to that processor, and so neither `Send` nor `Sync`.
pub struct Processor {
    block: NonNull<Block>,
}

impl Processor {
    /// Takes over a processor.
    ///
    /// # Safety
    /// The processor that this is used on is in VMX operation for good, with
    /// the block's VMCS current and its host state set. CR2, DR0 to DR3, DR6
    /// and XCR0 are given over to the guest, CR4.OSXSAVE is set if XCR0 is
    /// ever set, and the IDT can take interrupts, NMIs and machine checks.
    /// Whenever the guest is entered, what the VMCS refers to is valid and
    /// reaches no memory but the guest's.
    pub(crate) unsafe fn new(block: NonNull<Block>) -> Processor {
        Processor { block }
    }
}

impl Vmcs for Processor {
    fn read(&self, field: Field) -> u64 {
        let value: u64;
        let failed: u8;
        // SAFETY: a VMCS is current (Processor::new); reading has no effect.
        unsafe {
            asm!(
                "vmread {value}, {field}",
                "setbe {failed}",
                value = out(reg) value,
                field = in(reg) u64::from(field.0),
                failed = out(reg_byte) failed,
                options(nostack, nomem),
            );
        }
        assert!(failed == 0, "the processor has no VMCS field {:x}", field.0);
        value
    }

    fn write(&mut self, field: Field, value: u64) {
        let failed: u8;
        // SAFETY: a VMCS is current, and what is written takes effect in
        // `enter` only, whose conditions Processor::new was promised.
        unsafe {
            asm!(
                "vmwrite {field}, {value}",
                "setbe {failed}",
                value = in(reg) value,
                field = in(reg) u64::from(field.0),
                failed = out(reg_byte) failed,
                options(nostack, nomem),
            );
        }
        assert!(failed == 0, "the processor refuses VMCS field {:x}", field.0);
    }
}

impl Hardware for Processor {
    fn enter(&mut self, registers: &mut Registers, launched: bool) -> bool {
        // SAFETY: Processor::new was promised all that `enter` asks for.
        unsafe { enter(registers, launched) }
    }

    fn invalidate(&mut self, ept_pointer: u64, single: bool) {
        const SINGLE: u64 = 1;
        const ALL: u64 = 2;
        let descriptor = [ept_pointer, 0];
        let kind = if single { SINGLE } else { ALL };
        let failed: u8;
        // SAFETY: translations are only a cache of what the tables say.
        unsafe {
            asm!(
                "invept {kind}, [{descriptor}]",
                "setbe {failed}",
                kind = in(reg) kind,
                descriptor = in(reg) &raw const descriptor,
                failed = out(reg_byte) failed,
                options(nostack, readonly),
            );
        }
        assert!(failed == 0, "INVEPT {kind} failed");
    }

    fn task_priority(&self) -> u8 {
        // SAFETY: the page is the block's, which is ours alone, and the
        // processor writes it during `enter` only.
        unsafe { (&raw const (*self.block.as_ptr()).virtual_apic[TPR]).read_volatile() >> 4 }
    }

    fn set_task_priority(&mut self, priority: u8) {
        // SAFETY: as in `task_priority`.
        unsafe {
            (&raw mut (*self.block.as_ptr()).virtual_apic[TPR]).write_volatile(priority << 4);
        }
    }

    fn cr2(&self) -> u64 {
        Cr2::read_raw()
    }

    fn set_cr2(&mut self, value: u64) {
        // SAFETY: CR2 is the guest's: the host writes and reads it in the
        // report of a fault only.
        unsafe { asm!("mov cr2, {}", in(reg) value, options(nostack, nomem, preserves_flags)) };
    }

    fn dr6(&self) -> u64 {
        let value: u64;
        // SAFETY: reading has no effect.
        unsafe { asm!("mov {}, dr6", out(reg) value, options(nostack, nomem, preserves_flags)) };
        value
    }

    fn set_dr6(&mut self, value: u64) {
        // SAFETY: DR6 is the guest's; reserved bits come from `dr6` or a reset.
        unsafe { asm!("mov dr6, {}", in(reg) value, options(nostack, nomem, preserves_flags)) };
    }

    fn clear_breakpoints(&mut self) {
        // SAFETY: the host sets no breakpoint; these registers are the guest's.
        unsafe { registers::clear_breakpoints() };
    }

    fn xcr0(&self) -> u64 {
        XCr0::read_raw()
    }

    fn set_xcr0(&mut self, value: u64) {
        // SAFETY: CR4.OSXSAVE is set and XCR0 the guest's (Processor::new);
        // the caller has validated the value.
        unsafe { XCr0::write_raw(value) };
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        registers::cpuid(leaf, subleaf)
    }

    fn host_machine_check(&mut self) {
        // SAFETY: Processor::new was promised a handler.
        unsafe { registers::host_machine_check() };
    }

    fn host_nmi(&mut self) {
        // SAFETY: as above; the exit has taken the NMI from the processor, and
        // its handler would have been entered like this.
        unsafe { asm!("int 2") };
    }
}

/// The task priority in the virtual-APIC page (SDM 30.1.1).
const TPR: usize = 0x80;

/// Runs the guest until it exits. RSP, RIP and RFLAGS pass by the VMCS, the
/// other general registers by `registers`. `false` if the processor refused
/// and nothing has happened.
///
/// # Safety
/// A VMCS is current that is complete, whose host RIP is [`exited`], and that
/// reaches no memory but the guest's. The host's IDT can take interrupts. The
/// host uses no x87 or SSE register.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter(registers: *mut Registers, launched: bool) -> bool {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "pushfq",
        "cli",
        "push rdi", // registers
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "test sil, sil", // the moves below keep ZF
        "mov rax, [rdi + 8 * 0]",
        "mov rcx, [rdi + 8 * 1]",
        "mov rdx, [rdi + 8 * 2]",
        "mov rbx, [rdi + 8 * 3]",
        "mov rbp, [rdi + 8 * 5]",
        "mov rsi, [rdi + 8 * 6]",
        "mov r8, [rdi + 8 * 8]",
        "mov r9, [rdi + 8 * 9]",
        "mov r10, [rdi + 8 * 10]",
        "mov r11, [rdi + 8 * 11]",
        "mov r12, [rdi + 8 * 12]",
        "mov r13, [rdi + 8 * 13]",
        "mov r14, [rdi + 8 * 14]",
        "mov r15, [rdi + 8 * 15]",
        "mov rdi, [rdi + 8 * 7]",
        "jnz 2f",
        "vmlaunch",
        "jmp 3f",
        "2: vmresume",
        // Still here: refused.
        "3: add rsp, 8",
        "xor eax, eax",
        "popfq",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        host_rsp = const Field::HOST_RSP.0,
    )
}

/// Where an exit goes on, on the stack of the `enter` that it ends.
///
/// # Safety
/// Reached by exits only.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn exited() {
    naked_asm!(
        "push rdi",
        "mov rdi, [rsp + 8]", // registers
        "mov [rdi + 8 * 0], rax",
        "mov [rdi + 8 * 1], rcx",
        "mov [rdi + 8 * 2], rdx",
        "mov [rdi + 8 * 3], rbx",
        "mov [rdi + 8 * 5], rbp",
        "mov [rdi + 8 * 6], rsi",
        "mov [rdi + 8 * 8], r8",
        "mov [rdi + 8 * 9], r9",
        "mov [rdi + 8 * 10], r10",
        "mov [rdi + 8 * 11], r11",
        "mov [rdi + 8 * 12], r12",
        "mov [rdi + 8 * 13], r13",
        "mov [rdi + 8 * 14], r14",
        "mov [rdi + 8 * 15], r15",
        "pop rcx", // the guest's RDI
        "mov [rdi + 8 * 7], rcx",
        "add rsp, 8",
        // What waits is taken here; STI delays by one instruction, hence the
        // NOP before POPFQ may close IF.
        "sti",
        "nop",
        "popfq",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "mov eax, 1",
        "ret",
    )
}
