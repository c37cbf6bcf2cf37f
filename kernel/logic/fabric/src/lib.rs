//! Reliable transport and membership between nodes.
#![no_std]
#![forbid(unsafe_code)]
