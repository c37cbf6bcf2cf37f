//! Sizes of memory as people write them.

use std::fmt;
use std::str::FromStr;

/// The least memory a node can have: below it the hypervisor's fixed part
/// and its receive buffers leave nothing worth lending.
pub const NODE_MIN_BYTES: u64 = 128 << 20;
/// The most memory a node can have (the width of a page number on the wire
/// allows more; an emulator's address space does not).
pub const NODE_MAX_BYTES: u64 = 1 << 40;
/// Contributions are counted in runs of 2 MiB.
const UNIT_BYTES: u64 = 2 << 20;

/// Memory of a node in bytes: a multiple of 2 MiB within the limits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct MemorySize(u64);

/// Why a text is no size of a node's memory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemorySizeError {
    /// Not a number with an optional unit.
    #[error("`{0}` is no size of memory; write a number and K, M, G or T, such as 512M or 4G")]
    Syntax(String),
    /// Less than [`NODE_MIN_BYTES`].
    #[error("`{0}` is too little memory; a node needs at least 128M")]
    TooLittle(String),
    /// More than [`NODE_MAX_BYTES`].
    #[error("`{0}` is too much memory; a node has at most 1T")]
    TooMuch(String),
    /// Not a multiple of 2 MiB.
    #[error("`{0}` is not a multiple of 2M, the unit in which nodes lend memory")]
    Unaligned(String),
}

impl MemorySize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in MiB.
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    fn from_str(text: &str) -> Result<Self, MemorySizeError> {
        let syntax = || MemorySizeError::Syntax(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let number = lower.strip_suffix("ib").unwrap_or(&lower);
        let split = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let (digits, unit) = number.split_at(split);
        if unit.is_empty() && lower.ends_with("ib") {
            return Err(syntax());
        }
        let shift = match unit {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(syntax()),
        };
        let count: u64 = digits.parse().map_err(|_| syntax())?;
        let too_much = || MemorySizeError::TooMuch(text.to_owned());
        let bytes = count.checked_mul(1 << shift).ok_or_else(too_much)?;
        match bytes {
            b if b < NODE_MIN_BYTES => Err(MemorySizeError::TooLittle(text.to_owned())),
            b if b > NODE_MAX_BYTES => Err(too_much()),
            b if !b.is_multiple_of(UNIT_BYTES) => Err(MemorySizeError::Unaligned(text.to_owned())),
            b => Ok(Self(b)),
        }
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1 << 30) {
            write!(f, "{} GiB", self.0 >> 30)
        } else {
            write!(f, "{} MiB", self.0 >> 20)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        for (text, mib) in
            [("1G", 1024), ("512M", 512), ("512m", 512), ("2GiB", 2048), ("1T", 1 << 20)]
        {
            assert_eq!(text.parse::<MemorySize>().unwrap().mib(), mib, "{text}");
        }
        assert_eq!("134217728".parse::<MemorySize>().unwrap().mib(), 128);
        assert_eq!("1048576K".parse::<MemorySize>().unwrap().mib(), 1024);
    }

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        use MemorySizeError as E;
        let error = |text: &str| text.parse::<MemorySize>().unwrap_err();
        for text in ["", "G", "1X", "-1G", "1 G", "1.5G", "iB", "512ib", "१G"] {
            assert_eq!(error(text), E::Syntax(text.to_owned()));
        }
        assert_eq!(error("64M"), E::TooLittle("64M".to_owned()));
        assert_eq!(error("0"), E::TooLittle("0".to_owned()));
        assert_eq!(error("2T"), E::TooMuch("2T".to_owned()));
        assert_eq!(error("99999999999T"), E::TooMuch("99999999999T".to_owned()));
        assert_eq!(error("513M"), E::Unaligned("513M".to_owned()));
    }

    #[test]
    fn sizes_show_in_the_largest_whole_unit() {
        assert_eq!("2048M".parse::<MemorySize>().unwrap().to_string(), "2 GiB");
        assert_eq!("1536M".parse::<MemorySize>().unwrap().to_string(), "1536 MiB");
    }
}
