//! Ports, addresses and interrupt numbers that `machine` and the ACPI tables
//! must agree on. The legacy numbers are those of the PC/AT.

use core::ops::RangeInclusive;

/// Local APIC page.
pub const LAPIC_BASE: u64 = 0xFEE0_0000;
/// Bytes of the local APIC page.
pub const LAPIC_SIZE: u64 = 0x1000;
/// I/O APIC page.
pub const IOAPIC_BASE: u64 = 0xFEC0_0000;
/// Bytes of the I/O APIC page.
pub const IOAPIC_SIZE: u64 = 0x1000;
/// I/O APIC identity in the MADT and in its ID register.
pub const IOAPIC_ID: u8 = 0;
/// PCI Express configuration space (ECAM), all 256 buses of segment 0.
pub const ECAM_BASE: u64 = 0xE000_0000;
/// Bytes of the ECAM.
pub const ECAM_SIZE: u64 = 0x1000_0000;
/// Start of the 32-bit window for PCI memory BARs (the end of low RAM).
pub const PCI_MMIO32_BASE: u64 = 0xC000_0000;
/// Bytes of the 32-bit window for PCI memory BARs.
pub const PCI_MMIO32_SIZE: u64 = ECAM_BASE - PCI_MMIO32_BASE;

/// 8259 pair: master.
pub const PIC_MASTER: RangeInclusive<u16> = 0x20..=0x21;
/// 8259 pair: slave.
pub const PIC_SLAVE: RangeInclusive<u16> = 0xA0..=0xA1;
/// 8259 pair: edge/level control registers.
pub const PIC_ELCR: RangeInclusive<u16> = 0x4D0..=0x4D1;
/// 8254 counters and control word.
pub const PIT: RangeInclusive<u16> = 0x40..=0x43;
/// NMI status and control port (speaker gate, refresh toggle, OUT2).
pub const PORT_B: u16 = 0x61;
/// Keyboard controller data port.
pub const I8042_DATA: u16 = 0x60;
/// Keyboard controller command and status port.
pub const I8042_COMMAND: u16 = 0x64;
/// System control port A: fast A20 gate and reset.
pub const PORT_A: u16 = 0x92;
/// The A20 bit of [`PORT_A`]; A20 is always open.
pub const PORT_A_A20: u8 = 2;
/// MC146818 index and data.
pub const RTC: RangeInclusive<u16> = 0x70..=0x71;
/// First serial port.
pub const COM1: RangeInclusive<u16> = 0x3F8..=0x3FF;
/// Second serial port.
pub const COM2: RangeInclusive<u16> = 0x2F8..=0x2FF;
/// Third serial port.
pub const COM3: RangeInclusive<u16> = 0x3E8..=0x3EF;
/// PCI configuration address (a dword; byte accesses to 0xCF9 are
/// [`RESET_CONTROL`]).
pub const PCI_ADDRESS: RangeInclusive<u16> = 0xCF8..=0xCFB;
/// PCI configuration data.
pub const PCI_DATA: RangeInclusive<u16> = 0xCFC..=0xCFF;
/// Reset control register, a byte.
pub const RESET_CONTROL: u16 = 0xCF9;
/// First port of the ACPI fixed hardware block.
pub const PM_BASE: u16 = 0x600;
/// PM1a event block: status, then enable; 4 bytes.
pub const PM1A_EVENT: u16 = PM_BASE;
/// PM1a control block; 2 bytes.
pub const PM1A_CONTROL: u16 = PM_BASE + 4;
/// Power management timer; 4 bytes.
pub const PM_TIMER: u16 = PM_BASE + 8;
/// General purpose event block 0: status, then enable; 4 bytes.
pub const GPE0: u16 = PM_BASE + 0x20;
/// Bytes of [`GPE0`].
pub const GPE0_SIZE: u8 = 4;
/// The whole ACPI fixed hardware block.
pub const PM: RangeInclusive<u16> = PM_BASE..=PM_BASE + 0x23;

/// ISA interrupt of the interval timer.
pub const IRQ_PIT: u8 = 0;
/// I/O APIC pin of the interval timer (MADT override of ISA interrupt 0).
pub const GSI_PIT: u8 = 2;
/// ISA interrupt of COM2.
pub const IRQ_COM2: u8 = 3;
/// ISA interrupt of COM1 and COM3.
pub const IRQ_COM1: u8 = 4;
/// ISA interrupt of COM3.
pub const IRQ_COM3: u8 = 4;
/// ISA interrupt of the real-time clock.
pub const IRQ_RTC: u8 = 8;
/// ISA interrupt of ACPI (SCI): level, active high on our wires.
pub const IRQ_SCI: u8 = 9;

/// Value that the reset control register takes for a full reset.
pub const RESET_VALUE: u8 = 6;
/// SLP_TYP of S5 in PM1 control, as `\_S5` tells it.
pub const SLP_TYP_S5: u8 = 5;
