//! The sleep type of S5 (soft off), out of the AML that defines it.
//!
//! Source: ACPI 6.5, 7.4.2.6 (`\_S5`), 20.2.4 and 20.2.5.1 (package
//! encoding). Firmware defines `\_S5` as a constant package, so it is read
//! without interpreting anything else: `Name (_S5, Package () {a, b, ..})`.

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const BYTE_PREFIX: u8 = 0x0A;
const WORD_PREFIX: u8 = 0x0B;
const DWORD_PREFIX: u8 = 0x0C;

/// Finds SLP_TYPa and SLP_TYPb in a definition block's AML.
#[must_use]
pub fn s5(aml: &[u8]) -> Option<(u8, u8)> {
    (0..aml.len()).find_map(|at| {
        let rest = aml[at..].strip_prefix(&[NAME_OP])?;
        let rest = rest.strip_prefix(b"\\").unwrap_or(rest).strip_prefix(b"_S5_")?;
        package(rest.strip_prefix(&[PACKAGE_OP])?)
    })
}

fn package(bytes: &[u8]) -> Option<(u8, u8)> {
    // The two upper bits of the first length byte count the bytes after it.
    let lead = *bytes.first()?;
    let rest = bytes.get(1 + usize::from(lead >> 6)..)?;
    let (&elements, rest) = rest.split_first()?;
    if elements == 0 {
        return None;
    }
    let (a, rest) = integer(rest)?;
    // A package of one element packs both types into it.
    let b = if elements == 1 { a >> 8 } else { integer(rest)?.0 };
    Some((a as u8 & 7, b as u8 & 7))
}

fn integer(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (&prefix, rest) = bytes.split_first()?;
    let len = match prefix {
        ZERO_OP => return Some((0, rest)),
        ONE_OP => return Some((1, rest)),
        BYTE_PREFIX => 1,
        WORD_PREFIX => 2,
        DWORD_PREFIX => 4,
        _ => return None,
    };
    let value = rest.get(..len)?.iter().rev().fold(0, |value, &b| value << 8 | u32::from(b));
    Some((value, &rest[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_usual_spellings() {
        assert_eq!(s5(b"xx\x08_S5_\x12\x06\x04\0\0\0\0"), Some((0, 0)));
        assert_eq!(s5(b"\x08\\_S5_\x12\x0A\x04\x0A\x07\x0A\x05\0\0"), Some((7, 5)));
        assert_eq!(s5(b"\x08_S5_\x12\x47\x00\x02\x01\x0B\x03\x00"), Some((1, 3)));
        assert_eq!(s5(b"\x08_S5_\x12\x05\x01\x0C\x06\x02\0\0"), Some((6, 2)));
    }

    #[test]
    fn refuses_what_is_not_a_package() {
        for bad in [
            &b"_S5_\x12\x06\x04\0\0"[..],
            b"\x08_S5_\x12",
            b"\x08_S5_\x12\xC6\x04\0\0",
            b"\x08_S5_\x12\x06\0\0\0",
            b"\x08_S5_\x12\x06\x04\x0A",
            b"\x08_S5_\x12\x06\x02\x70\0",
        ] {
            assert_eq!(s5(bad), None, "{bad:02x?}");
        }
    }
}
