//! A virtual processor that replays exits from a list, for tests.

use super::{Event, Exit, Registers, SystemRegisters, Vcpu};

/// Plays back exits and records what was injected. Holds at most 16 of each.
#[derive(Clone, Debug)]
pub struct FakeVcpu {
    /// General registers.
    pub registers: Registers,
    /// The rest.
    pub system: SystemRegisters,
    /// Exits that `run` returns, in order; then [`Exit::Shutdown`].
    pub exits: [Option<Exit>; 16],
    /// Next of `exits`.
    pub next: usize,
    /// Last event injected and not yet taken.
    pub injected: Option<Event>,
    /// Whether a window was asked for.
    pub window: bool,
    /// Priority class of the last window asked for by class.
    pub window_above: Option<u8>,
    /// CR8.
    pub tpr: u8,
    /// In an interrupt shadow.
    pub shadow: bool,
    /// An NMI is in service.
    pub nmi_blocked: bool,
    /// Whether a window for an NMI was asked for.
    pub nmi_window: bool,
    /// TSC offset.
    pub tsc_offset: u64,
    /// XCR0.
    pub xcr0: u64,
    /// Flushes owed so far.
    pub flushes: u64,
    /// The host's CPUID; all zeroes by default.
    pub cpuid: fn(u32, u32) -> [u32; 4],
}

impl Default for FakeVcpu {
    fn default() -> Self {
        FakeVcpu {
            registers: Registers::default(),
            system: SystemRegisters::default(),
            exits: [None; 16],
            next: 0,
            injected: None,
            window: false,
            window_above: None,
            tpr: 0,
            shadow: false,
            nmi_blocked: false,
            nmi_window: false,
            tsc_offset: 0,
            xcr0: 1,
            flushes: 0,
            cpuid: |_, _| [0; 4],
        }
    }
}

impl Vcpu for FakeVcpu {
    fn run(&mut self) -> Exit {
        self.injected = None;
        let exit = self.exits.get(self.next).copied().flatten();
        self.next += 1;
        exit.unwrap_or(Exit::Shutdown)
    }
    fn registers(&self) -> &Registers {
        &self.registers
    }
    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }
    fn system(&self) -> SystemRegisters {
        self.system
    }
    fn set_system(&mut self, system: &SystemRegisters) {
        self.system = *system;
    }
    fn advance(&mut self, next_rip: u64) {
        self.registers.rip = next_rip;
        self.registers.rflags &= !super::RFLAGS_RF;
        self.shadow = false;
        if self.registers.rflags & super::RFLAGS_TF != 0 {
            self.injected = Some(Event::STEP);
        }
    }
    fn inject(&mut self, event: Event) {
        self.injected = Some(event);
    }
    fn can_take_interrupt(&self) -> bool {
        self.registers.rflags & super::RFLAGS_IF != 0 && !self.shadow && self.injected.is_none()
    }
    fn can_take_nmi(&self) -> bool {
        self.injected.is_none() && !self.nmi_blocked
    }
    fn request_nmi_window(&mut self, wanted: bool) {
        self.nmi_window = wanted;
    }
    fn request_window(&mut self, wanted: bool) {
        self.window = wanted;
        self.window_above = None;
    }
    fn request_window_above(&mut self, class: u8) {
        self.window = true;
        self.window_above = Some(class);
    }
    fn tpr(&self) -> u8 {
        self.tpr
    }
    fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
    }
    fn tsc_offset(&self) -> u64 {
        self.tsc_offset
    }
    fn set_tsc_offset(&mut self, offset: u64) {
        self.tsc_offset = offset;
    }
    fn host_cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        (self.cpuid)(leaf, subleaf)
    }
    fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
    }
    fn xcr0(&self) -> u64 {
        self.xcr0
    }
    fn flush(&mut self) {
        self.flushes += 1;
    }
    fn init(&mut self) {
        self.injected = None;
        self.window = false;
        self.window_above = None;
        self.tpr = 0;
        self.shadow = false;
    }
}
