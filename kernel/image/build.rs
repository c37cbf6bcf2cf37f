//! Gives the linker the image's layout (for the bare-metal target only) and
//! the image its build identity: a hash over the sources it is made of, so
//! that nodes of different builds can tell.

use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for part in ["boot", "kernel", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
        collect(&root.join(part), &mut files);
    }
    files.sort();
    let id = files.iter().filter_map(|f| fs::read(f).ok()).fold(0xcbf2_9ce4_8422_2325, fnv1a);
    println!("cargo:rustc-env=PANGAEA_BUILD_ID={id:016x}");

    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let script = root.join("boot/kernel.ld");
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
        println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    }
}

/// The files that make the image, without hidden ones.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else {
        files.push(path.to_owned());
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with('.') {
            collect(&entry.path(), files);
        }
    }
}

/// FNV-1a, 64 bits: the same everywhere, unlike the standard library's hash.
fn fnv1a(hash: u64, bytes: Vec<u8>) -> u64 {
    bytes.iter().fold(hash, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
