//! Fuzz targets: whatever comes from outside, byte by byte.
//!
//! Each of [`TARGETS`] is a function of a byte string that must not panic:
//! what a peer sends ([`targets::wire`], [`targets::fabric`],
//! [`targets::protocol`]), what a guest does ([`targets::machine`],
//! [`targets::emulator`]), what a user hands over ([`targets::loader`]) and
//! what firmware says ([`targets::boot`]). `cargo pangaea fuzz` runs them
//! under libFuzzer, guided by coverage; `cargo test -p pangaea-fuzz` runs them
//! over the seeds of `seeds/` and over random changes of those, on any
//! compiler.
#![forbid(unsafe_code)]

pub mod input;
pub mod mutate;
pub mod targets;

/// A function that no byte string may make panic.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("boot", targets::boot::run),
    ("emulator", targets::emulator::run),
    ("fabric", targets::fabric::run),
    ("loader", targets::loader::run),
    ("machine", targets::machine::run),
    ("protocol", targets::protocol::run),
    ("wire", targets::wire::run),
];
