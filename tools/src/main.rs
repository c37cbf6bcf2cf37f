//! `cargo pangaea`.
fn main() {}
