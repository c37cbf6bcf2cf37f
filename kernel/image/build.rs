//! Gives the linker the image's layout; only for the bare-metal target.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=PANGAEA_BUILD_ID");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../boot/kernel.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
        println!("cargo:rustc-link-arg-bins=--no-dynamic-linker");
        println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
        println!("cargo:rustc-link-arg-bins=-znognustack");
    }
}
