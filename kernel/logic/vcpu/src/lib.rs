//! The vendor-neutral virtual processor: exits, registers, events.
//!
//! A backend (`kernel/hw/svm`, `kernel/hw/vmx`) implements [`Vcpu`]. All
//! above it (`machine`, `node`) speaks only in these terms. A fake in
//! [`fake`] serves the tests.
#![no_std]
#![forbid(unsafe_code)]

use addr::{Access, GuestPhys};

pub mod fake;

/// Why the guest stopped running.
///
/// Where an exit stands for an instruction, `rip` still points at it; whoever
/// handles it calls [`Vcpu::advance`] with the address of the next one
/// (`next_rip` where the hardware told it, else by decoding).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// Nested page fault: the guest-physical page is not mapped, or not for
    /// this access (AMD APM vol. 2, 15.25.6; Intel SDM vol. 3, 29.3.3).
    PageFault {
        /// The guest physical address accessed.
        gpa: GuestPhys,
        /// What the access was; a walk that may set flags counts as a write.
        access: Access,
        /// The access was an instruction fetch.
        fetch: bool,
        /// The access was the processor's walk of the guest's page tables.
        walk: bool,
    },
    /// CPUID.
    Cpuid,
    /// RDMSR of a register that is not passed through.
    Rdmsr,
    /// WRMSR of a register that is not passed through.
    Wrmsr,
    /// IN, OUT, INS or OUTS.
    Io(IoExit),
    /// HLT. `rip` points at it.
    Hlt,
    /// A physical interrupt wants the host; nothing to do for the guest.
    HostInterrupt,
    /// The guest can take an interrupt now, as asked by
    /// [`Vcpu::request_window`].
    InterruptWindow,
    /// Triple fault.
    Shutdown,
    /// XSETBV (ECX: register, EDX:EAX: value).
    Xsetbv,
    /// MOV to CR8, not yet executed: a backend asks for it where lowering CR8
    /// is what a window waits for ([`Vcpu::request_window_above`]).
    WriteCr8,
    /// VMCALL or VMMCALL.
    Hypercall,
    /// INVD or WBINVD: to be skipped.
    CacheControl,
    /// An instruction the guest's processor does not have (SVM and VMX
    /// instructions, MONITOR, MWAIT, RSM, ...): #UD.
    Undefined,
    /// INIT or SMI or another event that a guest must not see.
    Ignore,
    /// The backend could not run the guest: the machine is in a state that
    /// the hardware refuses. `code` is the vendor's exit code.
    Invalid {
        /// The vendor's exit code or error number.
        code: u64,
    },
}

/// A port access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoExit {
    /// First port.
    pub port: u16,
    /// Operand size in bytes: 1, 2 or 4.
    pub size: u8,
    /// IN or INS (device to guest) as against OUT or OUTS.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// With a REP prefix.
    pub rep: bool,
    /// Address of the next instruction, where the hardware told it.
    pub next_rip: Option<u64>,
}

/// General registers, in the order of their encoding (AMD APM vol. 3, 1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
}

/// Index of RAX in [`Registers::gpr`].
pub const RAX: usize = 0;
/// Index of RCX.
pub const RCX: usize = 1;
/// Index of RDX.
pub const RDX: usize = 2;
/// Index of RBX.
pub const RBX: usize = 3;
/// Index of RSP.
pub const RSP: usize = 4;
/// Index of RBP.
pub const RBP: usize = 5;
/// Index of RSI.
pub const RSI: usize = 6;
/// Index of RDI.
pub const RDI: usize = 7;

/// RFLAGS.TF: a #DB comes behind each instruction.
pub const RFLAGS_TF: u64 = 1 << 8;
/// RFLAGS.IF.
pub const RFLAGS_IF: u64 = 1 << 9;
/// RFLAGS.RF: no #DB for a breakpoint at the next instruction.
pub const RFLAGS_RF: u64 = 1 << 16;

/// A segment register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Attributes as a VMCB keeps them: descriptor bits 40 to 47 and 52 to 55
    /// in bits 0 to 11 (AMD APM vol. 2, 15.5.1).
    pub attributes: u16,
    /// Limit in bytes, expanded.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

impl Segment {
    /// Attribute bit: 64-bit code (L).
    pub const LONG: u16 = 1 << 9;
    /// Attribute bit: default operand size (D/B).
    pub const DEFAULT_BIG: u16 = 1 << 10;
}

/// Registers other than the general ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SystemRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER as the guest sees it (no SVME).
    pub efer: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// Code segment.
    pub cs: Segment,
    /// Data segment.
    pub ds: Segment,
    /// Extra segment.
    pub es: Segment,
    /// FS.
    pub fs: Segment,
    /// GS.
    pub gs: Segment,
    /// Stack segment.
    pub ss: Segment,
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table: base and limit.
    pub gdtr: Segment,
    /// Interrupt descriptor table: base and limit.
    pub idtr: Segment,
    /// Current privilege level.
    pub cpl: u8,
}

/// What can be injected into a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An external interrupt with its vector.
    Interrupt(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// A fault with its vector and, where the vector has one, its error code.
    Exception {
        /// Vector, 0 to 31.
        vector: u8,
        /// Error code, for the vectors that push one.
        error: Option<u32>,
    },
}

impl Event {
    /// #DB, as of a single step.
    pub const STEP: Event = Event::Exception { vector: 1, error: None };
    /// #UD.
    pub const UNDEFINED: Event = Event::Exception { vector: 6, error: None };
    /// #GP(0).
    pub const GENERAL_PROTECTION: Event = Event::Exception { vector: 13, error: Some(0) };
}

/// Whether exception `second`, met in the delivery of exception `first`, makes
/// a double fault of the two (AMD APM vol. 2, 8.2.9; Intel SDM vol. 3, 6.15).
#[must_use]
pub const fn makes_double_fault(first: u8, second: u8) -> bool {
    const DOUBLE_FAULT: u8 = 8;
    const PAGE_FAULT: u8 = 14;
    const fn contributory(vector: u8) -> bool {
        matches!(vector, 0 | 10..=13)
    }
    match first {
        DOUBLE_FAULT | PAGE_FAULT => contributory(second) || second == PAGE_FAULT,
        _ => contributory(first) && contributory(second),
    }
}

/// A virtual processor of one vendor's making.
pub trait Vcpu {
    /// Runs the guest until it exits. An event whose delivery the exit cut
    /// short is kept by the backend and injected again at the next run.
    fn run(&mut self) -> Exit;
    /// General registers, valid between runs.
    fn registers(&self) -> &Registers;
    /// General registers to change between runs.
    fn registers_mut(&mut self) -> &mut Registers;
    /// Everything else, read from the control block.
    fn system(&self) -> SystemRegisters;
    /// CR4 alone.
    fn cr4(&self) -> u64 {
        self.system().cr4
    }
    /// Sets everything else (start-up, CR2 at an injected #PF, EFER).
    fn set_system(&mut self, system: &SystemRegisters);
    /// Ends the instruction, as the processor ends one: `rip` becomes
    /// `next_rip`, an interrupt shadow left by STI or MOV SS and RFLAGS.RF end
    /// with it, and where RFLAGS.TF is set the trap of a single step is owed.
    /// For a round of a REP `next_rip` is the instruction itself.
    fn advance(&mut self, next_rip: u64);
    /// Injects an event at the next run.
    fn inject(&mut self, event: Event);
    /// Whether an external interrupt injected now would be taken at once: IF
    /// is set, no shadow, no event waits to be injected.
    fn can_take_interrupt(&self) -> bool;
    /// Whether an NMI could be injected now.
    fn can_take_nmi(&self) -> bool;
    /// Asks for (or stops asking for) [`Exit::InterruptWindow`].
    fn request_window(&mut self, wanted: bool);
    /// Asks for [`Exit::InterruptWindow`] once an interrupt of priority class
    /// `class` (its vector's upper four bits) could be taken, with regard to
    /// [`Vcpu::tpr`] too. Ended by `request_window(false)`. A backend whose
    /// processors do not keep the guest's task priority regards the rest only.
    fn request_window_above(&mut self, class: u8) {
        let _ = class;
        self.request_window(true);
    }
    /// Asks for (or stops asking for) [`Exit::InterruptWindow`] or any other
    /// exit once an NMI could be injected; called after `request_window`,
    /// which is for interrupts. A backend that has no such wish of its own
    /// takes any window.
    fn request_nmi_window(&mut self, wanted: bool) {
        if wanted {
            self.request_window(true);
        }
    }
    /// The guest's CR8 where the processor keeps it: the local APIC's task
    /// priority, upper four bits. The guest changes it without an exit, so
    /// whoever models the local APIC takes it over after each run.
    fn tpr(&self) -> u8 {
        0
    }
    /// Sets CR8, when the guest wrote the local APIC's own register.
    fn set_tpr(&mut self, tpr: u8) {
        let _ = tpr;
    }
    /// Address of the instruction after the one that the last exit stands
    /// for, where the hardware told it; `None` asks for decoding.
    fn next_rip(&self) -> Option<u64> {
        None
    }
    /// The guest's TSC is the host's plus this.
    fn tsc_offset(&self) -> u64;
    /// Sets the TSC offset.
    fn set_tsc_offset(&mut self, offset: u64);
    /// The host's CPUID leaf, for the machine to filter: EAX, EBX, ECX, EDX.
    fn host_cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Sets XCR0 to a value that the machine has validated.
    fn set_xcr0(&mut self, value: u64);
    /// XCR0 now.
    fn xcr0(&self) -> u64;
    /// Owes a flush of all translations before the next run.
    fn flush(&mut self);
    /// Does the part of an INIT that no other method reaches: drops events
    /// not yet taken, the wish for a window, the blocking of NMIs and an
    /// interrupt shadow, and resets debug registers and CR8. The caller sets
    /// [`Registers`] and [`SystemRegisters`].
    fn init(&mut self);
}
