//! The engine of a node.
#![no_std]
#![forbid(unsafe_code)]
