//! Registers and descriptor fields of the 8254x and 82574L.
//!
//! Source: Intel "PCI/PCI-X Family of Gigabit Ethernet Controllers Software
//! Developer's Manual" 317453 (chapter 13, "Register Descriptions"; 3.2.3 and
//! 3.3.3 for the legacy descriptors), and "82574 GbE Controller Family
//! Datasheet" (chapter 10) for what differs there.

pub(super) const CTRL: usize = 0x0000;
pub(super) const STATUS: usize = 0x0008;
pub(super) const EECD: usize = 0x0010;
pub(super) const EERD: usize = 0x0014;
pub(super) const ICR: usize = 0x00C0;
pub(super) const ITR: usize = 0x00C4;
pub(super) const ICS: usize = 0x00C8;
pub(super) const IMS: usize = 0x00D0;
pub(super) const IMC: usize = 0x00D8;
pub(super) const RCTL: usize = 0x0100;
pub(super) const TCTL: usize = 0x0400;
pub(super) const TIPG: usize = 0x0410;
pub(super) const RDBAL: usize = 0x2800;
pub(super) const RDBAH: usize = 0x2804;
pub(super) const RDLEN: usize = 0x2808;
pub(super) const RDH: usize = 0x2810;
pub(super) const RDT: usize = 0x2818;
pub(super) const RDTR: usize = 0x2820;
pub(super) const RADV: usize = 0x282C;
pub(super) const TDBAL: usize = 0x3800;
pub(super) const TDBAH: usize = 0x3804;
pub(super) const TDLEN: usize = 0x3808;
pub(super) const TDH: usize = 0x3810;
pub(super) const TDT: usize = 0x3818;
pub(super) const TXDCTL: usize = 0x3828;
pub(super) const MPC: usize = 0x4010;
pub(super) const RFCTL: usize = 0x5008;
pub(super) const MTA: usize = 0x5200;
pub(super) const RAL0: usize = 0x5400;
pub(super) const RAH0: usize = 0x5404;

/// 32-bit words in the multicast table.
pub(super) const MTA_WORDS: usize = 128;
/// Bytes of registers that this driver reaches.
pub(super) const BLOCK_LEN: usize = 0x6000;

pub(super) const CTRL_FD: u32 = 1 << 0;
/// 82574: stops the device from starting bus cycles.
pub(super) const CTRL_GIO_MASTER_DISABLE: u32 = 1 << 2;
pub(super) const CTRL_LRST: u32 = 1 << 3;
pub(super) const CTRL_ASDE: u32 = 1 << 5;
pub(super) const CTRL_SLU: u32 = 1 << 6;
pub(super) const CTRL_ILOS: u32 = 1 << 7;
pub(super) const CTRL_FRCSPD: u32 = 1 << 11;
pub(super) const CTRL_FRCDPX: u32 = 1 << 12;
pub(super) const CTRL_RST: u32 = 1 << 26;
pub(super) const CTRL_VME: u32 = 1 << 30;
pub(super) const CTRL_PHY_RST: u32 = 1 << 31;

pub(super) const STATUS_LU: u32 = 1 << 1;
/// 82574: bus cycles may still be under way.
pub(super) const STATUS_GIO_MASTER: u32 = 1 << 19;

/// 82574: the registers were loaded from the NVM.
pub(super) const EECD_AUTO_RD: u32 = 1 << 9;

pub(super) const INTERRUPT_LSC: u32 = 1 << 2;
pub(super) const INTERRUPT_RXDMT0: u32 = 1 << 4;
pub(super) const INTERRUPT_RXO: u32 = 1 << 6;
pub(super) const INTERRUPT_RXT0: u32 = 1 << 7;

pub(super) const RCTL_EN: u32 = 1 << 1;
pub(super) const RCTL_LPE: u32 = 1 << 5;
pub(super) const RCTL_BAM: u32 = 1 << 15;
/// BSIZE 11b with BSEX: buffers of 4096 bytes.
pub(super) const RCTL_BSIZE_4096: u32 = 0b11 << 16 | 1 << 25;
pub(super) const RCTL_SECRC: u32 = 1 << 26;

pub(super) const TCTL_EN: u32 = 1 << 1;
pub(super) const TCTL_PSP: u32 = 1 << 3;
/// Collision threshold 15.
pub(super) const TCTL_CT: u32 = 0x0F << 4;
/// Collision distance 64 byte times: full duplex.
pub(super) const TCTL_COLD: u32 = 0x40 << 12;
/// 14.5 "Transmit Initialization": IPGT 10, IPGR1 8, IPGR2 6.
pub(super) const TIPG_COPPER: u32 = 10 | 8 << 10 | 6 << 20;
/// 82574: thresholds count descriptors; must be set (10.2.6.6).
pub(super) const TXDCTL_COUNT_DESC: u32 = 1 << 22;

pub(super) const RAH_AV: u32 = 1 << 31;

/// Bytes in a legacy descriptor, receive or transmit.
pub(super) const DESCRIPTOR_LEN: usize = 16;
/// A descriptor's second quadword: length, checksum or command, status.
pub(super) const DESCRIPTOR_FIELDS: usize = 8;
/// A transmit descriptor's status byte.
pub(super) const TX_STATUS: usize = 12;

pub(super) const RX_DD: u64 = 1 << 32;
pub(super) const RX_EOP: u64 = 1 << 33;
/// CE, SE, SEQ, CXE and RXE: the frame is damaged. The checksum errors TCPE
/// and IPE are not about the frame.
pub(super) const RX_ERRORS: u64 = (1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 7) << 40;

pub(super) const TX_CMD_EOP: u64 = 1 << 24;
pub(super) const TX_CMD_IFCS: u64 = 1 << 25;
pub(super) const TX_CMD_RS: u64 = 1 << 27;
pub(super) const TX_DD: u8 = 1;
