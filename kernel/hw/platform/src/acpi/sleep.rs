//! The sleep type of S5 (soft off), out of the AML that defines it.
//!
//! Source: ACPI 6.5, 7.4.2.6 (`\_S5`), 20.2.4 and 20.2.5.1 (package
//! encoding). Firmware defines `\_S5` as a package of constants. The acpi
//! crate's interpreter evaluates it, but is given that one definition only,
//! after a check that it is of this form: on anything else in a firmware's
//! AML the interpreter might reach for hardware, or panic.

use super::guard::Guard;
use acpi::aml::Interpreter;
use acpi::aml::namespace::AmlName;
use acpi::aml::object::Object;
use acpi::registers::FixedRegisters;
use acpi::sdt::fadt::Fadt;
use alloc::sync::Arc;
use alloc::vec;
use boot::pvh::Physical;
use core::str::FromStr;

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const ONES_OP: u8 = 0xFF;
const BYTE_PREFIX: u8 = 0x0A;
const WORD_PREFIX: u8 = 0x0B;
const DWORD_PREFIX: u8 = 0x0C;
const QWORD_PREFIX: u8 = 0x0E;

/// SLP_TYPa and SLP_TYPb of S5, if a definition block's AML defines them.
/// `revision` is that of the block.
pub(super) fn s5<M: Physical>(
    guard: &Guard<'_, M>,
    fadt: &Fadt,
    revision: u8,
    aml: &[u8],
) -> Option<(u8, u8)> {
    let definition = definition(aml)?;
    // The interpreter wants registers, which constants do not use. Those of
    // ACPI 1.0 are ports, which need no mapping.
    let mut fadt = *fadt;
    fadt.header.revision = 1;
    let registers = Arc::new(FixedRegisters::new(&fadt, guard.clone()).ok()?);
    let interpreter = Interpreter::new(guard.clone(), revision, registers, None);
    interpreter.load_table(definition).ok()?;
    let s5 = interpreter.evaluate(AmlName::from_str("\\_S5").ok()?, vec![]).ok()?;
    let Object::Package(elements) = &*s5 else { return None };
    let integer = |index: usize| match elements.get(index).map(|e| &**e) {
        Some(Object::Integer(value)) => Some(*value),
        _ => None,
    };
    let a = integer(0)?;
    // A package of one element packs both types into it.
    let b = if elements.len() == 1 { a >> 8 } else { integer(1)? };
    Some((a as u8 & 7, b as u8 & 7))
}

/// Finds `Name (_S5, Package () {..})`, a package of integer constants.
fn definition(aml: &[u8]) -> Option<&[u8]> {
    (0..aml.len()).find_map(|at| {
        let rest = aml[at..].strip_prefix(&[NAME_OP])?;
        let rest = rest.strip_prefix(b"\\").unwrap_or(rest).strip_prefix(b"_S5_")?;
        let package = rest.strip_prefix(&[PACKAGE_OP])?;
        let len = package_length(package)?;
        Some(&aml[at..aml.len() - package.len() + len])
    })
}

/// Bytes of a package of constants, from its length field on.
fn package_length(bytes: &[u8]) -> Option<usize> {
    // The two upper bits of the first length byte count the bytes after it.
    let lead = *bytes.first()?;
    let more = usize::from(lead >> 6);
    let low = usize::from(if more == 0 { lead } else { lead & 0xF });
    let high = bytes.get(1..1 + more)?.iter().rev().fold(0, |v, &b| v << 8 | usize::from(b));
    let len = high << 4 | low;
    let (&elements, mut rest) = bytes.get(1 + more..len)?.split_first()?;
    let mut found = 0;
    while !rest.is_empty() {
        rest = after_integer(rest)?;
        found += 1;
    }
    (1..=usize::from(elements)).contains(&found).then_some(len)
}

/// What follows an integer constant.
fn after_integer(bytes: &[u8]) -> Option<&[u8]> {
    let (&prefix, rest) = bytes.split_first()?;
    let len = match prefix {
        ZERO_OP | ONE_OP | ONES_OP => 0,
        BYTE_PREFIX => 1,
        WORD_PREFIX => 2,
        DWORD_PREFIX => 4,
        QWORD_PREFIX => 8,
        _ => return None,
    };
    rest.get(len..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    struct NoMemory;

    impl Physical for NoMemory {
        fn bytes(&self, _: u64, _: usize) -> Option<&[u8]> {
            None
        }
    }

    fn evaluate(aml: &[u8]) -> Option<(u8, u8)> {
        let guard = Guard(&NoMemory);
        // SAFETY: the guard asks nothing of its caller; these are zeros.
        let fadt = unsafe { acpi::Handler::map_physical_region::<Fadt>(&guard, 0, 0) };
        s5(&guard, &fadt, 2, aml)
    }

    #[test]
    fn reads_the_usual_spellings() {
        assert_eq!(evaluate(b"xx\x08_S5_\x12\x06\x04\0\0\0\0"), Some((0, 0)));
        assert_eq!(evaluate(b"\x08\\_S5_\x12\x08\x04\x0A\x07\x0A\x05\0\0!"), Some((7, 5)));
        assert_eq!(evaluate(b"\x08_S5_\x12\x47\x00\x02\x01\x0B\x03\x00"), Some((1, 3)));
        assert_eq!(evaluate(b"\x08_S5_\x12\x07\x01\x0C\x06\x02\0\0"), Some((6, 2)));
        // Elements that are not given are uninitialised.
        assert_eq!(evaluate(b"\x08_S5_\x12\x06\x04\x0A\x05\x0A\x04"), Some((5, 4)));
        assert_eq!(evaluate(b"\x08_S5_\x12\x04\x04\x0A\x05"), None);
    }

    #[test]
    fn refuses_what_is_not_a_package_of_constants() {
        for bad in [
            &b"_S5_\x12\x06\x04\0\0"[..],
            b"\x08_S5_\x12",
            b"\x08_S5_\x12\0",
            b"\x08_S5_\x12\xC6\x04\0\0",
            b"\x08_S5_\x12\x06\0\0\0\0\0",
            b"\x08_S5_\x12\x02\x04",
            b"\x08_S5_\x12\x03\x04\x0A",
            b"\x08_S5_\x12\x04\x01\0\0",
            b"\x08_S5_\x12\x04\x02\x70\0",
        ] {
            assert_eq!(definition(bad), None, "{bad:02x?}");
        }
    }

    /// Whatever passes the check, the interpreter takes without a panic.
    #[test]
    fn the_interpreter_survives_every_package_that_passes() {
        const BYTES: [u8; 12] = [0, 1, 2, 3, 4, 7, 0x0A, 0x0B, 0x0C, 0x0E, 0x41, 0xFF];
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut evaluated = 0;
        for _ in 0..20_000 {
            let mut aml = Vec::from(*b"\x08_S5_\x12");
            let len = 2 + random(12);
            aml.extend([len as u8, random(8) as u8]);
            aml.extend((2..len).map(|_| BYTES[random(BYTES.len())]));
            if definition(&aml).is_some() {
                assert!(evaluate(&aml).is_none_or(|(a, b)| a < 8 && b < 8));
                evaluated += 1;
            }
        }
        assert!(evaluated > 500, "only {evaluated} packages passed");
    }
}
