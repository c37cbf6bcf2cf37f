//! From firmware to Rust.
#![no_std]
