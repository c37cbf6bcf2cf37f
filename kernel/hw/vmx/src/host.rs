//! Host state: what an exit loads (SDM 25.5).

use crate::vmcs::{Field, Vmcs};

/// The processor's registers while the hypervisor runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Host {
    /// CR0, CR3 and CR4.
    pub cr: [u64; 3],
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Selectors of CS, SS and TR.
    pub selectors: [u16; 3],
    /// FS base.
    pub fs_base: u64,
    /// GS base.
    pub gs_base: u64,
    /// TSS base.
    pub tr_base: u64,
    /// GDT base.
    pub gdtr_base: u64,
    /// IDT base.
    pub idtr_base: u64,
    /// Where an exit goes on.
    pub rip: u64,
}

/// The base in a 64-bit TSS descriptor (SDM figure 8-4).
#[must_use]
pub const fn tss_base([low, high]: [u64; 2]) -> u64 {
    (low >> 16 & 0xFF_FFFF) | (low >> 56) << 24 | high << 32
}

impl Host {
    /// Writes the fields, but for RSP, which each entry writes. DS, ES, FS and
    /// GS are null: 64-bit code needs only the bases (SDM 27.2.3 allows it).
    pub fn write(&self, vmcs: &mut impl Vmcs) {
        let [cs, ss, tr] = self.selectors.map(|selector| u64::from(selector & !7));
        let values = [
            (Field::HOST_CR0, self.cr[0]),
            (Field::HOST_CR3, self.cr[1]),
            (Field::HOST_CR4, self.cr[2]),
            (Field::HOST_PAT, self.pat),
            (Field::HOST_EFER, self.efer),
            (Field::HOST_CS, cs),
            (Field::HOST_SS, ss),
            (Field::HOST_TR, tr),
            (Field::HOST_DS, 0),
            (Field::HOST_ES, 0),
            (Field::HOST_FS, 0),
            (Field::HOST_GS, 0),
            (Field::HOST_FS_BASE, self.fs_base),
            (Field::HOST_GS_BASE, self.gs_base),
            (Field::HOST_TR_BASE, self.tr_base),
            (Field::HOST_GDTR_BASE, self.gdtr_base),
            (Field::HOST_IDTR_BASE, self.idtr_base),
            (Field::HOST_SYSENTER_CS, 0),
            (Field::HOST_SYSENTER_ESP, 0),
            (Field::HOST_SYSENTER_EIP, 0),
            (Field::HOST_RIP, self.rip),
        ];
        for (field, value) in values {
            vmcs.write(field, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn a_tss_descriptor_is_put_together() {
        assert_eq!(tss_base([0x1200_8B34_5678_0067, 0x9ABC_DEF0]), 0x9ABC_DEF0_1234_5678);
    }

    #[test]
    fn selectors_lose_what_an_entry_would_refuse() {
        let mut vmcs = Fake::default();
        Host { selectors: [8, 0x13, 0x18], rip: 5, ..Host::default() }.write(&mut vmcs);
        assert_eq!(vmcs.read(Field::HOST_SS), 0x10);
        assert_eq!((vmcs.read(Field::HOST_CS), vmcs.read(Field::HOST_TR)), (8, 0x18));
        assert_eq!(vmcs.read(Field::HOST_RIP), 5);
    }
}
