//! From whatever state the firmware left to a running device.
//!
//! Source: 317453, chapter 14 "General Initialization and Reset Operation";
//! for the 82574L its datasheet, 4.6 "Software Initialization and Diagnostics".
//! Every wait is bounded.

use super::registers::*;
use super::{Family, ReceiveRing, TransmitRing};
use crate::{Environment, NicError, Registers, is_unicast};

/// Steps of a bounded wait, and what one step takes.
const WAIT_STEPS: u32 = 1000;
const WAIT_STEP_US: u32 = 100;

/// Waits until `done`, at most [`WAIT_STEPS`] steps; says whether it came.
fn wait(
    environment: &mut dyn Environment,
    registers: &impl Registers,
    done: impl Fn(u32) -> bool,
    register: usize,
) -> bool {
    for _ in 0..WAIT_STEPS {
        if done(registers.read32(register)) {
            return true;
        }
        environment.delay_us(WAIT_STEP_US);
    }
    false
}

/// Stops the device, resets it and masks its interrupts (14.3, 14.4).
pub(super) fn reset(
    registers: &mut impl Registers,
    environment: &mut dyn Environment,
    family: Family,
) -> Result<(), NicError> {
    registers.write32(IMC, u32::MAX);
    registers.write32(RCTL, 0);
    registers.write32(TCTL, TCTL_PSP);
    let control = registers.read32(CTRL);
    if family == Family::I82574 {
        // Datasheet 5.2.3: no bus cycle may be under way when CTRL.RST is set.
        registers.write32(CTRL, control | CTRL_GIO_MASTER_DISABLE);
        wait(environment, registers, |status| status & STATUS_GIO_MASTER == 0, STATUS);
    }
    // Frames under way need up to 10 ms to leave at the slowest speed.
    environment.delay_us(10_000);
    registers.write32(CTRL, control | CTRL_RST);
    // The registers must not be touched until the reset has gone through and
    // the MAC address is loaded again (at most 5 ms on these parts).
    environment.delay_us(10_000);
    if !wait(environment, registers, |control| control & CTRL_RST == 0, CTRL) {
        return Err(NicError::ResetTimeout);
    }
    if family == Family::I82574
        && !wait(environment, registers, |eecd| eecd & EECD_AUTO_RD != 0, EECD)
    {
        return Err(NicError::ResetTimeout);
    }
    registers.write32(IMC, u32::MAX);
    registers.read32(ICR);
    Ok(())
}

/// Reads the station address: the one the reset loaded into the first receive
/// address register, else from the EEPROM (13.4.3, 13.5.2).
pub(super) fn station_address(
    registers: &mut impl Registers,
    environment: &mut dyn Environment,
    family: Family,
) -> Result<[u8; 6], NicError> {
    let low = registers.read32(RAL0).to_le_bytes();
    let high = registers.read32(RAH0).to_le_bytes();
    let loaded = [low[0], low[1], low[2], low[3], high[0], high[1]];
    if is_unicast(loaded) {
        return Ok(loaded);
    }
    let mut mac = [0; 6];
    for word in 0..3u32 {
        let value = eeprom_word(registers, environment, family, word)?;
        mac[word as usize * 2..][..2].copy_from_slice(&value.to_le_bytes());
    }
    if is_unicast(mac) { Ok(mac) } else { Err(NicError::NoStationAddress) }
}

/// Reads one 16-bit word through EERD, whose fields moved in the 82574.
fn eeprom_word(
    registers: &mut impl Registers,
    environment: &mut dyn Environment,
    family: Family,
    word: u32,
) -> Result<u16, NicError> {
    let (shift, done) = match family {
        Family::I8254x => (8, 1 << 4),
        Family::I82574 => (2, 1 << 1),
    };
    registers.write32(EERD, word << shift | 1);
    if !wait(environment, registers, |eerd| eerd & done != 0, EERD) {
        return Err(NicError::NoStationAddress);
    }
    Ok((registers.read32(EERD) >> 16) as u16)
}

/// Programs the device after its reset and starts it (14.3 to 14.5).
pub(super) fn start(
    registers: &mut impl Registers,
    family: Family,
    mac: [u8; 6],
    receive: &mut ReceiveRing,
    transmit: &mut TransmitRing,
) {
    // Link: speed and duplex by auto-negotiation of the internal PHY.
    let control = registers.read32(CTRL);
    let off =
        CTRL_LRST | CTRL_ILOS | CTRL_FRCSPD | CTRL_FRCDPX | CTRL_VME | CTRL_PHY_RST | CTRL_RST;
    let off = off | CTRL_GIO_MASTER_DISABLE;
    registers.write32(CTRL, control & !off | CTRL_SLU | CTRL_ASDE | CTRL_FD);

    // One station address, no multicast.
    registers.write32(RAL0, u32::from_le_bytes([mac[0], mac[1], mac[2], mac[3]]));
    registers.write32(RAH0, u32::from(mac[4]) | u32::from(mac[5]) << 8 | RAH_AV);
    for word in 0..MTA_WORDS {
        registers.write32(MTA + 4 * word, 0);
    }

    // Interrupts, once enabled, come at once: no throttle, no delay.
    registers.write32(ITR, 0);
    registers.write32(RDTR, 0);
    registers.write32(RADV, 0);

    transmit.attach(registers);
    if family == Family::I82574 {
        // Legacy receive descriptors (EXSTEN off).
        registers.write32(RFCTL, 0);
        let threshold = registers.read32(TXDCTL);
        registers.write32(TXDCTL, threshold | TXDCTL_COUNT_DESC);
    }
    registers.write32(TIPG, TIPG_COPPER);
    registers.write32(TCTL, TCTL_EN | TCTL_PSP | TCTL_CT | TCTL_COLD);

    // RCTL is written once: QEMU receives nothing for a second after a write.
    receive.attach(registers);
    registers.write32(RCTL, RCTL_EN | RCTL_LPE | RCTL_BAM | RCTL_BSIZE_4096 | RCTL_SECRC);
}
