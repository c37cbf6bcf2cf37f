//! Builds the node's image and the bare guests for the bare-metal target.
//!
//! The target comes with rustup. Where rustup cannot bring it, Debian's own
//! compiler builds the core library itself: its packages hold the library's
//! source. Which of the two is used is found out here.

use crate::progress::Progress;
use crate::system::{self, Need, Probe};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target of everything that runs without an operating system.
pub(crate) const TARGET: &str = "x86_64-unknown-none";
/// Set to `debian` to use Debian's compiler although rustup has the target.
const CHOICE_VARIABLE: &str = "PANGAEA_BARE_TOOLCHAIN";

/// What Debian's compiler needs.
pub(crate) const DEBIAN_NEEDS: [Need; 3] = [
    Need {
        name: "Debian's rustc",
        probe: Probe::File("/usr/bin/rustc"),
        package: "rustc-web",
        purpose: "builds the image where rustup cannot",
    },
    Need {
        name: "the core library's source",
        probe: Probe::File("/usr/lib/rustlib/src/rust/library/core/Cargo.toml"),
        package: "rust-web-src",
        purpose: "builds the image where rustup cannot",
    },
    Need {
        name: "GNU ld",
        probe: Probe::Program("ld"),
        package: "binutils",
        purpose: "links the image where rustup cannot",
    },
];

/// Who compiles for the bare-metal target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's toolchain, which has the target.
    Rustup,
    /// Debian's compiler, which builds the core library too.
    Debian,
}

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR"));
    tools.parent().expect("this package lies in the workspace")
}

/// The folder that cargo builds into.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => {
            let folder = PathBuf::from(folder);
            std::path::absolute(&folder).unwrap_or(folder)
        }
        _ => workspace().join("target"),
    }
}

/// Whether rustup's compiler has the target.
pub(crate) fn rustup_has_target() -> bool {
    let mut ask = Command::new("rustc");
    ask.args(["--print", "target-libdir", "--target", TARGET]).current_dir(workspace());
    system::run(&mut ask).is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// Finds who can compile for the target, and gets it if need be.
pub(crate) fn toolchain(progress: &Progress) -> Result<Toolchain> {
    let forced = std::env::var_os(CHOICE_VARIABLE).is_some_and(|v| v == "debian");
    if !forced {
        if rustup_has_target() {
            return Ok(Toolchain::Rustup);
        }
        if runner::process::in_path("rustup") {
            progress.note(&format!(
                "this machine lacks the target {TARGET}; running: rustup target add {TARGET}"
            ));
            let mut add = system::child("rustup");
            add.args(["target", "add", TARGET]).current_dir(workspace());
            match system::run(&mut add) {
                Ok(_) if rustup_has_target() => return Ok(Toolchain::Rustup),
                _ => progress.note("rustup cannot get it; using Debian's compiler instead"),
            }
        }
    }
    system::ensure(&DEBIAN_NEEDS, progress).with_context(|| {
        format!("the node's image needs the target {TARGET}, which rustup cannot get here")
    })?;
    Ok(Toolchain::Debian)
}

impl Toolchain {
    /// A cargo command for the target: `cargo VERB --target ...`.
    pub(crate) fn cargo(self, verb: &str) -> Command {
        let mut command = system::child("cargo");
        command.current_dir(workspace()).arg(verb).args(["--target", TARGET]);
        if self == Self::Debian {
            command.args([
                "-Zbuild-std=core,alloc,compiler_builtins",
                "-Zbuild-std-features=compiler-builtins-mem",
            ]);
            command
                .env("RUSTUP_TOOLCHAIN", "stable")
                .env("RUSTC", "/usr/bin/rustc")
                // Debian's compiler is a stable one; this lets it build core.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", "ld");
        }
        command
    }
}

/// Builds a package for the target if it is stale, and returns the folder of
/// its programs. The compiler's messages are shown if it fails.
pub(crate) fn build(package: &str, progress: &Progress) -> Result<PathBuf> {
    let toolchain = toolchain(progress)?;
    progress.stage(&format!("building {package}"));
    let mut command = toolchain.cargo("build");
    command.args(["--package", package, "--profile", "kernel"]);
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cargo cannot be started; is Rust installed?")?;
    if !output.status.success() {
        progress.suspend(|| eprint!("{}", String::from_utf8_lossy(&output.stderr)));
        bail!("{package} does not build; see the compiler's messages above");
    }
    progress.clear();
    Ok(target_folder().join(TARGET).join("kernel"))
}

/// Builds the node's image and returns its file.
pub(crate) fn node_image(progress: &Progress) -> Result<PathBuf> {
    let image = build("pangaea-kernel", progress)?.join("pangaea-kernel");
    if !image.is_file() {
        bail!("cargo built no image at {}", image.display());
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_found() {
        assert!(workspace().join("qemu/machines/q35-svm.toml").is_file());
    }

    #[test]
    fn only_debians_compiler_builds_the_core_library() {
        let has = |toolchain: Toolchain, word: &str| {
            toolchain.cargo("build").get_args().any(|a| a.to_string_lossy().starts_with(word))
        };
        assert!(!has(Toolchain::Rustup, "-Zbuild-std"));
        assert!(has(Toolchain::Debian, "-Zbuild-std=core"));
        assert!(has(Toolchain::Rustup, TARGET) && has(Toolchain::Debian, TARGET));
    }
}
