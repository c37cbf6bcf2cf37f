//! The control area of the VMCB (APM appendix B, table B-1).

use bitflags::bitflags;

bitflags! {
    /// Intercepts, vector 3, offset 00Ch.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Intercept3: u32 {
        /// Physical maskable interrupt.
        const INTR = 1 << 0;
        /// Physical non-maskable interrupt.
        const NMI = 1 << 1;
        /// System management interrupt.
        const SMI = 1 << 2;
        /// INIT signal.
        const INIT = 1 << 3;
        /// Virtual interrupt about to be taken.
        const VINTR = 1 << 4;
        /// RDPMC.
        const RDPMC = 1 << 15;
        /// PUSHF.
        const PUSHF = 1 << 16;
        /// POPF.
        const POPF = 1 << 17;
        /// CPUID.
        const CPUID = 1 << 18;
        /// RSM.
        const RSM = 1 << 19;
        /// IRET.
        const IRET = 1 << 20;
        /// INT n.
        const SWINT = 1 << 21;
        /// INVD.
        const INVD = 1 << 22;
        /// HLT.
        const HLT = 1 << 24;
        /// INVLPGA.
        const INVLPGA = 1 << 26;
        /// Port accesses by the I/O permission map.
        const IOIO_PROT = 1 << 27;
        /// MSR accesses by the MSR permission map.
        const MSR_PROT = 1 << 28;
        /// Processor frozen by legacy FERR handling.
        const FERR_FREEZE = 1 << 30;
        /// Shutdown.
        const SHUTDOWN = 1 << 31;
    }
}

bitflags! {
    /// Intercepts, vector 4, offset 010h.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Intercept4: u32 {
        /// VMRUN; must be set (APM 15.5.1).
        const VMRUN = 1 << 0;
        /// VMMCALL.
        const VMMCALL = 1 << 1;
        /// VMLOAD.
        const VMLOAD = 1 << 2;
        /// VMSAVE.
        const VMSAVE = 1 << 3;
        /// STGI.
        const STGI = 1 << 4;
        /// CLGI.
        const CLGI = 1 << 5;
        /// SKINIT.
        const SKINIT = 1 << 6;
        /// WBINVD and WBNOINVD.
        const WBINVD = 1 << 9;
        /// MONITOR and MONITORX.
        const MONITOR = 1 << 10;
        /// MWAIT and MWAITX, whatever the monitor's state.
        const MWAIT = 1 << 11;
        /// XSETBV.
        const XSETBV = 1 << 13;
        /// RDPRU.
        const RDPRU = 1 << 14;
    }
}

bitflags! {
    /// Intercepts, vector 5, offset 014h.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Intercept5: u32 {
        /// INVLPGB.
        const INVLPGB = 1 << 0;
        /// INVLPGB with an illegal operand.
        const INVLPGB_ILLEGAL = 1 << 1;
        /// MCOMMIT.
        const MCOMMIT = 1 << 3;
        /// TLBSYNC.
        const TLBSYNC = 1 << 4;
    }
}

bitflags! {
    /// Virtual interrupt control, offset 060h. The low byte is V_TPR, bits 16
    /// to 19 are V_INTR_PRIO and 32 to 39 V_INTR_VECTOR; see
    /// [`VirtualInterrupt::with_tpr`] and [`VirtualInterrupt::with_pending`].
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    #[repr(transparent)]
    pub struct VirtualInterrupt: u64 {
        /// V_IRQ: a virtual interrupt is pending.
        const IRQ = 1 << 8;
        /// V_IGN_TPR: the pending interrupt disregards V_TPR.
        const IGNORE_TPR = 1 << 20;
        /// V_INTR_MASKING: the guest's IF and CR8 mask virtual interrupts
        /// only, the host's IF at VMRUN masks physical ones (APM 15.21.1).
        const MASKING = 1 << 24;
        /// Every other bit: V_TPR, V_INTR_PRIO, V_INTR_VECTOR.
        const _ = !0;
    }
}

impl VirtualInterrupt {
    const TPR: u64 = 0xF;
    const PRIORITY: u64 = 0xF << 16;
    const VECTOR: u64 = 0xFF << 32;

    /// V_TPR, which is the guest's CR8.
    #[must_use]
    pub const fn tpr(self) -> u8 {
        (self.bits() & Self::TPR) as u8
    }

    /// The same with V_TPR set; only bits 0 to 3 exist.
    #[must_use]
    pub const fn with_tpr(self, tpr: u8) -> Self {
        Self::from_bits_retain(self.bits() & !0xFF | tpr as u64 & Self::TPR)
    }

    /// The same with a pending virtual interrupt that V_TPR does not hold
    /// back. Where VINTR is intercepted, its vector does not matter.
    #[must_use]
    pub const fn with_pending(self, vector: u8) -> Self {
        let pending = Self::PRIORITY | Self::IGNORE_TPR.bits() | Self::IRQ.bits();
        let vector = (vector as u64) << 32;
        Self::from_bits_retain(self.bits() & !Self::VECTOR | pending | vector)
    }

    /// The same without a pending virtual interrupt.
    #[must_use]
    pub const fn without_pending(self) -> Self {
        let off = Self::IRQ.bits() | Self::PRIORITY | Self::IGNORE_TPR.bits() | Self::VECTOR;
        Self::from_bits_retain(self.bits() & !off)
    }
}

bitflags! {
    /// VMCB clean bits, offset 0C0h (APM 15.15.3): fields that software has
    /// not changed since the last exit.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    #[repr(transparent)]
    pub struct Clean: u32 {
        /// Intercept vectors, TSC_OFFSET, pause filter.
        const INTERCEPTS = 1 << 0;
        /// IOPM_BASE_PA, MSRPM_BASE_PA.
        const PERMISSION_MAPS = 1 << 1;
        /// ASID.
        const ASID = 1 << 2;
        /// V_TPR, V_IRQ, V_INTR_PRIO, V_IGN_TPR, V_INTR_MASKING, V_INTR_VECTOR.
        const TPR = 1 << 3;
        /// N_CR3, G_PAT.
        const NESTED_PAGING = 1 << 4;
        /// CR0, CR3, CR4, EFER.
        const CONTROL_REGISTERS = 1 << 5;
        /// DR6, DR7.
        const DEBUG_REGISTERS = 1 << 6;
        /// GDT and IDT, base and limit.
        const DESCRIPTOR_TABLES = 1 << 7;
        /// CS, DS, SS, ES and CPL.
        const SEGMENTS = 1 << 8;
        /// CR2.
        const CR2 = 1 << 9;
        /// Last-branch registers.
        const LBR = 1 << 10;
        /// AVIC fields.
        const AVIC = 1 << 11;
    }
}

/// TLB_CONTROL, offset 05Ch (APM 15.16.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct TlbControl(pub u8);

impl TlbControl {
    /// Leaves the TLB alone.
    pub const NOTHING: TlbControl = TlbControl(0);
    /// Flushes everything of every ASID, the host's too.
    pub const EVERYTHING: TlbControl = TlbControl(1);
    /// Flushes this guest's entries (needs FlushByAsid).
    pub const GUEST: TlbControl = TlbControl(3);
}

/// The control area, offsets 000h to 3FFh.
#[repr(C)]
pub struct Control {
    /// 000h: intercepts of CR0 to CR15, reads (0 to 15) and writes (16 to 31).
    pub intercept_cr: u32,
    /// 004h: intercepts of DR0 to DR15, reads and writes.
    pub intercept_dr: u32,
    /// 008h: intercepts of exceptions by vector.
    pub intercept_exceptions: u32,
    /// 00Ch: intercepts.
    pub intercept3: Intercept3,
    /// 010h: intercepts.
    pub intercept4: Intercept4,
    /// 014h: intercepts.
    pub intercept5: Intercept5,
    _reserved_018: [u8; 0x24],
    /// 03Ch: PAUSE filter threshold.
    pub pause_threshold: u16,
    /// 03Eh: PAUSE filter count.
    pub pause_count: u16,
    /// 040h: physical address of the I/O permission map.
    pub iopm_base: u64,
    /// 048h: physical address of the MSR permission map.
    pub msrpm_base: u64,
    /// 050h: added to the TSC that the guest reads by RDTSC and RDTSCP.
    pub tsc_offset: u64,
    /// 058h: address space identifier, not 0.
    pub asid: u32,
    /// 05Ch: what VMRUN flushes.
    pub tlb_control: TlbControl,
    _reserved_05d: [u8; 3],
    /// 060h: virtual interrupt control.
    pub virtual_interrupt: VirtualInterrupt,
    /// 068h: bit 0 interrupt shadow, bit 1 guest interrupt mask (SEV-ES only).
    pub interrupt_state: u64,
    /// 070h: why the guest stopped.
    pub exit_code: u64,
    /// 078h: first detail of the exit.
    pub exit_info1: u64,
    /// 080h: second detail of the exit.
    pub exit_info2: u64,
    /// 088h: event whose delivery the exit cut short.
    pub exit_int_info: u64,
    /// 090h: bit 0 enables nested paging; the rest is SEV and later.
    pub nested_control: u64,
    _reserved_098: [u8; 0x10],
    /// 0A8h: event to inject.
    pub event_injection: u64,
    /// 0B0h: physical address of the nested page tables' root.
    pub nested_cr3: u64,
    /// 0B8h: bit 0 last-branch virtualisation, bit 1 virtualised VMSAVE and VMLOAD.
    pub virtual_extensions: u64,
    /// 0C0h: fields unchanged since the last exit.
    pub clean: Clean,
    _reserved_0c4: u32,
    /// 0C8h: address of the next instruction, where the processor offers it.
    pub next_rip: u64,
    /// 0D0h: how many bytes of `instruction` were fetched (decode assists).
    pub bytes_fetched: u8,
    /// 0D1h: the instruction's bytes (decode assists).
    pub instruction: [u8; 15],
    _reserved_0e0: [u8; 0x320],
}

impl Control {
    /// Bit of `intercept_cr`: writes of CR8.
    pub const CR8_WRITE: u32 = 1 << (16 + 8);
    /// Bit 0 of `interrupt_state`: in the shadow of STI or MOV SS.
    pub const INTERRUPT_SHADOW: u64 = 1;
    /// Bit 0 of `nested_control`.
    pub const NESTED_PAGING: u64 = 1;
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Control>() == 0x400);
    assert!(offset_of!(Control, intercept5) == 0x014);
    assert!(offset_of!(Control, pause_threshold) == 0x03C);
    assert!(offset_of!(Control, iopm_base) == 0x040);
    assert!(offset_of!(Control, msrpm_base) == 0x048);
    assert!(offset_of!(Control, tsc_offset) == 0x050);
    assert!(offset_of!(Control, asid) == 0x058);
    assert!(offset_of!(Control, tlb_control) == 0x05C);
    assert!(offset_of!(Control, virtual_interrupt) == 0x060);
    assert!(offset_of!(Control, interrupt_state) == 0x068);
    assert!(offset_of!(Control, exit_code) == 0x070);
    assert!(offset_of!(Control, exit_int_info) == 0x088);
    assert!(offset_of!(Control, nested_control) == 0x090);
    assert!(offset_of!(Control, event_injection) == 0x0A8);
    assert!(offset_of!(Control, nested_cr3) == 0x0B0);
    assert!(offset_of!(Control, virtual_extensions) == 0x0B8);
    assert!(offset_of!(Control, clean) == 0x0C0);
    assert!(offset_of!(Control, next_rip) == 0x0C8);
    assert!(offset_of!(Control, bytes_fetched) == 0x0D0);
    assert!(offset_of!(Control, instruction) == 0x0D1);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_interrupt_is_packed_as_the_manual_says() {
        let base = VirtualInterrupt::MASKING.with_tpr(0x7);
        assert_eq!(base.bits(), 0x0100_0007);
        assert_eq!(base.with_pending(0).bits(), 0x011F_0107);
        assert_eq!(base.with_pending(0xEC).bits(), 0xEC_011F_0107);
        assert_eq!(base.with_pending(0xEC).with_pending(0x30), base.with_pending(0x30));
        assert_eq!(base.with_pending(0xEC).without_pending(), base);
    }

    #[test]
    fn tpr_has_four_bits_and_touches_nothing_else() {
        let busy = VirtualInterrupt::MASKING.with_pending(0xEC);
        assert_eq!(busy.with_tpr(0xFF).tpr(), 0xF);
        assert_eq!(busy.with_tpr(0xFF).bits() & !0xFF, busy.bits());
        assert_eq!(busy.with_tpr(0xFF).with_tpr(2).tpr(), 2);
    }
}
