//! The Linux machines: Debian's kernel with all its drivers, and an initial
//! RAM disk of Debian's programs and the program `peer`.

use crate::compile::{self, workspace};
use crate::guest::{archive, cache_folder, debian, find_kernel, libraries};
use crate::payload::{self, GuestFiles};
use crate::progress::Progress;
use crate::system;
use crate::temporary::TemporaryFile;
use anyhow::{Context, Result, bail};
use object::read::{Object, ObjectSection};
use runner::cpio::Writer;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The cloud kernel has no driver for the e1000; this one has.
const KERNEL: &str = "linux-image-amd64";
/// The programs beside busybox: their packages and their files there.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("busybox-static", &["bin/busybox"]),
    ("nbd-client", &["sbin/nbd-client"]),
    ("nbd-server", &["bin/nbd-server"]),
    ("redis-server", &["usr/bin/redis-server"]),
    ("redis-tools", &["usr/bin/redis-cli", "usr/bin/redis-benchmark"]),
    ("stress-ng", &["usr/bin/stress-ng"]),
];
/// The folders of scripts in `tests/peers/machine`.
const SCRIPTS: [&str; 2] = ["roles", "workloads"];
/// The kernel's modules that a role loads.
const MODULES: [&str; 6] = ["e1000", "nbd", "irqbypass", "kvm", "ccp", "kvm-amd"];
/// The bare guests that run on KVM.
const GUESTS: [&str; 2] = ["touch", "exits"];
/// The target of `peer`: this host's own, linked with all its libraries.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What a Linux machine boots.
pub(super) struct LinuxFiles {
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// The initial RAM disk.
    pub(super) initrd: TemporaryFile,
}

/// Debian as a guest: the kernel, and the initial RAM disk of `run`.
pub(super) struct DebianGuest {
    files: GuestFiles,
    /// With the command behind it.
    initrd: Vec<u8>,
}

impl DebianGuest {
    /// Takes the default guest, whose command is a script of
    /// `tests/peers/machine/workloads` with `words` in its environment.
    pub(super) fn prepare(script: &str, words: &[String], progress: &Progress) -> Result<Self> {
        let path = workspace().join("tests/peers/machine/workloads").join(script);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("the script {} cannot be read", path.display()))?;
        let mut command: Vec<OsString> = vec!["env".into()];
        command.extend(words.iter().map(OsString::from));
        command.extend(["sh".into(), "-c".into(), text.into()]);
        let files = GuestFiles::find(None, None, None, progress)?;
        // Nobody waits for the end record; the script has a last word.
        let initrd = files.initrd_with(&command, "bench")?;
        Ok(Self { files, initrd })
    }

    /// Packs it for a node of Pangaea's.
    pub(super) fn pack(&self) -> Result<TemporaryFile> {
        payload::pack(&self.files.kernel, Some(&self.initrd), &self.files.command_line)
    }
}

impl LinuxFiles {
    /// The initial RAM disk with a guest's files behind it.
    pub(super) fn initrd_with(&self, guest: &DebianGuest) -> Result<TemporaryFile> {
        let mut initrd = std::fs::read(self.initrd.path())?;
        // The kernel expects an archive to begin at a multiple of four.
        initrd.resize(initrd.len().next_multiple_of(4), 0);
        let mut cpio = Writer::new(Vec::new());
        cpio.directory("peers/guest", 0o755)?;
        cpio.file("peers/guest/kernel", &std::fs::read(&guest.files.kernel)?, 0o644)?;
        cpio.file("peers/guest/initrd", &guest.initrd, 0o644)?;
        initrd.extend(cpio.finish()?);
        TemporaryFile::write("peers-guest.cpio", &initrd)
    }

    /// Fetches and assembles it; the bare guests are in the folder `guests`.
    pub(super) fn prepare(guests: &Path, progress: &Progress) -> Result<Self> {
        let peer = build_peer(progress)?;
        let cache = cache_folder()?;
        let mut store = debian::Store::open(&cache, progress)?;
        progress.stage("fetching Debian's kernel with all its drivers");
        let package = debian::kernel_of(KERNEL)?;
        let root = store.unpack(std::slice::from_ref(&package))?.remove(0);
        let kernel = find_kernel(&root)?;
        progress.stage("assembling the Linux machines from Debian's packages");
        let packages: Vec<String> = PROGRAMS.iter().map(|(p, _)| (*p).to_owned()).collect();
        let files: Vec<&str> = PROGRAMS.iter().flat_map(|(_, f)| f.iter().copied()).collect();
        let mut contents = libraries::collect(&mut store, &packages, &files)?;
        contents.programs.insert("peer".to_owned(), std::fs::read(&peer)?);
        let mut files = modules(&root)?;
        for guest in GUESTS {
            files.push((format!("peers/{guest}"), std::fs::read(guests.join(guest))?));
        }
        let machine = workspace().join("tests/peers/machine");
        for folder in SCRIPTS {
            for entry in std::fs::read_dir(machine.join(folder))?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                files.push((format!("peers/{folder}/{name}"), std::fs::read(entry.path())?));
            }
        }
        let init = std::fs::read_to_string(machine.join("init"))?;
        let archive = archive::build(&contents, &init, &files)?;
        let initrd = TemporaryFile::write("peers.cpio", &archive)?;
        progress.clear();
        Ok(Self { kernel, initrd })
    }
}

/// Builds the program `peer` without shared libraries.
fn build_peer(progress: &Progress) -> Result<PathBuf> {
    progress.stage("building the peers");
    let mut command = system::child("cargo");
    command.current_dir(workspace());
    command.args(["build", "--package", "pangaea-peers", "--bin", "peer"]);
    command.args(["--release", "--target", TARGET]);
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    let output = command.stdin(Stdio::null()).output().context("cargo cannot be started")?;
    if !output.status.success() {
        progress.suspend(|| eprint!("{}", String::from_utf8_lossy(&output.stderr)));
        bail!("the peers do not build; see the compiler's messages above");
    }
    Ok(compile::target_folder().join(TARGET).join("release/peer"))
}

/// The modules that are needed, from the unpacked kernel package.
fn modules(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut next = vec![root.join("lib/modules")];
    while let Some(folder) = next.pop() {
        for path in std::fs::read_dir(&folder)?.filter_map(|e| Some(e.ok()?.path())) {
            let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                next.push(path);
            } else if path.extension().is_some_and(|e| e == "ko")
                && MODULES.contains(&name.as_str())
            {
                found.push((name, std::fs::read(&path)?));
            }
        }
    }
    for wanted in MODULES {
        let module = found.iter().find(|(name, _)| name == wanted);
        let (_, data) =
            module.with_context(|| format!("Debian's kernel has no module {wanted}"))?;
        if let Some(lacking) = depends(data)?.iter().find(|d| !MODULES.contains(&d.as_str())) {
            bail!("the module {wanted} of Debian's kernel needs {lacking}, which no role loads");
        }
    }
    Ok(found.into_iter().map(|(n, data)| (format!("peers/modules/{n}.ko"), data)).collect())
}

/// The modules that a module names as its needs (section `.modinfo`).
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("a module is no ELF file")?;
    let section = file.section_by_name(".modinfo").context("a module tells nothing of itself")?;
    let data = section.data()?;
    let words = data.split(|&byte| byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
    let names = words.filter_map(|word| word.strip_prefix("depends=")).flat_map(|n| n.split(','));
    Ok(names.filter(|name| !name.is_empty()).map(|name| name.replace('_', "-")).collect())
}
