//! The payload: the guest's kernel, its initial RAM disk and command line.
//!
//! QEMU passes one `-initrd` only, so the host tool packs the parts as the
//! files `kernel`, `initrd` and `cmdline` of one cpio archive in the "newc"
//! format (magic 070701; Linux `Documentation/driver-api/early-userspace/
//! buffer-format.rst`). GRUB passes them as modules of these names.

use crate::info::Module;
use crate::read;

const MAGIC: &[u8] = b"070701";
const HEADER_SIZE: usize = 110;
const FILES_MAX: usize = 256;

/// What a guest is started from; each part is absent or a file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Payload<'a> {
    /// The guest's kernel (bzImage).
    pub kernel: Option<&'a [u8]>,
    /// The guest's initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// The guest's command line, without a trailing newline or zero byte.
    pub cmdline: Option<&'a [u8]>,
}

/// One file of an archive.
struct File<'a> {
    name: &'a [u8],
    data: &'a [u8],
    rest: &'a [u8],
}

/// Eight hexadecimal digits.
fn field(header: &[u8], index: usize) -> Option<usize> {
    let digits: [u8; 8] = read::array(header, 6 + index * 8)?;
    digits.iter().try_fold(0usize, |value, &d| {
        let digit = char::from(d).to_digit(16)? as usize;
        Some(value << 4 | digit)
    })
}

fn first_file(archive: &[u8]) -> Option<File<'_>> {
    let header = archive.get(..HEADER_SIZE)?;
    if !header.starts_with(MAGIC) {
        return None;
    }
    let data_len = field(header, 6)?;
    let name_len = field(header, 11)?;
    let name_end = HEADER_SIZE.checked_add(name_len)?;
    let name = archive.get(HEADER_SIZE..name_end)?;
    let data_start = name_end.checked_next_multiple_of(4)?;
    let data_end = data_start.checked_add(data_len)?;
    let data = archive.get(data_start..data_end)?;
    let rest = archive.get(data_end.checked_next_multiple_of(4)?..).unwrap_or(&[]);
    Some(File { name: read::until_zero(name), data, rest })
}

/// Finds a file in a newc archive. Its bytes are four-aligned in the archive.
/// A broken archive ends at the first header that cannot be read.
#[must_use]
pub fn find<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = archive;
    for _ in 0..FILES_MAX {
        let file = first_file(rest)?;
        if file.name == name.as_bytes() {
            return Some(file.data);
        }
        if file.name == b"TRAILER!!!" {
            return None;
        }
        rest = file.rest;
    }
    None
}

/// Whether the bytes start as a newc archive does.
#[must_use]
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Whether a module's command line names the part: its first word is the
/// part's name, with or without a path.
fn is_named(module: &Module, part: &str) -> bool {
    let first = module.name.as_bytes().split(|&b| b == b' ').next().unwrap_or(&[]);
    first.rsplit(|&b| b == b'/').next() == Some(part.as_bytes())
}

fn trimmed(text: &[u8]) -> &[u8] {
    read::until_zero(text).trim_ascii()
}

/// Finds the payload in what the loader brought: in modules named `kernel`,
/// `initrd` and `cmdline`, and for parts without such a module in the first
/// archive that holds a `kernel`. `bytes` gives a module's content.
pub fn payload<'a>(modules: &[Module], bytes: impl Fn(&Module) -> Option<&'a [u8]>) -> Payload<'a> {
    let archive = modules.iter().find_map(|m| {
        let b = bytes(m)?;
        // An initrd is a cpio archive too: only one that has a kernel counts.
        (!is_named(m, "initrd") && is_archive(b) && find(b, "kernel").is_some()).then_some(b)
    });
    let part = |name: &str| {
        let module = modules.iter().find(|m| is_named(m, name)).and_then(&bytes);
        module.or_else(|| find(archive?, name))
    };
    Payload {
        kernel: part("kernel"),
        initrd: part("initrd"),
        cmdline: part("cmdline").map(trimmed),
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use super::*;
    use crate::info::BootInfo;
    use crate::ranges::Range;
    use alloc::format;
    use alloc::vec::Vec;

    fn add(to: &mut Vec<u8>, name: &str, data: &[u8]) {
        to.extend(MAGIC);
        for i in 0..13 {
            let value = match i {
                6 => data.len(),
                11 => name.len() + 1,
                _ => 0,
            };
            to.extend(format!("{value:08X}").bytes());
        }
        to.extend(name.bytes());
        to.push(0);
        to.resize(to.len().next_multiple_of(4), 0);
        to.extend(data);
        to.resize(to.len().next_multiple_of(4), 0);
    }

    fn archive() -> Vec<u8> {
        let mut a = Vec::new();
        add(&mut a, "kernel", b"KERNEL");
        add(&mut a, "initrd", b"0707010 not parsed");
        add(&mut a, "empty", b"");
        add(&mut a, "cmdline", b"console=ttyS0\n");
        add(&mut a, "TRAILER!!!", b"");
        add(&mut a, "after", b"unreachable");
        a
    }

    #[test]
    fn finds_files() {
        let a = archive();
        assert_eq!(find(&a, "kernel"), Some(&b"KERNEL"[..]));
        assert_eq!(find(&a, "empty"), Some(&b""[..]));
        assert_eq!(find(&a, "cmdline"), Some(&b"console=ttyS0\n"[..]));
        assert_eq!(find(&a, "after"), None);
        let at = find(&a, "cmdline").unwrap().as_ptr() as usize - a.as_ptr() as usize;
        assert_eq!(at % 4, 0);
    }

    #[test]
    fn survives_hostile_archives() {
        let good = archive();
        for len in 0..good.len() {
            let _ = find(&good[..len], "cmdline");
        }
        for at in 0..good.len() {
            for v in [0, b'0', b'F', b'f', 0xFF] {
                let mut a = good.clone();
                a[at] = v;
                let _ = find(&a, "cmdline");
            }
        }
    }

    #[test]
    fn payload_from_archive_or_modules() {
        let a = archive();
        let mut info = BootInfo::default();
        info.add_module(Range::new(1, 2), b"");
        let p = payload(info.modules(), |_| Some(&a));
        assert_eq!(p.kernel, Some(&b"KERNEL"[..]));
        assert_eq!(p.cmdline, Some(&b"console=ttyS0"[..]));

        let mut info = BootInfo::default();
        info.add_module(Range::new(1, 2), b"/boot/kernel quiet");
        info.add_module(Range::new(2, 3), b"initrd");
        let p = payload(info.modules(), |m| Some(if m.range.start == 1 { b"K" } else { b"I" }));
        assert_eq!((p.kernel, p.initrd, p.cmdline), (Some(&b"K"[..]), Some(&b"I"[..]), None));
    }
}
