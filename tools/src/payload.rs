//! What the leading node gets: the guest's kernel, initrd and command line.

use crate::guest::{Guest, command_archive, is_series};
use crate::progress::Progress;
use crate::temporary::TemporaryFile;
use anyhow::{Context, Result, bail};
use runner::cpio::Writer;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The guest kernel's words before the user's: the console, and a reset (in
/// place of a halt) when the kernel panics, so that the run ends.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1";

/// A guest that is to boot.
#[derive(Clone, Debug)]
pub(crate) struct GuestFiles {
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// The initial RAM disk.
    pub(crate) initrd: PathBuf,
    /// The whole command line.
    pub(crate) command_line: String,
}

impl GuestFiles {
    /// Finds the guest's files: the user's, or Debian's.
    pub(crate) fn find(
        kernel: Option<&OsString>,
        initrd: Option<&Path>,
        append: Option<&str>,
        progress: &Progress,
    ) -> Result<Self> {
        let series = kernel.and_then(|k| k.to_str()).filter(|k| is_series(k));
        let file = kernel.filter(|_| series.is_none()).map(PathBuf::from);
        if let Some(kernel) = &file {
            check_kernel(kernel)?;
        }
        if let Some(initrd) = initrd {
            check_initrd(initrd)?;
        }
        let (kernel, initrd) = match (file, initrd) {
            (Some(kernel), Some(initrd)) => (kernel, initrd.to_owned()),
            (kernel, initrd) => {
                let guest = Guest::prepare(series, progress)?;
                (kernel.unwrap_or(guest.kernel), initrd.map_or(guest.initrd, Path::to_owned))
            }
        };
        let words = [COMMAND_LINE, append.unwrap_or_default()];
        let command_line = words.join(" ").trim().to_owned();
        Ok(Self { kernel, initrd, command_line })
    }

    /// The initrd with a run's command behind it.
    pub(crate) fn initrd_with(&self, command: &[OsString], nonce: &str) -> Result<Vec<u8>> {
        let mut initrd = read(&self.initrd)?;
        // The kernel expects an archive to begin at a multiple of four.
        initrd.resize(initrd.len().next_multiple_of(4), 0);
        initrd.extend(command_archive(command, nonce)?);
        Ok(initrd)
    }
}

/// Packs the payload of the leading node: files `kernel`, `initrd` and
/// `cmdline` of one archive.
pub(crate) fn pack(
    kernel: &Path,
    initrd: Option<&[u8]>,
    command_line: &str,
) -> Result<TemporaryFile> {
    let mut cpio = Writer::new(Vec::new());
    cpio.file("kernel", &read(kernel)?, 0o644)?;
    if let Some(initrd) = initrd {
        cpio.file("initrd", initrd, 0o644)?;
    }
    cpio.file("cmdline", command_line.as_bytes(), 0o644)?;
    TemporaryFile::write("payload.cpio", &cpio.finish()?)
}

/// Reads a file whole.
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("the file {} cannot be read", path.display()))
}

/// Refuses what the node could not boot either.
fn check_kernel(path: &Path) -> Result<()> {
    let data = read(path)?;
    if is_bzimage(&data) || is_elf(&data) {
        return Ok(());
    }
    bail!(
        "{} is no kernel; give a Linux bzImage (such as /boot/vmlinuz-...) or a 64-bit ELF file",
        path.display()
    )
}

/// Refuses an initrd that is not there or empty.
fn check_initrd(path: &Path) -> Result<()> {
    if read(path)?.is_empty() {
        bail!("the initrd {} is empty", path.display());
    }
    Ok(())
}

/// Whether this is a Linux kernel with a setup header (Linux
/// Documentation/arch/x86/boot.rst: `boot_flag` at 0x1FE, `HdrS` at 0x202).
fn is_bzimage(data: &[u8]) -> bool {
    data.get(0x1FE..0x200) == Some(&[0x55, 0xAA]) && data.get(0x202..0x206) == Some(b"HdrS")
}

/// Whether this is a 64-bit x86 ELF program (class 2, machine 62).
fn is_elf(data: &[u8]) -> bool {
    data.get(..5) == Some(b"\x7fELF\x02") && data.get(18..20) == Some(&[62, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_from_other_files() {
        let mut image = vec![0; 0x400];
        assert!(!is_bzimage(&image) && !is_elf(&image));
        image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        assert!(!is_bzimage(&image), "a boot sector is no kernel");
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(is_bzimage(&image));
        assert!(is_elf(&std::fs::read(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_elf(b"\x7fELF\x01") && !is_elf(b""));
    }

    #[test]
    fn the_command_follows_the_initrd_at_a_multiple_of_four() {
        let base = TemporaryFile::write("initrd-test", &[7; 9]).unwrap();
        let guest = GuestFiles {
            kernel: PathBuf::new(),
            initrd: base.path().to_owned(),
            command_line: String::new(),
        };
        let initrd = guest.initrd_with(&["true".into()], "abc").unwrap();
        assert_eq!(&initrd[..9], [7; 9]);
        assert_eq!(&initrd[9..12], [0; 3]);
        assert_eq!(&initrd[12..18], b"070701");
    }

    #[test]
    fn a_file_that_is_no_kernel_is_refused_in_a_sentence() {
        let file = TemporaryFile::write("no-kernel", b"hello").unwrap();
        let error = check_kernel(file.path()).unwrap_err().to_string();
        assert!(error.contains("is no kernel"), "{error}");
        assert!(check_kernel(Path::new("/no/such/file")).is_err());
    }
}
