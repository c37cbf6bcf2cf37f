//! Interrupt messages between I/O APIC, local APICs and the machine.

/// How an interrupt is delivered (Intel SDM vol. 3, 11.6.1; the encoding is
/// that of the ICR and of I/O APIC redirection entries).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Delivery {
    /// To all destinations.
    Fixed,
    /// To the one destination with the lowest priority.
    LowestPriority,
    /// System management interrupt. There is no SMM: to be dropped.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up; the vector is the page the processor starts in.
    StartUp,
    /// The vector comes from the 8259 pair.
    ExtInt,
}

impl Delivery {
    /// Decodes the 3-bit field; `None` for reserved 3.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Delivery> {
        match bits & 7 {
            0 => Some(Delivery::Fixed),
            1 => Some(Delivery::LowestPriority),
            2 => Some(Delivery::Smi),
            4 => Some(Delivery::Nmi),
            5 => Some(Delivery::Init),
            6 => Some(Delivery::StartUp),
            7 => Some(Delivery::ExtInt),
            _ => None,
        }
    }
}

/// Whom an interrupt is for.
///
/// Numbers are as the sender's registers hold them: `wide` tells whether a
/// broadcast is 0xFFFF_FFFF (from an x2APIC) or 0xFF (xAPIC, I/O APIC, MSI).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Destination {
    /// By APIC id.
    Physical {
        /// APIC id or broadcast.
        id: u32,
        /// From an x2APIC.
        wide: bool,
    },
    /// By logical APIC id.
    Logical {
        /// Message destination address.
        mda: u32,
        /// From an x2APIC.
        wide: bool,
    },
    /// The sender alone.
    Myself,
    /// All, the sender too.
    All,
    /// All but the sender.
    Others,
}

/// An interrupt on its way to local APICs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Message {
    /// Whom for; [`crate::lapic::Lapic::accepts`] tells for each local APIC.
    pub destination: Destination,
    /// How.
    pub delivery: Delivery,
    /// Vector (of INIT, NMI, ExtINT without meaning).
    pub vector: u8,
    /// Level-triggered: its EOI must go back to the I/O APIC.
    pub level: bool,
}

impl Message {
    /// Decodes a message-signalled interrupt (Intel SDM vol. 3, 11.11);
    /// `None` if it addresses no local APIC or its delivery mode is reserved.
    ///
    /// Address bits 5 to 11 hold bits 8 to 14 of the destination, as
    /// hypervisors without interrupt remapping agree on ("extended
    /// destination id").
    #[must_use]
    pub fn from_msi(address: u64, data: u32) -> Option<Message> {
        if address >> 20 != 0xFEE {
            return None;
        }
        let low = address as u32;
        let id = ((low >> 12) & 0xFF) | ((low >> 5) & 0x7F) << 8;
        let destination = if low & 4 == 0 {
            Destination::Physical { id, wide: false }
        } else {
            Destination::Logical { mda: id, wide: false }
        };
        let delivery = Delivery::from_bits((data >> 8) as u8)?;
        Some(Message { destination, delivery, vector: data as u8, level: data & 0x8000 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msi() {
        let m = Message::from_msi(0xFEE0_5000 | 1 << 5, 0x4041).unwrap();
        assert_eq!(m.destination, Destination::Physical { id: 0x105, wide: false });
        assert_eq!((m.delivery, m.vector, m.level), (Delivery::Fixed, 0x41, false));
        assert_eq!(Message::from_msi(0xFED0_0000, 0x41), None);
        assert_eq!(Message::from_msi(0xFEE0_0000, 0x341), None);
    }
}
