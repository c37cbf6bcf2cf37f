//! The guest machine: buses, exits, loader.
#![no_std]
#![forbid(unsafe_code)]
