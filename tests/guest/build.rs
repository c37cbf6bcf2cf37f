//! Gives the linker the guests' layout, for the bare-metal target only.

use std::path::Path;

fn main() {
    let script =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("guest.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
        println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
