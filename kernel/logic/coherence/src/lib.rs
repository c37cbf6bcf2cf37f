//! The page coherence protocol.
#![no_std]
#![forbid(unsafe_code)]
