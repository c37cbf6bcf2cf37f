//! The targets, one module each.

pub mod boot;
pub mod emulator;
pub mod fabric;
mod guest;
pub mod loader;
pub mod machine;
pub mod protocol;
pub mod wire;
